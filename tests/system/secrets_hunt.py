"""Look for secrets in bytes, in every dress a careless program might give them."""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote


def dresses(secret: str) -> Iterator[bytes]:
    """Yield *secret* raw, JSON-escaped, URL-encoded, hex, UTF-16, and base64 at each offset."""
    raw = secret.encode()
    yield raw
    yield json.dumps(secret)[1:-1].encode()
    yield quote(secret, safe="").encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield secret.encode("utf-16-le")
    yield secret.encode("utf-16-be")
    for offset in range(3):
        # Three bytes become four characters, so the text depends on where the secret begins;
        # characters that mix in neighbouring bytes are cut off at both ends.
        encoded = base64.b64encode(bytes(offset) + raw)
        start = -(-offset * 4 // 3)
        whole = encoded[start : len(encoded) - 4]
        yield whole
        yield whole.translate(bytes.maketrans(b"+/", b"-_"))


def hits(label: str, haystack: bytes, secrets: Iterable[str]) -> list[str]:
    """Return *label* once for every secret that is in *haystack*, in whatever dress."""
    return [
        f"{label}: secret {number}"
        for number, secret in enumerate(secrets)
        if any(dress in haystack for dress in set(dresses(secret)))
    ]


def hits_in_folder(folder: Path, secrets: Iterable[str]) -> list[str]:
    """Return the files below *folder* that hold a secret; names of files count, too."""
    secrets = tuple(secrets)
    found = []
    for path in sorted(folder.rglob("*")):
        found += hits(f"name of {path}", str(path).encode(), secrets)
        if path.is_file():
            found += hits(str(path), path.read_bytes(), secrets)
    return found
