"""WIRE: auth, auth.fail and 1008; pre-auth bounds; revoke; connection caps."""

import asyncio
import base64
import contextlib
import json
import os
import re
import time

import pytest

import http1
import metrics
import raw
from client import Client, pair
from relay import ADMIN_KEY, api_time

UNKNOWN = "oc_pair_" + "0" * 32


@pytest.fixture
def strict(start_relay):
    """A relay of its own: failed auths from an address are slowed, which must not slow other tests."""
    return start_relay()


async def refused(relay, first):
    """Sends a first message and expects an error or auth.fail, then a close with 1008; returns the message."""
    async with await Client.open(relay) as client:
        await client.send_text(first if isinstance(first, (str, bytes)) else json.dumps(first))
        message = await client.receive()
        code, _ = await client.closed()
        assert code == 1008
        return message


async def test_a_token_has_the_contracts_form(relay):
    """A token is `oc_pair_` and 32 lower-case hex digits (16 random bytes)."""
    tokens = {await relay.token() for _ in range(20)}
    assert len(tokens) == 20
    assert all(re.fullmatch("oc_pair_[0-9a-f]{32}", token) for token in tokens)


async def test_auth_ok_says_paired_and_the_quota(relay):
    """`auth.ok`: {"paired":bool,"daily_quota_bytes":int,"daily_used_bytes":int}; 500 MiB a UTC day by default."""
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        assert agent.auth_ok == {"paired": False, "daily_quota_bytes": 524_288_000, "daily_used_bytes": 0}


def auth_ok(more=b""):
    """The form of the first `auth.ok` of a token, to the byte."""
    payload = rb'{"paired":false,"daily_quota_bytes":524288000,"daily_used_bytes":0' + re.escape(more) + b"}"
    return rb'{"v":1,"type":"auth\.ok","id":"[0-9a-f-]{36}","ts":[0-9]{13},"payload":' + payload + b"}"


async def answer_to(relay, token, role, more):
    """The bytes that answer an `auth` with `more` in its payload."""
    payload = f'{{"token":"{token}","role":"{role}"{more}}}'
    async with await raw.RawSocket.open(relay) as socket:
        await socket.send(f'{{"type":"auth","payload":{payload}}}')
        return await socket.receive_bytes()


@pytest.mark.parametrize("more", [',"ext":1', ',"ext" : 1 ', ',"\\u0065xt":1,"x":{}'])
async def test_who_asks_for_the_extension_gets_it_on_whichever_shard(relay, more):
    """`"ext":1` in `auth` is answered by `"ext":{"v":1}` in `auth.ok`; half of the connections change their shard."""
    for role in ("phone", "agent"):
        for _ in range(6):
            answer = await answer_to(relay, await relay.token(), role, more)
            assert re.fullmatch(auth_ok(b',"ext":{"v":1}'), answer), answer


@pytest.mark.parametrize(
    "value",
    ["2", "0", "-1", "10", "1.0", "1e0", "1e999", "1" * 400, '"1"', "null", "true", "{}", '{"v":1}', "[1]"]
    + ["[" * 1000 + "]" * 1000],
)
async def test_any_other_ext_is_ignored(relay, value):
    """Any other value of `ext` is ignored: no error, and `auth.ok` is what it is for everybody else."""
    answer = await answer_to(relay, await relay.token(), "phone", f',"ext":{value}')
    assert re.fullmatch(auth_ok(), answer), answer


async def test_auth_ok_is_the_same_to_the_byte_for_who_does_not_ask(relay):
    answer = await answer_to(relay, await relay.token(), "agent", "")
    assert re.fullmatch(auth_ok(), answer), answer


@pytest.mark.parametrize(
    "payload",
    [
        {"token": UNKNOWN, "role": "phone"},
        {"token": "", "role": "phone"},
        {"token": "oc_pair_", "role": "agent"},
        {"token": "not a token \u00e9", "role": "agent"},
        {"role": "agent"},
        {},
    ],
)
async def test_an_unknown_token_gets_auth_fail_then_1008(strict, payload):
    """`auth.fail`: {"code":"UNAUTHORIZED","message":"..."}, followed by a close frame with code 1008."""
    failure = await refused(strict, {"type": "auth", "id": "1", "payload": payload})
    assert failure["type"] == "auth.fail"
    assert failure["payload"]["code"] == "UNAUTHORIZED"
    assert isinstance(failure["payload"]["message"], str)


