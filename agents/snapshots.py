"""Snapshots: an account as its terminal sees it now becomes a row, and an account/1 update where something changed.

Only the newest of a group counts, and nothing is written for one that says what is known already: an account at rest
costs nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agents.dead_letters import dead_record
from agents.incoming import Incoming
from streamapp import subjects, topics
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Unusable
from streamapp.kafka.producer import Producer, Record
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.accounts import AccountRow, AccountStateRow, account_key
from tables.durable import DurableTable


class Snapshots:
    """The snapshots agent's work on one account's records at a time; it alone writes the accounts' states.

    Args:
        accounts: Table ``accounts``.
        producer: Where updates and dead letters go.
        settings: The deployment's name.
        metrics: Counters.
    """

    def __init__(
        self, accounts: DurableTable[AccountRow], producer: Producer, settings: Settings, metrics: TradingMetrics
    ) -> None:
        self._accounts = accounts
        self._producer = producer
        self._deployment = settings.deployment
        self._metrics = metrics

    async def handle(self, events: list[Any]) -> None:
        """Take over the newest snapshot of one account; all is durable on return.

        Raises:
            Ambiguous, Definite, Transient: Kafka did not take something. Let it end the worker; everything comes again.
        """
        read: list[tuple[Incoming, SnapshotMessage]] = []
        letters: list[Record] = []
        for incoming in map(Incoming.of, events):
            try:
                read.append((incoming, _read(incoming)))
            except Unusable as error:
                letters.append(dead_record(incoming.dead(error.reason, error.detail), incoming.key, incoming.partition))
                self._metrics.dead_letters.labels(incoming.topic, error.reason).inc()
        await self._producer.send_all(letters)
        if read:
            await self._take(*max(read, key=lambda one: one[1].at))

    async def _take(self, incoming: Incoming, snapshot: SnapshotMessage) -> None:
        key, partition = account_key(snapshot.account), incoming.partition
        row = self._accounts.get(key, partition=partition)
        before = row.root if row is not None and isinstance(row.root, AccountStateRow) else None
        if before is not None and not _is_news(before, snapshot.state, snapshot.at):
            return
        state = AccountStateRow(account=snapshot.account, state=snapshot.state, at=snapshot.at)
        await self._accounts.put(key, AccountRow(state), partition=partition)
        await self._producer.send_all([self._update(incoming, snapshot)])

    def _update(self, incoming: Incoming, snapshot: SnapshotMessage) -> Record:
        account = subjects.token(snapshot.account)
        name = subjects.message_id(self._deployment, "account", account, time_text(snapshot.at))
        headers = {
            topics.PUBLISH_SUBJECT: subjects.account_state(snapshot.account).encode(),
            topics.PUBLISH_ID: name.encode(),
        }
        return Record(
            topics.UPDATES,
            snapshot.account.encode(),
            snapshot.state.encode(),
            headers | incoming.trace,
            incoming.partition,
        )


def _is_news(before: AccountStateRow, state: AccountMessage, at: datetime) -> bool:
    """Return whether it is newer and different; the same one again is put and told again, it may not have been told."""
    if at <= before.at:
        return at == before.at
    return state.model_copy(update={"at": before.state.at}) != before.state


def _read(incoming: Incoming) -> SnapshotMessage:
    snapshot = SnapshotMessage.decode(incoming.payload)
    if incoming.key != snapshot.account.encode() or snapshot.state.account != snapshot.account:
        raise Unusable("wrong_key", f"expected the account as key and in state, {snapshot.account!r:.80}")
    return snapshot
