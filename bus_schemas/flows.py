"""Who may say what: the one table that permissions, imports and their tests are made from.

A row says that *role* may perform *act* on *subject*. Servers and readers sit in accounts of
their own and reach the core only through imports: within one account NATS never checks a reply
subject, so a server could have a PubAck stored under a neighbour's subject.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from bus_schemas import requests
from bus_schemas.catalog import catalog
from bus_schemas.event import Writer
from bus_schemas.intake import admitted
from bus_schemas.streams import BANNERS, CONFIG, HEALTH, LEDGER, PARKED, RATCHET, STREAMS, Stream
from bus_schemas.subjects import SubjectTemplate

API = "$JS.API"
"""Prefix of the JetStream API."""
API_FROM_READERS = "$JS.CORE.API"
"""The same from READERS, as a JetStream domain that every client knows how to name.

nats-server itself answers `$JS.API.>` in an account without JetStream with an error, and that
answer would overtake the imported one (seen on 2.15.1).
"""


class Account(StrEnum):
    """The three accounts (and SYS, which holds no role of ours but the issuer's pushes)."""

    CORE = "CORE"
    FLEET = "FLEET"
    READERS = "READERS"


class Role(StrEnum):
    """Everybody who may connect, one NATS user kind each."""

    SETUP = "setup"
    ISSUER = "issuer"
    INTAKE = "intake"
    CONFIG = "config"
    EVALUATOR = "evaluator"
    FINGERPRINT = "fingerprint"
    HEALTH = "health"
    API = "api"
    SERVER = "server"
    DOOR = "door"
    ENROLLING = "enrolling"
    DASHBOARD = "dashboard"
    OPS = "ops"
    SUBSCRIBER = "subscriber"
    WATCHER = "watcher"

    @property
    def account(self) -> Account:
        """The account this role's users belong to."""
        if self in {Role.SERVER, Role.DOOR, Role.ENROLLING}:
            return Account.FLEET
        if self in {Role.DASHBOARD, Role.OPS, Role.SUBSCRIBER, Role.WATCHER}:
            return Account.READERS
        return Account.CORE

    @property
    def api(self) -> str:
        """Prefix under which this role reaches the JetStream API."""
        return API_FROM_READERS if self.account is Account.READERS else API


class Act(StrEnum):
    """What a role does with a subject."""

    STORE = "store"
    """Publish into a stream and get its PubAck."""
    ASK = "ask"
    """Send a request to a handler."""
    ANSWER = "answer"
    """Subscribe to requests and reply once."""
    NUDGE = "nudge"
    """Listen to a stream's subject, only to learn that something changed."""
    READ_LAST = "read-last"
    """Direct get of the last message on a subject."""
    READ_STREAM = "read-stream"
    """Batched direct get over a whole stream, and its info. No consumer is ever made."""
    NEXT = "next"
    """Pull from, look at and acknowledge one pre-made durable."""
    PURGE = "purge"
    """Purge subjects of a stream."""
    MANAGE = "manage"
    """Create and update streams and durables."""


@dataclass(frozen=True)
class Flow:
    """One row of the table."""

    role: Role
    act: Act
    subject: SubjectTemplate
    stream: Stream | None = None


WRITERS: Mapping[Writer, tuple[Role, ...]] = MappingProxyType(
    {
        Writer.SERVER: (Role.SERVER,),
        Writer.ISSUER: (Role.ISSUER,),
        Writer.CONFIG: (Role.CONFIG,),
        Writer.EVALUATOR: (Role.EVALUATOR,),
        Writer.FINGERPRINT: (Role.FINGERPRINT,),
        Writer.HEALTH: (Role.HEALTH,),
        Writer.API: (Role.API,),
        Writer.CLOCK: (Role.FINGERPRINT, Role.HEALTH),
        Writer.READER: (Role.CONFIG, Role.EVALUATOR, Role.FINGERPRINT, Role.HEALTH),
    }
)
"""Which roles may write as each writer."""

_LEDGER_READERS = (Role.CONFIG, Role.EVALUATOR, Role.FINGERPRINT, Role.HEALTH, Role.OPS)


def _stores() -> list[Flow]:
    """Return the rows of each event family and writer, taken from the event classes themselves."""
    by_intake = {s for stream in STREAMS for s in stream.through_intake}
    rows: dict[Flow, None] = {}
    for cls in catalog().values():
        for role in WRITERS[cls.writer]:
            through = cls.template.wildcard in by_intake
            direct = [Flow(role, Act.STORE, cls.template)]
            rows |= dict.fromkeys(_admission(role, cls.template) if through else direct)
    return list(rows)


def _admission(role: Role, subject: SubjectTemplate) -> list[Flow]:
    """*role* has its facts on *subject* stored by the intake, which counts them (ADR-18)."""
    return [
        Flow(role, Act.ASK, subject),
        Flow(Role.INTAKE, Act.ANSWER, subject),
        Flow(Role.INTAKE, Act.STORE, SubjectTemplate(admitted(subject.pattern))),
    ]


def _whole(stream: Stream, *roles: Role) -> list[Flow]:
    """*roles* read all of *stream*, woken by what it tells."""
    return [
        flow
        for role in roles
        for flow in (
            Flow(role, Act.READ_STREAM, SubjectTemplate(">"), stream),
            *(Flow(role, Act.NUDGE, SubjectTemplate(s), stream) for s in stream.nudges),
        )
    ]


def _template(event_type: str) -> SubjectTemplate:
    return catalog()[event_type].template


def flows() -> tuple[Flow, ...]:
    """Return every allowed flow; what is not here is refused."""
    config = _template("byok.config.desired.v1")
    sealed = _template("byok.credential.sealed.v1")
    banner = _template("byok.banner.raised.v1")
    ratchet = _template("byok.ratchet.advanced.v1")
    health = _template("byok.health.reported.v1")
    return (
        *_stores(),
        *_whole(LEDGER, *_LEDGER_READERS),
        *_whole(HEALTH, Role.HEALTH, Role.OPS),
        *_whole(BANNERS, Role.DASHBOARD, Role.OPS),
        *_whole(PARKED, Role.OPS),
        Flow(Role.SERVER, Act.READ_LAST, config, CONFIG),
        Flow(Role.SERVER, Act.READ_LAST, sealed, CONFIG),
        Flow(Role.SERVER, Act.NUDGE, config, CONFIG),
        Flow(Role.SERVER, Act.ASK, requests.EVALUATE),
        Flow(Role.SERVER, Act.ASK, requests.TOKEN),
        Flow(Role.DOOR, Act.ASK, requests.TOKEN),
        Flow(Role.ENROLLING, Act.ASK, requests.ENROL),
        Flow(Role.EVALUATOR, Act.ANSWER, requests.EVALUATE),
        Flow(Role.API, Act.ASK, requests.APPROVE),
        Flow(Role.EVALUATOR, Act.ANSWER, requests.APPROVE),
        Flow(Role.ISSUER, Act.ANSWER, requests.TOKEN),
        Flow(Role.ISSUER, Act.ANSWER, requests.ENROL),
        Flow(Role.CONFIG, Act.READ_LAST, config, CONFIG),
        Flow(Role.CONFIG, Act.READ_LAST, sealed, CONFIG),
        Flow(Role.CONFIG, Act.PURGE, sealed, CONFIG),
        Flow(Role.CONFIG, Act.READ_LAST, health, HEALTH),
        Flow(Role.EVALUATOR, Act.READ_LAST, ratchet, RATCHET),
        Flow(Role.INTAKE, Act.READ_LAST, ratchet, RATCHET),
        Flow(Role.EVALUATOR, Act.READ_LAST, _template("byok.epoch.opened.v1"), LEDGER),
        Flow(Role.FINGERPRINT, Act.READ_LAST, banner, BANNERS),
        Flow(Role.FINGERPRINT, Act.READ_LAST, _template("byok.clock.ticked.v1"), LEDGER),
        Flow(Role.HEALTH, Act.READ_LAST, _template("byok.clock.ticked.v1"), LEDGER),
        Flow(Role.SUBSCRIBER, Act.NEXT, banner, BANNERS),
        Flow(Role.SUBSCRIBER, Act.READ_LAST, banner, BANNERS),
        Flow(Role.WATCHER, Act.NEXT, banner, BANNERS),
        Flow(Role.WATCHER, Act.READ_LAST, banner, BANNERS),
        Flow(Role.SETUP, Act.MANAGE, SubjectTemplate(">")),
    )
