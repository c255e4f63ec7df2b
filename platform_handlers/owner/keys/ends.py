"""What is true of the old key and of the new one when `byok key set` ends, and what to do next."""

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.text import Text

from platform_handlers.owner.console import columns, plain
from platform_handlers.owner.keys.follow import Followed, Sent
from platform_handlers.owner.keys.goals import Result
from platform_handlers.owner.keys.rules import Claim, Phase, SlotCourse, claim
from platform_handlers.owner.keys.words import claim_in_words, state_in_words

Row = tuple[Followed, SlotCourse | None]
"""One server, and what became of its slot, as far as the platform says."""


def end_of_one(followed: Followed, slot: SlotCourse | None, console: Console) -> None:
    """Say what is true now of the key before, and what to do next."""
    sent, where = followed.sent, f"{followed.sent.server_id} {followed.sent.slot_id}"
    if slot is not None and followed.result is not Result.OVERTAKEN:
        about = claim(slot)
        if about is not Claim.NONE:
            console.print(Text.assemble((f"{'old key':<10}", "bold"), claim_in_words(about, slot)))
        if about is Claim.MAY_BE_REVOKED:
            console.print(f"{'':<10}{sent.provider.links.revoke}", markup=False, soft_wrap=True)
    if followed.slot and followed.slot.stopped:
        console.print(
            f"The slot is stopped: nothing of it is used until `byok key resume {where}`."
        )
    match followed.result:
        case Result.REACHED if slot and slot.latest.phase is Phase.CURRENT:
            if not slot.latest.answered:
                console.print(
                    f"The agent's next call uses it; `byok key status {where}` then shows the "
                    "provider's answer."
                )
        case Result.OVERTAKEN:
            console.print("A newer credential was sent for this slot in the meantime.")
        case Result.UNCLEAR:
            console.print(
                f"Not in use. `byok key verify {where}` asks {sent.provider.name} again at once, "
                f"with --force it is used untested; `byok key abort {where}` gives it up."
            )
        case Result.WAITING:
            console.print(_not_yet(slot, sent, where))


def _not_yet(slot: SlotCourse | None, sent: Sent, where: str) -> str:
    latest = slot.latest if slot else None
    if latest is None or latest.phase in {Phase.SENT, Phase.LOST}:
        return (
            f"Not taken yet: {sent.server_id} may be off or locked. The sealed credential waits "
            f"for a day; `byok key status {where}` tells."
        )
    if latest.phase is Phase.PENDING:
        return f"The provider's word on it is not there yet; `byok key status {where}` tells."
    if latest.answered:
        return f"An older key may still be on its way; `byok key status {where}` tells."
    return f"The agent has made no call with it yet; `byok key status {where}` tells."


def end_of_all(rows: Sequence[Row], *, complete: bool, console: Console) -> None:
    """Say what is true of the key before, which may be one key on all of these servers.

    *complete* says that none of the servers that were asked for is missing in *rows*.
    """
    claims = {claim(slot) if slot else None for _, slot in rows}
    if complete and claims - {Claim.NONE} == {Claim.MAY_BE_REVOKED}:
        link = rows[0][0].sent.provider.links.revoke
        console.print(f"The old key may be revoked now: {link}", markup=False, soft_wrap=True)
    elif claims != {Claim.NONE}:
        console.print("Revoke the old key only when every server that has it says so.")
    for one, _ in rows:
        where = f"{one.sent.server_id} {one.sent.slot_id}"
        if one.result is Result.UNCLEAR:
            console.print(
                f"`byok key verify {where}` asks again; `byok key abort {where}` ends it."
            )
        elif one.result is Result.WAITING:
            console.print(f"`byok key status {where}` tells when it has.")


def receipts(rows: Sequence[Row]) -> RenderableType:
    """Return one table of what became of one credential on several servers."""
    table = columns("Server", "Rev.", "Now", "The key before it", gap=1)
    for followed, slot in rows:
        sent = followed.sent
        now = state_in_words(slot.latest) if slot else "sent; the platform does not answer"
        if followed.result is Result.OVERTAKEN:
            now = "overtaken: a newer credential was sent meanwhile"
        old = claim_in_words(claim(slot), slot) if slot else ""
        table.add_row(sent.server_id, str(sent.revision), Text(plain(now)), Text(plain(old)))
    return table
