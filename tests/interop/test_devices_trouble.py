"""Devices and agents in trouble that nobody means: floods, openings that are lost, many who enrol at once, an agent that
ends or moves to another connection meanwhile, and states that are set back under a running process."""

import asyncio
import contextlib
import copy
import dataclasses
import json
import pathlib

import pytest
from devices import Key, Peer
from household import Household, Party, asks as arrives, request, tells
from lying import LyingRelay
from middle import Middle
from network import Network

from agents import TIMEOUT, Agent
from coralmux import Link
from coralmux.v3 import sessions, wire
from ends import RUST, ProcessEnd, device_of, missing
from test_agent_devices import answered as echoed, first_link, said
from test_agent_lying import hint, invited_by
from test_devices_breaks import Answers, agent_of, healing
from test_devices_lying import TOKEN, is_sealed, sent_by, speak, step, to_device

pytestmark = pytest.mark.asyncio
__all__ = ["healing"]

AGENTS = ["python", "rust"]


async def answered(party, text):
    asked = await party.client.send("chat.send", {"text": text})
    assert (await party.expect("chat.done", ref=asked)).payload["full_text"] == f"You said: {text}"


# ---- A flood ----


@pytest.mark.parametrize("agent", AGENTS)
async def test_53_a_device_that_floods_has_its_share_and_the_others_go_on(start_relay, tmp_path, agent):
    """Garbage, as far ahead as it is looked at: the relay refuses what is above the device's rate, its agent acts on none of
    it, and another device is answered each time. The chain has not moved: the device itself goes on with its keys."""
    relay, answers = start_relay("--register-rate", "0"), Answers()
    token = await relay.token()
    async with contextlib.AsyncExitStack() as stack:
        _, link = await stack.enter_async_context(agent_of(agent, relay.url, token, tmp_path, answers))
        quiet = await stack.enter_async_context(Party("phone", link, state=tmp_path / "quiet.json", name="quiet"))
        await quiet.expect("client.agreed")
        loud = await invited_by(quiet, stack, tmp_path, "loud")
        await answered(loud, "before")
        await loud.client.delivered()
        kept = loud.client.agent
        # Not to the last place: what acknowledges the answer may not arrive, and then that would be one too far.
        ahead = kept.end.sessions.sending.next + sessions.AHEAD_MAX - 8
        key, sid = Key(kept.kept.key), kept.end.sessions.sid
        await loud.__aexit__()
        garbage = wire.enclose(sid, ahead, bytes(12), bytes(64))
        sent, refusals, is_over = 0, [], asyncio.Event()
        async with await Peer.join(relay, token, "phone", key) as flooder:

            async def flood():
                nonlocal sent
                while sent < 300 or not is_over.is_set():
                    await flooder.say("chat.send", garbage)
                    sent += 1
                    if sent % 50 == 0:
                        refusals.extend(await replies(flooder))

            flooding = asyncio.create_task(flood())
            questions = [f"question {number}" for number in range(10)]
            for text in questions:
                await answered(quiet, text)
            is_over.set()
            await flooding
            refusals.extend(await replies(flooder))
        limited = [error for error in refusals if error["code"] == "RATE_LIMITED"]
        complaints = [error for error in refusals if error["code"] == "DECRYPTION_FAILED"]
        assert sent * 2 // 3 <= len(limited) < sent and len(complaints) <= sent - len(limited)
        assert answers.asked == ["before", *questions]
        assert not quiet.of("client.delayed") and not quiet.of("chat.error")
        async with Party("phone", None, state=tmp_path / "loud.json") as loud:
            await answered(loud, "and I am back")
            assert loud.client.agent.end.sessions.sid == sid, "with the keys of before"


async def replies(client):
    """The errors that have come up to now; what else has come is passed over."""
    mark, errors = await client.send("ping"), []
    while (message := await client.receive())["type"] != "pong":
        if message["type"] == "chat.error":
            errors.append(message["payload"])
    assert mark
    return errors


# ---- Sessions ----


@pytest.mark.parametrize("lost", ["opening", "answer"])
@pytest.mark.parametrize("make", ["python", "rust", "browser"])
async def test_what_agrees_on_new_keys_is_lost_and_repeated_and_all_goes_on_meanwhile(tmp_path, healing, make, lost):
    if reason := missing(make):
        pytest.fail(reason)
    dropped = []

    def drop(who, message):
        if step(message) == 0 and (who == "agent") is (lost == "answer") and not dropped:
            dropped.append(message)
            return []
        return [message]

    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home, contextlib.AsyncExitStack() as stack:
        link = await home.first()
        phone = await device_of(make, home, link, stack, tmp_path / "phone")
        await phone.send("chat.send", {"text": "hello"})
        device = (await home.agent.expect("chat.send", text="hello")).device
        peer, relay.rewrite = home.agent.client.devices.peers[device], drop
        sid = peer.end.sessions.sid
        await relay.tell(device, hint())
        await relay.until_seen(lambda *_: dropped)
        await phone.send("chat.send", {"text": "with the old ones"})
        await home.agent.expect("chat.send", text="with the old ones")
        assert peer.end.sessions.sid == sid
        await home.agent.expect("client.agreed")
        await phone.send("chat.send", {"text": "with new ones"})
        await home.agent.expect("chat.send", text="with new ones")
        assert peer.end.sessions.sid != sid
        assert [payload["text"] for payload in home.agent.of("chat.send")] == ["hello", "with the old ones", "with new ones"]


