"""PROTOCOL.md, "Devices": binding, inviting, admitting, revoking, routing and presence, as clients of the relay see it."""

import asyncio
import json
import sqlite3
import time

import pytest

import raw
from client import Client, pair
from devices import Invite, Key, Peer, base64url, bound, refusal
from metrics import measured, scrape_until
from relay import GENEROUS


async def test_an_agent_binds_its_token_and_admits_devices(relay):
    async with bound(relay) as home:
        agent = home.agent
        assert agent.ext == {"v": 1, "bound": False, "legacy": True, "devices": []}
        invite = Invite()
        await agent.order("relay.invite", {"invite": invite.hash, "ttl_sec": 600})
        tablet = await home.join(Key(), invite)
        assert tablet.auth_ok["paired"] is True
        ext = tablet.ext
        assert ext.pop("push")["state"] == "none"
        assert ext == {"v": 1, "device": tablet.key.id, "pending": True}
        assert await agent.expect("relay.pending") == {"device": tablet.key.id}

        # Nothing but the key exchange passes before it is admitted.
        ref = await tablet.say()
        assert (await tablet.expect_error("INVALID_MESSAGE", ref))["device"] == tablet.key.id
        ref = await agent.send("chat.done", device=tablet.key.id)
        assert (await agent.expect_error("INVALID_MESSAGE", ref))["device"] == tablet.key.id
        await tablet.order_fails("INVALID_MESSAGE", "relay.sleep")
        await tablet.say("key_exchange", {"e2e": 3})
        message = await agent.receive()
        assert (message["type"], message["device"]) == ("key_exchange", tablet.key.id)
        await agent.send("key_exchange", {"e2e": 3}, device=tablet.key.id)
        await tablet.expect("key_exchange")

        ref = await agent.send("relay.admit", {"device": tablet.key.id})
        assert await agent.expect("relay.device") == {"device": tablet.key.id, "online": True}
        assert await agent.expect("relay.ok") == {"ref": ref}
        assert set(await tablet.expect("relay.admitted")) == {"mail", "push"}
        await agent.order("relay.admit", {"device": tablet.key.id, "label": "kitchen"})

        await tablet.say("chat.send", {"text": "hi"})
        assert (await agent.receive())["device"] == tablet.key.id
        await agent.send("chat.done", {"full_text": "hello"}, device=tablet.key.id)
        assert await tablet.expect("chat.done") == {"full_text": "hello"}
        # Without a name it is for the plain phone, and there is none.
        assert "device" not in await agent.expect_error("PEER_OFFLINE", await agent.send("chat.done"))

        again = await home.again(tablet)
        ext = again.ext
        assert ext.pop("push")["state"] == "none"
        assert ext == {"v": 1, "device": tablet.key.id} and again.auth_ok["paired"] is True
        assert await tablet.closed() == (4001, "replaced")
        await again.ws.close()
        assert await agent.expect("relay.device") == {"device": tablet.key.id, "online": False}
        ref = await agent.send("chat.done", device=tablet.key.id)
        assert (await agent.expect_error("PEER_OFFLINE", ref))["device"] == tablet.key.id


async def test_what_relay_ok_has_confirmed_outlasts_the_relay(start_relay):
    relay = start_relay(*GENEROUS)
    async with bound(relay) as home:
        one, two, gone = [await home.device() for _ in range(3)]
        ref = await home.agent.send("relay.revoke", {"device": gone.key.id})
        assert (await home.agent.expect("relay.device"))["online"] is False
        assert await home.agent.expect("relay.ok") == {"ref": ref}
        relay.kill()
    relay.start()
    async with await Peer.join(relay, home.token, "agent", home.agent.key) as agent:
        listed = [{"device": device.key.id, "online": False} for device in (one, two)]
        assert agent.ext["bound"] is True and agent.ext["legacy"] is False
        assert sorted(agent.ext["devices"], key=str) == sorted(listed, key=str)
        async with await Peer.join(relay, home.token, "phone", one.key) as device:
            ext = device.ext
            assert ext.pop("push")["state"] == "none"
            assert ext == {"v": 1, "device": one.key.id}
            assert await agent.expect("relay.device") == {"device": one.key.id, "online": True}
        # An agent that has just come may still tell its invites: until then a stranger may try again.
        assert await refusal(relay, home.token, "phone", gone.key) == "this link was used: show a new one"
        assert (await refusal(relay, home.token, "phone", gone.key, Invite()))[0] == 1013


