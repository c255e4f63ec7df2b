"""When a sign-in is refreshed, and what the token endpoint's answers mean."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bus_schemas.credential import OAuthSet
from bus_schemas.fields import at_utc
from vps_runtime.oauth.answers import (
    ANSWER_LOST,
    INVALID_GRANT,
    NOT_BEARER,
    UNDOCUMENTED,
    Answer,
    Ended,
    Outcome,
    Renewed,
    TryAgain,
    blamed,
    read_answer,
)
from vps_runtime.oauth.rules import (
    RefreshNote,
    due_at,
    note_key,
    note_of,
    patience,
    pause,
    stale_notes,
    streak_after,
)

NOW = 1_800_000_000.0
HOUR = 3600.0
OLD = OAuthSet(
    access_token=SecretStr("access-canary-1"),
    refresh_token=SecretStr("refresh-canary-1"),
    expires_at=at_utc(NOW),
    token_endpoint="https://auth.example.com/token",
    client_id="client-1",
    issuer="https://auth.example.com",
    account="user-1234567890abcdef",
    organisation="org-1",
)
GOOD = {"access_token": "access-2", "token_type": "Bearer", "expires_in": 3600}


def said(status: int, body: object, retry_after: str | None = None) -> Outcome:
    """Return what an answer means; *body* is JSON unless it is bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(OLD, Answer(status, raw, retry_after), asked_at=NOW)


def renewed(body: object) -> OAuthSet:
    """Return the new set that a good answer gives."""
    outcome = said(200, body)
    assert isinstance(outcome, Renewed)
    return outcome.oauth


def test_a_good_answer_gives_a_new_set() -> None:
    """Only the tokens and their end are new; where to refresh next came inside the seal."""
    new = renewed({**GOOD, "refresh_token": "refresh-2", "token_endpoint": "https://evil.example"})
    assert new.access_token.get_secret_value() == "access-2"
    assert new.refresh_token.get_secret_value() == "refresh-2"
    assert new.expires_at == datetime.fromtimestamp(NOW + HOUR, UTC)
    same = ("token_endpoint", "client_id", "issuer", "account", "organisation")
    assert [getattr(new, name) for name in same] == [getattr(OLD, name) for name in same]


def test_no_new_refresh_token_keeps_the_old_one() -> None:
    """RFC 6749 section 6: the server may give a new one, or not."""
    for more in ({}, {"refresh_token": None}, {"refresh_token": ""}):
        assert renewed({**GOOD, **more}).refresh_token == OLD.refresh_token


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (60, 60),
        ("61", 61),
        (1.5, 1.5),
        (None, None),
        ("soon", None),
        (True, None),
        (0, None),
        (-5, None),
        (1e300, None),
        ([], None),
    ],
)
def test_an_end_is_read_however_it_is_written(expires_in: object, seconds: float | None) -> None:
    """What says nothing sensible leaves the end unknown; it costs no tokens."""
    ends = renewed({**GOOD, "expires_in": expires_in}).expires_at
    assert ends == (None if seconds is None else at_utc(NOW + seconds))


@pytest.mark.parametrize("token_type", ["mac", "", None, 7])
def test_tokens_of_another_type_are_not_used(token_type: object) -> None:
    """RFC 6749 section 7.1; the refresh token that came is kept, the access token is not."""
    outcome = said(200, {**GOOD, "token_type": token_type, "refresh_token": "refresh-2"})
    assert isinstance(outcome, Ended)
    assert outcome.reason == NOT_BEARER
    assert outcome.keep is not None
    assert outcome.keep.refresh_token.get_secret_value() == "refresh-2"
    assert outcome.keep.access_token == OLD.access_token
    assert outcome.keep.expires_at == at_utc(0)


@pytest.mark.parametrize("access", [None, "two words", "\u00e9", 7, {"a": 1}, "x" * 20_000])
def test_a_refresh_token_is_kept_whatever_came_with_it(access: object) -> None:
    """The answer is not one, but what it replaced is used up: shown again, it ends the family."""
    outcome = said(200, {**GOOD, "access_token": access, "refresh_token": "refresh-2"})
    assert isinstance(outcome, Ended)
    assert outcome.reason == UNDOCUMENTED
    assert outcome.keep is not None
    assert outcome.keep.refresh_token.get_secret_value() == "refresh-2"
    assert outcome.keep.expires_at == at_utc(0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"[" * 100_000,
        [],
        {},
        {"token_type": "bearer"},
        {**GOOD, "access_token": "two\nlines"},
        {**GOOD, "access_token": 7},
        {**GOOD, "refresh_token": ["x"]},
    ],
)
def test_garbage_is_asked_for_again(body: object) -> None:
    """Nobody knows whether the token was used up: the answer counts as lost."""
    assert said(200, body) == TryAgain(UNDOCUMENTED, 200, lost=True)


def test_an_answer_that_is_too_long_is_garbage() -> None:
    """It was not read to its end."""
    outcome = read_answer(OLD, Answer(200, None), asked_at=NOW)
    assert outcome == TryAgain(UNDOCUMENTED, 200, lost=True)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": "invalid_grant", "error_description": "refresh-canary-1"}, INVALID_GRANT),
        ({"error": {"code": "refresh_token_reused"}}, INVALID_GRANT),
        ({"error": "refresh_token_expired"}, INVALID_GRANT),
        ({"error": "invalid_client"}, "invalid_client"),
        ({"error": "unauthorized_client"}, "unauthorized_client"),
        ({"error": "unsupported_grant_type"}, "unsupported_grant_type"),
        ({"error": "invalid_scope"}, "invalid_scope"),
        ({"error": "invalid_request"}, "invalid_request"),
    ],
)
@pytest.mark.parametrize("status", [400, 401])
def test_a_documented_error_is_final(body: object, reason: str, status: int) -> None:
    """RFC 6749 section 5.2; nothing of its description is taken along."""
    outcome = said(status, body)
    assert outcome == Ended(reason, status)
    assert "canary" not in repr(outcome)


