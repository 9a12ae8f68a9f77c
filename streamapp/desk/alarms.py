"""The alarms of the desk: what each means and what a person should do; docs/operations.md and the page say so.

An alarm that has rung stands in its account's row until a person acknowledges it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from streamapp.desk.state import Draft
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Unusable
from tables.accounts import StandingAlarm

_HEAD, _TAIL = 100, 400
"""Characters that are kept of a long text, which begins with what and ends with why; the log has all of it."""


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


def keep_alarms(draft: Draft) -> None:
    """Let what rang in this commit stand, each alarm of an account once; a break stands by itself, among the breaks."""
    if not draft.alarms:
        return
    row = draft.account_row()
    standing = {alarm.name: alarm for alarm in row.alarms}
    for rung in draft.alarms:
        if rung.name == "break":
            continue
        known = standing.pop(rung.name, None)
        standing[rung.name] = StandingAlarm(
            name=rung.name,
            text=_shortened(rung.text),
            order_id=rung.order_id,
            count=1 if known is None else known.count + 1,
            first_at=draft.now if known is None else known.first_at,
            at=draft.now,
        )
    alarms = tuple(standing.values())
    if alarms != row.alarms:
        draft.put_account(row.model_copy(update={"alarms": alarms}))


def _shortened(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} … {text[-_TAIL:]}"


def standing_alarm(draft: Draft, alarm_id: str) -> StandingAlarm:
    """Return an alarm that stands.

    Raises:
        Unusable: ``unknown_alarm``: it does not stand, or has rung again since it was seen.
    """
    name = alarm_id.partition(":")[0]
    known = next((alarm for alarm in draft.account_row().alarms if alarm.name == name), None)
    if known is None:
        raise Unusable("unknown_alarm", f"expected an alarm that stands at {draft.account}, got {alarm_id!r:.160}")
    if known.alarm_id != alarm_id:
        raise Unusable("unknown_alarm", f"{name} rang again at {time_text(known.at)}: look at it, and acknowledge that")
    return known


def acknowledge_alarm(draft: Draft, alarm_id: str) -> None:
    """Let an alarm stand no longer: a person has dealt with it.

    Raises:
        Unusable: as :func:`standing_alarm`; nothing has changed.
    """
    done, row = standing_alarm(draft, alarm_id), draft.account_row()
    draft.put_account(row.model_copy(update={"alarms": tuple(alarm for alarm in row.alarms if alarm != done)}))
