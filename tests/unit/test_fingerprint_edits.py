"""What a fact does to the book of holders."""

from dataclasses import replace

import pytest

from bus_schemas.event import Event
from bus_schemas.events import FingerprintObserved, FingerprintRenewed, FingerprintRetired
from bus_schemas.fields import Basis, Strength
from platform_handlers.fingerprint import edits
from platform_handlers.fingerprint.edits import Edit, Observer, OverLimit
from platform_handlers.fingerprint.holders import Holders, Holding, SlotKey, Standing, TagKey
from tests.facts import Ledger, tag

SLOT = SlotKey("acme-1", "main")


class Book:
    """A book of holders and the ledger that fills it, one server's view."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.holders = Holders()
        self.tick = 0

    def observe(
        self,
        name: str,
        *,
        slot: str = "main",
        revision: int = 1,
        basis: Basis = Basis.OAUTH_GRANT,
        epoch: str = "e1",
    ) -> list[Edit]:
        """Observe a tag and carry out what follows."""
        fact = self.ledger.observed(
            "acme-1", name, slot=slot, revision=revision, basis=basis, epoch=epoch
        )
        event = fact.envelope.data
        assert isinstance(event, FingerprintObserved)
        return self.carry_out(
            edits.observe(self.holders, event, Observer("acme", fact.sequence, self.tick))
        )

    def carry_out(self, changes: list[Edit]) -> list[Edit]:
        """Do what the edits say."""
        for edit in changes:
            if edit.keep:
                self.holders.put(edit.holding)
            else:
                self.holders.drop(edit.holding.slot, edit.holding.key)
        return changes

    def held(self, slot: str = "main") -> dict[str, Standing]:
        """Names of what a slot holds, and how."""
        return {
            bytes.fromhex(h.key.tag).rstrip(b"\0").decode(): h.standing
            for h in self.holders.of_slot(SlotKey("acme-1", slot)).values()
        }

    def holding(self, name: str, epoch: str = "e1") -> Holding:
        """What the main slot holds under a name."""
        return self.holders.of_slot(SLOT)[TagKey(epoch, tag(name))]


@pytest.fixture
def book() -> Book:
    """An empty book."""
    return Book()


CURRENT, RETIRED = Standing.CURRENT, Standing.RETIRED


def test_a_refresh_retires_the_token_before_it(book: Book) -> None:
    """The slot's earlier token of the same grant stays, as one a copy may still hold."""
    book.observe("r1")
    book.tick = 5
    book.observe("r2")
    assert book.held() == {"r1": RETIRED, "r2": CURRENT}
    assert book.holding("r1").seen_tick == 5


@pytest.mark.parametrize(
    ("basis", "revision", "epoch", "slot"),
    [
        (Basis.OAUTH_ACCOUNT, 1, "e1", "main"),
        (Basis.OAUTH_GRANT, 2, "e1", "main"),
        (Basis.OAUTH_GRANT, 1, "e2", "main"),
        (Basis.OAUTH_GRANT, 1, "e1", "other"),
    ],
)
def test_nothing_else_retires_a_token(
    book: Book, basis: Basis, revision: int, epoch: str, slot: str
) -> None:
    """Another basis, credential, epoch or slot leaves the token in use."""
    book.observe("r1")
    book.observe("r2", basis=basis, revision=revision, epoch=epoch, slot=slot)
    assert book.held()["r1"] is CURRENT


def test_a_token_that_comes_back_is_current_from_then_on(book: Book) -> None:
    """Whoever matches it matches since it is in use again, not since it was first seen."""
    book.observe("r1")
    book.observe("r2")
    book.observe("r1")
    assert book.held() == {"r1": CURRENT, "r2": RETIRED}
    assert book.holding("r1").joined == 3


def test_being_told_again_changes_only_when_it_was_seen(book: Book) -> None:
    """A repeated announcement keeps the moment at which the server joined."""
    book.observe("r1")
    first = book.holding("r1")
    book.tick = 9
    book.observe("r1")
    assert book.holding("r1") == replace(first, seen_tick=9)


def test_an_older_revision_cannot_bring_a_tag_back(book: Book) -> None:
    """A late word about a lower revision of a known tag is ignored."""
    book.observe("r1", revision=2)
    assert book.observe("r1", revision=1) == []
    assert book.holding("r1").revision == 2


def test_the_basis_of_a_tag_never_changes(book: Book) -> None:
    """It is part of what was hashed, so a second word about it is wrong."""
    book.observe("k1", basis=Basis.API_KEY)
    book.observe("k1", basis=Basis.OAUTH_ACCOUNT)
    assert book.holding("k1").basis is Basis.API_KEY


