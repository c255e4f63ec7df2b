"""`docs/protocol.md` written a second time, from the page alone and with nothing of ours imported.

For the tests only: whatever this and the product disagree about, the page does not say.
"""

import base64
import hashlib
import hmac
import json
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.oracle import hpke

SUITE: Final = b"HPKE" + bytes.fromhex("002000010002")


def lp(value: bytes | str) -> bytes:
    """Return *value* behind its u16 length."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def u64(value: int) -> bytes:
    """Return eight bytes."""
    return value.to_bytes(8, "big")


def domain(name: str, *parts: bytes | str) -> bytes:
    """Return a quoted domain, its zero byte, and the parts behind their lengths."""
    return name.encode() + b"\0" + b"".join(map(lp, parts))


def b64(raw: bytes) -> str:
    """Return *raw* as it stands in JSON."""
    return base64.urlsafe_b64encode(raw).decode()


def unb64(text: str) -> bytes:
    """Return the bytes of a JSON value, with or without its padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- Signatures and keys ---


def signature(seed: bytes, name: str, *parts: bytes | str) -> bytes:
    """Return the Ed25519 signature under *name*."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(domain(name, *parts))


def fingerprint(name: str, *parts: bytes | str) -> str:
    """Return the 20 characters of `byok/<name>/v1`."""
    digest = hashlib.sha256(domain(f"byok/{name}/v1", *parts)).digest()
    return base64.b32encode(digest).decode()[:20]


# --- Sealing ---


def seal_info(fields: dict[str, Any], sender: bytes) -> bytes:
    """Return HPKE's info of an envelope with these *fields*."""
    names = ("owner_id", "server_id", "key_id", "slot_id", "provider", "kind")
    head = domain("byok/seal/v1", SUITE, *(fields[name] for name in names))
    numbers = u64(fields["revision"]) + u64(fields["not_after"])
    return head + numbers + lp(fields["envelope_id"]) + lp(sender)


def padded(text: bytes) -> bytes:
    """Return the plaintext of *text*: its length, itself, zeros up to a multiple of 512."""
    framed = len(text).to_bytes(4, "big") + text
    return framed + bytes(-len(framed) % 512)


def envelope(
    fields: dict[str, Any], payload: bytes, receiver: bytes, ephemeral: bytes, owner_seed: bytes
) -> str:
    """Return a sealed envelope as JSON."""
    sender = Ed25519PrivateKey.from_private_bytes(owner_seed).public_key().public_bytes_raw()
    info = seal_info(fields, sender)
    enc, ct = hpke.seal(hpke.AES_256_GCM, receiver, ephemeral, info, padded(payload))
    sig = signature(owner_seed, "byok/seal-sig/v1", info, enc, ct)
    secret = {"sender_public_key": sender, "enc": enc, "ct": ct, "sig": sig}
    return json.dumps({"v": 1, **fields, **{name: b64(raw) for name, raw in secret.items()}})


def opened(envelope_json: str, private: bytes) -> bytes:
    """Return the payload of an envelope, its signature checked."""
    fields = json.loads(envelope_json)
    sender, enc, ct, sig = (unb64(fields[n]) for n in ("sender_public_key", "enc", "ct", "sig"))
    info = seal_info(fields, sender)
    signed = domain("byok/seal-sig/v1", info, enc, ct)
    Ed25519PublicKey.from_public_bytes(sender).verify(sig, signed)
    plaintext = hpke.unseal(hpke.AES_256_GCM, private, enc, info, ct)
    length = int.from_bytes(plaintext[:4], "big")
    text = plaintext[4 : 4 + length]
    if padded(text) != plaintext:
        raise ValueError("padding")
    return text


# --- Unlock ---


def unlock_input(server_id: str, g: int, share: bytes) -> bytes:
    """Return x_g."""
    return domain("byok/unlock/v1", server_id) + u64(g) + lp(share)


def unlock_preimage(x: bytes) -> bytes:
    """Return s_g."""
    return hashlib.sha256(b"byok/unlock/s/v1\0" + x).digest()


def unlock_check(s: bytes) -> bytes:
    """Return chk_g."""
    return hashlib.sha256(b"byok/unlock/chk/v1\0" + s).digest()


def unlock_key_info(server_id: str, g: int, check: bytes) -> bytes:
    """Return the info of the key for one disk."""
    return domain("byok/unlock-key/v1", server_id) + u64(g) + check


def kek(y: bytes, share: bytes, server_id: str, g: int) -> bytes:
    """Return KEK_g."""
    return hpke.hkdf(y, share, domain("byok/kek/v1", server_id) + u64(g), 32)


# --- Evaluator ---


def evaluator_request(
    server_id: str, inner: bytes, identity_seed: bytes, receiver: bytes, ephemeral: bytes
) -> bytes:
    """Return a sealed request around the *inner* JSON."""
    signed = signature(identity_seed, "byok/evaluator-request/v1", server_id, inner) + inner
    info = domain("byok/evaluator-request/v1", server_id)
    enc, ct = hpke.seal(hpke.AES_256_GCM, receiver, ephemeral, info, signed)
    return json.dumps({"v": 1, "server_id": server_id, "enc": b64(enc), "ct": b64(ct)}).encode()


def answer_signature(
    seed: bytes, kind: str, server_id: str, request: bytes, *parts: bytes | str
) -> bytes:
    """Return the evaluator's signature of its answer to the bytes of *request*."""
    digest = hashlib.sha256(request).digest()
    return signature(seed, f"byok/evaluator-{kind}/v1", server_id, digest, *parts)


def copy_code(server_id: str, g: int, check: bytes) -> str:
    """Return the 20 characters by which an owner names a disk."""
    digest = hashlib.sha256(domain("byok/copy/v1", server_id) + u64(g) + check).digest()
    return base64.b32encode(digest).decode()[:20]


