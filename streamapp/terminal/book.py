"""What stands in the journal: rows, tickets, deals and the outbox.

Every method runs inside one transaction of the journal's thread.

A row's states, by the words of the wire (in submission's words: INTENT is ``recorded``)::

    recorded ─▶ started ─▶ result
       │          ├──────▶ doubt ─▶ result (adopted) or absent ─▶ result (adopted after all)
       └▶ refused ◀┘
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from streamapp.clock import Clock
from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.vocabulary import time_text
from streamapp.messages.report import Report, ReportBody, ReportKind
from streamapp.messages.terminal import JournalRow, SubmitReply, SubmitRequest, SubmitState

logger = logging.getLogger(__name__)

MOVES: dict[SubmitState, tuple[SubmitState, ...]] = {
    "started": ("recorded",),
    "refused": ("recorded", "started"),
    "result": ("started", "doubt", "absent"),
    "doubt": ("started",),
    "absent": ("doubt",),
}
"""To which state from which ones. Nothing else happens to a row, whoever asks."""

METERS = ("absent", "late_appearances")
"""How many orders were called absent, and how many of those appeared at the broker later."""

_ROW = "order_id, hash, state, attempt, magic, not_after, recorded_at, reason, ticket"


@dataclass(frozen=True)
class Doubt:
    """An order of which nobody knows what became; ``reason`` is why, ``recorded_at`` when its row was made."""

    order: SubmitRequest
    magic: int
    tag: str
    reason: str
    recorded_at: datetime


class Book:
    """The journal's content. ``boot`` names this life of the process, ``epoch`` the life of the file."""

    def __init__(self, db: sqlite3.Connection, account: str, clock: Clock) -> None:
        self.db = db
        self.account = account
        self.clock = clock
        self.boot = uuid4().hex
        self._looked_at = 0
        self.fresh: dict[str, list[tuple[int, bytes]]] = {"reports": [], "log": []}
        """What this transaction put on the shelves, by their names: it is said from here, not read again."""
        self.epoch = self.meta("epoch") or ""
        self.halt_reason = self.meta("halted")
        """Why the account opens nothing more; None: it opens."""

    # -- meta

    def meta(self, key: str) -> str | None:
        """Return a value kept under a name."""
        found = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Keep a value under a name."""
        self.db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def meter(self, name: str) -> int:
        """Return a count that is kept for all lives of the journal (:data:`METERS`)."""
        return int(self.meta(name) or 0)

    def _count(self, name: str) -> None:
        self.set_meta(name, str(self.meter(name) + 1))

    # -- halting

    def halt(self, reason: str) -> None:
        """Open nothing more until a person says so; the first reason stands."""
        if self.halt_reason is None:
            logger.error("the account opens nothing more: %s", reason)
            self.set_meta("halted", reason)
            self.halt_reason = reason

    def halted(self) -> str | None:
        """Return why the account opens nothing more."""
        return self.halt_reason

    def resume(self) -> bool:
        """Open again; False if it was not halted."""
        was = self.halt_reason is not None
        self.db.execute("DELETE FROM meta WHERE key = 'halted'")
        self.halt_reason = None
        return was

    # -- rows

    def submit(self, request: SubmitRequest) -> SubmitReply:
        """Answer a submit, recording the order if it is new; may be repeated for ever (submission, step 3)."""
        row = self.row(request.order_id)
        if row is None:
            row = self._first_seen(request)
        state: SubmitState = row.state if row.hash == request.hash else "conflict"
        return SubmitReply(state=state, epoch=self.epoch, clock=self.clock(), row=row)

    def _first_seen(self, request: SubmitRequest) -> JournalRow:
        now = self.clock()
        if (
            request.epoch != self.epoch
        ):  # before the time is looked at: it may have been sent from the journal that was lost
            self._insert(request, "doubt", now, reason="foreign_epoch")
            message = f"claimed for journal {request.epoch}, this is {self.epoch}"
            unknown = facts.OutcomeUnknown(attempt=request.attempt, why="foreign_epoch", message=message)
            self.report("unknown", request.order_id, unknown)
            self._adopt_seen(request)
        elif now < request.not_after:
            self._insert(request, "recorded", now)
        else:
            self._insert(request, "refused", now, reason="stale")
            message = f"not after {time_text(request.not_after)}, came at {time_text(now)}"
            self.report(
                "refused",
                request.order_id,
                facts.SubmitRefused(attempt=request.attempt, reason="stale", message=message),
            )
        row = self.row(request.order_id)
        assert row is not None
        return row

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
        found = self.db.execute("SELECT request FROM rows WHERE state = 'recorded' ORDER BY position")
        return [SubmitRequest.decode(request) for (request,) in found]

    def counts(self) -> dict[str, int]:
        """Return how many orders are recorded, started, in doubt, and in doubt with a suspicion; and the meters."""
        found = self.db.execute(
            "SELECT state, count(*), sum(reason IS 'suspicion') FROM rows "
            "WHERE state IN ('recorded', 'started', 'doubt') GROUP BY state"
        ).fetchall()
        return {
            **{state: count for state, count, _ in found},
            "suspicion": sum(suspicions for state, _, suspicions in found if state == "doubt"),
            **{meter: self.meter(meter) for meter in METERS},
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

    def refuse(self, order_id: str, body: facts.SubmitRefused) -> bool:
        """→ REFUSED: it was never sent and never will be."""
        moved = self._move(order_id, "refused", reason=body.reason)
        if moved:
            self.report("refused", order_id, body)
        return moved

    def doubt(self, order_id: str, body: facts.OutcomeUnknown) -> bool:
        """STARTED → DOUBT: nobody knows."""
        moved = self._move(order_id, "doubt", reason=body.why)
        if moved:
            self.report("unknown", order_id, body)
        return moved

    def doubts(self, limit: int) -> list[str]:
        """Return the orders in doubt, oldest first; those that wait for a person come last."""
        found = self.db.execute(
            "SELECT order_id FROM rows WHERE state = 'doubt' ORDER BY reason IS 'suspicion', position LIMIT ?", (limit,)
        )
        return [order_id for (order_id,) in found]

    def absents(self, since: datetime) -> list[str]:
        """Return the orders recorded ``since`` that were called absent."""
        found = self.db.execute(
            "SELECT order_id FROM rows WHERE state = 'absent' AND recorded_at >= ?", (time_text(since),)
        )
        return [order_id for (order_id,) in found]

    def sought(self, order_ids: Collection[str]) -> list[Doubt]:
        """Return what is known of orders that are looked for."""
        marks = ", ".join("?" * len(order_ids))
        found = self.db.execute(
            f"SELECT order_id, request, magic, reason, recorded_at FROM rows WHERE order_id IN ({marks})", (*order_ids,)
        )
        return [
            Doubt(SubmitRequest.decode(request), magic, tag_of(order_id), reason, datetime.fromisoformat(at))
            for order_id, request, magic, reason, at in found
        ]

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
        """Return whether a ticket or magic is that of an order in this journal."""
        known = self.db.execute("SELECT 1 FROM tickets WHERE ticket = ?", (ticket,)).fetchone()
        return known is not None or (magic != 0 and self._row_of(magic) is not None)

    def _row_of(self, magic: int) -> tuple[str, SubmitRequest] | None:
        found = self.db.execute("SELECT order_id, request FROM rows WHERE magic = ?", (magic,)).fetchone()
        return (found[0], SubmitRequest.decode(found[1])) if found else None

    def returned(self, order_id: str, body: facts.SubmitReturned) -> None:
        """Report that ``order_send`` came back; what it means follows in the same transaction."""
        self.report("returned", order_id, body)

    def reject(self, order_id: str, body: facts.BrokerRejected) -> bool:
        """STARTED → RESULT(rejected)."""
        moved = self._move(order_id, "result", reason=body.retcode_name)
        if moved:
            self.report("rejected", order_id, body)
        return moved

    def accept(self, order_id: str, ticket: int) -> bool:
        """Take a broker's ticket as the order's, wherever it was seen; True the first time.

        BrokerAccepted is reported, then the ticket's deals that were reported as nobody's.
        """
        state, request = self.db.execute("SELECT state, request FROM rows WHERE order_id = ?", (order_id,)).fetchone()
        volume = str(SubmitRequest.decode(request).parameters.volume)
        new = (
            self.db.execute(
                "INSERT OR IGNORE INTO tickets VALUES (?, ?, ?, 'live')", (ticket, order_id, volume)
            ).rowcount
            == 1
        )
        if not self._move(order_id, "result", reason="accepted", ticket=ticket):
            self.db.execute("UPDATE rows SET ticket = ? WHERE order_id = ? AND ticket IS NULL", (ticket, order_id))
        if new:
            self._alarm_late(order_id, ticket, state)
            self._alarm_second(order_id, ticket)
            self.report("accepted", order_id, facts.BrokerAccepted(ticket=ticket))
            for deal, body in self.db.execute(
                "SELECT deal, body FROM deals WHERE ticket = ? AND order_id IS NULL", (ticket,)
            ).fetchall():
                self.db.execute("UPDATE deals SET order_id = ? WHERE deal = ?", (order_id, deal))
                self.report("deal", order_id, facts.Filled.model_validate_json(body))
            self._end_when_filled(ticket)
        return new

    def _alarm_late(self, order_id: str, ticket: int, state: SubmitState) -> None:
        if state == "absent":
            logger.error("order %s: ticket %s appeared after the order was called absent", order_id, ticket)
            self._count("late_appearances")

    def _alarm_second(self, order_id: str, ticket: int) -> None:
        others = self.db.execute("SELECT ticket FROM tickets WHERE order_id = ? AND ticket <> ?", (order_id, ticket))
        if tickets := [other for (other,) in others]:
            logger.error("order %s: DUPLICATE at the broker: ticket %s beside %s", order_id, ticket, tickets)
            self.halt(f"order {order_id} is at the broker more than once: tickets {sorted([*tickets, ticket])}")

    def recover(self) -> list[str]:
        """At start-up: whatever was STARTED in an earlier life is a doubt. Return their order ids."""
        found = self.db.execute(
            "SELECT order_id, attempt FROM rows WHERE state = 'started' AND boot IS NOT ?", (self.boot,)
        ).fetchall()
        for order_id, attempt in found:
            message = "the terminal stopped between STARTED and the answer"
            self.doubt(order_id, facts.OutcomeUnknown(attempt=attempt, why="restarted", message=message))
        return [order_id for order_id, _ in found]

    # -- tickets and deals

    def record_deal(self, body: facts.Filled) -> bool:
        """Report a deal that is not in the journal yet, or the correction of one; True if anything was reported."""
        text = body.model_dump_json()
        known = self.db.execute("SELECT order_id, revision, body FROM deals WHERE deal = ?", (body.deal,)).fetchone()
        if known is None:
            order_id = self._owner_of(body)
            self.db.execute(
                "INSERT INTO deals VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
                (
                    body.deal,
                    body.ticket,
                    body.magic,
                    body.reason == "expert",
                    order_id,
                    time_text(body.time),
                    str(body.volume),
                    text,
                ),
            )
            self.report("deal", order_id, body)
            self._end_when_filled(body.ticket)
            return True
        order_id, revision, before = known
        known_time = facts.Filled.model_validate_json(before).time
        body = body.model_copy(update={"time": known_time})  # only our idea of the server's clock can have moved it
        text = body.model_dump_json()
        if before == text:
            return False
        self.db.execute("UPDATE deals SET revision = ?, body = ? WHERE deal = ?", (revision + 1, text, body.deal))
        self.report("deal_correction", order_id, facts.FillCorrected(revision=revision + 1, deal=body))
        return True

    def _owner_of(self, body: facts.Filled) -> str | None:
        """Return whose deal it is: by its ticket, else by our magic from an expert, which adopts the ticket."""
        found = self.db.execute("SELECT order_id FROM tickets WHERE ticket = ?", (body.ticket,)).fetchone()
        if found:
            return str(found[0])
        row = self._row_of(body.magic) if body.magic else None
        if row is None or not _can_be_of(row[1], body):
            return None
        self.accept(row[0], body.ticket)
        return row[0]

    def _adopt_seen(self, request: SubmitRequest) -> None:
        found = self.db.execute(
            "SELECT body FROM deals WHERE magic = ? AND expert", (magic_of(request.order_id),)
        ).fetchall()
        bodies = [facts.Filled.model_validate_json(body) for (body,) in found]
        for ticket in dict.fromkeys(body.ticket for body in bodies if _can_be_of(request, body)):
            self.accept(request.order_id, ticket)

    def _end_when_filled(self, ticket: int) -> None:
        asked = self.db.execute("SELECT volume FROM tickets WHERE ticket = ? AND state = 'live'", (ticket,)).fetchone()
        if asked and self.filled(ticket) >= Decimal(asked[0]):
            self.db.execute("UPDATE tickets SET state = 'filled' WHERE ticket = ?", (ticket,))

    def filled(self, ticket: int) -> Decimal:
        """Return the volume of the deals of a ticket."""
        return sum(
            (Decimal(volume) for (volume,) in self.db.execute("SELECT volume FROM deals WHERE ticket = ?", (ticket,))),
            Decimal(0),
        )

    def live_tickets(self, limit: int) -> list[tuple[int, str, str, int]]:
        """Return (ticket, order_id, volume, attempt) of tickets without an end, looked at longest ago first."""
        found = self.db.execute(
            "SELECT t.ticket, t.order_id, t.volume, r.attempt FROM tickets t JOIN rows r USING (order_id) "
            "WHERE t.state = 'live' "
            "ORDER BY t.ticket > ? DESC, t.ticket LIMIT ?",
            (self._looked_at, limit),
        ).fetchall()
        self._looked_at = found[-1][0] if found else 0
        return found

    def is_live(self, ticket: int) -> bool:
        """Return whether a ticket's end was not seen yet."""
        return (
            self.db.execute("SELECT 1 FROM tickets WHERE ticket = ? AND state = 'live'", (ticket,)).fetchone()
            is not None
        )

    def end_ticket(
        self,
        ticket: int,
        order_id: str,
        body: facts.BrokerCancelled | facts.BrokerExpired | facts.BrokerRejected | None,
    ) -> bool:
        """History shows the ticket in a final state (None: done with all of its volume); True the first time."""
        kinds: dict[type, ReportKind] = {
            facts.BrokerCancelled: "cancelled",
            facts.BrokerExpired: "expired",
            facts.BrokerRejected: "rejected",
        }
        state = "filled" if body is None else kinds[type(body)]
        ended = (
            self.db.execute(
                "UPDATE tickets SET state = ? WHERE ticket = ? AND state = 'live'", (state, ticket)
            ).rowcount
            == 1
        )
        if ended and body is not None:
            self.report(kinds[type(body)], order_id, body)
        return ended

    def deals_seen(self) -> int:
        """Return how many deals are in the journal."""
        return int(self.db.execute("SELECT count(*) FROM deals").fetchone()[0])

    # -- outbox

    def report(self, kind: ReportKind, order_id: str | None, body: ReportBody) -> None:
        """Put a report into the outbox under the next seq."""
        seq = self.last_seq() + 1
        report = Report(
            account=self.account, epoch=self.epoch, seq=seq, at=self.clock(), kind=kind, order_id=order_id, body=body
        )
        payload = report.encode()
        self.db.execute("INSERT INTO outbox VALUES (?, ?)", (seq, payload))
        self.fresh["reports"].append((seq, payload))

    def last_seq(self) -> int:
        """Return the highest seq given so far."""
        last = self.db.execute("SELECT max(seq) FROM outbox").fetchone()[0]
        return int(last) if last is not None else self.released_seq()

    def released_seq(self) -> int:
        """Return up to where the reports are durable with the reports agent."""
        return int(self.meta("released_seq") or 0)

    def release(self, watermark: int) -> int:
        """Forget the reports up to ``watermark``, never more than were given; return the new released seq."""
        watermark = min(watermark, self.last_seq())
        if watermark > self.released_seq():
            self.set_meta("released_seq", str(watermark))
            self.db.execute("DELETE FROM outbox WHERE seq <= ?", (watermark,))
        return self.released_seq()

    def outbox(self, after_seq: int, limit: int) -> list[tuple[int, bytes]]:
        """Return the next reports after ``after_seq``."""
        return self.db.execute(
            "SELECT seq, payload FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit)
        ).fetchall()


def _can_be_of(request: SubmitRequest, body: facts.Filled) -> bool:
    """Return whether a deal with an order's magic can be its own.

    What closes the order's position may carry its magic too (by a stop, by close-by, by another program that copies
    it), but a program's deal of the order itself is always on the order's side.
    """
    return body.reason == "expert" and body.entry != "out_by" and body.side == request.parameters.side
