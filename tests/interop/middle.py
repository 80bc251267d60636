"""A man in the middle between the ends and the relay, who can do anything with their messages."""

import asyncio
import contextlib
import json

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from client import MAX_SIZE


class Hold:
    """For `rewrite`: what this role's end says of a kind goes on only while it is open, which it is at first."""

    def __init__(self, role, kind):
        self.role, self.kind, self.held, self.gate = role, kind, [], asyncio.Event()
        self.open()

    def open(self):
        self.gate.set()

    def close(self):
        """`held` has what has come since."""
        self.held = []
        self.gate.clear()

    def __call__(self, role, message):
        return [self._later(message) if (role, message["type"]) == (self.role, self.kind) else message]

    async def _later(self, message):
        self.held.append(message)
        await self.gate.wait()
        return message


class Middle:
    """A relay in front of the relay. It passes all on, unless `rewrite` says otherwise.

    `rewrite(role, message)`: what goes on in place of a message that this role's end sent; a list of messages.
    `seen` has all that the ends sent, as (role, text).
    """

    def __init__(self, relay, rewrite=None):
        self.relay, self.rewrite = relay, rewrite or (lambda _role, message: [message])
        self.seen, self.links = [], {}

    async def __aenter__(self):
        self.server = await serve(self._connected, "127.0.0.1", 0, max_size=MAX_SIZE, ping_interval=None)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for end, upstream in list(self.links.values()):
            end.transport.abort()
            upstream.transport.abort()
        await self.server.wait_closed()

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/ws"

    def cut(self, role):
        """The connection of this end is lost, without a word. Whether there was one."""
        link = self.links.pop(role, None)
        for socket in link or ():
            socket.transport.abort()
        return link is not None

    async def inject(self, role, message):
        """Tells an end something that nobody sent; or the relay (`role` "relay"), as if it came from the phone."""
        socket = self.links["phone"][1] if role == "relay" else self.links[role][0]
        await socket.send(json.dumps(message))

    async def _connected(self, end):
        try:
            first = await end.recv()
            role = json.loads(first)["payload"]["role"]
            async with connect(self.relay.url, max_size=MAX_SIZE, proxy=None, ping_interval=None) as upstream:
                self.links[role] = end, upstream
                await upstream.send(first)
                down = asyncio.create_task(self._down(upstream, end))
                try:
                    await self._up(role, end, upstream)
                finally:
                    down.cancel()
                    if self.links.get(role) == (end, upstream):
                        del self.links[role]
        except (ConnectionClosed, OSError):
            pass

    async def _up(self, role, end, upstream):
        async for text in end:
            self.seen.append((role, text))
            message = json.loads(text)
            if message["type"] == "ping":
                await upstream.send(text)
                continue
            for changed in self.rewrite(role, message):
                if asyncio.iscoroutine(changed):
                    changed = await changed
                if changed is not None:
                    await upstream.send(text if changed is message else json.dumps(changed))

    async def _down(self, upstream, end):
        with contextlib.suppress(ConnectionClosed):
            async for text in upstream:
                await end.send(text)
            await end.close(upstream.close_code or 1001)
