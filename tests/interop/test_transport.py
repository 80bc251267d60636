"""WIRE: Transport. The WebSocket endpoint, its handshake, pings and the message size."""

import asyncio
import base64
import json
import os
import time

import pytest

import http1
import raw
import sealed
from client import MAX_SIZE, Client, pair, sized
from metrics import measured, scrape_until
from relay import free_port


async def test_get_ws_upgrades_and_both_sides_connect_outbound(relay):
    """`GET /ws` (RFC 6455, version 13). Both sides connect outbound."""
    async with pair(relay) as (agent, phone):
        await phone.send("chat.send", {"text": "hello"})
        assert await agent.expect("chat.send") == {"text": "hello"}
        await agent.send("chat.done", {"full_text": "hi"})
        assert await phone.expect("chat.done") == {"full_text": "hi"}


async def test_another_websocket_version_is_refused(relay):
    """RFC 6455, section 4.4: an unknown version gets 426 with the versions that are known (or 400)."""
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(raw.upgrade(relay.port, version="8"))
        response = await connection.read()
        assert response.status in (400, 426)
        if response.status == 426:
            assert response.headers["sec-websocket-version"] == "13"


async def test_get_ws_without_an_upgrade_is_refused_and_the_relay_lives_on(relay):
    response = await relay.http("GET", "/ws")
    assert response.status in (400, 426)
    assert (await relay.http("GET", "/health")).status == 200


async def test_a_handshake_that_arrives_byte_by_byte(relay):
    token = await relay.token()
    async with await raw.RawSocket.tcp(relay.port) as socket:
        key = base64.b64encode(os.urandom(16))
        for byte in raw.upgrade(relay.port, key=key.decode()):
            await socket.write(bytes([byte]))
        await socket.read_upgrade(key)
        for byte in raw.text(raw.auth(token, "phone")):
            await socket.write(bytes([byte]))
        assert (await socket.receive())["type"] == "auth.ok"


@pytest.mark.parametrize("origin", ["https://app.example.com", "http://localhost:3000", "null", "file://"])
async def test_any_origin_is_accepted(relay, origin):
    """Browsers send an `Origin` header; any origin is accepted unless the operator restricts it."""
    token = await relay.token()
    async with await Client.authed(relay, token, "phone", origin=origin) as phone:
        await phone.expect_silence()


async def test_permessage_deflate_is_offered_and_declined(relay):
    """permessage-deflate is offered by Python clients and declined."""
    async with await Client.open(relay, compression="deflate") as client:
        assert "permessage-deflate" in client.ws.request.headers["Sec-WebSocket-Extensions"]
        assert "Sec-WebSocket-Extensions" not in client.ws.response.headers
        assert client.ws.protocol.extensions == []


async def test_a_websocket_ping_is_answered_with_its_payload(relay):
    """WebSocket pings from a client are answered at once, before and after auth."""
    token = await relay.token()
    async with await raw.RawSocket.open(relay) as socket:
        await socket.write(raw.frame(raw.PING, b"before"))
        assert await socket.read_frame() == raw.Frame(True, raw.PONG, b"before")
        await socket.send(raw.auth(token, "agent"))
        assert (await socket.receive())["type"] == "auth.ok"
        await socket.write(raw.frame(raw.PING, b"x" * 125) + raw.frame(raw.PING))
        assert await socket.read_frame() == raw.Frame(True, raw.PONG, b"x" * 125)
        assert await socket.read_frame() == raw.Frame(True, raw.PONG, b"")


async def test_fragments_are_put_together_and_pings_between_them_answered(relay):
    """The largest message counts after reassembly; control frames may stand between fragments."""
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        async with await raw.RawSocket.authed(relay, token, "phone") as phone:
            assert await agent.expect("status") == {"peer": "online"}
            whole = '{"type":"chat.send","id":"frag","payload":{"text":"h\u00e9llo \U0001f40b"}}'.encode()
            for start in range(0, len(whole), 7):  # cuts through multi-byte characters as well
                last = start + 7 >= len(whole)
                opcode = raw.CONT if start else raw.TEXT
                await phone.write(raw.frame(opcode, whole[start : start + 7], fin=last))
                if not last:
                    await phone.write(raw.frame(raw.PING, str(start).encode()))
                    assert await phone.read_frame() == raw.Frame(True, raw.PONG, str(start).encode())
            assert (await agent.receive_text()).encode() == whole


