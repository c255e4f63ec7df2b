"""The part of `aiohttp.web` that is in use: an HTTP server, without the framework on top of it.

`aiohttp.web` itself brings routes, files and a runner along, which would cost each server 1.4 MB.
"""

from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server

__all__ = ["BaseRequest", "RequestPayloadError", "Response", "Server", "StreamResponse"]
