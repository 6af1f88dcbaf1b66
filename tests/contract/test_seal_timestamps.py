"""Seals under a timestamp service: a real answer is kept and verifies, and a wrong one is refused with its reason."""

from __future__ import annotations

import subprocess

import pytest

from carbon_sched.domain.errors import InvalidInput, StoreError
from carbon_sched.settings import load_settings
from carbon_sched.store.timestamps import TimestampSeals
from tests.fakes.timestamps import Authority

LINES = ['{"size":1}', '{"size":20}']
REPLY = "application/timestamp-reply"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tsa") / "one")


@pytest.fixture
def authority(made):
    made.answers.clear()
    made.asked = 0
    return made


@pytest.fixture
def place(authority, tmp_path):
    with authority.served() as url:
        yield TimestampSeals(tmp_path / "stamps", url, authority.ca)


def test_every_seal_is_stamped_once_and_anybody_can_check_it(place, authority, tmp_path):
    place.append(LINES[:1])
    place.append(LINES)
    folder = tmp_path / "stamps"
    assert sorted(path.name for path in folder.iterdir()) == ["1.seal", "1.tsr", "20.seal", "20.tsr"]
    assert authority.asked == 2
    for line in LINES:
        seal = folder / f"{line[8:-1]}.seal"
        assert seal.read_text(encoding="utf-8") == line
        check = ["openssl", "ts", "-verify", "-data", seal, "-in", seal.with_suffix(".tsr"), "-CAfile", authority.ca]
        assert subprocess.run(check, check=True, capture_output=True, text=True).stdout.strip() == "Verification: OK"


def test_an_answer_about_something_else_is_refused_and_asked_for_again(place, authority, tmp_path):
    place.append(LINES[:1])
    old = (tmp_path / "stamps" / "1.tsr").read_bytes()
    authority.answers = [(200, REPLY, old)]
    with pytest.raises(StoreError, match=r"is not believed: .*(mismatch|nonce)"):
        place.append(LINES[1:])
    assert not (tmp_path / "stamps" / "20.tsr").exists()
    place.append(LINES[1:])
    assert (tmp_path / "stamps" / "20.tsr").exists()


def test_the_word_of_another_authority_is_refused(authority, tmp_path):
    other = Authority(tmp_path / "other")
    with other.served() as url, pytest.raises(StoreError, match="is not believed"):
        TimestampSeals(tmp_path / "stamps", url, authority.ca).append(LINES)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, REPLY, b"nonsense"), "is not believed"),
        ((200, REPLY, b""), "is not believed"),
        ((200, "text/html", b"<p>hello"), "gave no timestamp .status 200, text/html"),
        ((503, REPLY, b""), "gave no timestamp .status 503"),
        ((302, REPLY, b""), "gave no timestamp .status 302"),
        ((200, REPLY, b"x" * 70_000), "gave no timestamp"),
    ],
)
def test_what_is_no_timestamp_is_refused(place, authority, answer, said):
    authority.answers = [answer]
    with pytest.raises(StoreError, match=said):
        place.append(LINES[:1])


def test_a_service_that_is_away_is_named(authority, tmp_path):
    with authority.served() as url:
        pass
    with pytest.raises(StoreError, match="does not answer"):
        TimestampSeals(tmp_path / "stamps", url, authority.ca).append(LINES)


def test_the_settings_name_a_service_and_whom_it_is_believed_by(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("seal: {timestamp_url: https://stamps.example/tsr, timestamp_ca: stamps.pem}", encoding="utf-8")
    settings = load_settings({"data_dir": tmp_path / "data"}, config)
    assert settings.seal.timestamp_ca == tmp_path / "stamps.pem"


@pytest.mark.parametrize("half", ["timestamp_url: https://stamps.example", "timestamp_ca: stamps.pem"])
def test_a_service_without_its_certificate_is_refused(half, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"seal: {{{half}}}", encoding="utf-8")
    with pytest.raises(InvalidInput, match="timestamp_url and timestamp_ca go together"):
        load_settings({"data_dir": tmp_path / "data"}, config)
