"""The dashboard's pages over the real application: who sees them, what they may load, and that their numbers are those
of the API to the digit."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched.api.access import COOKIE, CSRF_HEADER
from carbon_sched.api.dashboard.pages import STATIC
from carbon_sched.client import Client
from carbon_sched.ledger.figures import shown
from tests.fakes.busy_fleet import BusyFleet
from tests.fakes.ledger import KWH, WrittenLedger, reading, span
from tests.fakes.served import TOKEN, Served, served
from tests.fakes.written_jobs import BEGIN, append, stored
from tests.hostile_texts import TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["served"]

PAGES = ("/", "/queue", "/queue?show=ended", "/footprint", "/footprint?by=phase", "/policies", "/health", "/compare")


class Page(HTMLParser):
    """What a browser would see of a page: elements with their attributes, text, and the exact figures."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def shapes(self) -> set[tuple[str, ...]]:
        """Every kind of element with the names of its attributes."""
        return {(tag, *sorted(attributes)) for tag, attributes in self.elements}

    @property
    def figures(self) -> set[str]:
        return {str(attributes["value"]) for tag, attributes in self.elements if tag == "data"}


class Browser:
    """A session, as a browser has one after a login."""

    def __init__(self, served: Served, token: str | None = None) -> None:
        self.url = served.url
        self.session = requests.Session()
        with Client(served.url, token or TOKEN) as client:
            self.session.get(client.login_url(), timeout=9)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.url + path, headers=headers, timeout=30)

    def page(self, path: str) -> Page:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return Page(answer.text)

    def json(self, path: str) -> Any:
        return self.get(path).json()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusyFleet]:
    made = BusyFleet(tmp_path_factory.mktemp("fleet"), ended=3)
    yield made
    made.close()


def a_job(fleet: BusyFleet, state: str) -> str:
    return next(job["job_id"] for job in fleet.client.jobs(limit=100)["jobs"] if job["state"] == state)


# ------------------------------------------------------------------------------------------------------- who, and what


def test_a_stranger_is_told_how_to_log_in_on_every_page_and_nothing_else(served):
    for path in (*PAGES, "/jobs/x", "/live"):
        answer = requests.get(served.url + path, timeout=9)
        assert answer.status_code == 401
    assert "carbon-sched dashboard" in requests.get(served.url, timeout=9).text


