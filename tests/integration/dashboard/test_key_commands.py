"""`byok key …` against the real platform: what is said at each step, and the exit codes."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from bus_schemas.api import SlotStep
from bus_schemas.events import CredentialAborted, CredentialRetired
from platform_handlers.owner.home import Home
from tests.integration.dashboard.conftest import Faces
from tests.integration.dashboard.desk import (
    BAD,
    DRAINED,
    GOOD,
    IN_USE,
    KEY,
    REFUSED,
    STORED,
    UNCLEAR,
    Desk,
    Told,
)

REVOKE = "https://platform.claude.com/settings/keys"
RETIRED: Told = (CredentialRetired, {})
ABORTED: Told = (CredentialAborted, {"reason": "aborted_by_owner"})


@pytest.fixture
async def desk(faces: Faces, tmp_path: Path) -> Desk:
    """Acme's machine, with both servers pinned."""
    desk = Desk(faces, Home(tmp_path / "home"))
    await desk.sit_down()
    return desk


async def test_a_rotation_is_followed_to_the_revocation(desk: Desk) -> None:
    """In use on the provider's word, and the old key's page only once nothing uses that key."""
    first = await desk.set_and_told(STORED, GOOD, IN_USE, DRAINED)
    assert first.exit_code == 0, first.output
    assert "old key" not in first.output  # there was none
    waiting = await desk.set_and_told(STORED, GOOD, revision=2)
    assert waiting.exit_code == 0
    assert "do not revoke it yet" in waiting.output
    assert REVOKE not in waiting.output
    assert "The agent's next call uses it" in waiting.output
    status = await desk.byok("key", "status", "acme-1", "anthropic")
    assert "do not revoke it yet" in status.output
    last = await desk.set_and_told(STORED, GOOD, IN_USE, DRAINED, revision=3)
    said = [
        last.output.index(f"{word} ") for word in ("sent", "\nstored", "\nverified", "\nin use")
    ]
    assert said == sorted(said)
    assert "you may revoke it now" in last.output
    assert REVOKE in last.output
    history = await desk.byok("key", "history", "acme-1", "anthropic")
    rows = [line.split() for line in history.output.splitlines()]
    assert [row[0] for row in rows if row[0].isdigit()] == ["1", "2", "3"]
    found = json.loads((await desk.byok("key", "history", "acme-1", "anthropic", "--json")).output)
    assert [one["revision"] for one in found["rotations"]] == [1, 2, 3]


async def test_stored_is_not_in_use(desk: Desk) -> None:
    """What the provider has not accepted ends with 75, unless storing it was all that was asked."""
    for goal, code in (("verified", 75), ("stored", 0)):
        wish = desk.set_key("--until", goal, "--wait", "1")
        revision = 1 if goal == "verified" else 2
        answer, _ = await asyncio.gather(wish, desk.tell(STORED, revision=revision))
        assert answer.exit_code == code, answer.output
    status = await desk.byok("key", "status", "acme-1")
    assert "stored, and not in use" in status.output


async def test_an_unclear_answer_says_what_to_do(desk: Desk) -> None:
    """It is neither taken for good nor for bad; the owner may ask again, force it, or give up."""
    told, _ = await asyncio.gather(desk.set_key("--wait", "1"), desk.tell(STORED, UNCLEAR))
    assert told.exit_code == 75
    assert "answer was unclear" in told.output
    for remedy in ("byok key verify acme-1 anthropic", "--force", "byok key abort acme-1"):
        assert remedy in told.output
    async with desk.answering(UNCLEAR):
        again = await desk.byok("key", "verify", "acme-1", "anthropic")
    assert (again.exit_code, "byok key abort" in again.output) == (75, True)
    forced: Told = (UNCLEAR[0], {"verdict": "unknown", "promoted": True})
    async with desk.answering(forced):
        used = await desk.byok("key", "verify", "acme-1", "anthropic", "--force")
    assert (used.exit_code, "untested" in used.output) == (0, True)
    await desk.heard(SlotStep.VERIFIED)
    status = json.loads((await desk.byok("key", "status", "acme-1", "--json")).output)
    assert status["servers"][0]["slots"][0]["revision_in_use"] == 1
    nothing = await desk.byok("key", "verify", "acme-1", "anthropic", "--force")
    assert (nothing.exit_code, "revision 1 is in use" in nothing.output) == (1, True)


