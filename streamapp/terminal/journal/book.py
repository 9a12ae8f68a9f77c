"""The journal's book: orders are submitted and accepted, with their tickets and deals, and reported.

Its rows are in orders.py, the outbox below them in outbox.py. Every method runs inside one transaction of the journal's
thread.
"""

from __future__ import annotations

import logging
from datetime import datetime
from decimal import Decimal

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of
from streamapp.domain.vocabulary import time_text
from streamapp.messages.report import ReportKind
from streamapp.messages.terminal import SubmitReply, SubmitRequest, SubmitState
from streamapp.terminal.journal.orders import OrderRows, kept

logger = logging.getLogger(__name__)


class Book(OrderRows):
    """The journal's content."""

    # -- orders

    def submit(self, request: SubmitRequest) -> SubmitReply:
        """Answer a submit, recording the order if it is new; may be repeated for ever (submission, step 3)."""
        self.record(request)
        return self.answer(request)

    def answer(self, request: SubmitRequest) -> SubmitReply:
        """Answer a submit of an order that was recorded before, with these parameters or others."""
        row = self.row(request.order_id)
        assert row is not None
        state: SubmitState = row.state if row.hash == request.hash else "conflict"
        return SubmitReply(state=state, epoch=self.epoch, clock=self.clock(), row=row)

    def record(self, request: SubmitRequest) -> bool:
        """Record an order, as what its first submit makes of it; False if it was recorded before."""
        if self.db.execute("SELECT 1 FROM rows WHERE order_id = ?", (request.order_id,)).fetchone():
            return False
        now = self.clock()
        # Before the time is compared: it may have been sent from the journal that was lost.
        if request.epoch != self.epoch:
            message = f"claimed for journal {request.epoch}, this is {self.epoch}"
            self._insert_doubt(request, now, "foreign_epoch", message)
        elif self.may_have_left(request.not_after):
            message = f"not after {time_text(request.not_after)}: it may have been in this journal, and have left it"
            self._insert_doubt(request, now, "forgotten", message)
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
        return True

    def _insert_doubt(self, request: SubmitRequest, now: datetime, why: str, message: str) -> None:
        """Record an order that may have been sent before: it is looked for at the broker, and never sent."""
        self._insert(request, "doubt", now, reason=why)
        self._is_unknown(request.order_id, facts.OutcomeUnknown(attempt=request.attempt, why=why, message=message))
        self._adopt_seen(request)

    def accept(self, order_id: str, ticket: int) -> bool:
        """Take a broker's ticket as the order's, wherever it was seen; True the first time.

        BrokerAccepted is reported, then the ticket's deals that were reported as nobody's.
        """
        state, reason, request = self.db.execute(
            "SELECT state, reason, request FROM rows WHERE order_id = ?", (order_id,)
        ).fetchone()
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
            if state in {"absent", "refused"} or (state == "result" and reason != "accepted"):
                self._alarm_late(order_id, ticket, f"{state}/{reason}")
            self._alarm_second(order_id, ticket)
            self.report("accepted", order_id, facts.BrokerAccepted(ticket=ticket))
            for deal, body in self.db.execute(
                "SELECT deal, body FROM deals WHERE ticket = ? AND order_id IS NULL AND volume <> '0'", (ticket,)
            ).fetchall():
                self.db.execute("UPDATE deals SET order_id = ? WHERE deal = ?", (order_id, deal))
                self.report("deal", order_id, facts.Filled.model_validate_json(body))
            self._end_when_filled(ticket)
        return new

    def settle(self, order_id: str, ticket: int | None, issued_by: str) -> str | None:
        """Take a person's word for what became of an order; return why not, if it is not taken.

        Args:
            order_id: An order in doubt or absent.
            ticket: The broker's order that it is; None: none, which is taken only of one that waits for a person.
            issued_by: Who says so.
        """
        row = self.row(order_id)
        if row is None or row.state not in {"doubt", "absent"}:
            return f"expected an order in doubt or absent, got {row.state if row else 'none'}: {order_id}"
        if ticket is None:
            if row.reason != "suspicion":
                return f"expected an order that waits for a person, got {row.state}/{row.reason}: it resolves by itself"
            self.absent(order_id, facts.ProvenAbsent(attempt=row.attempt, evidence={"said_by": issued_by}))
            return None
        if (owner := self.owner(ticket)) is not None:
            return f"expected a ticket that is no order's, got {ticket}, which is that of {owner}"
        self.accept(order_id, ticket)
        return None

    def owner(self, ticket: int) -> str | None:
        """Return the order that a ticket is known to be of."""
        found = self.db.execute("SELECT order_id FROM tickets WHERE ticket = ?", (ticket,)).fetchone()
        return str(found[0]) if found else None

    def _alarm_late(self, order_id: str, ticket: int, end: str) -> None:
        logger.error("order %s: ticket %s appeared after the order had ended as %s", order_id, ticket, end)
        self._count("late_appearances")

    def _alarm_second(self, order_id: str, ticket: int) -> None:
        others = self.db.execute("SELECT ticket FROM tickets WHERE order_id = ? AND ticket <> ?", (order_id, ticket))
        if tickets := [other for (other,) in others]:
            logger.error("order %s: DUPLICATE at the broker: ticket %s beside %s", order_id, ticket, tickets)
            self.halt(f"order {order_id} is at the broker more than once: tickets {sorted([*tickets, ticket])}")

    # -- tickets and deals

    def record_deal(self, body: facts.Filled) -> bool:
        """Report a deal that is not in the journal yet, or the correction of one; True if anything was reported."""
        text = body.model_dump_json()
        known = self._known_deal(body.deal)
        if known is None:
            order_id = self._owner_of(body)
            self.db.execute(
                "INSERT INTO deals VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
                (
                    body.deal,
                    body.ticket,
                    kept(body.magic),
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
        order_id, revision, before, busted = known
        was = facts.Filled.model_validate_json(before)
        # Only our idea of the server's clock can have moved its time; magic and comment are the broker's to rewrite:
        # a correction that corrects nothing would be told as the same money once more.
        body = body.model_copy(update={"time": was.time})
        if not busted and body.model_copy(update={"magic": was.magic, "comment": was.comment}) == was:
            return False
        text = body.model_dump_json()
        self.db.execute(
            "UPDATE deals SET revision = ?, volume = ?, body = ? WHERE deal = ?",
            (revision + 1, str(body.volume), text, body.deal),
        )
        self.report("deal_correction", order_id, facts.FillCorrected(revision=revision + 1, deal=body))
        self._end_when_filled(body.ticket)
        self._end_when_short(body.ticket)
        return True

    def bust_deal(self, deal: int) -> bool:
        """Report that the broker took a deal back; one that was never seen as a trade is none. True the first time."""
        known = self._known_deal(deal)
        if known is None:
            return False
        order_id, revision, before, busted = known
        if busted:
            return False
        self.db.execute("UPDATE deals SET revision = ?, volume = '0' WHERE deal = ?", (revision + 1, deal))
        was = facts.Filled.model_validate_json(before)
        self.report("deal_busted", order_id, facts.FillBusted(deal=deal, revision=revision + 1, was=was))
        self._end_when_short(was.ticket)
        return True

    def record_operation(self, body: facts.AccountOperation) -> bool:
        """Report money that was booked without a trade, or the correction of it; True if anything was reported."""
        found = self.db.execute("SELECT body FROM account_operations WHERE deal = ?", (body.deal,)).fetchone()
        if found is not None:
            was = facts.AccountOperation.model_validate_json(found[0])
            # Time and comment are nothing new, as of a deal.
            body = body.model_copy(update={"at": was.at, "revision": was.revision})
            if body.model_copy(update={"comment": was.comment}) == was:
                return False
            body = body.model_copy(update={"revision": was.revision + 1})
        values = (body.deal, time_text(body.at), body.model_dump_json())
        self.db.execute("INSERT OR REPLACE INTO account_operations VALUES (?, ?, ?)", values)
        self.report("account_operation", None, body)
        return True

    def _known_deal(self, deal: int) -> tuple[str | None, int, str, bool] | None:
        """Return a deal's (order_id, revision, body, whether it was taken back: its volume is 0 then)."""
        found: tuple[str | None, int, str, bool] | None = self.db.execute(
            "SELECT order_id, revision, body, volume = '0' FROM deals WHERE deal = ?", (deal,)
        ).fetchone()
        return found

    def _owner_of(self, body: facts.Filled) -> str | None:
        """Return whose deal it is: by its ticket, else by our magic from an expert, which adopts the ticket."""
        if (owner := self.owner(body.ticket)) is not None:
            return owner
        row = self._row_of(body.magic) if body.magic else None
        if row is None or not _can_be_of(row[1], body):
            return None
        self.accept(row[0], body.ticket)
        return row[0]

    def has_pending(self) -> bool:
        """Return whether an order, ticket or operation has no end yet that the broker may show."""
        found = self.db.execute(
            "SELECT 1 FROM tickets WHERE state = 'live' UNION ALL SELECT 1 FROM expected_levels "
            "UNION ALL SELECT 1 FROM operations WHERE outcome IS NULL LIMIT 1"
        ).fetchone()
        return found is not None or self.has_unfinished()

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

    def _end_when_short(self, ticket: int) -> None:
        """A ticket was done with all of its volume, and the broker took some of it back: nobody fills the rest."""
        found = self.db.execute(
            "SELECT order_id, volume FROM tickets WHERE ticket = ? AND state = 'filled'", (ticket,)
        ).fetchone()
        if found and self.filled(ticket) < Decimal(found[1]):
            self.db.execute("UPDATE tickets SET state = 'cancelled' WHERE ticket = ?", (ticket,))
            self.report("cancelled", found[0], facts.BrokerCancelled(ticket=ticket, reason="broker"))

    def modified(self, order_id: str, changes: dict[str, str | None]) -> None:
        """Expect the new levels of an order that is not filled yet."""
        known = self.db.execute(
            "SELECT stop_loss, take_profit FROM expected_levels WHERE order_id = ?", (order_id,)
        ).fetchone() or ("0", "0")
        filled = "SELECT 1 FROM tickets t JOIN deals d USING (ticket) WHERE t.order_id = ?"
        if self.db.execute(filled, (order_id,)).fetchone() is None:
            now = dict(zip(("stop_loss", "take_profit"), known, strict=True)) | changes
            self.forget_levels(order_id)
            self.expect_levels(order_id, Decimal(now["stop_loss"] or 0), Decimal(now["take_profit"] or 0))

    def has_lost_deals(self, ticket: int) -> bool:
        """Return whether the broker took a deal of the ticket back."""
        return bool(self.db.execute("SELECT 1 FROM deals WHERE ticket = ? AND volume = '0'", (ticket,)).fetchone())

    def filled(self, ticket: int) -> Decimal:
        """Return the volume of the deals of a ticket."""
        return sum(
            (Decimal(volume) for (volume,) in self.db.execute("SELECT volume FROM deals WHERE ticket = ?", (ticket,))),
            Decimal(0),
        )

    def live_tickets(self) -> list[tuple[int, str, str, int]]:
        """Return (ticket, order_id, volume, attempt) of tickets without an end."""
        return self.db.execute(
            "SELECT t.ticket, t.order_id, t.volume, r.attempt FROM tickets t JOIN rows r USING (order_id) "
            "WHERE t.state = 'live'"
        ).fetchall()

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
            if not self.filled(ticket):
                self.forget_levels(order_id)
        return ended

    def cancel_requested(self, ticket: int) -> bool:
        """Return whether the broker was asked by us to cancel a ticket, and has not said no."""
        found = self.db.execute(
            "SELECT 1 FROM operations WHERE ticket = ? AND kind = 'cancel' "
            "AND (outcome IS NULL OR outcome NOT IN ('refused', 'rejected')) "
            "AND EXISTS (SELECT 1 FROM sendings WHERE sendings.request_id = operations.request_id)",
            (ticket,),
        )
        return found.fetchone() is not None

    def deals_seen(self) -> int:
        """Return how many deals are in the journal."""
        return int(self.db.execute("SELECT count(*) FROM deals").fetchone()[0])


def _can_be_of(request: SubmitRequest, body: facts.Filled) -> bool:
    """Return whether a deal with an order's magic can be its own.

    What closes the order's position may carry its magic too (by a stop, by close-by, by another program that copies
    it), but a program's deal of the order itself is always on the order's side.
    """
    return body.reason == "expert" and body.entry != "out_by" and body.side == request.parameters.side
