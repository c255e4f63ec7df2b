"""Looks for `byok-vps doctor` whether it is this server's gateway that answers. Changes nothing."""

import aiohttp

from bus_schemas.finding import Finding, Grade
from vps_runtime.gateway.problem import PROBLEM_HEADER
from vps_runtime.gateway.upstream import open_client
from vps_runtime.state import StateFolder

_SECONDS = 5.0


async def gateway_finding(state: StateFolder) -> Finding:
    """Ask the gateway without a token, which it must refuse."""
    try:
        url = state.gateway_url.read_text("ascii").strip()
    except FileNotFoundError:
        detail = "does not listen; is `byok-vps run` running? gateway_… in its log says why not"
        return Finding(Grade.WARN, "gateway", detail)
    except (OSError, ValueError) as error:
        detail = f"{state.gateway_url} cannot be read: {type(error).__name__}"
        return Finding(Grade.WARN, "gateway", detail)
    try:
        async with open_client() as client:
            wait = aiohttp.ClientTimeout(total=_SECONDS)
            async with client.get(url, timeout=wait, allow_redirects=False) as answer:
                ours = PROBLEM_HEADER in answer.headers
    except (aiohttp.ClientError, OSError):
        return Finding(Grade.BAD, "gateway", f"nobody answers at {url}; restart `byok-vps run`")
    if not ours:
        detail = f"another program answers at {url}: end it, delete {state.agent_token}, which it"
        return Finding(Grade.BAD, "gateway", f"{detail} may have seen, and restart `byok-vps run`")
    return Finding(Grade.OK, "gateway", f"answers at {url}")
