"""The PROXY protocol, in front of plain HTTP and of TLS."""

import asyncio
import socket
import ssl
import struct

import http1
import pytest

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