# ---- Enrolling ----


@pytest.mark.parametrize("agent", AGENTS)
async def test_sixteen_that_enrol_at_once_with_four_links_are_four_devices(tmp_path, agent):
    """The relay lets all of them in, the agent one with each link; nothing is sealed for the others."""
    answers = Answers()
    async with LyingRelay() as relay, contextlib.AsyncExitStack() as stack:
        running, link = await stack.enter_async_context(agent_of(agent, relay.url, TOKEN, tmp_path, answers))
        owner = await stack.enter_async_context(Party("phone", link, state=tmp_path / "owner.json", name="owner"))
        await owner.expect("client.agreed")
        links = [await invitation(owner) for _ in range(4)]
        others = [Party("phone", links[n % 4], state=tmp_path / f"{n}.json", name=f"{n}") for n in range(16)]
        await asyncio.gather(*(stack.enter_async_context(other) for other in others))
        for _ in range(4):
            pending = (await owner.expect("device.pending")).payload
            await owner.client.send("device.admit", {"device": pending["device"]})
        async with asyncio.timeout(TIMEOUT):
            while sum(bool(other.of("client.agreed")) for other in others) < 4:
                await asyncio.sleep(0.05)
        let_in = [other for other in others if other.of("client.agreed")]
        assert len(let_in) == 4 and len({at % 4 for at, other in enumerate(others) if other in let_in}) == 4
        for other in others:
            if other not in let_in:
                assert not [message for message in to_device(relay, other.device) if is_sealed(message)]
        listed = (await request(owner, "device.list"))["devices"]
        assert {one["device"] for one in listed} == {other.device for other in [owner, *let_in]}
        for other in others:
            seconds = [message for message in to_device(relay, other.device) if step(message) == 2]
            assert len({message["payload"]["noise"] for message in seconds}) <= 3
        for party in [owner, *let_in]:
            await answered(party, f"of {party.device}")


async def invitation(owner):
    return Link.parse((await request(owner, "device.invite", result="device.invite.result"))["link"])


@pytest.mark.parametrize("agent", AGENTS)
async def test_no_link_is_told_to_be_used_while_its_agent_moves_to_another_connection(relay, tmp_path, agent):
    """The relay forgets invites with the connection, and the agent says them again: who comes in between comes again."""
    async with Network(relay.port) as network, contextlib.AsyncExitStack() as stack:
        pairing = agent_of(agent, network.url, await relay.token(), tmp_path, Answers())
        _, link = await stack.enter_async_context(pairing)
        link = dataclasses.replace(link, relay=relay.url)
        owner = await stack.enter_async_context(Party("phone", link, state=tmp_path / "owner.json", name="owner"))
        await owner.expect("client.agreed")
        for number in range(3):
            link = dataclasses.replace(await invitation(owner), relay=relay.url)
            for wire_ in network.living:
                wire_.reset()
            async with Party("phone", link, state=tmp_path / f"{number}.json", name=f"{number}") as guest:
                pending = (await owner.expect("device.pending", name=f"{number}")).payload
                for wire_ in network.living:
                    wire_.reset()
                await owner.client.send("device.admit", {"device": pending["device"]})
                await guest.expect("client.agreed")
                await answered(guest, f"of {number}")
                assert guest.ended is None


# ---- The agent ends ----


async def test_an_agent_that_is_stopped_where_nothing_is_kept_ends_in_order(start_relay, tmp_path):
    """A device is away, and there is no mailbox: what was not delivered is counted and said, nobody waits for it, and who
    comes back reads it in the history."""
    relay = start_relay("--register-rate", "0", "--mailbox", "off")
    agent = await asyncio.to_thread(Agent, tmp_path, relay.url.removesuffix("/ws"), "--echo")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(agent.kill)
        owner = await stack.enter_async_context(
            Party("phone", await first_link(agent), state=tmp_path / "owner.json", name="owner")
        )
        await owner.expect("client.agreed")
        away = await invited_by(owner, stack, tmp_path, "away")
        await echoed(away, "I am here")
        await away.client.delivered()
        await away.__aexit__()
        await said(agent, "away is offline.")
        await echoed(owner, "while one is away")
        await owner.client.delivered()
        await asyncio.sleep(1.5)  # it has acknowledged what it heard
        await asyncio.to_thread(agent.stop)
        assert "message(s) had not reached the phone, or all devices, and are given up." in agent.output()
        agent.process = agent.popen(agent.command, agent.environment)
        async with Party("phone", None, state=tmp_path / "away.json") as away:
            await away.client.send("chat.history", {})
            turns = (await away.expect("chat.history.result")).payload["messages"]
            assert "You said: while one is away" in [turn["text"] for turn in turns]
            await echoed(away, "back again")


