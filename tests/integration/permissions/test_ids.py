"""A name becomes a token of a subject, so nowhere may one be issued that is more than a token."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter, ValidationError

from bus_schemas.errors import ContractError, Refused
from bus_schemas.event import Contract
from bus_schemas.fields import EpochId, OwnerId, ProviderId, ServerId, SlotId
from bus_schemas.flows import Role
from bus_schemas.nkeys import KeyType, public_nkey
from platform_handlers.authority.claims import UserPlan
from platform_handlers.authority.installation import Installation
from platform_handlers.cli import root
from platform_handlers.provisioning.enrolment import Enrolment, Enrolments
from platform_handlers.provisioning.join_token import issue_join_token
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.tokens import TokenMint
from platform_handlers.subscriber.durable import Subscriber, add_subscriber
from tests.integration.permissions.conftest import InUse
from tests.integration.permissions.oracle import EVERYBODY, Person, reached
from tests.integration.permissions.subjects import filled, templates
from tests.integration.permissions.wire import Sent

BAD = {
    "nothing": "",
    "star": "*",
    "rest": ">",
    "two tokens": "a.b",
    "a rest": "a.>",
    "a dot": ".",
    "300 characters": "a" * 300,
    "64 characters": "a" * 64,
    "capital": "Acme-1",
    "cyrillic": "\u0430cme-1",
    "full width": "\uff41cme-1",
    "ligature": "\ufb01-1",
    "digit of another script": "acme-\u0661",
    "zero width": "acme\u200b-1",
    "right to left": "\u202eacme-1",
    "hyphen of another kind": "acme\u20111",
    "newline": "acme-1\n",
    "carriage return": "acme-1\r\nPUB x 0",
    "null": "acme\0-1",
    "blank": "acme 1",
    "tab": "acme\t1",
    "path": "../acme-1",
    "template": "{{name()}}",
    "underscore": "acme_1",
}
_GOOD_FOR_A_BANNER = {"acme_1", "a" * 64}
"""A banner's id is made of three others."""
bad = pytest.mark.parametrize("name", BAD.values(), ids=BAD)

Issue = Callable[[Registry, Installation, str], Awaitable[object]]


async def _subscribe(installation: Installation, name: str, owner: str | None) -> object:
    # Refused before a word is said: a connection that was never opened is good enough.
    bus: Any = None
    return await add_subscriber(bus, installation, Subscriber(name, owner))


async def _enrol(registry: Registry, name: str) -> object:
    nkey = public_nkey(Ed25519PrivateKey.generate(), KeyType.USER)
    return await Enrolments(registry).enrol(
        Enrolment(name, "secret", nkey, b"1" * 32, "here", "join-x")
    )


ISSUING: dict[str, Issue] = {
    "an owner": lambda r, _, name: r.add_owner(name),
    "a server": lambda r, _, name: r.add_server("acme", name),
    "a server of an owner": lambda r, _, name: r.add_server(name, "acme-1"),
    "a join token": lambda r, i, name: issue_join_token(i, r, "tls://localhost:1", ("acme", name)),
    "an enrolment": lambda r, _, name: _enrol(r, name),
    "a subscriber": lambda _, i, name: _subscribe(i, name, None),
    "a subscriber of an owner": lambda _, i, name: _subscribe(i, "sub", name),
}


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry with one owner."""
    async with await Registry.open(tmp_path / FILE_NAME) as opened:
        await opened.add_owner("acme")
        yield opened


@bad
async def test_no_such_name_is_issued(registry: Registry, in_use: InUse, name: str) -> None:
    """Neither owner nor server nor subscriber, by whatever way."""
    for what, issue in ISSUING.items():
        with pytest.raises(Refused):
            await issue(registry, in_use.installation, name)
        assert await registry.owners() == ("acme",), what
        assert await registry.servers() == [], what


@bad
def test_no_token_is_minted_for_such_a_name(in_use: InUse, name: str) -> None:
    """The last gate, behind all others: the template would put it into a subject as it is."""
    with pytest.raises(Refused, match="bad_user_name"):
        UserPlan(name, "U", "A", 1)
    with pytest.raises(Refused, match="bad_user_name"):
        UserPlan("sub", "U", "A", 1, tags=(f"owner:{name}",))
    with pytest.raises(Refused, match="bad_user_name"):
        TokenMint.of(in_use.installation).tokens(name, "U", now=1)


@bad
def test_no_contract_carries_such_a_name(name: str) -> None:
    """Every kind of id in every message, and every hole of every subject."""
    for kind in (OwnerId, ServerId, SlotId, ProviderId, EpochId):
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(name)
    for template in templates():
        for hole in template.names:
            if hole == "banner_id" and name in _GOOD_FOR_A_BANNER:
                continue
            with pytest.raises(ContractError, match="bad_subject_id"):
                template.fill(dict.fromkeys(template.names, "x") | {hole: name})


def contracts(of: type[Contract] = Contract) -> set[type[Contract]]:
    """Return every message and part of a message that was declared."""
    return {of}.union(*(contracts(one) for one in of.__subclasses__()))


HOLES = {hole for template in templates() for hole in template.names}


@pytest.mark.parametrize("hole", sorted({h for h in HOLES if h.endswith("_id")} | {"slot_id"}))
def test_an_id_is_nowhere_plain_text(hole: str) -> None:
    """Whatever message has a field of a hole's name, its kind is checked."""
    for contract in contracts():
        if hole in contract.model_fields:
            schema = contract.model_json_schema(mode="validation")["properties"][hole]
            patterns = [kind.get("pattern", "") for kind in schema.get("anyOf", [schema])]
            assert any(pattern.startswith("^[a-z0-9") for pattern in patterns), contract


@bad
def test_no_command_takes_such_a_name(
    in_use: InUse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The commands say what is wrong and change nothing."""
    monkeypatch.setattr("bus_schemas.transport.logs.log_to_stderr", lambda: None)
    state = ["--state", str(in_use.installation.root), "--bus", in_use.server.target.url]
    for command in (
        ["owner", "add", "--", name],
        ["server", "add", "--", "acme", name],
        ["server", "add", "--", name, "acme-1"],
        ["subscriber", "add", "--all", "--out", str(tmp_path / "x"), "--", name],
        ["subscriber", "add", "--owner", name, "--out", str(tmp_path / "x"), "--", "sub"],
    ):
        result = CliRunner().invoke(root, [*state, *command])
        assert isinstance(result.exception, Refused), command
        assert not (tmp_path / "x").exists()


SPEAKABLE = [name for name in BAD.values() if not set(name) & set(" \t\r\n\0")]


@pytest.mark.parametrize("who", EVERYBODY, ids=lambda who: who.role.value)
def test_no_such_name_gets_past_nats_server(in_use: InUse, who: Person) -> None:
    """Said on the wire in place of one's own id, it is refused; nothing is taken for a wildcard."""
    if who.role in {Role.SERVER, Role.DOOR, Role.ENROLLING}:
        said = {s for t in templates() for s in filled(t) if reached(who, s)}
        tried = {s.replace(who.name, name) for s in said for name in SPEAKABLE}
        assert in_use.wire(who).refused([Sent(subject) for subject in tried]) == tried
    if who.role is Role.SUBSCRIBER:
        said = {"$JS.CORE.API.DIRECT.GET.BYOK_BANNERS.byok.v1.banner.acme.one"}
        tried = {s.replace(".acme.", f".{name}.") for s in said for name in SPEAKABLE}
        assert in_use.wire(who).refused([Sent(subject) for subject in tried]) == tried
