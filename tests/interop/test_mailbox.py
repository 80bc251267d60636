"""PROTOCOL.md, "Mailbox": what is kept, how it is handed out, and each bound, as clients of the relay see it."""

import asyncio
import json
import pathlib
import sqlite3
import stat

from client import Client
from devices import Invite, Key, Peer, bound
from mailbox import BOUNDS, agent_of, counted, device_of, drain, gone, keep, kept, page, sized
from relay import GENEROUS


async def test_what_is_kept_waits_for_its_device_and_comes_as_it_was_sent(start_relay):
    relay = start_relay(*GENEROUS)
    async with bound(relay) as home:
        device = await home.device()
        key = device.key
        assert not relay.db.with_name("relay.db.mail").exists()
        await gone(home, device)
        text, ref = sized("chat.done", 3000, 1, device=key.id, keep="wake")
        await home.agent.send_text(text)
        assert await home.agent.expect("relay.kept") == {"ref": ref, "device": key.id}
        await kept(home.agent, key.id, 2)

        async with device_of(home, key) as device:
            assert device.mail == BOUNDS | {"waiting": 2, "bytes": device.mail["bytes"]}
            assert device.mail["bytes"] > 3000
            assert await device.receive_text() == text
            messages, end = await page(device)
            assert [message["payload"]["n"] for message in messages] == [2]
            assert end == {"upto": end["upto"], "left": 0, "lost": 0} and end["upto"] > 0
            # Only now it is there.
            assert await home.agent.expect("relay.device") == {"device": key.id, "online": True}
            ref = await keep(home.agent, key.id, 3)
            assert (await device.receive())["id"] == ref
            await device.send("relay.mail.ack", {"upto": end["upto"]})
            await device.expect_silence()
        assert await home.agent.expect("relay.device") == {"device": key.id, "online": False}
        await until(lambda: rows(relay) == 0)
        await asyncio.sleep(0.1)
        async with device_of(home, key) as device:
            assert device.mail["waiting"] == 0
            assert await home.agent.expect("relay.device") == {"device": key.id, "online": True}
            await device.expect_silence()


async def test_only_what_says_so_is_kept_and_only_what_may_be(relay):
    async with bound(relay, legacy_phone=True) as home:
        device = await home.device()
        await gone(home, device)
        agent, to = home.agent, device.key.id
        for kind, more in [
            ("chat.done", {}),
            ("chat.stream", {"keep": "wake"}),
            ("ack", {"keep": "wake"}),
            ("key_exchange", {"keep": "quiet"}),
            ("chat.done", {"keep": None}),
        ]:
            await agent.expect_error("PEER_OFFLINE", await agent.send(kind, device=to, **more))
        await agent.expect_error("PEER_OFFLINE", await agent.send("chat.done", keep="wake"))
        for more in [{"keep": "loud"}, {"keep": True}, {"keep": {}}]:
            await agent.expect_error("INVALID_MESSAGE", await agent.send("chat.done", device=to, **more))
        await agent.send_text(json.dumps({"type": "chat.done", "device": to, "keep": "wake", "payload": {}}))
        assert "ref" not in await agent.expect_error("INVALID_MESSAGE")
        await agent.send_text(json.dumps({"type": "chat.done", "id": "x" * 1100, "device": to, "keep": "wake"}))
        await agent.expect_error("INVALID_MESSAGE")
        await agent.send_text(f'{{"type":"chat.done","id":"1","device":"{to}","keep":"wake","keep":"quiet"}}')
        await agent.expect_error("INVALID_MESSAGE", "1")
        async with device_of(home, device.key) as device:
            assert device.mail["waiting"] == 0
        # Who has no key has no part in it.
        async with await Client.authed(relay, await relay.token(), "phone") as phone:
            await phone.expect_error("PEER_OFFLINE", await phone.send("chat.send", keep="wake"))


