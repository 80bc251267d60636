"""WIRE: Limits. Rates belong to token and role, streams are slowed and not lost, quotas run by UTC day and month."""

import asyncio
import datetime
import json
import time

import raw
from client import Client, envelope, pair, sized

UNLIMITED_RATES = ("--phone-rate", "0", "--agent-rate", "0", "--stream-rate", "0", "--register-rate", "0")


def chat(number, kind="chat.send"):
    return {"v": 1, "type": kind, "id": f"n-{number}", "ts": 1707451200000, "payload": {"n": number}}


async def burst(relay, token, role, messages, ext=None):
    """Sends all messages in one write on a new connection, then a ping; returns the errors by `ref`."""
    async with await raw.RawSocket.authed(relay, token, role, ext) as sender:
        await sender.write(b"".join(map(raw.text, [*messages, {"type": "ping"}])))
        errors = {}
        while (message := await sender.receive())["type"] != "pong":
            if message["type"] == "chat.error":
                errors[message["payload"]["ref"]] = message["payload"]
        return errors


async def received_numbers(client, count):
    return [(await client.receive())["payload"]["n"] for _ in range(count)]


async def test_a_phone_has_a_burst_of_30_a_minute(start_relay):
    """phone: 30 messages a minute, burst 30. `RATE_LIMITED`: not delivered, `retry_after_ms` says when to try again."""
    relay = start_relay()
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        errors = await burst(relay, token, "phone", [chat(n) for n in range(35)])
        assert set(errors) == {f"n-{n}" for n in range(30, 35)}
        for error in errors.values():
            assert error["code"] == "RATE_LIMITED"
            assert 0 < error["retry_after_ms"] <= 2000  # 30 a minute: one each 2 s
        await agent.expect("status")
        assert await received_numbers(agent, 30) == list(range(30))
        assert await agent.expect("status") == {"peer": "offline"}


async def test_an_agent_has_a_burst_of_120_a_minute_and_streams_do_not_count(start_relay):
    """agent: 120 messages a minute, burst 120; `chat.stream` is not counted against the 120."""
    relay = start_relay()
    token = await relay.token()
    async with await Client.authed(relay, token, "phone") as phone:
        stream = [chat(n, "chat.stream") for n in range(100)]
        counted = [chat(n, "chat.tool_status") for n in range(100, 225)]
        errors = await burst(relay, token, "agent", stream + counted)
        assert set(errors) == {f"n-{n}" for n in range(220, 225)}
        assert all(0 < e["retry_after_ms"] <= 500 and e["code"] == "RATE_LIMITED" for e in errors.values())
        await phone.expect("status")
        assert await received_numbers(phone, 220) == list(range(220))


async def test_a_reconnect_does_not_refill_and_other_roles_and_tokens_are_not_touched(start_relay):
    """Rate limits belong to the token and role, so a reconnect does not refill them."""
    relay = start_relay("--phone-rate", "3")  # one each 20 s
    token, other = await relay.token(), await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        for numbers, passed in (([0, 1], [0, 1]), ([2, 3], [2]), ([4], [])):
            errors = await burst(relay, token, "phone", map(chat, numbers))
            assert set(errors) == {f"n-{n}" for n in numbers if n not in passed}
            # The next one comes when this one has gone; else it would replace it.
            assert await agent.expect("status") == {"peer": "online"}
            assert await received_numbers(agent, len(passed)) == passed
            assert await agent.expect("status") == {"peer": "offline"}
        async with await Client.authed(relay, token, "phone") as phone:
            await agent.send("chat.done", {"n": 1})
            assert await phone.expect("chat.done") == {"n": 1}
        async with await Client.authed(relay, other, "agent") as other_agent:
            assert await burst(relay, other, "phone", [chat(9)]) == {}
            await other_agent.expect("status")
            assert (await other_agent.receive())["id"] == "n-9"


async def test_ping_pong_and_auth_do_not_count_and_key_exchange_does(start_relay):
    """`ping`, `pong` and `auth` count against none of them; `key_exchange` counts."""
    relay = start_relay("--phone-rate", "3")
    token = await relay.token()
    async with await Client.authed(relay, token, "agent"):
        for _ in range(5):  # five auths
            async with await raw.RawSocket.authed(relay, token, "phone") as phone:
                await phone.write(b"".join(map(raw.text, [{"type": "ping"}, {"type": "pong"}] * 20)))
                for _ in range(20):
                    assert (await phone.receive())["type"] == "pong"
        exchange = [chat(n, "key_exchange") for n in range(4)]
        assert set(await burst(relay, token, "phone", exchange)) == {"n-3"}


async def test_after_retry_after_ms_the_message_is_taken(start_relay):
    """`retry_after_ms` says when to try again: then it passes."""
    relay = start_relay("--phone-rate", "60")  # one a second
    async with pair(relay) as (agent, phone):
        for number in range(61):
            await phone.send("chat.send", {"n": number}, id=f"n-{number}")
        error = await phone.expect_error("RATE_LIMITED")
        assert error["ref"] == "n-60" and 0 < error["retry_after_ms"] <= 1000
        await asyncio.sleep(error["retry_after_ms"] / 1000)
        await phone.send("chat.send", {"n": 61})
        assert await received_numbers(agent, 61) == [*range(60), 61]


