"""The fingerprint handler's state, fact by fact."""

from collections.abc import Callable

import pytest

from bus_schemas.events.banner import BannerCode, BannerState
from bus_schemas.events.health import Transition
from bus_schemas.fields import Basis
from platform_handlers.banner.lifecycle import Banner, BannerKey
from platform_handlers.fingerprint import edits, projection
from platform_handlers.fingerprint.banners import Banners
from platform_handlers.fingerprint.projection import Projection
from tests.facts import Ledger, fold

BLUE = "API_KEY_REUSE"


class World:
    """A ledger and a projection that folds each fact as it comes."""

    def __init__(self, *servers: str) -> None:
        self.ledger = Ledger()
        self.state = Projection()
        self._folded = 0
        for server_id in servers:
            self.ledger.provisioned(server_id, server_id.split("-")[0])
        self.told()

    def told(self) -> list[tuple[str, str, str]]:
        """Fold what is new and return (server, code, state) of each event."""
        new = self.ledger.facts[self._folded :]
        self._folded += len(new)
        return [
            (b.key.server_id, b.key.code.value, b.state.value) for b, _ in fold(self.state, *new)
        ]

    def banner(
        self, server_id: str, code: BannerCode = BannerCode.API_KEY_REUSE, slot: str = "main"
    ) -> Banner:
        """How a banner stands."""
        banner = self.state.banners.get(BannerKey(server_id, slot, code))
        assert banner is not None
        return banner

    def share(self, *servers: str) -> None:
        """Have *servers* hold one key and fold it."""
        for server_id in servers:
            self.ledger.observed(server_id, "k1")
        self.told()

    def dismiss(self, server_id: str) -> None:
        """The owner dismisses the blue banner of a server as it stands."""
        banner = self.banner(server_id)
        self.ledger.dismissed(banner.owner_id, banner.key.banner_id, banner.revision)
        self.told()


@pytest.fixture
def world() -> World:
    """Two servers of acme, one of globex, all provisioned."""
    return World("acme-1", "acme-2", "globex-1")


def test_sharing_raises_a_banner_on_each_and_rotating_clears_both(world: World) -> None:
    """The whole loop, without a bus."""
    world.ledger.observed("acme-1", "k1")
    assert world.told() == []
    world.ledger.observed("acme-2", "k1")
    assert world.told() == [("acme-1", BLUE, "raised"), ("acme-2", BLUE, "raised")]
    world.ledger.observed("acme-2", "k2", revision=2)
    assert world.told() == []
    world.ledger.retired("acme-2", 1)
    assert world.told() == [("acme-1", BLUE, "cleared"), ("acme-2", BLUE, "cleared")]


def test_a_server_nobody_provisioned_has_no_say(world: World) -> None:
    """Its facts are dropped and counted."""
    world.share("acme-1", "stranger-1")
    assert world.state.dropped == 1
    assert [h.slot.server_id for h in world.state.holders] == ["acme-1"]


def test_a_repeated_fact_is_ignored(world: World) -> None:
    """An outbox may send again what the ledger has; an old word must not undo a new one."""
    old = world.ledger.observed("acme-1", "k1")
    world.ledger.retired("acme-1", 1)
    world.ledger.add(old.envelope.data)
    world.told()
    assert list(world.state.holders) == []
    assert world.state.dropped == 1


