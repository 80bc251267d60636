"""A relay of the wire contract alone, as 0.1.0 was: it knows neither `ext` nor devices, and passes everything else on."""

import json

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from client import MAX_SIZE

OTHER = {"phone": "agent", "agent": "phone"}
NOT_FROM_A_PHONE = ("chat.stream", "chat.done")


class OldRelay:
    """One token's. `seen` has all that the ends sent, as (role, message), and `auths` the payload of each `auth`."""

    def __init__(self, port=0):
        self.port, self.sockets, self.seen, self.auths = port, {}, [], []

    async def __aenter__(self):
        options = {"max_size": MAX_SIZE, "ping_interval": None, "reuse_port": True}  # the port may have been a real relay's
        self.server = await serve(self._connected, "127.0.0.1", self.port, **options)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for socket in list(self.sockets.values()):
            socket.transport.abort()
        await self.server.wait_closed()

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/ws"

    async def _connected(self, socket):
        role = None
        try:
            first = json.loads(await socket.recv())
            role = first["payload"]["role"]
            self.auths.append(first["payload"])
            before, self.sockets[role] = self.sockets.get(role), socket
            if before:
                await before.close(4001, "replaced")
            other = self.sockets.get(OTHER[role])
            payload = {"paired": other is not None, "daily_quota_bytes": 524_288_000, "daily_used_bytes": 0}
            await self._tell(socket, "auth.ok", payload)
            if other and not before:
                await self._tell(other, "status", {"peer": "online"})
            async for text in socket:
                await self._handle(role, socket, text)
        except ConnectionClosed:
            pass
        finally:
            if self.sockets.get(role) is socket:
                del self.sockets[role]
                if other := self.sockets.get(OTHER[role]):
                    await self._tell(other, "status", {"peer": "offline"})

    async def _handle(self, role, socket, text):
        message = json.loads(text)
        self.seen.append((role, message))
        kind = message["type"]
        if kind == "ping":
            await self._tell(socket, "pong", {})
        elif kind.startswith("auth") or kind == "status" or (role == "phone" and kind in NOT_FROM_A_PHONE):
            await self._refuse(socket, message, "INVALID_MESSAGE", "not from this side")
        elif other := self.sockets.get(OTHER[role]):
            try:
                await other.send(text)
            except ConnectionClosed:
                await self._refuse(socket, message, "PEER_OFFLINE", "the other side is not connected")
        elif kind != "pong":
            await self._refuse(socket, message, "PEER_OFFLINE", "the other side is not connected")

    async def _refuse(self, socket, message, code, text):
        await self._tell(socket, "chat.error", {"code": code, "message": text, "ref": message.get("id")})

    @staticmethod
    async def _tell(socket, kind, payload):
        try:
            await socket.send(json.dumps({"v": 1, "type": kind, "id": "relay", "ts": 0, "payload": payload}))
        except ConnectionClosed:
            pass