async def test_each_gets_what_is_for_it_in_order_however_it_is_sent(relay):
    """Whole frames of several receivers in one piece: each gets its own, in order, to the byte."""
    async with bound(relay, legacy_phone=True) as home:
        phone = await home.stack.enter_async_context(await Client.authed(relay, home.token, "phone"))
        assert await home.agent.expect("status") == {"peer": "online"}
        devices = [await home.device() for _ in range(3)]
        await home.agent.ws.close()
        async with await raw.RawSocket.open(relay) as agent:
            auth = {"token": home.token, "role": "agent", "ext": 1, "key": home.agent.key.text}
            await agent.send(json.dumps({"type": "auth", "payload": auth}))
            await agent.receive_bytes()
            texts = {}
            frames = bytearray()
            receivers = [*devices, phone]
            for n in range(400):
                receiver = receivers[(n * n) % 7 % 4]
                name = f',"device":"{receiver.key.id}"' if receiver is not phone else ""
                text = f'{{"type":"x.{n}","pad":"{"p" * (n % 200)}"{name}}}'
                texts.setdefault(receiver, []).append(text)
                frames += raw.text(text)
            agent.writer.write(bytes(frames))
            for receiver, expected in texts.items():
                got = []
                while len(got) < len(expected):
                    text = await receiver.receive_text()
                    if '"type":"x.' in text:
                        got.append(text)
                assert got == expected


@pytest.mark.parametrize("legacy_phone", [False, True])
async def test_whom_a_bound_token_admits(start_relay, legacy_phone):
    """Table 3.13 of the extension: old and new agents and phones."""
    relay = start_relay()
    async with bound(relay, legacy_phone) as home:
        token = home.token
        other = "the token is bound to the key of another agent"
        assert await refusal(relay, token, "agent", Key()) == other
        assert await refusal(relay, token, "agent") == other
        assert await refusal(relay, token, "agent", home.agent.key, more={"ext": 2}) == other
        used = "this link was used: show a new one"
        assert await refusal(relay, token, "phone", Key()) == used
        await home.agent.expect_silence()
        if legacy_phone:
            async with await Client.authed(relay, token, "phone") as phone:
                assert "ext" not in phone.auth_ok and phone.auth_ok["paired"] is True
                assert await home.agent.expect("status") == {"peer": "online"}
                await phone.send("chat.send", {"text": "old"})
                assert "device" not in await home.agent.receive()
                # It is no device, and cannot pass for one.
                await phone.expect_error("INVALID_MESSAGE", await phone.send("chat.send", device="0" * 16))
                # Its slot is closed under it.
                ref = await home.agent.send("relay.bind", {"legacy_phone": False})
                assert await home.agent.expect("status") == {"peer": "offline"}
                assert await home.agent.expect("relay.ok") == {"ref": ref, "mail": home.agent.mail}
                assert await phone.closed() == (4002, "revoked")
        text = "the token admits only devices that its agent has admitted: show a new link"
        assert await refusal(relay, token, "phone") == text
        assert await refusal(relay, token, "phone", more={"ext": 0}) == text


async def test_a_token_that_is_not_bound_works_as_ever(relay):
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        async with await Peer.join(relay, token, "phone", Key(), Invite()) as phone:
            assert phone.ext == {"v": 1, "legacy": True}
            assert await agent.expect("status") == {"peer": "online"}
            for sender, receiver in [(phone, agent), (agent, phone)]:
                for kind in ["relay.sleep", "relay.revoke"]:
                    await sender.send(kind, {"device": "0" * 16}, device=7)
                    message = await receiver.receive()
                    assert (message["type"], message["device"]) == (kind, 7)
        assert await agent.expect("status") == {"peer": "offline"}
    # An agent with a key that binds nothing leaves it as it was.
    async with await Peer.join(relay, token, "agent", Key()) as agent:
        assert agent.ext == {"v": 1, "bound": False, "legacy": True, "devices": []}
        for kind, payload in [
            ("relay.invite", {"invite": Invite().hash}),
            ("relay.admit", {"device": "0" * 16}),
            ("relay.revoke", {"device": "0" * 16}),
            ("relay.park", {"device": "0" * 16}),
        ]:
            await agent.order_fails("INVALID_MESSAGE", kind, payload)
        async with await Client.authed(relay, token, "phone"):
            assert await agent.expect("status") == {"peer": "online"}
            await agent.expect_error("DEVICE_UNKNOWN", await agent.send("chat.done", device="0" * 16))
    async with await Client.authed(relay, token, "agent"):
        pass


