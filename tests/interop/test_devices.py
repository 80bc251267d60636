"""Devices over the real relay, on the Python client at both ends. The numbers are those of the acceptance tests."""

import asyncio
import contextlib
import json
import os
import sys
import time

import pytest
from household import Household, Party, asks, request, tells
from network import Network

from client import Client as Raw
from coralmux import Link, NotDone
from coralmux.chats import Chats
from coralmux.crypto import b64url
from coralmux.link import new_secret
from coralmux.v3 import invite
from relay import ROOT

TIMEOUT = 30


@contextlib.asynccontextmanager
async def household(relay, folder, url=None, **options):
    async with Household(url or relay.url, await relay.token(), folder, **options) as home:
        yield home


async def test_phone_tablet_and_browser(relay, tmp_path):
    """26: an answer reaches all; a question of one shows on the others; who is away hears the end of the answer later."""
    async with household(relay, tmp_path) as home:
        phone, tablet, browser = [await home.device(name) for name in ("phone", "tablet", "browser")]
        question = await asks(phone, home.agent)
        for other in (tablet, browser):
            turn = (await other.expect("chat.turn", text="a question")).payload
            assert (turn["ref"], turn["from"], turn["role"]) == (question.id, phone.device, "user")
        await tells(home.agent, [phone, tablet, browser])
        await tablet.__aexit__()
        await home.agent.expect("relay.device", device=tablet.device, online=False)
        for seq in range(3):
            await home.agent.client.send("chat.stream", {"delta": f"{seq} ", "seq": seq + 1})
        await tells(home.agent, [phone, browser], "0 1 2 ")
        tablet = await home.device("tablet")
        await tablet.expect("chat.done", full_text="0 1 2 ")
        assert not tablet.of("chat.stream")
        assert not any(party.of("client.refused") for party in (home.agent, phone, tablet, browser))


async def test_a_link_works_once(relay, tmp_path):
    """27: the second is told so in words; four invites are open at most, and one that is over admits nobody."""
    async with household(relay, tmp_path) as home:
        link = await home.first()
        await home.device("phone", link)
        links = [await home.agent.client.invite(lifetime=1 if at == 0 else 600) for at in range(4)]
        with pytest.raises(NotDone) as refused:
            await home.agent.client.invite()
        assert refused.value.code == "INVITES_FULL"
        await asyncio.sleep(1.2)
        foreign = Link(home.token, relay.url, new_secret(), link.agent)
        for name, bad in (("second", link), ("expired", links[0]), ("foreign", foreign)):
            async with home.party(name, bad) as party:
                while not party.ended:  # within 10 s of the agent's coming the relay lets them come again
                    await party._until(lambda: party.ended or party.of("client.lost"), "an answer", TIMEOUT)
                    await asyncio.sleep(0.1)
                assert "show a new one" in party.ended
        await home.device("tablet", links[1])


async def test_a_revoked_device_is_out_at_once(relay, tmp_path):
    """28: closed with 4002 at once; its key, the token, its invite are refused, as phone and as agent; what was
    recorded since does not open with all that it had."""
    async with household(relay, tmp_path) as home:
        link = await home.first()
        phone, thief = await home.device("phone", link), await home.device("thief")
        await asks(thief, home.agent)
        kept = thief.client.agent.kept
        began = time.monotonic()
        await home.agent.client.revoke(thief.device)
        assert "revoked" in await thief.end() and time.monotonic() - began < 5
        await thief.__aexit__()
        key, k = b64url(kept.key), b64url(invite(link.secret))
        for more in ({}, {"key": key}, {"key": key, "invite": k}, {"key": b64url(os.urandom(32)), "invite": k}):
            for role in ("phone", "agent"):
                assert await first_answer(relay, home.token, role, more) == "auth.fail", (role, more)
        assert len(home.agent.of("chat.send")) == 1
        await tells(home.agent, [phone], "not for the thief")
        assert [one["device"] for one in (await request(phone, "device.list"))["devices"]] == [phone.device]
        devices = await relay.http("GET", f"/api/v1/tokens/{home.token}/devices", admin=True)
        assert devices.status in (200, 404) and thief.device not in devices.body.decode()