def approval(seed: bytes, server_id: str, code: str, issued_at: int) -> str:
    """Return an owner's signed approval as JSON."""
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    signed = signature(seed, "byok/approve/v1", server_id, code, u64(issued_at))
    fields = {"server_id": server_id, "code": code, "issued_at": issued_at}
    return json.dumps({**fields, "public_key": b64(public), "signature": b64(signed)})


# --- Orders ---


def order(seed: bytes, to: tuple[str, str, bytes], fields: dict[str, Any]) -> str:
    """Return an order as JSON; *to* is (owner, server, identity key), *fields* lacks the signer."""
    ends = datetime.fromisoformat(fields["not_after"])
    parts = (
        *to,
        fields["order_id"],
        u64(fields["n"]),
        fields["kind"],
        fields.get("slot_id") or "",
        fields.get("argument") or "",
        u64(int(ends.timestamp())),
    )
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    signed = signature(seed, "byok/order/v1", *parts)
    return json.dumps({**fields, "signer": b64(public), "signature": b64(signed)})


# --- At rest ---


def wrapped_root(kek_g: bytes, nonce: bytes, root_key: bytes, server_id: str, g: int) -> bytes:
    """Return the wrapped root key."""
    aad = domain("byok/root/v1", server_id) + u64(g)
    return nonce + AESGCM(kek_g).encrypt(nonce, root_key, aad)


def root_key_id(root_key: bytes) -> str:
    """Return the 16 digits that name a root key."""
    return hashlib.sha256(b"byok/root-id/v1\0" + root_key).hexdigest()[:16]


def record_keys(root_key: bytes, salt: bytes, server: str, slot: str, revision: int) -> bytes:
    """Return key (32 bytes) and nonce (12) of one record."""
    info = domain("byok/vault/v1", server, slot) + u64(revision)
    return hpke.hkdf(root_key, salt, info, 44)


def record(root_key: bytes, salt: bytes, place: tuple[str, str, int], plaintext: bytes) -> bytes:
    """Return the file of the record at *place* (server, slot, revision)."""
    server, slot, revision = place
    header = json.dumps(
        {
            "v": 1,
            "aead": "AES-256-GCM",
            "server": server,
            "slot": slot,
            "revision": revision,
            "root_key_id": root_key_id(root_key),
            "salt": b64(salt),
        }
    ).encode()
    head = b"BYOKVLT1" + len(header).to_bytes(4, "big") + header
    keys = record_keys(root_key, salt, server, slot, revision)
    return head + AESGCM(keys[:32]).encrypt(keys[32:], plaintext, head)


def record_opened(root_key: bytes, raw: bytes) -> bytes:
    """Return what a record holds, believing its own header."""
    end = 12 + int.from_bytes(raw[8:12], "big")
    header = json.loads(raw[12:end])
    place = (header["server"], header["slot"], header["revision"])
    keys = record_keys(root_key, unb64(header["salt"]), *place)
    return AESGCM(keys[:32]).decrypt(keys[32:], raw[end:], raw[:end])


# --- Fingerprints ---


def tag_input(basis: str, provider: str, *parts: str) -> bytes:
    """Return what is blinded for a tag."""
    return hashlib.sha256(domain("byok/fp/v1", basis, provider, *parts)).digest()


def tag(epoch: str, basis: str, y: bytes) -> str:
    """Return the tag as it stands in a fact."""
    return hashlib.sha256(domain("byok/fp/tag/v1", epoch, basis) + y).hexdigest()


# --- Orders ---


def order_parts(order: dict[str, Any]) -> tuple[bytes | str, ...]:
    """Return what is signed of an order, given as its vector has it."""
    ends = datetime.fromisoformat(order["not_after"])
    return (
        order["owner_id"],
        order["server_id"],
        bytes.fromhex(order["identity_public_key"]),
        order["order_id"],
        u64(order["n"]),
        order["kind"],
        order["slot_id"] or "",
        order["argument"] or "",
        u64(int(ends.timestamp())),
    )


# --- What only the evaluator and the disk themselves compute ---


def nonce(sealing_key: bytes, server_id: str, sequence: int) -> bytes:
    """Return the evaluator's nonce for one state of a server's ratchet."""
    key = hpke.hkdf(sealing_key, bytes(32), b"byok/nonce-key/v1\0", 32)
    return hmac.digest(key, lp(server_id) + u64(sequence), hashlib.sha256)


def ratchet_mac(sealing_key: bytes, fields: dict[str, Any]) -> bytes:
    """Return the MAC of a ratchet state with these *fields*, those that are none left out."""
    key = hpke.hkdf(sealing_key, bytes(32), b"byok/ratchet-key/v1\0", 32)
    framed = b"".join(lp(name) + lp(_framed(fields[name])) for name in sorted(fields))
    return hmac.digest(key, framed, hashlib.sha256)


def _framed(value: Any) -> bytes:  # noqa: ANN401 (what a JSON document holds, or bytes)
    if isinstance(value, list | tuple):
        return b"".join(lp(_framed(item)) for item in value)
    return (
        u64(value)
        if isinstance(value, int)
        else value.encode()
        if isinstance(value, str)
        else value
    )


def recovery_file(code: bytes, salt: bytes, nonce: bytes, root_key: bytes, server_id: str) -> str:
    """Return a `recovery.json`."""
    key = hpke.hkdf(code, salt, domain("byok/recovery/v1", server_id), 32)
    aad = domain("byok/recovery-root/v1", server_id)
    wrapped = nonce + AESGCM(key).encrypt(nonce, root_key, aad)
    fields = {"server_id": server_id, "salt": b64(salt), "wrapped_root": b64(wrapped)}
    return json.dumps({"v": 1, **fields})
