"""Lots by strategy and symbol, of fills that count once: what is redelivered, or corrected, takes the place of what was."""

import asyncio
import json
import sqlite3
import sys

import nats

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"
FILE = sys.argv[2] if len(sys.argv) > 2 else "fills.sqlite3"

PUT = """INSERT INTO fills VALUES (:fill_id, :revision, :strategy, :symbol, :lots) ON CONFLICT (fill_id) DO UPDATE
SET revision = excluded.revision, lots = excluded.lots WHERE excluded.revision > fills.revision"""


async def main() -> None:
    book = sqlite3.connect(FILE)
    book.execute(
        "CREATE TABLE IF NOT EXISTS fills (fill_id TEXT PRIMARY KEY, revision INT, strategy, symbol, lots REAL)"
    )
    client = await nats.connect(ADDRESS)
    # Durable: the server remembers by this name what was acknowledged. The stream keeps seven days.
    fills = await client.jetstream().pull_subscribe("broker.fill.>", durable="examples-consumer")
    while True:
        try:
            batch = await fills.fetch(100, timeout=5)
        except TimeoutError:  # nothing new
            continue
        for message in batch:
            fill = json.loads(message.data)
            lots = 0.0 if fill["busted"] else float(fill["volume"]) * (1 if fill["side"] == "buy" else -1)
            book.execute(
                PUT, {**{name: fill[name] for name in ("fill_id", "revision", "strategy", "symbol")}, "lots": lots}
            )
        book.commit()  # first what was counted is on the disk,
        for message in batch:
            await message.ack()  # then the server forgets it
        for strategy, symbol, lots in book.execute(
            "SELECT strategy, symbol, round(sum(lots), 8) FROM fills GROUP BY 1, 2"
        ):
            print(f"{strategy or '(none)':<12} {symbol:<10} {lots:+.2f} lots", flush=True)


asyncio.run(main())
