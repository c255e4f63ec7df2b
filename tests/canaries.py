"""Made-up credentials of every provider's shape, all with one mark to look for.

They open nothing. A mark stands right behind the prefix and once more at the end, so that neither
a cut-off beginning nor a masked one gets away.
"""

import json
from collections.abc import Mapping
from typing import Final

from bus_schemas.fields import CredentialKind
from bus_schemas.providers import Provider, load_providers

MARK: Final = "Q7canaryZ4"
"""In everything that only ever travels sealed: nowhere outside of the server's own memory."""
SPILLED: Final = "V3spilledK8"
"""In what an owner sends the platform in the clear by mistake: never kept, never repeated."""


def api_key(provider: Provider, mark: str = MARK) -> str:
    """Return a key of *provider*'s first known shape."""
    shape = provider.key_shapes[0] if provider.key_shapes else None
    prefix, length = (shape.prefix, shape.min_length) if shape else ("", 32)
    body = f"{mark}-{provider.id}-"
    return prefix + body + "0" * max(0, length - len(prefix) - len(body) - len(mark)) + mark


def sign_in(provider: Provider, origin: str, mark: str = MARK) -> str:
    """Return an OAuth set as `byok key set --kind oauth` reads it, to be refreshed at *origin*."""
    return json.dumps(
        {
            "access_token": f"access-{mark}-{provider.id}",
            "refresh_token": f"refresh-{mark}-{provider.id}",
            "token_endpoint": f"{origin}/token",
            "client_id": "byok-drill",
            "issuer": origin,
            "account": f"{mark}-account-0123456789",
        }
    )


def everything() -> Mapping[str, tuple[Provider, CredentialKind]]:
    """Return a slot for each provider's key and for each provider's sign-in."""
    slots = {}
    for provider in load_providers().values():
        for kind in provider.auth:
            suffix = "-login" if kind is CredentialKind.OAUTH else ""
            slots[provider.id + suffix] = (provider, CredentialKind(kind))
    return slots