async def test_an_agent_that_is_stopped_says_nothing_of_messages_that_have_arrived(relay, tmp_path):
    agent = await asyncio.to_thread(Agent, tmp_path, relay.url.removesuffix("/ws"), "--echo")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(agent.kill)
        phone = await stack.enter_async_context(Party("phone", await first_link(agent), state=tmp_path / "phone.json"))
        await phone.expect("client.agreed")
        for number in range(3):
            await echoed(phone, f"question {number}")
        await asyncio.to_thread(agent.stop)
        assert "given up" not in agent.output()


# ---- States that are set back ----


def nonces(messages):
    """No key and nonce come twice with different texts."""
    seen = {}
    for message in messages:
        if is_sealed(message):
            payload = message["payload"]
            key = payload["s"], payload["i"], payload["nonce"]
            assert seen.setdefault(key, payload["ciphertext"]) == payload["ciphertext"], "two texts under one nonce"


@pytest.mark.parametrize("who", ["agent", "device"])
async def test_35_a_file_that_is_set_back_under_a_running_process_does_no_harm(relay, tmp_path, who):
    """The process goes on; killed right after that it begins with what the file has, and after one handshake all goes on."""
    async with Middle(relay) as middle, contextlib.AsyncExitStack() as stack:
        agent = await asyncio.to_thread(Agent, tmp_path, middle.url.removesuffix("/ws"), "--echo", "--token", await relay.token())
        stack.callback(agent.kill)
        link = await first_link(agent)
        command = [RUST, "device", link.for_apps(), tmp_path / "phone"]

        async def talks(phone, name, count):
            for number in range(count):
                await phone.send("chat.send", {"text": f"{name} {number}"})
                # What was taken since the state that it has now comes once more.
                while (event := await phone.event("message"))["payload"].get("full_text") != f"You said: {name} {number}":
                    pass

        phone = ProcessEnd(*command)
        await phone.__aenter__()
        await talks(phone, "first", 3)
        await asyncio.sleep(1.5)  # all of it is kept
        if who == "agent":
            (path,) = [
                path for path in pathlib.Path(agent.state["XDG_STATE_HOME"]).rglob("*.json") if ".devices-" in path.parent.name
                and path.stem not in ("links", "history")
            ]  # fmt: skip
        else:
            path = tmp_path / "phone" / "device.json"
        before = path.read_text()
        await talks(phone, "since", 70)
        path.write_text(before)
        await talks(phone, "under it", 3)
        path.write_text(before)
        if who == "agent":
            agent.kill()
            agent.process = agent.popen(agent.command, agent.environment)
        else:
            phone.process.kill()
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                await phone.__aexit__()
            phone = ProcessEnd(*command)
            await phone.__aenter__()
        await talks(phone, "afterwards", 3)
        await phone.__aexit__()
        for role in ("agent", "phone"):
            nonces([json.loads(text) for sender, text in middle.seen if sender == role])


@pytest.mark.parametrize("who", ["agent", "phone"])
async def test_35_a_process_that_is_set_back_draws_a_new_boot(tmp_path, healing, who):
    """A snapshot that is resumed, boot and all: its numbers have two meanings. Nothing is acknowledged that was not taken."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        await arrives(phone, home.agent, "the first")
        await tells(home.agent, [phone], "the first")
        own = home.agent.client.devices.peers[phone.device] if who == "agent" else phone.client.agent
        await home.agent.client.delivered()
        await phone.client.delivered()
        snapshot = copy.deepcopy((own.resume, own.end.sessions))
        boot = own.resume.sender.boot
        await speak(home, phone, who, 5, "lost")
        own.resume, own.end.sessions = snapshot
        other = phone if who == "agent" else home.agent
        sender = home.agent if who == "agent" else phone
        for number in range(3):
            await sender.client.send("chat.note", {"text": f"set back {number}"})
        for number in range(3):
            await other.expect("chat.note", text=f"set back {number}")
        assert own.resume.sender.boot != boot
        await sender.client.delivered()
        await arrives(phone, home.agent, "both ways")
        await tells(home.agent, [phone], "both ways")
        assert [it["text"] for it in other.of("chat.note")][5:] == [f"set back {number}" for number in range(3)]
        nonces(sent_by(relay, "agent"))
        nonces(sent_by(relay, phone.device))
