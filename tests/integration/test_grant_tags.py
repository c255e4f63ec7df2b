"""The tags of a sign-in's refresh tokens, from the vault to the book of who shares what."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from bus_schemas.codec import decode
from bus_schemas.credential import CredentialPayload
from bus_schemas.evaluation import KeysReply
from bus_schemas.events import FingerprintObserved
from bus_schemas.events.health import Validity
from bus_schemas.fields import Basis
from bus_schemas.oprf import MAX_ELEMENTS, OprfKey
from platform_handlers.fingerprint.edits import MAX_RETIRED
from platform_handlers.fingerprint.holders import SlotKey
from platform_handlers.fingerprint.projection import Projection
from tests.facts import Ledger, fold
from tests.oauth_server import OAuthServer
from tests.refreshing import SLOT, Running, opened
from vps_runtime.facts.told import short_tag
from vps_runtime.fingerprint.tags import Tags
from vps_runtime.unlock.evaluator import Evaluator
from vps_runtime.vault.grants import MAX_GRANTS


@dataclass
class LocalEvaluator:
    """The evaluator's two answers, from keys of its own and without a bus."""

    epochs: dict[str, OprfKey]
    asked: list[int] = field(default_factory=list)
    """How many inputs came with each question."""

    async def keys(self) -> KeysReply:
        """Return the public keys."""
        keys = {epoch: key.public_key for epoch, key in self.epochs.items()}
        return KeysReply(fingerprint_public_keys=keys, current_epoch=max(keys), signature=bytes(64))

    async def fingerprint(self, epoch: str, _: bytes, inputs: Sequence[bytes]) -> list[bytes]:
        """Return the outputs."""
        assert len(inputs) <= MAX_ELEMENTS
        self.asked.append(len(inputs))
        return [self.epochs[epoch].evaluate_known(value) for value in inputs]


@asynccontextmanager
async def server(folder: Path, evaluator: LocalEvaluator) -> AsyncIterator[tuple[Running, Tags]]:
    """Open a server, and what tells its tags."""
    async with opened(folder) as running:
        told = running.server
        yield running, Tags(cast("Evaluator", evaluator), told.credentials, told.facts)


def observed(folder: Path) -> list[FingerprintObserved]:
    """Return the tags that wait in a server's outbox, in order."""
    with closing(sqlite3.connect(folder / "outbox.db")) as file:
        rows = file.execute("SELECT subject, body FROM outbox ORDER BY position").fetchall()
    events = [decode(body, subject).data for subject, body in rows]
    return [event for event in events if isinstance(event, FingerprintObserved)]


def grants(events: Sequence[FingerprintObserved], epoch: str) -> list[str]:
    """Return the tags of refresh tokens under *epoch*, in order."""
    return [e.tag for e in events if e.basis is Basis.OAUTH_GRANT and e.epoch == epoch]


def book(**servers: Sequence[FingerprintObserved]) -> Projection:
    """Return what the platform knows after servers' words, each with its own id."""
    return told(**servers)[0]


def told(**servers: Sequence[FingerprintObserved]) -> tuple[Projection, list[tuple[str, str]]]:
    """Return the same, and the states of the servers' banners one after another."""
    ledger = Ledger()
    for name in servers:
        ledger.provisioned(name, name)
    for name, events in servers.items():
        for event in events:
            ledger.add(event.model_copy(update={"server_id": name}))
    projection = Projection()
    changes = fold(projection, *ledger.facts)
    return projection, [(banner.key.server_id, banner.state.value) for banner, _ in changes]


def nameless(payload: CredentialPayload) -> CredentialPayload:
    """Return *payload* without the account, by which two would match for ever."""
    assert payload.oauth is not None
    oauth = payload.oauth.model_copy(update={"account": None})
    return payload.model_copy(update={"oauth": oauth})


async def refresh(running: Running, times: int = 1) -> CredentialPayload:
    """Refresh so many times, as if each token had lasted; return the set that is there then."""
    for _ in range(times):
        running.clock.now += 3600
        verdict = await running.refresher.refreshed(running.held)
        assert verdict.validity is Validity.VALID
    return await running.payload()


