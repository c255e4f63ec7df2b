"""The rules a server's record moves by."""

import pytest

from bus_schemas.errors import Refused
from platform_handlers.provisioning.records import (
    JoinUse,
    ServerRecord,
    ServerState,
    Session,
    check_id,
    check_joinable,
    check_replaceable,
    next_state,
    secret_hash,
)

NKEY, KEY = "U" + "A" * 55, b"\x01" * 32
END = 1_800_003_600


def record(state: ServerState = ServerState.PENDING) -> ServerRecord:
    """Return acme-1 in *state*."""
    enrolled = state is not ServerState.PENDING
    return ServerRecord(
        "acme-1",
        "acme",
        state,
        JoinUse(END, used_from="192.0.2.1" if enrolled else None),
        nkey=NKEY if enrolled else None,
        identity_key=KEY if enrolled else None,
    )


@pytest.mark.parametrize("bad", ["", "a" * 64, "a.b", "a*", "a>b", "A", "a b", "ä", "a\n"])
def test_an_id_that_nats_would_read_otherwise_is_not_issued(bad: str) -> None:
    """A dot or a wildcard in a name would change what a permission means."""
    with pytest.raises(Refused, match="bad_id: owner ids are"):
        check_id("owner", bad)


def test_good_ids_are_issued() -> None:
    """Letters, digits and dashes, 63 at most."""
    assert check_id("server", "acme-1") == "acme-1"
    assert check_id("server", "a" * 63) == "a" * 63


def test_a_pending_server_joins_within_the_hour() -> None:
    """The last second counts, the one after does not."""
    assert check_joinable(record(), NKEY, KEY, at=END)
    with pytest.raises(Refused, match="join_token_expired"):
        check_joinable(record(), NKEY, KEY, at=END + 1)


def test_the_same_machine_may_ask_again() -> None:
    """Within the hour, and it is not enrolled a second time."""
    active = record(ServerState.ACTIVE)
    assert not check_joinable(active, NKEY, KEY, at=END)
    with pytest.raises(Refused, match="join_token_expired"):
        check_joinable(active, NKEY, KEY, at=END + 1)


@pytest.mark.parametrize(("nkey", "key"), [("U" + "B" * 55, KEY), (NKEY, b"\x02" * 32)])
def test_another_machine_may_not(nkey: str, key: bytes) -> None:
    """Either key differing means somebody else, and the refusal says who was first."""
    with pytest.raises(Refused, match=r"join_token_used: .*192\.0\.2\.1"):
        check_joinable(record(ServerState.ACTIVE), nkey, key, at=END)


@pytest.mark.parametrize("state", [ServerState.REVOKED, ServerState.DEPROVISIONED])
def test_who_was_turned_away_does_not_come_back(state: ServerState) -> None:
    """Not even with the right secret and the same keys."""
    with pytest.raises(Refused, match=f"server_{state}"):
        check_joinable(record(state), NKEY, KEY, at=END)


@pytest.mark.parametrize(
    ("state", "had_keys"),
    [(ServerState.ACTIVE, False), (ServerState.REVOKED, True), (ServerState.PENDING, True)],
)
def test_a_machine_is_replaced_also_after_a_revocation(
    state: ServerState,
    had_keys: bool,
) -> None:
    """At work, turned away, or waiting for the replacement of a replacement."""
    check_replaceable(record(state), had_keys=had_keys)


def test_who_never_enrolled_or_is_gone_is_not_replaced() -> None:
    """The first has another command; of the second nothing is left that could go on."""
    with pytest.raises(Refused, match=r"never_enrolled: .*byok server add acme acme-1"):
        check_replaceable(record(ServerState.PENDING), had_keys=False)
    with pytest.raises(Refused, match="server_deprovisioned"):
        check_replaceable(record(ServerState.DEPROVISIONED), had_keys=True)


def test_a_life_ends_one_way() -> None:
    """Revoked may become deprovisioned; deprovisioned is the end, also when said twice."""
    revoked, gone = ServerState.REVOKED, ServerState.DEPROVISIONED
    assert next_state(record(ServerState.ACTIVE), revoked) is revoked
    assert next_state(record(revoked), gone) is gone
    assert next_state(record(gone), gone) is gone
    with pytest.raises(Refused, match="already_deprovisioned"):
        next_state(record(gone), revoked)


def test_only_active_servers_are_active() -> None:
    """The word decides over tokens, unlocks and configuration."""
    assert record(ServerState.ACTIVE).active
    assert not any(record(s).active for s in ServerState if s is not ServerState.ACTIVE)


def test_a_session_does_not_show_its_secret() -> None:
    """A log line with a session in it must not let its reader in."""
    assert "s3cret" not in repr(Session("acme", "s3cret", END))
    assert secret_hash("s3cret") != secret_hash("s3cret ")
