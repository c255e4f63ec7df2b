"""How often a token endpoint is asked, whoever wants it asked. In memory only."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bus_schemas.events.health import Validity
from vps_runtime.oauth.answers import TryAgain
from vps_runtime.oauth.rules import patience, pause, streak_after
from vps_runtime.rotation.rules import Verdict

RENEWED: Final = Verdict(Validity.VALID, 200)

Name = tuple[str, int]
"""Slot and revision."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Attempts that told nothing."""

    failures: int
    verdict: Verdict
    until: float
    """No attempt before that."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The last refresh that somebody asked for, and that brought tokens."""

    streak: int
    at: float


class Restraint:
    """Remembers how the last attempts went; *elapsed* gives seconds of a clock that nobody sets."""

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._trouble: dict[Name, _Trouble] = {}
        self._asked: dict[Name, _Asked] = {}
        self._asking: set[Name] = set()

    def verdict(self, name: Name) -> Verdict | None:
        """Return the last verdict while nobody is to ask for another one; else None."""
        last = self._asked.get(name)
        if last and self._elapsed() - last.at < patience(last.streak):
            return RENEWED
        return self._trouble[name].verdict if self.held_off(name) > 0 else None

    def held_off(self, name: Name) -> float:
        """Return the seconds until the endpoint may be asked again after trouble."""
        trouble = self._trouble.get(name)
        return trouble.until - self._elapsed() if trouble else 0.0

    def asked(self, name: Name) -> None:
        """Note that somebody asks, who found the token unfit; what is merely due is no streak."""
        self._asking.add(name)

    def succeeded(self, name: Name) -> None:
        """Note that there are new tokens."""
        self._trouble.pop(name, None)
        if name in self._asking:
            self._asking.discard(name)
            now, last = self._elapsed(), self._asked.get(name)
            streak = streak_after(last.streak, now - last.at) if last else 1
            self._asked[name] = _Asked(streak, now)

    def failed(self, name: Name, outcome: TryAgain) -> tuple[Verdict, float]:
        """Note that nothing was told; return the verdict, and the seconds for which it stands."""
        self._asking.discard(name)
        before = self._trouble.get(name)
        failures = before.failures + 1 if before else 1
        wait = pause(failures, outcome.after, jitter=random.random())  # noqa: S311 (spreads load)
        verdict = Verdict(Validity.UNKNOWN, outcome.status, outcome.reason)
        self._trouble[name] = _Trouble(failures, verdict, self._elapsed() + wait)
        return verdict, wait
