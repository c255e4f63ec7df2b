"""Pull the plug on one process of each kind in the middle of the story: it still ends right."""

import asyncio
import os
import signal
import time
from pathlib import Path

from platform_handlers.demo.stage import DemoFailed, Stage
from platform_handlers.demo.story import ApiKey, Story, all_raised, key_cleared
from tests.system.processes import children

PATIENCE_SECONDS = 40


async def insist(story: Story, *arguments: str) -> str:
    """Run `byok key set` as a person would: again, while it cannot get through."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await story.set_key(*arguments)
        except DemoFailed:
            if time.monotonic() > deadline:
                raise


async def crash(story: Story, name: str) -> None:
    """End *name* as a power cut would, then start it once more."""
    await asyncio.to_thread(story.stage.kill, name)
    story.stage.restart(name)


async def crash_bus(story: Story) -> None:
    """Kill nats-server itself; its supervisor notices, ends, and is started anew."""
    supervisor = story.stage.processes["nats"]
    [server] = children(supervisor.pid)
    os.kill(server, signal.SIGKILL)
    await asyncio.to_thread(supervisor.wait, 20)
    story.stage.restart("nats")


async def test_the_loop_ends_right_whoever_is_killed_in_the_middle(tmp_path: Path) -> None:
    """Kill -9 of platform, evaluator, nats-server and a server loses and repeats nothing."""
    story = Story(Stage(tmp_path), lambda _text: None)
    key = ApiKey()
    try:
        await story.open_platform()
        await story.add_owners()
        for victim, arguments in (
            ("acme-1", ("acme", "acme-1", key.provider, key.secret)),
            ("platform", ("acme", "acme-2", key.provider, key.secret)),
            ("evaluator", ("acme", "acme-1", *story.login())),
        ):
            setting = asyncio.create_task(insist(story, *arguments))
            await crash(story, victim)
            await setting
        setting = asyncio.create_task(insist(story, "globex", "globex-1", *story.login()))
        await crash_bus(story)
        await setting
        raised = await story.banners_when(all_raised)
        assert len(raised) == 4
        await story.rotate(key)
        after = await story.banners_when(key_cleared)
        states = {(row["code"], row["server"]): row["state"] for row in after}
        assert states == {
            ("API_KEY_REUSE", "acme-1"): "cleared",
            ("API_KEY_REUSE", "acme-2"): "cleared",
            ("OAUTH_REUSE", "acme-1"): "raised",
            ("OAUTH_REUSE", "globex-1"): "raised",
        }
        assert await story.verify_replay() == 6
    finally:
        await story.close()