def test_a_code_logs_one_browser_in_once_and_leaves_a_cookie_that_no_script_reads(served):
    url = served.client.login_url()
    first = requests.get(url, timeout=9, allow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= set(first.headers["set-cookie"].split("; "))
    assert requests.get(url, timeout=9).status_code == 401


def test_a_session_changes_nothing_without_the_token_of_its_page(fleet):
    browser = Browser(fleet)
    job_id = fleet.submit("to be cancelled", 0, max_delay_s=3600.0, clusters=["frankfurt"]).job_id
    call = f"{fleet.url}/v1/jobs/{job_id}/stop"
    assert browser.session.post(call, timeout=9).status_code == 403
    token = next(a["data-csrf"] for tag, a in browser.page("/").elements if tag == "body")
    assert browser.session.post(call, headers={CSRF_HEADER: token}, timeout=9).status_code == 202
    assert browser.session.cookies[COOKIE] not in browser.get("/").text


def test_who_may_not_change_jobs_is_offered_no_change_and_sees_no_other_teams_job(fleet):
    mine, other = (
        next(j["job_id"] for j in fleet.client.jobs(team=team)["jobs"] if j["state"] == "queued")
        for team in ("nlp", "vision")
    )
    viewer = Browser(fleet, fleet.token("viewer", ["nlp"]))
    calls = {a.get("data-call", "").split(" ")[0] for tag, a in viewer.page("/queue").elements if tag == "form"}
    assert calls == {"DELETE"}  # to log out
    assert viewer.get(f"/jobs/{mine}").status_code == 200
    assert viewer.get(f"/jobs/{other}").status_code == 404
    assert other not in viewer.get("/queue").text
    assert "POST" in {a.get("data-call", "").split(" ")[0] for _, a in Browser(fleet).page("/queue").elements}


def test_pages_load_only_what_this_host_has_and_hold_nothing_that_a_strict_policy_forbids(fleet):
    browser = Browser(fleet)
    paths = [
        *PAGES,
        f"/jobs/{a_job(fleet, 'succeeded')}",
        f"/jobs/{a_job(fleet, 'queued')}",
        "/footprint?model=atlas-7b",
    ]
    for path in paths:
        answer = browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        for tag, attributes in Page(answer.text).elements:
            assert tag != "style"
            assert not [name for name in attributes if name == "style" or name.startswith(("on", "hx-on"))]
            assert tag != "script" or (attributes["src"] or "").startswith("/assets/")
            for name in ("src", "href", "action", "hx-get", "data-plot"):
                assert (attributes.get(name) or "/").startswith(("/", "#", "?"))


def test_assets_may_be_kept_for_ever_and_pages_never(fleet):
    browser = Browser(fleet)
    page = browser.get("/")
    assert page.headers["cache-control"] == "no-store"
    names = set(re.findall(r'/assets/[^"]+', page.text))
    assert len(names) >= 9
    for name in names:
        kept = browser.get(name)
        assert (kept.status_code, kept.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    assert browser.get("/assets/nothing.js").status_code == 404


def test_what_others_wrote_is_listed_with_its_version_and_licence():
    listed = (STATIC / "vendor" / "README.md").read_text(encoding="utf-8")
    for path in (STATIC / "vendor").iterdir():
        if path.suffix in (".js", ".css", ".woff2"):
            assert f"`{path.name}`" in listed
            assert path.with_suffix(".LICENSE").exists()


def test_an_open_page_asks_for_what_moves_alone(fleet):
    part = Browser(fleet).get("/queue", **{"HX-Request": "true"}).text
    assert "<html" not in part
    assert "birch-1b-sweep-0" in part


def test_the_stream_tells_that_a_job_changed(fleet):
    with Browser(fleet).session.get(f"{fleet.url}/live", stream=True, timeout=30) as stream:
        lines = stream.iter_lines(decode_unicode=True)
        assert next(lines) == "retry: 2000"
        fleet.world.signals.job_changed()
        assert next(line for line in lines if line.startswith("event")) == "event: news"


# ------------------------------------------------------------------------------------------------------------- hostile


def every_page(browser: Browser, ids: Sequence[str]) -> Iterator[tuple[str, Page]]:
    """All pages that show the jobs, with each page of long lists."""
    for path in ("/", "/footprint?by=team", "/footprint?by=project", "/footprint?by=model", "/policies", "/health"):
        yield path, browser.page(path)
    for show in ("live", "ended"):
        path: str | None = f"/queue?show={show}"
        while path:
            page = browser.page(path)
            yield path, page
            older = [str(a["href"]) for tag, a in page.elements if tag == "a" and "after=" in str(a.get("href"))]
            path = older[0] if older else None
    for job_id in ids:
        yield f"/jobs/{job_id}", browser.page(f"/jobs/{job_id}")


def test_hostile_names_labels_commands_and_metadata_are_text_on_every_page(tmp_path):
    """No text changes what elements a page is made of: they are those that plain names make."""
    known, legible = set(), set()
    for number, texts in enumerate((["plain one", "plain two"] * 40, TEXTS)):
        served = Served(tmp_path / str(number))
        try:
            ids = stored(served.world, texts)
            for path, page in every_page(Browser(served), ids):
                known |= page.shapes if number == 0 else set()
                assert page.shapes <= known, path
                for name in ("href", "src", "action", "hx-get", "data-plot"):
                    assert all(str(a[name]).startswith(("/", "#", "?")) for _, a in page.elements if name in a), path
                legible |= {
                    text
                    for text in TEXTS
                    if number and path.endswith(ids[TEXTS.index(text)]) and shown(text) in page.text
                }
        finally:
            served.close()
    assert legible == set(TEXTS)


def test_hostile_output_is_text(served):
    world = served.world
    job = world.submit(name="writes")
    world.settle()
    attempt = world.attempts(job)[-1]
    log = f"job-driver-{attempt.attempt_id}.log"
    plain = Browser(served).page(f"/jobs/{job.job_id}").shapes | {
        ("pre", "aria-labelledby", "class", "role", "tabindex")
    }
    world.clusters[attempt.cluster].files[log] = "\n".join(TEXTS).encode()
    assert served.client.logs(job.job_id, wait_s=9)["text"]  # clusters are not asked at every look
    page = Browser(served).page(f"/jobs/{job.job_id}")
    assert page.shapes <= plain
    assert [line for text in TEXTS for line in text.splitlines() if shown(line.expandtabs(4)) not in page.text] == []


# ------------------------------------------------------------------------------------------------------------- numbers


def test_a_jobs_page_shows_the_figures_of_its_receipt_and_decision(fleet):
    browser, job_id = Browser(fleet), a_job(fleet, "succeeded")
    receipt, decision = fleet.client.receipt(job_id), fleet.client.decision(job_id)
    figures = browser.page(f"/jobs/{job_id}").figures
    wanted = {str(receipt["co2e_ug"]), repr(receipt["energy_kwh"]), repr(receipt["facility_kwh"])}
    wanted |= {repr(one["energy_j"]) for one in receipt["devices"]}
    wanted |= {repr(one[key]) for one in receipt["references"] for key in ("co2e_g", "saved_g")}
    feasible = [one for one in decision["candidates"] if one["feasible"]]
    wanted |= {repr(one[key]) for one in feasible for key in ("co2e_g", "now_co2e_g", "energy_kwh", "pue")}
    assert wanted <= figures


def test_now_shows_the_clusters_as_the_api_does(fleet):
    figures = Browser(fleet).page("/").figures
    for view in fleet.client.clusters():
        assert {repr(view["intensity_g_per_kwh"]), repr(view["pue"]), repr(view["cpus_used"])} <= figures


def test_the_queue_says_what_starting_now_would_cost(fleet):
    job_id = next(job.job_id for job in fleet.waiting if fleet.world.job(job).state.value == "queued")
    decision = fleet.client.decision(job_id)
    least = min(one["now_co2e_g"] for one in decision["candidates"] if one["feasible"])
    figures = Browser(fleet).page("/queue").figures
    assert {repr(decision["expected_co2e_g"]), repr(least - decision["expected_co2e_g"])} <= figures


def test_budgets_are_those_of_the_api(fleet):
    browser = Browser(fleet)
    figures = browser.page("/footprint").figures
    for one in browser.json("/v1/budgets"):
        unit = "ug" if one["limit_ug"] else "uj"
        assert {str(one[f"{what}_{unit}"]) for what in ("limit", "settled", "reserved")} <= figures


AMOUNTS = st.integers(1, 50 * KWH)


@st.composite
def some_jobs(draw) -> list[dict[str, Any]]:
    """Jobs of one or two hours with labels, energies and readings of all kinds, some without an intensity."""
    return draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "team": st.sampled_from(["", "nlp", "vision"]),
                    "model": st.sampled_from(["", "m1", "m2"]),
                    "phase": st.sampled_from(["other", "finetuning", "inference-batch"]),
                    "reporter": st.sampled_from(["self-reported", "independent", "ray"]),
                    "energies": st.lists(AMOUNTS, min_size=1, max_size=3),
                    "minute": st.integers(0, 11 * 60),
                    "g": st.integers(0, 900),
                    "home_g": st.one_of(st.none(), st.integers(0, 900)),
                    "known": st.booleans(),
                }
            ),
            min_size=1,
            max_size=4,
        )
    )


