"""`byok providers`: what is known of each AI provider, and the pages where its owner acts.

Speaks to nobody: all of it ships with the package.
"""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import groupby
from typing import Final

import click
from rich.console import RenderableType

from bus_schemas.events.health import Validity
from bus_schemas.fields import CredentialKind
from bus_schemas.providers import HeaderStyle, Provider, VerifyCall, load_providers
from platform_handlers.owner.console import columns, screen

_KINDS: Final[Mapping[CredentialKind, str]] = {
    CredentialKind.API_KEY: "API key",
    CredentialKind.OAUTH: "sign-in (OAuth)",
}
_WORDS: Final[Mapping[Validity, str]] = {
    Validity.VALID: "good",
    Validity.LIMITED: "good, within a limit",
    Validity.INVALID: "refused",
}
_OWN: Final = "https://models.example.org"
"""Stands for an address that an owner may seal in place of the provider's."""


@click.command()
@click.argument("provider_id", metavar="[ID]", required=False)
@click.option("--json", "as_data", is_flag=True, help="For a program.")
def providers(provider_id: str | None, as_data: bool) -> None:  # noqa: FBT001 (a flag)
    """Show the AI providers, or one with its links and how its keys are tested.

    The links are the provider's own pages: where keys are made and revoked, what was used, and
    where spending is capped.
    """
    found = _chosen(provider_id)
    if as_data:
        click.echo(json.dumps({"providers": [one.model_dump(mode="json") for one in found]}))
    elif provider_id is None:
        screen().print(table(found))
    else:
        click.echo(detail(found[0]))


def _chosen(provider_id: str | None) -> Sequence[Provider]:
    catalogue = load_providers()
    if provider_id is None:
        return tuple(catalogue.values())
    if found := catalogue.get(provider_id):
        return (found,)
    near = get_close_matches(provider_id.lower(), catalogue, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`byok providers` lists them."
    raise click.BadParameter(f"there is no such provider; {hint}", param_hint="ID")


def table(found: Sequence[Provider]) -> RenderableType:
    """Return one line for each provider."""
    lines = columns("ID", "Name", "Takes", "Keys begin with", unbroken={"ID"})
    for one in found:
        lines.add_row(one.id, one.name, _takes(one.auth), _shapes(one))
    return lines


def detail(provider: Provider) -> str:
    """Return all that is known of one provider, a line each: a link must not be broken in two."""
    links = provider.links
    lines = (
        (provider.id, provider.name),
        ("takes", _takes(provider.auth)),
        ("keys begin", _shapes(provider) + (" (a hint: others are taken, too)" * _known(provider))),
        ("base URL", provider.base_url),
        ("sent as", _sent_as(provider)),
        ("test", _test(provider)),
        ("answers", _answers(provider.verify)),
        ("own address", _own_address(provider)),
        ("make a key", links.console),
        ("revoke", links.revoke),
        ("usage", links.usage),
        ("limits", links.limits),
    )
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _known(provider: Provider) -> bool:
    return bool(provider.key_shapes)


def _takes(kinds: Sequence[CredentialKind]) -> str:
    return ", ".join(_KINDS[kind] for kind in kinds)


def _shapes(provider: Provider) -> str:
    return ", ".join(shape.prefix for shape in provider.key_shapes) or "nothing in particular"


def _sent_as(provider: Provider) -> str:
    if provider.header_style is HeaderStyle.BEARER:
        return "authorization: Bearer …"
    also = CredentialKind.OAUTH in provider.auth
    return f"{provider.header_style}: …" + ("; a sign-in as authorization: Bearer …" * also)


def _test(provider: Provider) -> str:
    call = provider.verify
    words = f"{call.method} {call.url}"
    if call.body is not None:
        words += ", a call for the fewest tokens there are"
    untested = [kind for kind in provider.auth if kind not in call.kinds]
    return words + ("; a sign-in is tested by renewing it" if untested else "")


def _answers(call: VerifyCall) -> str:
    """Return what each documented answer means, in the order of the words."""
    order = list(_WORDS)
    known = sorted(call.statuses.items(), key=lambda found: (order.index(found[1]), found[0]))
    parts = [
        f"{', '.join(str(status) for status, _ in group)} {_WORDS[word]}"
        for word, group in groupby(known, key=lambda found: found[1])
    ]
    parts += [
        f"with {flag.field} = {str(flag.value).lower()} {_WORDS[flag.verdict]}"
        for flag in call.flags
    ]
    return "; ".join([*parts, "any other answer says nothing"])


def _own_address(provider: Provider) -> str:
    asked = provider.verify_url(_OWN)
    if asked is None:
        return "a key sealed for another address cannot be tested there: it goes into use by order"
    return f"a key sealed for another address is tested at …{asked.removeprefix(_OWN)} below it"
