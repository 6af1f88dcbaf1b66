from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched.store import codec
from carbon_sched.store.columns import Document, clean_text, from_micros, to_micros
from tests import strategies

DOCUMENT = Document()
CODECS = [
    (strategies.specs, codec.spec_to_json, codec.spec_from_json),
    (strategies.decisions, codec.decision_to_json, codec.decision_from_json),
    (strategies.clusters, codec.cluster_to_json, codec.cluster_from_json),
]


@pytest.mark.parametrize(("values", "encode", "decode"), CODECS, ids=["spec", "decision", "cluster"])
@given(st.data())
def test_every_value_survives_the_way_through_a_text_column(values, encode, decode, data):
    value = data.draw(values)
    text = DOCUMENT.process_bind_param(encode(value), None)
    assert text.isascii()
    assert "\0" not in text
    assert decode(DOCUMENT.process_result_value(text, None)) == value


@pytest.mark.parametrize(("values", "encode", "decode"), CODECS, ids=["spec", "decision", "cluster"])
@given(st.data())
def test_keys_of_a_newer_version_are_ignored(values, encode, decode, data):
    value = data.draw(values)
    assert decode({**encode(value), "from the future": [1]}) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        DOCUMENT.process_bind_param(value, None)


@given(strategies.instants)
def test_instants_survive_to_the_microsecond(instant):
    assert from_micros(to_micros(instant)) == instant


@given(st.text())
def test_text_from_outside_can_be_stored_and_keeps_what_it_may(text):
    clean = clean_text(text)
    clean.encode()
    assert "\0" not in clean
    assert len(clean) == len(text)
    assert all(new in (old, "\ufffd") for new, old in zip(clean, text, strict=True))


def test_text_from_outside_by_example():
    assert clean_text("a\0b\ud800c\U0001f600\udc00") == "a\ufffdb\ufffdc\U0001f600\ufffd"
    assert clean_text("pairs \ud83d\ude00") == "pairs \U0001f600"


def test_the_documents_of_today():
    spec = codec.spec_from_json(json.loads(SPEC))
    assert json.dumps(codec.spec_to_json(spec), separators=(",", ":")) == SPEC


SPEC = (
    '{"entrypoint":"python a.py","name":"a","runtime_env":{"env_vars":{"A":"1"}},"sealed_env":"x",'
    '"secrets":{"S":{"file":"/s","env":null}},"bundle_sha256":null,"metadata":{},'
    '"phase":"finetuning","stage":"sft","model":"m","project":"p","team":"t","submitter":"ada","resources":'
    '{"entrypoint_cpus":1.0,"entrypoint_gpus":0.0,"entrypoint_memory":0,"entrypoint_resources":{},'
    '"entrypoint_label_selector":{},"bundles":[{"cpus":1.0,"gpus":0.5,"memory":0,"resources":{}}],'
    '"placement":"strict-pack","gpu_type":"H100","gpu_memory_gb":80.0},'
    '"flexibility":{"earliest":"2026-11-23T18:00:00Z","deadline":null,'
    '"max_delay_s":3600.0,"interruptible":true,"restart_s":60.0,"storage":"/r"},"estimate":{"duration_s":60.0,"power_w":null},'
    '"data":[{"uri":"s3://b/x","size_bytes":10,"zone":"DE"}],"clusters":["a"],"policy":"balanced",'
    '"start_now":true,"after":[["0123456789",true]],"rayjob":null,"variants":null}'
)