async def test_what_the_provider_refuses_changes_nothing(desk: Desk) -> None:
    """Exit code 1; the key before it goes on, and nobody is told to revoke that."""
    await desk.set_and_told(STORED, GOOD, DRAINED)
    refused = await desk.set_and_told(STORED, BAD, REFUSED, revision=2)
    assert refused.exit_code == 1
    assert "nothing else has changed" in refused.output
    assert "do not revoke it: revision 1 stays in use" in refused.output
    assert REVOKE not in refused.output
    async with desk.answering():
        silent = await desk.byok("key", "verify", "acme-1", "anthropic", "--wait", "1")
    assert (silent.exit_code, "not there yet" in silent.output) == (75, True)


async def test_a_pending_one_is_given_up_by_order(desk: Desk) -> None:
    """One that waits can be given up, one in use cannot; a refusal of the server's is told."""
    await asyncio.gather(desk.set_key("--wait", "1"), desk.tell(STORED, UNCLEAR))
    async with desk.answering(refused="not_pending"):
        refused = await desk.byok("key", "abort", "acme-1", "anthropic")
    assert (refused.exit_code, "does not wait" in refused.output) == (1, True)
    async with desk.answering(ABORTED):
        done = await desk.byok("key", "abort", "acme-1", "anthropic")
    assert (done.exit_code, "has given that credential up" in done.output) == (0, True)
    await desk.heard(SlotStep.ABORTED)
    again = await desk.byok("key", "abort", "acme-1", "anthropic")
    assert (again.exit_code, "nothing to give up" in again.output) == (1, True)
    status = await desk.byok("key", "status", "acme-1", "anthropic")
    assert "given up by your order" in " ".join(status.output.split())


async def test_a_retired_one_is_out_of_use(desk: Desk) -> None:
    """Asked first; what goes with it is said; afterwards the status knows of no key in use."""
    await desk.set_and_told(STORED, GOOD)
    meant = await desk.byok("key", "retire", "acme-1", "anthropic", stdin="n\n")
    assert meant.exit_code == 1
    assert "the agent has no key here" in meant.output
    assert "nothing has changed" in meant.output
    assert not (await desk.faces.config.orders.list_of("acme-1")).orders
    async with desk.answering(RETIRED):
        done = await desk.byok("key", "retire", "acme-1", "anthropic", "--yes")
    assert (done.exit_code, "out of use for good" in done.output) == (0, True)
    await desk.heard(SlotStep.RETIRED)
    status = await desk.byok("key", "status", "acme-1", "anthropic")
    assert "the server uses no key of this slot" in status.output


async def test_a_compromised_key_is_stopped_and_the_steps_follow_in_order(desk: Desk) -> None:
    """Its use ends first; then the provider's own pages, and the other server that has it."""
    await desk.set_and_told(STORED, GOOD)
    await desk.faces.both_reuse_banners()
    async with desk.answering(RETIRED):
        done = await desk.byok("key", "compromised", "acme-1", "anthropic", "--yes")
    assert done.exit_code == 0, done.output
    order = (
        "has taken that credential",
        "Revoke the key at Anthropic",
        REVOKE,
        "Make a new key",
        "byok key set acme-1 anthropic",
        "https://platform.claude.com/usage",
        "spending limits",
        "is on acme-2",
    )
    places = [done.output.index(words) for words in order]
    assert places == sorted(places)


async def test_on_a_terminal_the_new_key_is_asked_for_at_once(desk: Desk) -> None:
    """From the order to the key in use in one go; what is typed is hidden."""
    await desk.set_and_told(STORED, GOOD)
    ours, theirs = os.openpty()
    words = ("key", "compromised", "acme-1", "anthropic", "--home", str(desk.home.folder))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "platform_handlers", *words),
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # without a terminal of its own it asks at standard input
    )
    os.close(theirs)
    assert process.stdout
    said = b""

    async def type_after(words: bytes, typed: str) -> None:
        nonlocal said
        assert process.stdout
        async with asyncio.timeout(30):
            while words not in said:
                said += await process.stdout.read(4096)
        os.write(ours, f"{typed}\n".encode())

    try:
        async with desk.answering(RETIRED):
            await type_after(b"Go on?", "y")
        await type_after(b"Send the new one now?", "y")
        await type_after(b"(hidden)", KEY)
        await desk.tell(STORED, GOOD, revision=2)
        said += await process.stdout.read()
    finally:
        os.close(ours)
    assert await process.wait() == 0, said
    assert said.index(b"Revoke the key at Anthropic") < said.index(b"used from now on")
    assert b"CANARY" not in said