@pytest.mark.parametrize(
    ("status", "body", "lost"),
    [
        (500, {"error": "invalid_grant"}, True),
        (502, b"<html>", True),
        (503, {}, True),
        (400, {"error": "temporarily_unavailable"}, False),
        (400, {"error": 7}, False),
        (400, b"no", False),
        (404, {}, False),
        (302, {}, False),
        (201, GOOD, False),
    ],
)
def test_anything_else_is_no_word_about_the_sign_in(status: int, body: object, lost: bool) -> None:
    """An outage, a redirect or an error of nobody's standard must not end a sign-in."""
    assert said(status, body) == TryAgain(UNDOCUMENTED, status, lost)


@pytest.mark.parametrize(
    ("retry_after", "after"),
    [("30", 30.0), (None, None), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("-1", None)],
)
def test_an_endpoint_may_ask_for_patience(retry_after: str | None, after: float | None) -> None:
    """RFC 9110 section 10.2.3, in seconds."""
    assert said(429, {}, retry_after) == TryAgain(UNDOCUMENTED, 429, after=after)


def test_outcomes_show_no_token() -> None:
    """They are logged by accident sooner or later."""
    shown = repr(said(200, {**GOOD, "access_token": "canary-a", "refresh_token": "canary-r"}))
    assert "canary" not in shown
    assert "canary" not in repr(said(200, {**GOOD, "token_type": "mac", "refresh_token": "canary"}))
    assert "canary" not in repr(Answer(200, b"canary"))


def test_a_refresh_is_due_before_the_end() -> None:
    """By a fifth to three tenths of an hour's life; of a long life by a quarter of an hour."""
    assert due_at(NOW + HOUR, NOW, NOW, jitter=0.0) == NOW + 0.8 * HOUR
    assert due_at(NOW + HOUR, NOW, NOW, jitter=1.0) == NOW + HOUR - 900
    assert due_at(NOW + 100, NOW, NOW, jitter=1.0) == pytest.approx(NOW + 70)
    assert due_at(NOW + 90 * HOUR, NOW, NOW, jitter=0.5) == NOW + 90 * HOUR - 900


def test_without_an_end_nothing_is_due() -> None:
    """The provider says when, by refusing the token."""
    assert due_at(None, NOW, NOW, jitter=0.5) is None


def test_short_lives_do_not_hammer_the_endpoint() -> None:
    """Tokens that are over when they come, or a clock that makes them look so."""
    assert due_at(NOW + 1, NOW, NOW, jitter=0.5) == NOW + 30
    assert due_at(NOW - HOUR, NOW, NOW, jitter=0.5) == NOW + 30


def test_a_clock_that_was_set_back_makes_it_due() -> None:
    """How old the token is nobody knows then; a correction of seconds is no such thing."""
    assert due_at(NOW + HOUR, NOW, NOW - 2 * HOUR, jitter=0.5) == NOW - 2 * HOUR
    assert due_at(NOW + HOUR, NOW, NOW - 2, jitter=0.0) == NOW + 0.8 * HOUR


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1))
def test_due_is_never_after_the_end_but_for_the_least_interval(
    ends_in: float, age: float, jitter: float
) -> None:
    """Whatever the numbers are."""
    due = due_at(NOW + ends_in, NOW - age, NOW, jitter=jitter)
    assert due is not None
    assert due <= max(NOW + ends_in, NOW - age + 30)


def test_who_keeps_asking_has_to_wait() -> None:
    """A provider that refuses everything must not use up a token a call."""
    assert [patience(n) for n in (1, 2, 3, 4, 5, 99)] == [0, 0, 30, 60, 120, 3600]


def test_a_streak_ends_when_a_token_has_lasted() -> None:
    """As one of an hour does; one that is refreshed as soon as patience ends does not."""
    assert [streak_after(1, 0), streak_after(1, 599), streak_after(1, 2700)] == [2, 2, 1]
    assert [streak_after(9, 3600), streak_after(9, 7800)] == [10, 1]


def test_pauses_grow_and_the_endpoint_has_a_say() -> None:
    """From seconds to minutes; what it asks for counts, up to an hour."""
    assert [pause(n, None, jitter=0.5) for n in (1, 2, 3, 9, 999)] == [5, 10, 20, 300, 300]
    assert pause(1, None, jitter=0.0) == 2.5
    assert pause(1, 60.0, jitter=0.5) == 60
    assert pause(1, 1e9, jitter=0.5) == 3600


def test_a_note_is_about_one_refresh_token() -> None:
    """One about the token before says nothing: its refresh has succeeded since."""
    note = RefreshNote(grant=3, ended=INVALID_GRANT, status=400)
    told = {note_key("openai", 2): note.model_dump_json()}
    assert note_of("openai", 2, 3, told) == note
    assert note_of("openai", 2, 4, told) is None
    assert note_of("openai", 1, 3, told) is None
    assert stale_notes([("openai", 2)], told) == []
    assert stale_notes([("openai", 3)], told | {"pins": ""}) == [note_key("openai", 2)]


def test_an_end_after_a_lost_answer_may_be_our_own_doing() -> None:
    """Then nobody else is blamed for it; other ends have nothing to do with that."""
    assert blamed(Ended(INVALID_GRANT, 400), unsure=True) == Ended(ANSWER_LOST, 400)
    assert blamed(Ended(INVALID_GRANT, 400), unsure=False).reason == INVALID_GRANT
    assert blamed(Ended("invalid_client", 401), unsure=True).reason == "invalid_client"
