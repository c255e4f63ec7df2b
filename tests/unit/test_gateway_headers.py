"""What passes the gateway in the head of a call and of an answer."""

import pytest

from bus_schemas.fields import CredentialKind
from bus_schemas.providers import HeaderStyle, load_providers
from vps_runtime.gateway.headers import lowered, returned, sent, shown_credentials
from vps_runtime.gateway.problem import (
    BAD_HEADER,
    BUG,
    UNKNOWN_STYLE,
    NotPassedOn,
    no_usable_key,
)

KEY, OAUTH = CredentialKind.API_KEY, CredentialKind.OAUTH
SECRET = "sk-the-real-one-0123456789"


def heads(*headers: tuple[str, str], kind: CredentialKind = KEY, style: str = "bearer",
          provider: str = "openai") -> dict[str, str]:  # fmt: skip
    """Return what is sent for *headers*."""
    return dict(sent(lowered(headers), provider, kind, style, SECRET))


@pytest.mark.parametrize("provider", load_providers())
def test_each_provider_gets_its_key_in_its_own_header_only(provider: str) -> None:
    """Whatever the agent put in any of them is gone; the key is there once."""
    style = load_providers()[provider].header_style
    placeholders = [
        ("Authorization", "Bearer placeholder"),
        ("x-api-key", "placeholder"),
        ("X-Goog-Api-Key", "placeholder"),
        ("api-key", "placeholder"),
        ("Proxy-Authorization", "Basic placeholder"),
        ("Cookie", "session=placeholder"),
    ]
    found = heads(*placeholders, style=style, provider=provider)
    if style is HeaderStyle.BEARER:
        assert found == {"authorization": f"Bearer {SECRET}"}
    else:
        assert found == {str(style): SECRET}


def test_what_belongs_to_the_connection_stays() -> None:
    """RFC 9110 7.6.1: the hop-by-hop headers, and those that Connection names."""
    found = heads(
        ("Host", "127.0.0.1:8319"),
        ("Connection", "close, X-Only-Here , authorization"),
        ("X-Only-Here", "1"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "h2c"),
        ("Proxy-Connection", "keep-alive"),
        ("Content-Length", "12"),
        ("Expect", "100-continue"),
        ("Accept-Encoding", "gzip"),
        ("OpenAI-Organization", "org-1"),
        ("X-Title", "Café"),
    )
    assert found == {
        "accept-encoding": "gzip",
        "openai-organization": "org-1",
        "x-title": "Café",
        "authorization": f"Bearer {SECRET}",
    }


def test_a_sign_in_is_a_bearer_token_with_what_its_provider_wants() -> None:
    """The agent's own list of features is kept, and nothing is listed twice."""
    found = heads(
        ("anthropic-beta", "tools-1, oauth-2025-04-20"),
        ("anthropic-beta", "cache-1"),
        kind=OAUTH,
        style="x-api-key",
        provider="anthropic",
    )
    assert found == {
        "anthropic-beta": "tools-1,oauth-2025-04-20,cache-1",
        "authorization": f"Bearer {SECRET}",
    }
    plain = heads(kind=OAUTH, style="x-api-key", provider="anthropic")
    assert plain["anthropic-beta"] == "oauth-2025-04-20"
    unknown = heads(kind=OAUTH, provider="made-up")
    assert unknown == {"authorization": f"Bearer {SECRET}"}


def test_what_cannot_be_sent_rightly_is_not_sent() -> None:
    """A style of a later version; a header that is no text."""
    with pytest.raises(NotPassedOn) as end:
        heads(style="x-tomorrow")
    assert end.value.problem == UNKNOWN_STYLE
    with pytest.raises(NotPassedOn) as end:
        heads(("X-Title", "caf\udce9"))
    assert end.value.problem == BAD_HEADER


def test_an_answer_comes_back_without_cookies_detours_and_keys() -> None:
    """The place of a redirect is untouched: whether to follow it is the agent's business."""
    answered = [
        ("Content-Type", "text/event-stream"),
        ("Location", "https://elsewhere.example/v1"),
        ("Set-Cookie", "__cf_bm=1"),
        ("Alt-Svc", 'h3=":443"'),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("X-Refused-Key", f"Bearer {SECRET}"),
        ("X-Odd", "\udcff"),
        ("x-ratelimit-remaining", "9"),
        ("Content-Encoding", "gzip"),
    ]
    assert dict(returned(answered, SECRET)) == {
        "Content-Type": "text/event-stream",
        "Location": "https://elsewhere.example/v1",
        "x-ratelimit-remaining": "9",
        "Content-Encoding": "gzip",
        "Server": "byok-vps",
    }
    assert returned([("Server", "nginx")], SECRET)["Server"] == "nginx"


def test_a_token_is_found_wherever_an_agent_puts_its_key() -> None:
    """As a bearer token, or bare in the headers that other providers have."""
    headers = [
        ("authorization", "bearer  one"),
        ("authorization", "two"),
        ("x-api-key", "three"),
        ("x-goog-api-key", "four"),
        ("api-key", "Bearer five"),
        ("x-other", "six"),
    ]
    assert list(shown_credentials(headers)) == ["one", "two", "three", "four", "five"]


def test_a_problem_says_what_to_do_in_both_dialects() -> None:
    """OpenAI's clients show `error.message`, Anthropic's as well."""
    body = no_usable_key("openai").body()
    assert b'"type": "error"' in body
    assert b'"message": "byok: slot openai has no usable key' in body
    assert b'"type": "api_error"' in BUG.body()