async def test_a_server_that_is_off_is_not_said_to_have_stopped(desk: Desk) -> None:
    """What is not true yet is said, and that the revocation needs no server."""
    await desk.set_and_told(STORED, GOOD)
    off = await desk.byok("key", "compromised", "acme-1", "anthropic", "--yes", "--wait", "0")
    assert off.exit_code == 75
    assert "may be off, or still be using the key" in " ".join(off.output.split())
    assert "uses it no more" not in off.output
    assert REVOKE in off.output
    async with desk.answering():  # it comes back and obeys
        pass
    async with desk.answering(refused="owner_key_not_pinned"):
        no = await desk.byok("key", "compromised", "acme-1", "anthropic", "--yes")
    assert (no.exit_code, "REFUSED" in no.output) == (1, True)


async def test_without_the_platform_the_provider_is_still_to_be_told(desk: Desk) -> None:
    """An order that cannot be given stops nothing, and the steps do not wait for it."""
    await desk.set_and_told(STORED, GOOD)
    words = ("key", "compromised", "acme-1", "anthropic", "--yes")
    away = await desk.byok(*words, "--api", "https://127.0.0.1:1")
    assert (away.exit_code, "revoke the key at its provider now" in away.output) == (69, True)
    desk.home.pin("acme-1", "B" * 20)
    strange = await desk.byok(*words)
    assert (strange.exit_code, "NOTHING is stopped" in strange.output) == (77, True)
    assert REVOKE in strange.output


async def test_one_paste_goes_to_several_servers_each_sealed_for_itself(desk: Desk) -> None:
    """One table; the old key may be revoked only when all of them say so."""
    words = ("anthropic", "--servers", "acme-1,acme-2,acme-1", "--provider", "anthropic")
    for revision, told in ((1, (STORED, GOOD, DRAINED)), (2, (STORED, GOOD, DRAINED))):
        answer, *_ = await asyncio.gather(
            desk.byok("key", "set", *words, "--wait", "5", stdin=KEY + "\n"),
            desk.tell(*told, revision=revision),
            desk.tell(*told, revision=revision, server_id="acme-2"),
        )
        assert answer.exit_code == 0, answer.output
        assert "CANARY" not in answer.output
    assert "The old key may be revoked now" in answer.output
    late, _ = await asyncio.gather(
        desk.byok("key", "set", *words, "--wait", "2", stdin=KEY + "\n"),
        desk.tell(STORED, GOOD, DRAINED, revision=3),
    )
    assert late.exit_code == 75
    assert "only when every server" in late.output
    assert REVOKE not in late.output
    assert "byok key status acme-2 anthropic" in late.output


async def test_one_server_that_fails_does_not_stop_the_others(desk: Desk) -> None:
    """The worst code counts, and what failed is named; nothing was asked if none is right."""
    desk.home.pin("acme-2", "B" * 20)
    words = ("anthropic", "--servers", "acme-2,acme-1,globex-1", "--provider", "anthropic")
    answer, _ = await asyncio.gather(
        desk.byok("key", "set", *words, "--wait", "5", stdin=KEY + "\n"), desk.tell(STORED, GOOD)
    )
    assert answer.exit_code == 77
    assert "acme-2: not sent. the platform offers a key" in answer.output
    assert "globex-1: not sent." in answer.output
    assert "used from now on" in answer.output
    assert not await desk.faces.config.view.slots_of("acme-2")
    none = await desk.byok(
        "key", "set", "anthropic", "--servers", "acme-2,globex-1", "--provider", "anthropic"
    )  # and no input: it must not be asked for
    assert (none.exit_code, "not sent" in none.output) == (77, True)


async def test_servers_with_other_providers_in_the_slot_need_a_word(desk: Desk) -> None:
    """One key cannot be two providers' keys."""
    await desk.set_key("--wait", "0")
    words = ("acme-2", "anthropic", "--provider", "openai", "--wait", "0")
    await desk.byok("key", "set", *words, stdin="sk-" + "x" * 40 + "\n")
    both = await desk.byok("key", "set", "anthropic", "--servers", "acme-1,acme-2")
    assert (both.exit_code, "say which with --provider" in both.output) == (65, True)