def book(served: Served, jobs: list[dict[str, Any]], first: int) -> None:
    """Append the jobs' facts to the server's ledger, numbered from `first` on."""
    written = WrittenLedger()
    for number, one in enumerate(jobs, start=first):
        job_id = f"random{number:04d}"
        labels = {key: one[key] for key in ("team", "model", "phase")}
        written.job(job_id, **labels)
        attempt = written.opened(job_id)
        start = BEGIN + timedelta(minutes=one["minute"])
        ends = [start + timedelta(minutes=20 * (k + 1)) for k in range(len(one["energies"]))]
        spans = [
            span(end - timedelta(minutes=20), end, uj, f"gpu-{number}", reporter=one["reporter"])
            for uj, end in zip(one["energies"], ends, strict=True)
        ]
        written.energy(attempt, *spans)
        hours = (BEGIN, BEGIN + timedelta(hours=6)), (BEGIN + timedelta(hours=6), BEGIN + timedelta(hours=14))
        if one["known"]:
            read = [reading(*hour, one["g"] + 7 * k) for k, hour in enumerate(hours)]
            written.used(attempt, "actual", "north", "SE", 1_234_567, *read)
            if one["home_g"] is not None:
                read = [reading(*hour, one["home_g"] + 3 * k) for k, hour in enumerate(hours)]
                written.used(attempt, "run-now-home", "south", "DE", 1_400_000, *read)
    append(served.world, written)