@pytest.mark.parametrize("role", ["admin", "Phone", "", None, 1])
async def test_an_unknown_role_is_unauthorized(strict, role):
    """`UNAUTHORIZED`: unknown role."""
    failure = await refused(strict, raw.auth(await strict.token(), role))
    assert (failure["type"], failure["payload"]["code"]) == ("auth.fail", "UNAUTHORIZED")


@pytest.mark.parametrize("kind", ["chat.send", "ping", "key_exchange", "auth.ok"])
async def test_a_first_message_that_is_not_auth_is_unauthorized(strict, kind):
    """`UNAUTHORIZED`: first message is not `auth`; an error about the first message is followed by 1008."""
    failure = await refused(strict, {"type": kind, "id": "1", "payload": {}})
    assert failure["payload"]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize("first", ["hello", "", "[]", '{"type":"auth"', b"\x00\x01"])
async def test_a_first_message_that_is_no_message_is_refused_with_1008(strict, first):
    """An error about the first message is followed by a close frame with code 1008."""
    failure = await refused(strict, first)
    assert failure["payload"]["code"] in ("INVALID_MESSAGE", "UNAUTHORIZED")


@pytest.mark.parametrize("first_id", ['"1"', "1", "null", "[1]", '{"a":1}', "1.5e300"])
async def test_the_id_of_an_auth_message_may_be_anything(relay, first_id):
    """WIRE: auth has type, token and role; of its id the relay makes nothing, so it refuses nobody for it."""
    message = json.dumps(raw.auth(await relay.token(), "phone") | {"id": "@"}).replace('"@"', first_id)
    async with await Client.open(relay) as client:
        await client.send_text(message)
        assert (await client.expect("auth.ok"))["paired"] is False
        await client.send_text('{"type":"chat.send","id":7}')
        await client.expect_error("INVALID_MESSAGE")


async def test_an_auth_message_over_4_kib_is_refused(strict):
    """4 KiB for the auth message; close 1008. One below the bound is taken."""
    token = await strict.token()
    message = raw.auth(token, "phone") | {"padding": ""}
    message["padding"] = "x" * (4096 - len(json.dumps(message)))
    async with await Client.open(strict) as client:
        await client.send_text(json.dumps(message))
        assert (await client.expect("auth.ok"))["paired"] is False
    message["padding"] += "x"
    async with await Client.open(strict) as client:
        await client.send_text(json.dumps(message))
        assert (await client.closed())[0] == 1008


async def test_a_large_first_frame_is_refused_by_its_header_alone(strict):
    """The relay does not wait for, or keep, 5 MiB of a client that has not authenticated."""
    async with await raw.RawSocket.open(strict) as socket:
        await socket.write(raw.frame(raw.TEXT, b'{"type":"auth"', declared=5 << 20))
        assert (await socket.closed()).code == 1008


async def test_one_that_says_nothing_is_closed_after_the_auth_timeout(start_relay):
    """Handshake and auth together within 10 s (here 1 s)."""
    relay = start_relay("--auth-timeout", "1s")
    for prepare in (raw.RawSocket.tcp(relay.port), raw.RawSocket.open(relay)):
        started = time.monotonic()
        async with await prepare as socket:
            await socket.ended(timeout=8)
            assert 0.7 < time.monotonic() - started < 6


async def test_the_auth_timeout_does_not_touch_the_authenticated(start_relay):
    relay = start_relay("--auth-timeout", "1s")
    async with pair(relay) as (agent, phone):
        async with await raw.RawSocket.open(relay) as socket:  # its end says that the timeout has passed
            await socket.ended(timeout=8)
        await phone.send("chat.send", {"still": "here"})
        assert await agent.expect("chat.send") == {"still": "here"}


