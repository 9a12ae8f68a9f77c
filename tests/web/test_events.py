"""``/events`` on a real NATS: what is said is heard at once, and what was missed is told to whoever comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from streamapp.nats import feed
from streamapp.nats.feed import Place
from streamapp.tokens import TokensFile
from streamapp.web import events
from tests.kit.command_answers import streams_at
from tests.kit.waiting import eventually
from tests.messages.golden import golden, text
from tests.web.group import Group, running_group
from tests.web.test_access import AT


@pytest.fixture
async def group(nats_of_this_module: str, tmp_path: Path) -> AsyncIterator[Group]:
    file = TokensFile(tmp_path / "tokens")
    async with streams_at(nats_of_this_module) as client, running_group(tokens_file=file.path) as group:
        group.nats = client
        yield group


@dataclass
class Event:
    name: str
    id: str
    data: Any


class Events:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def next(self) -> Event:
        found = {"event": "", "id": "", "data": ""}
        async with asyncio.timeout(20):
            async for raw in self._answer.content:
                line = raw.decode().rstrip("\n")
                if not line:
                    return Event(found["event"], found["id"], json.loads(found["data"]))
                name, _, value = line.partition(": ")
                found[name] = value
        raise EOFError

    async def ends(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                await self.next()

    async def told(self) -> Event:
        while (event := await self.next()).name == "beat":
            pass
        return event


@asynccontextmanager
async def listening(group: Group, token: str | None = None, **headers: str) -> AsyncIterator[Events]:
    shown = {} if token is None else {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(group.workers[0].url.join(URL("/events")), headers={**shown, **headers}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        yield Events(answer)


async def say(group: Group, number: int, subject: str = "orders.filled.EURUSD") -> None:
    await group.nats.jetstream().publish(subject, json.dumps({"number": number}).encode())


async def test_what_is_said_is_heard_with_its_subject_and_an_id(group: Group) -> None:
    async with listening(group) as heard:
        hello = await heard.next()
        assert (hello.name, hello.data["resumed"]) == ("hello", False)
        places = [hello.id]
        subjects = ("orders.filled.EURUSD", "broker.fill.EURUSD", "accounts.a", "command_results.x")
        for number, subject in enumerate(subjects):
            await say(group, number, subject)
            event = await heard.told()
            assert event.data == {"subject": subject, "message": {"number": number}}
            places.append(event.id)
        assert len(set(places)) == 5


async def test_events_are_written_as_their_readers_know_them(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BEAT_S", 0.05)
    async with listening(group) as heard:
        hello = await heard.next()
        await say(group, 1)
        said = await heard.told()
        beat = await heard.next()
    for event, expected in zip((hello, said, beat), golden("views/events"), strict=True):
        moment = {name: expected["data"][name] for name in event.data if name == "at"}
        assert text({"event": event.name, "data": event.data | moment}) == text(expected)


async def test_signals_and_reports_are_not_told(group: Group) -> None:
    async with listening(group) as heard:
        await heard.next()
        await say(group, 1, "signals.approved.EURUSD")
        await say(group, 2, "mt5.report.a")
        await say(group, 3)
        assert (await heard.told()).data["message"] == {"number": 3}


async def test_who_comes_back_is_told_what_was_missed_in_order_and_once(group: Group) -> None:
    async with listening(group) as heard:
        await heard.next()
        await say(group, 1)
        last = (await heard.told()).id
    for number in (2, 3, 4):
        await say(group, number, "broker.fill.EURUSD" if number == 3 else "orders.filled.EURUSD")
    async with listening(group, **{"Last-Event-ID": last}) as heard:
        hello = await heard.next()
        assert (hello.data["resumed"], hello.data["missed"], hello.id) == (True, 3, last)
        await say(group, 5)
        assert [(await heard.told()).data["message"]["number"] for _ in range(4)] == [2, 3, 4, 5]


async def test_who_missed_nothing_is_told_so(group: Group) -> None:
    async with listening(group) as heard:
        last = (await heard.next()).id
    async with listening(group, **{"Last-Event-ID": last}) as heard:
        assert (await heard.next()).data["resumed"] is True


async def test_who_missed_too_much_or_knows_another_stream_is_told_to_ask_anew(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_MISSED", 2)
    async with listening(group) as heard:
        last = (await heard.next()).id
    for number in range(3):
        await say(group, number)
    for place in (last, "999999999-999999999"):
        async with listening(group, **{"Last-Event-ID": place}) as heard:
            hello = await heard.next()
            assert (hello.data["resumed"], hello.data["missed"]) == (False, 0)
            await say(group, 9)
            assert (await heard.told()).data["message"] == {"number": 9}


async def test_all_who_listen_share_one_subscription_and_there_is_none_without_them(group: Group) -> None:
    hub, js = group.workers[0].hub, group.nats.jetstream()
    before = len(await js.consumers_info("EXECUTION_OUT"))
    assert hub.is_idle
    async with listening(group) as first, listening(group) as second:
        await first.next()
        await second.next()
        assert len(await js.consumers_info("EXECUTION_OUT")) == before + 1
        await say(group, 1)
        assert (await first.told()).data == (await second.told()).data
    await eventually(lambda: hub.is_idle)

    async def gone() -> bool:
        return len(await js.consumers_info("EXECUTION_OUT")) == before

    await eventually(gone)


async def test_who_reads_too_slowly_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_WAITING", 2)
    listener = events.EventListener(Place(1, 1))
    over = []
    for _ in range(3):
        listener.put(b"x")
        over.append(listener.is_over)
    assert over == [False, False, True]
    assert await listener.take() == b""


async def test_who_leaves_while_the_subscription_is_made_ends_it(group: Group) -> None:
    hub = group.workers[0].hub
    for turns in range(300):
        listener = await hub.join()
        await asyncio.sleep(turns % 50 * 1e-4)  # at one moment after another of its making
        async with asyncio.timeout(20):
            await hub.close()
        assert (listener.is_over, hub.is_idle) == (True, True)


async def test_who_may_no_longer_read_hears_no_more(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BEAT_S", 0.05)
    assert group.tokens_file is not None
    file = TokensFile(group.tokens_file)
    secret = file.add("anna", "read", AT)
    async with listening(group, secret) as heard:
        assert (await heard.next()).name == "hello"
        assert (await heard.next()).name == "beat"
        file.revoke("anna")
        await heard.ends()


async def test_an_id_that_is_none_is_400(group: Group) -> None:
    status, body, _ = await group.ask("GET", group.workers[0], "/events?after=yesterday")
    assert (status, body["reason"]) == (400, "bad_query")


async def test_without_nats_it_is_503_and_nobody_listens() -> None:
    async with running_group() as group:
        status, body, headers = await group.ask("GET", group.workers[0], "/events")
        assert (status, body["reason"], headers["Retry-After"]) == (503, "no_events", "1")
        assert group.workers[0].hub.is_idle


async def test_silence_of_nats_ends_all_listeners_who_then_come_back(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SILENCE_S", 0.2)  # not even a heartbeat
    async with listening(group) as heard:
        last = (await heard.next()).id
        await heard.ends()
    monkeypatch.undo()
    await say(group, 7)
    async with listening(group, **{"Last-Event-ID": last}) as heard:
        await heard.next()
        assert (await heard.told()).data["message"] == {"number": 7}
