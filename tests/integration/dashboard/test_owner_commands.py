"""The owner's commands against the real API: `byok owner`, `byok key`, `byok banners`."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result

from bus_schemas.events import (
    BannerDismissed,
    CredentialRejected,
    CredentialStored,
    CredentialVerified,
)
from bus_schemas.events.banner import BannerCode
from bus_schemas.keys import owner_fingerprint
from platform_handlers.authority.tls import make_ca
from platform_handlers.owner.home import Home
from tests.integration.dashboard.conftest import Faces, Server, until
from tests.integration.dashboard.desk import KEY, Machine

PROVIDER = ("--provider", "anthropic")


class Desk(Machine):
    """An owner's machine that sends a key to acme-1."""

    async def set_key(self, *more: str, stdin: str = KEY + "\n") -> Result:
        """Run `byok key set acme-1 anthropic`."""
        return await self.byok("key", "set", "acme-1", "anthropic", *more, stdin=stdin)

    def compared(self) -> tuple[str, str]:
        """The option that stands for having read acme-1's console."""
        return "--server-fingerprint", self.faces.servers["acme-1"].fingerprint.lower()


@pytest.fixture
async def desk(faces: Faces, tmp_path: Path) -> Desk:
    """Acme's machine, with an owner key."""
    desk = Desk(faces, Home(tmp_path / "home"))
    await desk.begin()
    return desk


async def answering(server: Server, faces: Faces, *, reason: str | None = None) -> None:
    """Let *server* take or refuse the next credential of slot anthropic."""

    async def asked() -> bool:
        return bool(await faces.config.view.slots_of(server.server_id))

    await until(asked)
    slot = await faces.slot(server.server_id, "anthropic")
    if reason is None:
        await server.step(CredentialStored, slot, provider=slot.provider)
        await server.step(CredentialVerified, slot, verdict="valid", promoted=True)
    else:
        await server.step(CredentialRejected, slot, reason=reason)


async def test_keygen_prints_what_the_console_wants(faces: Faces, tmp_path: Path) -> None:
    """Twenty characters, the same that `byok owner fingerprint` prints."""
    desk = Desk(faces, Home(tmp_path / "home"))
    made = await desk.byok("owner", "keygen")
    expected = owner_fingerprint(desk.home.owner_key().public_key().public_bytes_raw())
    assert f"byok-vps join --owner {expected}" in made.output
    assert (await desk.byok("owner", "fingerprint")).output == f"{expected}\n"
    again = await desk.byok("owner", "keygen")
    assert (again.exit_code, "is there already" in again.output) == (77, True)


async def test_connect_says_who_we_are(desk: Desk) -> None:
    """A wrong token is noticed at once, and never shown."""
    answer = await desk.connect()
    assert "as acme (acme-1, acme-2)" in answer.output
    desk.faces.tokens["acme"] = "WRONG-CANARY"
    answer = await desk.connect()
    assert (answer.exit_code, "CANARY" in answer.output) == (77, False)


async def test_a_key_goes_from_sent_to_stored(desk: Desk) -> None:
    """Shown as it happens; exit code 0 only on the server's own word."""
    server = desk.faces.servers["acme-1"]
    answer, _ = await asyncio.gather(
        desk.set_key(*PROVIDER, *desk.compared()), answering(server, desk.faces)
    )
    assert answer.exit_code == 0, answer.output
    said = [answer.output.index(word) for word in ("sent ", "stored ", "verified ")]
    assert said == sorted(said)
    assert "Anthropic accepts it; used from now on" in answer.output
    assert "CANARY" not in answer.output
    assert desk.home.pinned("acme-1") == server.fingerprint
    status = await desk.byok("key", "status", "acme-1")
    assert "as you pinned it" in status.output
    assert "used from now on; no call has been answered with it yet" in status.output


