"""The bus as an AsyncAPI 3.1 document, made from the event classes and the table of flows. Pure.

Each channel is one subject template; each operation is one role that sends or receives there, as
the permissions allow it. Administration (streams, purges) is no message and is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bus_schemas import requests
from bus_schemas.approval import Approval, ApprovalReply
from bus_schemas.catalog import EventClass, catalog
from bus_schemas.envelope import CONTENT_TYPE
from bus_schemas.evaluation import (
    ChallengeReply,
    CommitReply,
    EvaluationReply,
    KeysReply,
    RefusalReply,
    SealedRequest,
    UnlockReply,
)
from bus_schemas.event import Contract
from bus_schemas.flows import WRITERS, Act, Flow, Role, flows
from bus_schemas.intake import FactDeclined, FactStored
from bus_schemas.json_schemas import wire_schema
from bus_schemas.streams import STREAMS, stream_of
from bus_schemas.subjects import SubjectTemplate

Json = dict[str, Any]

VERSION = "1.0.0"
"""Of the document; the messages carry their own majors."""

_PREFIX = "byok.v1."
_INBOX = "inbox"


@dataclass(frozen=True)
class _Request:
    """What is asked on a subject, and what may come back to the asker's inbox."""

    subject: SubjectTemplate
    body: type[Contract]
    replies: tuple[type[Contract], ...]


_REQUESTS = (
    _Request(
        requests.EVALUATE,
        SealedRequest,
        (ChallengeReply, KeysReply, UnlockReply, EvaluationReply, CommitReply, RefusalReply),
    ),
    _Request(requests.APPROVE, Approval, (ApprovalReply,)),
    _Request(requests.TOKEN, requests.RenewalRequest, (requests.Renewal, requests.RefusedReply)),
    _Request(requests.ENROL, requests.EnrolRequest, (requests.EnrolReply, requests.RefusedReply)),
)

_OF_INTAKE: tuple[type[Contract], ...] = (FactStored, FactDeclined)
"""What a server hears when it has asked for a fact to be stored."""

_SENDS = {Act.STORE, Act.ASK}
_RECEIVES = {Act.ANSWER, Act.NUDGE, Act.READ_LAST, Act.READ_STREAM, Act.NEXT}

_HOW = {
    Act.STORE: "stores it in the stream, with an acknowledgement",
    Act.ASK: "asks and waits for the reply",
    Act.ANSWER: "answers each request once",
    Act.NUDGE: "is nudged by new messages",
    Act.READ_LAST: "reads the last message of a subject",
    Act.READ_STREAM: "reads the whole stream in order",
    Act.NEXT: "pulls from a durable made beforehand",
}


def asyncapi() -> Json:
    """Return the document; event payloads are references to the JSON Schemas beside it."""
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "byok",
            "version": VERSION,
            "description": (
                "Customers' AI credentials that live on their own servers only, coordinated over "
                "NATS. Every event is a CloudEvents 1.0 envelope in structured JSON; the subject's "
                "ids, the envelope's source and the ids in the data must agree."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"bus": _server()},
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": _messages(),
            "schemas": _schemas(),
            "securitySchemes": {"nkey": _security()},
        },
    }


def _server() -> Json:
    return {
        "host": "{host}:{port}",
        "protocol": "nats",
        "description": "TLS 1.2 or newer, handshake first; plain connections are refused.",
        "variables": {
            "host": {"default": "localhost", "description": "A name in the certificate."},
            "port": {"default": "4222"},
        },
        "security": [{"$ref": "#/components/securitySchemes/nkey"}],
    }


def _security() -> Json:
    return {
        "type": "asymmetricEncryption",
        "description": (
            "A NATS user JWT, and the server's nonce signed with its nkey (Ed25519). The JWT's "
            "scope allows exactly the operations of one role."
        ),
    }


@cache
def _events_by_subject() -> Mapping[str, Sequence[EventClass]]:
    found: dict[str, list[EventClass]] = {}
    for event in catalog().values():
        found.setdefault(event.template.pattern, []).append(event)
    return found


def _name(template: SubjectTemplate) -> str:
    """Return a channel's name: the first token after the version, which no other template has."""
    return template.pattern.removeprefix(_PREFIX).partition(".")[0]


def _channels() -> Json:
    channels = {}
    for events in _events_by_subject().values():
        template = events[0].template
        channel = _channel(template, [event.type for event in events])
        channel["x-stream"] = stream_of(template.wildcard).name
        channels[_name(template)] = channel
    for request in _REQUESTS:
        channels[_name(request.subject)] = _channel(request.subject, [_asked(request)])
    channels[_INBOX] = {
        "address": None,
        "description": "The asker's own inbox: the reply subject of its request.",
        "messages": _message_refs(reply.__name__ for reply in _replies()),
    }
    return channels


