"""What somebody else's connector reports (broker.fill, broker.error), as facts of our orders (design: messages)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from decimal import Decimal

from streamapp.desk.inputs import ForeignReport, Incoming
from streamapp.desk.notices import NO_SYMBOL
from streamapp.desk.projection import DEALS, add_fact
from streamapp.desk.state import Draft
from streamapp.domain.facts import (
    Body,
    BrokerCancelled,
    BrokerExpired,
    BrokerRejected,
    Fact,
    FillCorrected,
    Filled,
    OutcomeUnknown,
    RefusedReason,
    SubmitRefused,
    make_fact,
)
from streamapp.domain.fold import FOREIGN
from streamapp.domain.identifiers import error_id_for, magic_of, partition_of_order
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.positions import symbol_position_id
from streamapp.errors import Unusable
from streamapp.messages.error import ErrorMessage, ForeignError
from streamapp.messages.fill import ForeignFill
from tables.orders import OrderRow

EXECUTOR = "foreign"
_UNSEEN_TICKET = 0  # a foreign connector shows none, and no broker gives this one


def take_foreign(draft: Draft, new: ForeignReport) -> None:
    """Add the fact that a foreign connector's message is; an error that is none goes to the archive alone.

    Raises:
        Unusable: it can't be used; says what is missing.
    """
    report = _Reading(new.incoming, new.message, draft.order(new.message.order_id), draft.policy.partitions)
    if report.account != draft.account:
        raise Unusable("wrong_account", f"expected {report.account!r:.80} as the record's account")
    fact = report.fact()
    if fact is None:
        draft.publish(report.notice(), trace=new.incoming.trace)
    else:
        add_fact(draft, fact, new.incoming.trace)
    kind = "foreign_fill" if fact is not None and isinstance(fact.body, DEALS) else "foreign_error"
    draft.counts["reports", kind] += 1


@dataclass(frozen=True, slots=True)
class _Reading:
    """``row`` is the order's, None where it is not known; ``partitions`` the number that Kafka's topics have."""

    incoming: Incoming
    reported: ForeignFill | ForeignError
    row: OrderRow | None
    partitions: int

    @property
    def account(self) -> str:
        """The order's account.

        Raises:
            Unusable: the message names none and the order is not known, or it names another than the order has.
        """
        if self.row is None and self.reported.account is None:
            raise Unusable(
                "unknown_order", f"expected an order of ours or an account, got {self.reported.order_id!r:.80}"
            )
        if self.row is None:
            return self.reported.account or ""
        if self.reported.account not in {None, self.row.account}:
            raise Unusable("wrong_account", f"expected {self.row.account!r:.80}, got {self.reported.account!r:.80}")
        return self.row.account

    @property
    def symbol(self) -> str | None:
        """The symbol, as the message says it or else the order."""
        return self.reported.symbol or (None if self._parameters is None else self._parameters.symbol)

    def fact(self) -> Fact | None:
        """Return the fact it is, None for an error that changes nothing.

        Raises:
            Unusable: it can't be used; says what is missing.
        """
        self._check_place()
        reported = self.reported
        body = self._deal(reported) if isinstance(reported, ForeignFill) else _end_or_doubt(reported)
        if body is None:
            return None
        cause = f"{FOREIGN}{self.incoming.sequence}"
        return make_fact(self.account, reported.order_id, body, at=reported.at or self.incoming.at, causation_id=cause)

    def notice(self) -> ErrorMessage:
        """Return error/1 for an error that is no fact, so that the warehouse has it too; it is not published again."""
        reported = self.reported
        assert isinstance(reported, ForeignError)
        return ErrorMessage(
            error_id=reported.error_id or error_id_for(reported.order_id, reported.attempt, reported.kind),
            order_id=reported.order_id,
            account=self.account,
            symbol=self.symbol or NO_SYMBOL,
            kind=reported.kind,
            retcode=reported.retcode,
            retcode_name=reported.retcode_name,
            message=reported.message,
            attempt=reported.attempt,
            final=False,
            at=reported.at or self.incoming.at,
            executor=EXECUTOR,
        )

    def _check_place(self) -> None:
        home = partition_of_order(self.reported.order_id, self.partitions)
        if self.row is None and home is not None and home != self.incoming.partition:
            account = self.account
            raise Unusable("wrong_account", f"order {self.reported.order_id} is not one of account {account!r:.80}")

    def _deal(self, reported: ForeignFill) -> Body:
        _check_size(reported)
        symbol = self.symbol
        side = reported.side or (None if self._parameters is None else self._parameters.side)
        if symbol is None or side is None:
            raise Unusable("unknown_order", "symbol, side: expected both in a fill of an order that is not known here")
        account = self.account
        filled = Filled(
            deal=_deal_number(reported, account),
            ticket=reported.ticket or 0,
            position_id=reported.position_id or symbol_position_id(account, symbol),
            symbol=symbol,
            side=side,
            magic=magic_of(reported.order_id),
            time=reported.at or self.incoming.at,
            **reported.model_dump(include=_SAME),
        )
        return FillCorrected(revision=reported.revision, deal=filled) if reported.revision > 0 else filled

    @property
    def _parameters(self) -> OrderParameters | None:
        created = None if self.row is None else self.row.state.created
        return None if created is None else created.parameters


_SAME = {"entry", "reason", "volume", "price", "commission", "swap", "fee", "profit", "currency"}
# As of streamapp.messages.fill.MOST_MONEY.
_MOST_LOTS = Decimal(10**9)
_HIGHEST_PRICE = Decimal(10**12)
_DEAL = re.compile(r"\d{1,18}")


def _check_size(reported: ForeignFill) -> None:
    if reported.volume > _MOST_LOTS or reported.price > _HIGHEST_PRICE:
        most = f"{_MOST_LOTS} lots and a price of {_HIGHEST_PRICE}"
        raise Unusable("out_of_range", f"expected at most {most}, got {reported.volume} at {reported.price}"[:300])


def _deal_number(reported: ForeignFill, account: str) -> int:
    """Return the deal's ticket: as reported, as it stands in ``{account}:{deal}``, or else a number made of the id."""
    if reported.deal is not None:
        return reported.deal
    if reported.fill_id is None:
        raise Unusable("no_fill_id", "fill_id, deal: expected one of them, or a repeated fill would count twice")
    rest = reported.fill_id.removeprefix(f"{account}:")
    if _DEAL.fullmatch(rest):
        return int(rest)
    # As of symbol_position_id: 52 bits, the highest set, so that no ticket of a broker is met.
    return 1 << 51 | int.from_bytes(hashlib.sha256(reported.fill_id.encode()).digest()[:6], "big")


def _end_or_doubt(reported: ForeignError) -> Body | None:
    # Only final and one of these kinds ends an order; silence, whoever reports it, never does.
    if reported.kind in {"timeout", "in_doubt"}:
        return OutcomeUnknown(attempt=reported.attempt, why="foreign_timeout", message=reported.message)
    if not reported.final:
        return None
    if reported.kind == "rejected":
        name = reported.retcode_name or "rejected"
        return BrokerRejected(
            attempt=reported.attempt, retcode=reported.retcode or 0, retcode_name=name, message=reported.message
        )
    if reported.kind in {"invalid", "not_connected"}:
        reason: RefusedReason = "invalid" if reported.kind == "invalid" else "not_connected"
        return SubmitRefused(attempt=reported.attempt, reason=reason, message=reported.message)
    if reported.kind == "cancelled":
        return BrokerCancelled(ticket=_UNSEEN_TICKET, reason="broker")
    return BrokerExpired(ticket=_UNSEEN_TICKET) if reported.kind == "expired" else None