async def test_a_ping_is_answered_while_a_5_mib_message_is_being_sent(relay):
    """... answered at once, also while a large message is under way: toward the relay."""
    token = await relay.token()
    async with await Client.authed(relay, token, "phone") as phone:
        async with await raw.RawSocket.authed(relay, token, "agent") as agent:
            assert await phone.expect("status") == {"peer": "online"}
            whole = sized("chat.history.result", MAX_SIZE)[0].encode()
            half = MAX_SIZE // 2
            await agent.write(raw.frame(raw.TEXT, whole[:half], fin=False) + raw.frame(raw.PING, b"half way"))
            assert await agent.read_frame() == raw.Frame(True, raw.PONG, b"half way")
            await agent.write(raw.frame(raw.CONT, whole[half:], fin=True))
            assert (await phone.receive_text()).encode() == whole


async def test_a_ping_is_answered_while_a_5_mib_message_is_being_received(relay):
    """... answered at once, also while a large message is under way: toward the client that pings.

    The phone reads nothing but the first bytes, so most of the message waits in the relay. Meanwhile it pings twice. A
    message from the phone that reaches the agent proves that the relay has read the ping before it. Both pongs must then
    come before the end of the message.
    """
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        async with await raw.RawSocket.authed(relay, token, "phone", receive_buffer=32768) as phone:
            assert await agent.expect("status") == {"peer": "online"}
            whole = sized("chat.history.result", MAX_SIZE)[0]
            sending = asyncio.create_task(agent.send_text(whole))
            fin, opcode, length = await phone.read_header()
            assert (fin, opcode) == (False, raw.TEXT), "a large message comes in fragments"
            for number in (b"1", b"2"):
                await phone.write(raw.frame(raw.PING, number))
                await phone.write(raw.text({"type": "chat.send", "id": f"after-{number.decode()}"}))
                assert (await agent.receive())["id"] == f"after-{number.decode()}"
            received, pongs = 0, {}
            while True:
                payload = await phone._exactly(length)
                if opcode == raw.PONG:
                    pongs[payload] = received
                else:
                    received += length
                if fin and opcode == raw.CONT:
                    break
                fin, opcode, length = await phone.read_header()
            await sending
            assert received == MAX_SIZE
            assert set(pongs) == {b"1", b"2"}, "a pong waited for the end of the message"


async def test_5_mib_each_way_at_once_while_pings_are_answered(relay):
    """Agents use ping_timeout=10 and max_size=5 MiB: neither may be hurt by large messages in both directions."""
    async with pair(relay) as (agent, phone):
        down, up = sized("chat.history.result", MAX_SIZE)[0], sized("file.put", MAX_SIZE, "y")[0]
        pongs = [await phone.ws.ping(), await agent.ws.ping()]
        results = await asyncio.gather(
            agent.send_text(down), phone.send_text(up), agent.receive_text(), phone.receive_text()
        )
        pongs += [await phone.ws.ping(), await agent.ws.ping()]
        assert results[2] == up and results[3] == down
        await asyncio.wait_for(asyncio.gather(*pongs), 10)


async def test_exactly_5_mib_passes(relay):
    """The largest message is 5 MiB (5 * 1024 * 1024 bytes of payload): exactly 5 MiB passes."""
    async with pair(relay) as (agent, phone):
        text, _ = sized("chat.send", MAX_SIZE)
        await phone.send_text(text)
        assert await agent.receive_text() == text


@pytest.mark.parametrize("over", [1, 1 << 20])
async def test_a_byte_more_is_refused_alone_and_the_connection_lives_on(relay, over):
    """`MESSAGE_TOO_LARGE`: over 5 MiB: that message alone is refused and skipped, the connection lives on."""
    async with pair(relay) as (agent, phone):
        text, message_id = sized("chat.send", MAX_SIZE + over)
        await phone.send_text(text)
        await phone.expect_error("MESSAGE_TOO_LARGE", ref=message_id)
        await phone.send("chat.send", {"text": "still here"})
        assert await agent.expect("chat.send") == {"text": "still here"}


