"""JSON Schemas of the wire, made from the classes: what anybody may check a message against.

Pure. Draft 2020-12. The parser here is stricter in one thing only: it also holds the ids inside
against the subject and the source.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import BytesSchema

from bus_schemas.envelope import envelope_model
from bus_schemas.event import Event

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Wire(GenerateJsonSchema):
    """Pydantic's own generator, but for bytes, whose lengths it would give before encoding."""

    def bytes_schema(self, schema: BytesSchema) -> JsonSchemaValue:
        """Return the schema of base64url text (RFC 4648 section 5, padding may be left out)."""
        described: JsonSchemaValue = {
            "type": "string",
            "contentEncoding": "base64url",
            "pattern": "^[A-Za-z0-9_-]*={0,2}$",
        }
        if (shortest := schema.get("min_length")) is not None:
            described["minLength"] = -(-shortest * 4 // 3)
        if (longest := schema.get("max_length")) is not None:
            described["maxLength"] = -(-longest // 3) * 4
        return described

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 (pydantic's union)
        """Leave out titles such as "Server Id": they repeat the name."""
        del schema
        return False


def wire_schema(model: type[BaseModel], ref_template: str = DEFAULT_REF_TEMPLATE) -> dict[str, Any]:
    """Return the schema of what a reader accepts as *model*."""
    return model.model_json_schema(
        schema_generator=_Wire, ref_template=ref_template, mode="validation"
    )


def event_schema(event: type[Event]) -> dict[str, Any]:
    """Return the schema of a whole message: the envelope with *event* as its `data`."""
    return {
        "$schema": DIALECT,
        "$id": f"urn:byok:schema:{event.type}",
        **wire_schema(envelope_model(event)),
    }
