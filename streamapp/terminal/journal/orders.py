"""The rows of the journal's book: one for each order, and where it stands.

A row's states, by the words of the wire (in submission's words: INTENT is ``recorded``)::

    recorded ─▶ started ─▶ result
       │          ├─ ↺ (the next attempt, after proof that the one before came to nothing)
       │          ├──────▶ doubt ─▶ result (adopted) or absent ─▶ result (adopted after all)
       ├▶ refused ◀┘
       └▶ result (it is at the broker already)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.vocabulary import time_text
from streamapp.messages.terminal import JournalRow, SubmitRequest, SubmitState
from streamapp.terminal.journal.outbox import COUNTERS, OutboxRows

MOVES: dict[SubmitState, tuple[SubmitState, ...]] = {
    "started": ("recorded",),
    "refused": ("recorded", "started"),
    "result": ("recorded", "started", "doubt", "absent"),
    "doubt": ("started",),
    "absent": ("doubt",),
}
"""To which state from which ones. Nothing else happens to a row, whoever asks. A recorded order that shows at the
broker has been sent by somebody, and must not be again."""

_UNFINISHED = "state IN ('recorded', 'started', 'doubt')"
"""Said in full beside the state that is meant: only so SQLite uses the index of these rows, and reads no others."""
_ROW = "order_id, hash, state, attempt, magic, not_after, recorded_at, reason, ticket"


def kept(magic: int) -> int:
    """Return a magic as SQLite keeps it: signed, as the servers do. Other programs' may be any 64 bits; ours are 63."""
    return magic - (magic >> 63 << 64)


@dataclass(frozen=True)
class Doubt:
    """An order of which nobody knows what became; ``reason`` is why, ``recorded_at`` when its row was made.

    ``may_be_old``: it may have been sent before that, for another journal, or by this one, which has forgotten it.
    """

    order: SubmitRequest
    magic: int
    tag: str
    reason: str
    recorded_at: datetime
    may_be_old: bool


@dataclass(frozen=True)
class Expected:
    """The levels that the position of an order shall have that was filled at ``filled_at``; 0 is none."""

    order_id: str
    ticket: int
    position_id: int
    stop_loss: Decimal
    take_profit: Decimal
    filled_at: datetime


