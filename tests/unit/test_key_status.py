"""What `byok key status` and `byok key history` show of a server's slots."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from bus_schemas.api import (
    RotationView,
    ServerHealth,
    ServerView,
    SlotHistory,
    SlotStep,
    SlotView,
    StepView,
)
from bus_schemas.events.health import LinkHealth, Presence, Receipt, Validity
from bus_schemas.fields import CredentialKind
from platform_handlers.owner.halted import Halted
from platform_handlers.owner.keys.status import (
    ServerStatus,
    as_json,
    history_table,
    overview,
    server_status,
)

AT = datetime(2026, 11, 23, 9, tzinfo=UTC)
REVOKE = "https://platform.claude.com/settings/keys"


def steps(revision: int, *kinds: SlotStep) -> tuple[StepView, ...]:
    """Return the steps of a rotation, a second apart."""
    return tuple(
        StepView(
            step=kind,
            revision=revision,
            at=AT + timedelta(seconds=n),
            reason="valid" if kind is SlotStep.VERIFIED else None,
            promoted=True if kind is SlotStep.VERIFIED else None,
        )
        for n, kind in enumerate(kinds)
    )


IN_USE = (SlotStep.SENT, SlotStep.STORED, SlotStep.VERIFIED, SlotStep.IN_USE)
FIRST = steps(1, *IN_USE, SlotStep.DRAINED)


def slot(*of: StepView, slot_id: str = "chat", **more: Any) -> SlotView:  # noqa: ANN401
    """Return a slot with these steps."""
    fields: dict[str, Any] = {
        "slot_id": slot_id,
        "provider": "anthropic",
        "kind": CredentialKind.API_KEY,
        "revision": of[-1].revision,
        "steps": of,
    }
    return SlotView(**(fields | more))


def status(*slots: SlotView, halts: Halted | None = None, **more: Any) -> ServerStatus:  # noqa: ANN401
    """Return acme-1 with these slots; every history begins with a first rotation that is done."""
    fields: dict[str, Any] = {
        "server_id": "acme-1",
        "active": True,
        "identity_key": None,
        "fingerprint": None,
        "sealing_key": None,
        "slots": slots,
    }
    first = RotationView(revision=1, steps=FIRST)
    histories = {
        one.slot_id: SlotHistory(server_id="acme-1", slot_id=one.slot_id, rotations=(first,))
        for one in slots
    }
    server = ServerView(**(fields | more))
    return ServerStatus(
        server, None, halts or Halted(), histories, AT + timedelta(days=12, hours=1)
    )


def shown(what: RenderableType, width: int = 80) -> str:
    """Return what a terminal without colours shows."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def flat(what: RenderableType) -> str:
    """Return the same as one line."""
    return " ".join(shown(what).split())


def test_the_old_key_may_be_revoked_once_it_is_drained_and_no_sooner() -> None:
    """With the provider's own page for it; before that the page is not even named."""
    in_use = flat(server_status(status(slot(*steps(2, *IN_USE)))))
    assert "do not revoke it yet" in in_use
    assert REVOKE not in in_use
    drained = flat(server_status(status(slot(*steps(2, *IN_USE, SlotStep.DRAINED)))))
    assert "you may revoke it now" in drained
    assert REVOKE in drained


def test_a_pending_one_leaves_the_one_before_in_use() -> None:
    """Both are named, and the one in use gives the age."""
    said = flat(server_status(status(slot(*steps(2, SlotStep.SENT, SlotStep.STORED)))))
    assert "in use revision 1: the provider accepts it" in said
    assert "pending revision 2" in said
    assert "do not revoke it: revision 1 stays in use" in said
    assert "12 days; rotation is due on 2027-02-21" in said


def test_the_receipt_names_revision_tag_time_and_the_providers_status() -> None:
    """It is what "in use" rests on; without a call there is none, and that is said."""
    receipt = Receipt(revision=1, short_tag="0a1b2c3d", provider_status=200, at=AT)
    used = flat(server_status(status(slot(*FIRST, receipt=receipt, in_use=1, validity="limited"))))
    assert "revision 1, tag 0a1b2c3d: the provider answered 200 at 2026-11-23 09:00:00" in used
    assert "revision 1: the provider accepts it, within a limit" in used
    assert "none yet" in flat(server_status(status(slot(*FIRST[:3]))))