async def test_a_tokens_own_limits_stand_in_for_the_operators(start_relay):
    """Each limit can be set per token through the admin API."""
    relay = start_relay()
    token = await relay.token(limits={"phone_per_minute": 2, "daily_quota_bytes": 12345})
    async with await Client.authed(relay, token, "agent") as agent:
        assert agent.auth_ok["daily_quota_bytes"] == 12345
        assert set(await burst(relay, token, "phone", [chat(n) for n in range(3)])) == {"n-2"}


async def test_a_tokens_own_message_size_can_only_be_smaller(start_relay):
    """message size: each limit can be set per token."""
    relay = start_relay()
    token = await relay.token(limits={"message_bytes_max": 1000})
    async with pair(relay, token) as (agent, phone):
        text = json.dumps(envelope("chat.send", {"text": "x" * 1000}, id="big"))
        await phone.send_text(text)
        await phone.expect_error("MESSAGE_TOO_LARGE", ref="big")
        await phone.send("chat.send", {"text": "small"})
        assert await agent.expect("chat.send") == {"text": "small"}


async def test_a_stream_is_slowed_and_not_lost(start_relay):
    """`chat.stream`: 100 a second, burst 200; there the relay slows its reading down instead of losing a piece.

    400 pieces at once: 200 pass at once, the other 200 take two seconds; all arrive in order.
    """
    relay = start_relay("--stream-rate", "100")
    token = await relay.token()
    async with await Client.authed(relay, token, "phone") as phone:
        async with await raw.RawSocket.authed(relay, token, "agent") as agent:
            await phone.expect("status")
            started = time.monotonic()
            pieces = [chat(n, "chat.stream") for n in range(400)]
            await agent.write(b"".join(map(raw.text, [*pieces, chat(400, "chat.done"), {"type": "ping"}])))
            assert await received_numbers(phone, 401) == list(range(401))
            assert 1.5 < time.monotonic() - started < 6
            assert (await agent.receive())["type"] == "pong", "nothing was refused"


async def test_a_slowed_stream_does_not_slow_the_other_direction(start_relay):
    relay = start_relay("--stream-rate", "100")
    token = await relay.token()
    async with await Client.authed(relay, token, "phone") as phone:
        async with await raw.RawSocket.authed(relay, token, "agent") as agent:
            await phone.expect("status")
            await agent.write(b"".join(raw.text(chat(n, "chat.stream")) for n in range(400)))
            assert (await phone.receive())["payload"]["n"] == 0
            started = time.monotonic()
            await phone.send("chat.send", {"n": -1})
            assert (await agent.receive())["payload"]["n"] == -1
            assert time.monotonic() - started < 1
            assert await received_numbers(phone, 399) == list(range(1, 400))


async def test_acknowledgements_are_slowed_and_not_lost(start_relay):
    """Messages of type `ack` with the extension: 4 a second, bursts of 16; beyond that the relay reads more slowly.

    24 at once: 16 pass at once, the other 8 take two seconds; what comes behind them waits with them.
    """
    relay = start_relay()
    for role, other in (("phone", "agent"), ("agent", "phone")):
        token = await relay.token()
        async with await Client.authed(relay, token, other) as peer:
            async with await raw.RawSocket.authed(relay, token, role, ext=1) as sender:
                await peer.expect("status")
                started = time.monotonic()
                acks = [chat(n, "ack") for n in range(24)]
                await sender.write(b"".join(map(raw.text, [*acks, chat(24), {"type": "ping"}])))
                assert await received_numbers(peer, 25) == list(range(25))
                assert 1.5 < time.monotonic() - started < 6
                assert (await sender.receive())["type"] == "pong", "nothing was refused"


async def test_acknowledgements_use_up_no_messages_with_the_extension_and_do_without(start_relay):
    """With the extension they do not count as messages; without it `ack` is a type like any other."""
    relay = start_relay()
    messages = [chat(n, "ack") for n in range(20)] + [chat(n) for n in range(20, 52)]
    for ext, refused in ((1, {50, 51}), (None, set(range(30, 52))), (2, set(range(30, 52)))):
        token = await relay.token()
        async with await Client.authed(relay, token, "agent") as agent:
            errors = await burst(relay, token, "phone", messages, ext)
            assert set(errors) == {f"n-{n}" for n in refused}
            assert {error["code"] for error in errors.values()} == {"RATE_LIMITED"}
            await agent.expect("status")
            arrived = [n for n in range(52) if n not in refused]
            assert await received_numbers(agent, len(arrived)) == arrived


