"""How connections affect each other: dying ones, ones that do not read, ones that are too fast."""

import asyncio
import contextlib
import pathlib
import re
import socket
import ssl

import pytest

import http1
import metrics
import raw
import sealed
from client import Client, pair


def memory_kib(relay, field="VmRSS"):
    for line in pathlib.Path(f"/proc/{relay.process.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise AssertionError(field)


@pytest.mark.parametrize("how", ["fin", "reset", "half a frame"])
async def test_a_client_that_dies_without_a_close_frame_is_normal(relay, how):
    """A client that dies without a close frame is normal: its peer hears `status offline`, and it may come back."""
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        for _ in range(5):
            phone = await raw.RawSocket.authed(relay, token, "phone")
            assert await agent.expect("status") == {"peer": "online"}
            if how == "half a frame":
                await phone.write(raw.text({"type": "chat.send", "id": "never whole"})[:-3])
            if how == "reset":
                phone.reset()
            else:
                phone.writer.close()
            assert await agent.expect("status") == {"peer": "offline"}
            sent = await agent.send("chat.done")
            await agent.expect_error("PEER_OFFLINE", ref=sent)


async def test_the_peer_never_sees_half_a_message(relay):
    """Large messages are forwarded when whole: a radio that drops in the middle leaves nothing at the peer."""
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        phone = await raw.RawSocket.authed(relay, token, "phone")
        assert await agent.expect("status") == {"peer": "online"}
        whole = raw.frame(raw.TEXT, b'{"type":"chat.send","payload":"' + b"x" * 2_000_000 + b'"}')
        await phone.write(whole[:1_500_000])
        phone.reset()
        assert await agent.expect("status") == {"peer": "offline"}
        await agent.expect_silence()


async def test_a_peer_that_stops_reading_slows_the_sender_and_loses_nothing(start_relay):
    """Backpressure, not loss: nothing unbounded while the phone does not read, and all of it in order later."""
    relay = start_relay("--agent-rate", "0", "--daily-quota", "0", "--stream-rate", "0")
    token = await relay.token()
    pieces, size = 512, 128 * 1024  # 64 MiB: far more than all socket buffers on the way
    filler = "x" * size
    async with await raw.RawSocket.authed(relay, token, "agent") as agent:
        async with await raw.RawSocket.authed(relay, token, "phone", receive_buffer=65536) as phone:
            assert (await agent.receive())["type"] == "status"
            before = memory_kib(relay)
            sent = 0

            async def sends():
                nonlocal sent
                for number in range(pieces):
                    message = {"type": "chat.stream", "id": f"n-{number}", "payload": {"n": number, "x": filler}}
                    await agent.write(raw.text(message))
                    sent += 1

            sending = asyncio.create_task(sends())
            still, last = 0, -1
            while still < 5:  # until the sender has made no step for half a second
                await asyncio.sleep(0.1)
                still, last = (still + 1, last) if sent == last else (0, sent)
            assert sent < pieces, "the relay took it all: there is no backpressure"
            assert memory_kib(relay) - before < 32 * 1024
            for number in range(pieces):
                assert (await phone.receive())["payload"]["n"] == number
            await sending


@contextlib.asynccontextmanager
async def flooded_phone(relay):
    """An agent that sends as fast as it is read, while its phone takes nothing."""
    token = await relay.token()
    async with await raw.RawSocket.authed(relay, token, "agent") as agent:
        async with await raw.RawSocket.authed(relay, token, "phone", receive_buffer=65536):
            assert (await agent.receive())["type"] == "status"
            message = raw.text({"type": "chat.stream", "payload": "x" * 131072})

            async def floods():
                while True:
                    await agent.write(message)

            flooding = asyncio.create_task(floods())
            yield agent
            flooding.cancel()


async def test_a_slow_consumer_is_closed_after_the_write_timeout(start_relay):
    """A peer that takes nothing for the write timeout (30 s, here 1 s) is closed, and the sender goes on."""
    relay = start_relay("--agent-rate", "0", "--daily-quota", "0", "--stream-rate", "0", "--write-timeout", "1s")
    async with flooded_phone(relay) as agent:
        while (heard := await agent.receive())["type"] != "status":
            assert heard["payload"]["code"] == "PEER_OFFLINE"
        assert heard["payload"] == {"peer": "offline"}


async def test_a_peer_that_stops_reading_does_not_stop_other_pairs(relay):
    async with flooded_phone(relay):
        for _ in range(8):  # pairs of both shards
            async with pair(relay) as (other_agent, other_phone):
                for number in range(20):
                    await other_phone.send("chat.send", {"n": number})
                    assert await other_agent.expect("chat.send") == {"n": number}


async def test_a_flood_of_small_messages_arrives_whole_and_in_order(relay):
    """10,000 messages in few writes: batching may not reorder or lose."""
    token = await relay.token()
    count = 10_000
    async with await raw.RawSocket.authed(relay, token, "agent") as agent:
        async with await raw.RawSocket.authed(relay, token, "phone") as phone:
            assert (await agent.receive())["type"] == "status"
            data = b"".join(
                raw.text({"type": "chat.send", "id": f"n-{n}", "payload": {"n": n, "x": "y" * (n % 300)}})
                for n in range(count)
            )
            writing = asyncio.create_task(phone.write(data))
            for number in range(count):
                assert (await agent.receive())["payload"]["n"] == number
            await writing


async def test_a_flood_both_ways_does_not_lock_up(relay):
    """Each side sends 8 MiB before it reads: backpressure in both directions must not wait for itself."""
    token = await relay.token()
    async with await raw.RawSocket.authed(relay, token, "agent") as agent:
        async with await raw.RawSocket.authed(relay, token, "phone") as phone:
            assert (await agent.receive())["type"] == "status"
            count = 256

            async def both(socket):
                async def writes():
                    for n in range(count):
                        await socket.write(raw.text({"type": "x", "payload": {"n": n, "x": "z" * 32768}}))

                async def reads():
                    for n in range(count):
                        assert (await socket.receive())["payload"]["n"] == n

                await asyncio.gather(writes(), reads())

            await asyncio.wait_for(asyncio.gather(both(agent), both(phone)), 60)


async def test_many_connections_come_and_go_and_health_counts_them(start_relay):
    """`GET /health`: connections and sessions are what is there now."""
    relay = start_relay("--register-rate", "0", "--max-unauthenticated-per-address", "0")
    sockets = []
    for _ in range(50):
        token = await relay.token()
        sockets += [await raw.RawSocket.authed(relay, token, role) for role in ("agent", "phone")]
    health = (await relay.http("GET", "/health")).json()
    assert health["sessions"] == 50
    assert 100 <= health["connections"] <= 102  # the request's own connection may count, and the one before it
    for number, socket in enumerate(sockets):
        socket.reset() if number % 2 else socket.writer.close()
    for _ in range(500):
        health = (await relay.http("GET", "/health")).json()
        if health["sessions"] == 0 and health["connections"] <= 2:
            break
        await asyncio.sleep(0.02)
    assert health["sessions"] == 0 and health["connections"] <= 2


@pytest.mark.parametrize(
    "method,path",
    [("GET", "/api/v1/pair/oc_pair_" + "0" * 32), ("POST", "/api/v1/register"), ("GET", "/health"), ("GET", "/ws")],
)
async def test_a_request_and_a_goodbye_in_one_segment_end_once(start_relay, tmp_path, method, path):
    """A connection that is closing stays so: neither the relay's own answer nor control's late one revives it."""
    relay = sealed.start(start_relay, tmp_path)
    tries = 20

    def leave():
        with sealed.Sealed(relay.port, relay.context()) as client:
            client.shake()
            client.tls.write(http1.encode(method, path, relay.port))
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.unwrap()
            client.socket.sendall(client.outgoing.read())
            while client.socket.recv(65536):
                pass

    for _ in range(tries):
        await asyncio.to_thread(leave)
    # The control thread has answered all of them by the time that it answers this.
    await relay.token()

    def has_settled(figures):
        return figures.get("coralmux_connections_closed_total") >= tries and not any(
            figures.get("coralmux_connections", state=state) for state in ("closing", "opening")
        )

    await metrics.scrape_until(relay.metrics, has_settled)


async def served(relay, connection, path="/"):
    await connection.send(http1.head("GET", path, relay.port))
    return (await connection.read()).status


async def until_served(relay, stack):
    """A newcomer that comes back where it is turned away; a newcomer of its own for each try."""
    for _ in range(20):
        connection = await stack.enter_async_context(await http1.Connection.open(relay.port))
        with contextlib.suppress(EOFError, ConnectionError):
            if await served(relay, connection) == 200:
                return connection
        await asyncio.sleep(0.2)
    raise AssertionError("the address is locked out")


HOLD = {
    "idle": b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "nothing": b"",
    "half a head": b"GET /health HTTP/1.1\r\nHo",
    "half a body": b"POST /api/v1/register HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx",
    "upgraded": raw.upgrade(1),
    "closing": b"nonsense\r\n\r\n",
}


@pytest.mark.parametrize("how", HOLD)
async def test_whoever_keeps_the_relay_waiting_gives_way_to_newcomers(start_relay, how):
    """Connections that do nothing do not lock an address out, nor all of them everybody."""
    for cap in ("--max-unauthenticated-per-address", "--max-unauthenticated"):
        relay = start_relay(cap, "4", "--auth-timeout", "60s")
        await relay.alone()
        async with contextlib.AsyncExitStack() as stack:
            holding = [await stack.enter_async_context(await http1.Connection.open(relay.port)) for _ in range(4)]
            for connection in holding:
                await connection.send(HOLD[how])
            if how not in ("nothing", "closing"):
                await asyncio.sleep(1.2)
            await until_served(relay, stack)


async def test_who_has_just_come_or_waits_for_the_relay_keeps_its_place(start_relay):
    relay = start_relay("--max-unauthenticated-per-address", "3", "--auth-timeout", "60s")
    token = await relay.token()
    await relay.alone()
    async with contextlib.AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(await raw.RawSocket.open(relay)) for _ in range(3)]
        with pytest.raises((raw.Refused, ConnectionError)):
            await stack.enter_async_context(await raw.RawSocket.open(relay))
        for socket, role in zip(busy, ("agent", "phone"), strict=False):
            await socket.send(raw.auth(token, role))
            assert (await socket.receive())["type"] == "auth.ok"
        await stack.enter_async_context(await raw.RawSocket.open(relay))


