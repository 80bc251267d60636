"""WIRE: Envelope; Messages between a client and the relay; Everything else is forwarded to the peer; Error codes."""

import json

import pytest

import raw
from client import Client, pair

FROM_PHONE = """key_exchange chat.send chat.error chat.history agent.list agent.create agent.update agent.delete
group.list group.messages group.send system.status memory.search file.put file.get type.that.does.not.exist.yet x""".split()
FROM_AGENT = """key_exchange chat.stream chat.done chat.error chat.tool_status chat.history.result agent.list.result
agent.result group.list.result group.messages.result group.send.result group.message system.status.result
memory.search.result file.get.result type.that.does.not.exist.yet statusbar pinged""".split()

# Each is forwarded as it stands: a relay that decodes and encodes again would change every one of them.
ODD_TEXTS = [
    '{"v":1,"type":"chat.send","id":"a","ts":1707451200000,"payload":{}}',
    '{"payload":{"b":1,"a":2},"ts":1,"id":"keys in any order","type":"chat.send","v":1}',
    ' \t\r\n{ "type" :\n"chat.send" ,\t"id": "white space" , "payload" : { } } \n',
    '{"type":"chat.send","id":"missing payload"}',
    '{"type":"chat.send","id":"null payload","payload":null}',
    '{"type":"chat.send"}',
    '{"type":"chat.send","id":"unknown keys","later":[1,{"x":null}],"":0}',
    '{"type":"chat.send","id":"\\u0065sc\\u0061pes \\ud83d\\ude00 \\/ \\b","payload":"\\u00e9\\u0000"}',
    '{"type":"chat.send","id":"raw utf-8 \u00e9 \u6f22 \U0001f40b","payload":"\u2028\ufeff"}',
    '{"type":"chat.send","id":"numbers","payload":[1.0,1e2,-0,0.10,12345678901234567890123,1E-7]}',
    '{"type":"chat.send","id":"repeated keys in the payload","payload":{"a":1,"a":2}}',
    '{"type":"chat.send","id":"inner type","payload":{"type":"auth","id":5,"v":"x"}}',
    '{"t\\u0079pe":"chat.send","id":"an escape in a key"}',
    '{"type":"chat.send","id":"deep","payload":' + "[" * 60 + "]" * 60 + "}",
    '{"type":"chat.send","id":"","ts":"not a number","v":"one","payload":"text"}',
]

NOT_MESSAGES = {
    "empty": "",
    "white space": "  ",
    "not JSON": "hello",
    "cut off": '{"type":"chat.send"',
    "a second value behind": '{"type":"chat.send"} {}',
    "array": '["type","chat.send"]',
    "string": '"chat.send"',
    "null": "null",
    "no type": '{"id":"x","payload":{}}',
    "type null": '{"type":null}',
    "type not a string": '{"type":1}',
    "type empty": '{"type":""}',
    "id a number": '{"type":"chat.send","id":1}',
    "id an object": '{"type":"chat.send","id":{}}',
    "trailing comma": '{"type":"chat.send",}',
    "single quotes": "{'type':'chat.send'}",
    "broken escape in the payload": '{"type":"chat.send","payload":"\\x"}',
    "broken number in the payload": '{"type":"chat.send","payload":[01]}',
}


@pytest.mark.parametrize("text", ODD_TEXTS)
async def test_the_peers_bytes_are_forwarded_unchanged(relay, text):
    """The relay forwards the peer's bytes unchanged: the same text, not a re-encoding of it."""
    async with pair(relay) as (agent, phone):
        await phone.send_text(text)
        assert await agent.receive_text() == text
        await agent.send_text(text)
        assert await phone.receive_text() == text


async def test_every_size_around_the_header_forms_passes_unchanged(relay):
    """RFC 6455's three length forms, and what lies around usual buffer sizes."""
    async with pair(relay) as (agent, phone):
        base = len('{"type":"chat.send","payload":""}')
        for size in [base, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 65537, 262143, 262144, 262145, 1 << 20]:
            text = '{"type":"chat.send","payload":"' + "z" * (size - base) + '"}'
            assert len(text) == size
            await phone.send_text(text)
            await agent.send_text(text)
            assert await agent.receive_text() == text
            assert await phone.receive_text() == text


@pytest.mark.parametrize("kind", FROM_PHONE)
async def test_types_from_the_phone_are_forwarded(relay, kind):
    """Everything else is forwarded to the peer, and so are types that do not exist yet."""
    async with pair(relay) as (agent, phone):
        sent = await phone.send(kind, {"code": "DECRYPTION_FAILED", "message": "between the peers"})
        assert (await agent.receive())["id"] == sent
        await phone.expect_silence()


@pytest.mark.parametrize("kind", FROM_AGENT)
async def test_types_from_the_agent_are_forwarded(relay, kind):
    """Everything else is forwarded to the peer; `chat.error` with BACKEND_ERROR is the agent's own."""
    async with pair(relay) as (agent, phone):
        sent = await agent.send(kind, {"code": "BACKEND_ERROR", "message": "between the peers"})
        assert (await phone.receive())["id"] == sent
        await agent.expect_silence()


async def test_json_in_a_binary_frame_is_forwarded_as_text(relay):
    """JSON in a binary frame is taken like JSON in a text frame and forwarded as text."""
    async with pair(relay) as (agent, phone):
        await phone.send_text(ODD_TEXTS[8].encode())  # bytes go out as a binary frame
        got = await agent.receive_text()
        assert isinstance(got, str) and got == ODD_TEXTS[8]


