"""What a `doctor` says of one thing it looked at: the same line on the platform and on a server."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

DAYS_AHEAD = 30
"""How long before the end of a certificate a warning begins."""

_SKEW_WARN = 30
_SKEW_BAD = 300


class Grade(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """Works today and wants a person within weeks."""
    BAD = "bad"
    """Does not work, or is not safe, now."""


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, how it is, and what to do if it is not well."""

    grade: Grade
    check: str
    detail: str
    """One sentence; never a secret."""

    def __str__(self) -> str:
        return f"{self.grade:<4}  {self.check:<11}  {self.detail}"

    def as_json(self) -> dict[str, str]:
        """Return it for `--json`."""
        return asdict(self)


def clock_finding(seconds: float, other: str) -> Finding:
    """Judge how far this clock is ahead of (or, negative, behind) that of *other*."""
    off = abs(seconds)
    detail = f"this clock is {span(off)} {'ahead of' if seconds > 0 else 'behind'} {other}"
    if off < _SKEW_WARN:
        return Finding(Grade.OK, "clock", f"this clock agrees with {other}")
    grade = Grade.WARN if off < _SKEW_BAD else Grade.BAD
    return Finding(grade, "clock", f"{detail}; set it: timedatectl set-ntp true")


def expiry_finding(check: str, what: str, days_left: float, remedy: str) -> Finding:
    """Judge how long *what* is good; *remedy* says what to do from a month before its end."""
    days = int(days_left)
    if days_left <= 0:
        return Finding(Grade.BAD, check, f"{what} has expired; {remedy}")
    if days < DAYS_AHEAD:
        left = f"{days} day{'' if days == 1 else 's'}"
        return Finding(Grade.WARN, check, f"{what} expires in {left}; {remedy}")
    return Finding(Grade.OK, check, f"{what} is good for {days} days")


def span(seconds: float) -> str:
    """Return a span of time as people say it: `40 s`, `1 h 0 min`."""
    if seconds < 120:  # noqa: PLR2004 (below it, seconds say more)
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004


def well(findings: Iterable[Finding]) -> bool:
    """Whether nothing is bad; warnings leave time."""
    return all(finding.grade is not Grade.BAD for finding in findings)


def report(findings: Sequence[Finding], *, as_json: bool) -> str:
    """Return what `doctor` prints: a line each, or one JSON object."""
    if as_json:
        found = [finding.as_json() for finding in findings]
        return json.dumps({"well": well(findings), "findings": found})
    return "\n".join(map(str, findings))
