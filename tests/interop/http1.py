"""A small HTTP/1.1 client that shows the bytes: for keep-alive, pipelining and heads that no library would send."""

import asyncio
import dataclasses
import json as json_module
import socket

TIMEOUT = 10


async def within(timeout, awaitable):
    """Its result, or TimeoutError. Not `wait_for`: that of Python 3.11 now and then swallows that the task is cancelled."""
    async with asyncio.timeout(timeout):
        return await awaitable


@dataclasses.dataclass
class Response:
    status: int
    headers: dict
    body: bytes

    def json(self):
        return json_module.loads(self.body)


def head(method, path, port, headers=(), length=None):
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def encode(method, path, port, headers=(), body=None):
    """A whole request; a body that is not bytes is sent as JSON."""
    if body is None:
        return head(method, path, port, headers, 0 if method in ("POST", "PATCH") else None)
    if not isinstance(body, bytes):
        body = json_module.dumps(body).encode()
        headers = [*headers, ("Content-Type", "application/json")]
    return head(method, path, port, headers, len(body)) + body


class Connection:
    def __init__(self, port, reader, writer):
        self.port, self.reader, self.writer = port, reader, writer

    @classmethod
    async def open(cls, port):
        return cls(port, *await within(TIMEOUT, asyncio.open_connection("127.0.0.1", port)))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def read(self, timeout=TIMEOUT):
        """The next response; raises EOFError (IncompleteReadError) where the relay closed instead."""
        return await within(timeout, self._read())

    async def _read(self):
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {}
        for line in filter(None, lines[1:]):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if status in (101, 204, 304):
            return Response(status, headers, b"")
        return Response(status, headers, await self.reader.readexactly(int(headers["content-length"])))

    async def ended(self, timeout=TIMEOUT):
        """Waits until the relay has closed the connection (cleanly or by a reset); returns what still came."""
        rest = b""
        try:
            while chunk := await within(timeout, self.reader.read(65536)):
                rest += chunk
        except ConnectionError:
            pass
        return rest


async def request(port, method, path, headers=(), body=None):
    async with await Connection.open(port) as connection:
        await connection.send(encode(method, path, port, [*headers, ("Connection", "close")], body))
        return await connection.read()


def get_blocking(port, path):
    """A GET without asyncio, for the fixtures: the whole answer as bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(head("GET", path, port, [("Connection", "close")]))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer
