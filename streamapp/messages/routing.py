"""Who a message from outside is for: asked once, by mirror, which writes the answer into the record's headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from streamapp.errors import Unusable
from streamapp.messages.command import request_id_of
from streamapp.messages.dialect import renamed, with_text_ids
from streamapp.messages.signal import account_of, no_signal_id, signal_id_of
from streamapp.settings import ExecutionSettings

Family = Literal["signal", "order", "fill", "error", "reports", "log", "snapshot", "command"]

MAX_NAME_BYTES = 512
"""Of an account or id that becomes a Kafka key. Ours have 128 characters at most."""


@dataclass(frozen=True, slots=True)
class Addressee:
    """Who a message is for; at least one of ``id`` and ``account`` is known, but of a signal that can't be used.

    Attributes:
        family: What kind of message it is.
        id: The signal's id (family ``signal``), the order's (``order``, ``fill``, ``error``) or the request's
            (``command``). None for what concerns an account as a whole, and where it can't be read.
        account: The account that the message itself names. None where completion, or the order's id, must lead to it.
            For a signal or order it may be no name at all, like an empty text: to be refused, not to be completed.
        order_id: The order that leads to the account of a command, a fill or an error without one.
    """

    family: Family
    id: str | None
    account: str | None
    order_id: str | None = None


def addressee(family: Family, payload: dict[str, Any], execution: ExecutionSettings) -> Addressee:
    """Return who a message is for; nothing else in its payload is looked at or promised.

    Args:
        family: By the subject it came on.
        payload: Of any form, as :func:`streamapp.messages.envelope.json_object` returns it.
        execution: A signal's own field names.

    Raises:
        Unusable: ``no_signal_id``, ``no_order_id`` or ``no_account`` where nothing says who it is for, ``bad_field``
            for a name longer than ``MAX_NAME_BYTES``.
    """
    match family:
        case "signal":
            return _of_signal(renamed(payload, execution))
        case "order":
            return _of_order(with_text_ids(payload))
        case "fill" | "error":
            return _of_broker_answer(family, with_text_ids(payload))
        case "reports" | "log" | "snapshot":
            account = _text(payload, "account")
            if account is None:
                raise Unusable("no_account", "account: expected a text of 1 to 128 characters")
            return Addressee(family, None, account)
        case "command":
            return _of_command(payload)


def _of_signal(named: dict[str, Any]) -> Addressee:
    signal_id = signal_id_of(named)
    if signal_id is None:
        raise no_signal_id(named)
    return Addressee("signal", signal_id, _account(named))


def _of_order(payload: dict[str, Any]) -> Addressee:
    order_id = _text(payload, "order_id")
    if order_id is None:
        raise Unusable("no_order_id", "order_id: expected a text of 1 to 128 characters")
    return Addressee("order", order_id, _account(payload))


def _of_broker_answer(family: Literal["fill", "error"], payload: dict[str, Any]) -> Addressee:
    account, order_id = _text(payload, "account"), _text(payload, "order_id")
    if account is None and order_id is None:
        raise Unusable("no_order_id", "order_id: expected a text of 1 to 128 characters, or an account")
    return Addressee(family, order_id, account, order_id)


def _of_command(payload: dict[str, Any]) -> Addressee:
    account, order_id = _text(payload, "account"), _text(payload, "order_id")
    if account is None and order_id is None:
        raise Unusable("no_account", "account: expected a text of 1 to 128 characters, or the order_id of an order")
    return Addressee("command", request_id_of(payload), account, order_id)


def _account(named: dict[str, Any]) -> str | None:
    account = account_of(named)
    return None if account is None else _name(account, "account")


def _text(payload: dict[str, Any], field: str) -> str | None:
    value = payload.get(field)
    return _name(value, field) if isinstance(value, str) and value else None


def _name(value: str, field: str) -> str:
    if (length := len(value.encode())) > MAX_NAME_BYTES:
        raise Unusable("bad_field", f"{field}: expected {MAX_NAME_BYTES} bytes at most, got {length}")
    return value
