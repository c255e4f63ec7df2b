"""The commands that connect an OpenClaw, and the options of a run that are about it."""

import asyncio
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from bus_schemas.errors import Refused
from bus_schemas.providers import load_providers
from vps_runtime.local_access import agent_token
from vps_runtime.openclaw.config import (
    UNROUTABLE,
    ByExec,
    ByGateway,
    SlotToUse,
    Way,
    needs_model,
    openclaw_config,
    secrets_plan,
)
from vps_runtime.openclaw.examine import gateway_of
from vps_runtime.openclaw.link import Target
from vps_runtime.openclaw.service import OpenClawOptions
from vps_runtime.options import agent_user_option, state_option
from vps_runtime.resolver import script
from vps_runtime.resolver.delivery import GRACE_SECONDS
from vps_runtime.resolver.install import install, install_plan, plan_beside
from vps_runtime.resolver.rules import MAX_REQUEST
from vps_runtime.state import StateFolder
from vps_runtime.status import read_status

url_option: Final = click.option(
    "--openclaw-url",
    envvar="BYOK_VPS_OPENCLAW_URL",
    metavar="URL",
    show_envvar=True,
    help="OpenClaw's gateway, such as ws://127.0.0.1:18789.",
)
token_option: Final = click.option(
    "--openclaw-token-file",
    envvar="BYOK_VPS_OPENCLAW_TOKEN_FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    show_envvar=True,
    help="File that holds OpenClaw's gateway token; as good as the keys, so not for everybody.",
)
grace_option: Final = click.option(
    "--openclaw-grace",
    envvar="BYOK_VPS_OPENCLAW_GRACE",
    type=click.FloatRange(0, 7 * 24 * 3600),
    default=GRACE_SECONDS,
    show_default=True,
    show_envvar=True,
    help="Seconds that a turn of OpenClaw's may go on with a key that it was given before.",
)
resolver_socket_option: Final = click.option(
    "--resolver-socket",
    envvar="BYOK_VPS_RESOLVER_SOCKET",
    type=click.Path(path_type=Path, dir_okay=False),
    show_envvar=True,
    help="Where OpenClaw's user asks for keys; `resolver.sock` in the state folder unless set.",
)
exec_slot_option: Final = click.option(
    "--exec-slot",
    "exec_slots",
    envvar="BYOK_VPS_EXEC_SLOTS",
    multiple=True,
    metavar="SLOT",
    show_envvar=True,
    help="A slot whose key OpenClaw may ask for and hold; may be given several times.",
)


