"""Pairs that resume, over a real relay and real sockets: whatever breaks, no message is lost and none arrives twice.

CORALMUX_SOAK_SEED repeats a failure, CORALMUX_RESUME_FAULTS makes the tests of broken connections longer.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import sys

import pytest

import coralmux
from coralmux import client as client_module, plain
from coralmux.client import RECORD_BYTES
from coralmux.end import DECRYPTION_FAILED, PAYLOAD_MAX
from coralmux.wire import loads
from ends import end
from middle import Middle
from network import Network
from relay import ROOT

SECRET = bytes(range(32))
FAULTS = int(os.environ.get("CORALMUX_RESUME_FAULTS", "24"))
SEED = os.environ.get("CORALMUX_SOAK_SEED") or random.randrange(1 << 32)
PIECES = 400
TIMEOUT = 60 + 2 * FAULTS
RESUMING = {"phone": ["python", "rust"], "agent": ["python", "rust-answers"]}
PAIRS = list(itertools.product(RESUMING["phone"], RESUMING["agent"]))
# Soon notices that nothing comes any more. A slow machine may notice it without a reason: that is one more break.
WATCHFUL = {"ping_interval": 0.4, "ping_timeout": 0.8, "close_timeout": 0.1, "open_timeout": 1}


@contextlib.asynccontextmanager
async def two(url, token, phone="python", agent="python", **options):
    """An agent and a phone that have agreed on keys."""
    async with end(agent, "agent", url, token, SECRET, **options) as agent:
        async with end(phone, "phone", url, token, SECRET, **options) as phone:
            await asyncio.gather(phone.secure(), agent.secure())
            yield phone, agent


async def messages(end):
    """The messages that arrive, none of which may have been missed."""
    while True:
        event = await end.event("message", timeout=TIMEOUT)
        assert not event.get("missed"), event
        yield event["type"], event["payload"]


async def taken(end, kind, payload):
    """The next message is this one."""
    assert await anext(messages(end)) == (kind, payload)


async def streams(phone, agent, count=PIECES, goes_on=lambda: False):
    """One answer: each of its pieces arrives once and in order, and then its end."""
    whole, is_told = "", False

    async def tell():
        nonlocal whole, is_told
        number = 0
        while number < count or goes_on():
            delta, number = f"{number} ", number + 1
            whole += delta
            await agent.send("chat.stream", {"delta": delta, "seq": number})
            if number % 10 == 0:
                await asyncio.sleep(0.005)  # a model takes its time
        is_told = True
        await agent.send("chat.stream", {"delta": "the end", "seq": number + 1})

    async def listen():
        text, seq = "", 0
        async for kind, payload in messages(phone):
            assert kind == "chat.stream"
            text, seq = text + payload["delta"], seq + 1
            assert payload["seq"] == seq, payload
            if is_told and text == whole + "the end":
                return
            assert whole.startswith(text), (len(text), payload)

    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(tell(), listen())
        await agent.send("chat.done", {"full_text": whole})
        await taken(phone, "chat.done", {"full_text": whole})


async def asks(phone, agent, count=20, goes_on=lambda: False):
    """Questions, each of which arrives once and in order."""
    asked = None

    async def ask():
        nonlocal asked
        number = 0
        while number < count or goes_on():
            await phone.send("chat.send", {"text": f"question {number}"})
            number += 1
            await asyncio.sleep(0.02)
        asked = number
        await phone.send("chat.send", {"text": "the end"})

    async def hear():
        number = 0
        async for message in messages(agent):
            if number == asked:
                assert message == ("chat.send", {"text": "the end"})
                return
            assert message == ("chat.send", {"text": f"question {number}"})
            number += 1

    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(ask(), hear())


async def both(phone, agent, goes_on=lambda: False):
    await asyncio.gather(streams(phone, agent, goes_on=goes_on), asks(phone, agent, goes_on=goes_on))


class Breaking:
    """A network's connections break, so many of them, each at some byte, by one of these faults."""

    def __init__(self, network, faults, count):
        self.faults, self.left, self.rng = faults, count, random.Random(str(SEED))
        print(f"CORALMUX_SOAK_SEED={SEED}")
        network.on_wire = self.arm
        for wire in network.living:
            self.arm(wire)

    def arm(self, wire):
        # In the middle of the upgrade, of the handshake, of the first messages, or of the stream.
        wire.left, wire.fault = int(2 ** self.rng.uniform(6, 15)), self.happen

    def happen(self, wire):
        if not self.left:
            return None
        self.left -= 1
        fault = self.rng.choice(self.faults)
        if fault is delay:
            self.arm(wire)  # it lives on
        return fault(wire)

    def goes_on(self):
        return self.left > 0