async def test_what_is_thrown_away_is_received_in_small_pieces(start_relay):
    """A message that is refused for its length keeps nobody waiting: each turn takes 4 KiB of it at the most."""
    relay, port = measured(start_relay, "--register-rate", "0")
    received_bytes = 4 * MAX_SIZE
    async with pair(relay) as (agent, phone):
        before = (await scrape_until(port, lambda figures: "coralmux_ring_completions_total" in figures.kinds)).get(
            "coralmux_ring_completions_total"
        )
        text, message_id = sized("chat.send", received_bytes)
        await phone.send_text(text)
        await phone.expect_error("MESSAGE_TOO_LARGE", ref=message_id)
        await phone.send("chat.send", {"text": "behind it"})
        assert await agent.expect("chat.send") == {"text": "behind it"}
        await scrape_until(
            port,
            lambda figures: figures.get("coralmux_ring_completions_total") - before >= received_bytes // 4096 // 2,
        )


async def test_fragments_that_add_up_to_more_are_refused_alone(relay):
    """The limit holds after reassembly of fragments; a ping among the skipped fragments is still answered."""
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        async with await raw.RawSocket.authed(relay, token, "phone") as phone:
            assert await agent.expect("status") == {"peer": "online"}
            text, message_id = sized("chat.send", MAX_SIZE + 1)
            pieces = [text[i : i + (1 << 20)].encode() for i in range(0, len(text), 1 << 20)]
            assert len(pieces) == 6
            for number, piece in enumerate(pieces[:-1]):
                await phone.write(raw.frame(raw.CONT if number else raw.TEXT, piece, fin=False))
            await phone.write(raw.frame(raw.PING, b"skipping") + raw.frame(raw.CONT, pieces[-1], fin=True))
            error = await phone.receive()
            assert error["type"] == "chat.error" and error["payload"]["code"] == "MESSAGE_TOO_LARGE"
            assert error["payload"]["ref"] == message_id
            await phone.send({"type": "chat.send", "id": "next"})
            assert (await agent.receive())["id"] == "next"
            await phone.send({"type": "ping"})
            assert (await phone.receive())["type"] == "pong"
            assert [c.payload for c in phone.controls if c.opcode == raw.PONG] == [b"skipping"]


async def test_an_unmasked_frame_ends_the_connection(relay):
    """RFC 6455, section 5.1: a client masks; 1002 otherwise."""
    token = await relay.token()
    async with await raw.RawSocket.authed(relay, token, "phone") as phone:
        await phone.write(raw.frame(raw.TEXT, b'{"type":"chat.send"}', masked=False))
        assert (await phone.closed()).code == 1002


NOT_UTF8 = [
    b'{"type":"chat.send","id":"\xff"}',
    b"not JSON either \xc3",
    b'{"type":"chat.send"} \xed\xa0\x80',
    b'{"type":"chat.send","id":"' + b"x" * 40_000 + b"\xff" + b"x" * 40_000 + b'"}',
    b"[" + b"x" * 40_000 + b"\xff",
]


