"""`byok-vps`: the entry point. Runs a command and turns errors into exit codes."""

import sys


def main() -> None:
    """Run `byok-vps` with the process's arguments and exit."""
    # structlog imports rich where it finds it, for tracebacks that are never shown here. A runtime
    # idles on every server for months; this saves it a seventh of its memory.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type] # None forbids the import
    from vps_runtime.commands import run_command  # noqa: PLC0415 (after the line above)

    sys.exit(run_command(sys.argv[1:]))
