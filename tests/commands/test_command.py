"""``streamapp command`` as people run it, on a real NATS: what it publishes, what it says, and how it exits."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.client import Client

from streamapp.clock import utc_now
from streamapp.commands.command import told
from streamapp.local.ports import free_port
from streamapp.messages.command import COMMANDS, CommandRequest
from tests.commands.running import Done, run_here
from tests.kit.command_answers import AnsweringDesk, result_of, streams_at


@pytest.fixture
async def client(nats_of_this_module: str) -> AsyncIterator[Client]:
    async with streams_at(nats_of_this_module) as client:
        yield client


async def command(address: str, *arguments: str, typed: str = "") -> Done:
    return await run_here("command", *arguments, typed=typed, STREAMAPP_NATS__URL=address)


async def test_both_revisions_are_told_and_done_is_exit_0(client: Client, nats_of_this_module: str) -> None:
    desk = await AnsweringDesk(
        client, results=({"state": "accepted"}, {"state": "done", "order_ids": ("o-9",)})
    ).start()
    close = ["position.close", "--account", "acc-1", "--position-id", "7", "--set", "volume=0.10", "--by", "anna"]
    done = await command(nats_of_this_module, *close, "--reason", "too large")
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "position.close of position 7, acc-1: accepted, it is being carried out",
            "position.close of position 7, acc-1: done (orders o-9)",
        ],
    )
    assert re.fullmatch(
        r"to ask again for the same thing, repeat the command with --request-id cli-[0-9a-f]{16}\n", done.said
    )
    [(subject, asked, _)] = desk.heard
    assert subject == "commands.position.close.acc-1"
    assert (asked.position_id, str(asked.values.volume)) == (7, "0.10")
    assert (asked.issued_by, asked.reason) == ("anna", "too large")
    assert asked.issued_at is not None
    assert abs(utc_now() - asked.issued_at) < timedelta(minutes=1)


REFUSED = {"state": "refused", "why": "no_such_order", "detail": "nobody knows it"}
FAILED = {"state": "failed", "detail": "the broker said: market closed"}


@pytest.mark.parametrize(
    ("results", "code", "line"),
    [
        ((REFUSED,), 1, "refused, nothing was done: no_such_order: nobody knows it"),
        (({"state": "accepted"}, FAILED), 1, "failed: the broker said: market closed"),
        (({"state": "done"},), 0, "done"),
    ],
)
async def test_how_it_ends_is_the_exit_code(
    client: Client, nats_of_this_module: str, results: tuple[dict[str, Any], ...], code: int, line: str
) -> None:
    await AnsweringDesk(client, results=results).start()
    done = await command(nats_of_this_module, "order.cancel", "--order-id", "o-1")
    assert (done.code, done.out.splitlines()[-1]) == (code, f"order.cancel of order o-1: {line}")


async def test_accepted_without_an_end_is_exit_0_and_says_how_to_hear_the_end(
    client: Client, nats_of_this_module: str
) -> None:
    await AnsweringDesk(client, results=({"state": "accepted"},)).start()
    done = await command(
        nats_of_this_module, "account.halt", "--account", "acc-1", "--request-id", "r-1", "--wait-s", "0.3"
    )
    assert done.code == 0
    assert "not over after 0.3 s: to hear how it ends, repeat the command with --request-id r-1" in done.said


async def test_silence_is_exit_2_and_no_outcome(client: Client, nats_of_this_module: str) -> None:
    done = await command(
        nats_of_this_module, "account.halt", "--account", "silent", "--request-id", "r-2", "--wait-s", "0.1"
    )
    assert (done.code, done.out) == (2, "")
    assert re.search(r"got none\. It is stored \(stream sequence \d+\) and may still be carried out", done.said)
    assert "repeat the command with --request-id r-2" in done.said


async def test_the_same_again_is_told_what_the_first_was_answered(client: Client, nats_of_this_module: str) -> None:
    desk = await AnsweringDesk(client).start()
    cancel = ["order.cancel", "--order-id", "o-1", "--valid-for", "1h"]
    first = await command(nats_of_this_module, *cancel)
    again = first.said.partition("repeat the command with ")[2].split()
    assert [again[0], again[2]] == ["--request-id", "--valid-until"]
    second = await command(nats_of_this_module, "order.cancel", "--order-id", "o-1", *again)
    assert (second.code, second.out) == (0, "order.cancel of order o-1: done\n")
    [asked] = desk.of(again[1])
    assert asked.valid_until is not None
    assert timedelta(minutes=59) < asked.valid_until - datetime.now(UTC) < timedelta(minutes=61)


async def test_json_is_one_object_on_standard_output(client: Client, nats_of_this_module: str) -> None:
    await AnsweringDesk(client).start()
    done = await command(nats_of_this_module, "account.reduce", "--account", "acc-1", "--json")
    assert (done.code, done.json["state"]) == (0, "done")
    sent = await command(
        nats_of_this_module, "account.reduce", "--account", "acc-1", "--json", "--no-wait", "--request-id", "r-3"
    )
    shown = sent.json
    assert (sent.code, shown["request_id"], shown["subject"]) == (0, "r-3", "commands.account.reduce.acc-1")


async def test_who_does_not_wait_sees_that_it_is_stored(client: Client, nats_of_this_module: str) -> None:
    done = await command(nats_of_this_module, "account.halt", "--account", "acc-1", "--no-wait", "--request-id", "r-4")
    assert done.code == 0
    found = re.fullmatch(r"r-4 is stored \(stream sequence (\d+)\)\n", done.out)
    assert found is not None
    message = await client.jetstream().get_msg("EXECUTION_IN", int(found[1]))
    assert CommandRequest.decode(message.data or b"").account == "acc-1"


@pytest.mark.parametrize("name", ["account.flatten", "account.cancel_all", "account.resume"])
async def test_what_moves_a_whole_account_asks_first(client: Client, nats_of_this_module: str, name: str) -> None:
    desk = await AnsweringDesk(client).start()
    line = [name, "--account", "acc-1", "--request-id", f"r-{name}"]
    for typed, code, words in (("n\n", 1, "nothing was done"), ("", 2, "expected a yes, or --yes")):
        done = await command(nats_of_this_module, *line, typed=typed)
        assert (done.code, done.out.strip()) == (code, typed.strip())  # what is typed is shown
        assert "acc-1" in done.said
        assert words in done.said
    assert desk.heard == []
    assert (await command(nats_of_this_module, *line, typed="y\n")).code == 0
    assert (await command(nats_of_this_module, *line, "--yes")).code == 0
    assert len(desk.heard) == 1


async def test_what_makes_an_account_safer_asks_nothing(client: Client, nats_of_this_module: str) -> None:
    await AnsweringDesk(client).start()
    for name in ("account.halt", "account.reduce"):
        assert (await command(nats_of_this_module, name, "--account", "acc-1")).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["account.stop"], [f"'{name}'" for name in COMMANDS]),
        (["account.halt"], ["account: expected one with account.halt"]),
        (["order.cancel"], ["order_id: expected one"]),
        (["position.close", "--account", "a"], ["position_id: expected one"]),
        (["position.close", "--account", "a", "--position-id", "0"], ["--position-id"]),
        (["order.modify", "--order-id", "o"], ["expected one of expiration, price, stop_limit_price"]),
        (["order.modify", "--order-id", "o", "--set", "volume=1"], ["values.volume: expected none with order.modify"]),
        (["order.modify", "--order-id", "o", "--set", "price=much"], ["values.price"]),
        (["order.modify", "--order-id", "o", "--set", "prise=1"], ["stop_limit_price", "'prise=1'"]),
        (["order.modify", "--order-id", "o", "--set", "price"], ["--set NAME=VALUE"]),
        (["order.modify", "--order-id", "o", "--set", "price=1", "--set", "price=2"], ["--set price=… once"]),
        (["order.cancel", "--order-id", "o", "--valid-for", "soon"], ["30s, 5m or 1h, got 'soon'"]),
        (["account.halt", "--valid-for", "1h", "--valid-until", "2026-11-27T03:00:00Z"], ["got both"]),
        (["order.cancel", "--order-id", "o", "--request-id", "two words"], ["request_id"]),
    ],
)
async def test_what_can_not_be_meant_is_said_before_anybody_is_asked(arguments: list[str], words: list[str]) -> None:
    done = await command(f"nats://127.0.0.1:{free_port()}", *arguments)
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in re.sub(r"\s*\n│? *", " ", done.said)


async def test_a_nats_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamapp.commands.account.asking.CONNECT_WITHIN_S", 0.5)
    done = await command(f"nats://127.0.0.1:{free_port()}", "account.halt", "--account", "acc-1")
    assert (done.code, done.out) == (2, "")
    assert "expected a connection to NATS at 127.0.0.1" in done.said


def test_a_result_is_told_in_words_whatever_it_has() -> None:
    asked = CommandRequest(request_id="r", account="acc-1", order_id="o-1")
    result = result_of("commands.order.cancel.-", asked, 7, revision=1, state="refused", why="expired")
    assert told(result) == "order.cancel of order o-1, acc-1: refused, nothing was done: expired"
