"""`byok events tail` and `byok replay`: for operators, read only by their NATS permissions."""

import asyncio
import json
import sys

import click

from bus_schemas.codec import encode
from bus_schemas.flows import Role
from bus_schemas.streams import BANNERS, HEALTH, LEDGER, PARKED, Stream
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.follow import follow
from bus_schemas.transport.jetstream import StoredMessage, stream_state, subject_counts
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.replay.fold import compare, replayed_banners
from platform_handlers.replay.lines import details, line_of, talkers
from platform_handlers.replay.plan import is_whole, plan_replay
from platform_handlers.settings import Settings

_STREAMS = {
    stream.token.removeprefix("byok-"): stream for stream in (LEDGER, BANNERS, HEALTH, PARKED)
}


@click.group()
def events() -> None:
    """Look at the streams as they come."""


@events.command()
@click.option("--stream", type=click.Choice(list(_STREAMS)), default="ledger", show_default=True)
@click.option("--from", "first", type=click.IntRange(1), help="Begin at this sequence.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many messages.")
@click.option("--follow/--no-follow", "go_on", default=True, help="Wait for more at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print whole envelopes, one a line.")
@click.pass_obj
def tail(
    settings: Settings,
    stream: str,
    first: int | None,
    limit: int | None,
    go_on: bool,  # noqa: FBT001 (a flag)
    as_json: bool,  # noqa: FBT001 (a flag)
) -> None:
    """Print messages of a stream, by default the last ten and then whatever comes."""
    asyncio.run(_tail(settings, _STREAMS[stream], first, limit, go_on=go_on, as_json=as_json))


async def _tail(
    settings: Settings,
    stream: Stream,
    first: int | None,
    limit: int | None,
    *,
    go_on: bool,
    as_json: bool,
) -> None:
    bus = await _ops_bus(settings)
    try:
        state = await stream_state(bus, stream.name)
        start = first if first is not None else max(state.last - 9, 1)
        left = limit if limit is not None else sys.maxsize
        async for batch in follow(bus, stream, start):
            for message in batch[:left]:
                _print(message, as_json=as_json)
            left -= len(batch)
            if left <= 0 or (not batch and not go_on):
                return
    finally:
        await bus.close()


@events.command()
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="So many.")
@click.pass_obj
def top(settings: Settings, limit: int) -> None:
    """Print which servers have the most facts in the ledger: number, share, server."""
    for line in asyncio.run(_top(settings, limit)):
        click.echo(line)


async def _top(settings: Settings, limit: int) -> list[str]:
    bus = await _ops_bus(settings)
    try:
        counts: dict[str, int] = {}
        for subjects in LEDGER.through_intake:
            counts |= await subject_counts(bus, LEDGER.name, subjects)
        return talkers(counts, limit)
    finally:
        await bus.close()


def _print(message: StoredMessage, *, as_json: bool) -> None:
    if as_json:
        click.echo(message.data.decode(errors="replace"))
    else:
        click.echo(line_of(message))


@click.command()
@click.option("--from", "first", type=click.IntRange(1), help="First sequence (default: oldest).")
@click.option("--to", "last", type=click.IntRange(1), help="Last sequence (default: newest).")
@click.option("--verify", is_flag=True, help="Compare with the published banners, byte for byte.")
@click.option("--json", "as_json", is_flag=True, help="Print whole envelopes, one a line.")
@click.pass_obj
def replay(
    settings: Settings,
    first: int | None,
    last: int | None,
    verify: bool,  # noqa: FBT001 (a flag)
    as_json: bool,  # noqa: FBT001 (a flag)
) -> None:
    """Fold a part of the ledger anew and print the banner events it gives. Publishes nothing."""
    sys.exit(asyncio.run(_replay(settings, first, last, verify=verify, as_json=as_json)))


async def _replay(
    settings: Settings, first: int | None, last: int | None, *, verify: bool, as_json: bool
) -> int:
    bus = await _ops_bus(settings)
    try:
        ledger = await stream_state(bus, LEDGER.name)
        plan = plan_replay(ledger, first, last)
        click.echo(f"ledger {plan.first} to {plan.last}: up to {plan.messages} facts", err=True)
        if not is_whole(plan, ledger):
            note = "the range does not begin with the first fact: earlier holders are not known"
            click.echo(note, err=True)
        if verify:
            banners = await stream_state(bus, BANNERS.name)
            result = await compare(bus, plan, banners.last)
            click.echo(json.dumps(vars(result) | {"agrees": result.agrees}))
            return 0 if result.agrees else 1
        async for envelope in replayed_banners(bus, plan):
            raw = encode(envelope).decode()
            text = f"{envelope.type:<26} {envelope.data.subject}  {details(envelope)}"
            click.echo(raw if as_json else text)
        return 0
    finally:
        await bus.close()


async def _ops_bus(settings: Settings) -> Bus:
    return await role_bus(settings.installation(), settings.target(), Role.OPS).open()