async def test_24_an_agent_that_was_away_gets_what_devices_have_asked_in_the_order_of_arrival(relay):
    async with bound(relay) as home:
        devices = [await home.device() for _ in range(3)]
        await home.agent.ws.close()
        for device in devices:
            assert await device.expect("status") == {"peer": "offline"}
        for number in range(12):
            device = devices[number % 3]
            await kept(device, device.key.id, number, keep="wake", kind="chat.send")
        async with agent_of(home) as agent:
            assert agent.mail["waiting"] == 12
            assert all(one["mail"] == 0 and one["online"] for one in agent.auth_ok["ext"]["devices"])
            messages, end = await page(agent)
            assert [message["payload"]["n"] for message in messages] == list(range(12))
            assert [message["device"] for message in messages] == [devices[n % 3].key.id for n in range(12)]
            assert end["left"] == 0
            for device in devices:
                assert await device.expect("status") == {"peer": "online"}
            await agent.send("relay.mail.ack", {"upto": end["upto"]})
            await devices[0].say(payload={"n": 12})
            assert (await agent.receive())["payload"] == {"n": 12}


async def test_an_agent_that_drains_is_not_there_for_devices_and_what_they_say_goes_behind(relay):
    async with bound(relay) as home:
        one, two = await home.device(), await home.device()
        await home.agent.ws.close()
        for device in (one, two):
            await device.expect("status")
            for number in range(64):
                await keep(device, device.key.id, number, kind="chat.send")
            for _ in range(64):
                await device.expect("relay.kept")
        ref = await keep(one, one.key.id, 64, kind="chat.send")
        assert "one device" in (await one.expect_error("MAILBOX_FULL", ref))["message"]
        async with agent_of(home) as agent:
            await page(agent)
            _, end = await page(agent)
            assert end["left"] == 64
            for kind in ("chat.send", "key_exchange"):
                await one.expect_error("PEER_OFFLINE", await one.say(kind))
            async with device_of(home, two.key) as again:
                assert await agent.expect("relay.device") == {"device": two.key.id, "online": True}
                assert again.auth_ok["paired"] is False
                await agent.send("relay.mail.ack", {"upto": end["upto"]})
                numbers, _ = await drain(agent)
                assert numbers == list(range(64))
                assert await again.expect("status") == {"peer": "online"}
            assert await one.expect("status") == {"peer": "online"}
            await one.say()
            assert (await agent.expect("relay.device"))["online"] is False
            assert (await agent.receive())["type"] == "chat.send"


async def test_pages_are_small_two_are_under_way_and_who_does_not_confirm_gets_no_more(relay):
    async with bound(relay) as home:
        device = await home.device()
        key = device.key
        await gone(home, device)
        for number in range(100):
            await keep(home.agent, key.id, number)
        for _ in range(100):
            await home.agent.expect("relay.kept")
        async with device_of(home, key) as device:
            ends = []
            for _ in range(2):
                messages, end = await page(device)
                assert len(messages) == 32
                ends.append(end)
            assert [end["left"] for end in ends] == [68, 36]
            await device.expect_silence()
            # What is sent now goes behind.
            await kept(home.agent, key.id, 100)
            await home.agent.expect_error("PEER_OFFLINE", await home.agent.send("chat.done", device=key.id))
            await home.agent.expect_error("PEER_OFFLINE", await home.agent.send("key_exchange", device=key.id))
            await device.send("relay.mail.ack", {"upto": ends[1]["upto"]})
            rest, _ = await drain(device)
            assert rest == list(range(64, 101))
            assert await home.agent.expect("relay.device") == {"device": key.id, "online": True}
            await device.expect_silence()
            # Nobody confirms what it was not sent.
            await device.send("relay.mail.ack", {"upto": 2**63})
            await device.expect_silence()


