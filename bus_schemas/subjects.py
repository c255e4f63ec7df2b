"""Subject templates: the only place that turns ids into NATS subjects and back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from bus_schemas.errors import ContractError

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_ID = r"[a-z0-9-]{1,63}"
_BANNER_ID = r"[a-z0-9_-]{1,160}"


@dataclass(frozen=True)
class SubjectTemplate:
    """A subject with named holes, such as `byok.v1.fingerprint.{server_id}`."""

    pattern: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the holes, from left to right."""
        return tuple(_PLACEHOLDER.findall(self.pattern))

    @cached_property
    def wildcard(self) -> str:
        """The subject filter that covers every id, with `*` in each hole."""
        return _PLACEHOLDER.sub("*", self.pattern)

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts = re.split(r"(\{[a-z_]+\})", self.pattern)
        return re.compile(
            "".join(
                _hole(part[1:-1]) if _PLACEHOLDER.fullmatch(part) else re.escape(part)
                for part in parts
            )
        )

    def fill(self, ids: Mapping[str, object]) -> str:
        """Return the subject for *ids*; every id is checked, so no wildcard can slip in.

        Raises ContractError(`bad_subject_id`).
        """
        subject = _PLACEHOLDER.sub(lambda hole: str(ids[hole[1]]), self.pattern)
        if not self._regex.fullmatch(subject):
            raise ContractError("bad_subject_id", f"an id does not fit {self.pattern}")
        return subject

    def rewrite(self, **tokens: str) -> str:
        """Return the pattern with *tokens* put in unchecked, `*` elsewhere (for permissions)."""
        return _PLACEHOLDER.sub(lambda hole: tokens.get(hole[1], "*"), self.pattern)

    def parse(self, subject: str) -> dict[str, str]:
        """Return the ids in *subject*. Raises ContractError(`wrong_subject`)."""
        match = self._regex.fullmatch(subject)
        if match is None:
            raise ContractError("wrong_subject", f"expected {self.pattern}")
        return match.groupdict()


def _hole(name: str) -> str:
    return f"(?P<{name}>{_BANNER_ID if name == 'banner_id' else _ID})"