async def test_a_copy_made_at_any_refresh_matches(tmp_path: Path) -> None:
    """Before the first, in between, or just now: the two are told of each other."""
    evaluator = LocalEvaluator({"e1": OprfKey.generate()})
    async with OAuthServer().serving() as issuer:
        copies = []
        async with server(tmp_path / "one", evaluator) as (running, tags):
            copies.append(issuer.sign_in())
            await running.take_in(copies[0])
            await tags.tell_missing()
            for _ in range(4):
                copies.append(await refresh(running))
                await tags.tell_missing()
            short = short_tag(running.held, running.server.facts.told)
        one = observed(tmp_path / "one")
        assert len(grants(one, "e1")) == 5
        assert short == grants(one, "e1")[-1][:8]
        for at, copy in enumerate(copies):
            async with server(tmp_path / f"copy-{at}", evaluator) as (running, tags):
                await running.take_in(copy)
                await tags.tell_missing()
            known = book(one=one, two=observed(tmp_path / f"copy-{at}"))
            for name in ("one", "two"):
                [banner] = known.banners.of_server(name).values()
                assert banner.content is not None
                assert banner.content.sharing is not None
                assert Basis.OAUTH_GRANT in banner.content.sharing.bases


async def test_two_that_have_both_moved_on_do_not_match(tmp_path: Path) -> None:
    """A provider let each renew the token they shared: what both have left behind is no match."""
    evaluator = LocalEvaluator({"e1": OprfKey.generate()})
    async with OAuthServer().serving() as issuer:
        issuer.grace = 1
        shared = nameless(issuer.sign_in())
        for name in ("one", "two"):
            async with server(tmp_path / name, evaluator) as (running, tags):
                await running.take_in(shared)
                await tags.tell_missing()
                await refresh(running)
                await tags.tell_missing()
    one, two = observed(tmp_path / "one"), observed(tmp_path / "two")
    assert grants(one, "e1")[0] == grants(two, "e1")[0]
    _, states = told(one=one, two=two)
    assert sorted(states[:2]) == [("one", "raised"), ("two", "raised")]
    assert sorted(states[2:]) == [("one", "cleared"), ("two", "cleared")]


async def test_a_new_epoch_hears_of_every_remembered_token(tmp_path: Path) -> None:
    """In their order, so that the one in use is current there, too, and the rest retired."""
    evaluator = LocalEvaluator({"e1": OprfKey.generate()})
    async with OAuthServer().serving() as issuer:
        async with server(tmp_path / "one", evaluator) as (running, tags):
            await running.take_in(issuer.sign_in())
            await refresh(running, MAX_GRANTS + 3)
            await tags.tell_missing()
            assert evaluator.asked == [MAX_ELEMENTS, MAX_GRANTS + 1 - MAX_ELEMENTS]
        evaluator.epochs["e2"] = OprfKey.generate()
        async with server(tmp_path / "one", evaluator) as (running, tags):
            await tags.tell_missing()
            await refresh(running)
            await tags.tell_missing()
            keys = [key for key in running.server.facts.told if "oauth_grant" in key]
            assert len(keys) == 2 * MAX_GRANTS
            assert sum(evaluator.asked) == 2 * (MAX_GRANTS + 1) + 2
    words = observed(tmp_path / "one")
    assert len(grants(words, "e1")) == len(grants(words, "e2")) == MAX_GRANTS + 1
    projection = book(one=words)
    held = projection.holders.of_slot(SlotKey("one", SLOT)).values()
    for epoch in ("e1", "e2"):
        current = [h for h in held if h.key.epoch == epoch and h.is_current]
        assert {h.key.tag for h in current if h.basis is Basis.OAUTH_GRANT} == {
            grants(words, epoch)[-1]
        }
        retired = [h for h in held if h.key.epoch == epoch and not h.is_current]
        assert len(retired) == MAX_RETIRED
    assert projection.dropped == 0
