"""The page at ``/``: what there is to ask, and how the worker is."""

from __future__ import annotations

from html import escape
from typing import Any

_VIEWS = (
    ("/orders", "Orders: <code>?status=&amp;symbol=&amp;account=&amp;limit=</code>"),
    ("/orders/{order_id}", "One order with its facts, whichever worker has it"),
    ("/positions", "Open positions, with the broker's side: <code>?symbol=&amp;account=</code>"),
    ("/breaks", "Where our books and the brokers' differ: <code>?account=</code>"),
    ("/snapshots", "What the terminals see, foreign positions and orders marked: <code>?account=</code>"),
    ("/accounts", "Accounts as their terminals see them"),
    ("/accounts/{account}", "One account"),
    ("/limits?account={account}", "What may be opened at an account, and today's use of it"),
    ("POST /commands/{name}", "A command, with a token that may: docs/control.md"),
    ("/health", "200 when ready to trade, otherwise 503 with the reasons"),
    ("/metrics", "Figures for Prometheus"),
)
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}"
    "td{padding:.2rem 1rem .2rem 0}"
)


def index(health: dict[str, Any]) -> str:
    """Return the page."""
    rows = "\n".join(f"<tr><td>{_link(path)}</td><td>{text}</td></tr>" for path, text in _VIEWS)
    reasons = "".join(f"<li>{escape(str(reason))}</li>" for reason in health.get("reasons", []))
    state = escape(str(health.get("status", "not_ready")))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>streamapp</title><style>{_STYLE}</style>'
        f"<h1>streamapp</h1><p>This worker: <strong>{state}</strong></p><ul>{reasons}</ul>"
        f"<table>{rows}</table></html>"
    )


def _link(path: str) -> str:
    return f"<code>{escape(path)}</code>" if "{" in path else f'<a href="{path}"><code>{path}</code></a>'
