"""`byok key set`: one credential, asked for once, sealed to each server's own key and sent."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.text import Text

from bus_schemas.api import SealedSubmission, ServerView, SlotView
from bus_schemas.credential import CredentialPayload
from bus_schemas.errors import ByokError, ContractError, Refused
from bus_schemas.exit_codes import ExitCode
from bus_schemas.fields import CredentialKind, at_utc
from bus_schemas.keys import fingerprint_typed, in_fours
from bus_schemas.providers import Provider
from bus_schemas.transport.fresh import new_id
from platform_handlers.owner import asking, sealing
from platform_handlers.owner.console import Failed, plain, told
from platform_handlers.owner.home import Home
from platform_handlers.owner.keys import ends as key_ends
from platform_handlers.owner.keys import follow as key_follow
from platform_handlers.owner.keys.follow import Followed, Sent
from platform_handlers.owner.keys.goals import Goal
from platform_handlers.owner.keys.sharing import elsewhere
from platform_handlers.owner.pasted import other_provider
from platform_handlers.owner.platform_api import PlatformApi, PlatformUnreachable, insist

_WORST_FIRST: Final = (
    ExitCode.DENIED,
    ExitCode.DATA,
    ExitCode.NEGATIVE,
    ExitCode.UNAVAILABLE,
    ExitCode.TRY_AGAIN,
)


@dataclass(frozen=True)
class KeySet:
    """What was asked for on the command line."""

    servers: Sequence[str]
    slot_id: str
    kind: CredentialKind
    provider: str | None
    base_url: str | None
    fingerprints: Mapping[str, str]
    """What the servers' consoles showed, by server, as typed."""
    until: Goal
    wait: float
    """Seconds to wait for the servers' words, over all."""


@dataclass(frozen=True)
class _Ready:
    """A server that was checked: what is sealed for it, only it can open."""

    server: sealing.TrustedServer
    slot: SlotView | None
    provider: Provider


def set_key(platform: PlatformApi, home: Home, wish: KeySet, console: Console) -> ExitCode:
    """Seal, send, and show what becomes of it; return the exit code, the worst one of several.

    Every server is checked before the credential is asked for: what cannot be sealed for the right
    server is better never typed. One that fails does not stop the others.
    """
    owner_key = home.owner_key()
    owner_id = platform.servers().owner_id
    failed: dict[str, Failed] = {}
    ready = [one for name in wish.servers if (one := _ready(platform, home, wish, name, failed))]
    others = elsewhere(platform, wish.servers, wish.slot_id)
    sent: list[Sent] = []
    if ready:
        payload = _asked(wish, _one_provider(ready), console)
        for one in ready:
            submission = _sealed(payload, one, wish, owner_id, owner_key)
            if _send(platform, submission, failed, alone=len(wish.servers) == 1):
                sent.append(_as_sent(submission, one.provider))
    if len(wish.servers) == 1:
        code = _follow_one(platform, sent[0], wish, console)
    else:
        code = _follow_all(platform, sent, failed, wish, console)
    if sent and others:
        names = ", ".join(sorted(others))
        console.print(f"The key before it is on {names}, too: rotate it there before you revoke.")
    return code


def _ready(
    platform: PlatformApi, home: Home, wish: KeySet, server_id: str, failed: dict[str, Failed]
) -> _Ready | None:
    """Check one server; of several one that fails is noted, alone it ends the command."""
    try:
        view = platform.server(server_id)
        slot = next((slot for slot in view.slots if slot.slot_id == wish.slot_id), None)
        provider = sealing.provider_of(wish.provider, slot)
        sealing.check_kind(provider, wish.kind)
        sealing.check_revision(slot)
        return _Ready(_trusted(home, wish, view), slot, provider)
    except ByokError as error:
        if len(wish.servers) == 1:
            raise
        failed[server_id] = told(error)
    return None


def _trusted(home: Home, wish: KeySet, view: ServerView) -> sealing.TrustedServer:
    pinned = _pinned(home, view.server_id, wish.fingerprints.get(view.server_id))
    server = sealing.trusted(view, pinned, at=_now())
    home.pin(view.server_id, pinned)
    return server


def _pinned(home: Home, server_id: str, typed: str | None) -> str:
    """Return the fingerprint to hold the server to; the platform's own word is never enough."""
    known = home.pinned(server_id)
    given = typed and fingerprint_typed(typed)
    if known is None:
        return given or asking.read_fingerprint(server_id)
    if given and given != known:
        detail = (
            f"{server_id} is pinned as {in_fours(known)}; if it was set up anew, run "
            f"`byok owner forget {server_id}` first"
        )
        raise Refused("fingerprint_differs", detail)
    return known


