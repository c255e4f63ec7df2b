"""One target under libFuzzer, led by coverage: `python -m tests.fuzz.guided TARGET [libFuzzer …]`.

A process of its own for each target, since libFuzzer ends the one it runs in.
"""

import sys

import atheris

with atheris.instrument_imports(include=["bus_schemas", "vps_runtime", "platform_handlers"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run libFuzzer with the arguments that follow the target's name."""
    target = next(target for target in TARGETS if target.name == sys.argv[1])
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
