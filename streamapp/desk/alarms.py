"""The alarms of the desk: what each means and what a person should do; docs/operations.md and the page say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class AlarmMeaning(NamedTuple):
    """What an alarm says in words, and what to do about it."""

    meaning: str
    todo: str


ON_ORDERS: Mapping[str, AlarmMeaning] = {
    "overfilled": AlarmMeaning(
        "more was executed than asked for; it is booked, and the account opens nothing more",
        "compare with the broker, close the excess by hand",
    ),
    "duplicate_ticket": AlarmMeaning(
        "more than one order ticket with our magic; the account opens nothing more",
        "compare with the broker, close the excess by hand; find out who else uses the magic",
    ),
    "reject_contradicted": AlarmMeaning(
        "the broker executed what was rejected", "the order follows the broker; check the strategy's exposure"
    ),
    "revived": AlarmMeaning(
        "the broker executed what had failed, absent orders among them",
        "the order follows the broker; check the strategy's exposure",
    ),
    "conflict": AlarmMeaning("one fact id with two contents; the first stands", "compare archive and broker log"),
    "bad_modification": AlarmMeaning(
        "the broker is said to have taken values no order can have", "look at the broker log"
    ),
    "deal_differs": AlarmMeaning(
        "a deal is of another symbol or side than its order, or larger",
        "a break of that kind shows both (/breaks); look at the broker log",
    ),
    "unexpected_change": AlarmMeaning(
        "an order's published status changed in a way that ordinary life does not bring", "look at the order's facts"
    ),
}
ON_THE_DAY: Mapping[str, AlarmMeaning] = {
    "day_warned": AlarmMeaning(
        "80 % of a day's limit is used; the text names it, the loss and the account",
        "look at the account, before the next step does",
    ),
    "day_reducing": AlarmMeaning(
        "90 %: the account opens nothing until the broker's midnight", "look at the account, before the next step does"
    ),
    "day_locked": AlarmMeaning(
        "all of it: what is open is closed, and the account is halted until then",
        "see that it is flat; `GET /limits?account=` shows the day. If the amount is a withdrawal's that was booked "
        "late, resume the account",
    ),
}
ALARMS: Mapping[str, AlarmMeaning] = {
    **ON_ORDERS,
    **ON_THE_DAY,
    "internal": AlarmMeaning(
        "a rule of ours broke on an input, twice: the account opens nothing any more, and its reports go on being "
        "booked",
        "look at the dead letter of that reason and report it; then account.resume",
    ),
    "break": AlarmMeaning(
        "our books and the broker's differ; nothing is halted by it", "compare both sides (/breaks), and settle it"
    ),
}