def _channel(template: SubjectTemplate, messages: Iterable[str]) -> Json:
    channel: Json = {"address": template.pattern, "messages": _message_refs(messages)}
    if template.names:
        channel["parameters"] = {name: _parameter(name, template) for name in template.names}
    return channel


def _parameter(name: str, template: SubjectTemplate) -> Json:
    event = _events_by_subject().get(template.pattern, [None])[0]
    if event is None:
        return {"description": "Of the one that asks: its token names it."}
    return {
        "description": "One token; the same id stands in the data.",
        "location": f"$message.payload#/data/{name}",
    }


def _message_refs(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _asked(request: _Request) -> str:
    return request.body.__name__


def _operations() -> Json:
    """One operation for each role and channel and direction, whatever acts it takes."""
    acts: dict[tuple[Role, str, str], list[Act]] = {}
    for flow in flows():
        action = _action(flow.act)
        for template in _templates(flow) if action else ():
            acts.setdefault((flow.role, action, template), []).append(flow.act)
    return {
        f"{role.value}-{action}s-{_name(SubjectTemplate(pattern))}": _operation(
            role, action, pattern, found
        )
        for (role, action, pattern), found in acts.items()
    }


def _action(act: Act) -> str:
    return "send" if act in _SENDS else "receive" if act in _RECEIVES else ""


def _templates(flow: Flow) -> Iterable[str]:
    """Return the patterns a flow is about; a row over a whole stream is about all it keeps."""
    known = {SubjectTemplate(pattern).wildcard: pattern for pattern in _events_by_subject()}
    kept = {
        arrival: subject
        for stream in STREAMS
        for arrival, subject in zip(stream.arrivals, stream.subjects, strict=True)
    }
    wildcard = kept.get(flow.subject.wildcard, flow.subject.wildcard)
    if flow.stream and wildcard not in known:
        return [known[subject] for subject in flow.stream.subjects]
    return [known.get(wildcard, flow.subject.pattern)]


def _operation(role: Role, action: str, pattern: str, acts: Sequence[Act]) -> Json:
    name = _name(SubjectTemplate(pattern))
    how = " and ".join(_HOW[act] for act in dict.fromkeys(acts))
    operation: Json = {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": f"{role.value} {how}.",
        "tags": [{"name": role.value}, {"name": role.account.value}],
    }
    for request in _REQUESTS:
        if request.subject.pattern == pattern:
            operation["messages"] = _of_channel(name, [_asked(request)])
            operation["reply"] = {
                "channel": {"$ref": f"#/channels/{_INBOX}"},
                "messages": _of_channel(_INBOX, [reply.__name__ for reply in request.replies]),
            }
            return operation
    events = _events_by_subject()[pattern]
    if action == "send" and role is not Role.INTAKE:  # which passes on what others write
        events = [event for event in events if role in WRITERS[event.writer]]
    if {Act.ASK, Act.ANSWER} & set(acts):
        operation["reply"] = {
            "channel": {"$ref": f"#/channels/{_INBOX}"},
            "messages": _of_channel(_INBOX, [reply.__name__ for reply in _OF_INTAKE]),
        }
    operation["messages"] = _of_channel(name, [event.type for event in events])
    return operation


def _of_channel(channel: str, messages: Iterable[str]) -> list[Json]:
    return [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages]


def _messages() -> Json:
    messages = {event.type: _event_message(event) for event in catalog().values()}
    for contract in _contracts():
        messages[contract.__name__] = {
            "contentType": "application/json",
            "summary": _summary(contract),
            "payload": {"$ref": f"#/components/schemas/{contract.__name__}"},
        }
    return messages


def _event_message(event: EventClass) -> Json:
    return {
        "name": event.type,
        "title": event.__name__,
        "summary": _summary(event),
        "contentType": CONTENT_TYPE,
        "headers": {
            "type": "object",
            "required": ["Nats-Msg-Id"],
            "properties": {
                "Nats-Msg-Id": {"type": "string", "description": "The envelope's `id`."},
                "Content-Type": {"type": "string", "const": CONTENT_TYPE},
            },
        },
        "correlationId": {"location": "$message.payload#/correlationid"},
        "payload": {"$ref": f"./schemas/{event.type}.json"},
    }


def _contracts() -> list[type[Contract]]:
    bodies = [request.body for request in _REQUESTS]
    return list(dict.fromkeys([*bodies, *_replies()]))


def _replies() -> list[type[Contract]]:
    return [*(reply for request in _REQUESTS for reply in request.replies), *_OF_INTAKE]


def _schemas() -> Json:
    schemas: Json = {}
    for contract in _contracts():
        schema = wire_schema(contract, "#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[contract.__name__] = schema
    return schemas


def _summary(contract: type[Contract]) -> str:
    return (contract.__doc__ or "").partition("\n")[0]
