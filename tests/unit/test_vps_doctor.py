"""How findings are graded, and which error ends with which exit code."""

import errno
import json

import pytest

from bus_schemas.errors import ByokError, ContractError, Refused
from bus_schemas.events.health import Validity
from bus_schemas.fields import CredentialKind
from bus_schemas.finding import Finding, Grade, clock_finding, expiry_finding
from bus_schemas.transport.database import StorageFull
from bus_schemas.transport.target import BusDenied, BusUnavailable
from vps_runtime.doctor import door_finding, slot_findings
from vps_runtime.exit_codes import exit_code, sentence
from vps_runtime.facts.told import StoredNote
from vps_runtime.rotation.rules import SlotRotation, retired, rotation_key
from vps_runtime.state import AlreadyRunning, NotEnrolled
from vps_runtime.status import HeldUp, Status, slot_statuses
from vps_runtime.vault.store import DiskFull

DAY = 24 * 3600
ROTATION = "01890000-0000-7000-8000-000000000001"
NOTE = StoredNote(
    slot_id="anthropic",
    revision=3,
    provider="anthropic",
    kind=CredentialKind.API_KEY,
    rotation_id=ROTATION,
    stored_at=0,
)
ROTATING = SlotRotation(current=3, pending=4, newest=4, validity=Validity.VALID)


def told(rotation: SlotRotation, *revisions: int) -> dict[str, str]:
    """Return the memory of a server that holds *revisions* of one slot."""
    held = [NOTE.model_copy(update={"revision": revision}) for revision in revisions]
    memory = {f"held/anthropic/{note.revision}": note.model_dump_json() for note in held}
    return memory | {rotation_key("anthropic"): rotation.model_dump_json()}


[SLOT] = slot_statuses(told(ROTATING.model_copy(update={"pending": None}), 3))


@pytest.mark.parametrize(
    ("finding", "grade"),
    [
        (door_finding(None, 0), Grade.OK),
        (door_finding(80 * DAY, 0), Grade.OK),
        (door_finding(6 * DAY, 0), Grade.WARN),
        (clock_finding(3, "x"), Grade.OK),
        (clock_finding(-40, "x"), Grade.WARN),
        (clock_finding(400, "x"), Grade.BAD),
        (expiry_finding("ca", "x", 100, "y"), Grade.OK),
        (expiry_finding("ca", "x", 10, "y"), Grade.WARN),
        (expiry_finding("ca", "x", 0, "y"), Grade.BAD),
    ],
)
def test_limits_are_graded(finding: Finding, grade: Grade) -> None:
    """What needs a person soon is a warning, what fails now is bad."""
    assert finding.grade is grade
    assert str(finding).startswith(grade)


def test_slots_are_graded() -> None:
    """Held is fine, refused is bad, none is a warning, and so are facts that pile up."""
    full = Status("acme-1", "acme", 2, 101, (SLOT,), {"openai": "expired"})
    assert [(f.grade, f.check) for f in slot_findings(full)] == [
        (Grade.OK, "slot"),
        (Grade.BAD, "slot"),
        (Grade.WARN, "outbox"),
    ]
    held = Status("acme-1", "acme", 2, 101, (SLOT,), {}, held=HeldUp(90 * 60, "enough"))
    assert str(slot_findings(held)[-1]).endswith("enough; 101 wait until 01:30 UTC, none is lost")
    empty = Status("acme-1", "acme", 0, 0, (), {})
    assert [f.grade for f in slot_findings(empty)] == [Grade.WARN]


@pytest.mark.parametrize(
    ("rotation", "grade", "words"),
    [
        (ROTATING, Grade.OK, "revision 3 in use (valid), revision 4 waits for the provider, "),
        (retired(ROTATING, 3).rotation, Grade.WARN, "no revision in use, revision 4 waits"),
        (retired(ROTATING, 4).rotation, Grade.WARN, "no revision in use, "),
        (ROTATING.model_copy(update={"validity": Validity.INVALID}), Grade.BAD, "(invalid)"),
        (ROTATING.model_copy(update={"reason": "no_check"}), Grade.OK, "(valid, no_check)"),
    ],
)
def test_a_slot_says_which_revision_is_used_and_which_are_not(
    rotation: SlotRotation, grade: Grade, words: str
) -> None:
    """Stored is not in use: nobody has to guess which key a call is made with."""
    slots = slot_statuses(told(rotation, 2, 3, 4))
    [finding] = slot_findings(Status("acme-1", "acme", 2, 0, tuple(slots), {}))
    assert finding.grade is grade
    assert words in finding.detail
    assert "on its way out" in finding.detail
    assert json.dumps(Status("acme-1", "acme", 2, 0, tuple(slots), {}).as_json())


def test_a_refused_sealing_is_bad_only_where_nothing_is_held() -> None:
    """Whoever still has the API token can send one; a server that has its key is well."""
    refused = {"anthropic": "owner_key_not_pinned", "openai": "expired"}
    _, held, missing = slot_findings(Status("acme-1", "acme", 2, 0, (SLOT,), refused))
    assert (held.grade, missing.grade) == (Grade.WARN, Grade.BAD)
    assert "(owner_key_not_pinned), revision 3 stays" in held.detail
    assert held.detail.endswith("send it again with `byok key set acme-1 anthropic`")
    assert missing.detail.endswith("send it again with `byok key set acme-1 openai`")


def test_who_is_turned_away_is_not_told_to_wait_for_an_order() -> None:
    """No order reaches it: what would lift a lock is said to the others only."""
    status = Status("acme-1", "acme", 2, 0, (), {}, frozenset({"openai"}), locked=True)
    for turned_away in (False, True):
        said = [str(finding) for finding in slot_findings(status, turned_away=turned_away)]
        assert sum("signed order" in line for line in said) == 2
        assert any("`byok server unlock acme-1`" in line for line in said) is not turned_away
        assert any("`byok key resume acme-1 openai`" in line for line in said) is not turned_away


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotEnrolled("x"), 78),
        (AlreadyRunning("x"), 75),
        (DiskFull("x"), 75),
        (StorageFull("x"), 75),
        (BusDenied("x"), 77),
        (Refused("x"), 77),
        (BusUnavailable("x"), 69),
        (ContractError("x"), 65),
        (ByokError("x"), 75),
        (OSError(errno.EACCES, "denied"), 75),
        (KeyError("x"), 70),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: Exception, code: int) -> None:
    """A script can tell who must act."""
    assert exit_code(error) == code


def test_a_sentence_is_one_line_and_shows_no_payload() -> None:
    """Our own errors speak for themselves; a bug's words stay out."""
    assert sentence(Refused("a_reason", "with\n  detail")) == "a_reason: with detail"
    assert sentence(OSError(errno.EACCES, "denied", "/x")) == "/x: denied"
    assert sentence(OSError("odd")) == "OSError"
    assert sentence(KeyError("sk-canary")).startswith("KeyError: this is a bug")
