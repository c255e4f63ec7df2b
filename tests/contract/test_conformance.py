"""The product against a second implementation, and that one against the RFCs' own figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from bus_schemas import (
    approval,
    evaluation,
    evaluation_signatures,
    keys,
    nonces,
    orders,
    ratchet_mac,
    sealed,
    tags,
    unlock,
)
from bus_schemas.credential import CredentialPayload
from bus_schemas.events import RatchetAdvanced
from bus_schemas.events.config import Order
from bus_schemas.fields import Basis, CredentialKind
from bus_schemas.oprf import OprfKey, blind
from tests.oracle import hpke, protocol, ristretto255, voprf
from vps_runtime.vault import record, recovery

FOLDER = Path(__file__).parents[1] / "vectors"
H = bytes.fromhex


def figures(name: str) -> dict[str, Any]:
    """Return the figures in `tests/vectors/<name>.json`."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_bytes())
    return found


VOPRF = figures("rfc9497_voprf_ristretto255")
HPKE = figures("rfc9180_x25519_sha256")
SCALAR = int.from_bytes(H(VOPRF["cases"][0]["blinds"][0]), "little")
KEY = voprf.derive_key(H(VOPRF["seed"]), H(VOPRF["key_info"]))
PRODUCT_KEY = OprfKey.from_seed(H(VOPRF["seed"]), H(VOPRF["key_info"]))
AEADS = {1: hpke.AES_128_GCM, 3: hpke.CHACHA20_POLY1305}
SEED = b"\x01" * 32
RECEIVER = X25519PrivateKey.from_private_bytes(b"\x03" * 32)
few = settings(max_examples=20, deadline=None)
ids = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True)
bytes32 = st.binary(min_size=32, max_size=32)
counters = st.integers(0, 2**53 - 1)


def scalars(values: list[str]) -> list[int]:
    """Return the scalars of little-endian hexadecimal figures."""
    return [int.from_bytes(H(value), "little") for value in values]


# --- the second implementation against the RFCs ---


def test_the_group_is_that_of_the_rfc() -> None:
    """RFC 9496 appendix A.1: the small multiples of the generator."""
    generator = ristretto255.GENERATOR
    multiples = [ristretto255.IDENTITY, generator, generator * 2, generator * 3]
    assert [element.encode().hex()[:16] for element in multiples] == [
        "0000000000000000",
        "e2f2ae0a6abc4e71",
        "6a493210f7499cd1",
        "94741f5d5d52755e",
    ]
    assert (generator * (ristretto255.ORDER - 1) + generator).encode() == bytes(32)


def test_the_key_matches_the_rfc() -> None:
    """RFC 9497 appendix A.1.2: secret and public key of the seed."""
    assert KEY.to_bytes(32, "little").hex() == VOPRF["secret_key"]
    assert voprf.public_key(KEY).hex() == VOPRF["public_key"]


@pytest.mark.parametrize("case", VOPRF["cases"], ids=["one", "long", "batch"])
def test_blinds_proofs_and_outputs_match_the_rfc(case: dict[str, Any]) -> None:
    """RFC 9497 appendix A.1.2, all of it: blinded, evaluated, proof, output."""
    inputs, blinds = [H(value) for value in case["inputs"]], scalars(case["blinds"])
    blinded = [voprf.blind(*pair) for pair in zip(inputs, blinds, strict=True)]
    answers, proof = voprf.evaluate(KEY, blinded, scalars([case["proof_random"]])[0])
    assert [value.hex() for value in blinded] == case["blinded"]
    assert [value.hex() for value in answers] == case["evaluated"]
    assert proof.hex() == case["proof"]
    assert voprf.verify(H(VOPRF["public_key"]), blinded, answers, proof)
    outputs = [voprf.finalize(*each) for each in zip(inputs, blinds, answers, strict=True)]
    assert [value.hex() for value in outputs] == case["outputs"]


@pytest.mark.parametrize("case", HPKE["cases"], ids=["A.1.1", "A.2.1"])
def test_hpke_matches_the_rfc(case: dict[str, Any]) -> None:
    """RFC 9180 appendices A.1.1 and A.2.1: KEM, key schedule and ciphertext."""
    aead, info, aad = AEADS[case["aead"]], H(HPKE["info"]), H(HPKE["aad"])
    shared = hpke.schedule(aead, H(case["shared_secret"]), info)
    assert shared == hpke.Schedule(
        H(case["key"]), H(case["base_nonce"]), H(case["exporter_secret"])
    )
    sent = hpke.seal(aead, H(case["pkRm"]), H(case["skEm"]), info, H(HPKE["pt"]), aad)
    assert [part.hex() for part in sent] == [case["enc"], case["ct"]]
    assert hpke.unseal(aead, H(case["skRm"]), sent[0], info, sent[1], aad) == H(HPKE["pt"])


# --- the product against the second implementation ---


@few
@given(value=st.binary(min_size=1, max_size=300))
def test_the_products_evaluation_satisfies_the_second_client(value: bytes) -> None:
    """What the evaluator answers must verify, and give the open output, outside of its library."""
    blinded = voprf.blind(value, SCALAR)
    answer = PRODUCT_KEY.evaluate([blinded])
    proof, element = answer[:64], answer[64:]
    assert voprf.verify(PRODUCT_KEY.public_key, [blinded], [element], proof)
    assert voprf.finalize(value, SCALAR, element) == PRODUCT_KEY.evaluate_known(value)


@few
@given(value=st.binary(min_size=1, max_size=300), proof_scalar=st.integers(1, 2**250))
def test_the_products_client_takes_the_second_evaluators_answer(
    value: bytes, proof_scalar: int
) -> None:
    """A proof made elsewhere from the RFC must satisfy the server's client."""
    blinding, blinded = blind([value])
    [element], proof = voprf.evaluate(KEY, blinded, proof_scalar)
    [output] = blinding.finalize(proof + element, voprf.public_key(KEY))
    assert output == PRODUCT_KEY.evaluate_known(value)


@few
@given(info=st.binary(max_size=400), message=st.binary(max_size=2000), ephemeral=bytes32)
def test_hpke_goes_both_ways(info: bytes, message: bytes, ephemeral: bytes) -> None:
    """The suite in use, for which the RFC has no figures, must agree with the second one."""
    enc, ct = hpke.seal(
        hpke.AES_256_GCM, RECEIVER.public_key().public_bytes_raw(), ephemeral, info, message
    )
    assert sealed.SUITE.decrypt(enc + ct, RECEIVER, info=info) == message
    ours = sealed.SUITE.encrypt(message, RECEIVER.public_key(), info=info)
    private, split = RECEIVER.private_bytes_raw(), sealed.ENC_LENGTH
    assert hpke.unseal(hpke.AES_256_GCM, private, ours[:split], info, ours[split:]) == message


@few
@given(
    names=st.tuples(ids, ids, ids, ids, ids),
    numbers=st.tuples(st.integers(1, 2**53 - 1), counters),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=1200),
)
def test_envelopes_go_both_ways(
    names: tuple[str, ...], numbers: tuple[int, int], secret: str
) -> None:
    """An envelope written from the page must open here, and one of ours there."""
    fields = dict(
        zip(("owner_id", "server_id", "key_id", "slot_id", "provider"), names, strict=True)
    )
    context = sealed.SealContext(
        **fields,
        kind=CredentialKind.API_KEY,
        revision=numbers[0],
        not_after=numbers[1],
        envelope_id="0190a1b2-0000-7000-8000-000000000001",
    )
    payload = CredentialPayload(
        secret=SecretStr(secret), base_url="https://provider.example", header_style="bearer"
    )
    public = RECEIVER.public_key().public_bytes_raw()
    ours = sealed.seal(
        payload,
        context,
        sealing_public_key=public,
        owner_private_key=Ed25519PrivateKey.from_private_bytes(SEED),
    )
    text = ours.model_dump_json()
    assert protocol.opened(text, RECEIVER.private_bytes_raw()) == payload.reveal_json()
    theirs = protocol.envelope(
        json.loads(context.model_dump_json()), payload.reveal_json(), public, b"\x04" * 32, SEED
    )
    read = sealed.SealedEnvelope.model_validate_json(theirs)
    assert sealed.open_sealed(read, sealing_private_key=RECEIVER) == payload


@few
@given(server_id=ids, g=counters, share=bytes32, y=st.binary(min_size=64, max_size=64))
def test_the_unlock_is_the_pages(server_id: str, g: int, share: bytes, y: bytes) -> None:
    """x, s, chk, KEK and the wrapped root key must be those of the page."""
    x = protocol.unlock_input(server_id, g, share)
    assert unlock.unlock_input(server_id, g, share) == x
    s = protocol.unlock_preimage(x)
    assert unlock.unlock_preimage(x) == s
    assert unlock.unlock_check(s) == protocol.unlock_check(s)
    info = protocol.unlock_key_info(server_id, g, protocol.unlock_check(s))
    assert unlock.unlock_key_info(server_id, g, unlock.unlock_check(s)) == info
    theirs = voprf.derive_key(SEED, info)
    assert OprfKey.from_seed(SEED).under(info).public_key == voprf.public_key(theirs)
    kek = protocol.kek(y, share, server_id, g)
    assert unlock.key_encryption_key(y, share, server_id, g) == kek
    wrapped = protocol.wrapped_root(kek, b"\x09" * 12, share, server_id, g)
    record.unwrap_root_key(kek, server_id, g, wrapped, opened := bytearray(32))
    assert opened == share