async def test_21_what_was_not_confirmed_comes_again_wherever_a_drain_breaks_off(relay):
    async with bound(relay) as home:
        device = await home.device()
        key = device.key
        await gone(home, device)
        for number in range(40):
            await keep(home.agent, key.id, number)
        for _ in range(40):
            await home.agent.expect("relay.kept")
        for stop in (1, 17, 32, 5):
            async with device_of(home, key) as device:
                for _ in range(stop):
                    await device.receive()
        async with device_of(home, key) as device:
            messages, end = await page(device)
            assert [message["payload"]["n"] for message in messages] == list(range(32))
            await device.send("relay.mail.ack", {"upto": end["upto"]})
            messages, end = await page(device)
            assert [message["payload"]["n"] for message in messages] == list(range(32, 40))
        assert (await home.agent.expect("relay.device"))["online"] is True
        assert (await home.agent.expect("relay.device"))["online"] is False
        async with device_of(home, key) as device:
            numbers, lost = await drain(device)
            assert (numbers, lost) == (list(range(32, 40)), 0)


async def test_who_sleeps_is_kept_for_and_gets_it_when_it_wakes(relay):
    async with bound(relay) as home:
        device = await home.device()
        key = device.key
        for order in ("relay.sleep", "relay.park"):
            if order == "relay.sleep":
                await device.send("relay.sleep")
                assert await home.agent.expect("relay.device") == {"device": key.id, "online": False}
            else:
                await home.agent.order("relay.park", {"device": key.id})
            await kept(home.agent, key.id, 1, keep="wake")
            await device.expect_silence()
            await device.send("relay.awake")
            messages, end = await page(device)
            assert [message["payload"]["n"] for message in messages] == [1]
            assert end["left"] == 0
            assert await home.agent.expect("relay.device") == {"device": key.id, "online": True}
            await device.send("relay.mail.ack", {"upto": end["upto"]})
            await device.expect_silence()
        # A message says so as well, and arrives whatever waits.
        await device.send("relay.sleep")
        assert (await home.agent.expect("relay.device"))["online"] is False
        await kept(home.agent, key.id, 2)
        ref = await device.say()
        assert (await home.agent.receive())["id"] == ref
        numbers, _ = await drain(device)
        assert numbers == [2]
        assert (await home.agent.expect("relay.device"))["online"] is True
        # What it was sent on this connection is not sent there again.
        await device.send("relay.sleep")
        assert (await home.agent.expect("relay.device"))["online"] is False
        await device.send("relay.awake")
        assert (await home.agent.expect("relay.device"))["online"] is True
        await device.expect_silence()


async def test_who_is_revoked_has_no_mail_and_neither_has_a_token_that_is_gone(start_relay):
    relay = start_relay(*GENEROUS)
    async with bound(relay) as home:
        one, two = await home.device(), await home.device()
        for device in (one, two):
            await gone(home, device)
            await kept(home.agent, device.key.id, 1)
        await home.agent.order("relay.revoke", {"device": one.key.id})
        await until(lambda: rows(relay) == 1)
        id = (await relay.http("GET", "/api/v1/tokens", admin=True)).json()["tokens"][0]["id"]
        assert (await relay.http("DELETE", f"/api/v1/tokens/{id}", admin=True)).status == 204
        await until(lambda: rows(relay) == 0)


