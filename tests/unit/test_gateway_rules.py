"""Who may call the gateway, and what a call's target may say."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vps_runtime.gateway.problem import (
    BAD_EXPECTATION,
    BAD_FRAMING,
    BAD_METHOD,
    BAD_TARGET,
    FROM_BROWSER,
    NO_UPGRADE,
    WRONG_HOST,
    NotPassedOn,
    Problem,
)
from vps_runtime.gateway.rules import Target, admit, knows_token, read_target

HTTP_1_0, HTTP_1_1 = (1, 0), (1, 1)
HERE = ("host", "127.0.0.1:8319")


def refusal(
    *headers: tuple[str, str], method: str = "POST", version: tuple[int, int] = HTTP_1_1
) -> Problem | None:
    """Return why a call is refused."""
    try:
        admit(method, version, headers)
    except NotPassedOn as end:
        return end.problem
    return None


@pytest.mark.parametrize(
    ("raw", "slot_id", "rest"),
    [
        ("/openai/chat/completions", "openai", "/chat/completions"),
        ("/openai", "openai", ""),
        ("/openai/", "openai", "/"),
        ("/openai?x", "openai", "?x"),
        ("/google/models/gemini:generate?alt=sse", "google", "/models/gemini:generate?alt=sse"),
        ("/google/models?key=placeholder&alt=sse", "google", "/models?alt=sse"),
        ("/google/models?KEY=placeholder", "google", "/models"),
        ("/google/models?%6Bey=placeholder&a", "google", "/models?a"),
        ("/openai/files?access_token=x&q=a%26key%3Db", "openai", "/files?q=a%26key%3Db"),
        ("/huggingface/a%2Fb/c", "huggingface", "/a%2Fb/c"),
        ("/openai/files/..a/a..b/.../100%25", "openai", "/files/..a/a..b/.../100%25"),
        ("/openai/@evil.example/", "openai", "/@evil.example/"),
    ],
)
def test_a_target_names_a_slot_and_what_is_below(raw: str, slot_id: str, rest: str) -> None:
    """The rest goes on as it is, but for a key in the query: there it has no business."""
    assert read_target(raw) == Target(slot_id, rest)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "*",
        "/",
        "openai/models",
        "//evil.example/models",
        "///openai/models",
        "/openai//evil.example",
        "/openai/a//b",
        "/openai/../anthropic/v1",
        "/openai/./models",
        "/openai/a/..",
        "/openai/..",
        "/openai/%2e%2e/x",
        "/openai/.%2E/x",
        "/openai/%252e%252e/x",
        "/openai/%25252525252e%2e/x",
        "/openai/..%2fx",
        "/openai/a%2f..%2f..%2fx",
        "/openai/a%5c..%5cx",
        "/openai/a\\..\\x",
        "/openai/..;x/y",
        "/openai/..%3bx/y",
        "/openai/%0d%0aX-Evil:%201",
        "/openai/a%00",
        "/openai/a%7f",
        "/openai/a b",
        "/openai/a\tb",
        "/openai/é",
        "/openai/a#b",
        "/openai@evil.example/x",
        "/openai:443/x",
        "/OPENAI/x",
        "/%6fpenai/x",
        "/openai/%" + "25" * 9,
        "/openai/%" + "25" * 4000,  # took a second for each 8 KB, in which nothing else went on
        "http://evil.example/openai/x",
        "http://127.0.0.1:8319/openai/x",
        "evil.example:443",
    ],
)
def test_a_detour_is_refused(raw: str) -> None:
    """Nothing leaves the base URL's path or names a host, in whatever form it is written."""
    with pytest.raises(NotPassedOn) as end:
        read_target(raw)
    assert end.value.problem == BAD_TARGET


