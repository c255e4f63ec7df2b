"""The blind evaluation: VOPRF(ristretto255, SHA-512), mode 1, of RFC 9497 (sections 3.3.2, 4.1).

The one place that knows package `voprf`. Each element carries a proof of its own (64 bytes)
instead of one for the batch: in `voprf` 0.2.0 a false *batch* proof is a Rust panic, which
Python's `except Exception` does not catch, a false *single* proof is an ordinary ValueError.

An evaluation on the wire is, for each blinded element in order, 96 bytes:
proof `c || s` (section 2.2.1) `||` evaluated element.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from voprf.ristretto import BlindedInput, Client, Evaluator, PublicKey, VerifiableOutput

from bus_schemas.errors import ContractError, Refused

ELEMENT_LENGTH: Final = 32
"""`Noe` of ristretto255, RFC 9497 section 4.1."""

SEED_LENGTH: Final = 32
MAX_ELEMENTS: Final = 64
OUTPUT_LENGTH: Final = 64
"""Bytes of SHA-512: what `finalize` returns for each input."""

_EVALUATION_LENGTH = 96


@dataclass(frozen=True, slots=True)
class Blinding:
    """The blinds of one request, in the order of its inputs. Use it once and drop it."""

    _clients: tuple[Client, ...] = field(repr=False)

    def finalize(self, evaluation: bytes, public_key: bytes) -> list[bytes]:
        """Return the 64-byte outputs, in the order of the inputs, once every proof holds.

        *public_key* is the pinned key (32 bytes). Raises Refused(`bad_proof`).
        """
        return self.finalize_each(evaluation, [public_key] * len(self._clients))

    def finalize_each(self, evaluation: bytes, public_keys: Sequence[bytes]) -> list[bytes]:
        """Return the same where each input has a public key of its own, in their order."""
        step = _EVALUATION_LENGTH
        if len(evaluation) != step * len(self._clients):
            raise Refused("bad_proof", f"expected {len(self._clients)} evaluated elements")
        chunks = [evaluation[at : at + step] for at in range(0, len(evaluation), step)]
        try:
            return [
                client.finalize(VerifiableOutput.deserialize(chunk), PublicKey.deserialize(key))
                for client, chunk, key in zip(self._clients, chunks, public_keys, strict=True)
            ]
        except ValueError:
            raise Refused("bad_proof", "not evaluated under the expected key") from None


def blind(inputs: Sequence[bytes]) -> tuple[Blinding, list[bytes]]:
    """Return the blinds to keep and, for each input, the 32-byte element to send.

    Raises ValueError for none or more than 64 inputs, or an empty one.
    """
    if not 1 <= len(inputs) <= MAX_ELEMENTS:
        raise ValueError(f"1 to {MAX_ELEMENTS} inputs are blinded at once, got {len(inputs)}")
    pairs = [Client.blind(value) for value in inputs]
    return Blinding(tuple(client for client, _ in pairs)), [sent.serialize() for _, sent in pairs]


@dataclass(frozen=True, slots=True)
class OprfKey:
    """An evaluator's key, kept as its seed (RFC 9497 section 3.2.1, DeriveKeyPair)."""

    seed: bytes = field(repr=False)
    """32 secret bytes; whoever deletes them makes every output under this key unreachable."""
    info: bytes = b""

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_LENGTH:
            raise ValueError(f"an OPRF seed has {SEED_LENGTH} bytes, got {len(self.seed)}")

    @classmethod
    def generate(cls, info: bytes = b"") -> Self:
        """Return a fresh key."""
        return cls(secrets.token_bytes(SEED_LENGTH), info)

    @classmethod
    def from_seed(cls, seed: bytes, info: bytes = b"") -> Self:
        """Return the key of a stored seed."""
        return cls(seed, info)

    def under(self, info: bytes) -> Self:
        """Return the key of the same seed for *info*: one seed, as many keys as there are infos."""
        return type(self)(self.seed, info)

    @property
    def public_key(self) -> bytes:
        """The 32-byte element that clients pin."""
        return self._evaluator().public_key.serialize()

    def evaluate(self, blinded: Sequence[bytes]) -> bytes:
        """Return 96 bytes for each blinded element; see the module's docstring.

        Raises ContractError(`bad_element`) for none, more than 64, or one that is no element.
        """
        if not 1 <= len(blinded) <= MAX_ELEMENTS:
            raise ContractError("bad_element", f"1 to {MAX_ELEMENTS} elements, got {len(blinded)}")
        evaluator = self._evaluator()
        return b"".join(evaluator.evaluate(_element(raw)).serialize() for raw in blinded)

    def evaluate_known(self, value: bytes) -> bytes:
        """Return the output for an input in the clear (RFC 9497 section 3.3.1, Evaluate)."""
        return self._evaluator().evaluate_known_input(value)

    def _evaluator(self) -> Evaluator:
        return Evaluator.from_seed(self.seed, self.info)


def _element(raw: bytes) -> BlindedInput:
    # The library reads the first 32 bytes and ignores what follows.
    if len(raw) != ELEMENT_LENGTH:
        raise ContractError("bad_element", f"an element has {ELEMENT_LENGTH} bytes")
    try:
        return BlindedInput.deserialize(raw)
    except ValueError:
        # Not canonical, or the identity: RFC 9497 section 5.1 refuses both.
        raise ContractError("bad_element", "not a point of ristretto255") from None