async def test_23_the_file_is_private_and_quotas_count_once(start_relay):
    relay = start_relay(*GENEROUS, "--daily-quota", "10000")
    async with bound(relay) as home:
        device = await home.device()
        await gone(home, device)
        for number, code in [(1, None), (2, None), (3, "DAILY_QUOTA_EXCEEDED")]:
            text, ref = sized("chat.done", 4000, number, device=device.key.id, keep="quiet")
            await home.agent.send_text(text)
            if code:
                assert (await home.agent.expect_error(code, ref))["retry_after_ms"] > 0
            else:
                await home.agent.expect("relay.kept")
        async with device_of(home, device.key) as device:
            assert (await drain(device))[0] == [1, 2]
            used = device.auth_ok["daily_used_bytes"]
            assert used == 8000
        mail = relay.db.with_name("relay.db.mail")
        for path in mail.parent.glob("relay.db.mail*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_a_single_token_may_have_other_bounds(relay):
    made = await relay.pair(limits={"mailbox_messages_max": 1, "mailbox_age_max_sec": 60})
    assert made["effective"]["mailbox_messages_max"] == 1 and made["effective"]["mailbox_bytes_max"] == 4 << 20
    async with bound(relay, token=made["token"]) as home:
        device = await home.device()
        await gone(home, device)
        await kept(home.agent, device.key.id, 1)
        await home.agent.expect_error("MAILBOX_FULL", await keep(home.agent, device.key.id, 2))
        changed = {"limits": {"mailbox_bytes_max": 0}}
        path = f"/api/v1/tokens/{made['id']}"
        answer = await relay.http("PATCH", path, changed, admin=True)
        assert answer.status == 200 and answer.json()["effective"]["mailbox_bytes_max"] == 0
        refused = await home.agent.expect_error("MAILBOX_FULL", await keep(home.agent, device.key.id, 2))
        assert "bytes" in refused["message"]
        async with device_of(home, device.key) as device:
            assert (device.mail["bytes_max"], device.mail["count_max"]) == (0, 256)
            assert (await drain(device))[0] == [1]


async def test_who_binds_a_token_or_is_admitted_hears_of_the_mailbox_without_coming_again(relay):
    told = {"waiting": 0, "bytes": 0} | BOUNDS
    token = await relay.token()
    async with await Peer.join(relay, token, "agent", Key()) as agent:
        await counted(agent)
        # Said when it is bound, and whenever that is said again.
        for legacy_phone in (True, True, False):
            assert await agent.order("relay.bind", {"legacy_phone": legacy_phone}) == told
        invite, key = Invite(), Key()
        await agent.order("relay.invite", {"invite": invite.hash})
        async with await Peer.join(relay, token, "phone", key, invite) as device:
            assert await agent.expect("relay.pending") == {"device": key.id}
            assert device.ext["pending"] is True and device.mail is None
            await agent.send("relay.admit", {"device": key.id})
            assert (await device.expect("relay.admitted"))["mail"] == told
            # It holds at once, in both directions.
            assert await agent.expect("relay.device") == {"device": key.id, "online": True}
            await agent.expect("relay.ok")
            await device.send("relay.sleep")
            assert await agent.expect("relay.device") == {"device": key.id, "online": False}
            await kept(agent, key.id, 1)
            await agent.ws.close()
            assert await device.expect("status") == {"peer": "offline"}
            await kept(device, key.id, 2, kind="chat.send")


async def test_a_relay_without_mailbox_keeps_nothing_and_has_no_file(start_relay):
    relay = start_relay(*GENEROUS, "--mailbox", "off")
    async with bound(relay) as home:
        assert await home.agent.order("relay.bind", {"legacy_phone": False}) is None
        device = await home.device()
        assert "mail" not in device.admitted
        await gone(home, device)
        await home.agent.expect_error("PEER_OFFLINE", await keep(home.agent, device.key.id, 1))
        async with device_of(home, device.key) as device:
            assert device.mail is None
    assert not list(relay.db.parent.glob("relay.db.mail*"))
    assert "shelf" not in threads(relay)


async def test_without_anybody_who_asks_there_is_no_thread(start_relay):
    relay = start_relay(*GENEROUS)
    async with bound(relay) as home:
        device = await home.device()
        assert "shelf" not in threads(relay)
        await gone(home, device)
        await kept(home.agent, device.key.id, 1)
        assert "shelf" in threads(relay)
    relay.stop()
    relay.start()
    assert "shelf" in threads(relay)


def threads(relay):
    tasks = pathlib.Path(f"/proc/{relay.process.pid}/task")
    return [(task / "comm").read_text().strip() for task in tasks.iterdir()]


def rows(relay):
    """Messages in the file, as another program sees them."""
    sql = "SELECT count(*) FROM message"
    with sqlite3.connect(relay.db.with_name("relay.db.mail")) as connection:
        return connection.execute(sql).fetchone()[0]


async def until(condition, timeout=15):
    for _ in range(timeout * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to that")
