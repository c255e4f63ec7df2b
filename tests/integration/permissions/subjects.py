"""Every subject there is, made from the catalogue, the flow table, the streams and JetStream's API.

Two of each id: acme's own and globex's. A new event, request, stream or hole is in here the
moment it is declared; a new verb of nats-server fails a test until it is.
"""

from collections.abc import Iterator
from itertools import product

from bus_schemas import requests
from bus_schemas.catalog import catalog
from bus_schemas.flows import flows
from bus_schemas.streams import STREAMS
from bus_schemas.subjects import SubjectTemplate

IDS = {
    "server_id": ("acme-1", "globex-1"),
    "owner_id": ("acme", "globex"),
    "joiner": ("join-one", "join-other"),
    "name": ("acme-sub", "globex-sub"),
}
_ANY_ID = ("one", "other")
"""For a hole that nobody is bound to, such as a slot."""

STREAM_VERBS = (
    "CREATE",
    "UPDATE",
    "INFO",
    "DELETE",
    "PURGE",
    "MSG.GET",
    "MSG.DELETE",
    "SNAPSHOT",
    "RESTORE",
    "LEADER.STEPDOWN",
    "PEER.REMOVE",
    "PEER.EVACUATE",
    "CANCEL_MOVE",
)
CONSUMER_VERBS = (
    "CREATE",
    "DURABLE.CREATE",
    "INFO",
    "DELETE",
    "MSG.NEXT",
    "PAUSE",
    "RESET",
    "UNPIN",
    "LEADER.STEPDOWN",
    "PEER.REMOVE",
    "PEER.EVACUATE",
)
OTHER_VERBS = (
    "INFO",
    "STREAM.LIST",
    "STREAM.NAMES",
    "STREAM.TEMPLATE.CREATE.BYOK_NEW",
    "ACCOUNT.PURGE.A",
    "ACCOUNT.STREAM.MOVE.A.BYOK_LEDGER",
    "ACCOUNT.STREAM.CANCEL_MOVE.A.BYOK_LEDGER",
    "META.LEADER.STEPDOWN",
    "META.RESCUE",
    "SERVER.REMOVE",
    "SERVER.EVACUATE",
)
_CONSUMERS = ("acme-sub", "globex-sub", "watch-all", "new")
_STREAMS = (*(stream.name for stream in STREAMS), "BYOK_NEW")
_PREFIXES = ("$JS.API", "$JS.CORE.API", "$JS.other.API")

SYSTEM = (
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.CLAIMS.LIST",
    "$SYS.REQ.CLAIMS.DELETE",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SYS.REQ.ACCOUNT.CORE.INFO",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.SERVER.PING.JSZ",
    "$SYS.REQ.SERVER.NA.KICK",
    "$SYS.REQ.SERVER.NA.LDM",
    "$SYS.REQ.SERVER.NA.RELOAD",
    "$SYS.ACCOUNT.CORE.CONNECT",
    "$SYS.SERVER.NA.STATSZ",
    "$SYS.DEBUG.SUBSCRIBERS",
    "$JS.EVENT.ADVISORY.API",
    "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.BYOK_BANNERS.acme-sub",
    "$JS.EVENT.METRIC.CONSUMER.ACK.BYOK_BANNERS.acme-sub",
    "$JS.FC.BYOK_BANNERS.acme-sub.x",
    "$JS.M.x",
    "$JS.S.x",
    "$JS.SNAPSHOT.ACK.BYOK_LEDGER.x",
    "$JS.ACK",
    "$KV.bucket.key",
    "$O.bucket.C.x",
    "$O.bucket.M.x",
    "$MQTT.msgs.x",
    "$SRV.PING",
    "$SRV.INFO.byok",
    "$NRG.V.x",
    "$GR.x",
    "_GR_.x.y",
    "_R_",
    "byok",
    "byok.v1",
    "byok.v1.unheard-of.acme-1",
    "byok.v2.fingerprint.acme-1",
    "BYOK.V1.FINGERPRINT.acme-1",
    "byok.v1.fingerprint",
    "byok.v1.fingerprint.acme-1.more",
    "fingerprint.acme-1",
    "x",
)


