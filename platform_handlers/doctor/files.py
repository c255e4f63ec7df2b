"""What the installation's files say: the CAs, the certificates, the published list, the disk."""

import shutil
from datetime import datetime

from bus_schemas.authorities import authority_id
from bus_schemas.errors import Refused
from bus_schemas.finding import Finding, Grade
from bus_schemas.transport.presented import presented_certificate
from bus_schemas.transport.target import BusTarget, BusUnavailable
from platform_handlers.authority import rotation
from platform_handlers.authority.installation import Installation, read_signed_authorities
from platform_handlers.ca.shown import faces
from platform_handlers.doctor import rules


def authority(installation: Installation, at: datetime) -> list[Finding]:
    """Judge the CAs and the certificates in their files."""
    try:
        known = rotation.read(installation)
        pairs = (("the bus", installation.bus_pair), ("the API", installation.api_pair))
        leaves = [(who, rotation.read_certificate(pair)) for who, pair in pairs]
    except Refused as refused:
        return [Finding(Grade.BAD, "ca", refused.detail)]
    except (OSError, ValueError):
        detail = f"{installation.api_pair.certificate} cannot be read; run `byok ca renew`"
        return [Finding(Grade.BAD, "certificate", detail)]
    return [
        *rules.authority_findings(known.certificates, known.in_use, at),
        *(rules.leaf_finding(who, leaf, at) for who, leaf in leaves),
        *_broken(installation),
        *_order_key(installation),
        *_published(installation, known),
    ]


def _broken(installation: Installation) -> list[Finding]:
    found = []
    for pair in (installation.bus_pair, installation.api_pair):
        try:
            rotation.check_pair(pair)
        except Refused as refused:
            found.append(Finding(Grade.BAD, "certificate", refused.detail))
    return found


def _order_key(installation: Installation) -> list[Finding]:
    """Judge the platform's order key, which an installation older than orders does not have."""
    seed = installation.order_seed
    try:
        seed.stat()
    except FileNotFoundError:
        detail = f"{seed} is missing: `byok server revoke` cannot order a server to lock itself"
        remedy = (
            "for servers that enrol from now on, as the platform's user:"
            f" (umask 077; head -c 32 /dev/urandom > {seed}), then restart `byok platform run`"
        )
        return [Finding(Grade.WARN, "orders", f"{detail}; {remedy}")]
    except OSError:  # not for our eyes, so it is not for us to judge
        pass
    return []


def _published(installation: Installation, known: rotation.Authorities) -> list[Finding]:
    try:
        listed = read_signed_authorities(installation).ids()
    except (OSError, ValueError):
        listed = frozenset()
    if listed == {authority_id(certificate) for certificate in known.certificates}:
        return []
    detail = "public/authorities.json is not what public/ca.pem holds; run `byok ca renew`"
    return [Finding(Grade.WARN, "ca", detail)]


async def shown(installation: Installation, target: BusTarget) -> list[Finding]:
    """Judge whether the bus and the API show the certificates in their files."""
    found = []
    for face in faces(installation, target):
        try:
            ready = rotation.read_certificate(face.files)
            same = await presented_certificate(face.url) == ready
        except BusUnavailable as error:
            if face.files == installation.api_pair:  # the bus has a line of its own
                detail = f"the API cannot be reached: {error}; start `byok platform run`"
                found.append(Finding(Grade.BAD, "api", detail))
        except (OSError, ValueError):
            continue  # the files were judged before
        else:
            found.append(rules.shown_finding(face.name, same=same))
    return found


def disk(installation: Installation) -> Finding:
    """Judge the room on the disk with the streams."""
    store = installation.nats / "store"
    try:
        usage = shutil.disk_usage(store)
    except OSError as error:
        return Finding(Grade.BAD, "disk", f"{store} cannot be looked at: {error.strerror}")
    return rules.disk_finding(str(store), usage.free, usage.total)