async def test_old_clients_see_nothing_of_it(relay):
    """No `ext`, no `relay.*`, no `device`; whatever they send of it is the peer's."""
    async with pair(relay) as (agent, phone):
        assert "ext" not in agent.auth_ok and "ext" not in phone.auth_ok
        for sender, receiver in [(agent, phone), (phone, agent)]:
            for kind in ["relay.bind", "relay.sleep", "relay.x", "relay."]:
                text = json.dumps({"type": kind, "device": ["any"], "payload": {"legacy_phone": False}})
                await sender.send_text(text)
                assert await receiver.receive_text() == text
            text = '{"type":"x","device":1,"device":2}'
            await sender.send_text(text)
            assert await receiver.receive_text() == text
            # No error of theirs speaks of a device.
            await sender.send_text('{"type":"x","device":"0000000000000000","id":7}')
            assert "device" not in await sender.expect_error("INVALID_MESSAGE")
            await sender.send_text('{"type":"auth.x","device":"0000000000000000"}')
            assert "device" not in await sender.expect_error("INVALID_MESSAGE")


async def test_an_invite_lets_one_device_in(relay):
    async with bound(relay) as home, bound(relay) as other:
        agent, used = home.agent, "this link was used: show a new one"
        await asyncio.sleep(10.5)  # until then any invite may still be told by the agent
        one = await home.pending()
        assert await refusal(relay, home.token, "phone", Key(), Invite()) == used, "one that is none"
        foreign = Invite()
        await other.agent.order("relay.invite", {"invite": foreign.hash})
        assert await refusal(relay, home.token, "phone", Key(), foreign) == used

        invite = Invite()
        await agent.order("relay.invite", {"invite": invite.hash})
        two = await home.pending(invite=invite)
        assert await refusal(relay, home.token, "phone", Key(), invite) == used, "it belongs to the first one now"
        # That one may come again with both.
        again = await home.pending(two.key, invite)
        assert await two.closed() == (4001, "replaced")
        await again.ws.close()
        assert await agent.expect("relay.device") == {"device": two.key.id, "online": False}
        again = await home.pending(two.key, invite)

        short, withdrawn = Invite(), Invite()
        await agent.order("relay.invite", {"invite": short.hash, "ttl_sec": 1})
        await agent.order("relay.invite", {"invite": withdrawn.hash})
        await agent.order("relay.invite", {"invite": withdrawn.hash, "ttl_sec": 0})
        await asyncio.sleep(1.1)
        assert await refusal(relay, home.token, "phone", Key(), short) == used
        assert await refusal(relay, home.token, "phone", Key(), withdrawn) == used

        # Two are pending: three more are open, and no sixth.
        more = [Invite() for _ in range(4)]
        for open_one in more[:3]:
            await agent.order("relay.invite", {"invite": open_one.hash})
        await agent.order_fails("INVITES_FULL", "relay.invite", {"invite": more[3].hash})
        await agent.order("relay.invite", {"invite": more[0].hash, "ttl_sec": 60})
        await agent.order("relay.revoke", {"device": one.key.id})
        assert await one.closed() == (4002, "revoked")
        assert await refusal(relay, home.token, "phone", one.key, more[3]) == used
        await agent.order("relay.invite", {"invite": more[3].hash})
        await agent.order_fails("DEVICE_UNKNOWN", "relay.admit", {"device": one.key.id})
        await home.pending(one.key, more[3])


