"""Who is measured: nginx and LiteLLM's proxy, each as its own documentation would have it fast."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.gateway.processes import stop
from benchmarks.gateway.talk import KEY, MODEL

BENCH: Final = Path(__file__).parents[2] / ".bench"
"""Where `make bench` puts what it measures against."""
_START_SECONDS: Final = 60.0
CHAT: Final = "/v1/chat/completions"
_MASTER_KEY: Final = "sk-made-up-master-key-0123456789abcdef0123456789abcdef"
"""LiteLLM does not start without one; it stands for the token that our gateway asks for."""


@dataclass(frozen=True)
class Way:
    """A way to the provider's chat completions."""

    name: str
    port: int
    path: str = CHAT
    token: str = KEY
    pid: int | None = None
    """Whose CPU and memory it costs; None for the direct way."""


@contextlib.asynccontextmanager
async def nginx(folder: Path, provider: int) -> AsyncIterator[Way]:
    """Run nginx as a bare streaming reverse proxy that puts in the key: one worker."""
    port = _free_port()
    own = folder / "nginx"
    own.mkdir()
    temporary = "".join(
        f"  {kind}_temp_path {own}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (own / "nginx.conf").write_text(
        f"daemon off;\nworker_processes 1;\npid {own}/pid;\nerror_log stderr;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")  # the folder is ours alone
        + "events { worker_connections 512; }\n"
        f"http {{\n  access_log off;\n{temporary}"
        f"  upstream provider {{ server 127.0.0.1:{provider}; keepalive 32;"
        " keepalive_requests 100000000; }\n"
        f"  server {{\n    listen 127.0.0.1:{port};\n    keepalive_requests 100000000;\n"
        "    location / {\n      proxy_pass http://provider;\n      proxy_http_version 1.1;\n"
        '      proxy_set_header Connection "";\n'
        f'      proxy_set_header Authorization "Bearer {KEY}";\n'
        "      proxy_buffering off;\n      proxy_request_buffering off;\n"
        "      client_max_body_size 64m;\n    }\n  }\n}\n"
    )
    command = [_nginx(), "-p", str(own), "-c", str(own / "nginx.conf"), "-e", "stderr"]
    with _running(command, own / "log", {}) as process:
        await _until_open(port, process, own / "log")
        yield Way("nginx", port, token="unused", pid=process.pid)


@contextlib.asynccontextmanager
async def litellm(folder: Path, provider: int) -> AsyncIterator[tuple[Way, Way]]:
    """Run LiteLLM's proxy; give its way through its router, and the one that passes things on.

    One uvicorn worker on uvloop, as its "Server Tuning" says for a core; no database, no
    callbacks, no retries, its log at errors, nothing fetched from the network.
    """
    port = _free_port()
    own = folder / "litellm"
    own.mkdir()
    base = f"http://127.0.0.1:{provider}"
    model = {"model": f"openai/{MODEL}", "api_base": f"{base}/v1", "api_key": KEY}
    passing_on = {"path": "/raw", "target": base, "include_subpath": True}
    headers = {"Authorization": f"Bearer {KEY}", "content-type": "application/json"}
    configuration = {
        "model_list": [{"model_name": MODEL, "litellm_params": model}],
        "litellm_settings": {"num_retries": 0, "disable_token_counter": True},
        "router_settings": {"disable_cooldowns": True},
        "general_settings": {
            "disable_spend_logs": True,
            "disable_error_logs": True,
            "disable_budget_reservation": True,
            "pass_through_endpoints": [passing_on | {"headers": headers}],
        },
    }
    (own / "config.yaml").write_text(json.dumps(configuration))  # JSON is YAML
    environment = {
        "HOME": str(own),
        "LITELLM_MASTER_KEY": _MASTER_KEY,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DONT_SHOW_FEEDBACK_BOX": "true",
        **dict.fromkeys(
            (
                "LITELLM_LOCAL_MODEL_COST_MAP",
                "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS",
                "LITELLM_LOCAL_AUTOROUTER_PRESETS",
                "LITELLM_LOCAL_BLOG_POSTS",
                "LITELLM_LOCAL_POLICY_TEMPLATES",
            ),
            "True",
        ),
    }
    command = [
        str(BENCH / "litellm" / "bin" / "litellm"),
        *("--config", str(own / "config.yaml"), "--host", "127.0.0.1"),
        *("--port", str(port), "--num_workers", "1"),
    ]
    with _running(command, own / "log", environment) as process:
        await _until_open(port, process, own / "log")
        routed = Way("LiteLLM", port, token=_MASTER_KEY, pid=process.pid)
        yield routed, Way("LiteLLM passing on", port, "/raw" + CHAT, _MASTER_KEY, process.pid)


def versions() -> dict[str, str]:
    """Return what nginx and LiteLLM say they are."""
    said = subprocess.run([_nginx(), "-v"], check=True, capture_output=True, text=True).stderr
    python = str(BENCH / "litellm" / "bin" / "python")
    ask = "from importlib.metadata import version; print(version('litellm'))"
    run = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    return {"nginx": said.strip().rpartition("/")[2], "LiteLLM": run.stdout.strip()}


def _nginx() -> str:
    unpacked = BENCH / "nginx" / "root" / "usr" / "sbin" / "nginx"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    found = str(unpacked) if unpacked.exists() else shutil.which("nginx", path=path)
    if not found:
        raise FileNotFoundError("there is no nginx; run: make bench")
    return found


@contextlib.contextmanager
def _running(
    command: list[str], log: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=log.parent,
            env={"PATH": os.environ.get("PATH", ""), **environment},
        )
    try:
        yield process
    finally:
        stop(process)


async def _until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        await asyncio.sleep(0.05)
    said = await asyncio.to_thread(log.read_text, errors="replace")
    raise RuntimeError(f"{process.args!r} does not listen:\n{said[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
