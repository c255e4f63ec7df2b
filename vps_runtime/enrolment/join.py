"""`byok-vps join`: make this server's own keys, hand out the public halves, store the answer."""

import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.errors import Refused
from bus_schemas.join_token import JoinToken
from bus_schemas.nkeys import KeyType, key_from_seed, public_nkey, seed_nkey
from bus_schemas.requests import EnrolReply, EnrolRequest
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.private_files import make_private_folder, write_private
from bus_schemas.transport.target import BusTarget
from vps_runtime.connection.issuer import ask_to_enrol
from vps_runtime.connection.rules import check_issued, read_claims
from vps_runtime.enrolment.pins import Pins, write_pins
from vps_runtime.state import Identity, Settings, StateFolder


async def join(state: StateFolder, token: JoinToken, owner_fingerprint: str) -> Identity:
    """Enrol this server and return who it is now; *owner_fingerprint* becomes the first pin.

    Keys made by an attempt that broke off are used again, so the same token may be tried again.
    Raises Refused (`already_enrolled`, or the platform's reason), BusUnavailable, BusDenied,
    ContractError, OSError.
    """
    if state.enrolled:
        raise Refused("already_enrolled", _what_to_do(state, token))
    make_private_folder(state.root)
    nkey_seed, identity = _own_keys(state, token.server_id)
    write_private(state.ca, token.ca_pem.encode())
    nkey = public_nkey(key_from_seed(nkey_seed), KeyType.USER)
    reply = await _enrol(state, token, nkey, identity)
    if reply.owner_id != token.owner_id:
        raise Refused("wrong_owner", f"the platform enrolled it for {reply.owner_id}")
    for jwt in (reply.tokens.working, reply.tokens.door):
        check_issued(read_claims(jwt), server_id=token.server_id, nkey=nkey)
    write_private(state.tokens, reply.tokens.model_dump_json().encode())
    write_private(state.evaluator, token.evaluator.model_dump_json().encode())
    if reply.orders_key is not None:
        write_private(state.orders_key, reply.orders_key)
    write_pins(state.pins, Pins(pinned=(owner_fingerprint,)))
    settings = Settings(server_id=token.server_id, owner_id=token.owner_id, url=token.url)
    write_private(state.settings, settings.model_dump_json().encode())  # last: "enrolled"
    return identity


def _what_to_do(state: StateFolder, token: JoinToken) -> str:
    """Say how this machine becomes another server, or the same one anew: with other keys."""
    known = state.read_settings().server_id
    beside = state.root.with_name(f"{state.root.name}.old")
    detail = f"{state.root} is {known} already, and nothing has changed"
    if token.server_id == known:
        detail += ". To enrol it anew: its old keys are void and its credentials must be sent again"
    return f"{detail}. Stop `byok-vps run`, `mv {state.root} {beside}`, and join again"


def _own_keys(state: StateFolder, server_id: str) -> tuple[str, Identity]:
    if not state.nkey_seed.exists():
        seed = seed_nkey(Ed25519PrivateKey.generate(), KeyType.USER)
        write_private(state.nkey_seed, seed.encode())
    if not state.identity_seed.exists():
        write_private(state.identity_seed, secrets.token_bytes(32))
    key = Ed25519PrivateKey.from_private_bytes(state.identity_seed.read_bytes())
    return state.nkey_seed.read_text().strip(), Identity(server_id, key)


async def _enrol(state: StateFolder, token: JoinToken, nkey: str, identity: Identity) -> EnrolReply:
    credentials = Credentials(token.jwt, token.seed.get_secret_value())
    # The user's name stands in its token; its inboxes hang off that name.
    name = read_claims(token.jwt).name
    request = EnrolRequest(
        server_id=token.server_id,
        secret=token.secret,
        nkey=nkey,
        identity_key=identity.public_key,
    )
    bus = await Bus(BusTarget(token.url, state.ca), name, lambda: credentials).open()
    try:
        return await ask_to_enrol(bus, request)
    finally:
        await bus.close()
