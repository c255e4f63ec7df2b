"""Who on this machine may have something from the runtime: a token's holder, one user."""

import secrets
import socket
import struct
from typing import Final

from bus_schemas.transport.private_files import write_private
from vps_runtime.state import NotEnrolled, StateFolder

_PREFIX: Final = "byok-agent-"
_RANDOM_BYTES: Final = 32
_SHORTEST: Final = len(_PREFIX) + _RANDOM_BYTES
_PEER: Final = struct.Struct("3i")
"""`struct ucred` of unix(7): process, user, group."""


def agent_token(state: StateFolder) -> str:
    """Return what this server's agent shows the gateway as its API key; made at the first need.

    Delete the file and restart the runtime to have another. Raises NotEnrolled if the file is
    damaged, OSError.
    """
    path = state.agent_token
    if not path.exists():
        write_private(path, f"{_PREFIX}{secrets.token_urlsafe(_RANDOM_BYTES)}\n".encode())
    token = path.read_text("ascii", "replace").strip()
    if len(token) < _SHORTEST or not token.startswith(_PREFIX) or not token.isascii():
        message = f"{path} holds no agent token; delete it, and the next start makes a new one"
        raise NotEnrolled(message)
    return token


def peer_uid(connection: socket.socket) -> int:
    """Return the user at the other end of a Unix socket, as the kernel says (SO_PEERCRED).

    In a user namespace that does not map that user it is 65534, which is nobody's.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _process, user, _group = _PEER.unpack(raw)
    return int(user)