def test_the_oldest_retired_tokens_are_forgotten(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one grant, only so many earlier tokens are kept, the newest of them."""
    monkeypatch.setattr(edits, "MAX_RETIRED", 2)
    for name in ("r1", "r2", "r3", "r4"):
        book.observe(name)
    assert book.held() == {"r2": RETIRED, "r3": RETIRED, "r4": CURRENT}


def test_a_full_server_forgets_an_old_token_for_one_in_use(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cap on tags must not blind us to what a server uses now."""
    monkeypatch.setattr(edits, "MAX_TAGS", 4)
    monkeypatch.setattr(edits, "MAX_RETIRED", 2)
    for name in ("r1", "r2", "r3"):
        book.observe(name)
    book.observe("k1", slot="other", basis=Basis.API_KEY)
    book.observe("r4")
    assert book.held() == {"r2": RETIRED, "r3": RETIRED, "r4": CURRENT}
    assert book.held("other") == {"k1": CURRENT}


def test_making_room_and_the_limit_of_a_grant_remove_a_token_once(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both want the oldest token gone, it goes once, and one more goes if it must."""
    monkeypatch.setattr(edits, "MAX_TAGS", 4)
    for name in ("r1", "r2", "r3", "r4"):
        book.observe(name)
    monkeypatch.setattr(edits, "MAX_RETIRED", 2)
    book.observe("r5")
    assert book.held() == {"r3": RETIRED, "r4": RETIRED, "r5": CURRENT}


def test_a_server_full_of_keys_in_use_gets_no_more(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the cap on tags a fact is dropped; a known tag is still heard of."""
    monkeypatch.setattr(edits, "MAX_TAGS", 2)
    book.observe("k1", slot="a", basis=Basis.API_KEY)
    book.observe("k2", slot="b", basis=Basis.API_KEY)
    with pytest.raises(OverLimit):
        book.observe("k3", slot="c", basis=Basis.API_KEY)
    assert book.observe("k1", slot="a", basis=Basis.API_KEY)


def test_a_server_has_only_so_many_slots(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """One slot more is dropped; those there are go on."""
    monkeypatch.setattr(edits, "MAX_SLOTS", 1)
    book.observe("r1")
    with pytest.raises(OverLimit):
        book.observe("r1", slot="second")
    book.observe("r2")
    assert book.held() == {"r1": RETIRED, "r2": CURRENT}


def test_retiring_a_revision_drops_it_and_all_below(book: Book) -> None:
    """A retired credential takes its earlier tokens with it; a newer one stays."""
    for name, revision in (("r1", 1), ("r2", 1), ("r3", 2), ("r4", 3)):
        book.observe(name, revision=revision)
    event = book.ledger.retired("acme-1", 2).envelope.data
    assert isinstance(event, FingerprintRetired)
    book.carry_out(edits.retire(book.holders, event))
    assert book.held() == {"r4": CURRENT}


def test_what_a_renewal_does_not_list_is_gone(book: Book) -> None:
    """A retirement that was lost heals with the next renewal."""
    book.observe("r1", revision=1)
    book.observe("r2", revision=2)
    book.observe("k1", slot="other", basis=Basis.API_KEY)
    event = book.ledger.renewed("acme-1", ("main", 2)).envelope.data
    assert isinstance(event, FingerprintRenewed)
    book.carry_out(edits.renew(book.holders, event))
    assert (book.held(), book.held("other")) == ({"r2": CURRENT}, {})


def test_a_server_leaves_with_everything(book: Book) -> None:
    """Nothing of a deprovisioned server is remembered."""
    book.observe("r1")
    book.observe("k1", slot="other", basis=Basis.API_KEY)
    book.carry_out(edits.leave(book.holders, "acme-1"))
    assert not list(book.holders)


def test_a_closed_epoch_takes_its_own_tags_only(book: Book) -> None:
    """Tags of the epoch that goes on stay, so its banners do."""
    book.observe("r1", epoch="e1")
    book.observe("r1", epoch="e2")
    book.carry_out(edits.close_epoch(book.holders, "e1"))
    assert [holding.key.epoch for holding in book.holders] == ["e2"]


@pytest.mark.parametrize(
    ("tick", "renewed", "left"),
    [
        (edits.SERVER_LIFE_TICKS, {"acme-1": 0}, {"r1": RETIRED, "r2": CURRENT}),
        (edits.SERVER_LIFE_TICKS + 1, {"acme-1": 0}, {}),
        (edits.RETIRED_LIFE_TICKS, {}, {"r1": RETIRED, "r2": CURRENT}),
        (edits.RETIRED_LIFE_TICKS + 1, {}, {"r2": CURRENT}),
    ],
)
def test_what_expires_and_when(
    book: Book, tick: int, renewed: dict[str, int], left: dict[str, Standing]
) -> None:
    """A silent server goes after thirty days, an old token after ninety.

    A server that may not speak (revoked: not in `renewed`) cannot be taken at its silence.
    """
    book.observe("r1")
    book.observe("r2")
    book.carry_out(edits.expire(book.holders, renewed, tick))
    assert book.held() == left


def test_strength_follows_the_newest_word(book: Book) -> None:
    """A runtime that learnt better what can be guessed is believed."""
    fact = book.ledger.observed("acme-1", "a1", basis=Basis.OAUTH_ACCOUNT)
    weaker: Event = fact.envelope.data.model_copy(update={"strength": Strength.GUESSABLE})
    assert isinstance(weaker, FingerprintObserved)
    book.observe("a1", basis=Basis.OAUTH_ACCOUNT)
    book.carry_out(edits.observe(book.holders, weaker, Observer("acme", 9, 0)))
    assert book.holding("a1").strength is Strength.GUESSABLE
