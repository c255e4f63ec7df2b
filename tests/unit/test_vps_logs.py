"""The net below the rope: secrets that reach a logger do not leave it."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from bus_schemas.transport.logs import log_to_stderr, redact

SEED = "SU" + "A" * 56
JWT = "eyJhbGciOiJlZDI1NTE5In0.eyJzdWIiOiJVQUJDIn0.c2lnbmF0dXJl"


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Standard error as the configured loggers see it; the configuration is undone after."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_stderr()
    yield stream
    structlog.reset_defaults()
    root.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.mark.parametrize(
    "text",
    [
        SEED,
        JWT,
        "byok-join-1.abcDEF_-",
        "sk-ant-api03-0123456789abc",
        "AIzaSyA0123456789abcdefghij",
    ],
)
def test_what_looks_like_a_secret_is_redacted(text: str) -> None:
    """In the middle of a sentence, in lists and in dictionaries."""
    event = redact(None, "info", {"event": f"got {text} there", "more": [{"deep": text}]})
    assert text not in json.dumps(event)
    assert event["event"] == "got [redacted] there"


@pytest.mark.parametrize("name", ["secret", "api_key", "nkey_seed", "root_key", "jwt", "token"])
def test_what_is_named_like_a_secret_is_redacted(name: str) -> None:
    """Whatever its value looks like."""
    assert redact(None, "info", {name: 5})[name] == "[redacted]"


def test_the_rest_stays() -> None:
    """Ids, numbers and sentences are what a log is for; bytes are counted, not shown."""
    event = {"event": "ready", "server": "acme-1", "n": 3, "ok": None}
    assert redact(None, "info", dict(event)) == event
    assert redact(None, "info", {"raw": b"\x01\x02"}) == {"raw": "[2 bytes]"}


def test_a_traceback_shows_no_locals_and_no_secret(stderr: io.StringIO) -> None:
    """One JSON line, with the error and without the values around it."""
    hidden = "local-canary"
    try:
        int(f"bad {SEED} {len(hidden)}")
    except ValueError:
        structlog.get_logger().exception("failed", thing=object())
    [line] = stderr.getvalue().splitlines()
    told = json.loads(line)
    assert told["event"] == "failed"
    assert told["thing"] == "<object>"
    assert SEED not in line
    assert hidden not in line


def test_other_libraries_speak_json_too(stderr: io.StringIO) -> None:
    """What asyncio or nats-py say goes through the same net; chatter is left out."""
    logging.getLogger("asyncio").info("chatter")
    logging.getLogger("asyncio").warning("saw %s", SEED)
    [line] = stderr.getvalue().splitlines()
    assert json.loads(line)["event"] == "saw [redacted]"