async def test_auth_in_a_binary_frame_is_taken_too(relay):
    token = await relay.token()
    async with await Client.open(relay) as client:
        await client.send_text(json.dumps(raw.auth(token, "phone")).encode())
        assert (await client.expect("auth.ok"))["paired"] is False


async def test_order_within_a_direction_is_kept(relay):
    """A chat's answers carry no correlation id, so order within a direction is the only thread."""
    async with pair(relay) as (agent, phone):
        for number in range(300):
            await agent.send("chat.stream", {"delta": "x" * (number * 37 % 5000), "seq": number})
        for number in range(300):
            assert (await phone.expect("chat.stream"))["seq"] == number


@pytest.mark.parametrize("payload", ["{}", "null", None, '{"t":1}'])
async def test_the_relay_answers_a_ping_and_forwards_neither(relay, payload):
    """`ping` / `pong`: the relay answers a `ping` with a `pong` itself and forwards neither; payload {} or none."""
    async with pair(relay) as (agent, phone):
        ping = '{"type":"ping"}' if payload is None else '{"type":"ping","payload":%s}' % payload
        await phone.send_text(ping)
        assert (await phone.expect("pong")) in ({}, None)
        await phone.send_text(ping.replace("ping", "pong"))
        await phone.send("chat.send", {"marker": 1})
        assert await agent.expect("chat.send") == {"marker": 1}


async def test_a_pong_is_taken_as_a_sign_of_life_and_says_nothing(relay):
    """A `pong` is taken as a sign of life and says nothing: no answer, no error, nothing to the peer."""
    async with pair(relay) as (agent, phone):
        await agent.send("pong")
        await agent.expect_silence()
        await phone.expect_silence()


@pytest.mark.parametrize("kind", ["auth", "auth.ok", "auth.fail", "auth.refresh", "status"])
async def test_reserved_types_are_refused(relay, kind):
    """A client that sends `auth` again, `auth.*` or `status` gets `INVALID_MESSAGE`, and stays connected."""
    async with pair(relay) as (agent, phone):
        for client, peer in ((phone, agent), (agent, phone)):
            sent = await client.send(kind, {"peer": "offline", "token": "x", "role": "agent"})
            await client.expect_error("INVALID_MESSAGE", ref=sent)
            await peer.expect_silence()


@pytest.mark.parametrize("kind", ["chat.stream", "chat.done"])
async def test_a_phone_may_not_send_the_agents_answers(relay, kind):
    """A phone may not send `chat.stream` or `chat.done` (`INVALID_MESSAGE`)."""
    async with pair(relay) as (agent, phone):
        sent = await phone.send(kind, {"delta": "no"})
        await phone.expect_error("INVALID_MESSAGE", ref=sent)
        await agent.expect_silence()


@pytest.mark.parametrize("name", NOT_MESSAGES)
async def test_what_is_not_a_message_is_refused_and_the_sender_stays_connected(relay, name):
    """After bad JSON, an empty message or a non-string `id` the sender gets `INVALID_MESSAGE` and stays connected."""
    async with pair(relay) as (agent, phone):
        await phone.send_text(NOT_MESSAGES[name])
        await phone.expect_error("INVALID_MESSAGE")
        await phone.send("chat.send", {"still": "here"})
        assert await agent.expect("chat.send") == {"still": "here"}


async def test_a_binary_frame_that_is_not_utf8_is_not_a_message(relay):
    """`INVALID_MESSAGE`: not JSON. A binary frame breaks no rule of RFC 6455, so the connection stays."""
    async with pair(relay) as (agent, phone):
        await phone.send_text(b'{"type":"chat.send","payload":"\xff\xfe"}')
        await phone.expect_error("INVALID_MESSAGE")
        await agent.expect_silence()


async def test_peer_offline_tells_the_sender_which_message_was_not_delivered(relay):
    """`PEER_OFFLINE`: the message was not delivered, and the sender is told; the error repeats its `id` as `ref`."""
    token = await relay.token()
    async with await Client.authed(relay, token, "phone") as phone:
        for number in range(3):
            await phone.send("chat.send", {"n": number}, id=f'"quoted" \\ \u00e9 {number}')
            await phone.expect_error("PEER_OFFLINE", ref=f'"quoted" \\ \u00e9 {number}')
        async with await Client.authed(relay, token, "agent") as agent:
            assert agent.auth_ok["paired"] is True
            await agent.expect_silence()  # an undelivered message does not come later


async def test_an_error_about_a_message_without_an_id_has_no_ref(relay):
    """`ref` repeats the message's `id`; where there is none, there is no `ref`."""
    token = await relay.token()
    async with await Client.authed(relay, token, "phone") as phone:
        await phone.send_text('{"type":"chat.send"}')
        assert (await phone.expect_error("PEER_OFFLINE")).get("ref") is None


async def test_two_tokens_never_hear_each_other(relay):
    async with pair(relay) as (agent_a, phone_a), pair(relay) as (agent_b, phone_b):
        await phone_a.send("chat.send", {"for": "a"})
        assert await agent_a.expect("chat.send") == {"for": "a"}
        for client in (agent_a, agent_b, phone_b):
            await client.expect_silence()
