"""Commands on ``order_commands``; and command/1, in on ``commands.>``, which is answered as unsupported."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import BoundedDecimal, UtcTime
from streamapp.errors import Unusable
from streamapp.messages.envelope import Message, reason_and_detail


class SubmitOrder(Message):
    """Send this order, not later than ``not_after``. Made by execution or intake, after its decision is durable."""

    command: Literal["submit"] = "submit"
    order_id: str
    account: str
    signal_id: str
    attempt: int = 1
    parameters: OrderParameters
    parameters_hash: str
    not_after: UtcTime
    expected_price: BoundedDecimal | None = None
    max_slippage_points: int | None = None
    executor: str


class CheckSubmission(Message):
    """Look again at a row that is held, claimed, or recorded under an older epoch.

    Made by timers, which can't write tables.
    """

    command: Literal["check_submission"] = "check_submission"
    order_id: str
    account: str
    cause: str


Command = Annotated[SubmitOrder | CheckSubmission, Field(discriminator="command")]
_COMMANDS: TypeAdapter[SubmitOrder | CheckSubmission] = TypeAdapter(Command)


def decode_command(payload: bytes) -> SubmitOrder | CheckSubmission:
    """Return the command in a record of ``order_commands``.

    Raises:
        Unusable: as :meth:`Message.decode`.
    """
    try:
        return _COMMANDS.validate_json(payload)
    except ValidationError as error:
        raise Unusable(*reason_and_detail(error)) from None


class CommandRequest(Message):
    """command/1 as it comes from outside; ``request_id`` is its idempotency key."""

    request_id: str = Field(min_length=1, max_length=128)
    account: str | None = None
    order_id: str | None = None
    position_id: int | None = None
    values: dict[str, Any] = Field(default_factory=dict)
    issued_by: str = ""
    issued_at: UtcTime | None = None
    valid_until: UtcTime | None = None
