"""Which of the revisions in the vault serve a slot, and which leave. Pure.

Left to others: the vault, and telling what has left it.
"""

from collections.abc import Collection, Iterable, Mapping

from vps_runtime.facts.told import is_noted
from vps_runtime.rotation.rules import SlotRotation, rotation_key, rotations


def leftovers(rotation: SlotRotation, held: Iterable[int], *, settled: bool) -> list[int]:
    """Return which of the *held* revisions leave the vault now, lowest first.

    The one before the current stays, unused, until nothing waits with it and the tags of the
    current one are *settled*, so that a match does not seem to end and begin again.
    """
    known = sorted(one for one in held if one <= max(rotation.newest, rotation.floor))
    stays = {rotation.current, rotation.pending}
    older = [one for one in known if rotation.floor < one < (rotation.current or 0)]
    if older and not (settled and rotation.drained):
        stays.add(older[-1])
    return [one for one in known if one not in stays]


def serves(rotation: SlotRotation, revision: int) -> bool:
    """Whether a held *revision* is in use, or may come into use."""
    return revision in {rotation.current, rotation.pending} or revision > max(
        rotation.newest, rotation.floor
    )


def is_retired(revision: int, rotation: SlotRotation) -> bool:
    """Whether a revision that left the vault was retired; else it was given up before its use."""
    return revision <= max(rotation.floor, (rotation.current or 0) - 1)


def lost(held: Collection[tuple[str, int]], told: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return the revisions, by slot, that are current or pending and no longer *held*."""
    return [
        (slot, revision)
        for slot, rotation in rotations(told).items()
        for revision in (rotation.current, rotation.pending)
        if revision is not None and (slot, revision) not in held
    ]


def unknown(held: Iterable[tuple[str, int]], told: Mapping[str, str]) -> dict[str, int]:
    """Return the newest *held* revision of each slot that no rotation is remembered of.

    It was told as stored by a build that knew of none, so nobody takes it on. One that is not told
    as stored yet has only just come: whoever tells it takes it on in the same step.
    """
    return {
        slot: revision
        for slot, revision in sorted(held)
        if rotation_key(slot) not in told and is_noted(slot, revision, told)
    }