async def test_a_rotated_key_that_is_elsewhere_is_not_to_be_revoked_yet(desk: Desk) -> None:
    """The banners know of the other server; to revoke there and then would stop its agent."""
    await desk.set_and_told(STORED, GOOD)
    await desk.faces.both_reuse_banners()
    answer = await desk.set_and_told(STORED, GOOD, DRAINED, revision=2)
    assert answer.exit_code == 0
    assert "is on acme-2, too: rotate it there before you revoke" in answer.output


async def test_the_overview_has_a_line_for_each_slot(desk: Desk) -> None:
    """Of all servers, also as JSON."""
    await desk.set_and_told(STORED, GOOD)
    table = await desk.byok("key", "status")
    assert "acme-2" in table.output
    assert "used from now on" in table.output
    found = json.loads((await desk.byok("key", "status", "--json")).output)
    assert [server["server_id"] for server in found["servers"]] == ["acme-1", "acme-2"]


async def test_what_is_not_there_is_named(desk: Desk) -> None:
    """An unknown server or slot is 65, something that is no id is 2; no order is given."""
    wrong = (
        ("acme-1", "nothing", 65),
        ("globex-1", "anthropic", 65),
        ("../banners", "anthropic", 2),
        ("acme-1", "a\x1b[31m", 2),
        ("acme-1", "x" * 64, 2),
        ("acme-1", "", 2),
    )
    for command in ("status", "history", "verify", "abort", "retire", "compromised"):
        yes = ("--yes",) if command in {"retire", "compromised"} else ()
        for server_id, slot_id, code in wrong:
            ended = await desk.byok("key", command, server_id, slot_id, *yes)
            assert ended.exit_code == code, ended.output
            assert "\x1b" not in ended.output
    assert not (await desk.faces.config.orders.list_of("acme-1")).orders


async def test_a_revision_that_never_was_is_not_retired(desk: Desk) -> None:
    """Negative, huge, above the newest, no number: the slot stays as it is."""
    await desk.set_and_told(STORED, GOOD)
    for command in ("retire", "compromised"):
        for revision, code in (("-1", 2), ("0", 2), ("x", 2), ("9" * 30, 2), ("2", 65)):
            words = ("acme-1", "anthropic", "--revision", revision, "--yes")
            ended = await desk.byok("key", command, *words)
            assert ended.exit_code == code, ended.output
    assert not (await desk.faces.config.orders.list_of("acme-1")).orders


async def test_a_wrong_command_line_asks_for_nothing_and_repeats_no_key(desk: Desk) -> None:
    """Exit code 2 before anything is read or sent."""
    place = ("acme-1", "anthropic", "--provider", "anthropic")
    for words in (
        (),
        ("acme-1",),
        (*place, "--servers", "acme-2"),
        ("anthropic", "--servers", ","),
        ("anthropic", "--servers", "acme-1,Acme"),
        ("acme-1", KEY),
        ("acme-1", "anthropic", KEY),
        (*place, "--until", "forever"),
        (*place, "--wait", "-1"),
        (*place, "--wait", "nan"),
        ("anthropic", "--servers", "acme-1,acme-2", "--server-fingerprint", "A" * 20),
        (*place, "--server-fingerprint", f"acme-2={'A' * 20}"),
    ):
        ended = await desk.byok("key", "set", *words, stdin=KEY + "\n")
        assert ended.exit_code == 2, (words, ended.output)
        assert "CANARY" not in ended.output
    assert not await desk.faces.config.view.slots_of("acme-1")


async def test_each_server_may_bring_its_fingerprint(desk: Desk) -> None:
    """Compared on two consoles, typed on one line; a wrong one stops only that server."""
    for server in ("acme-1", "acme-2"):
        desk.home.pin(server, None)
    right = desk.faces.servers["acme-1"].fingerprint
    typed = (
        "--server-fingerprint",
        f"acme-1={right}",
        "--server-fingerprint",
        f"acme-2={'B' * 20}",
    )
    words = ("anthropic", "--servers", "acme-1,acme-2", "--provider", "anthropic", "--wait", "0")
    answer = await desk.byok("key", "set", *words, *typed, stdin=KEY + "\n")
    assert answer.exit_code == 77
    assert "acme-2: not sent" in answer.output
    assert desk.home.pinned("acme-1") == right
    assert desk.home.pinned("acme-2") is None
    assert len(await desk.faces.config.view.slots_of("acme-1")) == 1
