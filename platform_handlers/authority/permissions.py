"""From the flow table to NATS permissions, exports and imports. Pure.

One function answers "which subjects does this row need": the permission template of a role, the
export of the core account and the import of the other accounts are the same words with other
tokens in the holes, so they cannot drift apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from bus_schemas.flows import API, API_FROM_READERS, Account, Act, Flow, Role
from bus_schemas.subjects import SubjectTemplate

_NAME = "{{name()}}"
"""NATS puts the user's name here; ids hold no dots or wildcards, so it stays one token."""

_TOKENS: Mapping[Role, Mapping[str, str]] = {
    Role.SERVER: {"server_id": _NAME, "name": _NAME},
    Role.DOOR: {"server_id": _NAME},
    Role.ENROLLING: {"joiner": _NAME},
    Role.SUBSCRIBER: {"owner_id": "{{tag(owner)}}", "name": _NAME},
    Role.WATCHER: {"name": _NAME},
}


class Direction(StrEnum):
    """Which way a client uses a subject."""

    PUB = "pub"
    SUB = "sub"


@dataclass(frozen=True)
class Need:
    """One subject that a flow needs, and how it crosses an account border."""

    direction: Direction
    subject: SubjectTemplate
    many_replies: bool = False

    def local(self, account: Account) -> SubjectTemplate:
        """Return the subject as clients of *account* write it."""
        if account is not Account.READERS:
            return self.subject
        return SubjectTemplate(self.subject.pattern.replace(API, API_FROM_READERS, 1))


@dataclass(frozen=True)
class Permissions:
    """What a role's template allows; everything else is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    may_answer: bool


def needs(flow: Flow) -> tuple[Need, ...]:
    """Return the subjects *flow* needs."""
    stream = flow.stream.name if flow.stream else ""
    subject = flow.subject
    table = {
        Act.STORE: (_pub(subject.pattern),),
        Act.ASK: (_pub(subject.pattern),),
        Act.ANSWER: (Need(Direction.SUB, subject),),
        Act.NUDGE: (Need(Direction.SUB, subject),),
        Act.READ_LAST: (_pub(f"{API}.DIRECT.GET.{stream}.{subject.pattern}"),),
        Act.READ_STREAM: (
            _pub(f"{API}.DIRECT.GET.{stream}", many_replies=True),
            _pub(f"{API}.STREAM.INFO.{stream}"),
        ),
        Act.NEXT: (
            _pub(f"{API}.CONSUMER.MSG.NEXT.{stream}.{{name}}", many_replies=True),
            _pub(f"{API}.CONSUMER.INFO.{stream}.{{name}}"),
            _pub(f"$JS.ACK.{stream}.{{name}}.>"),
        ),
        Act.PURGE: (_pub(f"{API}.STREAM.PURGE.{stream}"),),
        Act.MANAGE: (
            *(_pub(f"{API}.STREAM.{verb}.*") for verb in ("CREATE", "UPDATE", "INFO")),
            *(_pub(f"{API}.CONSUMER.{verb}.>") for verb in ("CREATE", "DELETE", "INFO")),
        ),
    }
    return table[flow.act]


def permissions(role: Role, flows: Iterable[Flow]) -> Permissions:
    """Return the permission template of *role*."""
    mine = [flow for flow in flows if flow.role is role]
    wanted = [need for flow in mine for need in needs(flow)]
    tokens = _TOKENS.get(role, {})

    def subjects(direction: Direction) -> set[str]:
        locals_ = (n.local(role.account) for n in wanted if n.direction is direction)
        return {subject.rewrite(**tokens) for subject in locals_}

    return Permissions(
        publish=tuple(sorted(subjects(Direction.PUB))),
        subscribe=tuple(sorted({f"_INBOX.{_NAME}.>", *subjects(Direction.SUB)})),
        may_answer=any(flow.act is Act.ANSWER for flow in mine),
    )


def crossings(account: Account, flows: Iterable[Flow]) -> tuple[Need, ...]:
    """Return what *account* imports from the core: exactly its roles' needs, by wildcard."""
    found = {
        (need.direction, need.subject.wildcard): need
        for flow in flows
        if flow.role.account is account and account is not Account.CORE
        for need in needs(flow)
    }
    return tuple(found[key] for key in sorted(found))


def _pub(pattern: str, *, many_replies: bool = False) -> Need:
    return Need(Direction.PUB, SubjectTemplate(pattern), many_replies)
