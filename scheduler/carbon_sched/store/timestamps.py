"""Seals countersigned by a timestamp service (RFC 3161): a third party's word that the ledger stood so, and when.

OpenSSL's `ts` command asks, reads and verifies. What the service says is believed only with its certificate, as
`openssl ts -verify` finds it: over this very seal, with the nonce that was asked, signed by whom the server was told.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from carbon_sched.domain.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_S = 20.0
LARGEST_ANSWER = 65_536
OPENSSL_S = 20.0
QUERY, REPLY = "application/timestamp-query", "application/timestamp-reply"


class TimestampSeals:
    """`folder/SIZE.seal` and its answer `SIZE.tsr` for each seal; `ports.SealSink`.

    Anybody checks one by: openssl ts -verify -data SIZE.seal -in SIZE.tsr -CAfile CA
    """

    def __init__(self, folder: Path, url: str, ca: Path) -> None:
        self._folder, self._url, self._ca = folder, url, ca

    def append(self, lines: Sequence[str]) -> None:
        """Have each stamped; StoreError, naming the service, where its answer is none or not to be believed.

        What is stamped stays so: a seal that has an answer is not asked about again.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for line in lines:
                seal = self._folder / f"{json.loads(line)['size']}.seal"
                if not seal.with_suffix(".tsr").exists():
                    self._stamp(seal, line)
        except OSError as error:
            raise StoreError(f"timestamps cannot be kept in {self._folder}: {error.strerror}. Mend the place") from None

    def _stamp(self, seal: Path, line: str) -> None:
        seal.write_text(line, encoding="utf-8")
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            query, answer = Path(folder) / "query", Path(folder) / "answer"
            self._openssl("-query", "-data", str(seal), "-sha256", "-cert", "-out", str(query))
            answer.write_bytes(self._asked(query.read_bytes()))
            self._openssl("-verify", "-queryfile", str(query), "-in", str(answer), "-CAfile", str(self._ca))
            with answer.open("rb") as written:
                os.fsync(written.fileno())
            answer.rename(seal.with_suffix(".tsr"))

    def _asked(self, query: bytes) -> bytes:
        try:
            with requests.post(
                self._url, query, headers={"Content-Type": QUERY}, timeout=ANSWER_S, allow_redirects=False, stream=True
            ) as answer:
                kind, content = answer.headers.get("Content-Type", ""), answer.raw.read(LARGEST_ANSWER + 1)
        except (requests.RequestException, OSError) as error:
            raise StoreError(f"the timestamp service {self._url} does not answer ({type(error).__name__})") from None
        if answer.status_code != requests.codes.ok or kind != REPLY or len(content) > LARGEST_ANSWER:
            said = f"status {answer.status_code}, {kind or 'no type'}, {len(content)} bytes"
            raise StoreError(f"the timestamp service {self._url} gave no timestamp ({said})")
        return content

    def _openssl(self, *arguments: str) -> None:
        command = ["openssl", "ts", *arguments]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=OPENSSL_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StoreError(f"timestamps need OpenSSL's command, which did not work: {error}") from None
        if ran.returncode:
            raise StoreError(f"the timestamp service {self._url} is not believed: {_reason(ran.stderr)}")


def _reason(said: str) -> str:
    """OpenSSL's own words: its lines are `NUMBER:error:CODE:LIBRARY:FUNCTION:REASON:FILE:LINE:`."""
    reasons = [fields[5] for line in said.splitlines() if len(fields := line.split(":")) > 5 and fields[1] == "error"]
    return ", ".join(reasons) or "OpenSSL gives no reason"
