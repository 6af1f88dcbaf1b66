"""Hypothesis strategies for the domain's values: every field drawn, not only those with defaults."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import strategies as st

from carbon_sched.domain.cluster import Cluster, LocalHead, Pool, Pue, SecretRef
from carbon_sched.domain.decision import Candidate, Decision, StartCost, Verdict
from carbon_sched.domain.energy import EnergySpan, Reporter, SourceClass
from carbon_sched.domain.intensity import (
    MAX_INTENSITY_MG_PER_KWH,
    Basis,
    Grade,
    Kind,
    Perimeter,
    Reading,
    Signal,
)
from carbon_sched.domain.job import (
    Attempt,
    Bundle,
    DataInput,
    Estimate,
    Flexibility,
    JobSpec,
    Phase,
    Placement,
    Resources,
)
from carbon_sched.domain.variant import Floor, Variants

instants = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(timezone.utc))  # noqa: DTZ001
texts = st.text(max_size=20)
# What every store can hold in a column of its own: no NUL, no lone surrogate.
labels = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
amounts = st.floats(0, 1e15, allow_nan=False)
maybe = st.none() | amounts
small = st.integers(0, 2**31 - 1)
sha256s = st.text("0123456789abcdef", min_size=64, max_size=64)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def tuples_of(values: st.SearchStrategy, size: int = 3) -> st.SearchStrategy:
    return st.lists(values, max_size=size).map(tuple)


bundles = st.builds(Bundle, amounts, amounts, small, st.dictionaries(texts, amounts, max_size=2))
resources = st.builds(
    Resources,
    amounts,
    amounts,
    small,
    st.dictionaries(texts, amounts, max_size=2),
    st.dictionaries(texts, texts, max_size=2),
    tuples_of(bundles),
    st.sampled_from(Placement),
    st.none() | texts,
    amounts,
)
floors = st.builds(Floor, texts, st.floats(allow_nan=False, allow_infinity=False), st.booleans())
specs = st.builds(
    JobSpec,
    entrypoint=texts,
    name=texts,
    runtime_env=st.dictionaries(texts, json_values, max_size=3),
    bundle_sha256=st.none() | sha256s,
    metadata=st.dictionaries(texts, texts, max_size=3),
    phase=st.sampled_from(Phase),
    stage=texts,
    model=texts,
    project=texts,
    team=texts,
    submitter=texts,
    resources=resources,
    flexibility=st.builds(Flexibility, st.none() | instants, st.none() | instants, maybe, st.booleans()),
    estimate=st.builds(Estimate, maybe, maybe),
    data=tuples_of(st.builds(DataInput, texts, small, texts)),
    clusters=tuples_of(texts),
    policy=texts,
    variants=st.none() | st.builds(Variants, tuples_of(st.tuples(texts, texts)), floors, texts, small),
)

candidates = st.builds(
    Candidate,
    texts,
    texts,
    st.booleans(),
    texts,
    st.none() | instants,
    st.none() | instants,
    maybe,
    maybe,
    maybe,
    maybe,
    maybe,
    st.none() | st.sampled_from(Grade),
    amounts,
    amounts,
    st.none() | st.tuples(amounts, amounts),
    maybe,
)
starts = st.builds(StartCost, instants, amounts, amounts, amounts)
decisions = st.builds(
    Decision,
    job_id=texts,
    verdict=st.sampled_from(Verdict),
    decided_at=instants,
    reason=texts,
    cluster=st.none() | texts,
    start=st.none() | instants,
    candidates=tuples_of(candidates),
    expected_energy_kwh=maybe,
    expected_co2e_g=maybe,
    expected_duration_s=maybe,
    expected_power_w=maybe,
    estimate_source=texts,
    references=tuples_of(st.tuples(texts, amounts)),
    policy=texts,
    next_look=st.none() | instants,
    curve=tuples_of(starts),
    latest_start=st.none() | instants,
    deadline_confidence=maybe,
)

secrets = st.builds(SecretRef, st.none() | texts, st.none() | texts)
pools = st.builds(
    Pool, texts, st.dictionaries(texts, amounts, max_size=2), small, st.none() | texts, texts, amounts, amounts
)
clusters = st.builds(
    Cluster,
    name=texts,
    zone=texts,
    pue=st.builds(Pue, st.integers(1_000_000, 5_000_000), texts, texts),
    address=texts,
    local=st.none() | st.builds(LocalHead, st.none() | small, st.none() | small),
    token=st.none() | secrets,
    ca_file=st.none() | texts,
    headers=st.dictionaries(texts, secrets, max_size=2),
    allow_plain_http_token=st.booleans(),
    residency=tuples_of(texts),
    pools=tuples_of(pools, 2),
    price_per_gpu_hour=maybe,
    start_grace_s=amounts,
    home=st.booleans(),
    cordoned=st.booleans(),
)

lengths = st.timedeltas(timedelta(microseconds=1), timedelta(days=400))
spans = st.builds(
    lambda length, **fields: EnergySpan(end=fields["start"] + length, **fields),
    lengths,
    owner=labels,
    cluster=labels,
    machine=labels,
    device=labels,
    device_kind=labels,
    start=instants,
    energy_uj=st.integers(0, 2**63 - 1),
    source=st.sampled_from(SourceClass),
    reporter=st.sampled_from(Reporter),
    scope=labels,
    rule=labels,
    error_ppm=small,
    segment_sha256=sha256s,
    flags=tuples_of(texts),
)
intensities = st.integers(0, MAX_INTENSITY_MG_PER_KWH)
readings = st.builds(
    lambda length, **fields: Reading(end=fields["start"] + length, **fields),
    lengths,
    zone=labels,
    start=instants,
    intensity_mg_per_kwh=intensities,
    signal=st.sampled_from(Signal),
    basis=st.sampled_from(Basis),
    perimeter=st.sampled_from(Perimeter),
    kind=st.sampled_from(Kind),
    grade=st.sampled_from(Grade),
    provider=labels,
    issued_at=instants,
    fetched_at=instants,
    low_mg_per_kwh=st.none() | intensities,
    high_mg_per_kwh=st.none() | intensities,
    model_version=labels,
    payload_sha256=labels,
    licence=labels,
    retention=labels,
)
attempts = st.builds(
    Attempt,
    attempt_id=labels,
    job_id=labels,
    number=st.integers(1, 1000),
    cluster=labels,
    opened_at=instants,
    start_by=instants,
    epoch=labels,
    accepted=st.none() | st.booleans(),
    node_id=labels,
    started_at=st.none() | instants,
    ended_at=st.none() | instants,
    exit_code=st.integers(-255, 255),
    outcome=labels.filter(bool),
    reason=labels,
    collected=st.booleans(),
    version=st.just(0),
)
