"""A small phone: it sends one chat message and prints the answer while it streams in.

    python clients/python/phone.py ws://127.0.0.1:8080/ws oc_pair_... "hello"

Exit code 0 after the answer's end, 1 where there is none; the reason goes to standard error.
"""

import asyncio
import json
import sys
import time
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException

HELP = {
    "PEER_OFFLINE": "No agent is connected with this token. Start clients/python/agent.py first.",
    "RATE_LIMITED": "Too many messages.",
    "DAILY_QUOTA_EXCEEDED": "This token's bandwidth for today is used up.",
    "MONTHLY_QUOTA_EXCEEDED": "This token's bandwidth for this month is used up.",
}


def message(kind, **payload):
    now_ms = int(time.time() * 1000)
    return json.dumps({"v": 1, "type": kind, "id": str(uuid.uuid4()), "ts": now_ms, "payload": payload})


async def ask(ws, token, text):
    await ws.send(message("auth", token=token, role="phone"))
    reply = json.loads(await ws.recv())
    if reply["type"] == "auth.fail":
        sys.exit(f"The relay refused the token: {reply['payload']['message']}")
    await ws.send(message("chat.send", text=text))
    async for frame in ws:
        received = json.loads(frame)
        payload = received.get("payload") or {}
        if received["type"] == "chat.stream":
            print(payload.get("delta", ""), end="", flush=True)
        elif received["type"] == "chat.done":
            print()
            return
        elif received["type"] == "chat.error":
            wait = payload.get("retry_after_ms")
            hint = f" Try again in {-(-wait // 1000)} s." if wait else ""
            sys.exit(HELP.get(payload["code"], f"{payload['code']}: {payload.get('message')}") + hint)
        elif received["type"] == "status" and payload.get("peer") == "offline":
            sys.exit("The agent went away before its answer was complete.")
    sys.exit(f"The relay closed the connection: {ws.close_code} {ws.close_reason}")


async def main(url, token, text):
    try:
        async with connect(url, ping_interval=30, ping_timeout=10, max_size=5 * 1024 * 1024) as ws:
            await ask(ws, token, text)
    except (OSError, InvalidHandshake, WebSocketException) as error:
        sys.exit(f"No connection to {url}: {error}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f'usage: {sys.argv[0]} ws://HOST:PORT/ws TOKEN "TEXT"')
    asyncio.run(main(*sys.argv[1:]))