def in_frames(opcode, message, pieces):
    """A message as that many frames at the most; a character may be cut between two."""
    step = -(-len(message) // pieces)
    cut = [message[at : at + step] for at in range(0, len(message), step)]
    last = len(cut) - 1
    return b"".join(raw.frame(raw.CONT if n else opcode, piece, fin=n == last) for n, piece in enumerate(cut))


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("message", NOT_UTF8, ids=range(len(NOT_UTF8)))
async def test_text_that_is_not_utf8_ends_the_connection(relay, message, pieces):
    """RFC 6455, section 8.1: 1007, whatever else is wrong with it. In a binary frame it is only bad JSON."""
    token = await relay.token()
    async with await raw.RawSocket.authed(relay, token, "phone") as phone:
        await phone.write(in_frames(raw.BINARY, message, pieces))
        assert (await phone.receive())["payload"]["code"] == "INVALID_MESSAGE"
        await phone.write(in_frames(raw.TEXT, message, pieces))
        assert (await phone.closed()).code == 1007


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("over", ["plain", "tls"])
async def test_a_first_message_that_is_not_utf8_ends_the_connection(start_relay, tmp_path, over, pieces):
    """RFC 6455, section 8.1: 1007. Text that is not UTF-8 is no message, so there is no auth.fail."""
    tls = sealed.start(start_relay, tmp_path)
    way = (tls, {"ssl": tls.context()}) if over == "tls" else (tls.plain, {})
    auth = json.dumps(raw.auth(await tls.token(), "phone") | {"more": "@@"}).encode()
    for message in (auth.replace(b"@@", b"\xff"), auth.replace(b"@@", b"\xc3("), b"\xff", b"nothing \xf0\x9f"):
        async with await raw.RawSocket.open(way[0], **way[1]) as socket:
            await socket.write(in_frames(raw.TEXT, message, pieces))
            first = await socket.read_frame()
            assert (first.opcode, raw.close_of(first).code) == (raw.CLOSE, 1007)
        async with await raw.RawSocket.open(way[0], **way[1]) as socket:
            await socket.write(in_frames(raw.BINARY, message, pieces))
            failure = await socket.receive()
            assert (failure["type"], failure["payload"]["code"]) == ("auth.fail", "UNAUTHORIZED")
            assert (await socket.closed()).code == 1008


@pytest.mark.parametrize("pieces", [1, 3])
async def test_the_echo_listener_gives_back_no_text_that_is_not_utf8(start_relay, pieces):
    relay = start_relay("--echo-addr", f"127.0.0.1:{(port := free_port())}")
    async with await raw.RawSocket.open(relay, echo_port=port) as socket:
        await socket.write(in_frames(raw.BINARY, b"\xff\xfe\xfd", pieces))
        assert (await socket.read_frame()).payload == b"\xff\xfe\xfd"
        await socket.write(in_frames(raw.TEXT, b"\xff\xfe\xfd", pieces))
        assert (await socket.closed()).code == 1007


async def test_the_close_handshake_is_answered_with_the_same_code(relay):
    """RFC 6455, section 5.5.1; the server then ends the TCP connection."""
    token = await relay.token()
    async with await raw.RawSocket.authed(relay, token, "phone") as phone:
        await phone.write(raw.frame(raw.CLOSE, (1000).to_bytes(2, "big") + b"bye"))
        assert (await phone.closed()).code == 1000
        await phone.ended()


async def test_the_relay_pings_and_gives_a_silent_connection_up(start_relay):
    """The relay pings too (every 30 s, here 1 s) and gives a silent connection up (after 60 s, here 3 s)."""
    relay = start_relay("--ping-interval", "1s", "--idle-timeout", "3s")
    token = await relay.token()
    async with await raw.RawSocket.authed(relay, token, "phone") as silent:
        async with await Client.authed(relay, token, "agent") as agent:  # answers pings
            assert (await silent.receive())["type"] == "status"
            started = time.monotonic()
            ping = await silent.read_frame()
            assert ping.opcode == raw.PING
            assert 0.2 < time.monotonic() - started < 2.5
            await silent.closed()
            assert 1.5 < time.monotonic() - started < 8
            assert await agent.expect("status") == {"peer": "offline"}
            await silent.ended()
            async with await raw.RawSocket.authed(relay, token, "phone") as again:
                assert (await agent.receive())["payload"] == {"peer": "online"}
                assert again.auth_ok["paired"] is True


async def test_an_origin_that_the_operator_did_not_name_is_refused(start_relay):
    """... unless the operator restricts it: then other origins get 403, and clients without one are no browsers."""
    relay = start_relay("--allow-origin", "https://app.example.com")
    token = await relay.token()
    for origin in ("https://app.example.com", None):
        async with await Client.authed(relay, token, "phone", origin=origin) as phone:
            await phone.expect_silence()
    with pytest.raises(raw.Refused) as refusal:
        await raw.RawSocket.open(relay, headers=[("Origin", "https://evil.example.com")])
    assert refusal.value.response.status == 403
