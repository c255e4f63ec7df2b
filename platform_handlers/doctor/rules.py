"""What is well and what is not, each with the one sentence that says what to do. Pure.

Left to others: connecting, reading files and databases, asking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from bus_schemas.authorities import authority_id
from bus_schemas.errors import ReaderMustStop
from bus_schemas.finding import Finding, Grade, expiry_finding, span
from bus_schemas.streams import Stream
from platform_handlers.ca.rules import Trusting, named, trusting_others, without

_FULL = 0.8
_DISK_FREE = 0.1
_BEHIND = 1000
_SKEW_BAD = 300
_DAY = 24 * 3600


@dataclass(frozen=True)
class Info:
    """What JetStream says of one stream."""

    config: Mapping[str, Any]
    bytes: int


def authority_findings(
    certificates: Sequence[x509.Certificate], in_use: x509.Certificate | None, at: datetime
) -> list[Finding]:
    """Judge the CAs: the newest one's life counts, and that of the one in use."""
    if in_use is None:
        detail = "public/ca.pem does not hold the CA that signed what nats-server shows; restore it"
        return [Finding(Grade.BAD, "ca", detail)]
    newest = certificates[-1]
    if _days(newest, at) <= 0:
        remedy = (
            "every client refuses the bus; run `byok ca add`, then `byok ca use --cut-off`, and"
            " give servers and owners the new public/ca.pem by hand"
        )
    elif in_use == newest:
        remedy = "run `byok ca add` now, so that servers learn of the next one in time"
    else:
        remedy = "run `byok ca use`"
    found = [expiry_finding("ca", f"the CA {authority_id(newest)}", _days(newest, at), remedy)]
    if in_use != newest:
        of_old = expiry_finding(
            "ca", f"the CA in use {authority_id(in_use)}", _days(in_use, at), "run `byok ca use`"
        )
        found.append(of_old)
    elif len(certificates) > 1:
        detail = "the CA is being changed; the old one is still trusted until `byok ca retire`"
        found.append(Finding(Grade.WARN, "ca", detail))
    return found


def leaf_finding(who: str, certificate: x509.Certificate, at: datetime) -> Finding:
    """Judge the certificate that lies ready for *who*."""
    days = _days(certificate, at)
    return expiry_finding("certificate", f"the certificate of {who}", days, "run `byok ca renew`")


def shown_finding(who: str, *, same: bool) -> Finding:
    """Judge whether *who* shows the certificate that lies ready."""
    if same:
        return Finding(Grade.OK, "certificate", f"{who} shows the certificate it was given")
    detail = f"{who} shows another certificate than lies ready; run `byok ca renew` or restart it"
    return Finding(Grade.WARN, "certificate", detail)


def stream_findings(stream: Stream, info: Info | None) -> list[Finding]:
    """Judge one stream; None: nats-server does not know it."""
    if info is None:
        detail = f"{stream.name} is missing; run `byok nats run`, which makes it"
        return [Finding(Grade.BAD, "streams", detail)]
    wanted = stream.configuration()
    wrong = sorted(name for name in wanted if not _same(info.config.get(name), wanted[name]))
    if wrong:
        detail = f"{stream.name} differs in {', '.join(wrong)}; run `byok nats run`, which mends it"
        return [Finding(Grade.BAD, "streams", detail)]
    full = info.bytes / stream.max_bytes
    if full >= _FULL:
        what = "forgets its oldest" if stream.forgets_when_full else "will refuse new messages"
        remedy = f"raise its max_bytes in bus_schemas/streams.py ({what} when full)"
        detail = f"{stream.name} is {full:.0%} full; {remedy}"
        return [Finding(Grade.WARN, "streams", detail)]
    return []


