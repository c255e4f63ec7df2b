"""Making the join token that `byok server add` prints."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from bus_schemas.join_token import JoinToken
from platform_handlers.authority.installation import Installation
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
    mint = TokenMint.of(installation)
    credentials = mint.enrolling_credentials(Ed25519PrivateKey.generate(), now=registry.now())
    return JoinToken(
        url=url,
        ca_pem=installation.ca.read_text("ascii"),
        server_id=server_id,
        owner_id=owner_id,
        secret=SecretStr(secret),
        jwt=credentials.jwt,
        seed=SecretStr(credentials.seed),
    )
