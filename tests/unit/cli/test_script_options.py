from __future__ import annotations

import pytest

from carbon_sched.cli.script_options import read_job_file, read_script
from carbon_sched.domain.errors import InvalidFile

SCRIPT = '''"""A job."""
# A word before.
#
# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "numpy>=1.26",
#   "torch",
# ]
# [tool.carbon-sched]
# name = "bert"
# max_delay = "6h"
# gpus = 2
# deadline = 2026-11-24T18:00:00Z
# metadata = { run = "7" }
# [tool.other]
# anything = "goes"
# ///
print("hello")
'''


def test_options_dependencies_and_python():
    found = read_script(SCRIPT, "train.py")
    assert {name: given.value for name, given in found.options.items()} == {
        "name": "bert",
        "max-delay": "6h",
        "gpus": 2,
        "deadline": "2026-11-24T18:00:00+00:00",
        "metadata": {"run": "7"},
    }
    assert found.dependencies == ("numpy>=1.26", "torch")
    assert found.requires_python == ">=3.10"
    assert found.installer == "pip"


def test_every_option_knows_its_line():
    found = read_script(SCRIPT, "train.py")
    assert found.options["name"].label == "name (train.py, line 11)"
    assert found.options["max-delay"].label == "max-delay (train.py, line 12)"


def test_uv_may_be_the_installer():
    assert read_script('# /// script\n# [tool.carbon-sched]\n# installer = "uv"\n# ///\n', "x.py").installer == "uv"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "print(1)\n",
        "# /// script\n# name = 1\nprint()\n",  # never closed
        "#/// script\n# x = 1\n# ///\n",
        "# /// pyproject\n# [tool.carbon-sched]\n# nonsense = 1\n# ///\n",
        '  # /// script\n# [tool.carbon-sched]\n# name = "indented"\n# ///\n',
    ],
)
def test_what_is_no_metadata_of_a_script(text):
    assert read_script(text, "x.py").options == {}


def test_the_last_closing_line_counts():
    text = '# /// script\n# dependencies = ["a"]\n# ///\n# [tool.carbon-sched]\n# ///\n'
    with pytest.raises(InvalidFile, match="is not TOML"):  # the first `///` is content then
        read_script(text, "x.py")


def wrong(text: str) -> tuple[str, int]:
    with pytest.raises(InvalidFile) as caught:
        read_script(text, "x.py")
    return str(caught.value), caught.value.problems[0].line


def test_an_unknown_option_is_named_with_its_line_and_a_guess():
    text, line = wrong("import os\n# /// script\n# [tool.carbon-sched]\n# dealine = '18:00'\n# ///\n")
    assert text.startswith("x.py:4:1: tool.carbon-sched.dealine is not an option")
    assert "Did you mean deadline?" in text
    assert line == 4


def test_broken_toml_is_found_where_it_stands_in_the_script():
    text, line = wrong("\n# /// script\n# [tool.carbon-sched]\n# name = bert\n# ///\n")
    assert line == 4
    assert "is not TOML" in text


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("# dependencies = 'numpy'", "dependencies is not a list"),
        ("# dependencies = [1]", "dependencies is not a list"),
        ("# requires-python = 3", "requires-python is not text"),
        ("# tool.carbon-sched = 3", "tool.carbon-sched is not a table"),
        ("# [tool.carbon-sched]\n# installer = 'conda'", "installer is 'conda'"),
    ],
)
def test_metadata_of_the_wrong_kind(body, what):
    assert what in wrong(f"# /// script\n{body}\n# ///\n")[0]


def test_two_blocks_are_refused():
    block = "# /// script\n# dependencies = []\n# ///\n"
    assert "stands twice" in wrong(f"{block}\n{block}")[0]


def test_a_job_file(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(
        "script: train.py\nargs: [--steps, '3']\nmax_delay: 6h\ndeadline: 18:00\ngpus: 2\n", encoding="utf-8"
    )
    found = read_job_file(file).options
    assert {name: given.value for name, given in found.items()} == {
        "script": "train.py",
        "args": ["--steps", "3"],
        "max-delay": "6h",
        "deadline": "18:00",  # not 1080, as YAML 1.1 has it
        "gpus": 2,
    }
    assert found["gpus"].label == "gpus (job.yaml, line 5)"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: a\nfoo: 1\n", "job.yaml:2:1: foo is not an option"),
        ("name: [a\n", "job.yaml:2:1"),
        ("- a\n", "is not a mapping"),
        ("", "is empty"),
    ],
)
def test_a_job_file_that_is_wrong_is_told_with_line_and_column(tmp_path, content, words):
    file = tmp_path / "job.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidFile) as caught:
        read_job_file(file)
    assert words in str(caught.value)


def test_a_job_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidFile, match="cannot be read"):
        read_job_file(tmp_path / "none.yaml")
