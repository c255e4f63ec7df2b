"""The frames of OpenClaw's gateway, its answers, and what they mean."""

import json

import pytest

from vps_runtime.openclaw.protocol import (
    Event,
    Response,
    asking,
    connect_params,
    degraded,
    models_took,
    probed_status,
    provider_name,
    read_frame,
    reload_took,
    request,
    server_version,
)

STALE = {"ownerKind": "provider", "ownerId": "a", "degradationState": "stale"}
COLD = {"ownerKind": "provider", "ownerId": "b", "degradationState": "cold"}
OTHER = {"ownerKind": "channel", "ownerId": "c", "degradationState": "stale"}
OURS = {
    "ownerKind": "account",
    "ownerId": '["/a/main/openclaw-agent.sqlite","groq:byok"]',
    "degradationState": "cold",
}
OURS_TOO = OURS | {"ownerId": '["/a/other/openclaw-agent.sqlite","groq:byok"]'}
BY_EXEC = {"apiKey": {"source": "exec", "provider": "byok", "id": "__OPENCLAW_REDACTED__"}}


def test_frames_are_told_apart() -> None:
    """An answer has an id, an event a name."""
    frame = {"type": "res", "id": "1", "ok": True, "payload": {"a": 1}}
    assert read_frame(json.dumps(frame)) == Response("1", ok=True, payload={"a": 1})
    assert read_frame('{"type": "event", "event": "tick", "payload": {}}') == Event("tick")


def test_a_refusal_carries_openclaws_words_in_one_short_line() -> None:
    """They end in a log."""
    error = {"code": "UNAVAILABLE", "message": "a\nb" + "x" * 500}
    frame = read_frame(json.dumps({"type": "res", "id": "1", "ok": False, "error": error}))
    assert isinstance(frame, Response)
    assert frame.error.startswith("UNAVAILABLE a b")
    assert len(frame.error) == 200
    assert frame.payload == {}


@pytest.mark.parametrize(
    "raw", ["", "{", "[]", "1", '{"type": "res", "id": 1, "ok": true}', '{"type": "other"}']
)
def test_what_is_no_frame_is_none(raw: str) -> None:
    """A newer OpenClaw may say more than we know."""
    assert read_frame(raw) is None


def test_a_request_names_id_method_and_parameters() -> None:
    """As its schema wants it: nothing else."""
    assert json.loads(request("7", "status", {})) == {
        "type": "req",
        "id": "7",
        "method": "status",
        "params": {},
    }


def test_we_say_who_we_are_with_the_one_scope_that_may_reload() -> None:
    """Protocol 4 and no other."""
    params = connect_params("made-up")
    assert params["auth"] == {"token": "made-up"}
    assert (params["minProtocol"], params["maxProtocol"]) == (4, 4)
    assert params["scopes"] == ["operator.admin"]


@pytest.mark.parametrize(
    ("hello", "version"),
    [({"server": {"version": "2026.9.6"}}, "2026.9.6"), ({"server": 1}, ""), ({}, "")],
)
def test_the_greeting_names_a_version(hello: dict[str, object], version: str) -> None:
    """It decides whether we know the rules."""
    assert server_version(hello) == version


@pytest.mark.parametrize(
    ("answer", "revoked", "took"),
    [
        ({"ok": True, "warningCount": 0}, 0, True),
        ({"ok": True, "warningCount": 1}, 0, False),  # it goes on with the old key
        ({"ok": True, "warningCount": 1}, 1, True),
        ({"ok": True, "warningCount": 0}, 1, False),
        ({"ok": False, "warningCount": 0}, 0, False),
        ({"ok": 1, "warningCount": 0}, 0, False),
        ({"ok": True}, 0, False),
        ({}, 0, False),
    ],
)
def test_a_reload_took_only_without_a_warning(
    answer: dict[str, object],
    revoked: int,
    took: bool,
) -> None:
    """`ok` alone means nothing: openclaw says it as well of a key that it could not renew."""
    assert reload_took(answer, revoked=revoked) is took


@pytest.mark.parametrize(
    ("owners", "revoked", "took"),
    [
        ([], 0, True),
        ([OTHER], 0, True),  # a channel's secret is not ours to mend
        ([STALE], 0, False),
        ([STALE], 1, False),
        ([COLD, OTHER], 1, True),
        ([COLD], 0, False),
        ([COLD, STALE], 2, False),
        ([OURS, OURS_TOO], 1, True),  # one key, in the stores of two agents
        ([OURS | {"degradationState": "stale"}], 1, False),
    ],
)
def test_another_secret_that_is_missing_there_does_not_hold_a_rotation_up(
    owners: list[object],
    revoked: int,
    took: bool,
) -> None:
    """Its warning is told apart from one about a model's key by `status`."""
    assert models_took({"degradedSecretOwners": owners}, revoked=revoked) is took


@pytest.mark.parametrize("status", [{}, {"degradedSecretOwners": "x"}])
def test_who_lacks_nothing_may_say_nothing(status: dict[str, object]) -> None:
    """An older version may not know the field."""
    assert degraded(status) == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"status": "ok"}, 200),
        ({"status": "auth"}, 401),
        ({"status": "billing"}, 402),
        ({"status": "rate_limit"}, 429),
        ({"status": "no_model"}, None),
        ({"status": "timeout"}, None),
        ({}, None),
    ],
)
def test_only_some_results_of_a_probe_say_something_of_the_key(
    answer: dict[str, object],
    status: int | None,
) -> None:
    """No answer is no proof."""
    assert probed_status(answer) == status


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ({"groq"}, "groq"),
        ({"groq-2", "groq"}, "groq-2"),
        ({"xai"}, None),
        (set(), None),
    ],
)
def test_a_slots_name_there_is_its_own_or_its_providers(names: set[str], name: str | None) -> None:
    """OpenClaw does not show the ids of its secrets."""
    assert provider_name("groq-2", "groq", names) == name


@pytest.mark.parametrize(
    ("parsed", "names"),
    [
        ({"auth": {"profiles": {"groq:byok": {}, "xai:default": {}}}}, {"groq"}),
        ({"models": {"providers": {"groq": BY_EXEC, "xai": {"apiKey": "x"}}}}, {"groq"}),
        ({}, set()),
    ],
)
def test_who_asks_us_shows_in_the_configuration(
    parsed: dict[str, object],
    names: set[str],
) -> None:
    """By the profile that `openclaw-config` has made, or by a SecretRef written by hand."""
    assert asking({"parsed": parsed}) == names
