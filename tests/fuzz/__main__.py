"""`make fuzz`: every target under coverage-guided mutation, two at a time.

What is found is written into `corpus/<target>/`, where the suite runs it from then on. A run
without a finding writes `last_run.json` and the table of docs/security.md.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS, Target

_HERE: Final = Path(__file__).parent
RESULT: Final = _HERE / "last_run.json"
CORPUS: Final = _HERE / "corpus"
PAGE: Final = _HERE.parents[1] / "docs" / "security.md"
_TABLE: Final = re.compile(r"(?<=<!-- make fuzz -->\n).*?(?=<!-- end -->)", re.DOTALL)
_MILLION: Final = 1_000_000
_AT_ONCE: Final = 2
_HANG_SECONDS: Final = 10
_LONGEST: Final = 8192
"""Bytes of an input: twice the largest seed."""


@dataclass(frozen=True)
class Outcome:
    """What one target went through."""

    target: str
    inputs: int
    seconds: int
    findings: int


def main() -> int:
    """Return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz every parser.")
    parser.add_argument("--inputs", type=int, default=10 * _MILLION, help="in all; default 10 M")
    parser.add_argument("--target", choices=[t.name for t in TARGETS], help="this one only")
    chosen = parser.parse_args()
    targets = [t for t in TARGETS if chosen.target in {None, t.name}]
    whole = sum(target.share for target in targets)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        jobs = [pool.submit(_fuzz, t, round(chosen.inputs * t.share / whole)) for t in targets]
        outcomes = [job.result() for job in jobs]
    found = sum(outcome.findings for outcome in outcomes)
    total = sum(outcome.inputs for outcome in outcomes)
    print(f"{total:,} inputs, {found} findings")  # noqa: T201 (the command's output)
    if not found and total >= 10 * _MILLION and len(targets) == len(TARGETS):
        rows = [asdict(outcome) for outcome in outcomes]
        day = datetime.now(UTC).date().isoformat()
        RESULT.write_text(json.dumps({"day": day, "targets": rows}, indent=1) + "\n")
        PAGE.write_text(shown(PAGE.read_text("utf-8")), "utf-8")
    return 1 if found else 0


def shown(page: str) -> str:
    """Return the *page* with the last run's table in its place."""
    last = json.loads(RESULT.read_text("utf-8"))
    rows = [f"| {r['target']} | {r['inputs']:,} | {r['findings']} |" for r in last["targets"]]
    total = sum(row["inputs"] for row in last["targets"])
    head = [
        f"Last long run: {last['day']}, {total:,} inputs.",
        "",
        "| target | inputs | findings |",
    ]
    table = "\n".join([*head, "|---|---|---|", *rows, ""])
    return _TABLE.sub(lambda _: table, page)


def _fuzz(target: Target, inputs: int) -> Outcome:
    started = time.monotonic()
    kept = CORPUS / target.name
    kept.mkdir(parents=True, exist_ok=True)
    before = set(kept.iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        seeds = Path(scratch) / "seeds"
        seeds.mkdir()
        good = tuple(target.seeds())
        for number, seed in enumerate((*good, *(path.read_bytes() for path in before))):
            (seeds / f"seed-{number}").write_bytes(seed)
        words = Path(scratch) / "words"
        words.write_text(_dictionary(good))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.guided", target.name, str(seeds)),
                f"-runs={inputs}",
                f"-dict={words}",
                f"-max_len={_LONGEST}",
                f"-timeout={_HANG_SECONDS}",
                f"-artifact_prefix={kept}/",
                "-print_final_stats=1",
                "-close_fd_mask=1",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
    new = set(kept.iterdir()) - before
    if done.returncode and not new:
        raise RuntimeError(f"{target.name} did not run:\n{done.stderr[-2000:]}")
    ran = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    outcome = Outcome(
        target.name,
        int(ran[1]) if ran else 0,
        round(time.monotonic() - started),
        len(new),
    )
    print(f"{target.name:20} {outcome.inputs:>10,} inputs {outcome.seconds:>6} s", flush=True)  # noqa: T201
    if new:
        print(done.stderr[-3000:], file=sys.stderr)  # noqa: T201
    return outcome


def _dictionary(seeds: tuple[bytes, ...]) -> str:
    """Return the seeds' own JSON strings for libFuzzer: most of the parsing is in Rust and C.

    Coverage sees Python's branches only, and a random byte seldom makes a key out of another.
    """
    words = {b'"v"'} | {
        word for seed in seeds for word in re.findall(rb'"[A-Za-z0-9_.:-]{1,40}"', seed)
    }
    return "".join(f'"\\"{word[1:-1].decode()}\\""\n' for word in sorted(words))


if __name__ == "__main__":
    sys.exit(main())
