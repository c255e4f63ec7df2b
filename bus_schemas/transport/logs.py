"""JSON lines on standard error, with redaction as the last step before the renderer.

Redaction is the net below the rope: no call here passes a secret to a logger in the first place.
"""

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_MARK = "[redacted]"
_SECRET_NAME = re.compile(
    r"secret|password|passwd|seed|token$|jwt|authorization|credential$|api_?key|private|root_key"
    r"|preimage|share$|payload$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"byok-join-1\.[\w-]+"  # join tokens
    r"|\bS[OAUNCX][A-Z2-7]{56}\b"  # nkey seeds
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+"  # JWTs
    r"|\b(?:sk|pk|rk|gsk|xai|hf|ghp|gho|pplx|nvapi|AIza)[-_][\w-]{12,}|\bAIza[\w-]{20,}"  # API keys
    r"|-----BEGIN [A-Z ]*(?:PRIVATE KEY|SEED|JWT)-----.*",
    re.DOTALL,
)


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace what is named like a secret or looks like one, at any depth."""
    return {name: _redacted(name, value) for name, value in event.items()}


def _redacted(name: str, value: Any) -> Any:  # noqa: ANN401 (whatever a caller logged)
    if _SECRET_NAME.search(name):
        return _MARK
    if isinstance(value, str):
        return _SECRET_TEXT.sub(_MARK, value)
    if isinstance(value, dict):
        return {key: _redacted(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", inner) for inner in value]
    if isinstance(value, bytes | bytearray):
        return f"[{len(value)} bytes]"
    return value


LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
"""What `BYOK_LOG_LEVEL` may say; anything else is `info`."""


def log_to_stderr() -> None:
    """Configure structlog and the standard library's logging alike: JSON, UTC, no locals.

    At `debug` the libraries speak as well, through the same redaction.
    """
    level = LEVELS.get(os.environ.get("BYOK_LOG_LEVEL", "info").lower(), logging.INFO)
    libraries = logging.DEBUG if level == logging.DEBUG else logging.WARNING
    first: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = [
        # The plain formatter: it has no switch for locals because it never shows any.
        structlog.processors.format_exc_info,
        redact,
        structlog.processors.JSONRenderer(default=_type_only),
    ]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # asyncio and nats-py speak through the standard library; the net must hang below them too.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=first,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=libraries, handlers=[handler], force=True)


def _type_only(value: object) -> str:
    """Name the type of what JSON cannot hold; its repr might say too much."""
    return f"<{type(value).__name__}>"
