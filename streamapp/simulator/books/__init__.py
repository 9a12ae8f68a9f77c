"""Accounts and their tables, the money in them, and what an execution does to both; the ledger and the store."""
