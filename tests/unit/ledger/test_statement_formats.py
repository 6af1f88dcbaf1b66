"""A statement in every format: harmless whatever people call their jobs, and complete."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from carbon_sched.domain.facts import FactKind
from carbon_sched.ledger.book import read_book
from carbon_sched.ledger.documents.document import Document, Figure, Section, Table
from carbon_sched.ledger.documents.pdf import _content, pdf
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ledger.statement.document import document
from carbon_sched.ledger.statement.formats import MEDIA_TYPES, render
from carbon_sched.ledger.statement.model import Line
from tests.fakes.ledger import WrittenLedger, at, reading, span

KWH = 3_600_000_000_000
EVIL = '=HYPERLINK("http://x")<script>alert(1)</script>|*_#\x1b[31m\u202e #panic() $x$ \\n'
ROWS = [f"{number} " for number in range(1, 26)]


@pytest.fixture(scope="module")
def hostile():
    ledger = WrittenLedger()
    ledger.cluster("north", "SE", 1_200_000, pue_source=EVIL)
    ledger.job("jobaaaaaaa", name=EVIL, team=EVIL, model=EVIL, project=EVIL)
    ledger.decided("jobaaaaaaa")
    attempt = ledger.opened("jobaaaaaaa")
    ledger.energy(attempt, span(at("10:00"), at("11:00"), KWH, rule=EVIL))
    ledger.ended(attempt, start="10:00", end="11:00", missing=(EVIL,))
    ledger.job_ended("jobaaaaaaa")
    ledger.used(attempt, "actual", "north", "SE", 1_200_000, reading(at("10:00"), at("11:00"), 100, licence=EVIL))
    ledger.collected(attempt)
    ledger.add(
        FactKind.DECLARATION_MADE, by="person-1", organisation=EVIL, accountable=EVIL, contact=EVIL, boundary=EVIL,
        clusters={}, offsets=[{"kind": "offset", "name": EVIL, "co2e_ug": 1, "energy_uj": None, "source": EVIL}],
    )  # fmt: skip
    return statement(read_book(ledger.entries), Selection())


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = set()
        self.links = set()

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.links |= {value for name, value in attributes if name in ("href", "src") or name.startswith("on")}


def test_html_has_no_tag_of_others_no_script_and_loads_nothing(hostile):
    tags = Tags()
    page = render(hostile, "html").decode()
    tags.feed(page)
    assert not tags.seen & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert all(re.fullmatch(r"#s\d+", link) for link in tags.links)
    assert "&lt;script&gt;alert(1)" in page
    assert "url(" not in page
    assert "@import" not in page


def test_no_cell_of_the_csv_is_a_formula(hostile):
    rows = list(csv.reader(io.StringIO(render(hostile, "csv").decode(), newline="")))
    assert len(rows) == 2
    assert all(cell.lstrip()[:1] not in "=+-@" or not cell for row in rows for cell in row)
    named = dict(zip(*rows, strict=True))
    assert named["name"].startswith("'=HYPERLINK")
    assert (named["energy_uj"], named["energy_kwh"]) == (str(KWH), "1.000000000")


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "html"])
def test_no_control_character_reaches_a_reader(hostile, form):
    shown = render(hostile, form).decode()
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", shown)


def test_markdown_keeps_its_tables_whole(hostile):
    for block in render(hostile, "markdown").decode().split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) <= 1


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_every_row_of_the_checklist_is_there_in_its_order(hostile, form):
    titles = [section.title for section in document(hostile).sections]
    assert [title[: len(row)] for title, row in zip(titles, ROWS, strict=True)] == ROWS
    shown = render(hostile, form).decode()
    places = [shown.rindex(title) for title in titles]
    assert places == sorted(places)


def test_a_pdf_takes_text_as_text_and_comes_out_the_same_again(hostile):
    made = pdf(document(hostile))
    assert made.startswith(b"%PDF-")
    assert made.rstrip().endswith(b"%%EOF")
    assert made == pdf(document(hostile))
    assert b"CreationDate" not in made


def test_no_heading_of_a_pdf_is_left_behind_its_table_by_a_new_page():
    typst = pytest.importorskip("typst")
    place = "(e.func() == heading, e.location().page())"
    asked = f"#context [#metadata(query(selector(heading).or(table)).map(e => {place})) <places>]"
    template = (resources.files("carbon_sched.ledger.documents") / "document.typ").read_bytes() + asked.encode()
    pages = set()
    for lines in range(45, 60):  # over the end of the first page
        sections = (
            Section("1 Text", tuple(map(str, range(lines)))),
            Section("2 Table", ("One sentence.", "Another."), (Table(("a", "b"), (("1", "2"), ("3", "4"))),)),
        )
        content = json.dumps(_content(Document("Title", "subtitle", (Figure("a", "1"),), sections)))
        found = typst.query(template, "<places>", field="value", sys_inputs={"document": content})
        (_, _), (heading, above), (is_heading, below) = json.loads(found)[0]
        assert (heading, is_heading) == (True, False)
        assert above == below, f"behind {lines} lines"
        pages.add(above)
    assert pages == {1, 2}


def test_parquet_holds_the_lines_whole(hostile):
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(render(hostile, "parquet")))
    assert table.to_pylist() == [vars(line) for line in hostile.lines]
    assert table.schema.field("energy_uj").type == pa.int64()
    assert table.schema.metadata[b"ledger_head"].decode() == hostile.ledger_head


def test_json_and_its_lines_hold_the_same_exact_figures(hostile):
    whole = json.loads(render(hostile, "json"))
    rows = [json.loads(line) for line in render(hostile, "jsonl").splitlines()]
    assert whole["totals"]["co2e_ug"] == hostile.total("co2e_ug") == 120_000_000
    assert rows[0]["table"] == "totals"
    assert {key: rows[0][key] for key in whole["totals"]} == whole["totals"]
    lines = [{key: value for key, value in row.items() if key != "table"} for row in rows if row["table"] == "lines"]
    assert lines == whole["lines"] == [vars(line) for line in hostile.lines]
    assert lines[0]["name"] == EVIL


@pytest.mark.parametrize("form", sorted(MEDIA_TYPES.keys() - {"model-card", "ai-act"}))  # those are about training
def test_an_empty_ledger_has_a_statement_too(form):
    assert render(statement(read_book([]), Selection()), form)


def test_what_is_not_known_yet_is_no_zero():
    ledger = WrittenLedger()
    ledger.cluster("north", "SE", 1_200_000)
    ledger.job("joblive")
    ledger.decided("joblive")
    ledger.energy(ledger.opened("joblive"), span(at("10:00"), at("11:00"), KWH))
    ledger.job("jobunborn")
    ledger.decided("jobunborn")
    rows = {section.title: section.tables[0].rows for section in made_of(ledger).sections if section.tables}
    assert {row[0]: row[-2:] for row in rows["4 Jobs"]} == {
        "joblive": ("1.000 kWh", "-"),
        "jobunborn": ("0 kWh", "0 g"),
    }
    assert [row[-1] for row in rows["18 Decisions"]] == ["-", "0 g"]
    assert rows["5 Measured IT energy"][0][-2] == "-"


def test_what_nobody_publishes_is_no_zero():
    ledger = WrittenLedger()
    ledger.cluster("north", "SE", 1_000_000)
    ledger.job("jobaaaaaaa")
    attempt = ledger.opened("jobaaaaaaa")
    ledger.energy(attempt, span(at("10:00"), at("11:00"), KWH))
    ledger.used(attempt, "actual", "north", "SE", 1_000_000, reading(at("10:00"), at("11:00"), 100))
    made = made_of(ledger)
    told = {section.title[:2].strip(): section for section in made.sections}
    figures = {one.name: (one.value, one.note) for one in made.figures}
    assert figures["Scope 2, location-based (direct)"] == ("not known", "100.000 g not separable")
    assert figures["Embodied, central"][0] == "not known"
    assert told["11"].said[0].startswith("Not known: direct")
    assert told["11"].tables[0].rows == (("north", "SE", "not known", "not known", "100.000 g"),)
    assert told["13"].said[0].startswith("Not known: life cycle minus direct")
    assert told["14"].said[0].startswith("Low not known, central not known, high not known.")
    (north,) = told["15"].tables[0].rows
    assert north[2:] == (
        "scope 2, if the machines are your own: not known", "scope 3: not known", "100.000 g", "scope 3: not known"
    )  # fmt: skip


def made_of(ledger):
    return document(statement(read_book(ledger.entries), Selection()))


def test_lines_have_the_names_that_users_group_by():
    assert {"team", "project", "model", "phase", "cluster", "source", "reporter"} <= set(Line.__dataclass_fields__)
