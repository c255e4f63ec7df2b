"""What every event class is made of."""

from datetime import date
from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from bus_schemas.fields import Counter, ServerId
from bus_schemas.subjects import SubjectTemplate


class Contract(BaseModel):
    """A frozen wire model whose errors never show the value that was wrong."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


class Writer(StrEnum):
    """Who may write an event; it fixes the envelope's `source`."""

    SERVER = "/servers/{server_id}"
    ISSUER = "/platform/issuer"
    CONFIG = "/platform/config"
    EVALUATOR = "/platform/evaluator"
    FINGERPRINT = "/platform/fingerprint"
    HEALTH = "/platform/health"
    API = "/platform/api"
    CLOCK = "/platform/clock"
    READER = "/platform/reader"

    def source_for(self, ids: dict[str, str]) -> str:
        """Return the `source` that agrees with the subject's ids."""
        return self.value.format(**ids)


class Event(Contract):
    """One kind of fact or message. Subclasses set the class variables; the catalogue lists them."""

    type: ClassVar[str]
    """`byok.<noun>.<past-verb>.v<major>`."""
    template: ClassVar[SubjectTemplate]
    writer: ClassVar[Writer]
    since: ClassVar[date]
    """When this major entered the catalogue; `catalog.HISTORY` tells the story."""

    @property
    def subject(self) -> str:
        """The subject this very event belongs on."""
        # Not dict(self): a field called `keys` would be taken for a mapping's method.
        return self.template.fill({name: getattr(self, name) for name in self.template.names})


class ServerFact(Event):
    """A fact that a server tells about itself."""

    writer: ClassVar[Writer] = Writer.SERVER

    server_id: ServerId
    incarnation: Counter
    """How often the evaluator has unlocked this server; grows at every start."""
    n: Counter
    """Stored counter of this server's facts; with `incarnation` it orders them, each once."""
