"""`docs/permissions.md`: the flow table for people. Pure."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from bus_schemas.flows import Account, Act, Flow, Role, flows
from bus_schemas.streams import stream_of

_HEAD: Final = """\
# Who may do what

Made from the table in `bus_schemas/flows.py` by `python -m bus_schemas`; do not edit. The
permissions in NATS tokens and the borders between the accounts are made from the same table; what
is not here is refused. `tests/integration/permissions` has everybody try everything on a real
nats-server.

- The ids in a row of `FLEET` are the user's own: a server speaks on no other server's subject.
- A subscriber's `{owner_id}` is its own owner, and its durable has its own name.
- Everybody may listen on `_INBOX.<own name>.>`, and on no one else's.
- `FLEET` and `READERS` reach `CORE` by these rows only, whatever a user's own token said.
- Which subject is purged stands in the request, where NATS does not look: whoever may purge in a
  stream may purge all of it.
- Within `CORE` an answer goes wherever its asker says, so handlers are kept apart from each other
  against mistakes, not against one that was taken over.

"""

_WORDS: Final[Mapping[Act, str]] = MappingProxyType(
    {
        Act.STORE: "stores",
        Act.ASK: "asks",
        Act.ANSWER: "answers, once each",
        Act.NUDGE: "is told that something changed",
        Act.READ_LAST: "reads the last message",
        Act.READ_STREAM: "reads all, in order",
        Act.NEXT: "pulls and acknowledges, by a durable made for it",
        Act.PURGE: "purges",
        Act.MANAGE: "makes and changes streams and durables",
    }
)


def permissions_page() -> str:
    """Return the page: a section for each account, a table for each role."""
    return (
        _HEAD + "\n\n".join(section for account in Account for section in _account(account)) + "\n"
    )


def _account(account: Account) -> Iterator[str]:
    yield f"## {account.value}"
    for role in Role:
        if role.account is account:
            rows = sorted(_row(flow) for flow in flows() if flow.role is role)
            head = ("| does | subject | stream |", "|---|---|---|")
            yield f"### {role.value}\n\n" + "\n".join((*head, *rows))


def _row(flow: Flow) -> str:
    subject = "everything" if flow.subject.pattern == ">" else f"`{flow.subject.pattern}`"
    kept = stream_of(flow.subject.wildcard) if flow.act is Act.STORE else flow.stream
    stream = f"`{kept.name}`" if kept else ""
    return f"| {_WORDS[flow.act]} | {subject} | {stream} |"
