"""The outbox: what a commit says goes to the archive and to NATS, side by side, and is forgotten when both have it.

So do the decisions on copies of a signal that goes to several accounts: to completion, which answers for all of them.

What is not known to be said is part of the account's next commit (:mod:`tables.accounts`), and is said
again at recovery: under the same ids, in the same bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from streamapp import topics
from streamapp.crashpoints import reach
from streamapp.desk.inputs import TRACE
from streamapp.errors import Transient
from streamapp.kafka.abort import abort
from streamapp.kafka.producer import Producer, Record
from streamapp.kafka.receipts import ACK_TIMEOUT_S
from streamapp.messages.commit import Publication, encode_commit, publications_of

BOUND = 256 * 1024
"""Unsaid bytes of an account beyond which its lane waits: they are written again with each of its commits, which must
not exceed 512 KiB."""
IDLE_S = 1.0
"""How long nothing but news has been said, and all of it is, when an outbox is emptied durably."""


@dataclass(eq=False, slots=True)
class Unsaid:
    """A commit on its way to the archive and to NATS; ``number`` 0 is news that no row keeps.

    ``left``: how many still have to take it, or a part of it.
    """

    account: str
    partition: int
    number: int
    commit: bytes
    publications: Sequence[Publication]
    left: int = 0
    done: asyncio.Future[None] | None = None

    @property
    def kinds(self) -> Iterator[str]:
        """What is published of it, in words."""
        return (publication.kind for publication in self.publications if publication.kind is not None)


@dataclass(slots=True)
class _Backlog:
    partition: int
    number: int = 0
    unsaid: deque[Unsaid] = field(default_factory=deque)
    size: int = 0
    is_kept: bool = False  # the durable row holds commits
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    tidying: asyncio.TimerHandle | None = None

    def stop_tidying(self) -> None:
        """Let no tidying come that is on its way."""
        if self.tidying is not None:
            self.tidying.cancel()
            self.tidying = None


class Outbox:
    """What this worker's accounts have not said yet.

    Args:
        producer: To the archive; a producer of its own, so that no commit waits behind words.
        publish: Hands a commit to the publisher, which calls :meth:`published` when JetStream has all of it.
        tidy: Called with an account whose lane should empty its durable outbox, and the partition that has it.
        on_failure: What to do when the archive refuses, or does not answer; ends the process.
    """

    def __init__(
        self,
        producer: Producer,
        publish: Callable[[Unsaid], None],
        tidy: Callable[[str, int], None],
        *,
        on_failure: Callable[[str], None] = abort,
        timeout_s: float = ACK_TIMEOUT_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self._producer = producer
        self._publish = publish
        self._tidy = tidy
        self._on_failure = on_failure
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._accounts: dict[str, _Backlog] = {}
        self._aside: set[Unsaid] = set()
        self._is_closed = False

    def close(self) -> None:
        """Expect no more answers: an orderly shutdown stops the producers, and the next start says what is left."""
        self._is_closed = True
        self._aside.clear()  # who waits there is stopped as well, and its messages are redelivered
        self.drop(frozenset(known.partition for known in self._accounts.values()))

    @property
    def troubles(self) -> list[str]:
        """Which lanes wait for their words to be said, for ``/health``."""
        return [
            f"account {account}: {known.size} bytes are not said yet, expected {BOUND} at most: its lane waits"
            for account, known in self._accounts.items()
            if known.size > BOUND
        ]

    def unsaid(self) -> dict[str, int]:
        """Return the bytes that each account has not said yet."""
        return {account: known.size for account, known in self._accounts.items()}

    # --- the lane's side

    async def room(self, account: str) -> None:
        """Return when the account may say more.

        Raises:
            Transient: The account belongs to another worker by now.
        """
        while (known := self._accounts.get(account)) is not None and known.size > BOUND:
            known.moved.clear()
            await known.moved.wait()
            if self._accounts.get(account) is not known:
                raise Transient(f"account {account} was reassigned while its words waited to be said")

    def next_number(self, account: str) -> int:
        """Return the number of the account's next commit."""
        known = self._accounts.get(account)
        return 1 if known is None else known.number + 1

    def commits(self, account: str) -> list[bytes]:
        """Return the account's commits that are not known to be said, oldest first."""
        known = self._accounts.get(account)
        return [] if known is None else [each.commit for each in known.unsaid]

    def is_kept(self, account: str) -> bool:
        """Return whether the durable row holds commits although all is said."""
        known = self._accounts.get(account)
        return known is not None and known.is_kept and not known.unsaid

    def tidied(self, account: str) -> None:
        """Take note that the durable row is empty now."""
        if (known := self._accounts.get(account)) is not None:
            known.is_kept = False

    def say(
        self, account: str, partition: int, number: int, commit: bytes, publications: Sequence[Publication]
    ) -> None:
        """Say a commit that is durable now, or news (``number`` 0), after everything the account said before."""
        known = self._accounts.setdefault(account, _Backlog(partition))
        unsaid = Unsaid(account, partition, number, commit, publications)
        if number:
            known.number, known.is_kept = number, True
            known.unsaid.append(unsaid)
            known.size += len(commit)
            # Not for news: an account that moves every second would never be idle.
            known.stop_tidying()
        self._send(unsaid)

    async def say_aside(self, partition: int, publications: Sequence[Publication], now: datetime) -> None:
        """Return when the archive and NATS have messages that are no account's; for who repeats them until then.

        Raises:
            Transient: The partition was given up meanwhile; its next owner says them.
        """
        commit = encode_commit("", 0, now, (), publications)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        unsaid = Unsaid("", partition, 0, commit, publications, done=done)
        self._aside.add(unsaid)
        self._send(unsaid)
        try:
            await done
        finally:
            self._aside.discard(unsaid)

    # --- recovery

    def restore(self, account: str, partition: int, number: int, commits: Sequence[bytes]) -> None:
        """Say again what an account's durable row holds; ``number`` is the last commit's."""
        known = self._accounts[account] = _Backlog(partition, number, is_kept=bool(commits))
        for place, commit in enumerate(commits, start=number - len(commits) + 1):
            unsaid = Unsaid(account, partition, place, commit, publications_of(commit))
            known.unsaid.append(unsaid)
            known.size += len(commit)
            self._send(unsaid)

    async def said(self, accounts: Iterable[str]) -> None:
        """Return when all that these accounts have to say was said, or is another worker's to say by now."""
        for account in accounts:
            while (known := self._accounts.get(account)) is not None and known.unsaid:
                known.moved.clear()
                await known.moved.wait()

    def drop(self, partitions: frozenset[int]) -> None:
        """Forget the accounts of ``partitions``: their next owner says what is left."""
        for account in [name for name, known in self._accounts.items() if known.partition in partitions]:
            known = self._accounts.pop(account)
            known.stop_tidying()
            known.moved.set()
        for unsaid in self._aside:
            if unsaid.partition in partitions and unsaid.done is not None and not unsaid.done.done():
                unsaid.done.set_exception(Transient(f"partition {unsaid.partition} was given up before all was said"))

    # --- the two ways

    def published(self, unsaid: Unsaid) -> None:
        """Take note that JetStream has every message of a commit."""
        self._done(unsaid)

    def _send(self, unsaid: Unsaid) -> None:
        is_published = any(publication.subject is not None for publication in unsaid.publications)
        records = [
            Record(topics.ARCHIVE, unsaid.account.encode(), unsaid.commit, {}, unsaid.partition),
            *(_copy_record(each) for each in unsaid.publications if each.copy_of is not None),
        ]
        unsaid.left = len(records) + is_published
        for record in records:
            receipt = self._producer.begin(record)
            late = asyncio.get_running_loop().call_later(self._timeout_s, self._late, record.topic)
            receipt.add_done_callback(partial(self._stored, unsaid, record.topic, late))
        if is_published:
            self._publish(unsaid)

    def _late(self, topic: str) -> None:
        if not self._is_closed:
            self._on_failure(f"{topic} did not acknowledge a commit within {self._timeout_s} s")

    def _stored(self, unsaid: Unsaid, topic: str, late: asyncio.TimerHandle, receipt: asyncio.Future[Any]) -> None:
        late.cancel()
        if self._is_closed:
            return
        if receipt.cancelled() or (error := receipt.exception()) is not None:
            cause = "cancelled" if receipt.cancelled() else repr(error)
            self._on_failure(f"{topic} did not take a commit of account {unsaid.account}: {cause}")
            return
        self._done(unsaid)

    def _done(self, unsaid: Unsaid) -> None:
        unsaid.left -= 1
        if unsaid.left:
            return
        if unsaid.done is not None and not unsaid.done.done():
            unsaid.done.set_result(None)
        if not unsaid.number:
            return
        reach("desk.after_outbox", unsaid.kinds)
        known = self._accounts.get(unsaid.account)
        if known is None or unsaid not in known.unsaid:
            return  # another worker's by now
        known.unsaid.remove(unsaid)
        known.size -= len(unsaid.commit)
        known.moved.set()
        if not known.unsaid:
            known.stop_tidying()
            loop = asyncio.get_running_loop()
            known.tidying = loop.call_later(self._idle_s, self._tidy, unsaid.account, unsaid.partition)


def _copy_record(publication: Publication) -> Record:
    """Return the decision on a copy for completion, which has the binding of its signal in the id's partition."""
    assert publication.copy_of is not None
    trace = {} if publication.trace is None else {TRACE: publication.trace.encode()}
    return Record(
        topics.INCOMPLETE, publication.copy_of.encode(), publication.message, {topics.FAMILY: topics.COPY} | trace
    )
