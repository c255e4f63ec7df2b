"""What a health report says of each slot: from the memory, the vault's index, the calls. Pure."""

from collections.abc import Iterable, Mapping
from itertools import groupby

from bus_schemas.events.fingerprint import MAX_SLOTS
from bus_schemas.events.health import Receipt, SlotHealth, Validity
from bus_schemas.fields import at_utc
from vps_runtime.facts.told import StoredNote, short_tag
from vps_runtime.keys.calls import Answer
from vps_runtime.orders.rules import stopped
from vps_runtime.rotation.rules import SlotRotation, rotation_of
from vps_runtime.vault.credentials import Held

Entry = Held | StoredNote
"""What is known of one revision; while the server is locked, only what was told of it."""


def slot_health(
    held: Iterable[Entry],
    told: Mapping[str, str],
    last: Mapping[str, Answer],
    now: float,
) -> tuple[SlotHealth, ...]:
    """Return the report's part about slots at *now*, in Unix seconds; *last* is `Calls.last`."""
    forbidden = stopped(told)
    found = []
    for slot_id, entries in groupby(sorted(held, key=_place), key=lambda entry: entry.slot_id):
        rotation = rotation_of(slot_id, told)
        there = {entry.revision: entry for entry in entries if entry.revision > rotation.floor}
        if not there:  # what was ordered out of use is as good as gone
            continue
        found.append(
            _slot(there, rotation, now).model_copy(
                update={
                    "receipt": _receipt(last.get(slot_id), there, told),
                    "stopped": slot_id in forbidden or None,
                }
            )
        )
    return tuple(found[:MAX_SLOTS])


def _place(entry: Entry) -> tuple[str, int]:
    return entry.slot_id, entry.revision


def _slot(there: Mapping[int, Entry], rotation: SlotRotation, now: float) -> SlotHealth:
    current = rotation.current if rotation.current in there else None
    pending = rotation.pending if rotation.pending in there else None
    entry = there[current or max(there)]
    return SlotHealth(
        slot_id=entry.slot_id,
        provider=entry.provider,
        revision=entry.revision,
        # Of a slot that uses none, the newest waits: it is its own pending one.
        pending=pending if current else entry.revision,
        validity=rotation.validity if current else Validity.UNKNOWN,
        reason=rotation.reason if current else None,
        age_seconds=max(0, int(now) - entry.stored_at),
    )


def _receipt(
    answer: Answer | None, there: Mapping[int, Entry], told: Mapping[str, str]
) -> Receipt | None:
    if answer is None:
        return None
    used = there.get(answer.revision)
    return Receipt(
        revision=answer.revision,
        short_tag=short_tag(used, told) if isinstance(used, Held) else None,
        provider_status=answer.status,
        at=at_utc(answer.at),
    )