def reset(wire):
    wire.reset()


def swallow(wire):
    wire.swallow()


def half_open(wire):
    wire.half_open()


def freeze(wire):
    wire.freeze()


def delay(wire):
    return wire.delay()


@pytest.mark.parametrize("says", [streams, asks, both])
@pytest.mark.parametrize(("phone", "agent"), PAIRS)
async def test_connections_that_break_at_any_byte_lose_nothing(relay, phone, agent, says):
    token = await relay.token()
    async with Network(relay.port) as network, two(network.url, token, phone, agent) as (phone, agent):
        breaking = Breaking(network, [reset, reset, half_open, delay], FAULTS)
        await says(phone, agent, goes_on=breaking.goes_on)


async def test_connections_that_fall_silent_lose_nothing(relay, monkeypatch):
    """Nobody is told of it: the ends find out by their pings, or the relay by the next connection."""
    monkeypatch.setattr(client_module, "AUTH_TIMEOUT", 1)
    token = await relay.token()
    async with Network(relay.port) as network, two(network.url, token, **WATCHFUL) as (phone, agent):
        breaking = Breaking(network, [swallow, freeze], FAULTS // 8)
        await both(phone, agent, goes_on=breaking.goes_on)


async def test_a_phone_whose_address_changes_is_replaced_and_loses_nothing(relay):
    """Its old connection stays open on the way, and the relay closes it with 4001."""
    token = await relay.token()
    async with Network(relay.port) as network, two(network.url, token) as (phone, agent):
        old = network.wires[1]

        async def move():
            await asyncio.sleep(0.05)
            old.freeze()
            await phone.client.disconnect()

        await asyncio.gather(streams(phone, agent, goes_on=lambda: len(network.wires) < 3), move())
        async with asyncio.timeout(TIMEOUT):
            while b"\x0f\xa1replaced" not in old.late:
                await asyncio.sleep(0.01)


async def test_a_relay_that_is_killed_again_and_again_loses_nothing(start_relay):
    relay = start_relay("--stream-rate=0", "--agent-rate=0", "--phone-rate=0")
    token = await relay.token()
    async with two(relay.url, token) as (phone, agent):

        kills = max(3, FAULTS // 8)

        async def kill():
            nonlocal kills
            while kills:
                await asyncio.sleep(random.uniform(0.1, 0.5))
                await asyncio.to_thread(relay.kill)
                await asyncio.to_thread(relay.start)
                kills -= 1

        await asyncio.gather(both(phone, agent, lambda: kills > 0), kill())


@pytest.mark.parametrize("has_talked", [False, True], ids=["before_the_first_message", "after_silence"])
async def test_a_break_while_nobody_speaks(relay, has_talked):
    token = await relay.token()
    async with Network(relay.port) as network, two(network.url, token) as (phone, agent):
        if has_talked:
            await asks(phone, agent, 3)
            await streams(phone, agent, 3)
        for wire in network.living:
            wire.reset()
        await asyncio.gather(asks(phone, agent, 3), streams(phone, agent, 3))


async def test_the_phone_program_goes_on_with_its_answer_after_a_break(relay):
    token = await relay.token()
    async with Network(relay.port) as network, end("python", "agent", relay.url, token, SECRET) as agent:
        await agent.event("connected")
        link = coralmux.Link(token, network.url, SECRET).for_apps()
        command = [sys.executable, str(ROOT / "clients/python/phone.py"), link, "hello"]
        phone = await asyncio.create_subprocess_exec(
            *command, env=os.environ | {"no_proxy": "*"}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                await taken(agent, "chat.send", {"text": "hello"})
                await agent.send("chat.stream", {"delta": "one ", "seq": 1})
                assert await phone.stdout.readexactly(4) == b"one "
                for wire in network.living:
                    wire.reset()
                await agent.event("offline")
                await agent.send("chat.stream", {"delta": "two", "seq": 2})
                await agent.client.delivered()
                await agent.send("chat.done", {"full_text": "one two"})
                out, err = await phone.communicate()
            assert (out, err, phone.returncode) == (b"two\n", b"", 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                phone.kill()


async def test_the_phone_program_goes_on_after_a_word_that_nobody_vouches_for(relay):
    """Anybody on the way can say that a message did not decrypt: the phone agrees on keys anew, and its answer comes."""
    token = await relay.token()
    async with Middle(relay) as middle, end("python", "agent", middle.url, token, SECRET) as agent:
        await agent.event("connected")
        link = coralmux.Link(token, middle.url, SECRET).for_apps()
        pipe = asyncio.subprocess.PIPE
        program = [sys.executable, str(ROOT / "clients/python/phone.py"), link, "hello"]
        phone = await asyncio.create_subprocess_exec(*program, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(TIMEOUT):
                await taken(agent, "chat.send", {"text": "hello"})
                hint = {"code": DECRYPTION_FAILED, "message": "so it is said"}
                await middle.inject("phone", {"type": "chat.error", "payload": hint})
                await agent.secure()
                await agent.send("chat.done", {"full_text": "the answer"})
                out, err = await phone.communicate()
            assert (out, err, phone.returncode) == (b"\n", b"so it is said\n", 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                phone.kill()


async def test_an_opening_that_is_lost_is_repeated(relay, monkeypatch):
    """Only the phone can notice: the agent has never heard of it."""
    monkeypatch.setattr(plain, "OPENING_LIFE", 0.3)
    token, lost = await relay.token(), []

    def lose(role, message):
        if role == "phone" and message["type"] == "key_exchange" and len(lost) < 2:
            lost.append(message)
            return []
        return [message]

    async with Middle(relay, lose) as middle, two(middle.url, token) as (phone, agent):
        await asks(phone, agent, 3)
    assert len(lost) == 2


async def test_what_no_message_holds_is_refused_before_it_is_sent(relay):
    """A picture of 3 MiB in base64, which is in base64 once more when it is sealed: the relay passes 5 MiB on."""
    image = {"mime": "image/jpeg", "data": "x" * (4 << 20)}
    async with two(relay.url, await relay.token()) as (phone, agent):
        with pytest.raises(ValueError, match="a message holds"):
            await phone.client.send("chat.send", {"text": "look", "images": [image]})
        largest = {"text": "x" * (PAYLOAD_MAX - RECORD_BYTES - len('{"text":""}'))}
        await phone.send("chat.send", largest)
        await taken(agent, "chat.send", largest)
        await phone.client.delivered()


# ---- Ends that die ----


def is_sealed(message):
    return (message.get("payload") or {}).get("enc") is True


def without_acks(role):
    """For a middle: this end's acknowledgements do not arrive, but for those that keys are agreed with."""
    seen = []

    def rewrite(sender, message):
        if message["type"] == "key_exchange":
            seen.clear()
        elif sender == role and message["type"] == "ack":
            seen.append(message)
            return [message] if len(seen) == 1 else []
        return [message]

    return rewrite


@pytest.mark.parametrize("dies", [False, True], ids=["cut", "killed"])
async def test_what_was_taken_and_not_acknowledged_comes_again_and_is_shown_once(relay, dies):
    token = await relay.token()
    async with Middle(relay, without_acks("phone")) as middle, two(middle.url, token) as (phone, agent):
        await agent.send("chat.done", {"full_text": "x"})
        await taken(phone, "chat.done", {"full_text": "x"})
        assert len(agent.client.plain.resume.sender.held) == 1
        if not dies:
            middle.cut("phone")
            await agent.client.delivered()  # its first ack says that it has it
            await agent.send("chat.done", {"full_text": "y"})
            await taken(phone, "chat.done", {"full_text": "y"})
            return
        await kill(phone)
        async with end("python", "phone", middle.url, token, SECRET) as phone:
            await taken(phone, "chat.done", {"full_text": "x"})
            await agent.send("chat.done", {"full_text": "y"})
            await taken(phone, "chat.done", {"full_text": "y"})


def same_process(phone, url, token):
    """A new end that holds what this one held, and knows how far it was."""
    again = end("python", "phone", url, token, SECRET)
    again.client.plain.resume = phone.client.plain.resume
    return again


async def kill(end):
    """Without a word, and without what it still had to say."""
    await end.client.disconnect()
    await end.client.__aexit__(KeyboardInterrupt)


async def test_a_killed_agent_leaves_nothing_missed_and_nobody_stuck(relay):
    token = await relay.token()
    dropped = []

    def drop_one(role, message):
        if role == "agent" and message["type"] == "chat.gap":
            dropped.append(message)
            return []
        return [message]

    async with Middle(relay, drop_one) as middle:
        async with end("python", "phone", middle.url, token, SECRET) as phone:
            async with end("python", "agent", middle.url, token, SECRET) as agent:
                await asyncio.gather(phone.secure(), agent.secure())
                await streams(phone, agent, 10)
                await agent.send("chat.gap", {})
                await agent.send("chat.stream", {"delta": "never shown", "seq": 1})
                async with asyncio.timeout(TIMEOUT):
                    while not phone.client.plain.resume.receiver.ahead:
                        await asyncio.sleep(0.01)
                await kill(agent)
            async with end("python", "agent", middle.url, token, SECRET) as agent:
                await streams(phone, agent, 10)
                await asks(phone, agent, 3)
    assert dropped and phone.client.plain.resume.receiver.missed == 0


async def test_two_phones_that_take_turns_both_stay_heard(relay):
    """The second replaces the first for good (4001); the first is started again later, with what it holds."""
    token = await relay.token()
    async with end("python", "agent", relay.url, token, SECRET) as agent:
        with pytest.raises(coralmux.Refused):
            async with end("python", "phone", relay.url, token, SECRET) as first:
                await first.secure()
                await asks(first, agent, 2)
                async with end("python", "phone", relay.url, token, SECRET) as second:
                    await second.secure()
                    await asks(second, agent, 2)
        async with same_process(first, relay.url, token) as first:
            await first.secure()
            await asks(first, agent, 2)


# ---- What it costs ----


async def test_a_phone_that_never_acknowledges_makes_nobody_wait(relay):
    token = await relay.token()
    async with Middle(relay, without_acks("phone")) as middle, two(middle.url, token) as (phone, agent):
        sender = agent.client.plain.resume.sender
        await agent.send("chat.note", {})
        await taken(phone, "chat.note", {})
        whole = ""
        for number in range(600):
            delta = f"{number} " * 50
            whole += delta
            await agent.client.send("chat.stream", {"delta": delta, "seq": number + 1}, timeout=20)
            assert len(sender.held) <= 256 and sum(message.size for message in sender.held) <= 192 * 1024
        assert sender.waiting
        await agent.client.send("chat.done", {"full_text": whole}, timeout=20)
        assert not sender.waiting, "its done contains the pieces, which are void"
        text = ""
        async for kind, payload in messages(phone):
            if kind == "chat.done":
                break
            text += payload["delta"]
        assert payload == {"full_text": whole} and whole.startswith(text)


async def test_acks_are_few_and_none_in_silence(relay):
    token = await relay.token()
    async with Middle(relay) as middle, two(middle.url, token) as (phone, agent):

        def acks():
            return sum(json.loads(text)["type"] == "ack" for _, text in middle.seen)

        before, clock = acks(), asyncio.get_running_loop().time
        started = clock()
        for number in range(150):
            await agent.send("chat.stream", {"delta": "x", "seq": number + 1})
            await asyncio.sleep(0.0125)
        await agent.client.delivered()
        assert 0 < acks() - before <= 2 * (clock() - started) + 2
        silent = len(middle.seen)
        await asyncio.sleep(1.5)
        assert len(middle.seen) == silent


async def test_messages_beyond_what_waits_for_an_absent_phone_are_missed_and_counted(relay):
    token = await relay.token()
    async with end("python", "agent", relay.url, token, SECRET) as agent:
        async with end("python", "phone", relay.url, token, SECRET) as phone:
            await asyncio.gather(phone.secure(), agent.secure())
            await agent.send("chat.note", {"n": -1})
            await taken(phone, "chat.note", {"n": -1})
            await agent.client.delivered()
        await agent.event("offline")
        for number in range(300):
            await agent.client.send("chat.note", {"n": number}, timeout=1)
        async with same_process(phone, relay.url, token) as phone:
            event = await phone.event("message")
            assert (event["payload"], event["missed"]) == ({"n": 44}, 44)
            for number in range(45, 300):
                await taken(phone, "chat.note", {"n": number})


# ---- Somebody in the middle ----


def every_seventh_dropped(until=200):
    count = 0

    def rewrite(role, message):
        nonlocal count
        if not is_sealed(message):
            return [message]
        count += 1
        return [] if count % 7 == 0 and count < until else [message]

    return rewrite


def two_swapped(until=100):
    held, count = {}, 0

    def rewrite(role, message):
        nonlocal count
        if not is_sealed(message):
            return [message]
        if role in held:
            return [message, held.pop(role)]
        count += 1
        if count % 20 == 5 and count < until:
            held[role] = message
            return []
        return [message]

    return rewrite


def all_repeated(until=100):
    count = 0

    def rewrite(_role, message):
        nonlocal count
        count += is_sealed(message)
        return [message, message] if is_sealed(message) and count < until else [message]

    return rewrite


@pytest.mark.parametrize("meddling", [every_seventh_dropped, two_swapped, all_repeated])
async def test_what_the_middle_drops_swaps_or_repeats_arrives_once_and_in_order(relay, meddling, monkeypatch):
    monkeypatch.setattr(plain, "HEAL_INTERVAL", 0.2)
    token = await relay.token()
    async with Middle(relay, meddling()) as middle:
        async with two(middle.url, token) as (phone, agent):
            talking = asyncio.create_task(both_short(phone, agent))
            while not (await asyncio.wait([talking], timeout=3))[0]:
                middle.cut("phone")  # what is lost at the end of everything is asked for with the next agreement
            await talking


async def both_short(phone, agent):
    await asyncio.gather(streams(phone, agent, 300), asks(phone, agent))


async def test_what_is_refused_for_a_rate_is_neither_lost_nor_doubled(start_relay):
    relay = start_relay("--phone-rate=120", "--agent-rate=0", "--stream-rate=0")
    token = await relay.token()
    async with two(relay.url, token) as (phone, agent):

        async def ask():
            for number in range(125):
                await phone.send("chat.send", {"text": str(number)})

        async def hear():
            for number in range(125):
                await taken(agent, "chat.send", {"text": str(number)})

        await asyncio.gather(ask(), hear(), phone.event("delayed"))


async def test_what_is_refused_for_a_quota_is_neither_lost_nor_doubled(start_relay):
    relay = start_relay("--phone-rate=0", "--agent-rate=0", "--stream-rate=0")
    pair = await relay.pair(limits={"daily_quota_bytes": 100_000})
    token = pair["token"]
    async with two(relay.url, token) as (phone, agent):
        for number in range(10):
            await phone.send("chat.send", {"text": str(number), "filler": "x" * 20_000})
        assert (await phone.event("delayed"))["code"] == "DAILY_QUOTA_EXCEEDED"
        body = {"limits": {"daily_quota_bytes": 0}}
        assert (await relay.http("PATCH", f"/api/v1/tokens/{pair['id']}", body, admin=True)).status == 200
        await phone.client.disconnect()
        for number in range(10):
            kind, payload = await anext(messages(agent))
            assert (kind, payload["text"]) == ("chat.send", str(number))


# ---- Agreeing on it, or not ----

STEPS = ("announcement", "opening", "answer")


def step_of(role, message):
    if message["type"] != "key_exchange":
        return None
    if role == "phone":
        return "opening"
    return "answer" if "noise" in message["payload"] else "announcement"


def stripping(steps):
    def rewrite(role, message):
        if step_of(role, message) in steps:
            rest = {name: value for name, value in message["payload"].items() if name != "rs"}
            return [message | {"payload": rest}]
        return [message]

    return rewrite


STRIPPED = [steps for count in (1, 2, 3) for steps in itertools.combinations(STEPS, count)]


@pytest.mark.parametrize("steps", STRIPPED, ids="+".join)
async def test_a_relay_that_strips_the_field_makes_no_two_ends_disagree(relay, steps):
    token = await relay.token()
    async with Middle(relay, stripping(steps)) as middle:
        async with end("python", "agent", middle.url, token, SECRET) as agent:
            await agent.event("connected")
            async with end("python", "phone", middle.url, token, SECRET) as phone:
                if "announcement" in steps:  # then nobody speaks of it
                    await asyncio.gather(phone.secure(), agent.secure())
                    assert not phone.client.plain.end.resumes and not agent.client.plain.end.resumes
                    await asyncio.gather(asks(phone, agent, 3), streams(phone, agent, 3))
                    return
                await phone.event("refused", "error")
                assert phone.client.protection is coralmux.Protection.WAITING
                await phone.send("chat.send", {"text": "question 0"})
                middle.rewrite = lambda _role, message: [message]
                middle.cut("phone")
                await phone.secure()
                assert phone.client.plain.end.resumes and agent.client.plain.end.resumes
                await taken(agent, "chat.send", {"text": "question 0"})
                await asyncio.gather(asks(phone, agent, 3), streams(phone, agent, 3))


async def test_an_end_that_has_had_it_says_that_it_has_it_no_more(relay):
    token = await relay.token()
    async with Middle(relay) as middle, two(middle.url, token) as (phone, agent):
        await asks(phone, agent, 3)
        middle.rewrite = stripping(STEPS)
        middle.cut("phone")
        told = await asyncio.gather(*(one.event("refused") for one in (phone, agent)))
        assert all(event["reason"] == "resumes_no_more" for event in told)
        await asyncio.gather(asks(phone, agent, 3), streams(phone, agent, 3))


@pytest.mark.parametrize(("phone", "agent"), [("old", "python"), ("python", "old"), ("old", "old")])
async def test_an_old_end_is_spoken_to_as_before(relay, phone, agent):
    token = await relay.token()
    async with Middle(relay) as middle, two(middle.url, token, phone, agent) as (phone, agent):
        await asyncio.gather(asks(phone, agent, 3), streams(phone, agent, 3))
        middle.cut("phone")
        await asyncio.gather(phone.secure(), agent.secure())
        await asyncio.gather(asks(phone, agent, 3), streams(phone, agent, 3))
        assert not any(loads(text)["type"] == "ack" for _, text in middle.seen)