def templates() -> tuple[SubjectTemplate, ...]:
    """Return every subject of the system, whoever declared it."""
    declared = [
        *(cls.template for cls in catalog().values()),
        *(value for value in vars(requests).values() if isinstance(value, SubjectTemplate)),
        *(flow.subject for flow in flows() if flow.subject.pattern != ">"),
    ]
    known = {template.wildcard: template for template in declared if template.names}
    known |= {t.pattern: t for t in declared if not t.names and t.pattern not in known}
    for kept in _kept():
        known.setdefault(kept, SubjectTemplate(kept))
    return tuple(known[key] for key in sorted(known))


def _kept() -> Iterator[str]:
    """Yield what streams keep, and where they tell of it."""
    for stream in STREAMS:
        yield from stream.subjects
        republished = stream.configuration().get("republish")
        if republished:
            yield republished["dest"]


def filled(template: SubjectTemplate) -> list[str]:
    """Return *template* with acme's and with globex's ids, in every mixture."""
    choices = [[(name, one) for one in IDS.get(name, _ANY_ID)] for name in template.names]
    found = [template.rewrite(**dict(choice)) for choice in product(*choices)]
    return [subject.replace("*", _ANY_ID[0]).replace(">", _ANY_ID[1]) for subject in found]


def of_the_system() -> list[str]:
    """Return every subject that an event, a request or a stream of ours has."""
    return sorted({subject for template in templates() for subject in filled(template)})


def of_jetstream() -> list[str]:
    """Return every verb of JetStream's API on every stream, durable and subject."""
    kept = {
        stream.name: [
            subject
            for template in templates()
            if template.wildcard in stream.subjects
            for subject in filled(template)
        ]
        for stream in STREAMS
    } | {"BYOK_NEW": ["x"]}
    verbs = list(OTHER_VERBS)
    for stream in _STREAMS:
        verbs += [f"STREAM.{verb}.{stream}" for verb in STREAM_VERBS]
        verbs += [f"CONSUMER.{verb}.{stream}" for verb in ("CREATE", "LIST", "NAMES")]
        verbs += [f"CONSUMER.{v}.{stream}.{c}" for v in CONSUMER_VERBS for c in _CONSUMERS]
        verbs += [f"CONSUMER.CREATE.{stream}.{c}.{kept[stream][0]}" for c in _CONSUMERS]
        verbs += [f"DIRECT.GET.{stream}", *(f"DIRECT.GET.{stream}.{s}" for s in kept[stream])]
    asked = [f"{prefix}.{verb}" for prefix in _PREFIXES for verb in verbs]
    acked = [f"$JS.ACK.{s}.{c}.1.1.1.1.0" for s in _STREAMS for c in _CONSUMERS]
    with_domain = [f"$JS.ACK._.A.{s}.{c}.1.1.1.1.0.x" for s in _STREAMS for c in _CONSUMERS]
    return [*asked, *acked, *with_domain]


def inboxes() -> list[str]:
    """Return inboxes of everybody and of nobody."""
    people = ("acme-1", "globex-1", "join-one", "acme-sub", "globex-sub", "config", "nobody")
    return [f"_INBOX.{name}.{rest}" for name in people for rest in ("x", "x.y")] + ["_INBOX.x"]


def all_subjects() -> list[str]:
    """Return everything that one may try to publish on."""
    return [*of_the_system(), *of_jetstream(), *inboxes(), *SYSTEM]


def all_filters() -> list[str]:
    """Return everything that one may try to subscribe to: each subject, and wider and wider."""
    wide = {">", "*", "*.>", "*.*.>", "$JS.>", "$JS.*.>", "$SYS.>", "_INBOX.>", "_INBOX.*.>"}
    for subject in (*of_the_system(), *inboxes(), *SYSTEM, *_samples()):
        tokens = subject.split(".")
        for position in range(len(tokens)):
            before = tokens[:position]
            wide.add(".".join([*before, ">"]))
            wide.add(".".join([*before, "*", *tokens[position + 1 :]]))
        wide.add(subject)
    return sorted(wide)


def _samples() -> list[str]:
    """A few of JetStream's: nobody may listen on any, so that these stand for all."""
    return [subject for subject in of_jetstream() if "acme" in subject and "LEDGER" not in subject]
