"""The dashboard in a real browser: every page, wide and narrow, quiet console, nothing loaded from elsewhere, and what
axe finds. The server is the real application; only its clusters and the grid are made up, but for the slow test."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import expect, sync_playwright

from carbon_sched.domain.time import UTC
from carbon_sched.ledger.figures import shown
from tests.fakes.busy_fleet import POLICY, BusyFleet
from tests.fakes.ledger import WrittenLedger, span
from tests.fakes.real_server import eventually
from tests.fakes.served import Served
from tests.fakes.written_jobs import BEGIN, append, stored
from tests.hostile_texts import TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Locator, Page

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZES = {"phone": (375, 812, "light"), "wide": (1920, 1080, "dark")}
SERIOUS = ("serious", "critical")
FIGURES = """(button) => [...button.closest("section").querySelectorAll("table data")]
  .filter((figure) => !figure.closest(".actions")).map((figure) => figure.value)"""
UPDATED = """() => new Promise((done) => {
  document.body.addEventListener("htmx:afterSettle", () => done(), { once: true });
  htmx.trigger("#moving", "sse:news");
})"""
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?").fullmatch


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusyFleet]:
    made = BusyFleet(tmp_path_factory.mktemp("fleet"), ended=3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (.ci/provision chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A browser that is logged in, and everything that it complained of or asked for."""

    def __init__(self, context: BrowserContext, login: str) -> None:
        """`login` is an address that logs in once."""
        self.url, self.page = login[: login.index("/login")], context.new_page()
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.goto(login)

    def to(self, path: str) -> Page:
        self.page.goto(self.url + path)
        self.page.wait_for_function("() => document.fonts.status === 'loaded'")
        return self.page

    def whole(self, path: str, text: str) -> Page:
        """A page that says this, is live, has its curves, fits into its window and is accessible."""
        page = self.to(path)
        expect(page.locator("main")).to_contain_text(text)
        expect(page.locator("#live-state")).to_have_class("live on")
        for place in page.locator("[data-plot]").all():
            expect(place.locator("canvas")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than its window"
        assert self.found_by_axe() == [], path
        return page

    def exported(self, button: Locator) -> str:
        """What a click on it saves."""
        with self.page.expect_download() as download:
            button.click()
        return download.value.path().read_bytes().decode()

    def found_by_axe(self) -> list[str]:
        """Serious findings on the page as it is."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Runtime.evaluate", {"expression": AXE_SCRIPT})
        ask = {"expression": "axe.run()", "awaitPromise": True, "returnByValue": True}
        violations = session.send("Runtime.evaluate", ask)["result"]["value"]["violations"]
        return [
            f"{one['id']}: {node['html'][:160]} ({node['failureSummary']})"
            for one in violations
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]


@pytest.fixture(params=SIZES)
def visit(request: pytest.FixtureRequest, chromium: Browser, fleet: BusyFleet) -> Iterator[Visit]:
    width, height, scheme = SIZES[request.param]
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    yield Visit(context, fleet.client.login_url())
    context.close()


def of(fleet: BusyFleet, state: str) -> str:
    """The page of a job that is in this state."""
    job = next(job for job in fleet.client.jobs(limit=100)["jobs"] if job["state"] == state)
    return f"/jobs/{job['job_id']}"


def test_every_page_is_whole_quiet_local_and_accessible(visit: Visit, fleet: BusyFleet):
    ended = [job["job_id"] for job in fleet.client.jobs(state=["succeeded"])["jobs"]]
    pages = {
        "/": "Grid zones in use",
        "/queue": "birch-1b-sweep-0",
        of(fleet, "succeeded"): "Power by device against the grid",
        of(fleet, "running"): "so far",
        of(fleet, "queued"): "If started now",
        "/footprint?by=model&model=atlas-7b": "Life cycle of a model",
        "/policies": "From version 1 to 2",
        "/health": "Meters of the last day",
        f"/compare?a={ended[0]}&b={ended[1]}": "Under equal conditions",
    }
    for path, text in pages.items():
        visit.whole(path, text)
    assert visit.complaints == []
    assert visit.hosts == {urlsplit(fleet.url).netloc}


def test_an_open_page_shows_a_new_job_by_itself_and_cancels_it(chromium: Browser, fleet: BusyFleet):
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    visit = Visit(context, fleet.client.login_url())
    page = visit.to("/queue")
    expect(page.locator("#live-state")).to_have_class("live on")
    job = fleet.submit("comes while you look", 0, max_delay_s=36_000.0, clusters=["frankfurt"])
    row = page.locator(f"#job-{job.job_id}")
    expect(row).to_contain_text("comes while you look")
    page.on("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Cancel").click()
    expect(row).to_have_count(0)
    assert fleet.world.job(job).state.value == "stopped"
    assert visit.complaints == []
    context.close()


def test_a_waiting_job_is_given_more_time_and_another_is_started_now(chromium: Browser, fleet: BusyFleet):
    context = chromium.new_context(viewport={"width": 375, "height": 812})
    visit = Visit(context, fleet.client.login_url())
    later, soon = (fleet.submit(name, 0, earliest="2026-03-01T22:00:00Z") for name in ("later", "soon"))
    fleet.world.settle()
    page = visit.to(f"/jobs/{later.job_id}")
    page.get_by_role("button", name="More time").click()
    form = page.locator(".sheet")
    form.get_by_label("Ends by").fill("2026-03-04T06:30")
    page.evaluate(UPDATED)  # which brings the page up to date, but not what is being filled in
    form.get_by_role("button", name="Plan anew").click()
    expect(page.locator("main .facts")).to_contain_text("an end by 4 Mar 06:30")
    assert fleet.client.job(later.job_id)["deadline"] == "2026-03-04T06:30:00Z"
    assert visit.found_by_axe() == []
    page = visit.to("/queue")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Start soon now").click()
    expect(page.get_by_role("button", name="Start soon now")).to_have_count(0)
    assert fleet.world.job(soon).spec.start_now
    assert visit.complaints == []
    context.close()


def test_every_table_and_chart_is_exported_with_exact_figures_and_units(chromium: Browser, fleet: BusyFleet):
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    visit = Visit(context, fleet.client.login_url())

    def exported(section: str, form: str) -> str:
        return visit.exported(visit.page.locator(f"[aria-labelledby={section}]").get_by_role("button", name=form))

    job_id = fleet.client.jobs(state=["succeeded"])["jobs"][0]["job_id"]
    receipt = fleet.client.receipt(job_id)
    visit.to(f"/jobs/{job_id}")
    devices = json.loads(exported("h-devices", "JSON"))
    assert [one["Energy (J)"] for one in devices] == [one["energy_j"] for one in receipt["devices"]]
    assert exported("h-attempts", "CSV").startswith('"#","Cluster","Started","Ended","Outcome"\r\n"1",')
    power = json.loads(exported("h-power", "JSON"))
    assert {"time", "gpu (W)", "grid (g/kWh)"} <= set(power[0])
    pictures = [exported("h-power", "SVG")]
    visit.to("/footprint")
    days = json.loads(exported("h-days", "JSON"))
    statement = visit.page.evaluate(
        "fetch('/v1/statement?format=json&since=2026-03-01T00:00:00Z').then((a) => a.json())"
    )
    assert sum(one["ug CO2e"] for one in days) == statement["totals"]["co2e_ug"]
    pictures.append(exported("h-days", "SVG"))
    visit.to("/queue")
    assert "berkeley" in exported("h-plan", "CSV")
    pictures.append(exported("h-plan", "SVG"))
    for picture in pictures:
        root = ET.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in picture
    assert visit.complaints == []
    context.close()


def test_every_figure_of_every_table_is_in_its_export(chromium: Browser, fleet: BusyFleet):
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    visit = Visit(context, fleet.client.login_url())
    pages = (
        "/",
        "/queue",
        of(fleet, "succeeded"),
        of(fleet, "queued"),
        "/footprint?model=atlas-7b",
        "/policies",
        "/health",
    )
    exported = 0
    for path in pages:
        for button in visit.to(path).locator("[data-export=csv]:visible").all():
            figures = button.evaluate(FIGURES)
            cells = set(re.split(r'[",; ]+', visit.exported(button)))
            assert set(figures) <= cells, path
            exported += len(figures)
    assert exported > 150
    assert visit.complaints == []
    context.close()


def test_a_backtest_is_run_by_a_click_and_outlives_an_update(chromium: Browser, fleet: BusyFleet):
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    visit = Visit(context, fleet.client.login_url())
    page = visit.to("/policies?name=everybody&to=1")
    page.get_by_role("button", name="Run it now").click()
    found = page.locator("#backtest")
    expect(found).to_contain_text("instead of", timeout=60_000)
    said = found.inner_text()
    page.evaluate(UPDATED)
    assert found.inner_text() == said
    assert visit.found_by_axe() == []
    assert visit.complaints == []
    context.close()


def test_a_keyboard_reaches_the_content_and_every_job(chromium: Browser, fleet: BusyFleet):
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = Visit(context, fleet.client.login_url()).to("/queue")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('tbody') !== null"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/*")
    context.close()


def test_what_is_exported_is_text_without_a_formula_and_has_every_digit(chromium: Browser, tmp_path):
    served = Served(tmp_path)
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    try:
        stored(served.world, TEXTS)
        written = WrittenLedger()
        written.job("large00001", team="vast")
        hour = BEGIN, BEGIN + timedelta(hours=1)
        written.energy(written.opened("large00001"), span(*hour, 2**60 + 1), span(*hour, 3, "gpu-1"))
        append(served.world, written)
        visit = Visit(context, served.client.login_url())
        for path, table in (("/footprint?by=team", "by-team"), ("/queue?show=ended", "jobs"), ("/health", "meters")):
            group = visit.to(path).get_by_role("group", name=f"Export {table}", exact=True)
            cells = [cell for row in csv.reader(io.StringIO(visit.exported(group.get_by_text("CSV")))) for cell in row]
            assert [cell for cell in cells if cell.strip()[:1] in "=+-@" and cell.strip() and not NUMBER(cell)] == []
            rows = json.loads(visit.exported(group.get_by_text("JSON")))
            assert all(isinstance(row, dict) for row in rows)
            if table == "by-team":
                assert {row["Team"] for row in rows} >= {shown(text).strip() for text in TEXTS if text.strip() == text}
                (vast,) = (row for row in rows if row["Team"] == "vast")
                assert vast["IT energy (uJ)"] == 2**60 + 4
                assert str(2**60 + 4) in cells
        assert visit.complaints == []
        assert visit.hosts == {urlsplit(served.url).netloc}
    finally:
        context.close()
        served.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_real_server_with_real_jobs_is_whole_on_every_page_wide_and_narrow(chromium: Browser, installation, tmp_path):
    """Real Ray heads, through the command line's own login: a job that ended, one that runs and one that waits."""
    (tmp_path / "work.py").write_text(
        "import sys, time; print('<b>hello</b>', flush=True); time.sleep(float(sys.argv[1]))"
    )
    policy = tmp_path / "policy.yaml"
    for text in (POLICY.replace("9, over", "6, over"), POLICY):
        policy.write_text(text)
        installation.run("policy", "apply", str(policy), "--reason", "budgets")
    labels, script = ("--team", "nlp", "--model", "atlas-7b", "--phase", "finetuning"), str(tmp_path / "work.py")
    done = installation.start(*labels, script, "3")
    live = installation.start(*labels, "--duration", "10m", script, "600")
    waits = installation.start(*labels, "--earliest", "+5h", "--max-delay", "6h", "--duration", "1h", script, "5")
    receipt = installation.finished(done)
    with installation.client() as client:
        eventually(lambda: client.receipt(live), lambda found: found["devices"])
    pages = {
        "/": "Grid zones in use",
        "/queue": "work",
        "/queue?show=ended": "work",
        f"/jobs/{done}": "<b>hello</b>",
        f"/jobs/{live}": "so far",
        f"/jobs/{waits}": "If started now",
        "/footprint?by=team": "nlp",
        "/footprint?by=model&model=atlas-7b": "finetuning",
        "/policies?name=everybody": "From version 1 to 2",
        "/health": "Meters of the last day",
        f"/compare?a={done}&b={done}": "Compare",
    }
    hosts, complaints = set(), []
    for width, height, scheme in SIZES.values():
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        visit = Visit(context, installation.run("dashboard", "--print").stdout.strip())
        for path, text in pages.items():
            visit.whole(path, text)
        page = visit.to(f"/jobs/{done}")
        expect(page.locator(f'.figure data[value="{receipt["co2e_ug"]}"]')).to_be_visible()
        page = visit.to("/policies?name=everybody&to=1")
        page.get_by_role("button", name="Run it now").click()
        expect(page.locator("#backtest")).to_contain_text("no intensity was measured", timeout=60_000)
        page = visit.to("/health")
        page.get_by_role("button", name="Verify the whole chain now").click()
        expect(page.locator("#verified")).to_contain_text("verify, up to head")
        assert visit.found_by_axe() == []
        hosts, complaints = hosts | visit.hosts, complaints + visit.complaints
        if scheme == "light":
            context.close()
    page.on("dialog", lambda dialog: dialog.accept())
    visit.to(f"/jobs/{waits}")
    page.get_by_role("button", name="More time").click()
    ends = datetime.now(UTC) + timedelta(days=2)
    page.locator(".sheet").get_by_label("Ends by").fill(f"{ends:%Y-%m-%dT%H:%M}")
    page.locator(".sheet").get_by_role("button", name="Plan anew").click()
    expect(page.locator("main .facts")).to_contain_text("an end by")
    page.get_by_role("button", name=re.compile("Start .* now")).click()
    expect(page.locator("main .state").first).to_have_text(re.compile("succeeded"), timeout=120_000)
    visit.to(f"/jobs/{live}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("main .state").first).to_have_text(re.compile("stopp"))
    assert complaints + visit.complaints == []
    assert len(hosts) == 1
    context.close()