async def test_a_slow_handshake_does_not_extend_the_timeout(start_relay):
    """The 10 s (here 1 s) are for handshake and auth together: bytes that trickle do not start them anew."""
    relay = start_relay("--auth-timeout", "1s")
    async with await raw.RawSocket.tcp(relay.port) as socket:
        started = time.monotonic()
        ended = asyncio.create_task(socket.ended(timeout=8))
        for byte in raw.upgrade(relay.port):
            if ended.done():
                break
            with contextlib.suppress(ConnectionError):
                await socket.write(bytes([byte]))
            await asyncio.sleep(0.05)
        await ended
        assert 0.7 < time.monotonic() - started < 6


async def test_unauthenticated_connections_of_an_address_are_capped(start_relay):
    """A cap of unauthenticated connections for each address; those that authenticate make room."""
    relay = start_relay("--max-unauthenticated-per-address", "4")
    token = await relay.token()
    await relay.alone()
    async with contextlib.AsyncExitStack() as stack:
        waiting = []
        for _ in range(4):
            waiting.append(await stack.enter_async_context(await raw.RawSocket.open(relay)))
        with pytest.raises((raw.Refused, ConnectionError)):
            await stack.enter_async_context(await raw.RawSocket.open(relay))
        await waiting[0].send(raw.auth(token, "agent"))
        assert (await waiting[0].receive())["type"] == "auth.ok"
        await stack.enter_async_context(await raw.RawSocket.open(relay))


