"""Signed orders from the owner's machine: given, watched, and told plainly."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from rich.console import Console, RenderableType
from rich.text import Text

from bus_schemas.api import OrderList, OrderState, OrderView, ServerView
from bus_schemas.errors import ContractError, Refused
from bus_schemas.events.config import Order
from bus_schemas.exit_codes import ExitCode
from bus_schemas.fields import at_utc
from bus_schemas.keys import server_fingerprint
from bus_schemas.orders import Addressee, Instruction, OrderKind, Stamp, life, sign_order
from bus_schemas.transport.fresh import new_id
from platform_handlers.owner.console import columns, plain
from platform_handlers.owner.home import Home
from platform_handlers.owner.keys.words import order_reason_in_words
from platform_handlers.owner.platform_api import (
    LOOK_EVERY_SECONDS,
    PlatformApi,
    PlatformRefused,
    PlatformUnreachable,
    insist,
)

_ATTEMPTS = 3
_STALE = "urn:byok:problem:stale-n"


class _Outcome(StrEnum):
    APPLIED = "applied"
    REFUSED = "refused"
    WAITING = "waiting"


_CODES: Final = {
    _Outcome.REFUSED: ExitCode.NEGATIVE,
    _Outcome.WAITING: ExitCode.TRY_AGAIN,
    _Outcome.APPLIED: ExitCode.OK,
}
"""The first of them that any server's outcome calls for, in this order."""

_DONE: Final = {
    OrderKind.STOP_SLOT: "stopped: this credential is not used any more; it stays in the vault",
    OrderKind.RESUME_SLOT: "resumed: this credential may be used again",
    OrderKind.LOCK: "locked: its keys have left its memory, and a restart does not unlock it",
    OrderKind.UNLOCK: "the lock is lifted; it unlocks now",
    OrderKind.TRUST: "obeys that owner key, too",
    OrderKind.DISTRUST: "obeys that owner key no more",
    OrderKind.VERIFY: "asks the provider now",
    OrderKind.PROMOTE: "uses that credential from now on, untested",
    OrderKind.ABORT: "has given that credential up; the one before it goes on",
    OrderKind.RETIRE: "has taken that credential, and all before it, out of use for good",
}


@dataclass(frozen=True)
class Ordering:
    """One instruction to one or more servers."""

    servers: Sequence[str]
    what: Instruction
    wait: float
    """Seconds to wait for the answers, over all."""


@dataclass(frozen=True)
class _Given:
    """An order that the platform has taken."""

    server_id: str
    order: Order


def give_orders(
    platform: PlatformApi, home: Home, ordering: Ordering, console: Console
) -> ExitCode:
    """Sign, hand in, and say what each server answers; return the exit code.

    Every server is checked before the first order is given: one wrong name gives none.
    """
    home.owner_key()  # before anything is asked
    found = platform.servers()
    known = {server.server_id: server for server in found.servers}
    addressees = [_addressee(found.owner_id, known, name, home) for name in ordering.servers]
    deadline = time.monotonic() + ordering.wait
    outcomes, given = [], []
    for to in addressees:
        try:
            given.append(_give(platform, home, to, ordering.what))
        except (PlatformRefused, PlatformUnreachable) as error:
            if len(addressees) == 1:
                raise
            refused = isinstance(error, PlatformRefused)
            said = "refused" if refused else "not ordered"
            console.print(Text(f"{to.server_id}: {said}. {plain(str(error))}"))
            outcomes.append(_Outcome.REFUSED if refused else _Outcome.WAITING)
    kind = ordering.what.kind
    outcomes += [_watch(platform, each, kind, deadline, console) for each in given]
    return next(code for outcome, code in _CODES.items() if outcome in outcomes)


def chosen_servers(platform: PlatformApi, named: Sequence[str], *, every: bool) -> Sequence[str]:
    """Return the servers that were named, or all active ones. Raises ContractError for neither."""
    if every == bool(named):
        raise ContractError("no_servers", "say which servers: --servers a,b or --all, one of them")
    if named:
        return tuple(dict.fromkeys(named))
    found = [s.server_id for s in platform.servers().servers if s.active and s.identity_key]
    if not found:
        raise ContractError("no_servers", "you have no server that could take an order")
    return found


