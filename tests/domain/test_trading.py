from datetime import UTC, datetime

from streamapp.domain.trading import TRADING, TradingState


def test_an_account_that_trades_refuses_nothing() -> None:
    assert TRADING.refusal is None


def test_a_refusal_says_what_since_when_by_whom_until_when_and_why() -> None:
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    halted = TradingState(state="halted", cause="overfilled", by="ada", since=at, until=at.replace(hour=22))
    assert (
        halted.refusal
        == "halted since 2026-11-20T12:00:00.000000Z by ada, until 2026-11-20T22:00:00.000000Z: overfilled"
    )
    assert TradingState(state="reducing").refusal == "reducing by nobody named: no reason was given"