def test_the_status_says_what_is_stopped_and_locked() -> None:
    """And how each is lifted; the answer to an order is newer than a report."""
    two = (slot(*FIRST, stopped=True), slot(*FIRST, slot_id="search", stopped=True))
    halts = Halted(locked=True, stopped={"search": False})
    said = flat(server_status(status(*two, halts=halts)))
    assert "locked: it opens and uses nothing, until `byok server unlock acme-1`" in said
    assert said.count("stopped, until") == 1
    assert "`byok key resume acme-1 chat`" in said
    assert "locked" not in flat(
        server_status(status(*two, locked=True, halts=Halted(locked=False)))
    )
    assert "locked" in flat(server_status(status(*two, locked=True)))


def test_one_slot_may_be_asked_for_alone() -> None:
    """As a table and as JSON."""
    both = status(slot(*FIRST), slot(*FIRST, slot_id="search"))
    assert "search" not in shown(server_status(both, "chat"))
    found = json.loads(as_json([both], "chat"))
    [only] = found["servers"][0]["slots"]
    assert (only["slot_id"], only["state"], only["previous_key"]) == ("chat", "current", "none")
    assert (only["revision_in_use"], only["age_days"]) == (1, 12)
    assert only["rotation_due"] == "2027-02-21"


def test_what_the_platform_says_cannot_drive_the_terminal() -> None:
    """A server's reason is a code; a platform that puts anything else there is shown plainly."""
    evil = StepView.model_construct(
        step=SlotStep.REJECTED, revision=2, at=AT, reason="\x1b]0;owned\x07[red]x", promoted=None
    )
    for what in (
        server_status(status(_with(evil))),
        overview([status(_with(evil))]),
        history_table(_history(evil)),
    ):
        said = shown(what, 200)
        assert "\x1b" not in said
        assert "\x07" not in said


def _with(evil: StepView) -> SlotView:
    return slot(*FIRST).model_copy(update={"revision": 2, "steps": (evil,)})


def _history(evil: StepView) -> SlotHistory:
    rotation = RotationView.model_construct(revision=2, steps=(evil,))
    return SlotHistory.model_construct(server_id="acme-1", slot_id="chat", rotations=(rotation,))


@pytest.mark.parametrize("width", [80, 60])
def test_nothing_is_cut_off_in_a_narrow_terminal(width: int) -> None:
    """Long names and long words fold; no line is wider than the terminal."""
    long = slot(*steps(2, *IN_USE, SlotStep.DRAINED), slot_id="s" * 63)
    one = status(long, server_id="a" * 63)
    history = one.histories[long.slot_id]
    for what in (server_status(one), overview([one]), history_table(history)):
        lines = shown(what, width).splitlines()
        assert max(map(len, lines)) <= width
        assert "…" not in "".join(lines)


def test_every_phase_has_its_line_in_the_overview() -> None:
    """Which revision is in use and which is the newest are two things."""
    rejected = StepView(step=SlotStep.REJECTED, revision=2, at=AT, reason="refused_by_provider")
    said = flat(overview([status(slot(rejected)), status(server_id="acme-2")]))
    assert "acme-1 chat 1 2 revision 2: refused; the credential before it is untouched" in said
    assert "acme-2 no credentials yet" in said
    nothing = SlotHistory(server_id="acme-1", slot_id="chat", rotations=())
    assert "Nothing was sent" in flat(history_table(nothing))


def test_a_report_says_three_things_of_the_server_each_for_itself() -> None:
    """A provider that is down is no server that is down, and an idle agent is no dead one."""
    fine = ServerHealth(link=LinkHealth.STEADY, agent=Presence.UNKNOWN, provider=Presence.DOWN)
    said = flat(server_status(status(slot(*steps(2, *IN_USE)), health=fine)))
    assert "its link is steady; the agent was not heard of lately" in said
    assert "a provider does not answer" in said
    assert "health:" not in flat(server_status(status(slot(*steps(2, *IN_USE)))))


def test_a_refused_key_says_why_where_more_is_known() -> None:
    """That somebody else used a sign-in is told beside the refusal."""
    shared = slot(*steps(2, *IN_USE)).model_copy(
        update={"in_use": 2, "validity": Validity.INVALID, "reason": "invalid_grant"}
    )
    said = flat(server_status(status(shared)))
    assert "the provider refuses it. The provider does not accept the sign-in any more" in said
