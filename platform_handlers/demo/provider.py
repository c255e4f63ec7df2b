"""A made-up AI provider on this machine: the demo's keys are sealed for it and go nowhere else.

Run as `python -m platform_handlers.demo.provider PORT`. It takes whatever key it is shown, since
the demo's open nothing, and prints none.
"""

import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_CREDENTIALS = ("authorization", "x-api-key", "x-goog-api-key")


def made_up_provider() -> Starlette:
    """Return the provider as an ASGI application."""
    return Starlette(routes=[Route("/{path:path}", _answer, methods=["GET", "POST"])])


async def _answer(request: Request) -> Response:
    if not any(name in request.headers for name in _CREDENTIALS):
        return JSONResponse({"error": {"type": "authentication_error"}}, 401)
    if request.url.path.endswith("/messages"):
        return JSONResponse(
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "text", "text": "Hello from a made-up provider."}],
            }
        )
    return JSONResponse({"object": "list", "data": []})


def main(port: int) -> None:
    """Answer on 127.0.0.1:*port* until SIGTERM."""
    import uvicorn  # noqa: PLC0415 (it is slow to import)

    uvicorn.run(made_up_provider(), port=port, log_config=None, access_log=False, lifespan="off")


if __name__ == "__main__":
    main(int(sys.argv[1]))
