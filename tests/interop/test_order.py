"""WIRE: Order, on which existing agents depend, 1 to 4; replacement of a role's connection.

The relay has two shards, so about half of all connections arrive at a shard that does not own their token and are
handed over. Each test therefore runs many rounds with fresh tokens.
"""

import asyncio
import contextlib

import pytest

import raw
from client import Client, pair

ROUNDS = 40


def numbered(kind, number):
    return {"v": 1, "type": kind, "id": f"n-{number}", "ts": 1707451200000, "payload": {"n": number}}


async def test_1_the_first_message_after_auth_is_auth_ok(relay):
    """1. The first message after `auth` is `auth.ok`, although the peer is sending all the time."""
    for _ in range(ROUNDS):
        token = await relay.token()
        async with await raw.RawSocket.authed(relay, token, "phone") as phone:
            for number in range(20):
                await phone.send(numbered("chat.send", number))
            async with await raw.RawSocket.open(relay) as agent:
                await agent.send(raw.auth(token, "agent"))
                for number in range(20, 40):
                    await phone.send(numbered("chat.send", number))
                first = await agent.receive()
                assert first["type"] == "auth.ok", first
                assert first["payload"]["paired"] is True
                assert isinstance(first["payload"]["daily_quota_bytes"], int)
                assert isinstance(first["payload"]["daily_used_bytes"], int)


@pytest.mark.parametrize("there,newcomer", [("agent", "phone"), ("phone", "agent")])
async def test_2_status_online_reaches_the_one_already_there_before_any_message_of_the_newcomer(relay, there, newcomer):
    """2. `status online` goes to the side that was already there, before any message of the newcomer.

    The newcomer does not wait for `auth.ok`: its messages stand right behind `auth` in the same write, so they are
    handed over to the token's shard together with the connection; nothing may be lost or reordered.
    """
    for _ in range(ROUNDS):
        token = await relay.token()
        async with await raw.RawSocket.authed(relay, token, there) as first:
            assert first.auth_ok["paired"] is False
            async with await raw.RawSocket.open(relay) as second:
                messages = [numbered("key_exchange", 0)] + [numbered("chat.history", n) for n in range(1, 20)]
                await second.write(b"".join(map(raw.text, [raw.auth(token, newcomer), *messages])))
                status = await first.receive()
                assert (status["type"], status["payload"]) == ("status", {"peer": "online"})
                for message in messages:
                    assert await first.receive() == message
                reply = await second.receive()
                assert reply["type"] == "auth.ok" and reply["payload"]["paired"] is True


async def test_2_the_newcomers_messages_may_come_in_any_pieces_behind_auth(relay):
    """Hand-over with nothing lost or reordered, also when a message is cut anywhere by TCP."""
    for cut in range(1, 200, 7):
        token = await relay.token()
        async with await raw.RawSocket.authed(relay, token, "agent") as agent:
            async with await raw.RawSocket.open(relay) as phone:
                messages = [numbered("chat.send", n) for n in range(3)]
                data = b"".join(map(raw.text, [raw.auth(token, "phone"), *messages]))
                await phone.write(data[:cut])
                await asyncio.sleep(0)  # two segments on the wire; what the relay makes of them is its own business
                await phone.write(data[cut:])
                assert (await agent.receive())["type"] == "status"
                for message in messages:
                    assert await agent.receive() == message
                assert (await phone.receive())["type"] == "auth.ok"


async def test_2_status_online_comes_before_the_agents_own_messages_can_reach_the_newcomer(relay):
    """2. ... and before its own `key_exchange` can reach the newcomer.

    The agent sends numbered messages while the phone arrives. Up to some k they are refused with PEER_OFFLINE, from k
    on they reach the phone, and `status online` stands between the last refusal and everything later.
    """
    for _ in range(ROUNDS):
        token = await relay.token()
        async with await raw.RawSocket.authed(relay, token, "agent") as agent:
            async with await raw.RawSocket.open(relay) as phone:
                total = 60

                async def flood():
                    for number in range(total):
                        await agent.send(numbered("key_exchange", number))
                        await asyncio.sleep(0)

                flooding = asyncio.create_task(flood())
                while (await agent.receive())["payload"].get("ref") != "n-9":  # ten refusals, then the phone comes
                    pass
                await phone.send(raw.auth(token, "phone"))
                refused = 10
                while (message := await agent.receive())["type"] == "chat.error":
                    assert message["payload"]["code"] == "PEER_OFFLINE"
                    assert message["payload"]["ref"] == f"n-{refused}"
                    refused += 1
                assert (message["type"], message["payload"]) == ("status", {"peer": "online"})
                await flooding
                await agent.send(numbered("key_exchange", total))
                first = await phone.receive()
                assert (first["type"], first["payload"]["paired"]) == ("auth.ok", True)
                for number in range(refused, total + 1):
                    assert (await phone.receive())["payload"]["n"] == number
                await agent.send({"type": "ping"})
                assert (await agent.receive())["type"] == "pong", "a refusal after `status online`"


async def test_3_status_online_never_goes_to_the_newcomer(relay):
    """3. `status online` never goes to the newcomer: its `auth.ok` already says `paired`."""
    for _ in range(ROUNDS):
        async with pair(relay) as (agent, phone):
            assert agent.auth_ok["paired"] is False
            assert phone.auth_ok["paired"] is True
            await phone.expect_silence()
            await agent.expect_silence()


async def test_4_key_exchange_to_nobody_earns_peer_offline(relay):
    """4. An agent sends `key_exchange` right after `auth.ok`; sent to nobody it earns `PEER_OFFLINE`."""
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        assert agent.auth_ok["paired"] is False
        sent = await agent.send("key_exchange", {"pubkey": "AAAA"})
        await agent.expect_error("PEER_OFFLINE", ref=sent)
        async with await Client.authed(relay, token, "phone") as phone:
            assert await agent.expect("status") == {"peer": "online"}
            await agent.send("key_exchange", {"pubkey": "BBBB"})
            assert await phone.expect("key_exchange") == {"pubkey": "BBBB"}


