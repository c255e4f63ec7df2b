"""Which call judges a credential, where it may go, and what each answer says."""

import json
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.events.health import Validity
from bus_schemas.fields import CredentialKind
from bus_schemas.providers import HeaderStyle, Provider, load_providers
from vps_runtime.verification.rules import check_for, validity, wants_body

KEY = "made-up-" + "k" * 40
PROVIDERS = tuple(load_providers().values())
VALID, INVALID, LIMITED, UNKNOWN = Validity
OWN = "http://127.0.0.1:8080/v1"

each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.id)


def api_key(provider: Provider, base_url: str | None = None) -> CredentialPayload:
    """Return a made-up key as its owner seals it."""
    return CredentialPayload(
        secret=SecretStr(KEY),
        base_url=base_url or provider.base_url,
        header_style=provider.header_style,
    )


def sign_in(provider: Provider, base_url: str | None = None) -> CredentialPayload:
    """Return a made-up sign-in."""
    tokens = OAuthSet(
        access_token=SecretStr(KEY),
        refresh_token=SecretStr("made-up-refresh"),
        token_endpoint="https://auth.example.org/token",
        client_id="byok",
        issuer="https://auth.example.org",
    )
    address = base_url or provider.base_url
    return CredentialPayload(oauth=tokens, base_url=address, header_style=provider.header_style)


def origin(url: str) -> tuple[str, str]:
    """Return scheme and host with port: whom a request goes to."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


@each_provider
def test_a_key_is_asked_about_exactly_as_the_catalogue_says(provider: Provider) -> None:
    """Address, method, body, the credential in its own header and nowhere else."""
    check = check_for(provider.id, api_key(provider))
    if CredentialKind.API_KEY not in provider.verify.kinds:
        assert check is None
        return
    assert check is not None
    assert (check.url, check.method) == (provider.verify.url, provider.verify.method)
    assert check.body == (provider.verify.body.encode() if provider.verify.body else None)
    assert ("content-type" in check.headers) is (check.body is not None)
    carrying = {name: value for name, value in check.headers.items() if KEY in value}
    bearer = provider.header_style is HeaderStyle.BEARER
    name, value = ("authorization", f"Bearer {KEY}") if bearer else (provider.header_style, KEY)
    assert carrying == {name: value}
    assert check.headers.items() >= provider.verify.headers.items()
    assert KEY not in repr(check)


@each_provider
def test_a_sign_in_is_asked_about_where_a_call_can_judge_it(provider: Provider) -> None:
    """An access token is a bearer token, whatever the style of the provider's keys."""
    check = check_for(provider.id, sign_in(provider))
    assert (check is not None) is (CredentialKind.OAUTH in provider.verify.kinds)
    if check is not None:
        assert check.headers["authorization"] == f"Bearer {KEY}"
        assert "x-api-key" not in check.headers
        assert check.headers.items() >= provider.verify.oauth_headers.items()


@each_provider
def test_at_an_own_address_the_same_path_is_asked_or_none(provider: Provider) -> None:
    """Whoever sealed another address meant that one, and no other host gets the key."""
    check = check_for(provider.id, api_key(provider, OWN))
    below = provider.verify.url.startswith(provider.base_url + "/")
    judged = CredentialKind.API_KEY in provider.verify.kinds
    assert (check is not None) is (below and judged)
    if check is not None:
        assert check.url == OWN + provider.verify.url.removeprefix(provider.base_url)


def test_the_checks_that_an_own_address_cannot_have_are_these() -> None:
    """They are at another host, or above the sealed path; their owners may force such a key."""
    without = {each.id for each in PROVIDERS if check_for(each.id, api_key(each, OWN)) is None}
    assert without == {"huggingface", "deepinfra", "cohere", "github-copilot"}


HOSTS = st.sampled_from(
    ["api.openai.com", "api.openai.com.example.org", "evil.example.org", "api.x.ai:8443", "[::1]"]
)
PATHS = st.sampled_from(["", "/", "/v1", "/v1/", "/v1x", "/v1/../..", "//evil.example.org", "/a@b"])


