"""What the terminal of an account reports that trades, is charged, and has its deals corrected and taken back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from streamapp.domain import facts as f
from tests.kit.examples import deal, operation

Said = tuple[str, str | None, Any]


def traded(filled_id: str) -> list[Said]:
    """Return the reports of an order that is filled in two deals, of others' deals, and of money without a trade."""
    taken_back = deal(31, "0.1", position_id=8, profit=Decimal("0.1"))
    return [
        ("accepted", filled_id, {"ticket": 7}),
        ("deal", filled_id, deal(20, "0.1", "1.08510", commission=Decimal("-0.7"))),
        ("deal", filled_id, deal(21, "0.2", "1.08520", seconds=5)),
        ("deal", None, deal(22, "0.1", "1.09", ticket=9, seconds=6, side="sell", entry="out", profit=Decimal(49))),
        ("account_operation", None, operation(23)),
        ("account_operation", None, operation(24, "1000", None, type="balance")),
        ("deal", None, deal(30, "0.1", ticket=10, position_id=8)),
        ("deal_busted", None, f.FillBusted(deal=31, revision=1, was=taken_back)),
    ]


def corrected(filled_id: str, working: str) -> list[Said]:
    """Return the reports that change what :func:`traded` said, and of an order that works with another price."""
    return [
        ("deal_correction", filled_id, f.FillCorrected(revision=1, deal=deal(20, "0.1", "1.08410"))),
        ("account_operation", None, operation(23, "-3", revision=1)),
        ("deal_busted", None, f.FillBusted(deal=30, revision=1, was=deal(30, "0.1", ticket=10, position_id=8))),
        ("modified", working, {"request_id": "r", "changes": {"price": "1.02"}}),
        ("accepted", working, {"ticket": 12}),
    ]