class OrderRows(OutboxRows):
    """Every method that moves a row does it only as :data:`MOVES` allows, and reports it in the same transaction.

    ``expects_levels``: whether there may be levels to compare.
    """

    expects_levels = True

    def _insert(self, request: SubmitRequest, state: SubmitState, now: datetime, reason: str | None = None) -> None:
        self.db.execute(
            "INSERT INTO rows (order_id, hash, state, attempt, magic, not_after, recorded_at, boot, reason, request) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                request.order_id,
                request.hash,
                state,
                request.attempt,
                magic_of(request.order_id),
                time_text(request.not_after),
                time_text(now),
                self.boot,
                reason,
                request.encode(),
            ),
        )

    def row(self, order_id: str) -> JournalRow | None:
        """Return an order's row."""
        found = self.db.execute(f"SELECT {_ROW} FROM rows WHERE order_id = ?", (order_id,)).fetchone()
        return JournalRow(**dict(zip(_ROW.split(", "), found, strict=True))) if found else None

    def unsent(self) -> list[SubmitRequest]:
        """Return the orders that were recorded and never started, in order of arrival."""
        found = self.db.execute(
            f"SELECT request FROM rows WHERE {_UNFINISHED} AND state = 'recorded' ORDER BY position"
        )
        return [SubmitRequest.decode(request) for (request,) in found]

    def has_unfinished(self) -> bool:
        """Return whether any order is recorded, started or in doubt."""
        return self.db.execute(f"SELECT 1 FROM rows WHERE {_UNFINISHED} LIMIT 1").fetchone() is not None

    def counts(self) -> dict[str, int]:
        """Return how many orders are recorded, started, in doubt, and in doubt with a suspicion; and the meters."""
        found = self.db.execute(
            "SELECT state, count(*), sum(reason IS 'suspicion') FROM rows "
            "WHERE state IN ('recorded', 'started', 'doubt') GROUP BY state"
        ).fetchall()
        return {
            **{state: count for state, count, _ in found},
            "suspicion": sum(suspicions for state, _, suspicions in found if state == "doubt"),
            **{counter: self.counter(counter) for counter in COUNTERS},
        }

    def _move(self, order_id: str, to: SubmitState, **columns: Any) -> bool:
        allowed = MOVES[to]
        changes = {"state": to, "boot": self.boot, **columns}
        return (
            self.db.execute(
                f"UPDATE rows SET {', '.join(f'{name} = ?' for name in changes)} "
                f"WHERE order_id = ? AND state IN ({', '.join('?' * len(allowed))})",
                (*changes.values(), order_id, *allowed),
            ).rowcount
            == 1
        )

    def start(self, order_id: str, body: facts.SubmitStarted) -> bool:
        """INTENT → STARTED; True for exactly one caller, who then has the right to the one ``order_send``."""
        moved = self._move(order_id, "started")
        if moved:
            self.report("started", order_id, body)
        return moved

    def start_again(self, order_id: str, rejected: facts.BrokerRejected, body: facts.SubmitStarted) -> bool:
        """STARTED → STARTED of the next attempt, the one before being rejected; True for exactly one caller.

        The new attempt is reported first: with none open, the order would be over for a moment, and final.
        """
        moved = (
            self.db.execute(
                "UPDATE rows SET attempt = ? WHERE order_id = ? AND state = 'started' AND attempt = ? AND boot = ?",
                (body.attempt, order_id, rejected.attempt, self.boot),
            ).rowcount
            == 1
        )
        if moved:
            self.report("started", order_id, body)
            self.report("rejected", order_id, rejected)
        return moved

    def refuse(self, order_id: str, body: facts.SubmitRefused) -> bool:
        """→ REFUSED: it was never sent and never will be."""
        moved = self._move(order_id, "refused", reason=body.reason)
        if moved:
            self.forget_levels(order_id)
            self.report("refused", order_id, body)
        return moved

    def doubt(self, order_id: str, body: facts.OutcomeUnknown) -> bool:
        """STARTED → DOUBT: nobody knows."""
        moved = self._move(order_id, "doubt", reason=body.why)
        if moved:
            self._is_unknown(order_id, body)
        return moved

    def _is_unknown(self, order_id: str, body: facts.OutcomeUnknown) -> None:
        self.report("unknown", order_id, body)
        self._doubted.append(order_id)

    def take_doubted(self) -> list[str]:
        """Return what became a doubt since the last time, whatever it is by now."""
        taken, self._doubted = self._doubted, []
        return taken

    def doubts(self, limit: int) -> list[str]:
        """Return the orders in doubt, oldest first; those that wait for a person come last."""
        found = self.db.execute(
            f"SELECT order_id FROM rows WHERE {_UNFINISHED} AND state = 'doubt' "
            "ORDER BY reason IS 'suspicion', position LIMIT ?",
            (limit,),
        )
        return [order_id for (order_id,) in found]

    def absents(self, since: datetime, limit: int) -> list[str]:
        """Return the newest orders recorded ``since`` that were called absent."""
        found = self.db.execute(
            "SELECT order_id FROM rows WHERE state = 'absent' AND recorded_at >= ? ORDER BY recorded_at DESC LIMIT ?",
            (time_text(since), limit),
        )
        return [order_id for (order_id,) in found]

    def sought(self, order_ids: Collection[str]) -> list[Doubt]:
        """Return what is known of orders that are looked for."""
        marks = ", ".join("?" * len(order_ids))
        found = self.db.execute(
            f"SELECT request, attempt, magic, reason, recorded_at FROM rows WHERE order_id IN ({marks})",
            (*order_ids,),
        )
        return [
            Doubt(order, magic, tag_of(order.order_id), reason, datetime.fromisoformat(at), self._may_be_old(order))
            for request, attempt, magic, reason, at in found
            for order in (_of_attempt(request, attempt),)
        ]

    def _may_be_old(self, order: SubmitRequest) -> bool:
        return order.epoch != self.epoch or self.may_have_left(order.not_after)

    def absent(self, order_id: str, body: facts.ProvenAbsent) -> bool:
        """DOUBT → ABSENT; False if it was adopted meanwhile."""
        moved = self._move(order_id, "absent", reason="absent")
        if moved:
            self.report("absent", order_id, body)
            self._count("absent")
        return moved

    def suspect(self, order_id: str, body: facts.OutcomeUnknown) -> bool:
        """Leave a doubt to a person; True the first time."""
        moved = (
            self.db.execute(
                "UPDATE rows SET reason = 'suspicion' WHERE order_id = ? AND state = 'doubt' "
                "AND reason IS NOT 'suspicion'",
                (order_id,),
            ).rowcount
            == 1
        )
        if moved:
            self.report("unknown", order_id, body)
        return moved

    def explains(self, ticket: int, magic: int) -> bool:
        """Return whether a ticket or magic is that of an order in this journal, or of an operation's request."""
        known = self.db.execute("SELECT 1 FROM tickets WHERE ticket = ?", (ticket,)).fetchone()
        sent = self.db.execute("SELECT 1 FROM sendings WHERE magic = ?", (kept(magic),)).fetchone()
        return known is not None or sent is not None or (magic != 0 and self._row_of(magic) is not None)

    # -- levels that the position of an order shall have

    def expect_levels(self, order_id: str, stop_loss: Decimal, take_profit: Decimal) -> None:
        """Remember what the position must show once the order is filled; 0 and 0: nothing."""
        if stop_loss or take_profit:
            values = (order_id, str(stop_loss), str(take_profit))
            self.db.execute("INSERT OR REPLACE INTO expected_levels VALUES (?, ?, ?)", values)
            self.expects_levels = True

    def forget_levels(self, order_id: str) -> None:
        """Forget them: they were compared, or nothing is filled."""
        self.db.execute("DELETE FROM expected_levels WHERE order_id = ?", (order_id,))

    def levels_to_compare(self) -> list[Expected]:
        """Return the levels of orders that are filled, in part at least, and were not compared with their position."""
        found = self.db.execute(
            "SELECT e.order_id, e.stop_loss, e.take_profit, min(d.deal), d.body FROM expected_levels e "
            "JOIN tickets t USING (order_id) JOIN deals d ON d.ticket = t.ticket WHERE d.volume <> '0' GROUP BY 1"
        ).fetchall()
        self.expects_levels = self.db.execute("SELECT 1 FROM expected_levels LIMIT 1").fetchone() is not None
        deals = [(row, facts.Filled.model_validate_json(row[4])) for row in found]
        return [
            Expected(row[0], body.ticket, body.position_id, Decimal(row[1]), Decimal(row[2]), body.time)
            for row, body in deals
        ]

    def deals_of(self, position_id: int) -> list[facts.Filled]:
        """Return the deals of a position that were not taken back, oldest first, as far as they are known."""
        found = self.db.execute(
            "SELECT body FROM deals WHERE json_extract(body, '$.position_id') = ? AND volume <> '0' ORDER BY at, deal",
            (position_id,),
        )
        return [facts.Filled.model_validate_json(body) for (body,) in found]

    def _row_of(self, magic: int) -> tuple[str, SubmitRequest] | None:
        found = self.db.execute("SELECT order_id, request FROM rows WHERE magic = ?", (kept(magic),)).fetchone()
        return (found[0], SubmitRequest.decode(found[1])) if found else None

    def returned(self, order_id: str, body: facts.SubmitReturned) -> None:
        """Report that ``order_send`` came back; what it means follows in the same transaction."""
        self.report("returned", order_id, body)

    def reject(self, order_id: str, body: facts.BrokerRejected) -> bool:
        """STARTED → RESULT(rejected)."""
        moved = self._move(order_id, "result", reason=body.retcode_name)
        if moved:
            self.forget_levels(order_id)
            self.report("rejected", order_id, body)
        return moved

    def recover(self) -> list[str]:
        """At start-up: whatever was STARTED in an earlier life is a doubt. Return their order ids."""
        found = self.db.execute(
            f"SELECT order_id, attempt FROM rows WHERE {_UNFINISHED} AND state = 'started' AND boot IS NOT ?",
            (self.boot,),
        ).fetchall()
        for order_id, attempt in found:
            message = "the terminal stopped between STARTED and the answer"
            self.doubt(order_id, facts.OutcomeUnknown(attempt=attempt, why="restarted", message=message))
        return [order_id for order_id, _ in found]


def _of_attempt(request: bytes, attempt: int) -> SubmitRequest:
    """Return an order as it was sent last: its row counts the attempts."""
    return SubmitRequest.decode(request).model_copy(update={"attempt": attempt})
