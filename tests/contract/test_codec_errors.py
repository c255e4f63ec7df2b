"""What the one parser does with everything that is not a good message."""

import copy
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.catalog import catalog
from bus_schemas.codec import UnknownEvent, decode, encode
from bus_schemas.envelope import MAX_BYTES, Envelope
from bus_schemas.errors import ContractError

Json = dict[str, Any]

GOLDEN = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parent / "golden").glob("*.json"))
}
OBSERVED = GOLDEN["byok.fingerprint.observed.v1"]
SUBJECT = "byok.v1.fingerprint.acme-1"
REASONS = {
    "oversized",
    "malformed",
    "unknown_type",
    "unknown_major",
    "wrong_subject",
    "wrong_source",
}
CANARIES = (
    "sk-ant-CANARY/7f3a+secret",  # fits no pattern
    "canary-7f3a-secret",  # fits every id
    "canary_7f3a_secret",  # fits reasons and banner ids
    "byok.canary.secret.v1",  # fits a type
    "byok.fingerprint.canary.v2",
    "/servers/canary-7f3a-secret",  # fits a source
    "2026-11-23T10:00:00+canary",
)


def subject_of(raw: bytes) -> str:
    """Return the subject a golden message travels on."""
    message: Json = json.loads(raw)
    return catalog()[message["type"]].template.fill(message["data"])


def changed(**attributes: object) -> bytes:
    """Return the observed golden with other envelope attributes."""
    return json.dumps({**json.loads(OBSERVED), **attributes}).encode()


def changed_data(**fields: object) -> bytes:
    """Return the observed golden with other fields in its data."""
    message: Json = json.loads(OBSERVED)
    return json.dumps({**message, "data": {**message["data"], **fields}}).encode()


def refusal(raw: bytes, subject: str, *, strict: bool = False) -> ContractError | None:
    """Return the error that decoding gives; any other exception than ContractError escapes."""
    try:
        envelope = decode(raw, subject, strict=strict)
    except ContractError as caught:
        error = caught
    else:
        assert isinstance(envelope, Envelope)
        assert decode(encode(envelope), subject) == envelope
        return None
    assert error.reason in REASONS
    return error


