"""Commands of persons and risk engines: command/1, in on ``commands.{command}.{target}``, and command_result/1, out.

A command is durable once its stream has it, is carried out once for its ``request_id``, and is answered on
``command_results.{request_id}``: accepted or refused, and then what came of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeGuard, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from streamapp.domain.vocabulary import BoundedDecimal, Frozen, Lots, Ticket, UtcTime
from streamapp.errors import Unusable
from streamapp.messages.envelope import Message, reason_and_detail

CommandName = Literal[
    "order.cancel",
    "order.modify",
    "position.close",
    "position.modify",
    "account.halt",
    "account.reduce",
    "account.resume",
    "account.cancel_all",
    "account.flatten",
    "account.limits",
    "break.settle",
    "alarm.acknowledge",
]
COMMANDS: tuple[CommandName, ...] = get_args(CommandName)
CommandState = Literal["accepted", "refused", "done", "failed"]
"""accepted: it is being carried out. refused: nothing was and will be done. done: it is carried out, or was so already.
failed: it is over, and ``detail`` says what could not be done."""
_REQUEST_ID = r"[\x21-\x7e]{1,128}"
RequestId = Annotated[str, Field(pattern=f"^{_REQUEST_ID}$")]

_OF_ORDER, _OF_POSITION = frozenset({"order.cancel", "order.modify"}), frozenset({"position.close", "position.modify"})
_JUDGED = {"break.settle": "break_id", "alarm.acknowledge": "alarm_id"}
"""What a person judges, with a reason, and the value that names it."""
_VALUES: dict[str, frozenset[str]] = {
    "order.modify": frozenset({"price", "stop_limit_price", "stop_loss", "take_profit", "expiration"}),
    "position.close": frozenset({"volume"}),
    "position.modify": frozenset({"stop_loss", "take_profit"}),
    "account.limits": frozenset({"limits", "symbol"}),
    **{name: frozenset({judged}) for name, judged in _JUDGED.items()},
}


def _as_text(value: Any) -> Any:
    """Return limits with their numbers as text: there is one spelling of each, and rows keep it."""
    if not isinstance(value, dict):
        return value
    return {name: str(each) if _is_number(each) else each for name, each in value.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


LimitValues = Annotated[dict[str, str | tuple[str, ...] | None], BeforeValidator(_as_text)]
"""Limits by the names of the settings (docs/guards.md); null: the settings' own holds again."""


class CommandValues(Frozen):
    """What is to be set; null keeps what is, 0 takes a level away. A name that is not here is refused, not ignored.

    ``limits`` and ``symbol`` are of account.limits: with a symbol, they are for its orders alone. ``break_id`` is of
    break.settle, ``alarm_id`` of alarm.acknowledge.
    """

    model_config = ConfigDict(extra="forbid")

    volume: Lots | None = None
    price: BoundedDecimal | None = None
    stop_limit_price: BoundedDecimal | None = None
    stop_loss: BoundedDecimal | None = None
    take_profit: BoundedDecimal | None = None
    expiration: UtcTime | None = None
    symbol: str | None = Field(None, min_length=1, max_length=64)
    limits: LimitValues | None = None
    break_id: str | None = Field(None, min_length=1, max_length=256)
    alarm_id: str | None = Field(None, min_length=1, max_length=256)

    @property
    def shown(self) -> dict[str, str]:
        """What is set, each as text: limits as JSON."""
        given = self.model_dump(mode="json", exclude={"limits"}, exclude_none=True)
        return given if self.limits is None else given | {"limits": json.dumps(self.limits, separators=(",", ":"))}


class CommandContent(Frozen):
    """What a command asks, whoever repeats it.

    Attributes:
        account: May be left out where ``order_id`` is one of ours: it leads to its account.
        order_id: Of ``order.…``.
        position_id: Of ``position.…``: the broker's id of the position, as position/1 has it.
        reason: Why, in a person's words: shown as the cause of a trading state; a judgement (break.settle,
            alarm.acknowledge) must have one.
        issued_by: Who; over HTTP always the name of the token.
        valid_until: Nothing is begun at or after it; absent: ``execution.signal_ttl_s`` after ``issued_at`` or the
            stream's time. What is about an account as a whole holds until it is carried out, unless it says otherwise.
    """

    account: str | None = None
    order_id: str | None = None
    position_id: int | None = None
    reason: str = ""
    issued_by: str = ""
    issued_at: UtcTime | None = None
    valid_until: UtcTime | None = None