async def test_the_longest_idle_connection_gives_way_and_not_one_at_work(start_relay):
    relay = start_relay("--max-unauthenticated-per-address", "4", "--auth-timeout", "60s")
    await relay.alone()
    async with contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(await http1.Connection.open(relay.port)) for _ in range(4)]
        for connection in idle:
            assert await served(relay, connection) == 200
        for _ in range(6):
            # The first is the oldest, and goes on asking.
            await asyncio.sleep(0.25)
            assert await served(relay, idle[0]) == 200
        await until_served(relay, stack)
        assert await served(relay, idle[0]) == 200


@pytest.mark.quiet
async def test_http_answers_that_nobody_reads_hold_little_memory(start_relay):
    """One answer at a time leaves, piece by piece; the next request is not read before."""
    relay, port = metrics.measured(
        start_relay, "--max-unauthenticated-per-address", "0", "--auth-timeout", "3s", "--log-level", "debug"
    )
    connections = 100
    request = http1.head("GET", "/api/v1/openapi.json", relay.port)
    async with contextlib.AsyncExitStack() as stack:
        before = memory_kib(relay)
        for _ in range(connections):
            client = await stack.enter_async_context(await raw.RawSocket.tcp(relay.port, receive_buffer=4096))
            client.writer.transport.pause_reading()
            client.writer.write(request * 200)

        def is_held(figures):
            return figures.get("coralmux_outboxes_blocked") == connections

        figures = await metrics.scrape_until(port, is_held)
        assert figures.get("coralmux_outbox_bytes") <= connections * 17 * 1024
        assert memory_kib(relay) - before < connections * 64
        # And there is an end to it.
        gone = await metrics.scrape_until(port, lambda f: f.get("coralmux_connections") == 0)
        assert gone.get("coralmux_connections_closed_total", reason="slow_consumer") == connections