async def test_what_a_revoked_device_asked_is_answered_no_further(relay, tmp_path):
    """56: an answer that runs for it ends; one for another device goes on."""
    ended, goes_on = asyncio.Event(), asyncio.Event()

    async def answers(question):
        yield question.text
        try:
            await goes_on.wait()
        finally:
            if question.text == "the thief's":
                ended.set()
        yield " and on"

    async with household(relay, tmp_path) as home:
        phone, thief = await home.device("phone"), await home.device("thief")
        chats = Chats(home.agent.client, {"default": answers}, 40, 300)
        for device, text in ((phone, "the phone's"), (thief, "the thief's")):
            await device.client.send("chat.send", {"text": text, "chat_id": text})
            event = await home.agent.expect("chat.send", text=text)
            await chats.handle_question(event.id, event.payload, event.device)
            await device.expect("chat.stream")
        await home.agent.client.revoke(thief.device)
        await chats.handle_left((await home.agent.expect("client.left")).device)
        async with asyncio.timeout(TIMEOUT):
            await ended.wait()
        goes_on.set()
        await phone.expect("chat.done", full_text="the phone's and on")
        await chats.cancel_all()


async def first_answer(relay, token, role, more):
    """What the relay says to this `auth`; one that is to come again does."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            async with await Raw.open(relay) as raw:
                auth = {"token": token, "role": role, "ext": 1} | more
                await raw.ws.send(json.dumps({"type": "auth", "id": "a", "payload": auth}))
                with contextlib.suppress(Exception):
                    return json.loads(await raw.ws.recv())["type"]
            await asyncio.sleep(0.2)


async def test_a_device_speaks_for_itself_alone(relay, tmp_path):
    """29: another one's id, or the agent's words to the relay, are INVALID_MESSAGE, and the other notices nothing."""
    async with household(relay, tmp_path) as home:
        phone, tablet = await home.device("phone"), await home.device("tablet")
        client = phone.client
        for kind, device in (("chat.send", tablet.device), ("chat.send", None), ("relay.revoke", phone.device)):
            async with client.lock:
                await client.put(kind, {"device": tablet.device}, f"{kind} {device}", device)
            await phone.expect("chat.error", code="INVALID_MESSAGE", ref=f"{kind} {device}")
        await asks(tablet, home.agent)
        await tells(home.agent, [phone, tablet])
        assert len(home.agent.of("chat.send")) == 1 and not tablet.of("client.lost")


# ---- Old and new together (31) ----


async def test_an_old_phone_with_a_new_agent(relay, tmp_path):
    """31: the first link is good for version 2 as well; whoever comes first decides, and then it enrols nobody."""
    async with household(relay, tmp_path) as home:
        link = await home.first()
        old_link = Link(link.token, link.relay, link.secret)  # an old phone passes over `a`
        async with Party("phone", old_link) as old:
            await old.expect("client.agreed")
            await old.client.send("chat.send", {"text": "from the plain phone"})
            assert (await home.agent.expect("chat.send")).device is None
            await tells(home.agent, [old])
            tablet = await home.device("tablet", await home.agent.client.invite())
            await asks(tablet, home.agent)
            await tells(home.agent, [old, tablet], "to both")
            asked = await asks(tablet, home.agent, "of the device")
            await home.agent.client.send("chat.done", {"full_text": "for devices", "ref": asked.id})
            await tablet.expect("chat.done", full_text="for devices")
            await old.client.send("chat.send", {"text": "of the plain phone"})
            asked = await home.agent.expect("chat.send", text="of the plain phone")
            await home.agent.client.send("chat.done", {"full_text": "for the plain phone", "ref": asked.id})
            await old.expect("chat.done", full_text="for the plain phone")
            await tells(home.agent, [old, tablet], "to both again")
            assert [payload["full_text"] for payload in old.of("chat.done")][-2:] == ["for the plain phone", "to both again"]
            assert [payload["full_text"] for payload in tablet.of("chat.done")][-2:] == ["for the plain phone", "to both again"]
            assert home.agent.client.devices.state.enrolments.links == []


async def test_a_plain_phone_that_has_learnt_of_devices_becomes_one(relay, tmp_path):
    """31, 3.13: it paired while its agent was old; now it enrols by itself with a link that came over version 2."""
    secret, token = new_secret(), await relay.token()
    link = Link(token, relay.url, secret)
    async with Party("agent", link), Party("phone", link) as old:
        await old.expect("client.agreed")
    state = tmp_path / "phone.json"
    home = Household(relay.url, token, tmp_path)
    home.link = link
    async with home, Party("phone", link, state=state, name="phone") as phone:
        await phone.expect("client.lifted")
        await phone.expect("device.welcome")
        assert not home.agent.of("client.link")[1:]
        await asks(phone, home.agent)
        await tells(home.agent, [phone])
        await phone.__aexit__()
        async with Party("phone", link, state=state) as again:  # its old link leads to the device that it is
            await asks(again, home.agent, "and once more")


async def test_an_old_phone_comes_too_late(relay, tmp_path):
    """31: with the first enrolment the link opens no version 2 either: the relay admits no plain phone any more."""
    async with household(relay, tmp_path) as home:
        link = await home.first()
        await home.device("phone", link)
        await wait_for(lambda: home.agent.client.plain is None)
        async with Party("phone", Link(link.token, link.relay, link.secret)) as old:
            assert await old.end()


async def wait_for(is_so):
    async with asyncio.timeout(TIMEOUT):
        while not is_so():
            await asyncio.sleep(0.02)


async def test_a_new_phone_with_an_old_agent(relay):
    """31: a link without `a`, a token that is not bound: version 2 as ever."""
    link = Link(await relay.token(), relay.url, new_secret())
    async with Party("agent", link) as agent, Party("phone", link) as phone:
        await phone.expect("client.agreed")
        await phone.client.send("chat.send", {"text": "as ever"})
        await agent.expect("chat.send", text="as ever")


async def test_another_agent_cannot_take_a_bound_token(relay, tmp_path):
    """31: neither one with a key of its own nor an old one."""
    async with household(relay, tmp_path) as home:
        await home.first()
        other = Party("agent", Link(home.token, relay.url), state=tmp_path / "other.json")
        old = Party("agent", Link(home.token, relay.url, new_secret()))
        for party in (other, old):
            async with party:
                assert await party.end()
        phone = await home.device("phone", home.agent.client.devices.link)
        await asks(phone, home.agent)


# ---- Breaks ----


async def test_breaks_of_either_end_lose_nothing(relay, tmp_path):
    """All that is said while connections are cut again and again arrives once and in order, on every device."""
    token = await relay.token()
    async with Network(relay.port) as network, Household(network.url, token, tmp_path) as home:
        phone, tablet = await home.device("phone"), await home.device("tablet")
        done = asyncio.Event()

        async def cut():
            while not done.is_set():
                await asyncio.sleep(0.15)
                for wire in network.living:
                    wire.reset()

        cutting = asyncio.create_task(cut())
        for number in range(40):
            await phone.client.send("chat.send", {"text": f"question {number}"})
            await home.agent.client.send("chat.note", {"text": f"note {number}"})
            await asyncio.sleep(0.03)
        done.set()
        await cutting
        await home.agent.expect("chat.send", text="question 39")
        for device in (phone, tablet):
            await device.expect("chat.note", text="note 39")
            assert [payload["text"] for payload in device.of("chat.note")] == [f"note {n}" for n in range(40)]
        assert [payload["text"] for payload in home.agent.of("chat.send")] == [f"question {n}" for n in range(40)]
        await tablet._until(lambda: len(tablet.of("chat.turn")) == 40, "40 turns", TIMEOUT)
        assert [payload["text"] for payload in tablet.of("chat.turn")] == [f"question {n}" for n in range(40)]


async def test_a_relay_that_is_killed_loses_nothing(start_relay, tmp_path):
    relay = start_relay("--stream-rate=0", "--agent-rate=0", "--phone-rate=0")
    async with household(relay, tmp_path) as home:
        phone = await home.device("phone")
        for number in range(3):
            await asks(phone, home.agent, f"before {number}")
            await asyncio.to_thread(relay.kill)
            await phone.client.send("chat.send", {"text": f"asked {number}"})
            await home.agent.client.send("chat.done", {"full_text": f"told {number}"})
            await asyncio.to_thread(relay.start)
            await home.agent.expect("chat.send", text=f"asked {number}")
            await phone.expect("chat.done", full_text=f"told {number}")


async def test_the_programs_pair_and_talk(relay, tmp_path):
    """agent.py shows a link, phone.py enrols with it, and asks again with the keys that it has kept."""
    clients, token = ROOT / "clients/python", await relay.token()
    environment = os.environ | {"no_proxy": "*", "XDG_STATE_HOME": str(tmp_path)}
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, clients / "agent.py", "--state", tmp_path / "agent.json", relay.url, token]
    agent = await asyncio.create_subprocess_exec(*map(str, command), env=environment, stdout=pipe, stdin=pipe)
    try:
        async with asyncio.timeout(TIMEOUT):
            line = b""
            while not line.startswith(b"Pair with: "):
                line = await agent.stdout.readline()
                assert line
            link = line.decode().split()[-1]
            for text in ("hello there", "once more"):
                command = [sys.executable, clients / "phone.py", link, text]
                phone = await asyncio.create_subprocess_exec(*map(str, command), env=environment, stdout=pipe, stderr=pipe)
                out, err = await phone.communicate()
                assert (out.decode(), phone.returncode) == (f"You said: {text}\n", 0), err
                assert (b"this code" in err) is (text == "hello there")
    finally:
        agent.kill()
        await agent.wait()
