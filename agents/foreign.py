"""What someone else's connector answers (broker.fill, broker.error), read as facts of our orders (design: messages)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from decimal import Decimal

from pydantic import ValidationError

from agents.incoming import Incoming
from streamapp import subjects, topics
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
from streamapp.domain.positions import symbol_position_id
from streamapp.domain.vocabulary import Side
from streamapp.errors import Unusable
from streamapp.messages.envelope import json_object, reason_and_detail
from streamapp.messages.error import ErrorMessage, ForeignError
from streamapp.messages.fill import ForeignFill
from tables.orders import OrderRow

EXECUTOR = "foreign"
_NO_SYMBOL = "-"
_UNSEEN_TICKET = 0  # a foreign connector shows none, and no broker gives this one


@dataclass(frozen=True, slots=True)
class Answer:
    """A message of a foreign connector, read.

    ``row`` is the order's, None where the ledger does not know it; ``partitions`` the number that Kafka's topics have.
    """

    incoming: Incoming
    said: ForeignFill | ForeignError
    row: OrderRow | None
    partitions: int

    @property
    def account(self) -> str:
        """The order's account.

        Raises:
            Unusable: the message names none and the order is not known, or it names another than the order has.
        """
        if self.row is None and self.said.account is None:
            raise Unusable("unknown_order", f"expected an order of ours or an account, got {self.said.order_id!r:.80}")
        if self.row is None:
            return self.said.account or ""
        if self.said.account not in {None, self.row.account}:
            raise Unusable("wrong_account", f"expected {self.row.account!r:.80}, got {self.said.account!r:.80}")
        return self.row.account

    @property
    def symbol(self) -> str | None:
        """The symbol, as the message says it or else the order."""
        return self.said.symbol or (None if self.row is None else self.row.symbol)

    def fact(self) -> Fact | None:
        """Return the fact it is, None for an error that changes nothing.

        Raises:
            Unusable: it can't be used; says what is missing.
        """
        self._check_place()
        said = self.said
        body = self._deal(said) if isinstance(said, ForeignFill) else _end_or_doubt(said)
        if body is None:
            return None
        cause = f"{FOREIGN}{self.incoming.sequence}"
        return make_fact(self.account, said.order_id, body, at=said.at or self.incoming.at, causation_id=cause)

    def notice(self) -> ErrorMessage:
        """Return error/1 for an error that is no fact, so that the warehouse has it too; it is not published again."""
        said = self.said
        assert isinstance(said, ForeignError)
        return ErrorMessage(
            error_id=said.error_id or error_id_for(said.order_id, said.attempt, said.kind),
            order_id=said.order_id,
            account=self.account,
            symbol=self.symbol or _NO_SYMBOL,
            kind=said.kind,
            retcode=said.retcode,
            retcode_name=said.retcode_name,
            message=said.message,
            attempt=said.attempt,
            final=False,
            at=said.at or self.incoming.at,
            executor=EXECUTOR,
        )

    def _check_place(self) -> None:
        home = partition_of_order(self.said.order_id, self.partitions)
        if self.row is None and home is not None and home != self.incoming.partition:
            account = self.account
            raise Unusable("wrong_account", f"order {self.said.order_id} is not one of account {account!r:.80}")

    def _deal(self, said: ForeignFill) -> Body:
        _check_size(said)
        symbol = self.symbol
        side = said.side or self._side
        if symbol is None or side is None:
            raise Unusable("unknown_order", "symbol, side: expected both in a fill of an order that is not known here")
        account = self.account
        filled = Filled(
            deal=_deal_number(said, account),
            ticket=said.ticket or 0,
            position_id=said.position_id or symbol_position_id(account, symbol),
            symbol=symbol,
            side=side,
            magic=magic_of(said.order_id),
            time=said.at or self.incoming.at,
            **said.model_dump(include=_SAME),
        )
        return FillCorrected(revision=said.revision, deal=filled) if said.revision > 0 else filled

    @property
    def _side(self) -> Side | None:
        created = None if self.row is None else self.row.state.created
        return None if created is None else created.parameters.side


_SAME = {"entry", "reason", "volume", "price", "commission", "swap", "fee", "profit", "currency"}
# No market is so large. Below these, the sum over all deals of any position still fits what the warehouse keeps (28
# digits before the point), and so no stranger's number can stop the ledger or a sink.
_MOST_LOTS = Decimal(10**9)
_HIGHEST_PRICE = Decimal(10**12)
_MOST_MONEY = Decimal(10**15)
_DEAL = re.compile(r"\d{1,18}")


def is_foreign_answer(incoming: Incoming) -> bool:
    """Return whether a record of ``broker_reports`` came on ``broker.fill`` or ``broker.error``."""
    subject = incoming.text(topics.NATS_SUBJECT) or ""
    return subject.startswith((f"{subjects.BROKER_FILL}.", f"{subjects.BROKER_ERROR}."))


def read_answer(incoming: Incoming) -> ForeignFill | ForeignError:
    """Return what someone else's connector said.

    Raises:
        Unusable: reason ``not_json``, ``not_an_object`` or ``invalid``.
    """
    subject = incoming.text(topics.NATS_SUBJECT) or ""
    model: type[ForeignFill | ForeignError] = (
        ForeignFill if subject.startswith(f"{subjects.BROKER_FILL}.") else ForeignError
    )
    try:
        return model.model_validate_json(incoming.payload)
    except ValidationError as error:
        raise Unusable(*reason_and_detail(error)) from None


def complaint(incoming: Incoming, error: Unusable, deployment: str) -> ErrorMessage:
    """Return the error/1 that tells a foreign connector that we can't use what it said: the same whenever it comes."""
    try:
        named = json_object(incoming.payload)
    except Unusable:
        named = {}
    order_id, account, symbol = (_text(named.get(name)) for name in ("order_id", "account", "symbol"))
    return ErrorMessage(
        error_id=error_id_for(subjects.token(order_id or "-"), 0, f"unusable:{incoming.sequence}"),
        order_id=order_id,
        account=account or "",
        symbol=symbol or _NO_SYMBOL,
        kind="invalid",
        message=f"{error.reason}: {error.detail}"[:500],
        final=False,
        at=incoming.at,
        executor=deployment,
    )


