"""What the worker makes of answers, and keeps of them to note only what changed."""

from __future__ import annotations

from streamapp.terminal.account.deals import filled
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.pipe.structs import TradeDeal
from streamapp.terminal.worker import mt5_client as module
from streamapp.terminal.worker.mt5_client import models_of, plain
from tests.terminal.tables import Tables, deal, row


def test_an_answer_is_noted_once_for_as_long_as_it_is_the_same() -> None:
    calls = Tables().calls()
    for state in (1, 1, 2):
        calls.note_change("orders_get", {"ticket": 7}, {"state": state})
    assert [note.response for note in calls.taken_notes()] == [{"state": 1}, {"state": 2}]


def test_what_is_remembered_does_not_grow_with_the_orders_of_months() -> None:
    calls = Tables().calls()
    position = {**row("TradePosition", ticket=5)._asdict()}
    for ticket in range(3 * module.REMEMBERED):
        calls.note_change("history_orders_get", {"ticket": ticket}, {"state": 4})
        calls.note_rows("positions_get", [position])
        calls.note_change("terminal_info", None, {"connected": True})
    assert len(calls._last_answers) <= module.REMEMBERED
    functions = [note.function for note in calls.taken_notes()]
    assert (functions.count("positions_get"), functions.count("terminal_info")) == (1, 1)


def test_a_comment_that_was_cut_within_a_character_is_still_a_deal_that_can_be_reported() -> None:
    cut = plain(deal(7, 1_700_000_000, comment="to the moon \U0001f680 \ud83d", volume=0.1))
    (cut,) = models_of(TradeDeal, [cut])
    body = filled(cut, "USD", ServerTime(0))
    assert body.comment == "to the moon \U0001f680 \ufffd"
    assert body.model_dump_json()
