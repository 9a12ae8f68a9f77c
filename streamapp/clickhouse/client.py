"""The connection to ClickHouse: made when first needed, every call with a deadline, every failure one of our errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from decimal import InvalidOperation
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError
from clickhouse_connect import get_async_client
from clickhouse_connect.driver import asyncclient as _asyncclient  # noqa: F401  otherwise imported at the first connect
from clickhouse_connect.driver import options
from clickhouse_connect.driver.exceptions import ClickHouseError, DataError

from streamapp.errors import ConfigurationError, Transient, Unusable
from streamapp.settings import ClickHouseSettings, Settings
from streamapp.tls import context_of, fault

# Server errors that blame the rows. The list is closed on purpose: whatever else the server says (no table, no rights,
# no memory, no space) would be said of every row, and must stop the stream and not empty it into the dead letters.
ROW_ERRORS = {
    6: "cannot_parse_text",
    26: "cannot_parse_quoted_string",
    27: "cannot_parse_input",
    38: "cannot_parse_date",
    41: "cannot_parse_datetime",
    53: "type_mismatch",
    69: "argument_out_of_bound",
    70: "cannot_convert_type",
    72: "cannot_parse_number",
    117: "incorrect_data",
    321: "value_out_of_range",
    349: "null_in_ordinary_column",
    407: "decimal_overflow",
    469: "violated_constraint",
    691: "unknown_enum_element",
}
# What the driver raises before anything was sent, because a value does not fit its column.
_CLIENT_ERRORS = (DataError, InvalidOperation, OverflowError, UnicodeError, ValueError, TypeError)
LOGIN_ERRORS = frozenset({192, 193, 194, 516})
"""Unknown user, wrong or missing password, and what newer servers say instead of each: authentication failed."""
_INSERT_SETTINGS = {
    "async_insert": 0,  # we batch ourselves, and an insert that returned must be a part on disk
    "max_partitions_per_insert_block": 0,  # a replay of years is one block with many months, and no mistake
}
_ON_CLUSTERS = {"insert_quorum": "auto"}
"""An insert that returned is on most of the replicas: what one alone has is lost with it, and nobody would know."""


class ClickHouse:
    """A lazily connected client; safe to share between tasks of one event loop.

    Raises (every method):
        Transient: ClickHouse did not answer in time, is away, or can't do it now; the text says what it said.
    """

    def __init__(self, settings: ClickHouseSettings, url: str, *, database: str | None) -> None:
        self._settings = settings
        self._insert_settings = _INSERT_SETTINGS | (_ON_CLUSTERS if settings.cluster is not None else {})
        self._url = url
        self._database = database
        self._client: Any = None
        self._made_with: object = None
        self._replaced: list[Any] = []
        self._connecting = asyncio.Lock()
        self._types: dict[str, dict[str, str]] = {}

    @classmethod
    def of(cls, settings: Settings) -> ClickHouse:
        """Return the client of our database; nothing is connected yet."""
        return cls(settings.clickhouse, settings.clickhouse_url, database=settings.clickhouse.database)

    async def query(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows as dicts; ``parameters`` are bound by the server (``{name:Type}``), times are UTC-aware."""
        client = await self._guarded("query", self._connected)
        try:
            result = await self._guarded("query", lambda: client.query(sql, parameters=parameters))
        except _CLIENT_ERRORS as error:  # an answer that can't be read is none
            raise Transient(f"ClickHouse query: {type(error).__name__}: {error}"[:500]) from error
        return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    async def command(self, sql: str, settings: dict[str, Any] | None = None) -> None:
        """Run one statement that returns nothing."""
        client = await self._guarded("command", self._connected)
        await self._guarded("command", lambda: client.command(sql, settings=settings))

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert all rows or none. After Transient they may be there all the same.

        Raises:
            Unusable: a row can't be stored, now or ever; nothing was inserted.
        """
        types = await self._column_types(table)
        if missing := [name for name in columns if name not in types]:
            raise Transient(
                f"ClickHouse table {table}: expected the columns {', '.join(missing)}, got none. Run `streamapp init`."
            )
        names = [types[name] for name in columns]
        client = await self._guarded(f"insert into {table}", self._connected)
        try:
            await self._guarded(
                f"insert into {table}",
                lambda: client.insert(
                    table, rows, column_names=columns, column_type_names=names, settings=self._insert_settings
                ),
            )
        except _CLIENT_ERRORS as error:
            raise Unusable("does_not_fit", f"{table}: {type(error).__name__}: {error}"[:500]) from error

    async def close(self) -> None:
        """Close the connection; the next call opens another."""
        clients, self._client, self._replaced = [self._client, *self._replaced], None, []
        for client in clients:
            if client is not None:
                await client.close()

    async def _column_types(self, table: str) -> dict[str, str]:
        # Asked once: a migration adds columns and never changes the type of one.
        if table not in self._types:
            rows = await self.query(f"DESCRIBE TABLE {table}")
            self._types[table] = {row["name"]: row["type"] for row in rows}
        return self._types[table]

    async def _guarded(self, what: str, run: Callable[[], Awaitable[Any]]) -> Any:
        limit_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await run()
        except TimeoutError:
            raise Transient(f"ClickHouse {what}: expected an answer within {limit_s:g} s, got none") from None
        except DataError:
            raise
        except ClickHouseError as error:
            raise _translated(what, error) from error
        except (OSError, ClientError) as error:  # of the transport, where the driver lets one through
            raise Transient(f"ClickHouse {what}: {type(error).__name__}: {error}"[:500]) from error

    async def _connected(self) -> Any:
        async with self._connecting:
            files = _state_of_files(self._settings)
            if self._client is None:
                self._client, self._made_with = await self._connect(), files
            elif files != self._made_with:
                try:
                    client = await self._connect()
                except ConfigurationError as error:  # half of what is replaced is there
                    raise Transient(str(error)) from None
                # What is on its way goes on with the old one, which is closed with all.
                self._replaced.append(self._client)
                self._client, self._made_with = client, files
            return self._client

    async def _connect(self) -> Any:
        return await _open(self._settings, self._url, self._database)


async def open_client(settings: Settings) -> Any:
    """Return clickhouse-connect's own asynchronous client, of no database; the caller closes it.

    Raises:
        ClickHouseError: the driver's own errors, as of every call on it.
    """
    return await _open(settings.clickhouse, settings.clickhouse_url, None)


async def _open(settings: ClickHouseSettings, url: str, database: str | None) -> Any:
    address = urlsplit(url)
    # Where pandas is installed (the local engine brings it), the driver would import it at the first insert, to see
    # whether we insert a frame: half a second in which the event loop stands still.
    options.np = options.pd = options.arrow = options.pl = None
    secured = _tls(settings) if address.scheme == "https" else {}
    return await get_async_client(
        host=address.hostname,
        port=address.port,
        interface=address.scheme,
        username=settings.user,
        password=settings.password_text() or "",
        database=database,
        connect_timeout=settings.timeout_s,
        send_receive_timeout=settings.timeout_s,
        autogenerate_session_id=False,  # with a session, two queries at once are an error
        tz_mode="aware",
        client_name="streamapp",
        **secured,
    )


def _tls(settings: ClickHouseSettings) -> dict[str, Any]:
    context_of(settings, "clickhouse")  # says which file can't be used; the driver makes a context of its own
    files = {
        "ca_cert": settings.ca_file,
        "client_cert": settings.certificate_file,
        "client_cert_key": settings.key_file,
    }
    options = {name: str(path) for name, path in files.items() if path is not None}
    # Otherwise the driver takes a certificate for who we are, and keeps the password to itself.
    strict = settings.certificate_file is not None and settings.password_text() is not None
    return {**options, "tls_mode": "strict"} if strict else options


def _state_of_files(settings: ClickHouseSettings) -> object:
    """Return what differs after one of the files that a connection is made with was replaced."""
    paths = (settings.password_file, settings.ca_file, settings.certificate_file, settings.key_file)
    return [(stat.st_mtime_ns, stat.st_ino) for path in paths if path is not None and (stat := _stat(path))]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _translated(what: str, error: ClickHouseError) -> Exception:
    code = getattr(error, "code", None)
    text = f"ClickHouse {what}: {fault(error, 'clickhouse') or error}"[:500]
    if code in LOGIN_ERRORS:
        text += ": check clickhouse.user and clickhouse.password_file"
    if code in ROW_ERRORS:
        return Unusable(ROW_ERRORS[code], text)
    return Transient(text)
