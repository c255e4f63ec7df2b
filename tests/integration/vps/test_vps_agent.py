"""The server's agent as a process, against the real evaluator and issuer."""

import base64
import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from bus_schemas.codec import decode
from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.event import Event
from bus_schemas.events.config import DesiredSlot
from bus_schemas.events.fingerprint import FingerprintObserved, FingerprintRetired
from bus_schemas.events.health import HealthReported
from bus_schemas.events.reported import (
    CredentialNeedsKey,
    CredentialRejected,
    CredentialRetired,
    CredentialStored,
    PinsChanged,
    SealingKeyPublished,
)
from bus_schemas.fields import Basis, CredentialKind, at_utc
from bus_schemas.finding import Grade
from bus_schemas.keys import owner_fingerprint, verify_sealing_key
from bus_schemas.transport.jetstream import read_batch
from platform_handlers.provisioning.tokens import TokenMint
from tests.integration.vps.conftest import NOWHERE, Fleet, api_key
from vps_runtime.connection.rules import read_claims
from vps_runtime.doctor import examine
from vps_runtime.enrolment.pins import Pins, read_pins, write_pins
from vps_runtime.status import read_status

SERVER = "acme-1"
SECRET = "sk-ant-api03-canary-0123456789"


def types(events: Sequence[Event], *wanted: type[Event]) -> list[str]:
    """Return the types of those events, in order."""
    return [event.type for event in events if isinstance(event, wanted)]


_E = TypeVar("_E", bound=Event)


def has(cls: type[_E], **fields: object) -> Callable[[Sequence[Event]], list[_E]]:
    """Return a function that picks the events of *cls* with these fields."""
    return lambda events: [
        e for e in events if isinstance(e, cls) and fields.items() <= dict(e).items()
    ]


async def test_a_sealed_credential_is_taken_in_and_told(fleet: Fleet) -> None:
    """From join to `stored`, a tag and a health report; then a clean end on SIGTERM."""
    state = await fleet.enrol(SERVER)
    agent = await fleet.start(state)
    assert (await agent.ready())["incarnation"] == 1
    slot = await fleet.send(await fleet.seal(SERVER))
    events = await fleet.until(SERVER, has(FingerprintObserved))
    [stored] = has(CredentialStored)(events)
    assert (stored.revision, stored.rotation_id) == (1, slot.rotation_id)
    assert stored.observed_generation == 1
    [tag] = has(FingerprintObserved)(events)
    assert (tag.slot_id, tag.basis, tag.strength) == ("anthropic", "api_key", "secret")
    [pins] = has(PinsChanged)(events)
    assert pins.pinned == (fleet.fingerprint,)
    [published] = has(SealingKeyPublished)(events)
    key = state.read_identity().public_key
    verify_sealing_key(
        published.signed_key, server_id=SERVER, identity_public_key=key, at=at_utc(time.time())
    )
    numbers = [event.n for event in events]
    assert numbers == sorted(set(numbers))
    assert await agent.stop() == 0
    [last] = await read_batch(fleet.ops, "BYOK_HEALTH", 1, 10)
    report = decode(last.data, last.subject, strict=True).data
    assert isinstance(report, HealthReported)


async def test_nothing_secret_lies_on_the_disk_or_in_the_log(fleet: Fleet) -> None:
    """Neither the credential nor the root key's openers are anywhere in the state folder."""
    state = await fleet.enrol(SERVER)
    agent = await fleet.start(state)
    await fleet.send(await fleet.seal(SERVER))
    await fleet.until(SERVER, has(FingerprintObserved))
    await agent.stop()
    raw = SECRET.encode()
    forms = [raw, raw.hex().encode(), base64.b64encode(raw)[:-4], json.dumps(SECRET).encode()]
    for path in (p for p in state.root.rglob("*") if p.is_file()):
        content = path.read_bytes()
        assert not any(form in content for form in forms), path
        assert path.suffix == ".log" or path.stat().st_mode & 0o077 == 0, path
    assert state.root.stat().st_mode & 0o077 == 0


async def test_a_rotation_retires_the_older_key(fleet: Fleet) -> None:
    """The new revision is told first, with its tag; only then is the older one gone."""
    state = await fleet.enrol(SERVER)
    await fleet.start(state)
    await fleet.send(await fleet.seal(SERVER))
    await fleet.until(SERVER, has(FingerprintObserved, revision=1))
    new = api_key("sk-ant-api03-another-0123456789", at=fleet.provider.origin)
    await fleet.send(await fleet.seal(SERVER, revision=2, payload=new))
    events = await fleet.until(SERVER, has(FingerprintRetired))
    assert types(
        events, CredentialStored, FingerprintObserved, CredentialRetired, FingerprintRetired
    ) == [
        CredentialStored.type,
        FingerprintObserved.type,
        CredentialStored.type,
        FingerprintObserved.type,
        CredentialRetired.type,
        FingerprintRetired.type,
    ]
    assert has(FingerprintRetired, revision=1)(events)
    one, two = has(FingerprintObserved)(events)
    assert one.tag != two.tag
    assert [path.name for path in state.vault.glob("anthropic.*")] == ["anthropic.2.vault"]


