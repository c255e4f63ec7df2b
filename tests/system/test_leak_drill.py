"""The leak drill: 23 providers' canaries through every flow and error path, then the search."""

import base64
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote_from_bytes

import httpx
import pytest
import pytest_asyncio

from platform_handlers.demo.stage import Stage
from platform_handlers.demo.story import Story
from tests import canaries
from tests.provider.process import provider_process
from tests.system.conftest import Tapped
from tests.system.drill import FULL, OWNER, PLANTED, SERVER, Drill, memory, trusting
from tests.system.processes import children
from tests.system.secrets_hunt import hits, hits_in_folder

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = (canaries.MARK, canaries.SPILLED)
BLIND = ("platform", "evaluator", "nats")
"""Processes that must never have a credential in memory."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def drill(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Drill]:
    """Play all acts; the processes go on running."""
    folder: Path = tmp_path_factory.mktemp("drill")
    temporary = folder / "tmp"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch, provider_process(accepts_all=True) as provider:
        patch.setenv("BYOK_LOG_LEVEL", "debug")
        patch.setenv("TMPDIR", str(temporary))
        found = Drill(Story(Stage(folder), lambda _text: None), int(time.time()), provider)
        try:
            await found.open()
            await found.send_everything()
            await found.send_what_is_refused()
            await found.send_mutations()
            await found.spill()
            await found.paste_badly()
            await found.crash_the_agent()
            await found.call()
            await found.live_on()
            yield found
        finally:
            await found.story.close()


async def test_every_act_was_played(drill: Drill) -> None:
    """The drill is worth something only if each path was really taken."""
    assert len(canaries.everything()) >= 23
    assert drill.refused >= 200
    assert len(drill.crashes) == 4
    assert [PLANTED in words for words in drill.crashes] == [True, True, True, False]
    assert "Traceback" in drill.crashes[1]
    assert "Traceback" in drill.crashes[2]
    assert FULL in drill.crashes[3]


async def test_the_gateway_gives_no_key_to_its_agent(drill: Drill) -> None:
    """The provider repeated it in body and head of each refusal; the agent saw stars."""
    statuses = [answer.status_code for answer in drill.answers]
    assert statuses[:1] + statuses[-9:] == [200, 400, 401, 403, 429, 500, 400, 400, 401, 403]
    echoed = [answer for answer in drill.answers if answer.status_code == 429]
    assert ["****" in answer.text for answer in echoed] == [True]
    seen = b"\n".join(f"{one.headers}\n{one.text}".encode() for one in drill.answers)
    assert hits("answers", seen, BOTH) == []


async def test_the_gateway_s_log_is_searched(drill: Drill) -> None:
    """What it says is in the folder of the next test, at its chattiest level."""
    log = drill.stage.log(SERVER)
    assert drill.stage.folder in log.parents
    assert "gateway_listens" in log.read_text()


async def test_no_file_holds_a_credential(drill: Drill) -> None:
    """Logs, databases with their write-ahead logs, vaults, temporary files, the bus's own store."""
    assert hits_in_folder(drill.stage.folder, BOTH) == []


async def test_no_stream_holds_a_credential(drill: Drill) -> None:
    """Everything that any stream keeps, as it comes out of it: the store itself is encrypted."""
    tapped = Tapped(drill.story, [], [], {}, bytearray())
    streams = await tapped.streams()
    assert SERVER.encode() in streams
    assert hits("streams", streams, BOTH) == []


async def test_no_face_shows_a_credential(drill: Drill) -> None:
    """The page and the API, as the owner sees them after all that."""
    address = drill.home.address()
    links = await drill.stage.command(
        "platform_handlers",
        *("--state", str(drill.story.installation.root), "owner", "link", OWNER),
    )
    async with httpx.AsyncClient(
        base_url=address.url, verify=trusting(address.ca_file), follow_redirects=True
    ) as browser:
        door = await browser.get(links.strip())
        page = await browser.post(str(door.url), headers={"Origin": address.url})
        headers = {"Authorization": f"Bearer {address.token()}"}
        paths = ("/", "/api/servers", f"/api/servers/{SERVER}", "/api/banners")
        shown = [(await browser.get(path, headers=headers)).content for path in paths]
        shown.append(page.content)
    assert any(SERVER.encode() in seen for seen in shown)
    assert hits("faces", b"\n".join(shown), BOTH) == []


@pytest.mark.parametrize("name", BLIND)
async def test_no_blind_process_ever_had_a_credential(drill: Drill, name: str) -> None:
    """An image of the process's memory, as a core file would be, holds none that was sealed.

    What an owner sent in the clear by mistake went through the platform's buffers and is left out.
    """
    pid = drill.stage.processes[name].pid
    if os.geteuid() != 0:  # then the protection itself is all there is to see
        with pytest.raises(PermissionError):
            memory(pid)
        return
    for process in (pid, *children(pid)):  # nats-server itself is a child of `byok nats run`
        image = memory(process)
        assert sum(map(len, image.values())) > 1_000_000
        assert hits(name, b"\0".join(image.values()), [canaries.MARK]) == []


async def test_the_hunt_finds_planted_leaks(drill: Drill, tmp_path: Path) -> None:
    """In a file in any dress, and in the memory of the one process that does hold the keys."""
    raw = canaries.MARK.encode()
    leaks = [raw, raw.hex().encode(), canaries.MARK.encode("utf-16-be")]
    leaks += [canaries.MARK.encode("utf-16-le"), base64.b64encode(b"ab" + raw + b"c")]
    leaks += [base64.urlsafe_b64encode(raw + b"\xff"), quote_from_bytes(b"\xff" + raw).encode()]
    for number, leak in enumerate(leaks):
        (tmp_path / f"leak-{number}").write_bytes(b"x" + leak + b"x")
    assert len(hits_in_folder(tmp_path, BOTH)) == len(leaks)
    if os.geteuid() == 0:
        image = memory(drill.stage.processes[SERVER].pid)
        assert hits(SERVER, b"\0".join(image.values()), [canaries.MARK])