async def test_a_rejected_key_ends_with_the_reason_in_words(desk: Desk) -> None:
    """Exit code 1, and what to do."""
    server = desk.faces.servers["acme-1"]
    answer, _ = await asyncio.gather(
        desk.set_key(*PROVIDER, *desk.compared()),
        answering(server, desk.faces, reason="owner_key_not_pinned"),
    )
    assert answer.exit_code == 1
    assert "byok-vps trust" in answer.output


async def test_a_server_that_is_off_is_said_to_be_so(desk: Desk) -> None:
    """Not stored is not a failure of the key: 75, and where to look later."""
    answer = await desk.set_key(*PROVIDER, *desk.compared(), "--wait", "0")
    assert answer.exit_code == 75
    assert "byok key status acme-1" in answer.output


async def test_a_new_server_is_not_trusted_on_the_platforms_word(desk: Desk) -> None:
    """Without the console's fingerprint nothing is asked for and nothing is sent."""
    answer = await desk.set_key(*PROVIDER)
    assert answer.exit_code == 77
    assert "--server-fingerprint" in answer.output
    wrong = await desk.set_key(*PROVIDER, "--server-fingerprint", "A" * 20)
    assert wrong.exit_code == 77
    assert desk.home.pinned("acme-1") is None
    assert not await desk.faces.config.view.slots_of("acme-1")


async def test_a_changed_server_key_is_refused_until_it_is_forgotten(desk: Desk) -> None:
    """The pin stands against the platform, and against a slip on the command line."""
    desk.home.pin("acme-1", "B" * 20)
    changed = await desk.set_key(*PROVIDER)
    assert (changed.exit_code, "Nothing was sent" in changed.output) == (77, True)
    assert (await desk.set_key(*PROVIDER, *desk.compared())).exit_code == 77
    status = await desk.byok("key", "status", "acme-1")
    assert "NOT the server you pinned" in status.output
    assert (await desk.byok("owner", "forget", "acme-1")).exit_code == 0
    assert (await desk.set_key(*PROVIDER, *desk.compared(), "--wait", "0")).exit_code == 75


async def test_a_reenrolled_server_gets_no_key_until_its_owner_says_so(desk: Desk) -> None:
    """Another machine under a known name: the fingerprint is compared anew, never taken over."""
    faces = desk.faces
    pinned = (await desk.set_key(*PROVIDER, *desk.compared(), "--wait", "0")).exit_code
    assert pinned == 75
    await faces.reenrol("acme-1")
    changed = await desk.set_key(*PROVIDER)
    assert (changed.exit_code, "Nothing was sent" in changed.output) == (77, True)
    assert (await desk.byok("owner", "forget", "acme-1")).exit_code == 0
    assert (await desk.set_key(*PROVIDER)).exit_code == 77  # and not on the platform's word alone
    assert (await desk.set_key(*PROVIDER, *desk.compared(), "--wait", "0")).exit_code == 75
    assert desk.home.pinned("acme-1") == faces.servers["acme-1"].fingerprint


@pytest.mark.parametrize(
    ("pasted", "words"),
    [(f"'{KEY}'\n", "quotation mark"), (f" {KEY}\n", "a space"), ("\n", "Nothing was entered")],
)
async def test_a_slip_while_pasting_is_told_and_nothing_is_sent(
    desk: Desk, pasted: str, words: str
) -> None:
    """Exit code 65; the key is not repeated."""
    answer = await desk.set_key(*PROVIDER, *desk.compared(), stdin=pasted)
    assert (answer.exit_code, "CANARY" in answer.output) == (65, False)
    assert words in answer.output
    assert not await desk.faces.config.view.slots_of("acme-1")


async def test_a_key_on_the_command_line_is_refused_and_not_repeated(desk: Desk) -> None:
    """It is in the shell's history already; it must not get into the terminal's log as well."""
    ended = await desk.set_key(KEY, *desk.compared(), *PROVIDER)
    assert ended.exit_code == 2
    assert "make a new one" in ended.output
    assert "CANARY" not in ended.output