async def test_over_the_total_cap_the_answer_is_503_with_retry_after(start_relay):
    """A total connection cap answers 503 with `Retry-After`: not auth.fail, for a retry mends it."""
    relay = start_relay("--max-connections", "6", "--max-unauthenticated-per-address", "0")
    tokens = [await relay.token() for _ in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        sockets = []
        with pytest.raises(raw.Refused) as refusal:
            for token in tokens:
                for role in ("agent", "phone"):
                    socket = await raw.RawSocket.authed(relay, token, role)
                    sockets.append(await stack.enter_async_context(socket))
        assert refusal.value.response.status == 503
        assert int(refusal.value.response.headers["retry-after"]) > 0
        assert 5 <= len(sockets) <= 6  # the API's own last connection may not be gone yet
        await sockets.pop().write(raw.frame(raw.CLOSE, (1000).to_bytes(2, "big")))
        deadline = time.monotonic() + 10
        while True:  # room is made as soon as the relay has seen the end
            try:
                await stack.enter_async_context(await raw.RawSocket.open(relay))
                break
            except raw.Refused:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("by", ["token", "id"])
async def test_revoking_closes_both_connections_with_4002(strict, by):
    """`DELETE /api/v1/pair/{token}`: both connections are closed (4002, `revoked`); no auth from then on."""
    created = await strict.pair()
    token = created["token"]
    path = f"/api/v1/pair/{token}" if by == "token" else f"/api/v1/tokens/{created['id']}"
    async with pair(strict, token) as (agent, phone):
        assert (await strict.http("DELETE", path, admin=True)).status == 204
        assert await agent.closed() == (4002, "revoked")
        assert await phone.closed() == (4002, "revoked")
    failure = await refused(strict, raw.auth(token, "agent"))
    assert (failure["type"], failure["payload"]["code"]) == ("auth.fail", "UNAUTHORIZED")


async def test_an_expired_token_is_unauthorized(strict):
    """`UNAUTHORIZED`: expired token."""
    expires_at = int(time.time()) + 2
    token = await strict.token(expires_at=api_time(expires_at))
    async with await Client.authed(strict, token, "agent"):
        pass
    await asyncio.sleep(max(0, expires_at - time.time()) + 0.01)  # until the token's own deadline
    failure = await refused(strict, raw.auth(token, "agent"))
    assert (failure["type"], failure["payload"]["code"]) == ("auth.fail", "UNAUTHORIZED")


async def test_failed_auths_do_not_lock_the_address_out(strict):
    """Failed auths of an address are slowed, not refused: behind a shared address somebody else has a good token."""
    for _ in range(10):
        await refused(strict, raw.auth(UNKNOWN, "agent"))
    async with await Client.authed(strict, await strict.token(), "agent") as agent:
        await agent.expect_silence()


async def test_a_handshake_and_auth_in_one_write(relay):
    """Nothing of what arrives with the handshake is lost."""

    token = await relay.token()
    async with await raw.RawSocket.tcp(relay.port) as socket:
        key = base64.b64encode(os.urandom(16))
        await socket.write(raw.upgrade(relay.port, key=key.decode()) + raw.text(raw.auth(token, "phone")))
        await socket.read_upgrade(key)
        assert (await socket.receive())["type"] == "auth.ok"


async def test_pings_before_auth_do_not_extend_the_timeout(start_relay):
    relay = start_relay("--auth-timeout", "1s")
    async with await raw.RawSocket.open(relay) as socket:
        started = time.monotonic()
        ended = asyncio.create_task(socket.ended(timeout=8))
        while not ended.done():
            with contextlib.suppress(ConnectionError):
                await socket.write(raw.frame(raw.PING, b"x"))
            await asyncio.sleep(0.05)
        await ended
        assert 0.7 < time.monotonic() - started < 6


async def test_an_http_request_before_the_head_is_whole_times_out(start_relay):
    relay = start_relay("--auth-timeout", "1s")
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(b"GET /health HTT")
        await connection.ended(timeout=8)


def key(value, client=None):
    return [("X-Admin-Key", value)] + ([("X-Forwarded-For", client)] if client else [])


async def test_wrong_admin_keys_are_slowed_then_not_looked_at_counted_and_logged(start_relay):
    """What guesses the admin key waits longer and longer; others are not locked out by it, nor by their connection."""
    relay, port = metrics.measured(start_relay, "--trusted-proxy", "127.0.0.1", "--log-format", "json")
    loop = asyncio.get_running_loop()
    async with await http1.Connection.open(relay.port) as proxy:

        async def ask(value, client):
            await proxy.send(http1.head("GET", "/api/v1/tokens", relay.port, key(value, client)))
            began = loop.time()
            answer = await proxy.read()
            return answer, loop.time() - began

        for _ in range(5):
            answer, _ = await ask("wrong", "192.0.2.1")
            assert answer.status == 401 and answer.json()["error"]["code"] == "UNAUTHORIZED"
        _, took = await ask("wrong", "192.0.2.1")
        assert took >= 0.3, "the sixth is held back for 0.4 s"
        answer, _ = await ask(ADMIN_KEY, "192.0.2.1")
        assert answer.status == 200, "the right one is not, until there are too many wrong ones"

    many = (relay.http("GET", "/api/v1/tokens", headers=key("wrong", "192.0.2.1")) for _ in range(14))
    assert {answer.status for answer in await asyncio.gather(*many)} == {401}
    for value in ("wrong", ADMIN_KEY):
        asked = time.monotonic()
        answer = await relay.http("GET", "/api/v1/tokens", headers=key(value, "192.0.2.1"))
        assert answer.status == 429
        assert 0 < int(answer.headers["retry-after"]) <= 30
        assert time.monotonic() - asked >= 1, "so that asking again and again costs next to nothing"
        assert answer.json()["error"]["code"] == "RATE_LIMITED"
    # Nobody else is told the same, and what needs no key goes on.
    assert (await relay.http("GET", "/api/v1/tokens", headers=key(ADMIN_KEY, "192.0.2.2"))).status == 200
    assert (await relay.http("GET", "/health", headers=key("wrong", "192.0.2.1"))).status == 200
    figures = await metrics.scrape_until(
        port, lambda f: f.get("coralmux_admin_keys_refused_total", why="not_looked_at") == 2
    )
    assert figures.get("coralmux_admin_keys_refused_total", why="wrong") == 20
    lines = relay.lines("wrong admin keys")
    assert lines and len(lines) <= 4, "summed up, however many there are"
    assert all(line["address"] == "192.0.2.1" and line["level"] == "WARN" for line in lines)
    assert "wrong" not in {line.get("key") for line in lines}


async def test_a_held_back_answer_does_not_keep_the_relay_from_ending(start_relay):
    relay = start_relay("--drain-window", "0s")
    guesses = [asyncio.create_task(relay.http("GET", "/api/v1/tokens", headers=key("wrong"))) for _ in range(12)]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(relay.stop)
    done = await asyncio.gather(*guesses, return_exceptions=True)
    assert any(isinstance(answer, http1.Response) and answer.status == 401 for answer in done)
