"""A judge that says what a test wants, in place of a provider."""

from bus_schemas.events.health import Validity
from vps_runtime.rotation.rules import Verdict
from vps_runtime.vault.credentials import Held


class Says:
    """Says one thing of every revision, and of some another; remembers what it was asked."""

    def __init__(self, usually: Validity = Validity.VALID) -> None:
        self.usually = usually
        self.of: dict[int, Validity] = {}
        """By revision, where it differs."""
        self.asked: list[tuple[str, int]] = []

    async def judge(self, held: Held) -> Verdict:
        """Return the verdict about *held*."""
        self.asked.append((held.slot_id, held.revision))
        return Verdict(self.of.get(held.revision, self.usually))