def places(node: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value below *node*."""
    children: Any = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for name, child in children:
        yield (*path, name)
        yield from places(child, (*path, name))


def parent_of(node: Any, path: tuple[str | int, ...]) -> Any:  # noqa: ANN401 (JSON)
    """Return the object or array that holds the value at *path*."""
    for name in path[:-1]:
        node = node[name]
    return node


# --- each reason, by its simplest cause ---


@pytest.mark.parametrize(
    ("raw", "subject", "reason"),
    [
        (b"", SUBJECT, "malformed"),
        (b"[]", SUBJECT, "malformed"),
        (OBSERVED[:-1], SUBJECT, "malformed"),
        (b"\xef\xbb\xbf" + OBSERVED, SUBJECT, "malformed"),
        (b"[" * MAX_BYTES, SUBJECT, "malformed"),
        (changed(type=7), SUBJECT, "malformed"),
        (changed(type="byok.fingerprint.observed"), SUBJECT, "malformed"),
        (changed(type="byok.fingerprint.observed.v0"), SUBJECT, "malformed"),
        (changed(type="byok.fingerprint.observed.v01"), SUBJECT, "malformed"),
        (changed(type="byok.no.such.v2", source="nobody"), SUBJECT, "malformed"),
        (changed(specversion="0.3"), SUBJECT, "malformed"),
        (changed(time="0001-01-01T00:00:00+14:00"), SUBJECT, "malformed"),
        (changed(time="9999-12-31T23:59:59-14:00"), SUBJECT, "malformed"),
        (changed(time="2026-11-23T10:00:00"), SUBJECT, "malformed"),
        (changed_data(n="2"), SUBJECT, "malformed"),
        (changed_data(n=True), SUBJECT, "malformed"),
        (changed_data(n=2.0), SUBJECT, "malformed"),
        (changed_data(n=2**53), SUBJECT, "malformed"),
        (changed_data(n=0), SUBJECT, "malformed"),
        (changed_data(slot_id="anthropic\n"), SUBJECT, "malformed"),
        (changed_data(slot_id="*"), SUBJECT, "malformed"),
        (changed(type="byok.no.such.v1"), SUBJECT, "unknown_type"),
        (changed(type="byok.fingerprint.observed.v2"), SUBJECT, "unknown_major"),
        (changed(type="byok.fingerprint.observed.v999"), SUBJECT, "unknown_major"),
        (OBSERVED, "byok.v1.fingerprint.acme-2", "wrong_subject"),
        (OBSERVED, "byok.v1.fingerprint.acme-1.x", "wrong_subject"),
        (OBSERVED, "byok.v1.reported.acme-1", "wrong_subject"),
        (OBSERVED, "byok.v1.fingerprint.*", "wrong_subject"),
        (OBSERVED, "", "wrong_subject"),
        (changed(source="/servers/acme-2"), SUBJECT, "wrong_source"),
        (changed(source="/platform/acme-1"), SUBJECT, "wrong_source"),
    ],
)
def test_each_kind_of_bad_message_has_its_reason(raw: bytes, subject: str, reason: str) -> None:
    """The reason becomes the parked pointer's: operators search by it."""
    error = refusal(raw, subject)
    assert error is not None
    assert error.reason == reason


def test_a_message_may_fill_the_limit_and_not_exceed_it() -> None:
    """64 KiB is the bound for every reader alike, counted before anything is parsed."""
    full = OBSERVED + b" " * (MAX_BYTES - len(OBSERVED))
    assert refusal(full, SUBJECT) is None
    error = refusal(full + b" ", SUBJECT)
    assert error is not None
    assert error.reason == "oversized"
    assert str(error) == "oversized: 65537 bytes, the limit is 65536"


def test_an_oversized_event_is_never_sent() -> None:
    """A writer learns before the bus does that readers would park its message."""
    raw = GOLDEN["byok.rules.changed.v1"]
    rules = decode(raw, subject_of(raw))
    large = rules.data.model_copy(update={"opens": ("x" * MAX_BYTES,)})
    with pytest.raises(ContractError, match="oversized"):
        encode(rules.model_copy(update={"data": large}))


@pytest.mark.parametrize("type_", GOLDEN)
def test_unknown_fields_are_ignored_in_production_only(type_: str) -> None:
    """A newer writer may add fields within a major; in our own tests one is a typing error."""
    raw, subject = GOLDEN[type_], subject_of(GOLDEN[type_])
    message: Json = json.loads(raw)
    outside = json.dumps({**message, "novelty": 1}).encode()
    inside = json.dumps({**message, "data": {**message["data"], "novelty": 1}}).encode()
    for more in (outside, inside):
        assert encode(decode(more, subject)) == raw
        error = refusal(more, subject, strict=True)
        assert error is not None
        assert str(error).endswith("extra_forbidden")


def test_a_field_that_no_signature_covers_is_refused_inside_a_sealed_envelope() -> None:
    """Additions there need a new `v`: an unsigned field could otherwise ride on a signature."""
    raw = GOLDEN["byok.credential.sealed.v1"]
    message: Json = json.loads(raw)
    message["data"]["envelope"]["novelty"] = 1
    error = refusal(json.dumps(message).encode(), subject_of(raw))
    assert error is not None
    assert error.reason == "malformed"


def test_an_unknown_event_says_what_a_reader_needs_to_decide() -> None:
    """Whether to stop or to park depends on who claims to speak, and of what."""
    error = refusal(changed(type="byok.fingerprint.observed.v2"), SUBJECT)
    assert isinstance(error, UnknownEvent)
    assert (error.type, error.source) == ("byok.fingerprint.observed.v2", "/servers/acme-1")
    assert "byok.fingerprint.observed.v2" in str(error)


# --- nothing else comes out ---


@settings(deadline=None)
@given(raw=st.binary(), subject=st.text())
def test_arbitrary_bytes_give_a_contract_error(raw: bytes, subject: str) -> None:
    """No input may raise anything that a reader does not know how to park."""
    assert refusal(raw, subject) is not None


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat())
    | st.sampled_from(CANARIES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), type_=st.sampled_from(sorted(GOLDEN)), strict=st.booleans())