@pytest.mark.parametrize("path", ["/api/v1/openapi.json", "/phone/qr.js", "/", "/health"])
@pytest.mark.parametrize("tls", [False, True])
async def test_pipelined_requests_are_answered_whole_and_in_order(start_relay, tmp_path, path, tls):
    relay = sealed.start(start_relay, tmp_path)
    requests = [http1.head("GET", "/health", 1), http1.head("GET", path, 1), http1.head("HEAD", path, 1)] * 5
    requests += [http1.head("GET", path, 1, [("Connection", "close")])]

    def ask():
        if tls:
            with sealed.Sealed(relay.port, relay.context()) as client:
                client.shake()
                client.send(b"".join(requests))
                answer = b""
                with contextlib.suppress(EOFError, ssl.SSLZeroReturnError):
                    while True:
                        answer += client.more()
                return answer
        with socket.create_connection(("127.0.0.1", relay.plain.port), 15) as connection:
            connection.sendall(b"".join(requests))
            answer = b""
            while data := connection.recv(65536):
                answer += data
            return answer

    answer = await asyncio.to_thread(ask)
    bodies = []
    for number in range(len(requests)):
        head, _, answer = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])
        if number % 3 != 2:
            bodies.append(answer[:length])
            assert len(bodies[-1]) == length
            answer = answer[length:]
    assert answer == b""
    if path != "/health":
        assert len(set(bodies[1::2])) == 1 and bodies[-1] == bodies[1]
