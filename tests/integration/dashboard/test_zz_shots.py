import asyncio, sys
import pytest
from playwright.async_api import async_playwright
from bus_schemas.api import SlotStep, SlotView, StepView
from bus_schemas.events import *
from bus_schemas.events.banner import *
from bus_schemas.fields import at_utc, CredentialKind
import time
async def test_shots(faces):
    f=faces
    def slot(server,slot,provider,step,kind="api_key",reason=None):
        f.slots.slots[server,slot]=SlotView(slot_id=slot,provider=provider,kind=kind,revision=3,steps=(StepView(step=SlotStep.SENT,revision=3,at=at_utc(time.time())),))
        if step!=SlotStep.SENT: f.slots.report(server,slot,step,reason)
    slot("acme-1","anthropic","anthropic",SlotStep.IN_USE)
    slot("acme-1","openai","openai",SlotStep.STORED,"oauth")
    slot("acme-2","anthropic","anthropic",SlotStep.SENT)
    slot("acme-2","mistral","mistral",SlotStep.REJECTED,reason="owner_key_not_pinned")
    async with async_playwright() as p:
        b=await p.chromium.launch(executable_path="/usr/bin/chromium",args=["--no-sandbox","--disable-gpu"])
        c=await b.new_context(ignore_https_errors=True,viewport={"width":1280,"height":860})
        page=await c.new_page()
        page.on("console",lambda m:print("console",m.text)); page.on("pageerror",lambda e:print("pageerror",e))
        await page.goto(await f.link("acme")); await page.screenshot(path="/tmp/s-login.png")
        await page.click("button"); await page.wait_for_selector("#link[data-state=live]")
        await page.screenshot(path="/tmp/s-empty.png")
        await f.both_reuse_banners()
        await page.wait_for_selector("#open .card.amber")
        await f.say(BannerRaised,"acme","acme-2",BannerCode.SERVER_SILENT)
        await f.say(BannerRaised,"acme","acme-2/mistral",BannerCode.ROTATION_DUE)
        await f.say(BannerDismissed,"acme","acme-2/mistral",BannerCode.ROTATION_DUE,dismissed_by="acme",why="The yearly renewal is in January")
        await f.say(BannerCleared,"acme","acme-2/anthropic",BannerCode.KEY_MISSING)
        await page.wait_for_selector("#cleared .line",state="attached")
        await page.wait_for_timeout(600)
        await page.screenshot(path="/tmp/s-light.png",full_page=True)
        await page.emulate_media(color_scheme="dark"); await page.screenshot(path="/tmp/s-dark.png",full_page=True)
        await page.click("#open .card.amber summary"); await page.wait_for_timeout(200)
        await page.click("#fold-dismissed > summary");await page.click("#fold-cleared > summary")
        await page.emulate_media(color_scheme="light")
        await page.screenshot(path="/tmp/s-open.png",full_page=True)
        await page.set_viewport_size({"width":390,"height":844}); await page.screenshot(path="/tmp/s-narrow.png",full_page=True)
        await b.close()
