"""Making the join token that `byok server add` and `byok server reenrol` print."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from bus_schemas.join_token import JoinToken
from platform_handlers.authority.installation import Installation, read_evaluator_keys
from platform_handlers.provisioning.records import joiner_name, secret_hash
from platform_handlers.provisioning.reenrolment import Reenrolments
from platform_handlers.provisioning.registry import Registry
from platform_handlers.provisioning.tokens import TokenMint


async def issue_join_token(
    installation: Installation, registry: Registry, url: str, ids: tuple[str, str]
) -> JoinToken:
    """Issue a server id and return its join token; *ids* are (owner, server).

    *url* is where the new server finds the bus. Raises Refused: `bad_id`, `unknown_owner`,
    `server_exists`.
    """
    owner_id, server_id = ids
    secret = await registry.add_server(owner_id, server_id)
    return _token(installation, url, ids, secret, now=registry.now())


async def renew_join_token(
    installation: Installation, registry: Registry, url: str, server_id: str
) -> JoinToken:
    """Return a join token for the machine that is to take a server's place.

    From here on the keys of the one before are void; telling the bus is `turn_away`'s. Raises
    Refused: `unknown_server`, `never_enrolled`, `server_deprovisioned`.
    """
    secret = await Reenrolments(registry).begin(server_id)
    owner_id = (await registry.require_server(server_id)).owner_id
    return _token(installation, url, (owner_id, server_id), secret, now=registry.now())


def _token(
    installation: Installation, url: str, ids: tuple[str, str], secret: str, *, now: int
) -> JoinToken:
    owner_id, server_id = ids
    mint = TokenMint.of(installation)
    name = joiner_name(secret_hash(secret))
    credentials = mint.enrolling_credentials(Ed25519PrivateKey.generate(), name, now=now)
    return JoinToken(
        url=url,
        ca_pem=installation.ca.read_text("ascii"),
        server_id=server_id,
        owner_id=owner_id,
        secret=SecretStr(secret),
        jwt=credentials.jwt,
        seed=SecretStr(credentials.seed),
        evaluator=read_evaluator_keys(installation),
    )
