"""What operators and subscribers run: events, replay, subscriber. Read only, by permission."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from platform_handlers.authority.installation import write_bus_url
from tests.conftest import Platform
from tests.telling import TAG_A, Teller, banners_until, handling, observed, provisioned

Ran = tuple[int, str, str]


@pytest.fixture
async def story(platform: Platform, tmp_path: Path) -> Platform:
    """Two servers of one owner share a key, and their banners were raised."""
    tell = Teller(platform)
    async with handling(platform, tmp_path / "handler"):
        await tell(provisioned("acme", "acme-1"), provisioned("acme", "acme-2"))
        await tell(observed("acme-1", TAG_A, n=1), observed("acme-2", TAG_A, n=1))
        await banners_until(platform, lambda banners: len(banners) == 2)
    write_bus_url(platform.installation, platform.server.target.url)
    return platform


async def start(platform: Platform, folder: Path, *words: str) -> asyncio.subprocess.Process:
    """Start `byok *words*` in *folder*, which keeps what it writes."""
    pipe = asyncio.subprocess.PIPE
    state = ("--state", str(platform.installation.root))
    command = (sys.executable, "-m", "platform_handlers", *state, *words)
    paths = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    return await asyncio.create_subprocess_exec(
        *command, stdout=pipe, stderr=pipe, cwd=folder, env=os.environ | paths
    )


async def byok(platform: Platform, folder: Path, *words: str) -> Ran:
    """Run `byok *words*` to its end."""
    process = await start(platform, folder, *words)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_events_are_shown_in_order_and_bounded(story: Platform, tmp_path: Path) -> None:
    """`tail --no-follow` ends at the head; each line names sequence, type and subject."""
    code, out, _ = await byok(story, tmp_path, "events", "tail", "--no-follow")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["1", "2", "3", "4"]
    assert "byok.fingerprint.observed.v1" in out
    code, out, _ = await byok(
        story, tmp_path, "events", "tail", "--stream", "banners", "--limit", "1", "--json"
    )
    assert code == 0
    assert json.loads(out)["data"]["code"] == "API_KEY_REUSE"
    code, out, _ = await byok(story, tmp_path, "events", "top")
    assert code == 0
    assert sorted(line.split() for line in out.splitlines()) == [
        ["1", "50%", "acme-1"],
        ["1", "50%", "acme-2"],
    ]


async def test_a_replay_agrees_with_what_was_published(story: Platform, tmp_path: Path) -> None:
    """`replay --verify` finds the same bytes; without it, the events are printed."""
    code, out, err = await byok(story, tmp_path, "replay", "--verify")
    assert (code, json.loads(out)["same"], json.loads(out)["agrees"]) == (0, 2, True)
    assert "ledger 1 to 4" in err
    code, out, _ = await byok(story, tmp_path, "replay", "--to", "4")
    assert code == 0
    assert out.count("byok.banner.raised.v1") == 2


async def test_a_range_that_is_not_there_is_refused(story: Platform, tmp_path: Path) -> None:
    """Both ends must lie in the ledger; the answer says what it holds."""
    code, out, err = await byok(story, tmp_path, "replay", "--to", "999")
    assert (code, out) == (77, "")
    assert "the ledger holds 1 to 4" in err


async def test_a_subscriber_gets_its_own_durable_and_listens(
    story: Platform, tmp_path: Path
) -> None:
    """`subscriber add` writes credentials that `listen` pulls banners with, acknowledging each."""
    code, _, _ = await byok(story, tmp_path, "subscriber", "add", "pager", "--owner", "acme")
    assert code == 0
    file = tmp_path / "pager.creds"
    assert file.stat().st_mode & 0o777 == 0o600
    process = await start(story, tmp_path, "subscriber", "listen", "pager", "--json")
    assert process.stdout is not None
    async with asyncio.timeout(30):
        lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
    process.terminate()
    await process.communicate()
    assert {line["data"]["server_id"] for line in lines} == {"acme-1", "acme-2"}


def credentials_in(folder: Path) -> list[Path]:
    """Return the credentials files in *folder*."""
    return list(folder.glob("*.creds"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("pager",), 2),
        (("pager", "--owner", "acme", "--all"), 2),
        (("a.b", "--all"), 77),
        (("pager", "--owner", "*"), 77),
    ],
    ids=["nobody", "both", "dotted-name", "wildcard-owner"],
)
async def test_a_subscriber_that_cannot_be_is_refused(
    story: Platform, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    """A name becomes a subject token and a permission: nothing odd gets in."""
    ended, _, err = await byok(story, tmp_path, "subscriber", "add", *words)
    assert ended == code
    assert err.strip()
    assert not credentials_in(tmp_path)
