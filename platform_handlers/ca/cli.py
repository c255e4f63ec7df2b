"""`byok ca`: look at the certificate authority, renew certificates, change it in three steps."""

import asyncio
import time
from collections.abc import Callable

import click
from cryptography import x509

from bus_schemas.authorities import authority_id
from bus_schemas.errors import Refused
from bus_schemas.exit_codes import ExitCode
from bus_schemas.fields import at_utc
from bus_schemas.transport.presented import presented_certificate
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority import rotation, tls
from platform_handlers.authority.installation import Installation
from platform_handlers.ca.rules import named, without
from platform_handlers.ca.shown import faces, show_new_certificates
from platform_handlers.provisioning.authorities import trusted_by_servers
from platform_handlers.settings import Settings


@click.group()
def ca() -> None:
    """Look at the certificate authority, renew certificates, change it: `add`, `use`, `retire`."""


@ca.command()
@click.pass_obj
def show(settings: Settings) -> None:
    """List the CAs and certificates, how long they are good, and who lacks the newest CA."""
    installation = settings.installation()
    known = rotation.read(installation)
    for certificate in known.certificates:
        use = "in use" if certificate == known.in_use else "not in use"
        click.echo(f"CA   {authority_id(certificate)}  {_until(certificate)}  {use}")
    for name, pair in (("bus", installation.bus_pair), ("API", installation.api_pair)):
        click.echo(f"{name}  {_until(rotation.read_certificate(pair))}")
    if known.changing:
        newest = authority_id(known.newest)
        lacking = without(trusted_by_servers(installation), newest)
        click.echo(f"servers not known to trust {newest}: {named(lacking) or 'none'}")
        click.echo(f"next: byok ca {'retire' if known.in_use == known.newest else 'use'}")


@ca.command()
@click.pass_obj
def add(settings: Settings) -> None:
    """Step 1: make the next CA and tell servers and owners of it. Nothing uses it yet."""
    known = rotation.add(settings.installation(), now=at_utc(time.time()))
    click.echo(f"{authority_id(known.newest)} is trusted beside the old CA from now on.")
    click.echo("Servers learn of it within the hour, owners with their next command. Readers and")
    click.echo(f"browsers that hold a copy need the new {settings.installation().ca}.")
    click.echo("Next, when `byok ca show` names no server: byok ca use")


@ca.command()
@click.option("--cut-off", is_flag=True, help="Even if servers are not known to trust it.")
@click.pass_obj
def use(settings: Settings, *, cut_off: bool) -> None:
    """Step 2: have the newest CA sign the certificates, and have the bus and the API show them."""
    installation = settings.installation()
    known = rotation.read(installation)
    newest = authority_id(known.newest)
    lacking = without(trusted_by_servers(installation), newest)
    if known.changing and lacking and not cut_off:
        detail = f"{named(lacking)} would be cut off, not known to trust {newest}; wait, or use"
        raise Refused("servers_lack_ca", f"{detail} --cut-off and give them the new ca.pem by hand")
    if not known.changing:
        click.echo(f"There is no new CA beside {newest}; the certificates are renewed with it.")
    _sign(settings, rotation.use)
    if known.changing:
        click.echo("Next, after a few days: byok ca retire")


@ca.command()
@click.pass_obj
def renew(settings: Settings) -> None:
    """Have the CA in use sign new certificates for a year; the CA stays as it is."""
    _sign(settings, rotation.renew)


def _sign(settings: Settings, step: Callable[..., rotation.Authorities]) -> None:
    installation = settings.installation()
    step(installation, now=at_utc(time.time()))
    leaf = rotation.read_certificate(installation.bus_pair)
    click.echo(f"The bus and the API have new certificates, {_until(leaf)}.")
    faces_now = asyncio.run(show_new_certificates(installation, settings.target()))
    for face in faces_now:
        click.echo(str(face))
    if any(face.current is False for face in faces_now):
        raise SystemExit(ExitCode.NEGATIVE)


@ca.command()
@click.pass_obj
def retire(settings: Settings) -> None:
    """Step 3: trust the newest CA alone, and destroy the key of the old one."""
    installation = settings.installation()
    known = rotation.read(installation)
    if known.in_use == known.newest:
        asyncio.run(_require_shown(installation, settings.target(), known.newest))
    after = rotation.retire(installation)
    click.echo(f"{authority_id(after.newest)} is the only CA; the old one's key is destroyed.")


async def _require_shown(
    installation: Installation, target: BusTarget, newest: x509.Certificate
) -> None:
    """Raise Refused(`old_certificate_shown`) or BusUnavailable: servers would be cut off."""
    for face in faces(installation, target):
        if not tls.signed_by(await presented_certificate(face.url), newest):
            detail = f"{face.name} at {face.url} still shows a certificate of the old CA; restart"
            raise Refused("old_certificate_shown", f"{detail} it, then do this again")


def _until(certificate: x509.Certificate) -> str:
    return f"good until {certificate.not_valid_after_utc:%Y-%m-%d}"