@each_provider
@given(st.sampled_from(["https://", "http://"]), HOSTS, PATHS, st.booleans())
def test_no_credential_goes_to_a_host_it_was_not_sealed_for(
    provider: Provider, scheme: str, host: str, path: str, oauth: bool
) -> None:
    """Whatever is sealed: its own host is asked, or the catalogue's for the catalogue's address."""
    address = scheme + host + path
    held = sign_in(provider) if oauth else api_key(provider)
    sealed = held.model_copy(update={"base_url": address})
    check = check_for(provider.id, sealed)
    if check is None:
        return
    ours = address.rstrip("/") == provider.base_url
    assert check.url == provider.verify.url if ours else origin(check.url) == origin(address)


@each_provider
@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20))
def test_the_catalogues_address_with_more_behind_it_is_another(
    provider: Provider, more: str
) -> None:
    """`https://api.openai.com.example.org` begins with the catalogue's address, too."""
    address = provider.base_url + more
    sealed = api_key(provider).model_copy(update={"base_url": address})
    check = check_for(provider.id, sealed)
    if check is not None and more.strip("/"):
        assert check.url.startswith(address.rstrip("/") + "/")


def test_what_nobody_can_judge_is_not_asked_about() -> None:
    """A provider that the catalogue does not know, and a header style that nobody knows."""
    openai = load_providers()["openai"]
    assert check_for("made-up", api_key(openai)) is None
    odd = api_key(openai).model_copy(update={"header_style": "x-odd"})
    assert check_for("openai", odd) is None
    nothing = sign_in(load_providers()["anthropic"]).model_copy(update={"oauth": None})
    assert check_for("anthropic", nothing) is None


@each_provider
def test_every_status_says_what_is_documented_and_nothing_else(provider: Provider) -> None:
    """All five hundred of them: what the table does not list is `unknown`."""
    call = provider.verify
    for status in range(100, 600):
        body = json.dumps({"valid": True, "why": call.only_with.get(status)}).encode()
        assert validity(call, status, body) is call.statuses.get(status, UNKNOWN)
        flagged = bool(call.flags) and status == 200
        assert wants_body(call, status) is (flagged or status in call.only_with)


@pytest.mark.parametrize("body", [None, b"", b'{"status": "FAILED_PRECONDITION"}'])
def test_a_status_with_two_causes_says_nothing_without_its_word(body: bytes | None) -> None:
    """A region that Google does not serve answers 400, too: a good key is not thrown away."""
    call = load_providers()["google"].verify
    assert validity(call, 400, body) is UNKNOWN
    assert validity(call, 400, b'{"details": [{"reason": "API_KEY_INVALID"}]}') is INVALID


@pytest.mark.parametrize(
    ("provider", "body", "said"),
    [
        ("xai", {}, VALID),
        ("xai", {"api_key_blocked": False, "api_key_disabled": False}, VALID),
        ("xai", {"api_key_blocked": True}, INVALID),
        ("xai", {"api_key_disabled": True}, INVALID),
        ("xai", {"team_blocked": True}, INVALID),
        ("xai", {"api_key_blocked": "yes"}, UNKNOWN),
        ("xai", {"api_key_blocked": 1}, UNKNOWN),
        ("cohere", {"valid": True}, VALID),
        ("cohere", {"valid": False}, INVALID),
        ("cohere", {}, VALID),
        ("openai", {"api_key_blocked": True, "valid": False}, VALID),
    ],
)
def test_a_documented_field_of_the_body_takes_the_good_word_back(
    provider: str, body: object, said: Validity
) -> None:
    """A 200 may be for a key that is blocked at xAI, or of no use at cohere."""
    call = load_providers()[provider].verify
    assert validity(call, 200, json.dumps(body).encode()) is said
    assert validity(call, 401, b'{"valid": true}') is INVALID


@pytest.mark.parametrize("body", [None, b"", b"[]", b"null", b"\xff\xfe", b"{", b"[" * 50_000])
def test_a_body_that_is_not_the_documented_one_says_nothing(body: bytes | None) -> None:
    """Too long (None), or no JSON object: then the status alone does not make the key good."""
    assert validity(load_providers()["xai"].verify, 200, body) is UNKNOWN
    assert validity(load_providers()["openai"].verify, 200, body) is VALID
