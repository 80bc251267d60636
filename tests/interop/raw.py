"""A WebSocket client that does nothing automatically: each frame is written and read by the test (RFC 6455, section 5)."""

import asyncio
import base64
import dataclasses
import hashlib
import json
import os
import socket
import struct

import http1

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TIMEOUT = 15
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclasses.dataclass
class Frame:
    fin: bool
    opcode: int
    payload: bytes


class Refused(Exception):
    """The upgrade was answered with something other than 101, or with nothing (response None)."""

    def __init__(self, response):
        super().__init__(response)
        self.response = response


class Closed(Exception):
    """A close frame, or the end of the stream (code None)."""

    def __init__(self, code, reason=""):
        super().__init__(code, reason)
        self.code, self.reason = code, reason


def mask(payload, key):
    """XOR of the payload with the key repeated (RFC 6455, section 5.3), fast enough for 5 MiB."""
    length = len(payload)
    if not length:
        return b""
    pad = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")


def frame(opcode, payload=b"", fin=True, rsv=0, masked=True, declared=None):
    """The bytes of one client frame; `declared` is a length in the header that differs from what follows."""
    if isinstance(payload, str):
        payload = payload.encode()
    length = len(payload) if declared is None else declared
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask_bit = 0x80 if masked else 0
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + mask(payload, key)


def text(message):
    """The frame of a message: a dict is written as JSON, a str as it is."""
    return frame(TEXT, json.dumps(message) if isinstance(message, dict) else message)


def upgrade(port, headers=(), path="/ws", key=None, version="13"):
    key = key or base64.b64encode(os.urandom(16)).decode()
    wanted = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key)]
    return http1.head("GET", path, port, [*wanted, ("Sec-WebSocket-Version", version), *headers])


class RawSocket:
    def __init__(self, connection):
        self.connection = connection
        self.reader, self.writer = connection.reader, connection.writer
        self.response = None
        self.controls = []

    @classmethod
    async def tcp(cls, port, receive_buffer=None, ssl=None):
        """A TCP connection without a handshake yet, but for that of TLS with these settings."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await http1.within(TIMEOUT, asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port)))
        limit = receive_buffer // 2 if receive_buffer else 1 << 16
        name = "127.0.0.1" if ssl else None
        reader, writer = await asyncio.open_connection(sock=sock, limit=limit, ssl=ssl, server_hostname=name)
        return cls(http1.Connection(port, reader, writer))

    @classmethod
    async def open(cls, relay, headers=(), receive_buffer=None, echo_port=None, ssl=None):
        """Connected and upgraded; raises Refused otherwise."""
        port = echo_port or relay.port
        self = await cls.tcp(port, receive_buffer, ssl)
        key = base64.b64encode(os.urandom(16))
        await self.write(upgrade(port, headers, key=key.decode()))
        await self.read_upgrade(key)
        return self

    @classmethod
    async def authed(cls, relay, token, role, ext=None, **options):
        """Connected, upgraded and authenticated."""
        self = await cls.open(relay, **options)
        await self.write(text(auth(token, role, ext)))
        reply = await self.receive()
        assert reply["type"] == "auth.ok", reply
        self.auth_ok = reply["payload"]
        return self

    async def read_upgrade(self, key):
        try:
            self.response = await self.connection.read()
        except (EOFError, ConnectionError):
            raise Refused(None) from None
        if self.response.status != 101:
            raise Refused(self.response)
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        assert self.response.headers["sec-websocket-accept"] == accept
        assert self.response.headers["upgrade"].lower() == "websocket"

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def write(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def send(self, message):
        await self.write(text(message))

    async def read_header(self, timeout=TIMEOUT):
        """FIN, opcode and payload length of the next frame, whose payload stays unread."""
        first, second = await http1.within(timeout, self._exactly(2))
        assert first & 0x70 == 0, "a reserved bit is set"
        assert second & 0x80 == 0, "a server must not mask"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await http1.within(timeout, self._exactly(2)))
            assert length >= 126, "not the shortest length form"
        elif length == 127:
            (length,) = struct.unpack("!Q", await http1.within(timeout, self._exactly(8)))
            assert length >= 1 << 16, "not the shortest length form"
        return bool(first & 0x80), first & 0x0F, length

    async def read_frame(self, timeout=TIMEOUT):
        fin, opcode, length = await self.read_header(timeout)
        return Frame(fin, opcode, await http1.within(timeout, self._exactly(length)))

    async def _exactly(self, count):
        try:
            return await self.reader.readexactly(count)
        except (EOFError, ConnectionError):
            raise Closed(None) from None

    async def receive_bytes(self, timeout=TIMEOUT):
        """The next whole message; control frames in between land in `controls`. Raises Closed."""
        parts = []
        while True:
            got = await self.read_frame(timeout)
            if got.opcode == CLOSE:
                raise close_of(got)
            if got.opcode in (PING, PONG):
                self.controls.append(got)
                continue
            assert (got.opcode == CONT) == bool(parts), "fragments out of order"
            assert parts or got.opcode == TEXT, "the relay forwards as text"
            parts.append(got.payload)
            if got.fin:
                return b"".join(parts)

    async def receive(self, timeout=TIMEOUT):
        return json.loads(await self.receive_bytes(timeout))

    async def closed(self, timeout=TIMEOUT):
        """Skips what still comes until the close frame or the end of the stream; returns Closed."""
        while True:
            try:
                await self.receive_bytes(timeout)
            except Closed as closed:
                return closed

    async def ended(self, timeout=TIMEOUT):
        """Waits for the end of the stream."""
        return await self.connection.ended(timeout)

    def reset(self):
        """Ends the connection the hard way: RST instead of FIN, no close frame."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def close_of(got):
    if len(got.payload) < 2:
        return Closed(1005)
    return Closed(struct.unpack("!H", got.payload[:2])[0], got.payload[2:].decode())


def auth(token, role, ext=None):
    payload = {"token": token, "role": role} | ({} if ext is None else {"ext": ext})
    return {"v": 1, "type": "auth", "id": "auth-1", "ts": 1707451200000, "payload": payload}
