from __future__ import annotations

from datetime import datetime, timezone

import pytest

from carbon_sched.cli.script_options import OPTIONS
from carbon_sched.cli.submit_options import PHASES, PLACEMENTS, POLICIES, TEXT
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import Phase, Placement
from carbon_sched.options.given import Given
from carbon_sched.options.request import build, parse_data
from carbon_sched.policy.presets import preset_names

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=timezone.utc)


def request(**options: object) -> dict[str, object]:
    given = {name.replace("_", "-"): Given(value, f"--{name.replace('_', '-')}") for name, value in options.items()}
    return dict(build("python train.py", given, NOW, timezone.utc).request)


def test_every_option_reaches_the_request():
    assert request(
        name="bert", phase="finetuning", stage="sft", model="m", project="p", team="t",
        workers="4", gpus_per_worker="2", gpu_type="H100", placement="spread",
        duration="1h30m", power="1.2kW", deadline="+6h", max_delay="2h", earliest="2026-11-23T19:00:00+01:00",
        interruptible=True, cluster=["a", "b"], policy="run-now",
        data=["s3://b/x=50GB@DE"], metadata='{"k": "v"}',
        entrypoint_num_cpus="1", entrypoint_num_gpus="0.5", entrypoint_memory="2GiB",
        entrypoint_resources='{"tpu": 1}', entrypoint_label_selector='{"ray.io/region": "eu"}',
    ) == {
        "entrypoint": "python train.py",
        "name": "bert", "phase": "finetuning", "stage": "sft", "model": "m", "project": "p", "team": "t",
        "duration_s": 5400.0, "power_w": 1200.0,
        "deadline": "2026-11-24T00:00:00Z", "max_delay_s": 7200.0, "earliest": "2026-11-23T18:00:00Z",
        "interruptible": True, "clusters": ["a", "b"], "policy": "run-now",
        "data": [{"uri": "s3://b/x", "size_bytes": 50_000_000_000, "zone": "DE"}], "metadata": {"k": "v"},
        "resources": {
            "workers": 4, "gpus_per_worker": 2.0, "gpu_type": "H100", "placement": "spread",
            "entrypoint_num_cpus": 1.0, "entrypoint_num_gpus": 0.5, "entrypoint_memory": 2**31,
            "entrypoint_resources": {"tpu": 1.0}, "entrypoint_label_selector": {"ray.io/region": "eu"},
        },
    }  # fmt: skip


def test_nothing_given_is_nothing_said():
    assert request() == {"entrypoint": "python train.py"}


def test_values_from_files_are_read_as_those_of_flags():
    assert request(gpus=2, cluster="lab", metadata={"k": "v"}, entrypoint_memory=1024)["resources"] == {
        "gpus": 2.0, "entrypoint_memory": 1024,
    }  # fmt: skip


def test_relative_times_are_echoed():
    built = build("x", {"deadline": Given("+6h", "--deadline")}, NOW, timezone.utc)
    assert built.echoes == ("deadline: +6h is 2026-11-24 00:00:00 UTC (UTC), 2026-11-24T00:00:00Z",)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("phase", "training"), ("placement", "tight"), ("workers", "1.5"), ("gpus", "nan"), ("gpus", -1),
        ("duration", "-5m"), ("duration", "nan"), ("duration", 0), ("max-delay", "soon"), ("power", 0),
        ("interruptible", "yes"), ("metadata", '{"k": 1}'), ("metadata", "[]"), ("metadata", "{"), ("name", ["a"]),
        ("entrypoint-memory", "lots"), ("entrypoint-resources", '{"tpu": "x"}'), ("data", "s3://b"), ("name", True),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_where_it_was_given(option, value):
    given = {option: Given(value, f"{option} (job.yaml, line 3)")}
    with pytest.raises(InvalidInput) as caught:
        build("x", given, NOW, timezone.utc)
    assert caught.value.field.startswith(option)
    assert "(job.yaml, line 3)" in caught.value.field
    assert caught.value.remedy


def test_data_may_hold_the_separators_itself():
    assert parse_data("--data", "https://u@h/x?a=b=1.5TB@US-CAL-CISO") == {
        "uri": "https://u@h/x?a=b", "size_bytes": 1_500_000_000_000, "zone": "US-CAL-CISO",
    }  # fmt: skip
    for wrong in ("x=5GB", "5GB@DE", "=5GB@DE", "x=5GB@", "x=5@DE"):
        with pytest.raises(InvalidInput, match="--data"):
            parse_data("--data", wrong)


def test_what_completion_and_help_offer_is_what_there_is():
    assert set(PHASES) == {phase.value for phase in Phase}
    assert set(PLACEMENTS) == {placement.value for placement in Placement}
    assert set(POLICIES) == set(preset_names())


def test_flags_and_files_know_the_same_options():
    flags = {name.removesuffix("-json") for rows in TEXT.values() for name, *_ in rows}
    assert flags - {"array", "every", "tz"} | {"interruptible", "now"} == set(OPTIONS)