def _check_size(said: ForeignFill) -> None:
    money = max(abs(amount) for amount in (said.commission, said.swap, said.fee, said.profit))
    if said.volume > _MOST_LOTS or said.price > _HIGHEST_PRICE or money > _MOST_MONEY:
        most = f"{_MOST_LOTS} lots, a price of {_HIGHEST_PRICE} and {_MOST_MONEY} of money"
        raise Unusable("out_of_range", f"expected at most {most}, got {said.volume} at {said.price}"[:300])


def _text(value: object) -> str | None:
    return value[:128] if isinstance(value, str) and value else None


def _deal_number(said: ForeignFill, account: str) -> int:
    """Return the deal's ticket: as said, as it stands in ``{account}:{deal}``, or else a number made of the id."""
    if said.deal is not None:
        return said.deal
    if said.fill_id is None:
        raise Unusable("no_fill_id", "fill_id, deal: expected one of them, or a repeated fill would count twice")
    rest = said.fill_id.removeprefix(f"{account}:")
    if _DEAL.fullmatch(rest):
        return int(rest)
    # As of symbol_position_id: 52 bits, the highest set, so that no ticket of a broker is met.
    return 1 << 51 | int.from_bytes(hashlib.sha256(said.fill_id.encode()).digest()[:6], "big")


def _end_or_doubt(said: ForeignError) -> Body | None:
    # Only final and one of these kinds ends an order; silence, whoever reports it, never does.
    if said.kind in {"timeout", "in_doubt"}:
        return OutcomeUnknown(attempt=said.attempt, why="foreign_timeout", message=said.message)
    if not said.final:
        return None
    if said.kind == "rejected":
        name = said.retcode_name or "rejected"
        return BrokerRejected(attempt=said.attempt, retcode=said.retcode or 0, retcode_name=name, message=said.message)
    if said.kind in {"invalid", "not_connected"}:
        reason: RefusedReason = "invalid" if said.kind == "invalid" else "not_connected"
        return SubmitRefused(attempt=said.attempt, reason=reason, message=said.message)
    if said.kind == "cancelled":
        return BrokerCancelled(ticket=_UNSEEN_TICKET, reason="broker")
    return BrokerExpired(ticket=_UNSEEN_TICKET) if said.kind == "expired" else None