async def test_one_key_on_two_servers_has_one_tag(fleet: Fleet) -> None:
    """Reuse shows although nobody but the two servers ever saw the key."""
    tags = []
    for server_id in (SERVER, "acme-2"):
        await fleet.start(await fleet.enrol(server_id))
        await fleet.send(await fleet.seal(server_id))
        events = await fleet.until(server_id, has(FingerprintObserved))
        tags.append(has(FingerprintObserved)(events)[0].tag)
    assert tags[0] == tags[1]


async def test_a_sign_in_is_told_as_grant_and_as_account(fleet: Fleet) -> None:
    """An OAuth set has two tags: who copied the tokens, and who shares the account."""
    await fleet.start(await fleet.enrol(SERVER))
    sign_in = CredentialPayload(
        oauth=OAuthSet(
            access_token=SecretStr("access-0123456789"),
            refresh_token=SecretStr("refresh-0123456789"),
            token_endpoint=f"{NOWHERE}/token",
            client_id="client",
            issuer="https://auth.example.com",
            account="user-0123456789abcdef",
        ),
        base_url=NOWHERE,
        header_style="bearer",
    )
    await fleet.send(await fleet.seal(SERVER, payload=sign_in, slot_id="openai"))
    events = await fleet.until(SERVER, has(FingerprintObserved, basis=Basis.OAUTH_ACCOUNT))
    assert has(FingerprintObserved, basis=Basis.OAUTH_GRANT)(events)


async def test_an_unpinned_key_is_refused_until_the_console_pins_it(fleet: Fleet) -> None:
    """A key that only the platform offers is refused; typed on the console, it is obeyed."""
    state = await fleet.enrol(SERVER)
    await fleet.start(state)
    stranger = Ed25519PrivateKey.generate()
    await fleet.send(await fleet.seal(SERVER, by=stranger))
    events = await fleet.until(SERVER, has(CredentialNeedsKey))
    [rejected] = has(CredentialRejected)(events)
    assert rejected.reason == "owner_key_not_pinned"
    assert (await read_status(state)).refused == {"anthropic": "owner_key_not_pinned"}
    typed = owner_fingerprint(stranger.public_key().public_bytes_raw())
    write_pins(state.pins, read_pins(state.pins).with_key(typed))
    events = await fleet.until(SERVER, has(CredentialStored))
    assert len(has(PinsChanged)(events)[-1].pinned) == 2
    assert len(has(CredentialRejected)(events)) == 1


async def test_a_refused_sealing_leaves_the_current_key_alone(fleet: Fleet) -> None:
    """A changed envelope is rejected with its reason, once, and the current key stays."""
    state = await fleet.enrol(SERVER)
    await fleet.start(state)
    await fleet.send(await fleet.seal(SERVER))
    await fleet.until(SERVER, has(FingerprintObserved))
    good = await fleet.seal(SERVER, revision=2)
    slot = await fleet.send(good.model_copy(update={"not_after": good.not_after + 1}))
    events = await fleet.until(SERVER, has(CredentialRejected))
    [rejected] = has(CredentialRejected)(events)
    assert (rejected.reason, rejected.rotation_id) == ("bad_signature", slot.rotation_id)
    await fleet.document(SERVER, slot)  # the same again: nothing new to say
    await fleet.send(await fleet.seal(SERVER, revision=3))
    events = await fleet.until(SERVER, has(CredentialStored, revision=3))
    assert len(has(CredentialRejected)(events)) == 1
    assert not has(CredentialRetired, revision=2)(events)


async def test_a_slot_without_its_sealing_asks_for_a_key(fleet: Fleet) -> None:
    """The document lists a slot whose sealing has expired: the server says so, once."""
    await fleet.start(await fleet.enrol(SERVER))
    slot = DesiredSlot(
        slot_id="openai",
        provider="openai",
        kind=CredentialKind.API_KEY,
        revision=4,
        min_revision=0,
        rotation_id=str(uuid.uuid4()),
    )
    await fleet.document(SERVER, slot)
    events = await fleet.until(SERVER, has(CredentialNeedsKey))
    [asked] = has(CredentialNeedsKey)(events)
    assert (asked.slot_id, asked.reason) == ("openai", "not_delivered")


