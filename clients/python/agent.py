"""A small agent: it answers each chat.send with an echo, word by word.

    python clients/python/agent.py ws://127.0.0.1:8080/ws oc_pair_...

Put your model where `answer` is. The messages are described in PROTOCOL.md.
"""

import asyncio
import json
import random
import sys
import time
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidHandshake, WebSocketException

FINAL = {4001: "Another agent has taken this token's place.", 4002: "The token was revoked."}


def message(kind, **payload):
    now_ms = int(time.time() * 1000)
    return json.dumps({"v": 1, "type": kind, "id": str(uuid.uuid4()), "ts": now_ms, "payload": payload})


async def answer(ws, text):
    """Streams the answer piece by piece, then says that it is complete."""
    words = f"You said: {text}".split(" ")
    for seq, word in enumerate(words, start=1):
        await ws.send(message("chat.stream", delta=word + ("" if seq == len(words) else " "), seq=seq))
        await asyncio.sleep(0.05)  # a model takes its time, too
    await ws.send(message("chat.done", full_text=" ".join(words)))


async def serve(ws, token):
    """One connection: auth first, then whatever the phone sends, until it ends."""
    await ws.send(message("auth", token=token, role="agent"))
    reply = json.loads(await ws.recv())
    if reply["type"] == "auth.fail":
        sys.exit(f"The relay refused the token: {reply['payload']['message']}")
    if reply["type"] != "auth.ok":
        return
    print("Connected; the phone is", "online" if reply["payload"]["paired"] else "offline", flush=True)
    async for text in ws:
        received = json.loads(text)
        payload = received.get("payload") or {}
        if received["type"] == "chat.send":
            print("phone:", payload.get("text"), flush=True)
            await answer(ws, payload.get("text", ""))
        elif received["type"] == "status":
            print("The phone is", payload.get("peer"), flush=True)
        elif received["type"] == "chat.error":
            print("error:", payload.get("code"), payload.get("message"), flush=True)


async def main(url, token):
    delay = 1
    while True:  # a relay that is full or restarts wants to be tried again; a refused token does not
        started = time.monotonic()
        try:
            async with connect(url, ping_interval=30, ping_timeout=10, max_size=5 * 1024 * 1024) as ws:
                await serve(ws, token)
            reason = f"closed by the relay ({ws.close_code} {ws.close_reason})"
        except ConnectionClosedError as error:
            if error.rcvd and error.rcvd.code in FINAL:
                sys.exit(FINAL[error.rcvd.code])
            reason = error
        except (OSError, InvalidHandshake, WebSocketException) as error:
            reason = error
        if time.monotonic() - started > 60:
            delay = 1
        print(f"No connection: {reason}. Trying again in {delay} s.", flush=True)
        await asyncio.sleep(delay * random.uniform(0.8, 1.2))
        delay = min(delay * 2, 60)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} ws://HOST:PORT/ws TOKEN")
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2]))
    except KeyboardInterrupt:
        pass
