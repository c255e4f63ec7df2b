"""What the flow table means, in NATS's own terms: a second opinion on who reaches what.

Written by hand and apart from `authority.permissions`, which makes the tokens: it shares nothing
with it but the table. It answers for one concrete subject at a time, by matching.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from bus_schemas.flows import Account, Act, Flow, Role, flows
from bus_schemas.subjects import SubjectTemplate


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in."""

    role: Role
    name: str
    owner: str = ""

    @property
    def own(self) -> Mapping[str, str]:
        """What must stand in a hole of a subject for it to be this person's own."""
        match self.role:
            case Role.SERVER:
                return {"server_id": self.name}
            case Role.DOOR:
                return {"server_id": self.name}
            case Role.ENROLLING:
                return {"joiner": self.name}
            case Role.SUBSCRIBER:
                return {"owner_id": self.owner}
            case _:
                return {}

    @property
    def account(self) -> Account:
        """Where the person sits."""
        return self.role.account


EVERYBODY = (
    Person(Role.SERVER, "acme-1"),
    Person(Role.DOOR, "acme-1"),
    Person(Role.ENROLLING, "join-one"),
    Person(Role.SUBSCRIBER, "acme-sub", "acme"),
    Person(Role.WATCHER, "watch-all"),
    *(
        Person(role, role.value)
        for role in Role
        if role not in {Role.SERVER, Role.DOOR, Role.ENROLLING, Role.SUBSCRIBER, Role.WATCHER}
        and role is not Role.SETUP
    ),
    Person(Role.SETUP, "setup"),  # the last: it may take away what others are tried on
)
"""One of each role. Acme's neighbour is globex."""


def covers(wanted: str, subject: str) -> bool:
    """Whether the filter *wanted* takes in all that *subject* stands for, wildcards included."""
    filters, tokens = wanted.split("."), subject.split(".")
    for position, one in enumerate(filters):
        if one == ">":
            return len(tokens) > position
        if position == len(tokens) or tokens[position] == ">":
            return False
        if one not in {"*", tokens[position]}:
            return False
    return len(filters) == len(tokens)


def reached(who: Person, subject: str) -> str | None:
    """Return where in the core a message that *who* publishes arrives; None: refused."""
    theirs = subject
    if who.account is Account.READERS and subject.startswith("$JS."):
        theirs = subject.replace("$JS.CORE.API.", "$JS.API.", 1)
        if subject.startswith("$JS.API."):
            return None  # there it is the account's own, and it has none
    return theirs if any(covers(wanted, theirs) for wanted in _speaks(who)) else None


def hears(who: Person, subject_filter: str) -> bool:
    """Whether *who* may subscribe to *subject_filter*."""
    return any(covers(w, subject_filter) or slips(w, subject_filter) for w in _listens(who))


def slips(wanted: str, subject_filter: str) -> bool:
    """Whether nats-server takes a last `>` for a name, and so lets it stand where `*` is allowed.

    Seen on 2.15.1. It would widen a permission if deeper subjects existed; a test holds there are
    none.
    """
    stem, _, last = subject_filter.rpartition(".")
    return last == ">" and wanted.endswith(".*") and covers(wanted, f"{stem}.a-name")


def crosses(account: Account, subject: str) -> str | None:
    """Return where in the core *account*'s imports lead *subject*, whoever says it."""
    roles = (role for role in Role if role.account is account)
    # A name that nothing is bound to: imports know accounts, not users.
    found = (reached(_Anybody(role, "*", "*"), subject) for role in roles)
    return next((there for there in found if there), None)


class _Anybody(Person):
    """All users of a role at once."""

    @property
    def own(self) -> Mapping[str, str]:
        """No hole is bound."""
        return {}


@cache
def _speaks(who: Person) -> tuple[str, ...]:
    """Return the filters of what *who* may say, as the core names it."""
    mine = (flow for flow in flows() if flow.role is who.role)
    return tuple(subject for flow in mine for subject in _published(flow, who))


@cache
def _listens(who: Person) -> tuple[str, ...]:
    """Return the filters of what *who* may hear."""
    mine = (flow for flow in flows() if flow.role is who.role)
    listens = (flow for flow in mine if flow.act in {Act.ANSWER, Act.NUDGE})
    return (f"_INBOX.{who.name}.>", *(_bound(flow.subject, who) for flow in listens))


def _bound(template: SubjectTemplate, who: Person) -> str:
    return template.rewrite(**who.own)


def _published(flow: Flow, who: Person) -> Iterator[str]:
    """Yield the subjects in the core that a row of the table lets *who* speak on."""
    api, stream = "$JS.API", flow.stream.name if flow.stream else ""
    subject = _bound(flow.subject, who)
    durable = who.name
    match flow.act:
        case Act.STORE | Act.ASK:
            yield subject
        case Act.READ_LAST:
            yield f"{api}.DIRECT.GET.{stream}.{subject}"
        case Act.READ_STREAM:
            yield f"{api}.DIRECT.GET.{stream}"
            yield f"{api}.STREAM.INFO.{stream}"
        case Act.NEXT:
            yield f"{api}.CONSUMER.MSG.NEXT.{stream}.{durable}"
            yield f"{api}.CONSUMER.INFO.{stream}.{durable}"
            yield f"$JS.ACK.{stream}.{durable}.>"
        case Act.PURGE:
            yield f"{api}.STREAM.PURGE.{stream}"
        case Act.MANAGE:
            yield from (f"{api}.STREAM.{verb}.*" for verb in ("CREATE", "UPDATE", "INFO"))
            yield from (f"{api}.CONSUMER.{verb}.>" for verb in ("CREATE", "DELETE", "INFO"))
        case Act.ANSWER | Act.NUDGE:
            pass  # they listen