async def test_a_raised_minimum_takes_the_key_away(fleet: Fleet) -> None:
    """A revision below `min_revision` is retired at once, replacement or not."""
    state = await fleet.enrol(SERVER)
    await fleet.start(state)
    slot = await fleet.send(await fleet.seal(SERVER))
    await fleet.until(SERVER, has(FingerprintObserved))
    await fleet.document(SERVER, slot.model_copy(update={"min_revision": 2}))
    await fleet.until(SERVER, has(CredentialNeedsKey))
    await fleet.until(SERVER, has(FingerprintRetired, revision=1))
    assert not list(state.vault.glob("anthropic.*"))


async def test_a_killed_agent_goes_on_where_it_was(fleet: Fleet) -> None:
    """After SIGKILL the next start holds the same, tells nothing twice and takes the next key."""
    state = await fleet.enrol(SERVER)
    agent = await fleet.start(state)
    await fleet.send(await fleet.seal(SERVER))
    await fleet.until(SERVER, has(FingerprintObserved))
    await agent.kill()
    await fleet.send(await fleet.seal(SERVER, revision=2))
    again = await fleet.start(state)
    ready = await again.ready()
    assert (ready["incarnation"], ready["slots"]) == (2, 1)
    events = await fleet.until(SERVER, has(FingerprintRetired))
    assert [e.revision for e in has(CredentialStored)(events)] == [1, 2]
    assert len(has(SealingKeyPublished)(events)) == 1
    pairs = [(e.incarnation, e.n) for e in events]
    assert pairs == sorted(set(pairs))


async def test_an_expired_working_token_comes_back_by_the_door(fleet: Fleet) -> None:
    """A server that was off for longer than its token's hour needs no person."""
    state = await fleet.enrol(SERVER)
    old = json.loads(state.tokens.read_text())
    nkey = read_claims(old["working"]).nkey
    mint = TokenMint.of(fleet.platform.installation)
    expired = mint.tokens(SERVER, nkey, now=int(time.time()) - 7200)
    state.tokens.write_text(json.dumps({"working": expired.working, "door": old["door"]}))
    agent = await fleet.start(state)
    await agent.ready()
    assert read_claims(json.loads(state.tokens.read_text())["working"]).usable(time.time())


async def test_a_second_agent_on_one_folder_is_turned_away(fleet: Fleet) -> None:
    """Two agents would unlock the folder away from each other; the second ends with 75."""
    state = await fleet.enrol(SERVER)
    await (await fleet.start(state)).ready()
    second = await fleet.start(state)
    assert await second.process.wait() == 75
    assert "another byok-vps runs" in second.log.read_text()


async def test_the_doctor_finds_a_healthy_server_healthy(fleet: Fleet) -> None:
    """Every line of a running, filled server is ok; without pins and platform it is not."""
    state = await fleet.enrol(SERVER)
    await fleet.start(state)
    await fleet.send(await fleet.seal(SERVER))
    await fleet.until(SERVER, has(FingerprintObserved))
    # What is said of this machine (its swap, a root user) is not the server's; see test_vps_memory.
    findings = [f for f in await examine(state) if f.check not in {"memory", "swap", "dumps"}]
    assert {finding.grade for finding in findings} == {Grade.OK}, "\n".join(map(str, findings))
    write_pins(state.pins, Pins())
    bad = [f.check for f in await examine(state) if f.grade is Grade.BAD]
    assert bad == ["pins"]


@pytest.mark.parametrize("damage", ["identity.seed", "tokens.json", "evaluator.json"])
async def test_a_damaged_state_folder_is_said_to_be_damaged(fleet: Fleet, damage: str) -> None:
    """One sentence and exit code 78, not a trace."""
    state = await fleet.enrol(SERVER)
    (state.root / damage).write_bytes(b"x")
    agent = await fleet.start(state)
    assert await agent.process.wait() == 78
    said = agent.log.read_text()
    assert said.splitlines()[-1].startswith("byok-vps: ")
    assert "Traceback" not in said


async def test_a_stale_copy_of_the_disk_ends_with_one_sentence(fleet: Fleet) -> None:
    """The evaluator's refusal ends the agent: exit code 77, no trace, and the reason is named."""
    state = await fleet.enrol(SERVER)
    agent = await fleet.start(state)
    await agent.ready()
    await agent.stop()
    old = state.root_file.read_bytes()
    again = await fleet.start(state)
    await again.ready()
    await again.stop()
    state.root_file.write_bytes(old)
    stale = await fleet.start(state)
    assert await stale.process.wait() == 77
    said = stale.log.read_text()
    assert "byok-vps: stale_generation" in said
    assert "Traceback" not in said
