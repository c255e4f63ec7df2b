"""Asks byok-vps for keys: OpenClaw runs this as its exec SecretRef command (ADR-28).

Standard library only: `byok-vps openclaw-config --write-resolver` copies this file as it is to
where the agent's user may run it. It holds no key and no secret. Whatever goes wrong is answered
with NOT_FOUND for each id: any other failure would make OpenClaw give up the other keys as well.
"""

import json
import os
import socket
import sys

SETUP = "BYOK_SETUP"
"""Variable in whose presence a word stands for each key: `secrets apply` wants to see one."""

_SECONDS = 4.0
_MAX_BYTES = 1024 * 1024


def ask(path: str, request: bytes) -> bytes:
    """Send *request* to the socket at *path* and return the whole answer. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_SECONDS)
        line.connect(path)
        line.sendall(request)
        line.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := line.recv(65536):
            answer += chunk
            if len(answer) > _MAX_BYTES:
                raise OSError("the answer is too long")
    return answer


def nothing(request: bytes) -> bytes:
    """Return the answer that none of the ids in *request* is known."""
    try:
        ids = json.loads(request)["ids"]
        errors = {str(one): {"code": "NOT_FOUND"} for one in ids}
    except (ValueError, KeyError, TypeError, RecursionError):
        errors = {}
    return json.dumps({"protocolVersion": 1, "values": {}, "errors": errors}).encode()


def stand_in(request: bytes) -> bytes:
    """Return the answer that gives a word which is no key for each of the ids in *request*."""
    answer = json.loads(nothing(request))
    values = dict.fromkeys(answer["errors"], "not-a-key")
    return json.dumps({"protocolVersion": 1, "values": values, "errors": {}}).encode()


def resolve(path: str, request: bytes) -> bytes:
    """Return what is to be printed for *request*, whatever happens."""
    try:
        answer = ask(path, request)
        return answer if isinstance(json.loads(answer), dict) else nothing(request)
    except (OSError, ValueError, RecursionError):
        return nothing(request)


def main() -> None:
    """Read the request from standard input and print the answer."""
    request = sys.stdin.buffer.read(_MAX_BYTES)
    if os.environ.get(SETUP):
        sys.stdout.buffer.write(stand_in(request))
    else:
        sys.stdout.buffer.write(resolve(os.environ.get("BYOK_SOCKET", ""), request))


if __name__ == "__main__":
    main()
