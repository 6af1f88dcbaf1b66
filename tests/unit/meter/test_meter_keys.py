"""A meter's key: made once, for its owner alone, and the only one that makes a segment independent."""

from __future__ import annotations

import base64
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from carbon_sched.domain.cluster import Cluster, Pue
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.meter_keys import SigningKey, parse_meter_key
from carbon_sched.store.codec import cluster_from_json, cluster_to_json
from carbon_sched_runtime import wire

DEVICE = wire.Device("cpu:package-0", "cpu", "a CPU", "package")
SEGMENT = wire.Segment(
    "0123456789ab", "35a06fda-5b96-4342-98ee-a3b3e860a622", "00c0ffee", 7, 1000, 2000, 0, 1_000_000, 0,
    {DEVICE.id: DEVICE},
    (wire.Span(DEVICE.id, 0, wire.COUNTER, 1000, 2000, 0, 5),),
    (wire.Row(DEVICE.id, 0, wire.COUNTER, wire.IDLE, 1000, 2000, 5, "idle", 0),),
)  # fmt: skip


@pytest.fixture
def key(tmp_path):
    return SigningKey(tmp_path / "a folder" / "meter.key")


def test_it_is_made_at_first_use_for_its_owner_alone_and_kept(tmp_path, key):
    path = tmp_path / "a folder" / "meter.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey(path).public == key.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_one_that_others_may_read_is_not_used(tmp_path, key, mode):
    path = tmp_path / "a folder" / "meter.key"
    path.chmod(mode)
    with pytest.raises(InvalidInput, match="other users"):
        SigningKey(path)


def test_a_file_that_is_no_key_is_not_overwritten(tmp_path):
    path = tmp_path / "notes"
    path.write_text("mine")
    path.chmod(0o600)
    with pytest.raises(InvalidInput, match="not an Ed25519"):
        SigningKey(path)
    assert path.read_text() == "mine"


def test_a_link_is_not_followed_when_it_is_made(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        SigningKey(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_what_it_signed_is_known_by_the_public_key(key):
    signed = key.sign(wire.format_segment(SEGMENT))
    signature = wire.parse_segment(signed).signature

    assert parse_meter_key(str(key.public)).made(signature)


@pytest.mark.parametrize("part", ["value", "signed", "key"])
def test_any_change_is_noticed(key, tmp_path, part):
    signature = wire.parse_segment(key.sign(wire.format_segment(SEGMENT))).signature
    value, signed, public = signature.value_base64, signature.signed, key.public
    if part == "value":
        value = base64.b64encode(bytes(64)).decode()
    elif part == "signed":
        signed = signed.replace(b"idle", b"lide")
    else:
        public = SigningKey(tmp_path / "other.key").public
        assert not public.made(signature)
        signature = wire.Signature(public.key_id, value, signed)
    assert not public.made(wire.Signature(public.key_id, value, signed))


def test_nothing_else_passes_for_a_public_key():
    raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    good = base64.b64encode(raw).decode()
    assert parse_meter_key(f" ed25519:{good}\n").raw == raw
    for text in ("", good, f"rsa:{good}", "ed25519:", "ed25519:####", f"ed25519:{good[:-4]}", "-----BEGIN PRIVATE KEY"):
        with pytest.raises(InvalidInput, match="public key"):
            parse_meter_key(text)


def test_a_cluster_keeps_its_meters_keys_and_one_stored_before_has_none(key):
    cluster = Cluster("c", "DE", Pue(1_000_000, "", ""), meter_keys=(str(key.public),))
    stored = cluster_to_json(cluster)
    assert cluster_from_json(stored) == cluster
    del stored["meter_keys"]
    assert cluster_from_json(stored).meter_keys == ()
