"""Encryption at rest: AES-256-GCM under a key file of the server's user, kept apart from the database."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from carbon_sched.domain.errors import InvalidInput, StoreError

if TYPE_CHECKING:
    from carbon_sched.domain.cluster import SecretRef

KEY_BYTES = 32
NONCE_BYTES = 12
SECRET_LIMIT = 64 * 1024


class FileVault:
    """Implements `ports.Vault`. The key is made at first use; who copies the database without it copies no secrets."""

    def __init__(self, key_file: Path) -> None:
        self._folder = key_file.parent.resolve()
        self._key = _read_or_make(key_file)
        self._cipher = AESGCM(self._key)

    def seal(self, text: str) -> str:
        """Encrypt and authenticate."""
        nonce = os.urandom(NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, text.encode(), None)).decode()

    def unseal(self, sealed: str) -> str:
        """Inverse of `seal`; StoreError when the key is another one or the text was altered."""
        data = base64.b64decode(sealed)
        try:
            return self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], None).decode()
        except InvalidTag:
            raise StoreError("stored environment variables cannot be decrypted: the vault's key was replaced") from None

    def fingerprint(self, text: str) -> str:
        """HMAC-SHA256 under a key of its own."""
        key = hashlib.sha256(b"carbon-sched fingerprint v1" + self._key).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    def secret(self, name: str, ref: SecretRef) -> str:
        """Read it now, from the file or from this server's environment; a file's last line break is left out.

        Raises InvalidInput where it is not there, or in the server's own folder.
        """
        if ref.env is not None:
            value = os.environ.get(ref.env)
            if value is None:
                remedy = "Set it where the server runs, or name a file"
                raise InvalidInput(f"secret {name}", ref, "is not set in the server's environment", remedy)
            return value
        path = Path(ref.file or "")
        if path.resolve().is_relative_to(self._folder):
            remedy = "Keep secrets of jobs elsewhere: the server's own are there"
            raise InvalidInput(f"secret {name}", ref, "lies in the server's data folder", remedy)
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(SECRET_LIMIT).removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            remedy = "Name a text file that the server can read"
            raise InvalidInput(f"secret {name}", ref, f"cannot be read ({type(error).__name__})", remedy) from None


def _read_or_make(key_file: Path) -> bytes:
    """The key; created whole and for this user alone, so that two servers that start at once agree on one."""
    if not key_file.exists():
        draft = key_file.with_name(f"{key_file.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(draft, key_file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    key = key_file.read_bytes()
    if len(key) != KEY_BYTES:
        raise StoreError(f"{key_file} is not a vault key of {KEY_BYTES} bytes; restore it from a backup")
    return key
