"""The process that owns one MT5 account: journal, one order_send for each order, reports (design: submission)."""