async def test_invites_go_with_the_agent(relay):
    async with bound(relay) as home:
        admitted, invite = await home.device(), Invite()
        await home.agent.order("relay.invite", {"invite": invite.hash})
        waiting = await home.pending(invite=invite)
        open_one = Invite()
        await home.agent.order("relay.invite", {"invite": open_one.hash})
        await home.agent.ws.close()
        assert await admitted.expect("status") == {"peer": "offline"}
        assert (await waiting.closed())[0] == 1013
        for key, shown in [(waiting.key, invite), (Key(), open_one), (Key(), Invite())]:
            assert (await refusal(relay, home.token, "phone", key, shown))[0] == 1013
        async with await Peer.join(relay, home.token, "agent", home.agent.key) as agent:
            assert agent.ext["devices"] == [{"device": admitted.key.id, "online": True}]
            assert await admitted.expect("status") == {"peer": "online"}
            # For as long as it may take to tell its invites.
            assert (await refusal(relay, home.token, "phone", Key(), open_one))[0] == 1013
            await agent.order("relay.invite", {"invite": invite.hash})
            waiting = await home.join(waiting.key, invite)
            assert await agent.expect("relay.pending") == {"device": waiting.key.id}


async def test_a_revoked_device_is_out(relay):
    async with bound(relay) as home:
        stays, gone = await home.device(), await home.device()
        began = time.monotonic()
        ref = await home.agent.send("relay.revoke", {"device": gone.key.id})
        assert await home.agent.expect("relay.device") == {"device": gone.key.id, "online": False}
        assert await home.agent.expect("relay.ok") == {"ref": ref}
        assert await gone.closed() == (4002, "revoked")
        assert time.monotonic() - began < 1
        used = "this link was used: show a new one"
        assert await refusal(relay, home.token, "phone", gone.key) == used
        assert (await refusal(relay, home.token, "agent", gone.key)).startswith("the token is bound")
        await home.agent.expect_error("DEVICE_UNKNOWN", await home.agent.send("x", device=gone.key.id))
        await home.agent.order("relay.revoke", {"device": gone.key.id})
        await home.agent.order("relay.revoke", {"device": "0" * 16})
        await stays.expect_silence()


async def test_a_device_speaks_for_itself_alone(relay):
    async with bound(relay) as home:
        one, two = await home.device(), await home.device()
        for device in [two.key.id, "0" * 16, "x" + one.key.id[1:], 7, None]:
            ref = await one.send("chat.send", device=device)
            await one.expect_error("INVALID_MESSAGE", ref)
        await one.expect_error("INVALID_MESSAGE", await one.send("chat.send"))
        twice = f'{{"type":"x","device":"{one.key.id}","device":"{one.key.id}"}}'
        await one.send_text(twice)
        await one.expect_error("INVALID_MESSAGE")
        for kind, payload in [
            ("relay.bind", {"legacy_phone": True}),
            ("relay.invite", {"invite": Invite().hash}),
            ("relay.admit", {"device": two.key.id}),
            ("relay.revoke", {"device": two.key.id}),
            ("relay.park", {"device": two.key.id}),
            ("relay.ok", {}),
            ("relay.x", {}),
        ]:
            await one.order_fails("INVALID_MESSAGE", kind, payload)
        await home.agent.order_fails("INVALID_MESSAGE", "relay.sleep")
        await home.agent.send_text(f'{{"type":"x","device":"{two.key.id}","device":"{one.key.id}"}}')
        await home.agent.expect_error("INVALID_MESSAGE")
        for device in ["0" * 16, "", 7, None, [two.key.id]]:
            await home.agent.expect_error("DEVICE_UNKNOWN", await home.agent.send("x", device=device))
        await two.expect_silence()
        await home.agent.expect_silence()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("relay.bind", None),
        ("relay.bind", {"legacy_phone": "yes"}),
        ("relay.bind", [False]),
        ("relay.invite", {"invite": "x"}),
        ("relay.invite", {"invite": base64url(b"x" * 32)}),
        ("relay.invite", {"invite": Invite().hash, "ttl_sec": 86_401}),
        ("relay.invite", {"invite": Invite().hash, "ttl_sec": -1}),
        ("relay.invite", {"invite": Invite().hash, "ttl_sec": 1.5}),
        ("relay.admit", {}),
        ("relay.admit", {"device": "0" * 15}),
        ("relay.admit", {"device": "0" * 16, "label": "x" * 65}),
        ("relay.admit", {"device": "0" * 16, "label": "\n"}),
        ("relay.revoke", {"device": None}),
        ("relay.park", "0" * 16),
        ("relay.pull", {}),
        ("relay.revoke", {"device": "0" * 16, "pad": "x" * 5000}),
    ],
)
async def test_a_payload_of_another_form_is_refused(relay, kind, payload):
    async with bound(relay) as home:
        error = await home.agent.order_fails("INVALID_MESSAGE", kind, payload)
        assert kind in error["message"] or "relay" in error["message"], error
        await home.agent.expect_silence()


