"""`byok demo`: watch the whole system work, on this machine alone."""

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console

from bus_schemas.providers import load_providers
from platform_handlers.demo.screen import Screen
from platform_handlers.demo.stage import Stage
from platform_handlers.demo.story import ApiKey, Story, all_raised, key_cleared
from platform_handlers.owner.asking import read_api_key
from platform_handlers.until_stopped import until_stopped


@click.command()
@click.option("--once", is_flag=True, help="End when the story is told, instead of going on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option(
    "--key", "provider", metavar="PROVIDER", help="Ask for a key and use that one; it stays here."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep everything in this new folder; without it all is removed at the end.",
)
def demo(once: bool, as_json: bool, provider: str | None, folder: Path | None) -> None:  # noqa: FBT001 (flags)
    """Watch one shared key and one shared login raise banners, and a rotation clear them."""
    key = _ask_for_key(provider) if provider else ApiKey()
    with _folder(folder) as place:
        try:
            asyncio.run(_run(place, key, once=once, as_json=as_json))
        except asyncio.CancelledError:  # SIGTERM in the middle of the story, like Ctrl-C there
            raise click.Abort from None


async def _run(folder: Path, key: ApiKey, *, once: bool, as_json: bool) -> None:
    screen = Screen(Console(stderr=True, highlight=False))
    story = Story(Stage(folder), screen.step)
    task = asyncio.current_task()
    if task:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        before, after = await _tell(story, screen, key)
        if as_json:
            seconds = round(screen.seconds, 1)
            answer = {
                "banners_before_rotation": before,
                "banners_after_rotation": after,
                "seconds": seconds,
            }
            click.echo(json.dumps(answer))
        if not once:
            await until_stopped(_stay(story, screen))
    finally:
        screen.end()
        await story.close()


async def _tell(
    story: Story, screen: Screen, key: ApiKey
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    screen.chapter("A platform that never sees a key")
    await story.open_platform()
    screen.chapter("Two owners, three servers")
    await story.add_owners()
    screen.chapter("Credentials, sealed to the servers")
    await story.send_credentials(key)
    before = await story.banners_when(all_raised)
    screen.banners(before)
    screen.chapter("acme rotates the key on acme-2")
    await story.rotate(key)
    await story.call(key.provider)
    after = await story.banners_when(key_cleared)
    screen.banners(after)
    screen.chapter("The same from the ledger")
    await story.verify_replay()
    return before, after


async def _stay(story: Story, screen: Screen) -> None:
    """Keep running until Ctrl-C, with the page open to both owners."""
    ca = story.installation.ca
    notes = (f"your browser will warn: the certificate is signed by {ca}", "Ctrl-C ends the demo")
    screen.links(await story.links(), notes)
    while True:
        story.stage.check()
        await asyncio.sleep(1)


def _ask_for_key(provider: str) -> ApiKey:
    if provider not in load_providers():
        known = ", ".join(load_providers())
        raise click.BadParameter(f"{provider} is not one of: {known}", param_hint="--key")
    return ApiKey(provider, read_api_key(load_providers()[provider].name))


@contextlib.contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        try:
            wanted.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise click.BadParameter(f"{wanted} is there already", param_hint="--folder") from None
        yield wanted.absolute()
        return
    temporary = Path(tempfile.mkdtemp(prefix="byok-demo-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
