"""`byok providers`: everything the catalogue knows, for a person and for a program."""

import json
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from bus_schemas.fields import CredentialKind
from bus_schemas.providers import Provider, load_providers
from platform_handlers.owner.providers import providers

PROVIDERS = tuple(load_providers().values())
each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.id)


def shown(*words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(providers, words)


def test_all_23_are_listed_in_the_catalogues_order() -> None:
    """One line or more each, with its id first; names of several words are whole."""
    result = shown()
    assert result.exit_code == 0
    first = [line.split(" ")[0] for line in result.output.splitlines()]
    assert [name for name in first if name in load_providers()] == [one.id for one in PROVIDERS]
    assert "Moonshot AI (Kimi)" in result.output


@each_provider
def test_one_is_shown_whole(provider: Provider) -> None:
    """Every link on a line of its own, to be opened as it stands; every status with its word."""
    result = shown(provider.id)
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.output.splitlines())
    assert lines[provider.id] == provider.name
    ends = {line.split()[-1] for line in result.output.splitlines()}
    assert ends >= {provider.base_url, *provider.links.model_dump().values()}
    assert f"{provider.verify.method} {provider.verify.url}" in lines["test"]
    for status in provider.verify.statuses:
        assert str(status) in lines["answers"]
    for flag in provider.verify.flags:
        assert flag.field in lines["answers"]
    assert lines["answers"].endswith("any other answer says nothing")
    untested = set(provider.auth) - set(provider.verify.kinds)
    assert ("renewing" in lines["test"]) is (CredentialKind.OAUTH in untested)


@each_provider
def test_what_an_own_address_means_is_said_before_anybody_seals_for_one(
    provider: Provider,
) -> None:
    """Where no test can be made, only an order brings such a key into use."""
    [line] = [one for one in shown(provider.id).output.splitlines() if "own address" in one]
    tested = provider.verify_url("https://models.example.org") is not None
    assert ("is tested at" in line) is tested
    assert ("by order" in line) is not tested


def test_a_program_gets_whole_entries() -> None:
    """Nothing is lost on the way, for all of them and for one."""
    everything = json.loads(shown("--json").output)["providers"]
    assert [Provider.model_validate(one) for one in everything] == list(PROVIDERS)
    [one] = json.loads(shown("openai", "--json").output)["providers"]
    assert Provider.model_validate(one) == load_providers()["openai"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("antropic", "anthropic"), ("OpenAI", "openai"), ("%", "`byok providers` lists them")],
)
def test_an_unknown_name_is_a_usage_error_with_a_hint(name: str, hint: str) -> None:
    """A slip of the keyboard costs one line."""
    result = shown(name)
    assert result.exit_code == 2
    assert hint in result.output


@each_provider
def test_a_verify_url_is_below_the_sealed_address_or_none(provider: Provider) -> None:
    """With a slash at its end or without, and never for an address that only begins alike."""
    assert provider.verify_url(provider.base_url) == provider.verify.url
    assert provider.verify_url(f"{provider.base_url}/") == provider.verify.url
    for own in ("https://own.example.org/v9", provider.base_url + ".example.org"):
        asked = provider.verify_url(own)
        assert asked is None or asked.startswith(f"{own}/")
        assert asked is None or urlsplit(asked).netloc == urlsplit(own).netloc
        assert asked == provider.verify_url(f"{own}/")
