"""`python -m bus_schemas [--check]`: write, or compare, all that is made from the classes.

Run it in the repository's root. Exit codes: 0 written, or no drift; 1 drift; 2 wrong usage.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from bus_schemas.export import SCHEMAS, documents, drift, left_over

_USAGE = "usage, in the repository's root: python -m bus_schemas [--check]\n"


def main(arguments: Sequence[str], root: Path) -> int:
    """Write the documents below *root*, or say with `--check` which differ."""
    if list(arguments) not in ([], ["--check"]) or not (root / "bus_schemas").is_dir():
        sys.stderr.write(_USAGE)
        return 2
    if not arguments:
        _write(root)
        return 0
    drifted = drift(_found(root))
    if drifted:
        sys.stderr.write("\n".join([*drifted, "run: python -m bus_schemas", ""]))
    return 1 if drifted else 0


def _found(root: Path) -> dict[str, str]:
    """Return the generated files that exist, and whatever else lies among the schemas."""
    present = [root / path for path in documents() if (root / path).is_file()]
    beside = [path for path in (root / SCHEMAS).rglob("*") if path.is_file()]
    # A byte that is no UTF-8 is drift like any other, not a crash.
    return {
        path.relative_to(root).as_posix(): path.read_bytes().decode(errors="replace")
        for path in {*present, *beside}
    }


def _write(root: Path) -> None:
    for path, text in documents().items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
    for path in left_over(_found(root)):
        (root / path).unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