@pytest.mark.parametrize("field", ["key", "invite"])
@pytest.mark.parametrize("value", ["", "x", 7, ["x"], "=" * 43, "A" * 44, "A" * 42 + "B", "+" * 43])
async def test_a_credential_of_another_form_is_refused(start_relay, field, value):
    relay = start_relay()
    token = await relay.token()
    credential = {"key": Key().text, field: value}
    assert f"the {field} must be" in await refusal(relay, token, "phone", more=credential)
    # Who does not ask for the extension may write there what it likes, and so may an agent in `invite`.
    async with await Peer.join(relay, token, "phone", more={"ext": 0} | credential) as phone:
        assert "ext" not in phone.auth_ok
    if field == "invite":
        async with await Peer.join(relay, token, "agent", more=credential) as agent:
            assert agent.ext["bound"] is False
        async with await Peer.join(relay, token, "phone", more={"invite": value}) as phone:
            assert phone.ext == {"v": 1}


async def test_each_error_about_a_message_names_its_device(start_relay):
    relay = start_relay("--max-message", "10KiB", *GENEROUS)
    async with bound(relay) as home:
        device = await home.device()
        for sender in (device, home.agent):
            too_large = {"device": device.key.id, "text": "x" * 20_000}
            for broken in ('"id":7', '"id":"a","id":"b"', '"type":7'):
                await sender.send_text(f'{{"device":"{device.key.id}","type":"x",{broken}}}')
                assert (await sender.expect_error("INVALID_MESSAGE"))["device"] == device.key.id
            await sender.send_text(json.dumps(too_large))
            assert (await sender.expect_error("MESSAGE_TOO_LARGE"))["device"] == device.key.id


async def test_the_metrics_count_devices_and_why_some_are_refused(start_relay):
    relay, port = measured(start_relay, *GENEROUS)
    async with bound(relay) as home:
        one, _ = await home.device(), await home.pending()
        await one.ws.close()
        await refusal(relay, home.token, "agent", Key())
        await refusal(relay, home.token, "phone")
        await refusal(relay, home.token, "phone", Key())
        await refusal(relay, home.token, "phone", Key(), Invite())
        await one.closed()

        def holds(figures):
            counts = [figures.get("coralmux_devices", state=state) for state in ("enrolled", "connected")]
            return counts == [1, 1] and figures.get("coralmux_bound_token_refusals_total") == 4

        figures = await scrape_until(port, holds)
        for reason, count in {"other_agent": 1, "no_plain_phone": 1, "link_used": 1, "agent_away": 1, "id_taken": 0}.items():
            assert figures.get("coralmux_bound_token_refusals_total", reason=reason) == count, reason


async def test_a_device_that_sleeps_or_does_not_answer_is_absent(relay):
    async with bound(relay) as home:
        agent, device = home.agent, await home.device()
        name = {"device": device.key.id}
        await device.send("relay.sleep")
        assert await agent.expect("relay.device") == name | {"online": False}
        await agent.expect_error("PEER_OFFLINE", await agent.send("x", **name))
        await device.send("relay.sleep")
        await device.expect_silence()  # and its pings do not wake it
        await agent.expect_silence()
        await device.send("relay.awake")
        assert await agent.expect("relay.device") == name | {"online": True}
        await agent.order("relay.park", name)
        await agent.order("relay.park", name)
        await agent.expect_error("PEER_OFFLINE", await agent.send("x", **name))
        # Whatever it sends says that it is there, before that arrives.
        await device.say("ack", {"a": 1})
        assert await agent.expect("relay.device") == name | {"online": True}
        assert (await agent.receive())["type"] == "ack"
        await device.send("relay.sleep")
        assert await agent.expect("relay.device") == name | {"online": False}
        device = await home.again(device)
        await device.send("relay.sleep")
        assert await agent.expect("relay.device") == name | {"online": False}
        await device.ws.close()
        await agent.expect_silence()


