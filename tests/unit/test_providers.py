"""The provider catalogue: what is in it, and what its hints and statuses may be used for."""

import gc
import json
import subprocess
import sys
import weakref
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from bus_schemas.events.health import Validity
from bus_schemas.fields import CredentialKind
from bus_schemas.providers import (
    HeaderStyle,
    KeyShape,
    Links,
    Provider,
    VerifyCall,
    load_providers,
    recognise,
)

IDS = (
    "anthropic",
    "openai",
    "openrouter",
    "xai",
    "google",
    "groq",
    "mistral",
    "deepseek",
    "together",
    "fireworks",
    "cerebras",
    "nvidia",
    "moonshot",
    "zai",
    "minimax",
    "qwen",
    "huggingface",
    "venice",
    "vercel-ai-gateway",
    "deepinfra",
    "cohere",
    "perplexity",
    "github-copilot",
)
PROVIDERS = tuple(load_providers().values())
SHAPES = [(provider, shape) for provider in PROVIDERS for shape in provider.key_shapes]

each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.id)
each_shape = pytest.mark.parametrize(
    ("provider", "shape"), SHAPES, ids=[f"{each.id}:{shape.prefix}" for each, shape in SHAPES]
)


def made_up(prefix: str, length: int = 120) -> str:
    """Return a key of the given length that nobody could take for a real one."""
    return prefix + "x" * (length - len(prefix))


def addresses(provider: Provider) -> list[str]:
    """Return every address of one entry."""
    return [provider.base_url, provider.verify.url, *provider.links.model_dump().values()]


def domain(url: str) -> str:
    """Return the last two labels of the host."""
    return ".".join((urlsplit(url).hostname or "").split(".")[-2:])


def test_the_catalogue_holds_exactly_the_23_providers() -> None:
    """Slots name providers by these ids, so none may come, go or move by accident."""
    assert tuple(load_providers()) == IDS
    assert len(IDS) == 23
    assert all(provider.id == name for name, provider in load_providers().items())


def test_the_catalogue_is_read_once_and_not_at_import() -> None:
    """Importing must be free, and every caller must see the same table."""
    code = "from bus_schemas.providers import load_providers as f; print(f.cache_info().currsize)"
    fresh = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert fresh.stdout.strip() == "0"
    assert load_providers() is load_providers()


def test_the_shared_catalogue_cannot_be_changed() -> None:
    """A caller that edits what it was given must not change what others verify with."""
    anthropic = load_providers()["anthropic"]
    with pytest.raises(TypeError):
        load_providers()["evil"] = anthropic  # type: ignore[index]
    with pytest.raises(TypeError):
        anthropic.verify.statuses[403] = Validity.VALID  # type: ignore[index]
    with pytest.raises(TypeError):
        anthropic.verify.headers["host"] = "example.org"  # type: ignore[index]
    with pytest.raises(ValidationError):
        anthropic.base_url = "https://example.org"  # type: ignore[misc]


@each_provider
def test_every_address_is_https(provider: Provider) -> None:
    """A key must never travel, nor a person be sent, over a connection that can be read."""
    assert all(url.startswith("https://") for url in addresses(provider))


@each_provider
def test_the_verify_call_sends_the_key_to_its_own_provider(provider: Provider) -> None:
    """The verify call must reach the domain that serves the models, or one known to be theirs."""
    also_theirs = {"cohere": "cohere.com", "github-copilot": "github.com"}
    assert domain(provider.verify.url) in {domain(provider.base_url), also_theirs.get(provider.id)}


@each_provider
def test_statuses_map_to_the_three_documented_words(provider: Provider) -> None:
    """A status says valid, invalid or limited; `unknown` is what is not listed."""
    statuses = provider.verify.statuses
    assert set(statuses.values()) <= {Validity.VALID, Validity.INVALID, Validity.LIMITED}
    assert [code for code, word in statuses.items() if word is Validity.VALID] == [200]
    assert all(statuses[code] is Validity.LIMITED for code in (402, 412, 429) if code in statuses)


@each_provider
@pytest.mark.parametrize("status", [100, 204, 302, 404, 418, 500, 503, 529])
def test_an_undocumented_status_says_nothing(provider: Provider, status: int) -> None:
    """An outage, a redirect or a retired model must not promote or reject a key."""
    assert provider.verify.verdict(status) is Validity.UNKNOWN


def test_a_documented_status_is_the_verdict() -> None:
    """Each documented status must give its own word."""
    verify = load_providers()["openrouter"].verify
    words = [verify.verdict(status) for status in (200, 401, 402, 403)]
    assert words == [Validity.VALID, Validity.INVALID, Validity.LIMITED, Validity.UNKNOWN]


def test_perplexity_never_rejects_a_key_that_only_lacks_credit() -> None:
    """Its 401 also means an empty balance, so it must not read as invalid."""
    assert load_providers()["perplexity"].verify.verdict(401) is Validity.UNKNOWN


@each_provider
def test_a_verify_call_stays_cheap(provider: Provider) -> None:
    """A body is a short chat with a cap on its answer, and a GET has none."""
    if provider.verify.body is not None:
        body = json.loads(provider.verify.body)
        assert provider.verify.method == "POST"
        assert 1 <= body.get("max_tokens", body.get("max_output_tokens")) <= 16


