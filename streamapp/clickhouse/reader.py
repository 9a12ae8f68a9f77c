"""The reader: what the workers' tables no longer hold, or never held; with deadlines, and ready for JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.columns import JSON_COLUMNS, nested_model
from streamapp.clickhouse.plots import Period, PlotName, plot
from streamapp.clickhouse.rows import columns
from streamapp.domain.parameters import plain
from streamapp.domain.vocabulary import FINAL_STATUSES, time_text
from streamapp.messages.account import AccountMessage
from streamapp.messages.decision import DecisionMessage
from streamapp.messages.dialect import renamed, translated
from streamapp.messages.envelope import Message
from streamapp.messages.fact import FactMessage
from streamapp.messages.log import BrokerLogEntry
from streamapp.messages.order import OrderMessage
from streamapp.messages.position import PositionMessage
from streamapp.messages.signal import NAMES as SIGNAL_NAMES
from streamapp.settings import ExecutionSettings, Settings

logger = logging.getLogger(__name__)

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class _Shape:
    """A table as it is: its columns by our names, and the word behind its name that shows newest rows only."""

    names: dict[str, str]
    types: dict[str, str]
    final: str

    def text(self, name: str) -> str:
        """Return a column as text; as it is where it is text, so that its index is used."""
        column = _quoted(self.names[name])
        return column if "String" in self.types[name] else f"toString({column})"

    def select(self, table: str, where: str, rest: str = "") -> str:
        chosen = ", ".join(f"{_quoted(theirs)} AS {_quoted(ours)}" for ours, theirs in self.names.items())
        return f"SELECT {chosen} FROM {table}{self.final} WHERE {where} {rest}"


class Reader:
    """Reads our tables, the risk engine's ``trading_signals``, and ``orders`` where another execution service keeps it.

    Decimals and times in the answers are text as on the wire, so an answer can be sent on as JSON or read by its model.

    Raises (every method):
        Transient: ClickHouse did not answer in time, or can't.
    """

    def __init__(self, clickhouse: ClickHouse, execution: ExecutionSettings) -> None:
        self._clickhouse = clickhouse
        self._execution = execution
        self._shapes: dict[str, _Shape] = {}

    @classmethod
    def of(cls, settings: Settings) -> Reader:
        """Return a reader; nothing is connected yet."""
        return cls(ClickHouse.of(settings), settings.execution)

    async def order(self, order_id: str) -> dict[str, Any] | None:
        """Return the newest revision of an order as an order/1 object, None if there is none.

        Of a table that another execution service keeps, only the columns that it has (by our names or ``field_names``).
        """
        shape = await self._shape("orders", columns("orders"))
        newest = "ORDER BY rev DESC LIMIT 1" if "rev" in shape.names else "LIMIT 1"
        rows = await self._clickhouse.query(shape.select("orders", "order_id = {id:String}", newest), {"id": order_id})
        return message_of(OrderMessage, rows[0]) if rows else None

    async def orders(
        self, *, status: str | None = None, symbol: str | None = None, account: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return orders as order/1 objects, the last changed first."""
        return await self._orders("true", {"status": status, "symbol": symbol, "account": account}, limit)

    async def closed_orders(
        self,
        *,
        status: str | None = None,
        symbol: str | None = None,
        account: str | None = None,
        strategy: str | None = None,
        signal_id: str | None = None,
        day: date | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """Return the orders that are over; otherwise as :meth:`orders`.

        Args:
            status: This one alone, as are the next four.
            symbol: As above.
            account: As above.
            strategy: As above.
            signal_id: As above.
            day: Only those that changed last on this day, in UTC.
            before: Only those that stand behind the order with this time of its last change, and this id.
            limit: Rows at most.
        """
        where = [f"status IN ({', '.join(repr(word) for word in sorted(FINAL_STATUSES))})"]
        more: dict[str, Any] = {}
        if day is not None:
            where.append("toDate(updated_at, 'UTC') = {day:Date}")
            more["day"] = day.isoformat()
        if before is not None:
            at = "parseDateTime64BestEffort({before_at:String}, 6, 'UTC')"
            where.append(f"(updated_at < {at} OR updated_at = {at} AND toString(order_id) > {{before_id:String}})")
            more |= {"before_at": time_text(before[0]), "before_id": before[1]}
        given = {"status": status, "symbol": symbol, "account": account, "strategy": strategy, "signal_id": signal_id}
        return await self._orders(" AND ".join(where), given, limit, more)

    async def _orders(
        self, first: str, given: dict[str, str | None], limit: int, more: Mapping[str, Any] = _NOTHING
    ) -> list[dict[str, Any]]:
        wanted = {name: value for name, value in given.items() if value is not None}
        where = " AND ".join((first, *(f"{name} = {{{name}:String}}" for name in wanted)))
        rest = "ORDER BY updated_at DESC, toString(order_id) LIMIT {limit:UInt32}"
        return await self._messages(OrderMessage, "orders", where, rest, {**wanted, **more, "limit": limit})

    async def positions(self, *, account: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        """Return positions as position/1 objects, those that are flat left out."""
        where = "volume > 0" + (" AND account = {account:String}" if account is not None else "")
        rest = "ORDER BY account, symbol, position_id LIMIT {limit:UInt32}"
        parameters = {"limit": limit} | ({} if account is None else {"account": account})
        return await self._messages(PositionMessage, "positions", where, rest, parameters)

    async def position(self, account: str, symbol: str, position_id: int) -> dict[str, Any] | None:
        """Return a position as a position/1 object, flat or not; None if there is none."""
        where = "account = {account:String} AND symbol = {symbol:String} AND position_id = {id:UInt64}"
        parameters = {"account": account, "symbol": symbol, "id": position_id}
        found = await self._messages(PositionMessage, "positions", where, "", parameters)
        return found[0] if found else None

    async def accounts(self) -> list[dict[str, Any]]:
        """Return the newest account/1 object of each account."""
        return await self._messages(AccountMessage, "accounts", "true", "ORDER BY account", {})

    async def account(self, account: str) -> dict[str, Any] | None:
        """Return the newest account/1 object of one account, None if there is none."""
        found = await self._messages(AccountMessage, "accounts", "account = {account:String}", "", {"account": account})
        return found[0] if found else None

    async def facts(self, order_id: str, *, limit: int = 1000) -> list[dict[str, Any]]:
        """Return the facts of an order as fact/1 objects, in the order in which they were made."""
        # Not by offset: a commit that was archived a second time stands behind later ones.
        rest = "ORDER BY commit_number, commit_place LIMIT {limit:UInt32}"
        parameters = {"id": order_id, "limit": limit}
        return await self._messages(FactMessage, "facts", "order_id = {id:String}", rest, parameters)

    async def broker_log(self, order_id: str, *, limit: int = 200) -> list[dict[str, Any]]:
        """Return the exchanges with the terminal about an order as log/1 objects, in their order."""
        rest = "ORDER BY at, epoch, seq LIMIT {limit:UInt32}"
        parameters = {"id": order_id, "limit": limit}
        return await self._messages(BrokerLogEntry, "broker_log", "order_id = {id:String}", rest, parameters)

    async def decisions(self, signal_id: str, account: str, *, limit: int = 20) -> list[dict[str, Any]]:
        """Return what was decided on each message of a signal as signal/1 objects, its payload as it came in each."""
        where = "account = {account:String} AND signal_id = {id:String}"
        rest = "ORDER BY stream_seq LIMIT {limit:UInt32}"
        parameters = {"id": signal_id, "account": account, "limit": limit}
        return await self._messages(DecisionMessage, "signals", where, rest, parameters)

    async def plot(self, name: PlotName, period: Period) -> dict[str, Any]:
        """Return what a plot of the page shows (:func:`streamapp.clickhouse.plots.plot`)."""
        return await plot(self._clickhouse, name, period)

    async def signal(self, signal_id: str, account: str | None = None) -> dict[str, Any] | None:
        """Return the risk engine's newest row of a signal, in our names and words; None if there is none.

        Empty texts and NULLs are left out: they mean that nothing was said. What comes can be read as a payload is
        (:func:`streamapp.messages.dialect.read_signal`). Whether the row is approved is the caller's question.

        Several rows that differ (of several accounts and none was asked for, or in a table that does not replace) are
        no row: nobody knows which of them holds.

        Args:
            signal_id: The id.
            account: Only a row of this account, or of none; None: any.

        Raises:
            Unusable: The words of a row contradict each other.
        """
        rows = await self._signal_rows(signal_id)
        if account is not None:
            rows = [row for row in rows if row.get("account", account) == account]
        if any(row != rows[0] for row in rows):
            logger.warning(
                "trading_signals: expected one row of signal %s, got %s different ones", signal_id, len(rows)
            )
            return None
        return rows[0] if rows else None

    async def close(self) -> None:
        """Close the connection."""
        await self._clickhouse.close()

    async def _messages(
        self, model: type[Message], table: str, where: str, rest: str, parameters: dict[str, Any]
    ) -> list[dict[str, Any]]:
        shape = await self._shape(table, columns(table))
        rows = await self._clickhouse.query(shape.select(table, where, rest), parameters)
        return [message_of(model, row) for row in rows]

    async def _signal_rows(self, signal_id: str) -> list[dict[str, Any]]:
        shape = await self._shape("trading_signals", SIGNAL_NAMES)
        if "signal_id" not in shape.names:
            return []
        rows = await self._clickhouse.query(
            shape.select("trading_signals", f"{shape.text('signal_id')} = {{id:String}}", "LIMIT 100"),
            {"id": signal_id},
        )
        said = ({name: value for name, value in row.items() if value is not None and value != ""} for row in rows)
        # The names are ours already; what is left is the words.
        words = self._execution.model_copy(update={"field_names": {}})
        return [translated(renamed(_signal_of(row), words), words) for row in said]

    async def _shape(self, table: str, ours: tuple[str, ...] | list[str]) -> _Shape:
        if table not in self._shapes:
            described = await self._clickhouse.query(f"DESCRIBE TABLE {table}")
            there = {row["name"]: row["type"] for row in described}
            engine = await self._clickhouse.query(
                "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = {table:String}",
                {"table": table},
            )
            replaces = any("Replacing" in row["engine"] for row in engine)
            names = self._matched(table, ours, there.keys())
            types = {name: there[column] for name, column in names.items()}
            self._shapes[table] = _Shape(names, types, " FINAL" if replaces else "")
        return self._shapes[table]

    def _matched(self, table: str, ours: tuple[str, ...] | list[str], there: AbstractSet[str]) -> dict[str, str]:
        theirs = self._execution.field_names
        # In the risk engine's table its own names come first; in ours they are only a guess where another keeps it.
        if table == "trading_signals":
            named = {name: theirs.get(name, name) for name in ours}
        else:
            named = {name: name if name in there else theirs.get(name, name) for name in ours}
        return {name: column for name, column in named.items() if column in there}


def message_of(model: type[BaseModel], row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as the JSON object of its message, with its schema and its nested objects put together again."""
    schema = model.model_fields["schema_"].default
    return {"schema": schema, **(_object_of(model, row, "") or {})}


def _object_of(model: type[BaseModel], row: dict[str, Any], prefix: str) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if inner := nested_model(field.annotation):
            found[name] = _object_of(inner, row, f"{prefix}{name}_")
        elif prefix + name in row:
            found[name] = _json_value(name, row[prefix + name])
    # A nested object of which nothing is there is no object.
    return None if prefix and all(value is None for value in found.values()) else found


def _json_value(name: str, value: Any) -> Any:
    match value:
        case str() if name in JSON_COLUMNS:
            return json.loads(value)
        case Decimal() | float():
            return plain(Decimal(str(value)))
        case datetime():
            return time_text(value if value.tzinfo else value.replace(tzinfo=UTC))
        case bytes():  # FixedString
            return value.decode("utf-8", "replace").rstrip("\x00")
        case UUID():
            return str(value)
        case _:
            return value


def _signal_of(row: dict[str, Any]) -> dict[str, Any]:
    named = {name: _json_value(name, value) for name, value in row.items()}
    if isinstance(text := named.get("metadata"), str):
        named["metadata"] = _object_or_nothing(text)
    return named


def _object_or_nothing(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
