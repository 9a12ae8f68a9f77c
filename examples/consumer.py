"""Lots by strategy and symbol. Each fill counts once: what comes again, or is corrected, takes the place of what was."""

import sqlite3
import sys

import streamapp

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"
FILE = sys.argv[2] if len(sys.argv) > 2 else "fills.sqlite3"

book = sqlite3.connect(FILE)
book.execute("CREATE TABLE IF NOT EXISTS fills (fill_id TEXT PRIMARY KEY, strategy TEXT, symbol TEXT, lots REAL)")
with streamapp.sync_client(ADDRESS) as client:
    # NATS keeps how far "lots" has come: after a stop it goes on there, from its first start on.
    for fill in client.fills("lots"):
        lots = 0.0 if fill.busted else float(fill.volume) * (1 if fill.side == "buy" else -1)
        book.execute("REPLACE INTO fills VALUES (?, ?, ?, ?)", (fill.fill_id, fill.strategy, fill.symbol, lots))
        book.commit()  # asking for the next one says that this one is done
        [total] = book.execute(
            "SELECT round(sum(lots), 8) FROM fills WHERE strategy IS ? AND symbol = ?", (fill.strategy, fill.symbol)
        ).fetchone()
        print(f"{fill.strategy or '(none)':<12} {fill.symbol:<10} {total:+.2f} lots", flush=True)
