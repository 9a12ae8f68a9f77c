"""NATS subjects, streams and message ids. The only place that spells them (design: messages, architecture "NATS")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

ORIGIN_HEADER = "Streamapp-Origin"
MESSAGE_ID_HEADER = "Nats-Msg-Id"

SIGNALS_APPROVED = "signals.approved"
ORDERS_SUBMITTED = "orders.submitted"
BROKER_FILL = "broker.fill"
BROKER_ERROR = "broker.error"
COMMANDS = "commands"
COMMAND_RESULTS = "command_results"
REPORT = "mt5.report"
BROKER_LOG = "mt5.log"
SNAPSHOT = "mt5.snapshot"
RESERVED_ACCOUNTS = frozenset({"report", "snapshot", "log"})
"""No account may have these names: its request subjects would fall into a stream (mt5.{account}.submit)."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


@dataclass(frozen=True)
class StreamSpec:
    """A JetStream stream as ``streamapp init`` creates it."""

    name: str
    subjects: tuple[str, ...]
    max_age_s: float
    max_bytes: int
    max_msgs_per_subject: int = -1
    duplicate_window_s: float = 600.0


# JetStream reserves max_bytes against its disk limit, so a laptop must have room for the sum. At 2,000 messages of 700
# bytes a second, a GiB is 12 minutes of a mirror that stands still; where the rate is high, raise it with the nats
# client: init never lowers a limit.
_GIB = 1024**3

EXECUTION_IN = StreamSpec(
    "EXECUTION_IN",
    tuple(
        f"{s}.>" for s in (SIGNALS_APPROVED, ORDERS_SUBMITTED, BROKER_FILL, BROKER_ERROR, COMMANDS, REPORT, BROKER_LOG)
    ),
    max_age_s=7 * 86400,
    max_bytes=_GIB,
)
ACCOUNT_SNAPSHOTS = StreamSpec(
    "ACCOUNT_SNAPSHOTS", (f"{SNAPSHOT}.>",), max_age_s=86400, max_bytes=_GIB // 16, max_msgs_per_subject=1
)
EXECUTION_OUT = StreamSpec(
    "EXECUTION_OUT",
    (
        *(
            f"orders.{status}.>"
            for status in ("pending", "partially_filled", "filled", "cancelled", "rejected", "failed")
        ),
        "positions.>",
        "accounts.>",
        "signals.accepted.>",
        "signals.refused.>",
        "signals.answered.>",
        "reconciliation.>",
        f"{COMMAND_RESULTS}.>",
    ),
    max_age_s=7 * 86400,
    max_bytes=_GIB,
)
STREAMS = (EXECUTION_IN, ACCOUNT_SNAPSHOTS, EXECUTION_OUT)


def stream_of(subject: str) -> StreamSpec | None:
    """Return the stream that keeps a subject of ours, None for one that none keeps."""
    kept = (spec for spec in STREAMS for captured in spec.subjects if subject.startswith(captured.removesuffix(">")))
    return next(kept, None)


def mirror_durable(deployment: str) -> str:
    """Return the name of mirror's durable consumers: one for each deployment, since each needs every message."""
    return f"{deployment}-mirror"


def lease_bucket(deployment: str) -> str:
    """Return the name of the key-value bucket that says which mirror is the active one."""
    return f"{deployment}-mirror"


@lru_cache(maxsize=10_000)
def token(text: str) -> str:
    """Return ``text`` as one subject token: each byte outside ``[A-Za-z0-9_-]`` becomes ``%XX``."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode())


def signal_approved(symbol: str) -> str:
    """Return the subject on which a risk engine publishes an approved signal."""
    return f"{SIGNALS_APPROVED}.{token(symbol)}"


def approved_symbol(subject: str) -> str | None:
    """Return the symbol that a subject of approved signals names; None for ``-``, and for any other subject."""
    prefix = f"{SIGNALS_APPROVED}."
    name = subject.removeprefix(prefix) if subject.startswith(prefix) else "-"
    return None if name == "-" else unquote(name)


def signal_accepted(symbol: str) -> str:
    """Return the subject of the answer to a signal that is an order."""
    return f"signals.accepted.{token(symbol)}"


def signal_refused(symbol: str) -> str:
    """Return the subject of a refusal; ``-`` stands for a symbol that is not known."""
    return f"signals.refused.{token(symbol) or '-'}"


def signal_answered(symbol: str) -> str:
    """Return the subject of what became of all copies of a signal; ``-`` stands for a symbol that is not known."""
    return f"signals.answered.{token(symbol) or '-'}"


def order_status(status: str, symbol: str) -> str:
    """Return the subject of an order's revision."""
    return f"orders.{status}.{token(symbol)}"


def fill(symbol: str) -> str:
    """Return the subject of a fill."""
    return f"{BROKER_FILL}.{token(symbol)}"


def error(symbol: str) -> str:
    """Return the subject of an error notice; ``-`` stands for a symbol that is not known."""
    return f"{BROKER_ERROR}.{token(symbol) or '-'}"


def position(symbol: str) -> str:
    """Return the subject of a position."""
    return f"positions.{token(symbol)}"


def account_state(account: str) -> str:
    """Return the subject of an account's state."""
    return f"accounts.{token(account)}"


def account_operation(account: str) -> str:
    """Return the subject of money that was booked on an account without a trade."""
    return f"accounts.operations.{token(account)}"


def command(name: str, target: str) -> str:
    """Return the subject of a command; ``target`` is the account, or the symbol of an order's or position's."""
    return f"{COMMANDS}.{name}.{token(target) or '-'}"


def command_name(subject: str) -> str:
    """Return which command a subject of commands names, whatever it is: ``order.cancel``."""
    return subject.removeprefix(f"{COMMANDS}.").rpartition(".")[0]


def command_result(request_id: str) -> str:
    """Return the subject of what becomes of a command."""
    return f"{COMMAND_RESULTS}.{token(request_id)}"


def reconciliation_break(account: str) -> str:
    """Return the subject of the differences between our books and the broker's."""
    return f"reconciliation.break.{token(account)}"


def terminal(account: str, operation: str) -> str:
    """Return the request subject of one account's terminal (submit, hello, replay, ack, ...).

    Never captured by a stream.
    """
    return f"mt5.{token(account)}.{operation}"


def report(account: str) -> str:
    """Return the subject of what a terminal saw."""
    return f"{REPORT}.{token(account)}"


def broker_log(account: str) -> str:
    """Return the subject of an account's broker log."""
    return f"{BROKER_LOG}.{token(account)}"


def snapshot(account: str) -> str:
    """Return the subject of an account's positions and money as they are now."""
    return f"{SNAPSHOT}.{token(account)}"


def origin(deployment: str, role: str) -> str:
    """Return the value of the origin header: who we are."""
    return f"{deployment}/{role}"


def message_id(deployment: str, *parts: object) -> str:
    """Return a Nats-Msg-Id: ``{deployment}:order:{order_id}:{rev}`` and the like; deduplication is per stream."""
    return ":".join((deployment, *(str(part) for part in parts)))
