"""What an answer of the views says beside its body: for whoever reads them from outside the worker as well."""

from __future__ import annotations

ANSWERED_BY = "Streamapp-Answered-By"
"""Header: the worker that answered, or :data:`CLICKHOUSE`."""
CLICKHOUSE = "clickhouse"
"""Who answered, or did not, when it was no worker."""
MOST_ROWS = 1000
"""Rows of one answer, at most."""
