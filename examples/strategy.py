"""A strategy: long while the price is above its mean, short while it is below, flat at the end. A hedging account's."""

import asyncio
import json
import sys
import uuid

import nats

import streamapp

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"
ACCOUNT, SYMBOL, LOOKS = "demo-hedging", "EURUSD", 20


async def bid(connection) -> float:
    reply = await connection.request(f"mt5.{ACCOUNT}.quote", json.dumps({"symbol": SYMBOL}).encode(), timeout=5)
    return float(json.loads(reply.data)["content"]["bid"])


async def main() -> None:
    async with streamapp.client(ADDRESS) as client, await nats.connect(ADDRESS) as connection:

        async def send(**said) -> None:
            signal = {"signal_id": str(uuid.uuid4()), "status": "approved", "account": ACCOUNT, "strategy": "mean"}
            answer = await client.send(signal | {"symbol": SYMBOL} | said, within_s=30)
            print(said, "->", answer.schema_, getattr(answer, "order_ids", answer.detail))

        seen, side = [], None
        for _ in range(LOOKS):
            seen.append(await bid(connection))
            wanted = "buy" if seen[-1] >= sum(seen) / len(seen) else "sell"
            if side not in (None, wanted):
                await send(intent="close")
            if side != wanted:
                await send(side=wanted, order_type="market", volume="0.10")
            side = wanted
            await asyncio.sleep(0.2)
        await send(intent="close")


asyncio.run(main())