async def test_another_providers_key_draws_a_warning(desk: Desk) -> None:
    """It is sent all the same: shapes change."""
    more = ("--provider", "openai", *desk.compared(), "--wait", "0")
    answer = await desk.set_key(*more)
    assert answer.exit_code == 75
    assert "looks like a key of Anthropic" in answer.output
    # From here on only the platform says that the slot is OpenAI's; it could have made that up.
    again = await desk.set_key("--wait", "0")
    assert (again.exit_code, "CANARY" in again.output) == (77, False)
    assert "--provider openai" in again.output


async def test_a_sign_in_is_read_from_standard_input(desk: Desk) -> None:
    """As one JSON document."""
    document = {
        "access_token": "A-CANARY",
        "refresh_token": "R-CANARY",
        "token_endpoint": "https://auth.example/token",
        "client_id": "c",
        "issuer": "https://auth.example",
    }
    more = (*PROVIDER, "--kind", "oauth", *desk.compared(), "--wait", "0")
    assert (await desk.set_key(*more, stdin="{}")).exit_code == 65
    answer = await desk.set_key(*more, stdin=json.dumps(document))
    assert (answer.exit_code, "CANARY" in answer.output) == (75, False)
    assert (await desk.faces.slot("acme-1", "anthropic")).kind == "oauth"


async def test_someone_elses_server_does_not_exist(desk: Desk) -> None:
    """The CLI learns no more than the API tells."""
    answer = await desk.byok("key", "status", "globex-1")
    assert (answer.exit_code, "no server called globex-1" in answer.output) == (65, True)
    assert (await desk.byok("key", "status", "../banners")).exit_code == 2


async def test_banners_are_listed_in_words_and_as_json(desk: Desk) -> None:
    """Open ones unless --all; the same shapes as the API's."""
    assert "Nothing needs you." in (await desk.byok("banners")).output
    blue, amber = await desk.faces.both_reuse_banners()
    table = (await desk.byok("banners")).output
    assert table.index("needs attention") < table.index("for information")
    await desk.faces.say(
        BannerDismissed,
        "acme",
        "acme-1/anthropic",
        BannerCode.API_KEY_REUSE,
        dismissed_by="acme",
        why="shared",
    )
    found = json.loads((await desk.byok("banners", "--json")).output)
    assert [banner["banner_id"] for banner in found["banners"]] == [amber.banner_id]
    every = json.loads((await desk.byok("banners", "--json", "--all")).output)
    assert {banner["banner_id"] for banner in every["banners"]} == {
        amber.banner_id,
        blue.banner_id,
    }


async def test_wrong_addresses_end_with_one_sentence(desk: Desk, tmp_path: Path) -> None:
    """A foreign CA is 77, nobody there is 69, and plain HTTP never gets the token."""
    nobody = await desk.byok("banners", "--api", "https://127.0.0.1:1")
    assert (nobody.exit_code, "cannot be reached" in nobody.output) == (69, True)
    plain = await desk.byok("banners", "--api", desk.faces.url.replace("https", "http"))
    assert (plain.exit_code, "https:// only" in plain.output) == (77, True)
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    assert (await desk.byok("banners", "--ca", str(junk))).exit_code == 77
    foreign = tmp_path / "foreign.pem"
    foreign.write_bytes(_another_ca())
    answer = await desk.byok("banners", "--ca", str(foreign))
    assert (answer.exit_code, "is not who it should be" in answer.output) == (77, True)


def _another_ca() -> bytes:
    return make_ca("another CA", now=datetime.now(UTC)).certificate


async def test_a_key_that_is_not_there_is_asked_for_before_anything_else(
    faces: Faces, tmp_path: Path
) -> None:
    """Each missing piece names the command that makes it."""
    desk = Desk(faces, Home(tmp_path / "home"))
    lost = await desk.byok("banners")
    assert (lost.exit_code, "byok owner connect" in lost.output) == (77, True)
    await desk.connect()
    answer = await desk.set_key(*PROVIDER)
    assert (answer.exit_code, "byok owner keygen" in answer.output) == (77, True)
