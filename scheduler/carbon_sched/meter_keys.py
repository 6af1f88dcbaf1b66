"""Keys of machine meters: what they sign is a journal segment, with a line behind it that names key and signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.signing import PrivateKey, PublicKey, raw_public_key
from carbon_sched_runtime.wire import append_signature

if TYPE_CHECKING:
    from carbon_sched_runtime.wire import Signature


class MeterKey(PublicKey):
    """The public half: whose segments are believed to be independent. Its text goes to `clusters add --meter-key`."""

    def made(self, signature: Signature) -> bool:
        """Whether this key made the signature over the bytes it claims to cover."""
        return signature.key_id == self.key_id and self.verifies(signature.signed, signature.value_base64)


def parse_meter_key(text: str) -> MeterKey:
    """Read `ed25519:BASE64`; InvalidInput for anything else, a private key's file included."""
    raw = raw_public_key(text)
    if raw is None:
        remedy = "Give the line that `carbon-sched meter key` prints on the machine"
        raise InvalidInput("meter_keys", "(not shown)", "is not a meter's public key", remedy)
    return MeterKey(raw)


class SigningKey(PrivateKey):
    """A meter's private half."""

    @property
    def public(self) -> MeterKey:
        """What may be handed out."""
        return MeterKey(self.raw_public)

    def sign(self, segment: bytes) -> bytes:
        """The segment's bytes with a signature line over all of them."""
        return append_signature(segment, self.public.key_id, self.signature(segment))
