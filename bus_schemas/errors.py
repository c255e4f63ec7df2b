"""What can be wrong with a message, told apart by who must act.

A :class:`ContractError` means the *message* is bad: a retry is useless, the reader parks it
and goes on. A :class:`ReaderMustStop` means the *reader* is too old or stands on the wrong
ledger: skipping would lose facts for good, so it stops and says what to do. Everything else
is trouble on the way (network, disk) and worth a retry.

No error here ever carries a payload or a secret: `detail` names fields and reasons only.
Errors compare by identity (`eq=False`): a dataclass that compares by value cannot be hashed.
"""

from dataclasses import dataclass


class ByokError(Exception):
    """Root of every error this system raises on purpose."""


@dataclass(eq=False)
class ContractError(ByokError):
    """A message breaks the contract; park it, do not retry."""

    reason: str
    """Short, stable code such as `wrong_subject`; it becomes the parked message's reason."""
    detail: str = ""
    """What to look at, in words. Names of fields, never their values."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(eq=False)
class ReaderMustStop(ByokError):
    """Going on would skip facts that this build cannot understand, or read a foreign ledger."""

    reason: str
    """`unknown_major`, `unknown_rules`, `ledger_replaced` or `ledger_truncated`."""
    position: int
    """Sequence in the ledger at which the reader stands."""
    remedy: str
    """One sentence for the operator."""

    def __str__(self) -> str:
        return f"stopped at ledger sequence {self.position} ({self.reason}): {self.remedy}"


@dataclass(eq=False)
class Refused(ByokError):
    """An honest request was checked and turned down; asking again changes nothing."""

    reason: str
    """Short, stable code such as `owner_key_not_pinned`."""
    detail: str = ""
    """What was wrong, with which id, and what to do about it."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason
