"""Which slots share a credential, and what each owner is told of it."""

import pytest

from bus_schemas.events.banner import BannerCode, Sharing
from bus_schemas.fields import Basis, Strength
from platform_handlers.fingerprint.holders import Holders, Holding, SlotKey, Standing, TagKey
from platform_handlers.fingerprint.rules import (
    matches,
    other_bucket,
    own_bucket,
    partners,
    sharing,
)

API, OAUTH = BannerCode.API_KEY_REUSE, BannerCode.OAUTH_REUSE


class Book:
    """A book that is written in one line a holding."""

    def __init__(self) -> None:
        self.holders = Holders()
        self._joined = 0

    def put(
        self,
        owner_id: str,
        server_id: str,
        name: str = "t",
        *,
        slot: str = "main",
        basis: Basis = Basis.API_KEY,
        strength: Strength = Strength.SECRET,
        standing: Standing = Standing.CURRENT,
    ) -> Holding:
        """Add one holding, newer than all before."""
        self._joined += 1
        holding = Holding(
            SlotKey(server_id, slot),
            owner_id,
            TagKey("e1", name),
            "anthropic",
            basis,
            strength,
            1,
            standing,
            self._joined,
            0,
        )
        self.holders.put(holding)
        return holding

    def told(self, server_id: str, code: BannerCode = API) -> Sharing | None:
        """What the main slot of a server is told."""
        return sharing(self.holders, SlotKey(server_id, "main"), code)


@pytest.fixture
def book() -> Book:
    """An empty book."""
    return Book()


@pytest.mark.parametrize(
    ("count", "own", "others"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (2, 2, 2),
        (5, 5, 2),
        (6, 6, 6),
        (20, 20, 6),
        (21, 21, 21),
        (100, 21, 21),
        (101, 101, 101),
        (1000, 101, 101),
        (1001, 1001, 101),
        (99999, 1001, 101),
    ],
)
def test_counts_are_told_in_steps(count: int, own: int, others: int) -> None:
    """Own servers exactly up to 20; of other owners never more than the order of magnitude."""
    assert (own_bucket(count), other_bucket(count)) == (own, others)


def test_a_key_that_nobody_else_has_is_nobodys_business(book: Book) -> None:
    """One holder, in however many slots of one server, is no match."""
    book.put("acme", "acme-1")
    book.put("acme", "acme-1", slot="second")
    assert book.told("acme-1") is None
    assert partners(book.holders, SlotKey("acme-1", "main"), API) == {}


def test_own_servers_are_named_and_other_owners_only_counted(book: Book) -> None:
    """An owner reads the names of their own servers, and of others not even the exact number."""
    for server_id in ("acme-2", "acme-1", "acme-3"):
        book.put("acme", server_id)
    for owner_id in ("globex", "hooli", "initech"):
        book.put(owner_id, f"{owner_id}-1")
    told = book.told("acme-1")
    assert told == Sharing(
        own_servers=("acme-2", "acme-3"),
        own_servers_total=2,
        other_owners=2,
        bases=(Basis.API_KEY,),
    )
    assert book.told("globex-1") == Sharing(other_owners=2, bases=(Basis.API_KEY,))


def test_each_code_speaks_of_its_own_bases(book: Book) -> None:
    """An API key raises the blue banner only, a login the amber one with what matched."""
    for server_id in ("acme-1", "acme-2"):
        book.put("acme", server_id, "k")
        book.put("acme", server_id, "g", basis=Basis.OAUTH_GRANT)
        book.put("acme", server_id, "a", basis=Basis.OAUTH_ACCOUNT)
    blue, amber = book.told("acme-1", API), book.told("acme-1", OAUTH)
    assert blue is not None
    assert amber is not None
    assert blue.bases == (Basis.API_KEY,)
    assert amber.bases == (Basis.OAUTH_ACCOUNT, Basis.OAUTH_GRANT)


def test_retired_with_retired_is_no_match(book: Book) -> None:
    """Signing in anew clears it; an old token still matches whoever uses it now."""
    book.put("acme", "acme-1", standing=Standing.RETIRED)
    book.put("acme", "acme-2", standing=Standing.RETIRED)
    assert book.told("acme-1") is None
    book.put("globex", "globex-1", standing=Standing.RETIRED)
    assert book.told("acme-1") is None
    book.put("acme", "acme-3")
    assert book.told("acme-1") == Sharing(
        own_servers=("acme-3",), own_servers_total=1, bases=(Basis.API_KEY,)
    )
    using = book.told("acme-3")
    assert using is not None
    assert (using.own_servers, using.other_owners) == (("acme-1", "acme-2"), 1)