async def test_a_long_acknowledgement_counts_as_a_message(start_relay):
    """`ack` of at most 2 KiB has limits of its own: 2,048 bytes are within, 2,049 are not."""
    relay = start_relay("--phone-rate", "2")
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        async with await raw.RawSocket.authed(relay, token, "phone", ext=1) as phone:
            await agent.expect("status")
            texts = [sized("ack", 2048)[0] for _ in range(4)] + [sized("ack", 2049)[0] for _ in range(2)]
            over, over_id = sized("ack", 2049)
            short, _ = sized("ack", 2048)
            await phone.write(b"".join(map(raw.text, [*texts, over, short])))
            for text in [*texts, short]:
                assert await agent.receive_text() == text
            error = (await phone.receive())["payload"]
            assert (error["code"], error["ref"]) == ("RATE_LIMITED", over_id)
    async with await Client.authed(relay, token, "phone") as phone:
        sent = 5 * 2048 + 2 * 2049
        assert phone.auth_ok["daily_used_bytes"] == sent, "all of them count against the bandwidth"


async def use_up(agent, phone, code):
    """Sends messages of 300 bytes until one is refused; returns the delivered bytes and the error."""
    delivered = 0
    for number in range(100):
        message = envelope("chat.send", {"text": ""}, id=f"q-{number:03}")
        message["payload"]["text"] = "x" * (300 - len(json.dumps(message)))
        await phone.send_text(json.dumps(message))
        await phone.send("ping")
        answer = await phone.receive()
        if answer["type"] == "chat.error":
            assert answer["payload"]["code"] == code
            assert answer["payload"]["ref"] == f"q-{number:03}"
            assert (await phone.receive())["type"] == "pong"
            return delivered, answer["payload"]
        assert (await agent.receive())["id"] == f"q-{number:03}"
        delivered += 300
    raise AssertionError("the quota never ran out")


async def test_the_daily_quota_runs_to_the_end_of_the_utc_day(start_relay):
    """`DAILY_QUOTA_EXCEEDED`: the token's bandwidth is used up; `retry_after_ms` runs to the end of the UTC day."""
    relay = start_relay("--daily-quota", "1000", *UNLIMITED_RATES)
    token = await relay.token()
    async with pair(relay, token) as (agent, phone):
        delivered, error = await use_up(agent, phone, "DAILY_QUOTA_EXCEEDED")
        assert delivered in (900, 1200)  # neither much less nor more than a message over
        now = datetime.datetime.now(datetime.UTC)
        midnight = datetime.datetime.combine(now.date() + datetime.timedelta(days=1), datetime.time(), datetime.UTC)
        assert abs((midnight - now).total_seconds() * 1000 - error["retry_after_ms"]) < 5000
        sent = await agent.send("chat.done", {"text": "x" * 300})
        await agent.expect_error("DAILY_QUOTA_EXCEEDED", ref=sent)  # one bandwidth for both roles
        await phone.expect_silence()
    async with await Client.authed(relay, token, "phone") as phone:
        assert phone.auth_ok["daily_quota_bytes"] == 1000
        assert phone.auth_ok["daily_used_bytes"] == delivered


async def test_the_monthly_quota_runs_to_the_end_of_the_utc_month(start_relay):
    """`MONTHLY_QUOTA_EXCEEDED`; `retry_after_ms` runs to the end of the UTC month. 0 lifts the daily one."""
    relay = start_relay("--monthly-quota", "1000", "--daily-quota", "0", *UNLIMITED_RATES)
    async with pair(relay) as (agent, phone):
        assert agent.auth_ok["daily_quota_bytes"] == 0
        delivered, error = await use_up(agent, phone, "MONTHLY_QUOTA_EXCEEDED")
        assert delivered in (900, 1200)
        now = datetime.datetime.now(datetime.UTC)
        following = (now.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
        end = datetime.datetime.combine(following.date(), datetime.time(), datetime.UTC)
        assert abs((end - now).total_seconds() * 1000 - error["retry_after_ms"]) < 5000


async def test_forwarded_payload_bytes_are_counted_once(start_relay):
    """bandwidth per token: payload bytes of forwarded messages, counted once; refused and answered ones are not."""
    relay = start_relay(*UNLIMITED_RATES)
    token = await relay.token()
    async with await Client.authed(relay, token, "phone") as phone:
        await phone.send("chat.send", {"to": "nobody"})
        await phone.expect_error("PEER_OFFLINE")
        for _ in range(10):
            await phone.send("ping")
            await phone.expect("pong")
        async with await Client.authed(relay, token, "agent") as agent:
            await phone.expect("status")
            total = 0
            for size in (100, 5000, 300_000):
                for sender, receiver in ((phone, agent), (agent, phone)):
                    message = json.dumps(envelope("chat.tool_status", {"text": "\u00e9" * size}), ensure_ascii=False)
                    await sender.send_text(message)
                    assert await receiver.receive_text() == message
                    total += len(message.encode())
    async with await Client.authed(relay, token, "phone") as phone:
        assert phone.auth_ok["daily_used_bytes"] == total