class CommandRequest(Message, CommandContent):
    """command/1 as it comes from outside; ``request_id`` is its idempotency key, of visible ASCII."""

    account: str | None = Field(None, min_length=1, max_length=128)
    order_id: str | None = Field(None, min_length=1, max_length=128)
    position_id: Ticket | None = None
    reason: str = Field("", max_length=500)
    issued_by: str = Field("", max_length=128)
    request_id: RequestId
    values: CommandValues = CommandValues()

    @field_validator("issued_by", "reason")
    @classmethod
    def _on_one_line(cls, text: str) -> str:
        return " ".join(text.split())

    @property
    def fingerprint(self) -> str:
        """What makes two of them the same request."""
        asked = self.model_dump_json(include={"account", "order_id", "position_id", "values", "valid_until"})
        return hashlib.sha256(asked.encode()).hexdigest()


class CommandResultMessage(Message, CommandContent):
    """command_result/1, on ``command_results.{request_id}``; with it, who asked what is in the archive.

    ``revision`` 1 is the answer, the last one what came of it; between them those that say how far it is, of a command
    that goes on trying. ``stream_seq`` is the command's place in its stream. ``order_ids`` are the orders that it made.
    ``why`` is one of a small set of words, ``detail`` a sentence.
    """

    schema_: Literal["command_result/1"] = Field("command_result/1", alias="schema")
    request_id: str
    command: str
    values: dict[str, str] = Field(default_factory=dict)
    state: CommandState
    revision: int = Field(ge=1)
    why: str | None = None
    detail: str | None = None
    order_ids: tuple[str, ...] = ()
    stream_seq: int
    at: UtcTime

    @property
    def asked(self) -> dict[str, Any]:
        """The values as they were asked for."""
        return {name: json.loads(text) if name == "limits" else text for name, text in self.values.items()}


def is_command(name: str) -> TypeGuard[CommandName]:
    """Return whether there is such a command."""
    return name in COMMANDS


def is_of_account(name: str) -> bool:
    """Return whether a command is about an account as a whole, and not about one order or position."""
    return name.startswith(("account.", "break.", "alarm."))


def request_id_of(payload: dict[str, Any]) -> str | None:
    """Return the request_id if it is 1 to 128 visible ASCII characters, otherwise None."""
    value = payload.get("request_id")
    return value if isinstance(value, str) and re.fullmatch(_REQUEST_ID, value) else None


def read_command(name: str, payload: dict[str, Any]) -> CommandRequest:
    """Return the command in ``payload``, of any form, as ``name`` must have it.

    Raises:
        Unusable: ``unknown_command``, or ``invalid`` naming the field and what was expected.
    """
    if not is_command(name):
        raise Unusable("unknown_command", f"expected one of {', '.join(COMMANDS)}, got {name!r:.80}")
    try:
        command = CommandRequest.model_validate(payload)
    except ValidationError as error:
        raise Unusable(*reason_and_detail(error)) from None
    for field, wanted in (("order_id", name in _OF_ORDER), ("position_id", name in _OF_POSITION)):
        if wanted != (getattr(command, field) is not None):
            raise Unusable("invalid", f"{field}: expected {'one' if wanted else 'none'} with {name}")
    if command.account is None and name not in _OF_ORDER:
        raise Unusable("no_account", f"account: expected one with {name}")
    given, allowed = command.values.model_dump(exclude_none=True).keys(), _VALUES.get(name, frozenset[str]())
    if given - allowed:
        raise Unusable("invalid", f"values.{min(given - allowed)}: expected none with {name}")
    if name == "account.limits" and not command.values.limits:
        raise Unusable("invalid", f"values.limits: expected at least one with {name}")
    if (judged := _JUDGED.get(name)) is not None and not (getattr(command.values, judged) and command.reason):
        raise Unusable("invalid", f"values.{judged}, reason: expected both with {name}")
    if name.endswith(".modify") and not given:
        raise Unusable("invalid", f"values: expected one of {', '.join(sorted(allowed))} with {name}, got none")
    return command