def test_what_can_be_guessed_matches_within_one_owner_only(book: Book) -> None:
    """An address typed by a stranger must neither frame its owner nor tell who uses it."""
    for server_id in ("acme-1", "acme-2"):
        book.put("acme", server_id, basis=Basis.OAUTH_ACCOUNT, strength=Strength.GUESSABLE)
    book.put("mallory", "mallory-1", basis=Basis.OAUTH_ACCOUNT, strength=Strength.GUESSABLE)
    mine = book.told("acme-1", OAUTH)
    assert mine is not None
    assert (mine.own_servers, mine.other_owners) == (("acme-2",), 0)
    assert book.told("mallory-1", OAUTH) is None


def test_a_prober_who_calls_a_guess_a_secret_learns_nothing(book: Book) -> None:
    """Strength is each server's own word, so a match across owners needs it from both."""
    book.put("acme", "acme-1", basis=Basis.OAUTH_ACCOUNT, strength=Strength.GUESSABLE)
    book.put("mallory", "mallory-1", basis=Basis.OAUTH_ACCOUNT, strength=Strength.SECRET)
    assert book.told("mallory-1", OAUTH) is None
    assert book.told("acme-1", OAUTH) is None
    assert partners(book.holders, SlotKey("mallory-1", "main"), OAUTH) == {}


def test_two_servers_through_two_tags_are_one_partner(book: Book) -> None:
    """A grant and its account on the same server count once, by whichever came first."""
    for server_id in ("acme-1", "acme-2"):
        book.put("acme", server_id, "g", basis=Basis.OAUTH_GRANT)
        book.put("acme", server_id, "a", basis=Basis.OAUTH_ACCOUNT)
    told = book.told("acme-1", OAUTH)
    assert told is not None
    assert (told.own_servers, told.own_servers_total) == (("acme-2",), 1)


def test_a_match_begins_when_the_later_of_the_two_joins(book: Book) -> None:
    """A dismissal covers what could be seen: not a partner that only we have just joined."""
    book.put("acme", "acme-1")
    book.put("acme", "acme-2")
    assert partners(book.holders, SlotKey("acme-1", "main"), API) == {"acme-2": 2}
    assert partners(book.holders, SlotKey("acme-2", "main"), API) == {"acme-1": 2}


def test_a_server_matches_since_the_first_slot_that_does(book: Book) -> None:
    """A slot that does not match, though older, does not make the match older."""
    old = book.put("acme", "acme-1", standing=Standing.RETIRED)
    book.put("acme", "acme-2", slot="a", standing=Standing.RETIRED)
    book.put("acme", "acme-2", slot="b")
    book.put("acme", "acme-2", slot="c")
    assert partners(book.holders, old.slot, API) == {"acme-2": 3}


def test_a_match_is_mutual(book: Book) -> None:
    """Whoever is told of a partner is a partner there."""
    kinds = [
        book.put(owner, f"{owner}-{i}", strength=strength, standing=standing)
        for i, (strength, standing) in enumerate((s, t) for s in Strength for t in Standing)
        for owner in ("acme", "globex")
    ]
    for one in kinds:
        for other in kinds:
            assert matches(one, other) == matches(other, one)


def test_a_large_group_is_sampled_and_its_size_told_in_steps(book: Book) -> None:
    """Twenty names at most, the longest-standing of them first, none of them one's own."""
    names = [f"web-{i}" for i in range(150)]
    for name in names:
        book.put("acme", name)
    for name in names:
        told = book.told(name)
        assert told is not None
        assert (len(set(told.own_servers)), told.own_servers_total) == (20, 101)
        assert name not in told.own_servers
        assert list(told.own_servers) == sorted(told.own_servers, key=names.index)


def test_other_owners_are_counted_up_to_a_hundred(book: Book) -> None:
    """Beyond that the number says nothing more, and is not computed."""
    for i in range(150):
        book.put(f"owner-{i}", f"server-{i}")
    told = book.told("server-0")
    assert told is not None
    assert told.other_owners == 101
