"""The page in a real Chromium: live, quiet in its console, and usable without a mouse."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

from bus_schemas.api import SlotStep
from bus_schemas.events import (
    BannerCleared,
    BannerDismissed,
    BannerRaised,
    BannerReopened,
    BannerUpdated,
    CredentialInUse,
    CredentialStored,
    DismissalRequested,
    HealthReported,
)
from bus_schemas.events.banner import BannerCode, RotationNote, Sharing
from bus_schemas.events.health import Receipt, SlotHealth, Validity
from tests.integration.dashboard.conftest import START, Faces, as_json, until

pytestmark = pytest.mark.browser

COLOURS = {
    "light": {
        "amber": ("rgb(255, 244, 214)", "rgb(61, 35, 0)", "rgb(154, 103, 0)"),
        "blue": ("rgb(221, 244, 255)", "rgb(10, 48, 105)", "rgb(9, 105, 218)"),
    },
    "dark": {
        "amber": ("rgb(43, 32, 3)", "rgb(245, 217, 138)", "rgb(210, 153, 34)"),
        "blue": ("rgb(11, 34, 57)", "rgb(182, 222, 255)", "rgb(68, 147, 248)"),
    },
}

# WCAG 2.2 1.4.3, with its definitions of contrast ratio and relative luminance.
CONTRASTS = """() => {
  const lum = (rgb) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const f = rgb.map((v) => linear(v / 255));
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2];
  };
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const ground = (el) => {
    for (let at = el; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const el of document.querySelectorAll("body *")) {
    const own = [...el.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !el.checkVisibility() || el.closest(".unseen, noscript")) continue;
    const [a, b] = [lum(parse(getComputedStyle(el).color).slice(0, 3)), lum(ground(el))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${el.tagName} ${ratio.toFixed(2)}: ${el.textContent.trim()}`);
  }
  return found;
}"""


@dataclass
class Visit:
    """One signed-in page, and everything it complained about."""

    page: Page
    faces: Faces
    complaints: list[str] = field(default_factory=list)

    def card(self, code: BannerCode) -> Locator:
        """The card of one of acme-1's banners, on the slot that these tests use for its code."""
        slot = "anthropic" if code is BannerCode.API_KEY_REUSE else "openai"
        return self.page.locator(f"#b-acme-1_{slot}_{code.lower().replace('_', '-')}")


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium; it asks nobody but us."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--no-sandbox",  # the tests may run as root in a container
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        try:
            yield browser
        finally:
            await browser.close()


@pytest.fixture
async def visit(faces: Faces, chromium: Browser) -> AsyncIterator[Visit]:
    """Acme, signed in by a one-time link; no console error is forgiven."""
    # Chromium reads its CAs from the user's NSS store only; test_api checks the certificate.
    context = await chromium.new_context(ignore_https_errors=True)
    page = await context.new_page()
    seen = Visit(page, faces)

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            seen.complaints.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    await page.goto(await faces.link("acme"))
    await page.get_by_role("button", name="Sign in").press("Enter")
    await expect(page.locator("#link")).to_have_text("Live")
    yield seen
    await context.close()
    assert seen.complaints == []


async def test_the_link_leads_to_an_empty_board_without_leaving_the_secret_behind(
    visit: Visit,
) -> None:
    """The address no longer holds the secret, and the page says that all is quiet."""
    assert visit.page.url == f"{visit.faces.url}/"
    await expect(visit.page.get_by_text("Nothing needs you.")).to_be_visible()
    await expect(visit.page.locator("#summary")).to_have_text("All quiet.")
    assert await visit.page.evaluate("document.referrer") == ""
    assert await visit.page.evaluate("document.cookie") == ""


async def test_banners_arrive_live_and_say_how_much_they_matter(visit: Visit) -> None:
    """Amber above blue; a word and a shape as well as a colour; announced to screen readers."""
    await visit.faces.both_reuse_banners()
    cards = visit.page.locator("#open article")
    await expect(cards).to_have_count(2)
    await expect(cards.nth(0)).to_contain_text("Needs attention")
    await expect(cards.nth(0)).to_contain_text("another customer")
    await expect(cards.nth(1)).to_contain_text("For your information")
    await expect(cards.nth(1)).to_contain_text("acme-1 and acme-2 share one API key")
    shapes = [await cards.nth(at).locator("svg").inner_html() for at in range(2)]
    assert shapes[0] != shapes[1]
    news = visit.page.get_by_role("status")
    await expect(news).to_have_text("Needs attention: acme-1 and others will sign each other out")
    await expect(visit.page.locator("#summary")).to_have_text(
        "1 needs attention, 1 for your information"
    )
    await expect(visit.page.get_by_text("Nothing needs you.")).to_be_hidden()
    names = [await cards.nth(at).get_attribute("aria-labelledby") for at in range(2)]
    assert all([await visit.page.locator(f"[id='{name}']").count() == 1 for name in names])


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_colours_are_the_ones_that_were_measured(visit: Visit, scheme: str) -> None:
    """Amber and blue as decided, and every text on the page has a contrast of 4.5:1."""
    await visit.page.emulate_media(
        color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    await visit.faces.both_reuse_banners()
    await visit.faces.say(
        BannerDismissed, "acme", "acme-2/x", BannerCode.ROTATION_DUE, dismissed_by="a", why="b"
    )
    await visit.faces.say(BannerCleared, "acme", "acme-2", BannerCode.SERVER_SILENT)
    await expect(visit.page.locator("#cleared article")).to_have_count(1)
    for fold in ("dismissed", "cleared"):
        await visit.page.locator(f"#fold-{fold} > summary").click()
    for colour, expected in COLOURS[scheme].items():
        style = await visit.page.locator(f"#open .card.{colour}").evaluate(
            "e => (s => [s.backgroundColor, s.color, s.borderLeftColor])(getComputedStyle(e))"
        )
        assert tuple(style) == expected
    assert await visit.page.evaluate(CONTRASTS) == []


async def test_a_banner_is_dismissed_and_shown_again_by_keyboard(visit: Visit) -> None:
    """The card moves when the platform says so; the focus then goes to the next card."""
    blue, amber = await visit.faces.both_reuse_banners()
    summary = visit.card(BannerCode.OAUTH_REUSE).locator("summary")
    await summary.focus()
    await summary.press("Enter")
    reason = visit.card(BannerCode.OAUTH_REUSE).get_by_label("Why is this all right?")
    await expect(reason).to_be_focused()
    await reason.press("Escape")
    await expect(summary).to_be_focused()
    await summary.press("Enter")
    await expect(reason).to_be_focused()
    await visit.page.keyboard.type("We share it <b>on purpose</b>")
    await visit.page.keyboard.press("Enter")

    async def asked() -> bool:
        return len(await visit.faces.answers()) == 1

    await until(asked)
    [wish] = await visit.faces.answers()
    assert isinstance(wish, DismissalRequested)
    assert (wish.banner_id, wish.banner_revision) == (amber.banner_id, amber.revision)
    await expect(visit.card(BannerCode.OAUTH_REUSE)).to_have_attribute("data-list", "open")

    place, code = "acme-1/openai", BannerCode.OAUTH_REUSE
    await visit.faces.say(BannerDismissed, "acme", place, code, dismissed_by=wish.who, why=wish.why)
    await expect(visit.page.locator("#dismissed article")).to_have_count(1)
    await expect(visit.card(BannerCode.API_KEY_REUSE).locator("h3")).to_be_focused()
    await expect(visit.page.get_by_role("status")).to_contain_text("Dismissed:")
    await visit.page.locator("#fold-dismissed > summary").press("Enter")
    await expect(visit.card(code)).to_contain_text("We share it <b>on purpose</b>")

    await visit.page.get_by_role("button", name="Show again").press("Enter")

    async def undone() -> bool:
        return len(await visit.faces.answers()) == 2

    await until(undone)
    await visit.faces.say(BannerReopened, "acme", place, code)
    await expect(visit.page.locator("#open article")).to_have_count(2)
    await expect(visit.page.locator("#fold-dismissed")).to_be_hidden()
    assert blue.owner_id == "acme"


async def test_an_update_does_not_disturb_who_is_typing(visit: Visit) -> None:
    """The card is renewed around the words and the focus of the person."""
    await visit.faces.both_reuse_banners()
    card = visit.card(BannerCode.API_KEY_REUSE)
    await card.locator("summary").click()
    await expect(card.locator("input")).to_be_focused()
    await visit.page.keyboard.type("half a sen")
    updated = await visit.faces.say(
        BannerUpdated,
        "acme",
        "acme-1/anthropic",
        BannerCode.API_KEY_REUSE,
        sharing=Sharing(own_servers=("acme-2", "acme-3"), own_servers_total=2),
    )
    await expect(card).to_have_attribute("data-revision", str(updated.revision))
    await visit.page.keyboard.type("tence")
    await expect(card.locator("input")).to_have_value("half a sentence")


async def test_a_refused_dismissal_says_why_on_its_card(visit: Visit) -> None:
    """Nothing fails silently: the platform's sentence stands where the person looks."""
    await visit.faces.both_reuse_banners()
    card = visit.card(BannerCode.API_KEY_REUSE)
    await card.evaluate("card => { card.dataset.revision = '999999'; }")
    await card.locator("summary").click()
    await card.locator("input").fill("x")
    await card.get_by_role("button", name="Dismiss").click()
    await expect(card.get_by_role("alert")).to_contain_text("Look at it again.")
    visit.complaints[:] = [c for c in visit.complaints if "409" not in c]  # Chromium notes it


async def test_the_page_comes_back_by_itself_with_what_it_missed(visit: Visit) -> None:
    """While the stream was cut, things happened; nobody had to reload."""
    closing = visit.faces.app.state.closing
    closing.set()
    await expect(visit.page.locator("#link")).to_have_text("Reconnecting")
    await visit.faces.both_reuse_banners()
    closing.clear()
    await expect(visit.page.locator("#open article")).to_have_count(2, timeout=15_000)
    await expect(visit.page.locator("#link")).to_have_text("Live")


async def test_a_slot_turns_green_only_by_the_servers_receipt(visit: Visit) -> None:
    """Sent and stored are neutral; in use is the provider's answer, told by the server."""
    server, faces = visit.faces.servers["acme-1"], visit.faces
    async with faces.client("acme") as client:
        path = "/api/servers/acme-1/slots/anthropic"
        await client.post(path, **as_json(server.sealed(faces.owner_key)))
    slot = await faces.slot("acme-1", "anthropic")
    pill = visit.page.locator("#servers .server", has_text="acme-1").locator(".slots .pill")
    await expect(pill).to_have_text("On its way", timeout=10_000)
    await server.step(CredentialStored, slot, provider="anthropic")
    await faces.reach("acme-1", "anthropic", SlotStep.STORED)
    await visit.page.evaluate("refreshServers()")  # sooner than by its own clock
    await expect(pill).to_have_text("Stored")
    assert "good" not in (await pill.get_attribute("class") or "")
    await server.step(CredentialInUse, slot, provider_status=200)
    await faces.reach("acme-1", "anthropic", SlotStep.IN_USE)
    await visit.page.evaluate("refreshServers()")
    await expect(pill).to_have_text("In use")
    assert "good" in (await pill.get_attribute("class") or "")


async def test_a_rotation_is_told_with_the_commands_that_end_it(visit: Visit) -> None:
    """A stuck one needs attention, one that is due is for information; both say what to do."""
    notes = {
        BannerCode.ROTATION_STUCK: RotationNote(revision=4, waits_for="provider"),
        BannerCode.ROTATION_DUE: RotationNote(revision=3, age_days=83),
    }
    for code, note in notes.items():
        await visit.faces.say(BannerRaised, "acme", "acme-1/openai", code, rotation=note)
    stuck, due = (visit.card(code) for code in notes)
    await expect(stuck).to_contain_text("Needs attention")
    await expect(due).to_contain_text("For your information")
    codes = stuck.locator("code")
    await expect(codes.first).to_have_text("byok key verify acme-1 openai")
    await expect(codes.last).to_have_text("byok key abort acme-1 openai")
    await expect(due).to_contain_text("at least 83 days ago")
    await due.locator("summary").click()
    await expect(due.locator("label")).to_contain_text("It comes back at 90 days")


async def test_the_servers_last_report_says_what_may_not_be_used(visit: Visit) -> None:
    """A stopped slot is not green, whatever happened before; the receipt stays to be seen."""
    server, faces = visit.faces.servers["acme-1"], visit.faces
    async with faces.client("acme") as client:
        path = "/api/servers/acme-1/slots/anthropic"
        await client.post(path, **as_json(server.sealed(faces.owner_key)))
    slot = await faces.slot("acme-1", "anthropic")
    await server.step(CredentialInUse, slot, provider_status=200)
    await faces.reach("acme-1", "anthropic", SlotStep.IN_USE)
    receipt = Receipt(revision=1, short_tag="00c0ffee", provider_status=200, at=START)
    told = SlotHealth(
        slot_id="anthropic",
        provider="anthropic",
        revision=1,
        validity=Validity.VALID,
        receipt=receipt,
        age_seconds=1,
        stopped=True,
    )
    report = {"observed_generation": 1, "runtime_version": "1", "outbox_depth": 0}
    await server.say(HealthReported, slots=(told,), **report)
    await visit.page.evaluate("refreshServers()")
    card = visit.page.locator("#servers .server", has_text="acme-1")
    await expect(card.locator(".slots .pill")).to_have_text("Stopped")
    await expect(card).to_contain_text("status 200, with revision 1 (00c0ffee).")
    await server.say(HealthReported, slots=(told,), locked=True, **report)
    await visit.page.evaluate("refreshServers()")
    await expect(card.locator("h3 .pill")).to_have_text("locked")


async def test_the_page_fits_a_narrow_screen(visit: Visit) -> None:
    """320 pixels, as WCAG 2.2 1.4.10 asks: nothing scrolls sideways."""
    await visit.page.set_viewport_size({"width": 320, "height": 640})
    await visit.faces.both_reuse_banners()
    await expect(visit.page.locator("#open article")).to_have_count(2)
    await visit.card(BannerCode.OAUTH_REUSE).locator("summary").click()
    width = await visit.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 320


async def test_signing_out_leaves_nothing_to_see(visit: Visit) -> None:
    """Neither on the page nor behind the back button."""
    await visit.page.get_by_role("button", name="Sign out").press("Enter")
    await expect(visit.page.get_by_role("heading", name="You are signed out")).to_be_visible()
    await visit.page.go_back()
    await expect(visit.page.get_by_text("acme-1")).to_have_count(0)
    visit.complaints[:] = [c for c in visit.complaints if "401" not in c]  # the status of that page