def test_a_golden_message_with_any_value_changed(
    data: st.DataObject, type_: str, strict: bool
) -> None:
    """Whatever stands in whichever field, it is an envelope or a ContractError."""
    message: Json = json.loads(GOLDEN[type_])
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(message))))
        parent_of(message, path)[path[-1]] = data.draw(JSON_VALUES)
    refusal(json.dumps(message).encode(), subject_of(GOLDEN[type_]), strict=strict)


@settings(deadline=None, max_examples=300)
@given(
    type_=st.sampled_from(sorted(GOLDEN)),
    cut=st.tuples(st.integers(0, 2000), st.integers(0, 8)),
    insert=st.binary(max_size=8),
)
def test_a_golden_message_with_any_bytes_changed(
    type_: str, cut: tuple[int, int], insert: bytes
) -> None:
    """Broken JSON and broken UTF-8 are messages like any other bad one."""
    raw, (start, length) = GOLDEN[type_], cut
    refusal(raw[:start] + insert + raw[start + length :], subject_of(raw))


# --- and it tells nobody what was sent ---


def _planted(raw: bytes, canary: str) -> Iterator[bytes]:
    """Yield the message with *canary* as every value, and as every key, in turn."""
    original: Json = json.loads(raw)
    for path in places(original):
        for value in (canary, [canary], {canary: canary}):
            message = copy.deepcopy(original)
            parent_of(message, path)[path[-1]] = value
            yield json.dumps(message).encode()
        message = copy.deepcopy(original)
        holder = parent_of(message, path)
        if isinstance(holder, dict):
            holder[canary] = holder.pop(path[-1])
            yield json.dumps(message).encode()
    yield raw + canary.encode()


def _everything_said(error: BaseException) -> str:
    return "".join([repr(error), str(error), repr(error.args), *traceback.format_exception(error)])


@pytest.mark.parametrize("type_", GOLDEN)
@pytest.mark.parametrize("canary", CANARIES)
def test_no_error_repeats_what_was_sent(type_: str, canary: str) -> None:
    """A credential that strays into any field or key must not reach a log by the error."""
    raw, subject = GOLDEN[type_], subject_of(GOLDEN[type_])
    for planted in _planted(raw, canary):
        for strict in (False, True):
            error = refusal(planted, subject, strict=strict)
            if error is not None:
                assert "canary" not in _everything_said(error).lower()
                assert error.__context__ is None  # it would hold the input, `from None` or not
                assert error.__cause__ is None


def test_a_foreign_subject_is_not_repeated_either() -> None:
    """The subject is the sender's choice too, as far as its permissions go."""
    error = refusal(OBSERVED, "byok.v1.fingerprint.canary")
    assert error is not None
    assert "canary" not in _everything_said(error)


@pytest.mark.parametrize(
    "told_first",
    [b'"type":"byok.health.reported.v1",', b'"x":{"type": "byok.health.reported.v1"},'],
    ids=["said twice", "within another field"],
)
def test_a_type_that_only_stands_first_decides_nothing(told_first: bytes) -> None:
    """The parser is chosen by the envelope's own type, whatever else in the message looks so."""
    misleading = OBSERVED.replace(b"{", b"{" + told_first, 1)
    assert decode(misleading, SUBJECT) == decode(OBSERVED, SUBJECT)