def openclaw_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the options of a run; it gets one OpenClawOptions, called `openclaw`."""

    @functools.wraps(command)
    def told(
        *,
        openclaw_url: str | None,
        openclaw_token_file: Path | None,
        openclaw_grace: float,
        resolver_socket: Path | None,
        exec_slots: tuple[str, ...],
        **rest: Any,  # noqa: ANN401 (the command's own)
    ) -> None:
        target = target_of(openclaw_url, openclaw_token_file)
        if exec_slots and target is None:
            raise click.UsageError("--exec-slot needs --openclaw-url: keys leave at a reload only")
        openclaw = OpenClawOptions(target, openclaw_grace, resolver_socket, frozenset(exec_slots))
        command(openclaw=openclaw, **rest)

    options = (exec_slot_option, resolver_socket_option, grace_option, token_option, url_option)
    for option in options:
        told = option(told)
    return told


def target_of(url: str | None, token_file: Path | None) -> Target | None:
    """Return where OpenClaw is, None if nothing was said. Raises click.UsageError."""
    if url is None and token_file is None:
        return None
    if url is None or token_file is None:
        raise click.UsageError("--openclaw-url and --openclaw-token-file go together")
    target = Target(url, token_file.absolute())
    target.checked_url()
    return target


@click.command("openclaw-config")
@state_option
@click.option(
    "--slot",
    "chosen",
    multiple=True,
    metavar="SLOT",
    help="Only this slot; may be given several times.  [default: all that are held]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="SLOT=MODEL",
    help="A model to use of a provider that OpenClaw does not know by itself.",
)
@click.option(
    "--exec",
    "by_exec",
    is_flag=True,
    help="Let OpenClaw ask for the keys and hold them, for what cannot go through the gateway.",
)
@click.option(
    "--write-resolver",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --exec: where to put the command that OpenClaw runs; its folder is trusted.",
)
@agent_user_option
@resolver_socket_option
def openclaw_config_command(  # noqa: PLR0913 (one argument for each option)
    folder: Path,
    *,
    chosen: tuple[str, ...],
    models: tuple[str, ...],
    by_exec: bool,
    write_resolver: Path | None,
    agent_user: int | None,
    resolver_socket: Path | None,
) -> None:
    """Print the JSON that lets OpenClaw use the credentials held here; words go to stderr."""
    state = StateFolder(folder.absolute())
    slots = _slots(state, chosen, models)
    way = _way(state, by_exec=by_exec, resolver=write_resolver, socket=resolver_socket)
    if isinstance(way, ByExec):
        uid = os.geteuid() if agent_user is None else agent_user
        install(way.resolver, uid)
        install_plan(way.resolver, json.dumps(secrets_plan(slots), indent=2), uid)
    click.echo(json.dumps(openclaw_config(slots, way), indent=2))
    for sentence in _advice(slots, way):
        click.echo(sentence, err=True)


def _slots(state: StateFolder, chosen: Sequence[str], models: Sequence[str]) -> list[SlotToUse]:
    named: dict[str, list[str]] = {}
    for one in models:
        slot, found, model = one.partition("=")
        if not (slot and found and model):
            raise click.UsageError(f"--model {one}: write it as SLOT=MODEL")
        named.setdefault(slot, []).append(model)
    held = {note.slot_id: note.provider for note in asyncio.run(read_status(state)).slots}
    unknown = sorted({*chosen, *named} - held.keys())
    if unknown:
        there = ", ".join(held) or "none"
        raise click.UsageError(f"{unknown[0]} is not held here; there is {there}")
    if not held:
        raise Refused("no_credential", "no credential is held yet; its owner runs `byok key set`")
    catalogue = load_providers()
    return [
        SlotToUse(slot, provider, catalogue[provider].base_url, tuple(named.get(slot, ())))
        for slot, provider in held.items()
        if not chosen or slot in chosen
    ]


def _way(state: StateFolder, *, by_exec: bool, resolver: Path | None, socket: Path | None) -> Way:
    if by_exec:
        if resolver is None:
            raise click.UsageError(
                "--exec needs --write-resolver: where OpenClaw finds the command"
            )
        return ByExec(resolver.absolute(), (socket or state.resolver_socket).absolute())
    if resolver or socket:
        raise click.UsageError("--write-resolver and --resolver-socket go with --exec")
    return ByGateway(gateway_of(state), agent_token(state))


def _advice(slots: Sequence[SlotToUse], way: Way) -> list[str]:
    said = ["Merge this into openclaw.json of the agent's user (~/.openclaw)."]
    if isinstance(way, ByGateway):
        said.append("Then restart OpenClaw.")
        said.append("The apiKey is a token for this machine's gateway alone, not a provider's key.")
        stuck = [slot.slot_id for slot in slots if slot.provider in UNROUTABLE]
        said += [
            f"{slot} cannot go through the gateway: use --exec --slot {slot}" for slot in stuck
        ]
    else:
        said.append(
            f"Then run as that user, and restart OpenClaw: {script.SETUP}=1 openclaw secrets apply"
            f" --from {plan_beside(way.resolver)} --allow-exec"
        )
        said.append(
            "The agent, and so its shell, can get at these keys; where you can, use the gateway."
        )
        named = " ".join(f"--exec-slot {slot.slot_id}" for slot in slots)
        said.append(
            f"`byok-vps run` needs --openclaw-url, --openclaw-token-file and {named} to hand them "
            "out."
        )
    said += [
        f"{slot.slot_id}: OpenClaw does not know {slot.provider}; add --model {slot.slot_id}=MODEL"
        for slot in slots
        if needs_model(slot, slots)
    ]
    return said


@click.command("resolve")
@click.option(
    "--socket",
    "socket_path",
    envvar="BYOK_SOCKET",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    show_envvar=True,
    help="Where the runtime answers.",
)
def resolve_command(socket_path: Path) -> None:
    """Answer OpenClaw's exec SecretRef protocol: a request on standard input, keys on the output.

    Keys come only while the runtime reloads OpenClaw's secrets, each once; NOT_FOUND otherwise.
    """
    request = sys.stdin.buffer.read(MAX_REQUEST + 1)
    sys.stdout.buffer.write(script.resolve(str(socket_path), request))
