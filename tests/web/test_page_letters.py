"""The page's Attention in a real browser, over dead letters in a real Kafka."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from streamapp import topics
from streamapp.clock import utc_now
from streamapp.tokens import ROLES, TokensFile
from tables.accounts import StandingAlarm
from tests.kit.browser import running_browser
from tests.kit.command_answers import AnsweringDesk, streams_at
from tests.kit.letters import HOSTILE, THEIRS, LetterHouse, letter_house
from tests.kit.page import Tab, tab_at
from tests.kit.waiting import eventually
from tests.web.group import ACCOUNTS, running_group


@pytest_asyncio.fixture
async def house(kafka_bootstrap: str) -> AsyncIterator[LetterHouse]:
    async with letter_house(kafka_bootstrap) as house:
        yield house


async def test_dead_letters_and_alarms_are_shown_as_text_and_dealt_with(
    house: LetterHouse, nats_of_this_module: str, tmp_path: Path
) -> None:
    file = TokensFile(tmp_path / "tokens")
    secrets = {role: file.add(f"anna-{role}", role, utc_now()) for role in ROLES}
    hostile = await house.bury(HOSTILE, "not_json", sequence=2)
    theirs = await house.bury(THEIRS, sequence=3)
    async with (
        streams_at(nats_of_this_module) as client,
        running_group(tokens_file=file.path, letters=house.ledger(house.mended)) as group,
        running_browser() as browser,
    ):
        group.nats = client
        answering = await AnsweringDesk(client).start()
        alarm = StandingAlarm(name="revived", text=HOSTILE.decode(), first_at=utc_now(), at=utc_now())
        await group.put_alarms(ACCOUNTS[0], alarm)
        async with tab_at(browser, str(group.workers[0].url)) as tab:
            await tab.open("attention")
            await look(tab.page, hostile)
            await tab.login(secrets["admin"])
            await tab.see("attention")
            await deal_with(tab, house, hostile, theirs)
            await tab.page.keyboard.press("Escape")
            await tab.press(f"Acknowledge revived of {ACCOUNTS[0]}")
            await group.put_alarms(ACCOUNTS[0])  # as its worker does
            await tab.confirm(reason="the strategy was checked")
            await tab.page.locator(".items li.alarm").wait_for(state="detached")
            assert (await tab.page.title(), await tab.page.locator("main img").count()) == ("Attention – streamapp", 0)
        [(subject, command, _)] = answering.heard
        assert (subject, command.reason) == (f"commands.alarm.acknowledge.{ACCOUNTS[0]}", "the strategy was checked")
        assert command.values.alarm_id == alarm.alarm_id


async def look(page: Any, hostile: str) -> None:
    """See everything without a login, and no button."""
    letter = page.locator(".items li.letter", has_text=f"Dead letter {hostile}: it is no JSON")
    await letter.wait_for()
    assert await letter.locator("pre").text_content() == HOSTILE.decode()
    assert "It would be a dead letter again" in await letter.text_content()
    alarm = page.locator(".items li.alarm", has_text=f"Alarm: revived, {ACCOUNTS[0]}")
    await alarm.wait_for()
    assert HOSTILE.decode() in await alarm.text_content()
    assert await page.locator(".items button").count() == 0


async def deal_with(tab: Tab, house: LetterHouse, hostile: str, theirs: str) -> None:
    page = tab.page
    await tab.press(f"Re-drive dead letter {theirs}")
    await tab.confirm(reason="field_names set")
    await page.locator(".items li.letter", has_text=f"Dead letter {theirs}").wait_for(state="detached")
    [(_, payload, _)] = await house.read(topics.SIGNALS_APPROVED)
    assert json.loads(payload) == THEIRS
    assert await page.get_by_label(f"Re-drive dead letter {hostile}").count() == 0
    await page.get_by_label(f"Acknowledge dead letter {hostile}").click()
    await page.fill("dialog input[name=reason]", "its sender is mended")
    # Somebody else was faster: the server's own word counts, and the page says it.
    await house.ledger().acknowledge(hostile, by="boris", reason="I was faster")
    await page.click("dialog button[type=submit]")
    await page.locator("dialog [role=alert]", has_text="was acknowledged already, by boris").wait_for()
    await eventually(lambda: _is_empty(page), "an empty list of letters")


async def _is_empty(page: Any) -> bool:
    return bool(await page.locator(".items li.letter").count() == 0)
