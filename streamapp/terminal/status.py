"""What an account's process tells its parent on standard output, a JSON line each time."""

from __future__ import annotations

from streamapp.domain.vocabulary import Connection
from streamapp.messages.envelope import Message


class ProcessStatus(Message):
    """How an account is.

    ``reasons`` are what is wrong, in words, and empty while nothing is; ``metrics`` are figures by their names in
    Prometheus without ``streamapp_terminal_``.
    """

    account: str
    epoch: str
    connection: Connection
    reasons: tuple[str, ...]
    metrics: dict[str, int]