def _one_provider(ready: Sequence[_Ready]) -> Provider:
    """Return whose key is asked for. Raises ContractError(`providers_differ`)."""
    names = {one.provider.id: one.provider for one in ready}
    if len(names) > 1:
        detail = f"the slot is for {' and '.join(sorted(names))}; say which with --provider"
        raise ContractError("providers_differ", detail)
    return ready[0].provider


def _asked(wish: KeySet, provider: Provider, console: Console) -> CredentialPayload:
    if wish.kind is CredentialKind.OAUTH:
        document = asking.read_sign_in(provider.name)
        return sealing.oauth_set(document, provider, wish.base_url)
    secret = asking.read_api_key(provider.name)
    warning = other_provider(secret, provider.id)
    if warning and wish.provider is None:
        # Only the platform says whose key the slot takes, and with it where the key will go.
        detail = f"{warning} If you mean it, say so with --provider {provider.id}"
        raise Refused("provider_differs", detail)
    if warning:
        console.print(f"[yellow]Warning:[/yellow] {warning} Sending it anyway.")
    if wish.base_url and provider.verify_url(wish.base_url) is None:
        console.print(
            f"No test of {provider.name} keys works at an address of your own: it waits until "
            "`byok key verify --force` brings it into use."
        )
    return sealing.api_key(secret, provider, wish.base_url)


def _sealed(
    payload: CredentialPayload,
    one: _Ready,
    wish: KeySet,
    owner_id: str,
    owner_key: Ed25519PrivateKey,
) -> SealedSubmission:
    base = one.slot.revision if one.slot else 0
    about = sealing.Sealing(owner_id, wish.slot_id, one.provider, base, new_id(), _now())
    return sealing.submission(payload, one.server, about, owner_key)


def _as_sent(submission: SealedSubmission, provider: Provider) -> Sent:
    envelope = submission.envelope
    return Sent(envelope.server_id, envelope.slot_id, envelope.revision, provider)


def _send(
    platform: PlatformApi, submission: SealedSubmission, failed: dict[str, Failed], *, alone: bool
) -> bool:
    try:
        _hand_in(platform, submission)
    except ByokError as error:
        if alone:
            raise
        failed[submission.envelope.server_id] = told(error)
        return False
    return True


def _hand_in(platform: PlatformApi, submission: SealedSubmission) -> None:
    envelope = submission.envelope
    try:
        insist(partial(platform.send, submission))
    except PlatformUnreachable as error:
        detail = (
            f"{error}. It may have arrived all the same: `byok key status {envelope.server_id} "
            f"{envelope.slot_id}` tells, and setting it again is harmless"
        )
        raise PlatformUnreachable(detail) from None


def _follow_one(platform: PlatformApi, sent: Sent, wish: KeySet, console: Console) -> ExitCode:
    where = f"{sent.server_id}/{sent.slot_id}, sealed to its own key (revision {sent.revision})"
    console.print(Text.assemble((f"{'sent':<10}", "bold"), f"to {where}"))
    teller = key_follow.Teller(console)
    with console.status(f"waiting for {sent.server_id}"):
        followed = key_follow.follow(platform, [sent], wish.until, wish.wait, teller.hear)
        [one] = key_follow.settled(platform, followed, wish.wait, teller.hear)
    key_ends.end_of_one(one, key_follow.told_in_full(platform, one), console)
    return key_follow.CODES[one.result]


def _follow_all(
    platform: PlatformApi,
    sent: Sequence[Sent],
    failed: Mapping[str, Failed],
    wish: KeySet,
    console: Console,
) -> ExitCode:
    followed: list[Followed] = []
    if sent:
        with console.status(f"waiting for {len(sent)} servers"):
            followed = key_follow.follow(platform, sent, wish.until, wish.wait)
            followed = key_follow.settled(platform, followed, wish.wait)
        rows = [(one, key_follow.told_in_full(platform, one)) for one in followed]
        console.print(key_ends.receipts(rows))
        key_ends.end_of_all(rows, complete=not failed, console=console)
    for server_id, failure in failed.items():
        console.print(Text(f"{server_id}: not sent. {plain(failure.message)}"))
    codes = {key_follow.CODES[one.result] for one in followed}
    codes |= {ExitCode(failure.exit_code) for failure in failed.values()}
    return next((code for code in _WORST_FIRST if code in codes), ExitCode.OK)


def _now() -> datetime:
    return at_utc(time.time())