@few
@given(server=ids, slot=ids, revision=st.integers(1, 2**53 - 1), root=bytes32, text=st.binary())
def test_records_go_both_ways(
    server: str, slot: str, revision: int, root: bytes, text: bytes
) -> None:
    """A vault file written from the page must open here, and one of ours there."""
    name = record.RecordName(server, slot, revision)
    assert protocol.record_opened(root, record.seal_record(root, name, text)) == text
    theirs = protocol.record(root, b"\x08" * 32, (server, slot, revision), text)
    assert record.open_record(root, theirs, name)[1] == text
    with pytest.raises(InvalidTag):
        protocol.record_opened(bytes(byte ^ 1 for byte in root), theirs)


def test_evaluator_requests_are_the_pages() -> None:
    """A request written from the page must open and verify here."""
    seed = b"\x02" * 32
    inner = b'{"op": "challenge"}'
    public = RECEIVER.public_key().public_bytes_raw()
    raw = protocol.evaluator_request("server-1", inner, seed, public, b"\x04" * 32)
    opened = evaluation.open_request(raw, RECEIVER)
    identity = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    evaluation.check_request_signature(opened, identity)
    assert opened.request == evaluation.ChallengeRequest()


@few
@given(server_id=ids, g=counters, preimages=st.tuples(bytes32, bytes32), raw=st.binary())
def test_the_evaluators_word_is_the_pages(
    server_id: str, g: int, preimages: tuple[bytes, bytes], raw: bytes
) -> None:
    """Its keys for a disk, its count and its refusal, as signed from the page, must hold here."""
    signer = Ed25519PrivateKey.from_private_bytes(SEED)
    public = signer.public_key().public_bytes_raw()
    question = evaluation_signatures.Question.asked(server_id, raw)
    checks = [protocol.unlock_check(s) for s in preimages]
    points = (b"\x0e" * 32, b"\x0f" * 32)
    parts = (server_id, raw, protocol.u64(g))
    reply = evaluation.UnlockReply(
        evaluation=b"",
        public_keys=points,
        signature=protocol.answer_signature(SEED, "unlock", *parts, *checks, *points),
    )
    claim = evaluation.UnlockRequest(
        g=g, blinded=points, preimage=preimages[0], next_preimage=preimages[1], nonce=points[0]
    )
    evaluation_signatures.check_unlock(reply, question, claim, evaluator_public_key=public)
    commit = evaluation_signatures.sign_commit(signer, question, g, points[0])
    assert commit.signature == protocol.answer_signature(SEED, "commit", *parts)
    refusal = evaluation_signatures.sign_refusal(signer, question, "stale_nonce")
    theirs = protocol.answer_signature(SEED, "refusal", server_id, raw, "stale_nonce")
    assert refusal.signature == theirs


@few
@given(server_id=ids, g=counters, check=bytes32, at=counters)
def test_approvals_are_the_pages(server_id: str, g: int, check: bytes, at: int) -> None:
    """The code of a disk, and an owner's word about it, must be those of the page."""
    code = protocol.copy_code(server_id, g, check)
    assert approval.copy_code(server_id, g, check) == code
    theirs = protocol.approval(SEED, server_id, code, at)
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    ours = approval.sign_approval(key, server_id=server_id, code=code, issued_at=at)
    read = approval.Approval.model_validate_json(theirs)
    approval.check_approval(read)
    assert read == ours  # Ed25519 is deterministic, RFC 8032


@few
@given(names=st.tuples(ids, ids, ids), identity=bytes32, n=st.integers(1, 2**53 - 1))
def test_orders_are_the_pages(names: tuple[str, str, str], identity: bytes, n: int) -> None:
    """An order written from the page must be obeyed as one of ours."""
    owner_id, server_id, slot_id = names
    fields = {
        "order_id": "0190a1b2-0000-7000-8000-000000000002",
        "n": n,
        "kind": "stop-slot",
        "slot_id": slot_id,
        "not_after": "2030-01-01T00:00:00Z",
    }
    theirs = protocol.order(SEED, (owner_id, server_id, identity), fields)
    read = Order.model_validate_json(theirs)
    to = orders.Addressee(owner_id, server_id, identity)
    orders.check_order(read, to)
    what = orders.Instruction(orders.OrderKind.STOP_SLOT, slot_id)
    stamp = orders.Stamp(read.order_id, n, read.not_after)
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    assert orders.sign_order(key, to, what, stamp) == read


