"""`byok-vps` that ends as by `kill -9` at a step: `python -m tests.dying_agent STEPS WHEN …`.

STEPS are classes of facts, with commas between; the first that comes is the end. WHEN is `before`
(its transaction is begun and not committed) or `after` (it is committed, and nothing that follows
from it is done). The rest is the command line. Its last word on stderr is the step.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from vps_runtime.cli import main
from vps_runtime.facts.store import Draft, Facts, Telling


def step_of(draft: Draft) -> str:
    """Return the step that *draft* tells; a verdict is one if it promotes."""
    assert isinstance(draft, partial)
    name = str(draft.func.__name__)
    return "" if name == "CredentialVerified" and not draft.keywords.get("promoted") else name


def end(step: str) -> None:
    """Say the last word and be killed."""
    sys.stderr.write(json.dumps({"event": "killed", "step": step}) + "\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def arm(steps: Sequence[str], when: str) -> None:
    """Let this very process be killed at the first of *steps*."""
    decide = Facts.decide

    async def dying(self: Facts, decision: Callable[[Mapping[str, str]], Telling]) -> None:
        found: list[str] = []

        def noted(told: Mapping[str, str]) -> Telling:
            telling = decision(told)
            found.extend(step for step in map(step_of, telling.drafts) if step in steps)
            if found and when == "before":
                end(found[0])
            return telling

        await decide(self, noted)
        if found:
            end(found[0])

    Facts.decide = dying  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(sys.argv.pop(1).split(","), sys.argv.pop(1))
    main()