def order_table(found: OrderList) -> RenderableType:
    """Return the orders to one server as a table, by their numbers."""
    if not found.orders:
        return f"No order was given to {found.server_id}."
    table = columns("No.", "Order", "Slot", "State", "Answered")
    for view in found.orders:
        state = view.state.value
        if view.reason is not None:
            state = f"{state}. {order_reason_in_words(view.reason)}"
        at = f"{view.at:%Y-%m-%d %H:%M} UTC" if view.at else ""
        table.add_row(str(view.n), view.kind, view.slot_id or "", Text(plain(state)), at)
    return table


def _addressee(
    owner_id: str, known: dict[str, ServerView], server_id: str, home: Home
) -> Addressee:
    """Return the server as the platform knows it; one that was compared must still be that one.

    One that never was needs no comparing here: an order shows nothing and binds only the machine
    whose key it names.
    """
    server = known.get(server_id)
    if server is None:
        raise ContractError("unknown_server", f"you have no server called {server_id}")
    if server.identity_key is None:
        raise Refused("not_joined", f"{server_id} has not joined yet; run `byok-vps join` there")
    pinned = home.pinned(server_id)
    if pinned not in {None, server_fingerprint(server_id, server.identity_key)}:
        detail = (
            f"the platform offers a key for {server_id} that is not the one you pinned. If it was "
            f"set up anew, run `byok owner forget {server_id}` here; nothing was ordered"
        )
        raise Refused("fingerprint_differs", detail)
    return Addressee(owner_id, server_id, server.identity_key)


def _give(platform: PlatformApi, home: Home, to: Addressee, what: Instruction) -> _Given:
    """Sign above the last number; who is overtaken by another device counts again.

    The platform tells the last number, and may lie: it never makes this device count back.
    """
    key = home.owner_key()
    fingerprint = server_fingerprint(to.server_id, to.identity_key)
    for attempt in range(1, _ATTEMPTS + 1):
        n = home.number_order(fingerprint, platform.orders(to.server_id).last_n)
        order = sign_order(key, to, what, Stamp(new_id(), n, at_utc(time.time()) + life(what.kind)))
        try:
            insist(partial(platform.order, to.server_id, order))
        except PlatformRefused as refusal:
            if refusal.problem.type != _STALE or attempt == _ATTEMPTS:
                raise
        else:
            break
    return _Given(to.server_id, order)


def _watch(
    platform: PlatformApi, given: _Given, kind: OrderKind, deadline: float, console: Console
) -> _Outcome:
    with console.status(f"waiting for {given.server_id} to answer"):
        while True:
            view = _look(platform, given)
            if view is not None and view.state is not OrderState.WAITING:
                return _told(view, given.server_id, kind, console)
            if time.monotonic() >= deadline:
                break
            time.sleep(LOOK_EVERY_SECONDS)
    until = f"{given.order.not_after:%Y-%m-%d %H:%M} UTC"
    console.print(
        Text(
            f"{given.server_id}: no answer yet, it may be off. The order waits until {until}; "
            f"`byok server orders {given.server_id}` tells."
        )
    )
    return _Outcome.WAITING


def _look(platform: PlatformApi, given: _Given) -> OrderView | None:
    try:
        orders = platform.orders(given.server_id).orders
    except PlatformUnreachable:
        return None  # it is on its way; only our view of it is gone for a moment
    return next((view for view in orders if view.order_id == given.order.order_id), None)


def _told(view: OrderView, server_id: str, kind: OrderKind, console: Console) -> _Outcome:
    if view.state is OrderState.APPLIED:
        console.print(Text(f"{server_id}: {_DONE[kind]}"))
        return _Outcome.APPLIED
    reason = order_reason_in_words(view.reason or "unknown")
    console.print(Text(f"{server_id}: refused. {reason}"))
    return _Outcome.REFUSED
