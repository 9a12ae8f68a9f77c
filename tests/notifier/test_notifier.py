"""The notifier on a real Kafka, with receivers that are slow, away and killed at: nothing lost, nobody waits."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from streamapp import topics
from streamapp.domain.vocabulary import time_text
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.fill import FillMessage
from tests.kit.waiting import eventually
from tests.notifier.worlds import (
    ACCOUNT,
    PASSWORD,
    SECRET_PATH,
    NotifierWorld,
    ReceiverServer,
    notifier_world,
    now,
    receiver,
    rejected,
    rejection,
)

pytest.importorskip("apprise", reason="apprise is not installed: it comes with the part notifier")
pytestmark = pytest.mark.stack


@pytest.fixture
async def world(tmp_path: Path, kafka_bootstrap: str) -> AsyncIterator[NotifierWorld]:
    async with notifier_world(tmp_path, kafka_bootstrap) as made:
        yield made


@pytest.fixture
def first() -> Iterator[ReceiverServer]:
    with receiver() as made:
        yield made


@pytest.fixture
def second() -> Iterator[ReceiverServer]:
    with receiver() as made:
        yield made


async def test_every_rule_tells_its_event_once_and_no_secret_leaves_the_file(
    world: NotifierWorld, first: ReceiverServer, second: ReceiverServer
) -> None:
    world.receivers(first.url, f"ops = {second.url}")
    await world.start(rules='{"dead_letter": {"tag": "ops"}, "rejected": {"minimum": "critical"}}', per_minute=100)
    at = now() - timedelta(minutes=10)
    doubt = rejection(1, at=at).model_copy(update={"kind": "in_doubt", "error_id": "order-1:1:in_doubt:suspicion"})
    unprotected = rejection(2, at=at).model_copy(update={"kind": "unprotected", "error_id": "order-2:1:unprotected:7"})
    state = AccountMessage(account=ACCOUNT, connection="ready", equity="1000", currency="EUR", at=at)
    stopped = {"trading_cause": "news", "trading_by": "ann", "trading_since": at}
    halted = state.model_copy(update={"trading": "halted", **stopped})
    reducing = state.model_copy(update={"trading": "reducing", **stopped, "trading_by": "guard max_drawdown"})
    warned = state.model_copy(update={"detail": "warning: max_daily_loss: expected", "equity": Decimal(990)})
    broken = BreakMessage(
        break_id="b1", account=ACCOUNT, kind="volume", symbol="EUR@all", first_seen=at, last_seen=at, at=at
    )
    fill = FillMessage(
        fill_id="f1", order_id=None, account=ACCOUNT, symbol="EURUSD", side="sell", entry="out", reason="so", deal=1,
        ticket=1, position_id=1, volume="0.1", price="1.1", profit="-12.5", commission="-0.5", currency="EUR", at=at,
    )  # fmt: skip
    for _ in range(2):  # as after a crash of a trading worker, under the same ids
        await world.commit(doubt, unprotected, rejection(3, at=at), broken, fill)
    await world.commit(halted, halted, reducing, state, warned)
    await world.bury(DeadLetter(b"content", "no_account", "account: got null", "NATS", "signals.approved.X", 7, now()))
    # Ten minutes after the midnight of a server whose clock is set so, and of a terminal that lost its broker.
    today_s = (now() - now().replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
    lost = state.model_copy(update={"connection": "disconnected", "server_offset_s": int(300 - today_s), "at": at})
    snapshot = SnapshotMessage(account=ACCOUNT, state=lost, at=at)
    await world.write(topics.ACCOUNT_SNAPSHOTS, snapshot.encode(), ACCOUNT, now())
    day = (now() + timedelta(seconds=int(300 - today_s)) - timedelta(days=1)).date()
    wanted = [
        f"in doubt: order of SYM1, account {ACCOUNT}",
        f"unprotected: order of SYM2, account {ACCOUNT}",
        f"break of EUR@\u200ball, account {ACCOUNT}: volume",
        f"stop-out: sell 0.1 lots of EURUSD, account {ACCOUNT}",
        f"account {ACCOUNT} is halted: news",
        f"account {ACCOUNT} is reducing: news",
        f"account {ACCOUNT} may open again",
        f"account {ACCOUNT}: warning: max_daily_loss: expected",
        f"terminal of account {ACCOUNT} is away since {time_text(at)}",
        f"account {ACCOUNT}, {day}: -13.0 EUR realized, equity 990 EUR (-10)",
    ]
    assert sorted(await first.has(len(wanted))) == sorted(wanted)
    assert await second.has(1) == ["dead letter: no_account"]
    told = {each["title"]: each for each in first.told}
    assert "order_id: order-1\n" in told[wanted[0]]["message"]
    assert (told[wanted[0]]["type"], told[wanted[6]]["type"]) == ("failure", "info")
    assert "orders 0, fills 1, rejected 1" in told[wanted[-1]]["message"]
    assert 'sent_total{receiver="line 2 (JSON, 127.0.0.1)"} 10.0' in world.get("/metrics")[1]
    for text in (world.log.read_text(), world.get("/metrics")[1], world.get("/health")[1]):
        assert not re.search(f"{PASSWORD}|{SECRET_PATH}", text)


async def test_a_receiver_that_is_down_delays_no_other_and_is_told_all_of_it_once_over_kills(
    world: NotifierWorld, first: ReceiverServer, second: ReceiverServer
) -> None:
    world.receivers(first.url, second.url)
    second.answer = lambda: 503
    await world.start(per_minute=100, send_timeout_s=5)
    for number in range(5):
        await world.commit(rejection(number))
    assert await first.has(5) == rejected(*range(5))
    assert "line 3 (JSON, 127.0.0.1): it answers 503" in world.get("/health")[1]
    await world.kill()
    second.answer = lambda: 200
    await world.start(per_minute=100)
    assert sorted(await second.has(5)) == rejected(*range(5))
    await world.commit(rejection(5))
    await second.has(6)
    await first.has(6)
    assert (first.titles, Counter(second.titles)) == (rejected(*range(6)), Counter(rejected(*range(6))))


async def test_a_receiver_that_hangs_is_told_once_though_its_answer_is_late(
    world: NotifierWorld, first: ReceiverServer, second: ReceiverServer
) -> None:
    world.receivers(first.url, second.url + "?rto=60")
    answers = asyncio.Event()
    loop = asyncio.get_running_loop()

    def late() -> int:
        asyncio.run_coroutine_threadsafe(answers.wait(), loop).result()
        return 200

    second.answer = late
    await world.start(send_timeout_s=0.2)
    await world.commit(rejection(1))
    await first.has(1)
    await eventually(lambda: "line 3 (JSON, 127.0.0.1): no answer within 0.2 s" in world.get("/health")[1])
    answers.set()
    await eventually(lambda: world.get("/health")[0] == 200)
    assert (second.tries, second.titles) == (1, rejected(1))


async def test_a_kill_in_the_middle_loses_nothing_and_tells_one_event_once_more_at_most(
    world: NotifierWorld, first: ReceiverServer
) -> None:
    world.receivers(first.url)
    await world.start(per_minute=100)

    def kill_at_the_third() -> int:
        if first.tries == 3:
            world.send(signal.SIGKILL)
        return 200

    first.answer = kill_at_the_third
    for number in range(6):
        await world.commit(rejection(number))
    assert await world.ended() == -signal.SIGKILL
    await world.start(per_minute=100)
    await eventually(lambda: set(rejected(*range(6))) <= set(first.titles), lambda: str(first.titles))
    assert len(first.told) <= 7


async def test_what_a_receiver_never_takes_is_given_up_in_words_and_not_tried_again(
    world: NotifierWorld, first: ReceiverServer
) -> None:
    world.receivers(first.url)
    first.answer = lambda: 500
    await world.start(give_up_s=0.5)
    await world.commit(rejection(1))
    gone = 'given_up_total{receiver="line 2 (JSON, 127.0.0.1)"} 1.0'
    await eventually(lambda: gone in world.get("/metrics")[1])
    assert "nobody was told of rejected:order-1:1:rejected" in world.log.read_text()
    await world.stop()
    first.answer = lambda: 200
    await world.start()
    await world.commit(rejection(2))
    assert await first.has(1) == rejected(2)


async def test_what_is_over_the_rate_is_summed_up_and_what_is_old_is_one_line_for_each_kind(
    world: NotifierWorld, first: ReceiverServer
) -> None:
    world.receivers(first.url)
    await world.start()
    await world.stop()
    for number in range(30):
        await world.commit(rejection(number, at=now() - timedelta(hours=2)))
    await world.commit(*(rejection(number) for number in range(30, 50)))
    await world.start(per_minute=4)
    titles = await first.has(4)
    assert [title for title in titles if title.startswith("30 older events since")]
    assert titles[-1].endswith(" and 17 more")
    assert "and 3 more: 3 rejected" in first.told[-1]["message"]


async def test_a_start_without_receivers_is_one_sentence_that_names_no_url(
    world: NotifierWorld, first: ReceiverServer
) -> None:
    secret_url = f"nothing://{PASSWORD}@{SECRET_PATH}"
    world.receivers(first.url, secret_url)
    code, said = await world.run("-m", "streamapp.notifier", STREAMAPP_LOG__LEVEL="info")
    assert (code, len(said.splitlines())) == (78, 1)
    assert f"{world.urls_file}, line 3: expected a URL that apprise knows" in said
    assert not re.search(f"{PASSWORD}|{SECRET_PATH}", said)
    world.receivers(f"ops = {first.url}")
    assert (
        "notify.rules.doubt: expected a URL without a tag"
        in (await world.run("-m", "streamapp.notifier", STREAMAPP_LOG__LEVEL="info"))[1]
    )
    world.receivers(first.url)
    world.urls_file.chmod(0o644)
    assert "chmod 600" in (await world.run("-m", "streamapp.notifier", STREAMAPP_LOG__LEVEL="info"))[1]
    world.urls_file.unlink()
    assert "No such file" in (await world.run("-m", "streamapp.notifier", STREAMAPP_LOG__LEVEL="info"))[1]


async def test_a_test_message_says_which_receivers_took_it(
    world: NotifierWorld, first: ReceiverServer, second: ReceiverServer
) -> None:
    world.receivers(first.url, second.url)
    second.answer = lambda: 404
    code, said = await world.run("-m", "streamapp.cli", "notify", "test")
    assert said.splitlines() == ["✓ line 2 (JSON, 127.0.0.1)", "✗ line 3 (JSON, 127.0.0.1): it answers 404"]
    assert (code, first.titles) == (1, ["test message of streamapp, deployment streamapp"])
