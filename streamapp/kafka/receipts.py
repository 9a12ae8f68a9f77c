"""Waiting for Kafka's acknowledgements, many at once, and reading their outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import errors as kafka

from streamapp.errors import Ambiguous, Definite

ACK_TIMEOUT_S = 10.0
"""How long a write may go without its acknowledgement.

A healthy cluster answers in milliseconds and a change of leader takes a few seconds; beyond that the worker's own
session is about to end, so it had better start again and find out what was written.
"""

REFUSALS = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.InvalidTopicError,
    kafka.UnknownTopicOrPartitionError,
    kafka.TopicAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.PolicyViolationError,
)
"""Answers that say the record was not written. Every other error may hide a record that was."""


async def settle(receipts: Iterable[asyncio.Future[Any]], *, timeout_s: float = ACK_TIMEOUT_S) -> list[Any]:
    """Wait until every one of ``receipts`` is acknowledged: one await for a whole group of writes.

    Args:
        receipts: What ``begin`` of a table or a producer returned. They are never cancelled, neither by the timeout nor
            by the cancellation of the caller: a write that is on its way can't be called back.
        timeout_s: For all of them together.

    Returns:
        The records' metadata (topic, partition, offset), in the order given.

    Raises:
        Definite: Kafka refused a record, and nothing of that record was written.
        Ambiguous: No answer in time, or one that leaves it open. Let it end the worker: the event is redelivered.
    """
    waiting = list(receipts)
    if not waiting:
        return []
    _, pending = await asyncio.wait(waiting, timeout=timeout_s)
    failed = [error for receipt in waiting if receipt.done() and (error := _error(receipt)) is not None]
    if pending or failed:
        raise _verdict(len(waiting), len(pending), failed, timeout_s)
    return [receipt.result() for receipt in waiting]


def _error(receipt: asyncio.Future[Any]) -> BaseException | None:
    return asyncio.CancelledError() if receipt.cancelled() else receipt.exception()


def _verdict(count: int, pending: int, failed: list[BaseException], timeout_s: float) -> Exception:
    if pending or not all(isinstance(error, REFUSALS) for error in failed):
        causes = "; ".join(sorted({repr(error) for error in failed})) or "no error"
        return Ambiguous(
            f"expected {count} acknowledgements from Kafka within {timeout_s} s, {pending} are missing and "
            f"{len(failed)} failed ({causes}): the records may have been written all the same"
        )
    return Definite(f"Kafka refused {len(failed)} of {count} records: {failed[0]!r}")