@given(st.text(st.sampled_from("./\\%2eE25fF;a?&=key@:#"), max_size=24))
@example("%2%65%2%65/")
def test_whatever_passes_stays_below_the_base_url(tail: str) -> None:
    """A browser's, a server's or a cache's idea of the path has no step up in it."""
    try:
        target = read_target(f"/openai/{tail}")
    except NotPassedOn:
        return
    path = target.rest.partition("?")[0]
    assert path.startswith("/")
    assert not path.startswith("//")
    for _ in range(10):
        pieces = path.replace("\\", "/").split("/")
        assert not {".", ".."} & {piece.partition(";")[0] for piece in pieces}
        path = path.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/")
        path = path.replace("%2F", "/").replace("%25", "%").replace("%5c", "\\").replace("%3b", ";")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8319", "localhost", "LOCALHOST:1", "127.8.9.10", "[::1]:8319"]
)
def test_a_loopback_name_is_right(host: str) -> None:
    """The names by which an agent on this machine calls."""
    assert refusal(("host", host)) is None


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil@127.0.0.1",
     "127.0.0.1:8319@evil.example", "[::]", "::1", "127.0.0.1:", "localhost:123456"],
)  # fmt: skip
def test_a_rebound_name_is_refused(host: str) -> None:
    """A page whose name was pointed at 127.0.0.1 still sends that name."""
    assert refusal(("host", host)) == WRONG_HOST


def test_there_is_exactly_one_host() -> None:
    """Two of them mean something else to everybody; only HTTP/1.0 may do without."""
    assert refusal(HERE, HERE) == WRONG_HOST
    assert refusal() == WRONG_HOST
    admit("GET", HTTP_1_0, (("accept", "*/*"),))


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (("origin", "https://evil.example"), FROM_BROWSER),
        (("origin", "http://127.0.0.1:8319"), FROM_BROWSER),
        (("origin", "null"), FROM_BROWSER),
        (("upgrade", "websocket"), NO_UPGRADE),
        (("upgrade", "h2c, WebSocket"), NO_UPGRADE),
        (("upgrade", "h2c"), None),
        (("expect", "100-continue"), None),
        (("expect", "100-Continue"), None),
        (("expect", "miracles"), BAD_EXPECTATION),
        (("transfer-encoding", "chunked"), None),
        (("transfer-encoding", "gzip, chunked"), BAD_FRAMING),
        (("transfer-encoding", "identity"), BAD_FRAMING),
        (("content-length", "4"), None),
    ],
)
def test_only_plain_calls_pass(header: tuple[str, str], problem: Problem | None) -> None:
    """No browsers, no WebSockets, no encodings of the message but chunks."""
    assert refusal(HERE, header) == problem


@pytest.mark.parametrize(
    "headers",
    [
        [("content-length", "4"), ("transfer-encoding", "chunked")],
        [("content-length", "4"), ("content-length", "4")],
        [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
    ],
)
def test_a_length_said_twice_is_refused(headers: list[tuple[str, str]]) -> None:
    """It is how a second request hides inside the first (RFC 9112 11.2)."""
    assert refusal(HERE, *headers) == BAD_FRAMING


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "PURGE", "get", ""])
def test_other_methods_are_refused(method: str) -> None:
    """TRACE most of all: it would send the key back."""
    assert refusal(HERE, method=method) == BAD_METHOD


def test_a_token_is_known_in_any_place() -> None:
    """One that fits is enough; a part of it, nothing and another one are not."""
    assert knows_token(["placeholder", "byok-agent-1"], "byok-agent-1")
    assert not knows_token([], "byok-agent-1")
    assert not knows_token(["", "byok-agent-", "byok-agent-12", "bÿok-agent-1"], "byok-agent-1")
    assert not knows_token(["\udcff"], "byok-agent-1")


def test_chunks_are_of_http_1_1() -> None:
    """Whoever passed an HTTP/1.0 call on did not see its chunks (RFC 9112 6.1)."""
    chunked = ("transfer-encoding", "chunked")
    assert refusal(chunked, version=HTTP_1_0) == BAD_FRAMING
    assert refusal(HERE, chunked) is None