def _same(found: object, wanted: object) -> bool:
    """Whether *found* is *wanted*: nats-server leaves empty values out and adds its own."""
    if isinstance(wanted, Mapping):
        has = found if isinstance(found, Mapping) else {}
        return all(_same(has.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        have = found if isinstance(found, list) else []
        return len(have) == len(wanted) and all(map(_same, have, wanted))
    return found == wanted or not (found or wanted)


def disk_finding(where: str, free: int, total: int) -> Finding:
    """Judge the room left on the disk with the streams, in bytes."""
    share = free / total
    if share < _DISK_FREE:
        detail = f"{share:.0%} of the disk under {where} is free; give it more before it is full"
        return Finding(Grade.WARN, "disk", detail)
    return Finding(Grade.OK, "disk", f"{share:.0%} of the disk under {where} is free")


def parked_finding(messages: int) -> Finding:
    """Judge what no reader could use."""
    if messages:
        look = "look at them: byok events tail --stream parked --no-follow"
        return Finding(Grade.WARN, "parked", f"{messages} messages are parked; {look}")
    return Finding(Grade.OK, "parked", "no message is parked")


def reader_finding(name: str, command: str, behind: int | ReaderMustStop | None) -> Finding:
    """Judge one reader: how many facts it is *behind*, why it must stop, None if it never ran."""
    start = f"is `{command}` running? Start it, or look into its log"
    if behind is None:
        return Finding(Grade.WARN, "readers", f"{name} has never read the ledger; {start}")
    if isinstance(behind, ReaderMustStop):
        return Finding(Grade.BAD, "readers", f"{name} is {behind}")
    if behind > _BEHIND:
        return Finding(Grade.WARN, "readers", f"{name} is {behind} facts behind; {start}")
    return Finding(Grade.OK, "readers", f"{name} is up to date")


def answer_finding(name: str, command: str, *, answered: bool) -> Finding:
    """Judge whether somebody answers servers' requests."""
    if answered:
        return Finding(Grade.OK, name, f"the {name} answers servers")
    remedy = f"is `{command}` running? Start it, look into its log, or try again in a minute"
    detail = f"the {name} does not answer; {remedy}"  # after a restart of the bus it comes back
    return Finding(Grade.BAD, name, detail)


def pin_findings(pins: Mapping[str, Sequence[str] | None]) -> list[Finding]:
    """Judge the pins of active servers; None: the server has not told yet."""
    bare = [server for server, pinned in pins.items() if pinned is not None and not pinned]
    if bare:
        obeys = "obeys" if len(bare) == 1 else "obey"
        detail = (
            f"{named(bare)} {obeys} no owner key and takes no credential; on the server's console,"
            " type what `byok owner fingerprint` shows its owner: byok-vps trust FINGERPRINT"
        )
        return [Finding(Grade.BAD, "pins", detail)]
    told = sum(1 for pinned in pins.values() if pinned)
    return [Finding(Grade.OK, "pins", f"{told} of {len(pins)} servers obey an owner key")]


def revocation_finding(*, confirmed: bool) -> Finding:
    """Judge whether whoever was turned away is known to be out."""
    if confirmed:
        return Finding(Grade.OK, "revoked", "every nats-server has confirmed all revocations")
    detail = (
        "a nats-server has not confirmed the newest revocation; who was turned away may still be"
        " connected there. See that all nats-servers and `byok platform run` are up"
    )
    return Finding(Grade.BAD, "revoked", detail)


def server_clock_findings(skews: Mapping[str, float]) -> list[Finding]:
    """Judge servers' clocks by their last health reports, in seconds ahead of the bus."""
    off = {server: skew for server, skew in skews.items() if abs(skew) >= _SKEW_BAD}
    if not off:
        return []
    worst = span(max(map(abs, off.values())))
    detail = f"the clock of {named(list(off))} is off by up to {worst}; there: timedatectl"
    return [Finding(Grade.WARN, "clock", f"{detail} set-ntp true")]


def trust_findings(trusting: Trusting, certificates: Sequence[x509.Certificate]) -> list[Finding]:
    """Judge which CAs servers say they trust; None: a server has not said yet."""
    ids = [authority_id(certificate) for certificate in certificates]
    strange = trusting_others(trusting, frozenset(ids))
    lacking = without(trusting, ids[-1])
    found = []
    if strange:
        trust = "trusts" if len(strange) == 1 else "trust"
        detail = (
            f"{named(strange)} {trust} a CA that is retired or none of ours; if this stands for a"
            " day, put public/ca.pem in place of its ca.pem"
        )
        found.append(Finding(Grade.WARN, "trust", detail))
    if len(certificates) > 1 and lacking:
        verb = "is" if len(lacking) == 1 else "are"
        known = f"{named(lacking)} {verb} not known to trust the next CA"
        detail = f"{known}; wait before `byok ca use`"
        found.append(Finding(Grade.WARN, "trust", detail))
    return found


def _days(certificate: x509.Certificate, at: datetime) -> float:
    return (certificate.not_valid_after_utc - at).total_seconds() / _DAY