def test_a_server_that_invents_slots_gets_no_more_banners(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows from a server's own word is bounded; what stands can still be cleared."""
    monkeypatch.setattr(projection, "MAX_BANNERS", 2)
    for slot in ("s-1", "s-2", "s-3"):
        world.ledger.needs_key("acme-1", slot=slot)
    assert len(world.told()) == 2
    world.ledger.promoted("acme-1", slot="s-1")
    world.ledger.needs_key("acme-1", slot="s-3")
    assert [state for _, _, state in world.told()] == ["cleared", "raised"]


def test_a_repeated_provisioning_does_not_bring_a_server_back(world: World) -> None:
    """Ids are never issued twice, so a second word is an old one; the owner stays too."""
    world.ledger.revoked("acme-1", "acme")
    world.ledger.provisioned("acme-1", "globex")
    world.ledger.observed("acme-1", "k1")
    world.told()
    server = world.state.servers["acme-1"]
    assert (server.owner_id, server.active) == ("acme", False)
    assert list(world.state.holders) == []


def test_a_fact_over_the_caps_is_dropped_and_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server cannot fill the book."""
    monkeypatch.setattr(edits, "MAX_SLOTS", 1)
    world.ledger.observed("acme-1", "k1")
    world.ledger.observed("acme-1", "k2", slot="second")
    world.told()
    assert world.state.dropped == 1


@pytest.fixture
def short_life(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have silent servers forgotten after a few ticks, and return after how many at the latest."""
    monkeypatch.setattr(edits, "SERVER_LIFE_TICKS", 10)
    monkeypatch.setattr(projection, "_SWEEP_EVERY_TICKS", 4)
    return 10 + 4


def test_what_a_revoked_server_shared_stays_told(world: World, short_life: int) -> None:
    """Whoever took the server has its credentials: the banner clears when the others rotate."""
    world.share("acme-1", "acme-2")
    world.ledger.revoked("acme-1", "acme")
    for _ in range(2 * short_life):
        world.ledger.renewed("acme-2", ("main", 1))
        world.ledger.ticked()
    assert world.told() == []
    world.ledger.retired("acme-2", 1)
    assert world.told() == [("acme-1", BLUE, "cleared"), ("acme-2", BLUE, "cleared")]


def test_a_silent_server_holds_nothing_after_its_time(world: World, short_life: int) -> None:
    """Of time that somebody saw pass; an hour's outage of the clock is one tick."""
    world.share("acme-1", "acme-2")
    world.ledger.ticked(60 * short_life)
    assert world.told() == []
    for _ in range(short_life):
        world.ledger.ticked()
    assert world.told() == [("acme-1", BLUE, "cleared"), ("acme-2", BLUE, "cleared")]


def test_a_minute_that_is_over_does_not_count_again(world: World) -> None:
    """Any number of handlers may write the clock."""
    world.ledger.ticked()
    world.ledger.ticked(0)
    world.told()
    assert (world.state.ticks, world.state.minute) == (1, 1)


def test_a_deprovisioned_server_takes_everything_with_it(world: World) -> None:
    """Its banners are cleared, all of them, and its partners' where nothing is left."""
    world.share("acme-1", "acme-2")
    world.ledger.status("acme-1", "acme", Transition.REJECTED, "main")
    world.ledger.status("acme-1", "acme", Transition.SILENT)
    world.told()
    world.ledger.deprovisioned("acme-1", "acme")
    assert world.told() == [
        ("acme-1", "SERVER_SILENT", "cleared"),
        ("acme-1", BLUE, "cleared"),
        ("acme-1", "KEY_REJECTED", "cleared"),
        ("acme-2", BLUE, "cleared"),
    ]


@pytest.mark.parametrize("end", [Ledger.revoked, Ledger.deprovisioned])
def test_of_a_server_that_ended_no_condition_is_told(
    world: World, end: Callable[[Ledger, str, str], object]
) -> None:
    """Nobody could ever clear it; a status fact may well come a moment after the end."""
    world.ledger.status("acme-1", "acme", Transition.REJECTED, "main")
    world.ledger.status("acme-1", "acme", Transition.SILENT)
    world.told()
    end(world.ledger, "acme-1", "acme")
    assert {state for _, _, state in world.told()} == {"cleared"}
    world.ledger.status("acme-1", "acme", Transition.SILENT)
    world.ledger.needs_key("acme-1")
    assert world.told() == []


def test_facts_about_unknown_servers_change_nothing(world: World) -> None:
    """Neither their end nor their status."""
    world.ledger.deprovisioned("stranger-1", "acme")
    world.ledger.status("stranger-1", "acme", Transition.SILENT)
    assert world.told() == []


def test_a_closed_epoch_clears_what_only_it_knew(world: World) -> None:
    """Banners outlive an epoch if the tags were announced under the next one too."""
    for server_id in ("acme-1", "acme-2"):
        world.ledger.observed(server_id, "k1", epoch="e1")
        world.ledger.observed(server_id, "k1-again", epoch="e2")
    world.told()
    world.ledger.epoch_closed("e1")
    assert world.told() == []
    world.ledger.epoch_closed("e2")
    assert {state for _, _, state in world.told()} == {"cleared"}


def test_a_tag_that_is_announced_as_another_kind_keeps_its_banner(world: World) -> None:
    """A server that calls its API key a login cannot leave a banner behind that nobody clears."""
    world.share("acme-1", "acme-2")
    world.ledger.observed("acme-1", "k1", revision=2, basis=Basis.OAUTH_ACCOUNT)
    assert world.told() == []
    world.ledger.retired("acme-1", 2)
    assert world.told() == [("acme-1", BLUE, "cleared"), ("acme-2", BLUE, "cleared")]


def test_a_dismissed_banner_of_another_kind_is_not_touched_by_tags(world: World) -> None:
    """A dismissed rejected key stays dismissed while the same slot's tags come and go."""
    world.ledger.status("acme-1", "acme", Transition.REJECTED, "main")
    world.told()
    rejected = world.banner("acme-1", BannerCode.KEY_REJECTED)
    world.ledger.dismissed("acme", rejected.key.banner_id, rejected.revision)
    world.told()
    world.share("acme-1", "acme-2")
    world.ledger.renewed("acme-2")
    world.told()
    assert world.banner("acme-1", BannerCode.KEY_REJECTED).state is BannerState.DISMISSED


def test_a_second_server_of_a_known_other_owner_reopens_a_dismissed_banner() -> None:
    """It changes no word of the banner, but it is a new holder."""
    world = World("acme-1", "globex-1", "globex-2", "globex-3")
    world.share("acme-1", "globex-1")
    world.dismiss("acme-1")
    world.ledger.observed("globex-2", "k1")
    assert ("acme-1", BLUE, "reopened") in world.told()
    world.ledger.observed("globex-3", "k1")
    assert "acme-1" not in {server for server, _, _ in world.told()}


def test_a_partner_that_only_we_joined_later_is_not_dismissed_unseen(world: World) -> None:
    """The page showed one partner; our own key was then changed to one shared with another."""
    world.ledger.observed("acme-2", "k2")
    world.ledger.observed("acme-1", "k1")
    world.ledger.observed("globex-1", "k1")
    world.told()
    seen = world.banner("acme-1").revision
    world.ledger.observed("acme-1", "k2", revision=2)
    world.ledger.dismissed("acme", "acme-1_main_api-key-reuse", seen)
    assert ("acme-1", BLUE, "dismissed") not in world.told()


def test_only_its_owner_dismisses_and_reopens_a_banner(world: World) -> None:
    """Another owner's banner is no banner, and a made-up id is none either."""
    world.share("acme-1", "acme-2")
    banner = world.banner("acme-1")
    world.ledger.dismissed("globex", banner.key.banner_id, banner.revision)
    world.ledger.dismissed("acme", "no-such_banner_at-all", banner.revision)
    world.ledger.dismissed("acme", "globex-1_main_api-key-reuse", banner.revision)
    assert world.told() == []
    world.dismiss("acme-1")
    world.ledger.undone("globex", banner.key.banner_id)
    assert world.told() == []
    world.ledger.undone("acme", banner.key.banner_id)
    assert world.told() == [("acme-1", BLUE, "reopened")]


def test_banners_are_found_by_server_and_by_key(world: World) -> None:
    """A reuse banner is on the list of dismissed ones exactly while it is dismissed."""
    world.share("acme-1", "acme-2")
    banners = world.state.banners
    assert {b.key.server_id for b in banners} == {"acme-1", "acme-2"}
    assert Banners().get(world.banner("acme-1").key) is None
    world.dismiss("acme-1")
    assert banners.dismissed == {"acme-1": {world.banner("acme-1").key}}
    world.ledger.undone("acme", world.banner("acme-1").key.banner_id)
    world.told()
    assert banners.dismissed == {}


def fleet(size: int) -> World:
    """Many servers of one owner that share one key."""
    world = World(*(f"acme-{i}" for i in range(size)))
    for i in range(size):
        world.ledger.observed(f"acme-{i}", "k1", basis=Basis.OAUTH_GRANT)
    return world


def count_joining(size: int) -> int:
    """How many events it takes until all share it."""
    return len(fleet(size).told())


def count_rotating(size: int) -> int:
    """How many events it takes until each has a key of its own, in the order they joined."""
    world = fleet(size)
    world.told()
    for i in range(size):
        world.ledger.retired(f"acme-{i}", 1)
    told = world.told()
    assert sum(state == "cleared" for _, _, state in told) == size
    return len(told)


def count_refreshing(size: int) -> int:
    """How many events it takes until each has refreshed the login they were copied with."""
    world = fleet(size)
    world.told()
    for i in range(size):
        world.ledger.observed(f"acme-{i}", f"r{i}", basis=Basis.OAUTH_GRANT)
    return len(world.told())


@pytest.mark.parametrize(
    ("count", "times"), [(count_joining, 5), (count_rotating, 5), (count_refreshing, 9)]
)
def test_one_tag_on_many_servers_costs_events_in_proportion(
    count: Callable[[int], int], times: int
) -> None:
    """Ten thousand servers must not mean ten thousand times ten thousand events.

    Four times as many servers cost about four times the events. A login that all refresh one by
    one costs a little more, since the fewer still use the copy, the more banners name each of
    them: N log N. Quadratic would be sixteen times.
    """
    assert count(200) < times * count(50)
