"""What a terminal says of itself and of its account."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamapp.simulator.sessions import Session

PING_US = 45_000


class Standing:
    """The functions `terminal_info` and `account_info`."""

    def __init__(self, session: "Session") -> None:
        """Tells of the terminal and account of `session`."""
        self._session = session

    def terminal_info(self) -> str:
        """The values of a TerminalInfo."""
        session, stands = self._session, self._session.stands
        account, path = session.account, session.path
        return json.dumps([
            False, False, stands("disconnect") is None, False, stands("autotrading_off") is None,
            stands("api_disabled") is not None, False, False, False, False, session.market.build, 100000, 0, PING_US,
            0.0, 0.0, account.profile.company, "MetaTrader 5", "English", path, path, path,
        ])  # fmt: skip

    def account_info(self) -> str:
        """The values of an AccountInfo; without a connection those of the last moment."""
        session, account = self._session, self._session.account
        profile, entry = account.profile, account.settings
        balance, (equity, margin, profit) = account.balance, session.market.money(account)
        off = session.stands("disconnect")
        if off is not None and account.name in off.money:
            balance, equity, margin, profit = off.money[account.name]
        return json.dumps([
            entry.login, entry.trade_mode, account.leverage, profile.limit_orders, int(profile.stop_out_in_money),
            session.stands("investor") is None, session.stands("server_disables_ea") is None, account.margin_mode,
            account.digits, profile.fifo_close, float(balance), float(account.credit), float(profit),
            float(equity), float(margin), float(equity - margin),
            round(float(account.margin_level(equity, margin)), 2), float(profile.margin_call),
            float(profile.stop_out), 0.0, 0.0, 0.0, 0.0, 0.0, entry.name, entry.server, entry.currency,
            profile.company,
        ])  # fmt: skip
