"""Request bodies in chunks (RFC 9112 section 7.1), as programs that write a body before they know its length send them."""

import pytest

import http1
from relay import ADMIN_KEY

KEY = ("X-Admin-Key", ADMIN_KEY)
BODY = b'{"label":"in chunks"}'


def head(relay, headers=(), path="/api/v1/pair", method="POST"):
    return http1.head(method, path, relay.port, [KEY, *headers, ("Transfer-Encoding", "chunked")])


def chunks(*parts, trailers=b""):
    sized = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    return b"".join([*sized, b"0\r\n", trailers, b"\r\n"])


async def made(relay, connection):
    answer = await connection.read()
    assert answer.status == 201, answer
    shown = await relay.http("GET", "/api/v1/tokens?limit=1000", admin=True)
    return [token["label"] for token in shown.json()["tokens"]][-1]


@pytest.mark.parametrize("piece", [10_000, 100, 7, 1])
async def test_a_body_may_come_in_chunks_and_in_any_pieces(relay, piece):
    """A second request, sent along, is answered after it."""
    body = chunks(BODY[:5], BODY[5:6], BODY[6:], trailers=b"X-Checksum: 1\r\n")
    request = head(relay) + body + http1.encode("GET", "/health", relay.port)
    async with await http1.Connection.open(relay.port) as connection:
        for at in range(0, len(request), piece):
            await connection.send(request[at : at + piece])
        assert await made(relay, connection) == "in chunks"
        assert (await connection.read()).json()["status"] == "ok"


async def test_every_call_with_a_body_takes_chunks(relay):
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(head(relay, path="/api/v1/register") + chunks(b"ignored"))
        assert (await connection.read()).status == 201
        await connection.send(head(relay) + chunks())
        token = (await connection.read()).json()
        path = f"/api/v1/tokens/{token['id']}"
        await connection.send(head(relay, path=path, method="PATCH") + chunks(BODY))
        answer = await connection.read()
        assert (answer.status, answer.json()["label"]) == (200, "in chunks")


async def test_a_large_head_and_the_largest_body(relay):
    """Head, data and framing have bounds of their own."""
    padding = [(f"X-{n}", "y" * 500) for n in range(30)]
    body = BODY + b" " * (4096 - len(BODY))
    request = head(relay, padding) + b"%x;%s\r\n%s\r\n0\r\nX: %s\r\n\r\n" % (4096, b"e" * 2000, body, b"t" * 2000)
    async with await http1.Connection.open(relay.port) as connection:
        for at in range(0, len(request), 1000):
            await connection.send(request[at : at + 1000])
        assert await made(relay, connection) == "in chunks"


async def test_a_websocket_after_a_call_with_a_body_in_chunks(relay):
    upgrade = http1.head(
        "GET",
        "/ws",
        relay.port,
        [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    )
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(head(relay) + chunks(BODY) + upgrade)
        assert (await connection.read()).status == 201
        answer = await connection.reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer


NEXT = b"GET /api/v1/pair/smuggled HTTP/1.1\r\nHost: relay\r\n\r\n"


@pytest.mark.parametrize(
    "body, status",
    [
        (b"x\r\n", 400),
        (b"5\nhello\r\n0\r\n\r\n", 400),
        (b"0x5\r\nhello\r\n0\r\n\r\n", 400),
        (b"-5\r\nhello\r\n0\r\n\r\n", 400),
        (b"4\r\nhello\r\n0\r\n\r\n", 400),
        (b"5\r\nhello\n0\r\n\r\n", 400),
        (b"0\r\nX: y\n\r\n", 400),
        (b"0\r\n", 400),
        (b"1001\r\n", 413),
        (b"ffffffffffffffffffff1\r\n", 413),
        (b"0;" + b"e" * 4096 + b"\r\n\r\n", 413),
        (b"0\r\nX: " + b"t" * 4096 + b"\r\n\r\n", 413),
        (b"1\r\n \r\n" * 900, 413),
    ],
)
async def test_chunks_whose_end_is_in_doubt_end_the_connection(relay, body, status):
    """Nothing behind them is answered."""
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(head(relay) + body + NEXT)
        answer = await connection.read()
        assert answer.status == status, answer
        assert answer.headers["connection"] == "close"
        assert await connection.ended() == b""


@pytest.mark.parametrize("coding, status", [("gzip", 501), ("gzip, chunked", 501), ("chunked, chunked", 501)])
async def test_other_codings_are_refused(relay, coding, status):
    request = http1.head("POST", "/api/v1/pair", relay.port, [KEY, ("Transfer-Encoding", coding)])
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(request)
        assert (await connection.read()).status == status
        await connection.ended()