async def test_status_offline_when_the_other_one_leaves(relay):
    """`status`: sent to the one that is there when the other one authenticates or leaves."""
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        for _ in range(5):
            async with await Client.authed(relay, token, "phone"):
                assert await agent.expect("status") == {"peer": "online"}
            assert await agent.expect("status") == {"peer": "offline"}
        await agent.expect_silence()


async def test_one_that_never_authenticated_is_nobodys_peer(relay):
    """Only an authenticated peer's coming and going is told."""
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        async with await Client.open(relay):
            pass
        await agent.expect_silence()


@pytest.mark.parametrize("role", ["agent", "phone"])
async def test_a_second_auth_of_a_role_replaces_the_first_connection(relay, role):
    """One connection for each role: 4001 `replaced`; the new one is the role's connection, and no `status offline`."""
    other = {"agent": "phone", "phone": "agent"}[role]
    for _ in range(10):
        token = await relay.token()
        async with await Client.authed(relay, token, other) as peer:
            old = await Client.authed(relay, token, role)
            assert await peer.expect("status") == {"peer": "online"}
            async with await Client.authed(relay, token, role) as new:
                assert new.auth_ok["paired"] is True
                assert await old.closed() == (4001, "replaced")
                # The peer has a new counterpart: it is told so (an agent then makes a new key), and of no end.
                assert await peer.expect("status") == {"peer": "online"}
                await new.send("chat.tool_status", {"from": "new"})
                assert await peer.expect("chat.tool_status") == {"from": "new"}
                await peer.send("chat.tool_status", {"to": "new"})
                assert await new.expect("chat.tool_status") == {"to": "new"}
                await peer.expect_silence()
            assert await peer.expect("status") == {"peer": "offline"}


async def test_a_replaced_connection_says_nothing_more_to_the_peer(relay):
    """What the old connection sends after its replacement reaches nobody: not behind the new one's `status online`."""
    for _ in range(10):
        token = await relay.token()
        async with await raw.RawSocket.authed(relay, token, "agent") as agent:
            old = await raw.RawSocket.authed(relay, token, "phone")
            assert (await agent.receive())["type"] == "status"
            closing = asyncio.create_task(old.closed())

            async def floods():
                number = 0
                with contextlib.suppress(ConnectionError):
                    while not closing.done():
                        await old.send(numbered("chat.send", number))
                        number += 1
                        await asyncio.sleep(0)

            flooding = asyncio.create_task(floods())
            for number in range(20):
                assert (await agent.receive())["payload"]["n"] == number
            async with await raw.RawSocket.authed(relay, token, "phone") as new:
                while (message := await agent.receive())["type"] == "chat.send":
                    pass
                assert (message["type"], message["payload"]) == ("status", {"peer": "online"})
                await new.send(numbered("from.new", -1))
                assert (await agent.receive())["type"] == "from.new"
                closed = await closing
                assert (closed.code, closed.reason) == (4001, "replaced")
                await flooding
                await new.send(numbered("from.new", -2))
                assert (await agent.receive())["payload"]["n"] == -2


async def test_200_reconnects_of_a_role_while_the_other_side_sends(relay):
    """Reconnects by clean close, by a reset and by replacement, while the agent sends numbered messages.

    Each phone sees `auth.ok` first and then an unbroken rising run; no message is both refused and delivered; each
    arrival is announced to the agent exactly once; at the end the pair still works.
    """
    token = await relay.token()
    rounds = 200
    async with await Client.authed(relay, token, "agent") as agent:
        stop = asyncio.Event()
        sent = 0
        refused, delivered = set(), []
        online = offline = 0

        async def sends():
            nonlocal sent
            while not stop.is_set():
                await agent.send("chat.tool_status", {"n": sent}, id=f"n-{sent}")
                sent += 1
                await asyncio.sleep(0.0005)

        async def receives():
            nonlocal online, offline
            while True:
                message = await agent.receive(timeout=60)
                if message["type"] == "chat.error":
                    assert message["payload"]["code"] == "PEER_OFFLINE"
                    refused.add(int(message["payload"]["ref"][2:]))
                elif message["type"] == "status":
                    online += message["payload"]["peer"] == "online"
                    offline += message["payload"]["peer"] == "offline"
                else:
                    assert message["type"] == "pong"
                    return

        sending, receiving = asyncio.create_task(sends()), asyncio.create_task(receives())
        previous = None
        for number in range(rounds):
            phone = await raw.RawSocket.authed(relay, token, "phone")
            run = [(await phone.receive())["payload"]["n"] for _ in range(3)]
            assert run == list(range(run[0], run[0] + 3)), "an unbroken run"
            assert not delivered or run[0] > delivered[-1], "order across connections"
            delivered += run
            if previous:
                closed = await previous.closed()
                assert (closed.code, closed.reason) == (4001, "replaced")
                previous = None
            match number % 3:
                case 0:
                    await phone.write(raw.frame(raw.CLOSE, (1000).to_bytes(2, "big")))
                    await phone.closed()
                case 1:
                    phone.reset()
                case 2:
                    previous = phone
        async with await Client.authed(relay, token, "phone") as phone:
            stop.set()
            await sending
            await agent.send("chat.done", {"last": True})
            while (await phone.receive())["type"] != "chat.done":
                pass
            await agent.send("ping")
            await receiving
            assert online == rounds + 1
            assert offline <= rounds
            assert not refused & set(delivered), "refused and delivered"