@each_provider
def test_a_verify_call_judges_only_what_the_provider_accepts(provider: Provider) -> None:
    """The kinds it can judge must be among those that the provider takes."""
    assert set(provider.verify.kinds) <= set(provider.auth)
    assert len(set(provider.auth)) == len(provider.auth)


def test_credentials_travel_the_way_each_provider_wants() -> None:
    """Anthropic and Google have headers of their own; everybody else takes a bearer token."""
    own = {"anthropic": HeaderStyle.X_API_KEY, "google": HeaderStyle.X_GOOG_API_KEY}
    for provider in PROVIDERS:
        assert provider.header_style is own.get(provider.id, HeaderStyle.BEARER)
    assert load_providers()["anthropic"].verify.headers["anthropic-version"] == "2023-06-01"


def test_the_providers_with_a_sign_in_are_the_known_five() -> None:
    """OAuth slots are offered for these providers and for no other."""
    with_oauth = {provider.id for provider in PROVIDERS if CredentialKind.OAUTH in provider.auth}
    assert with_oauth == {"anthropic", "openai", "xai", "minimax", "github-copilot"}


@each_shape
def test_a_key_of_a_known_shape_is_recognised(provider: Provider, shape: KeyShape) -> None:
    """A made-up key with the prefix and the least length must point to its provider."""
    key = made_up(shape.prefix, shape.min_length)
    assert provider.looks_like(key)
    assert provider.id in recognise(key)


@each_shape
def test_a_bare_prefix_is_not_a_key(provider: Provider, shape: KeyShape) -> None:
    """What is still being typed must not be recognised yet."""
    assert not provider.looks_like(shape.prefix)
    assert provider.id not in recognise(shape.prefix)


@pytest.mark.parametrize(
    ("prefix", "best"),
    [
        ("sk-ant-", "anthropic"),
        ("sk-ant-api03-", "anthropic"),
        ("sk-ant-oat01-", "anthropic"),
        ("sk-or-v1-", "openrouter"),
        ("sk-proj-", "openai"),
    ],
)
def test_the_longest_prefix_comes_first(prefix: str, best: str) -> None:
    """A key that says whose it is must not be taken for one of those that only say `sk-`."""
    found = recognise(made_up(prefix))
    assert found[0] == best
    assert found.index(best) < found.index("deepseek")


def test_an_anthropic_key_is_recognised_before_openai() -> None:
    """`sk-ant-` also begins with `sk-`; anthropic must win and openai stay a second guess."""
    found = recognise(made_up("sk-ant-api03-"))
    assert found[:2] == ("anthropic", "openai")


def test_a_shared_prefix_names_everyone_in_the_catalogues_order() -> None:
    """A plain `sk-` key may be any of four; the order must not change from run to run."""
    assert recognise(made_up("sk-")) == ("openai", "deepseek", "moonshot", "qwen")


@pytest.mark.parametrize("text", ["", "x" * 40, " sk-" + "x" * 40, "SK-" + "x" * 40])
def test_a_text_of_no_known_shape_is_nobodys(text: str) -> None:
    """Six providers have keys without a shape, so an unknown one must be left open."""
    assert recognise(text) == ()
    assert not any(provider.looks_like(text) for provider in PROVIDERS)


def test_a_secret_is_kept_nowhere() -> None:
    """Once the caller lets go of a secret, looking at it must not have kept it in memory."""

    class Secret(str):
        """A text that can be watched."""

        __slots__ = ("__weakref__",)

    secret = Secret(made_up("sk-ant-"))
    watched = weakref.ref(secret)
    assert recognise(secret)
    assert load_providers()["anthropic"].looks_like(secret)
    del secret
    gc.collect()
    assert watched() is None


@each_provider
def test_an_entry_survives_json(provider: Provider) -> None:
    """The dashboard gets entries as JSON; nothing may be lost on the way."""
    assert Provider.model_validate_json(provider.model_dump_json()) == provider


@pytest.mark.parametrize(
    "wrong",
    [
        {"surprise": 1},
        {"statuses": {"401": "unknown"}},
        {"statuses": {"42": "valid"}},
        {"url": "http://api.example.org"},
        {"url": "https://user@api.example.org"},
        {"url": "https://api.example.org:8443/"},
        {"method": "DELETE"},
        {"headers": {"X-Split\r\n": "1"}},
        {"headers": {"x-split": "1\r\nhost: example.org"}},
    ],
)
def test_a_wrong_entry_is_refused(wrong: dict[str, object]) -> None:
    """A slip in the file must stop the load, not send a key somewhere else."""
    right = {"method": "GET", "url": "https://api.example.org", "statuses": {"200": "valid"}}
    assert VerifyCall.model_validate(right).verdict(200) is Validity.VALID
    with pytest.raises(ValidationError):
        VerifyCall.model_validate(right | wrong)


def test_links_are_complete() -> None:
    """An entry without its four pages must not load: each one is a button on a screen."""
    with pytest.raises(ValidationError):
        Links.model_validate({"console": "https://example.org"})