@few
@given(server_id=ids, numbers=st.lists(counters, min_size=3, max_size=3), check=bytes32)
def test_what_the_evaluator_computes_for_itself_is_the_pages(
    server_id: str, numbers: list[int], check: bytes
) -> None:
    """Its nonces and the MACs of its states: another evaluator with its keys must take them."""
    sequence, committed, seen = numbers
    key = nonces.nonce_key(SEED)
    assert nonces.nonce(key, server_id, sequence) == protocol.nonce(SEED, server_id, sequence)
    fields = {"server_id": server_id, "committed": committed, "committed_check": check}
    fields |= {"unlocks": [seen], "owner_pins": ["A" * 20, "B" * 20]}
    state = RatchetAdvanced.model_validate(fields)
    made = ratchet_mac.with_mac(ratchet_mac.ratchet_key(SEED), state)
    assert made.mac == protocol.ratchet_mac(SEED, fields)


@few
@given(server_id=ids, code=st.binary(min_size=20, max_size=20), salt=bytes32, root=bytes32)
def test_recovery_files_are_the_pages(
    server_id: str, code: bytes, salt: bytes, root: bytes
) -> None:
    """A recovery file written from the page must open with its code."""
    theirs = protocol.recovery_file(code, salt, b"\x09" * 12, root, server_id)
    opened = bytearray(32)
    file = recovery.RecoveryFile.model_validate_json(theirs)
    recovery.unwrap(file, code, server_id, opened)
    assert opened == root


@few
@given(epoch=ids, provider=ids, parts=st.lists(st.text(max_size=50), min_size=1, max_size=3))
def test_tags_are_the_pages(epoch: str, provider: str, parts: list[str]) -> None:
    """Input and tag of every basis must be those of the page."""
    for basis in Basis:
        found = protocol.tag_input(basis.value, provider, *parts)
        assert tags.tag_input(basis, provider, *parts) == found
        assert tags.tag(epoch, basis, found * 2) == protocol.tag(epoch, basis.value, found * 2)


@few
@given(server_id=ids, key=bytes32)
def test_key_fingerprints_are_the_pages(server_id: str, key: bytes) -> None:
    """What a person compares must be what the page says."""
    assert keys.owner_fingerprint(key) == protocol.fingerprint("owner", key)
    assert keys.server_fingerprint(server_id, key) == protocol.fingerprint("server", server_id, key)


def test_the_figures_on_file_are_the_pages() -> None:
    """The vectors for other implementations must follow from the second one, too."""
    found = figures("unlock")
    x = protocol.unlock_input(found["server_id"], found["g"], H(found["share"]))
    s = protocol.unlock_preimage(x)
    assert [x.hex(), s.hex(), protocol.unlock_check(s).hex()] == [
        found["x"],
        found["s"],
        found["chk"],
    ]
    info = protocol.unlock_key_info(found["server_id"], found["g"], H(found["chk"]))
    assert info.hex() == found["key_info"]
    private = voprf.derive_key(H(found["seed"]), info)
    assert voprf.public_key(private).hex() == found["public_key"]
    kek = protocol.kek(H(found["y"]), H(found["share"]), found["server_id"], found["g"])
    assert kek.hex() == found["kek"]
    answers = figures("evaluation")
    raw, signer = answers["request"].encode(), H(answers["evaluator_signing_seed"])
    for kind, answer in answers["answers"].items():
        signed = [H(part) if part else answer["reason"] for part in answer["parts"]]
        made = protocol.answer_signature(signer, kind, "server-1", raw, *signed)
        assert made.hex() == answer["signature"]
    for case in figures("tags")["cases"]:
        made = protocol.tag_input(case["basis"], case["provider"], *case["parts"])
        assert made.hex() == case["input"]
        assert protocol.tag(case["epoch"], case["basis"], H(case["y"])) == case["tag"]
    vault = figures("vault")
    root = H(vault["root_key"])
    assert protocol.root_key_id(root) == vault["root_key_id"]
    assert protocol.record_opened(root, H(vault["record"])) == vault["plaintext"].encode()
    envelope = figures("sealed")
    opened = protocol.opened(json.dumps(envelope["envelope"]), H(envelope["sealing_private_key"]))
    assert opened == envelope["payload"].encode()
    signed = figures("keys")["sealing_key"]
    parts = ("server-1", signed["key_id"], H(signed["public_key"]), protocol.u64(1893456000))
    made_signature = protocol.signature(b"\x02" * 32, "byok/sealing-key/v1", *parts)
    assert made_signature.hex() == signed["signature"]