async def test_what_a_device_sends_before_it_sleeps_comes_before_the_news(relay):
    async with bound(relay) as home:
        device = await home.device()
        await device.ws.close()
        assert (await home.agent.expect("relay.device"))["online"] is False
        async with await raw.RawSocket.open(relay) as socket:
            auth = {"token": home.token, "role": "phone", "ext": 1, "key": device.key.text}
            texts = [json.dumps({"type": "auth", "payload": auth})]
            texts += [f'{{"type":"x.{n}","device":"{device.key.id}"}}' for n in range(3)]
            texts += ['{"type":"relay.sleep"}', f'{{"type":"y","device":"{device.key.id}"}}']
            await socket.send(texts[0])
            await socket.receive_bytes()
            socket.writer.write(b"".join(raw.text(text) for text in texts[1:]))
            said = [await home.agent.receive() for _ in range(7)]
        kinds = [message["type"] for message in said]
        assert kinds == ["relay.device", "x.0", "x.1", "x.2", "relay.device", "relay.device", "y"]
        assert [said[n]["payload"]["online"] for n in (0, 4, 5)] == [True, False, True]


async def test_each_device_has_its_own_limits_and_there_are_so_many(start_relay):
    relay = start_relay("--devices-max", "2", "--phone-rate", "3", "--agent-rate", "9")
    async with bound(relay) as home:
        one, two = await home.device(), await home.device()
        third = await home.pending()
        error = await home.agent.order_fails("DEVICES_FULL", "relay.admit", {"device": third.key.id})
        assert "2 devices" in error["message"]
        for device in (one, two):
            for _ in range(3):
                await device.say()
                await home.agent.expect("chat.send")
            await device.expect_error("RATE_LIMITED", await device.say())
            for _ in range(9):
                await home.agent.send("x", device=device.key.id)
                await device.expect("x")
            await home.agent.expect_error("RATE_LIMITED", await home.agent.send("x", device=device.key.id))
        # What is for the relay has a rate of its own, for each of them.
        assert 0 < (await until_refused(one, "relay.awake"))["retry_after_ms"] <= 1000
        await two.send("relay.awake")
        await two.expect_silence()
        error = await until_refused(home.agent, "relay.revoke", {"device": "0" * 16})
        assert 0 < error["retry_after_ms"] <= 1000


async def until_refused(client, kind, payload=None):
    """Asks the relay for something until it is too often; the error."""
    for _ in range(100):
        await client.send(kind, payload)
    while (message := await client.receive())["type"] != "chat.error":
        assert message["type"] == "relay.ok"
    assert message["payload"]["code"] == "RATE_LIMITED"
    return message["payload"]


async def test_a_device_that_does_not_read_holds_its_agent_up_and_loses_nothing(relay):
    async with bound(relay) as home:
        slow, quick = await home.device(), await home.device()
        slow.ws.transport.pause_reading()
        text = "x" * 100_000
        sent = 0

        async def flood():
            nonlocal sent
            for sent in range(1, 301):
                await home.agent.send("x", {"text": text}, device=slow.key.id)
            await home.agent.send("end", device=quick.key.id)

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(1)
        assert sent < 300
        slow.ws.transport.resume_reading()
        for _ in range(300):
            await slow.expect("x")
        await flooding
        await quick.expect("end")
        await home.agent.expect_silence()


async def test_the_operator_sees_devices_and_may_remove_them(relay):
    async with bound(relay) as home:
        tokens = (await relay.http("GET", "/api/v1/tokens?limit=1000", admin=True)).json()["tokens"]
        (token,) = [token for token in tokens if token["agent_key"] == home.agent.key.sha256]
        assert token["devices"] == 0
        path = f"/api/v1/tokens/{token['id']}"
        kitchen, other = await home.device("kitchen"), await home.device()
        view = (await relay.http("GET", f"{path}/devices", admin=True)).json()
        assert (view["agent_key"], view["legacy_phone"]) == (home.agent.key.sha256, False)
        by_id = {device["device"]: device for device in view["devices"]}
        assert set(by_id) == {kitchen.key.id, other.key.id}
        assert by_id[kitchen.key.id]["label"] == "kitchen" and by_id[other.key.id]["label"] is None
        assert all(device["online"] and device["online_since"] for device in view["devices"])
        await other.ws.close()
        assert await home.agent.expect("relay.device") == {"device": other.key.id, "online": False}
        view = (await relay.http("GET", f"{path}/devices", admin=True)).json()
        assert [d["online"] for d in view["devices"] if d["device"] == other.key.id] == [False]

        assert (await relay.http("GET", f"{path}/devices")).status == 401
        assert (await relay.http("DELETE", f"{path}/devices/{'0' * 16}", admin=True)).status == 404
        assert (await relay.http("DELETE", f"{path}/devices/{kitchen.key.id}", admin=True)).status == 204
        assert await kitchen.closed() == (4002, "revoked")
        assert await home.agent.expect("relay.device") == {"device": kitchen.key.id, "online": False}
        assert (await relay.http("DELETE", f"{path}/devices/{kitchen.key.id}", admin=True)).status == 404
        for path_of_none in ("/api/v1/tokens/0000000000000000/devices", f"{path}/devices/x"):
            assert (await relay.http("GET", path_of_none, admin=True)).status == 404

        # Another agent's key, and none: who is there and has another one goes.
        successor = Key()
        for bad in ["x", successor.sha256.upper(), successor.sha256[:-1], 7, [successor.sha256]]:
            answer = await relay.http("PATCH", path, {"agent_key": bad}, admin=True)
            assert answer.status == 400 and "agent_key" in answer.json()["error"]["message"]
        answer = await relay.http("PATCH", path, {"agent_key": successor.sha256}, admin=True)
        assert answer.status == 200 and answer.json()["agent_key"] == successor.sha256
        assert await home.agent.closed() == (4002, "revoked")
        assert (await refusal(relay, home.token, "agent", home.agent.key)).startswith("the token is bound")
        async with await Peer.join(relay, home.token, "agent", successor) as agent:
            assert agent.ext["devices"] == [{"device": other.key.id, "online": False}]
            device = await home.join(other.key)
            assert await agent.expect("relay.device") == {"device": other.key.id, "online": True}
            answer = await relay.http("PATCH", path, {"agent_key": None}, admin=True)
            assert answer.status == 200 and answer.json()["agent_key"] is None
            assert await device.closed() == (4002, "revoked")
            await agent.expect_error("DEVICE_UNKNOWN", await agent.send("x", device=other.key.id))
            await agent.order_fails("INVALID_MESSAGE", "relay.invite", {"invite": Invite().hash})
            await agent.order("relay.bind", {"legacy_phone": True})
        view = (await relay.http("GET", f"{path}/devices", admin=True)).json()
        assert view == {"agent_key": successor.sha256, "legacy_phone": True, "devices": []}


async def test_whom_a_token_admits_can_be_asked_as_ever(relay):
    """`GET /api/v1/pair/{token}` says `phone` where any is connected, a device or not."""
    async with bound(relay) as home:
        path = f"/api/v1/pair/{home.token}"
        assert (await relay.http("GET", path)).json() == {"phone": False, "agent": True}
        device = await home.device()
        assert (await relay.http("GET", path)).json() == {"phone": True, "agent": True}
        await device.ws.close()
        assert await home.agent.expect("relay.device") == {"device": device.key.id, "online": False}
        assert (await relay.http("GET", path)).json() == {"phone": False, "agent": True}


async def test_a_full_disk_refuses_an_order_and_the_next_one_passes(start_relay):
    """Another program holds the store: `RELAY_BUSY`, and what is revoked is out all the same."""
    relay = start_relay(*GENEROUS)
    async with bound(relay) as home:
        device, waiting = await home.device(), await home.pending()
        holder = sqlite3.connect(relay.db, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        error = await home.agent.order_fails("RELAY_BUSY", "relay.admit", {"device": waiting.key.id})
        assert error["retry_after_ms"] > 0
        ref = await home.agent.send("relay.revoke", {"device": device.key.id})
        assert await home.agent.expect("relay.device") == {"device": device.key.id, "online": False}
        await home.agent.expect_error("RELAY_BUSY", ref)
        assert await device.closed() == (4002, "revoked")
        holder.execute("ROLLBACK")
        holder.close()
        await asyncio.sleep(error["retry_after_ms"] / 1000 + 3)
        await home.agent.order("relay.revoke", {"device": device.key.id})
        ref = await home.agent.send("relay.admit", {"device": waiting.key.id})
        assert await home.agent.expect("relay.device") == {"device": waiting.key.id, "online": True}
        assert await home.agent.expect("relay.ok") == {"ref": ref}
