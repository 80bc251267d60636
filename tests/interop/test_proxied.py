"""The PROXY protocol, in front of plain HTTP and of TLS."""

import asyncio
import base64
import contextlib
import socket
import ssl
import struct

import http1
import pytest

import raw
import sealed

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def text(client="192.0.2.1"):
    return f"PROXY TCP4 {client} 198.51.100.2 4660 443\r\n".encode()


def binary(client="192.0.2.1", tlvs=b""):
    addresses = socket.inet_aton(client) + socket.inet_aton("198.51.100.2") + struct.pack("!HH", 4660, 443)
    return SIGNATURE + b"\x21\x11" + struct.pack("!H", len(addresses + tlvs)) + addresses + tlvs


LOCAL = SIGNATURE + b"\x20\0\0\0"


async def ask(port, header, request, piece=None):
    """What is answered to a request behind this header; `b""`: nothing."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 10)
    data = header + request
    for at in range(0, len(data), piece or len(data)):
        writer.write(data[at : at + (piece or len(data))])
        await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 15)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def register(port):
    return http1.head("POST", "/api/v1/register", port, [("Connection", "close")], 0)


HEALTH = [("Connection", "close")]


async def test_the_header_says_for_whom_a_request_counts(start_relay):
    relay = start_relay("--proxy-protocol", "127.0.0.1", "--register-rate", "2", spawn_only=True)
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        try:
            if (await ask(relay.port, LOCAL, http1.head("GET", "/health", relay.port, HEALTH))).startswith(b"HTTP/1.1 200"):
                break
        except OSError:
            pass
        assert asyncio.get_running_loop().time() < deadline, relay.log()
        await asyncio.sleep(0.05)
    for header in (text(), binary()):
        assert (await ask(relay.port, header, register(relay.port))).startswith(b"HTTP/1.1 201")
    for header in (text(), binary(tlvs=b"\x04\0\x02xy"), binary()):
        assert (await ask(relay.port, header, register(relay.port), piece=7)).startswith(b"HTTP/1.1 429")
    assert (await ask(relay.port, text("192.0.2.2"), register(relay.port))).startswith(b"HTTP/1.1 201")
    for wrong in (b"", b"PROXY TCP4 nonsense\r\n", b"\x16\x03\x01", SIGNATURE + b"\x31\0\0\0"):
        assert await ask(relay.port, wrong, register(relay.port)) == b"", wrong


async def test_nobody_else_may_send_a_header(relay):
    assert (await ask(relay.port, text(), register(relay.port))).startswith(b"HTTP/1.1 505")


@pytest.mark.parametrize("header", [text(), binary(), LOCAL, b"PROXY UNKNOWN\r\n"])
async def test_the_header_stands_in_front_of_tls(start_relay, tmp_path, header):
    tls = sealed.start(
        lambda *flags: start_relay(*flags, spawn_only=True), tmp_path, "--proxy-protocol", "127.0.0.0/8"
    )

    def get():
        with sealed.Sealed(tls.port, tls.context()) as client:
            client.socket.sendall(header)
            client.shake(piece=100)
            client.send(http1.head("GET", "/health", tls.port))
            assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200")

    deadline = asyncio.get_running_loop().time() + 20
    while True:
        try:
            return await asyncio.wait_for(asyncio.to_thread(get), 30)
        except (ConnectionRefusedError, ssl.SSLError):
            assert asyncio.get_running_loop().time() < deadline, tls.plain.log()
            await asyncio.sleep(0.05)


async def test_on_a_proxys_kept_connection_each_request_counts_for_its_own_client(start_relay):
    """Whoever was first on it is not whom the others are taken for."""
    relay = start_relay("--trusted-proxy", "127.0.0.1", "--register-rate", "1")
    async with await http1.Connection.open(relay.port) as proxy:

        async def register(client):
            await proxy.send(http1.head("POST", "/api/v1/register", relay.port, [("X-Forwarded-For", client)], 0))
            return (await proxy.read()).status

        clients = ("203.0.113.7", "203.0.113.8", "203.0.113.7", "203.0.113.8", "2001:db8::1", "203.0.113.9, 203.0.113.7")
        assert [await register(client) for client in clients] == [201, 201, 429, 429, 201, 429]


async def test_a_proxys_idle_connections_take_no_place_of_the_clients_that_they_served(start_relay):
    relay = start_relay("--trusted-proxy", "127.0.0.1", "--max-unauthenticated-per-address", "2")
    one = [("X-Forwarded-For", "203.0.113.7")]
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            proxy = await stack.enter_async_context(await http1.Connection.open(relay.port))
            await proxy.send(http1.head("GET", "/health", relay.port, one))
            assert (await proxy.read()).status == 200
        waiting = [await stack.enter_async_context(await raw.RawSocket.open(relay, headers=one)) for _ in range(2)]
        # The client has both its places now; its next request is refused, and the proxy's connection goes on.
        await proxy.send(http1.head("GET", "/health", relay.port, one))
        answer = await proxy.read()
        assert (answer.status, answer.headers["connection"]) == (503, "keep-alive")
        await proxy.send(http1.head("GET", "/health", relay.port, [("X-Forwarded-For", "203.0.113.8")]))
        assert (await proxy.read()).status == 200
        for socket in waiting:
            socket.reset()


async def test_refused_authentications_behind_a_proxy_slow_down_their_own_client(start_relay):
    relay = start_relay("--trusted-proxy", "127.0.0.1")
    loop = asyncio.get_running_loop()

    async def refused(client):
        # The connection has served somebody else before.
        proxy = await raw.RawSocket.tcp(relay.port)
        await proxy.write(http1.head("GET", "/health", relay.port, [("X-Forwarded-For", "203.0.113.1")]))
        assert (await proxy.connection.read()).status == 200
        key = base64.b64encode(b"x" * 16)
        await proxy.write(raw.upgrade(relay.port, [("X-Forwarded-For", client)], key=key.decode()))
        await proxy.read_upgrade(key)
        began = loop.time()
        await proxy.send(raw.auth("oc_pair_" + "0" * 32, "agent"))
        assert (await proxy.receive())["type"] == "auth.fail"
        return loop.time() - began

    for _ in range(6):
        took = await refused("203.0.113.7")
    assert took >= 0.3, "the sixth waits 0.4 s"
    assert await refused("203.0.113.8") < 0.3