def test_every_figure_of_now_and_footprint_is_the_statements_whatever_the_ledger_holds(served):
    browser, count = Browser(served), 0

    @settings(max_examples=12)
    @given(some_jobs(), st.sampled_from(["team", "model", "phase", "cluster"]))
    def the_same(jobs, by):
        nonlocal count
        book(served, jobs, count)
        count += len(jobs)
        statement = browser.json("/v1/statement?format=json&since=2026-03-01T00:00:00Z")
        now = browser.page("/").figures
        total = sum(line["co2e_ug"] for line in statement["lines"])
        assert {str(total), str(sum(line["energy_uj"] for line in statement["lines"]))} <= now
        for one in statement["comparisons"]:
            assert {str(one["co2e_ug"]), str(one["co2e_ug"] - one["ours_ug"])} <= now
        charged = browser.json(f"/v1/chargeback?by={by}&since=2026-03-01T00:00:00Z&until=2026-03-02T00:00:00Z")
        page = browser.page(f"/footprint?by={by}&since=2026-03-01&until=2026-03-01").figures
        for row in (*charged["rows"], charged["total"]):
            pots = [row[pot] for pot in ("charged", "self_reported", "ray")]
            assert str(sum(pot["co2e_ug"] for pot in pots)) in page
            assert str(sum(pot["energy_uj"] for pot in pots)) in page
            assert str(row["charged"]["co2e_ug"]) in page

    the_same()


METERED = st.fixed_dictionaries(
    {
        "machine": st.sampled_from(["m1", "m2"]),
        "source": st.sampled_from(["counter", "integrated", "estimated"]),
        "reporter": st.sampled_from(["self-reported", "independent"]),
        "flags": st.sampled_from([[], ["squatter"]]),
        "energy_uj": AMOUNTS,
        "compared": st.one_of(st.none(), st.tuples(AMOUNTS, AMOUNTS)),
    }
)


def test_every_figure_of_machines_is_the_sum_of_their_facts(served):
    browser, all_of_them = Browser(served), []

    @settings(max_examples=10)
    @given(st.lists(METERED, min_size=1, max_size=5))
    def the_same(drawn):
        written = WrittenLedger()
        for number, one in enumerate(drawn, start=len(all_of_them)):
            told = one["compared"] and dict(zip(("counter_uj", "integral_uj"), one["compared"], strict=True))
            written.job(f"metered{number:03d}")
            spent = {key: one[key] for key in ("machine", "source", "reporter", "flags", "energy_uj")}
            device = span(BEGIN, BEGIN + timedelta(hours=1), device=f"gpu-{number}", **spent)
            more = {"compared": {"machine": one["machine"], **told}} if told else {}
            written.energy(written.opened(f"metered{number:03d}"), device, **more)
        append(served.world, written)
        all_of_them.extend(drawn)
        page = browser.page("/health").figures
        for machine in {one["machine"] for one in all_of_them}:
            assert sums_of([one for one in all_of_them if one["machine"] == machine]) <= page

    the_same()


def sums_of(machine: list[dict[str, Any]]) -> set[str]:
    """What the page Health has to say of a machine with these facts."""
    sums: Counter[str] = Counter()
    for one in machine:
        squatted = "squatted" if one["flags"] else "owned"
        sums.update(dict.fromkeys(("all", one["source"], one["reporter"], squatted), one["energy_uj"]))
    shown = {str(sums[what]) for what in ("all", "counter", "integrated", "estimated", "independent", "squatted")}
    pairs = [one["compared"] for one in machine if one["compared"]]
    if not pairs:
        return shown
    counters, integrals = (sum(of) for of in zip(*pairs, strict=True))
    return shown | {str(counters), str(integrals), repr(counters / integrals - 1)}


def test_backtests_are_those_of_the_api(fleet):
    browser, first = Browser(fleet), fleet.client.policy_versions("everybody")[-1]
    tried = {"content": first["content"], "backtest_margin_ppm": 0}
    trial = fleet.client.apply_policy(tried, dry_run=True)["backtest"]
    page = browser.page("/policies/backtest?name=everybody&version=1").figures
    wanted = ("after_ug", "before_ug", "after_late", "before_late", "jobs", "left_out")
    assert trial["jobs"]
    assert {str(trial[key]) for key in wanted} <= page
    applied = fleet.client.apply_policy(tried | {"backtest_margin_ppm": 1_000_000})["backtest"]
    page = browser.page("/policies?name=everybody").figures
    assert {str(applied["after_ug"] - applied["before_ug"]), str(applied["before_ug"]), str(applied["jobs"])} <= page
