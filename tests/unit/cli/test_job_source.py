from __future__ import annotations

import shlex
import subprocess

import pytest

from carbon_sched.cli import runtime_env
from carbon_sched.cli.job_source import JobSource, Sent, read_job
from carbon_sched.cli.script_options import Beside
from carbon_sched.domain.errors import InvalidFile, InvalidInput
from carbon_sched.options.given import Given

META = """# /// script
# dependencies = ["numpy"]
# [tool.carbon-sched]
# name = "from-script"
# team = "from-script"
# gpus = 1
# ///
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with a script in it, and the shell in it."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "train.py").write_text("print(1)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(
    *words: str, is_command: bool = False, file: str | None = None, env: dict | None = None, **flags: object
) -> JobSource:
    given = {name.replace("_", "-"): Given(value, f"--{name}") for name, value in flags.items()}
    return read_job(words, is_command=is_command, flags=given, environment=env or {}, file=file)


def values(source: JobSource) -> dict[str, object]:
    return {name: given.value for name, given in source.options.items()}


# what runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--lr", "0.1"],
        ["a b", "it's", 'say "hi"'],
        ["--name=Grüße", "日本語"],
        ["$HOME", "`id`", "a;b", "*"],
        [""],
        ["--"],
        ["a\nb"],
    ],
)
def test_arguments_arrive_intact_through_a_shell(project, arguments):
    source = job("train.py", *arguments)
    assert shlex.split(source.entrypoint) == ["python", "train.py", *arguments]
    shown = source.entrypoint.replace("python train.py", r"printf '%s\0'", 1)
    printed = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=True).stdout
    assert printed.split("\0")[:-1] == (arguments or [""])


def test_a_command_is_quoted_as_ray_quotes_it(project):
    assert job("torchrun", "--n", "2", "a b.py", is_command=True).entrypoint == "torchrun --n 2 'a b.py'"


def test_a_shell_script_runs_in_bash(project):
    (project / "run.sh").touch()
    assert job("run.sh", "x").entrypoint == "bash run.sh x"


def test_a_script_in_a_project_brings_its_folder(project):
    assert job("train.py").sent == Sent(project, None, "train.py")


def test_a_script_outside_of_a_project_travels_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".git").mkdir()
    (tmp_path / "job.py").touch()
    source = job(str(tmp_path / "job.py"))
    assert source.sent == Sent(tmp_path, "job.py", "job.py")
    assert "travels alone" in source.notes[0]


def test_a_script_may_stand_in_a_folder_of_the_working_dir(project):
    (project / "src").mkdir()
    (project / "src" / "main.py").touch()
    for words in ("src/main.py", str(project / "src" / "main.py")):
        source = job(words, working_dir=".")
        assert source.entrypoint == "python src/main.py"
        assert source.sent is not None
        assert source.sent.script == "src/main.py"
    assert job("main.py", working_dir="src").entrypoint == "python main.py"


def test_a_script_beside_the_working_dir_is_refused(project):
    (project / "src").mkdir()
    with pytest.raises(InvalidInput, match="is not in the working dir"):
        job("train.py", working_dir="src")


def test_a_command_brings_nothing_unless_told(project):
    assert job("python", "train.py", is_command=True).sent is None
    assert "--working-dir ." in job("python", "train.py", is_command=True).notes[0]
    assert job("nvidia-smi", is_command=True).notes == ()
    assert job("python", "train.py", is_command=True, working_dir=".").sent == Sent(project.__class__("."))


def test_a_remote_working_dir_is_rays_business(project):
    source = job("elsewhere.py", working_dir="s3://bucket/code.zip")
    assert source.sent is None
    assert source.environment == {"working_dir": "s3://bucket/code.zip"}
    assert source.entrypoint == "python elsewhere.py"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [((), "submit job.py"), (("python", "train.py"), "submit -- python train.py"), (("missing.py",), "path of a file")],
)
def test_what_cannot_be_run(project, words, remedy):
    with pytest.raises(InvalidInput) as caught:
        job(*words)
    assert remedy in caught.value.remedy


# options --------------------------------------------------------------------------------------------------------------


def test_flags_win_over_the_file_and_the_file_over_the_script(project):
    (project / "train.py").write_text(META, encoding="utf-8")
    (project / "job.yaml").write_text("name: from-file\nteam: from-file\n", encoding="utf-8")
    source = job("train.py", file="job.yaml", name="from-flag")
    assert values(source) == {"name": "from-flag", "team": "from-file", "gpus": 1}
    assert source.environment == {"pip": ["numpy"]}


def test_a_job_file_may_say_everything(project):
    (project / "jobs").mkdir()
    (project / "jobs" / "train.py").touch()
    (project / "jobs" / "job.yaml").write_text("script: train.py\nargs: [--n, 3]\nname: x\n", encoding="utf-8")
    source = job("jobs/job.yaml")
    assert source.entrypoint == "python train.py --n 3"
    assert source.sent == Sent(project / "jobs", None, "train.py")
    assert job("jobs/job.yaml", "--n", "4").entrypoint == "python train.py --n 4"


def test_a_job_file_may_name_a_command(project):
    (project / "job.yaml").write_text("entrypoint: python train.py | tee log\nworking-dir: .\n", encoding="utf-8")
    source = job("job.yaml")
    assert source.entrypoint == "python train.py | tee log"
    assert source.sent is not None


def test_a_job_file_must_name_something_to_run(project):
    (project / "job.yaml").write_text("name: x\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="job"):
        job("job.yaml")
    (project / "job.yaml").write_text("script: train.py\nargs: --n 3\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="is not a list"):
        job("job.yaml")


def test_metadata_is_not_executed_and_large_files_are_read_in_part(project):
    (project / "train.py").write_text(META + "raise SystemExit\n" + "#" * 5_000_000, encoding="utf-8")
    assert values(job("train.py"))["gpus"] == 1


# runtime environments -------------------------------------------------------------------------------------------------


def test_environments_of_all_places_are_laid_over_each_other(project):
    (project / "train.py").write_text(
        '# /// script\n# dependencies = ["numpy"]\n'
        '# [tool.carbon-sched]\n# runtime-env = {env_vars = {A = "1"}}\n# ///\n',
        encoding="utf-8",
    )
    source = job("train.py", env={"pip": ["torch"]})
    assert source.environment == {"env_vars": {"A": "1"}, "pip": ["torch"]}
    assert "own dependencies are not used" in source.notes[0]


def test_a_working_dir_in_the_environment_is_sent_too(project):
    (project / "src").mkdir()
    (project / "src" / "a.py").touch()
    source = job("a.py", env={"working_dir": "src", "env_vars": {"A": "1"}})
    assert source.sent == Sent(project.__class__("src"), None, "a.py")
    assert source.environment == {"env_vars": {"A": "1"}}


def test_local_files_in_an_environment_are_read_here(tmp_path):
    (tmp_path / "requirements.txt").write_text("# tools\nnumpy\n\n torch>=2\n", encoding="utf-8")
    (tmp_path / "conda.yaml").write_text("dependencies: [python=3.11]\n", encoding="utf-8")
    found = runtime_env.localised({"pip": "requirements.txt", "conda": "conda.yaml", "env_vars": {}}, tmp_path)
    assert found == {"pip": ["numpy", "torch>=2"], "conda": {"dependencies": ["python=3.11"]}, "env_vars": {}}


def test_modules_of_all_places_are_found_from_there_and_excludes_are_ours_to_follow(project):
    (project / "lib").mkdir()
    (project / "job.yaml").write_text("script: train.py\nruntime-env: {py_modules: [lib, 's3://b/m.zip']}\n", "utf-8")
    source = job("job.yaml", env={"excludes": ["data/"]})
    assert source.environment["py_modules"] == [str(project.absolute() / "lib"), "s3://b/m.zip"]
    assert source.excludes == ("data/",)
    assert "excludes" not in source.environment


@pytest.mark.parametrize(
    "environment",
    [
        {"pip": "none.txt"}, {"conda": "none.yaml"}, {"py_modules": ["./none"]}, {"py_modules": ["text.txt"]},
        {"py_modules": "lib"}, {"py_modules": [1]}, {"excludes": "data/"},
    ],
)  # fmt: skip
def test_what_cannot_travel_is_refused(tmp_path, environment):
    (tmp_path / "text.txt").touch()
    with pytest.raises(InvalidInput, match=r"runtime_env\."):
        runtime_env.localised(environment, tmp_path)


def test_environments_from_flags(tmp_path):
    file = tmp_path / "env.yaml"
    file.write_text("env_vars:\n  A: '1'\n", encoding="utf-8")
    assert runtime_env.from_flags(str(file), None) == {"env_vars": {"A": "1"}}
    assert runtime_env.from_flags(None, '{"pip": ["x"]}') == {"pip": ["x"]}
    assert runtime_env.from_flags(None, None) == {}
    file.write_text("a: [1\n", encoding="utf-8")
    for arguments, words in (
        ((str(file), "{}"), "Give one of the two"),
        ((str(file), None), r"line 2, column 1"),
        ((None, "{"), "is not JSON"),
        ((None, "[]"), "is not a JSON object"),
        ((str(tmp_path / "none"), None), "cannot be read"),
    ):
        with pytest.raises(InvalidInput, match=words):
            runtime_env.from_flags(*arguments)


def test_an_empty_list_of_dependencies_asks_for_nothing():
    assert runtime_env.with_script({}, Beside()) == {}
    assert runtime_env.with_script({}, Beside(dependencies=("x",), installer="uv")) == {"uv": ["x"]}


def test_a_broken_script_is_told_with_its_line(project):
    (project / "train.py").write_text("# /// script\n# [tool.carbon-sched]\n# deadlin = 'x'\n# ///\n", encoding="utf-8")
    with pytest.raises(InvalidFile, match=r"train\.py:3"):
        job("train.py")
