"""Sealing and blind evaluation, against the bare primitives they are built from."""

import secrets
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from pydantic import SecretStr

from benchmarks.figure import Figure, paired
from bus_schemas.credential import CredentialPayload
from bus_schemas.fields import CredentialKind
from bus_schemas.sealed import SealContext, open_sealed, seal
from bus_schemas.transport.fresh import new_id

_TIMES = 200


def measure() -> list[Figure]:
    """Return the figures of custody."""
    owner, server = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    payload = CredentialPayload(
        secret=SecretStr("made-up-" + secrets.token_hex(40)),
        base_url="https://api.anthropic.com",
        header_style="x-api-key",
    )
    context = SealContext(
        owner_id="acme",
        server_id="acme-1",
        key_id="k-1",
        slot_id="anthropic",
        provider="anthropic",
        kind=CredentialKind.API_KEY,
        revision=1,
        not_after=int(time.time()) + 3600,
        envelope_id=new_id(),
    )
    plain = bytes(512)

    def sealed() -> int:
        for _ in range(_TIMES):
            envelope = seal(
                payload,
                context,
                sealing_public_key=server.public_key().public_bytes_raw(),
                owner_private_key=owner,
            )
            open_sealed(envelope, sealing_private_key=server)
        return _TIMES

    def bare() -> int:
        for _ in range(_TIMES):
            raw = suite.encrypt(plain, server.public_key(), info=b"bench")
            signature = owner.sign(raw)
            owner.public_key().verify(signature, raw)
            suite.decrypt(raw, server, info=b"bench")
        return _TIMES

    ours, theirs, ratio = paired(sealed, bare)
    return [
        Figure(
            "seal + open with all bindings, against bare HPKE + Ed25519",
            round(1 / ratio, 2),
            "times the bare cost",
            2.5,
            "lower",
            f"ours {ours:,.0f}/s, bare {theirs:,.0f}/s",
        )
    ]
