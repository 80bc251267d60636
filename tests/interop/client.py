"""A phone or an agent on the `websockets` library, with the settings of existing agents."""

import asyncio
import contextlib
import json
import time
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import http1

MAX_SIZE = 5 * 1024 * 1024
TIMEOUT = 15


def envelope(kind, payload=None, **more):
    return {
        "v": 1,
        "type": kind,
        "id": str(uuid.uuid4()),
        "ts": int(time.time() * 1000),
        "payload": payload or {},
    } | more


def sized(kind, size, fill="x"):
    """The text of a message of exactly `size` bytes, and its id."""
    message = envelope(kind, {"text": ""})
    missing = size - len(json.dumps(message))
    assert missing >= 0
    message["payload"]["text"] = fill * missing
    text = json.dumps(message)
    assert len(text.encode()) == size
    return text, message["id"]


class Client:
    def __init__(self, ws):
        self.ws = ws
        self.auth_ok = None

    @classmethod
    async def open(cls, relay, **options):
        settings = {
            "ping_interval": 30,
            "ping_timeout": 10,
            "max_size": MAX_SIZE,
            "proxy": None,
            "open_timeout": TIMEOUT,
        }
        return cls(await connect(relay.url, **(settings | options)))

    @classmethod
    async def authed(cls, relay, token, role, **options):
        self = await cls.open(relay, **options)
        await self.auth(token, role)
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.ws.close()

    async def auth(self, token, role):
        await self.send("auth", {"token": token, "role": role})
        reply = await self.receive()
        assert reply["type"] == "auth.ok", reply
        self.auth_ok = reply["payload"]

    async def send(self, kind, payload=None, **more):
        """Sends an envelope; returns its id."""
        message = envelope(kind, payload, **more)
        await self.ws.send(json.dumps(message))
        return message["id"]

    async def send_text(self, text):
        await self.ws.send(text)

    async def receive_text(self, timeout=TIMEOUT):
        return await http1.within(timeout, self.ws.recv())

    async def receive(self, timeout=TIMEOUT):
        return json.loads(await self.receive_text(timeout))

    async def expect(self, kind, timeout=TIMEOUT):
        """The next message, which must be of this type; its payload."""
        message = await self.receive(timeout)
        assert message["type"] == kind, message
        return message.get("payload")

    async def expect_error(self, code, ref=None):
        """The next message, which must be that error; its payload."""
        payload = await self.expect("chat.error")
        assert payload["code"] == code, payload
        assert isinstance(payload["message"], str) and payload["message"]
        if ref is not None:
            assert payload.get("ref") == ref, payload
        return payload

    async def expect_silence(self):
        """Nothing was on its way to this client: a ping sent now is answered before anything else comes."""
        await self.send("ping")
        await self.expect("pong")

    async def closed(self, timeout=TIMEOUT):
        """Skips what still comes; the close code and reason that the relay sent."""
        try:
            while True:
                await self.receive_text(timeout)
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")


@contextlib.asynccontextmanager
async def pair(relay, token=None):
    """An agent and a phone of the same token, both authenticated; the agent has been told of the phone."""
    token = token or await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        async with await Client.authed(relay, token, "phone") as phone:
            assert await agent.expect("status") == {"peer": "online"}
            yield agent, phone
