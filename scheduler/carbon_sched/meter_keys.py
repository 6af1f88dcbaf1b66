"""Keys of machine meters: an Ed25519 pair, its public text, and the check of a segment's signature.

A key is known by its first 16 hexadecimal digits of SHA-256 over the 32 raw bytes of the public key; the public key
travels as `ed25519:BASE64`.
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
from carbon_sched_runtime.wire import append_signature

if TYPE_CHECKING:
    from pathlib import Path

    from carbon_sched_runtime.wire import Signature

PREFIX = "ed25519:"
RAW_BYTES = 32


@dataclass(frozen=True)
class MeterKey:
    """The public half: whose segments are believed to be independent."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """How segments name the key."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        """As it is handed to `clusters add --meter-key`."""
        return PREFIX + base64.b64encode(self.raw).decode("ascii")

    def made(self, signature: Signature) -> bool:
        """Whether this key made the signature over the bytes it claims to cover."""
        if signature.key_id != self.key_id:
            return False
        try:
            value = base64.b64decode(signature.value_base64, validate=True)
            Ed25519PublicKey.from_public_bytes(self.raw).verify(value, signature.signed)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def parse_meter_key(text: str) -> MeterKey:
    """Read `ed25519:BASE64`; InvalidInput for anything else, a private key's file included."""
    stripped = text.strip()
    try:
        raw = base64.b64decode(stripped.removeprefix(PREFIX), validate=True) if stripped.startswith(PREFIX) else b""
    except binascii.Error:
        raw = b""
    if len(raw) != RAW_BYTES:
        remedy = "Give the line that `carbon-sched meter key` prints on the machine"
        raise InvalidInput("meter_keys", "(not shown)", "is not a meter's public key", remedy)
    return MeterKey(raw)


class SigningKey:
    """The private half, in a file that only its owner may read. Made at first use."""

    def __init__(self, path: Path) -> None:
        self._private = _load(path) if path.exists() else _make(path)

    @property
    def public(self) -> MeterKey:
        """What may be handed out."""
        raw = self._private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return MeterKey(raw)

    def sign(self, segment: bytes) -> bytes:
        """The segment's bytes with a signature line over all of them."""
        value = base64.b64encode(self._private.sign(segment)).decode("ascii")
        return append_signature(segment, self.public.key_id, value)


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
        remedy = f"It must be yours alone: chown it to the meter's user and chmod 600 {path}"
        raise InvalidInput("--key", path, "can be read or changed by other users", remedy)
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidInput(
            "--key", path, "is not an Ed25519 private key", "Name a file that does not exist to make one"
        )
    return private
