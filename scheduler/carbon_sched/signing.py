"""Ed25519 keys: a private one in a file of its owner's, its public text, and the check of a signature.

A key is known by its first 16 hexadecimal digits of SHA-256 over the 32 raw bytes of the public key; the public key
travels as `ed25519:BASE64` (RFC 8032 keys, RFC 4648 text).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from carbon_sched.domain.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "ed25519:"
RAW_BYTES = 32


@dataclass(frozen=True)
class PublicKey:
    """The half that may be handed out."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """A short name of the key."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        return PREFIX + base64.b64encode(self.raw).decode("ascii")

    def verifies(self, data: bytes, signature_base64: str) -> bool:
        """Whether this key made the signature over `data`."""
        try:
            value = base64.b64decode(signature_base64, validate=True)
            Ed25519PublicKey.from_public_bytes(self.raw).verify(value, data)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def raw_public_key(text: str) -> bytes | None:
    """The 32 bytes of `ed25519:BASE64`; None for anything else, a private key's file included."""
    stripped = text.strip()
    if not stripped.startswith(PREFIX):
        return None
    try:
        raw = base64.b64decode(stripped.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        return None
    return raw if len(raw) == RAW_BYTES else None


class PrivateKey:
    """The private half, in a file that only its owner may read. Made at first use."""

    def __init__(self, path: Path) -> None:
        self._private = _load(path) if path.exists() else _make(path)

    @property
    def raw_public(self) -> bytes:
        """The 32 bytes of the public half."""
        return self._private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def signature(self, data: bytes) -> str:
        """Over `data`, in base64."""
        return base64.b64encode(self._private.sign(data)).decode("ascii")


def _make(path: Path) -> Ed25519PrivateKey:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(descriptor)
    return private


def _load(path: Path) -> Ed25519PrivateKey:
    facts = path.stat()
    if facts.st_mode & 0o077 or facts.st_uid != os.geteuid():
        remedy = f"It must be yours alone: chown it to the user that signs and chmod 600 {path}"
        raise InvalidInput("key", path, "can be read or changed by other users", remedy)
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidInput("key", path, "is not an Ed25519 private key", "Name a file that does not exist to make one")
    return private
