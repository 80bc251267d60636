"""Devices of every make whose connections break, whose relay is killed, and whose messages somebody meddles with, beside an
agent on the Python client and coralmux-agent. The numbers are those of the acceptance tests.

CORALMUX_SOAK_SEED repeats a failure; CORALMUX_RESUME_FAULTS makes them longer (`make test-breaks`): with 100 the answer has
5,000 pieces.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random

import pytest
from household import Household
from middle import Middle
from network import Network

from agents import DONE, Agent, AiServer, event, head
from coralmux.chats import Chats
from coralmux.v3 import agent as v3_agent
from coralmux.v3 import device as v3_device
from ends import RUST, ProcessEnd, missing
from test_agent_devices import first_link
from test_devices_makes import MAKES, device as device_of_make
from test_resume import (
    FAULTS,
    SEED,
    Breaking,
    all_repeated,
    delay,
    every_seventh_dropped,
    half_open,
    is_sealed,
    reset,
    two_swapped,
)

pytestmark = pytest.mark.asyncio

PIECES = 50 * FAULTS
QUESTIONS = 20
TIMEOUT = 60 + 4 * FAULTS
PAIRS = list(itertools.product(MAKES, ["python", "rust"]))
# Each make once: that any two of them understand each other is shown elsewhere.
ALONE = [("python", "python"), ("rust", "rust"), ("browser", "rust")]
MEDDLED = 3 * FAULTS  # messages


def whole(pieces):
    return "".join(f"{number} " for number in range(pieces))


class Answers:
    """What both agents answer: to `stream N` so many numbers, to anything else the same. `asked`: what they were asked."""

    def __init__(self, slow=0.0):
        self.asked, self.slow, self.goes_on = [], slow, lambda: False

    async def pieces(self, text):
        self.asked.append(text)
        if not text.startswith("stream "):
            yield f"You said: {text}"
            return
        for number in range(int(text.split()[1])):
            yield f"{number} "
            if number % 10 == 0:
                await asyncio.sleep(self.slow)  # a model takes its time

    async def serve(self, body, write):
        await write(head())
        async for piece in self.pieces(body["messages"][-1]["content"]):
            await write(event(piece))
        await write(event(finish_reason="stop") + DONE)

    async def generate(self, question):
        async for piece in self.pieces(question.text):
            yield piece


@contextlib.asynccontextmanager
async def agent_of(make, url, token, folder, answers):
    """An agent of this make, and its first link."""
    if make == "rust":
        async with AiServer(answers.serve) as server:
            flags = ["--openai", server.url, "--model", "m", "--token", token, "--context", "1"]
            agent = await asyncio.to_thread(Agent, folder, url.removesuffix("/ws"), *flags)
            try:
                yield agent, await first_link(agent)
            finally:
                agent.kill()
        return
    async with Household(url, token, folder) as home:
        chats = Chats(home.agent.client, {"default": answers.generate}, 1, 300)

        async def serve():
            while True:
                asked = await home.agent.expect("chat.send", timeout=None)
                await chats.handle_question(asked.id, asked.payload, asked.device)

        serving = asyncio.create_task(serve())
        try:
            yield home, await home.first()
        finally:
            serving.cancel()
            await chats.cancel_all()


class Listener:
    """What a device is told: by its answers' ends, in order, and the pieces before each."""

    def __init__(self, end):
        self.end = end

    async def answer(self):
        """The numbers of the next answer's pieces, none twice and each behind the one before, and the whole answer."""
        pieces = []
        while True:
            kind, payload = await self.next()
            if kind == "chat.stream":
                pieces += [int(number) for number in payload["delta"].split() if number.isdigit()]
                assert pieces == sorted(set(pieces)), pieces[-20:]
            elif kind == "chat.done":
                return pieces, payload["full_text"]

    async def next(self):
        """The next message: nothing was missed before it."""
        async with asyncio.timeout(TIMEOUT):
            if hasattr(self.end, "party"):
                party = self.end.party
                await party._until(lambda: party.at < len(party.told), "a message", TIMEOUT)
                message = party.told[party.at]
                party.at += 1
                assert not message.missed, message
                return message.type, message.payload
            while True:
                message = await self.end.event("message", "missed", timeout=TIMEOUT)
                assert message["event"] == "message" and not message.get("missed"), message
                return message["type"], message["payload"]


@contextlib.asynccontextmanager
async def pair(make, agent, phones, agents, token, folder, answers):
    """A device of this make that has talked, beside an agent of that one; each at a relay's URL."""
    if reason := missing(make):
        pytest.fail(reason)
    async with agent_of(agent, agents, token, folder, answers) as (running, link):
        async with device_of_make(make, dataclasses.replace(link, relay=phones), folder / "device") as end:
            listener = Listener(end)
            await end.send("chat.send", {"text": "hello"})
            assert (await listener.answer())[1] == "You said: hello"
            answers.asked.clear()
            yield running, end, listener


async def streams(end, listener, pieces=PIECES):
    """One answer arrives whole, each of its pieces once and in order."""
    await end.send("chat.send", {"text": f"stream {pieces}"})
    seen, text = await listener.answer()
    assert text.strip() == whole(pieces).strip() and set(seen) <= set(range(pieces))


async def asks(end, listener, answers, count=QUESTIONS, goes_on=lambda: False):
    """Questions, each of which is asked once and in order, and answered once."""
    number = 0
    while number < count or goes_on():
        await end.send("chat.send", {"text": f"question {number}"})
        assert (await listener.answer())[1] == f"You said: question {number}"
        number += 1
    assert [text for text in answers.asked if text.startswith("question")] == [f"question {n}" for n in range(number)]


@pytest.mark.parametrize(("make", "agent"), PAIRS)
async def test_4_5_connections_that_break_in_an_answer_and_between_questions_lose_nothing(relay, tmp_path, make, agent):
    """Cut by RST, half-open, delayed, each at some byte and at either end: the answer is whole, each question is asked once."""
    answers = Answers(slow=0.02)
    async with Network(relay.port) as phones, Network(relay.port) as agents:
        pairing = pair(make, agent, phones.url, agents.url, await relay.token(), tmp_path, answers)
        async with pairing as (_, end, listener):
            # The page waits up to 8 s after connections that break at once.
            of_phone = Breaking(phones, [reset, half_open, delay], FAULTS // 4 if make == "browser" else FAULTS)
            of_agent = Breaking(agents, [reset, delay], max(2, FAULTS // 8))
            await streams(end, listener)
            await asks(end, listener, answers, goes_on=lambda: of_phone.goes_on() or of_agent.goes_on())
            assert answers.asked[0] == f"stream {PIECES}" and answers.asked.count(f"stream {PIECES}") == 1


@pytest.mark.parametrize(("make", "agent"), ALONE)
async def test_7_a_relay_that_is_killed_again_and_again_loses_nothing(start_relay, tmp_path, make, agent):
    relay = start_relay("--register-rate", "0", "--stream-rate=0", "--agent-rate=0", "--phone-rate=0")
    answers, kills = Answers(slow=0.02), max(3, FAULTS // 6)
    async with pair(make, agent, relay.url, relay.url, await relay.token(), tmp_path, answers) as (_, end, listener):
        rng = random.Random(str(SEED))

        async def kill():
            nonlocal kills
            while kills:
                await asyncio.sleep(rng.uniform(0.2, 1))
                await asyncio.to_thread(relay.kill)
                await asyncio.to_thread(relay.start)
                kills -= 1

        killing = asyncio.create_task(kill())
        await streams(end, listener)
        await asks(end, listener, answers, goes_on=lambda: kills > 0)
        await killing


@pytest.fixture
def healing(monkeypatch):
    """The Python ends notice soon that their keys may be others."""
    for module in (v3_agent, v3_device):
        monkeypatch.setattr(module, "HEAL_INTERVAL", 0.2)


@pytest.mark.parametrize("meddling", [every_seventh_dropped, two_swapped, all_repeated])
@pytest.mark.parametrize(("make", "agent"), ALONE)
async def test_13_what_the_middle_drops_swaps_or_repeats_arrives_once_and_in_order(
    relay, tmp_path, healing, make, agent, meddling
):
    answers, rewrite = Answers(slow=0.02), meddling(MEDDLED)
    async with Middle(relay) as middle:
        async with pair(make, agent, middle.url, middle.url, await relay.token(), tmp_path, answers) as (_, end, listener):
            middle.rewrite = rewrite

            async def talk():
                await streams(end, listener, 300)
                await asks(end, listener, answers)

            talking = asyncio.create_task(talk())
            async with asyncio.timeout(TIMEOUT):
                while not (await asyncio.wait([talking], timeout=3))[0]:
                    middle.cut("phone")  # what is lost at the end of everything is asked for with the next agreement
            await talking


# ---- Ends that are killed ----


def without_acks(role):
    """For a middle: what this end acknowledges by itself does not arrive."""
    lost = []

    def rewrite(sender, message):
        if sender == role and message["type"] == "ack" and is_sealed(message):
            lost.append(message)
            return []
        return [message]

    rewrite.lost = lost
    return rewrite


@pytest.mark.parametrize("agent", ["python", "rust"])
@pytest.mark.parametrize("has_kept", [False, True], ids=["before_it_is_kept", "after_that"])
async def test_9_a_device_that_is_killed_before_it_has_acknowledged_gets_it_once_more_or_has_it(
    relay, tmp_path, agent, has_kept
):
    """What was taken and not kept comes again to the next process; what was kept, and whose acknowledgement was lost, does
    not. Either way the agent hears that it is there."""
    answers, rewrite = Answers(), without_acks("phone")
    async with Middle(relay) as middle:
        async with agent_of(agent, middle.url, await relay.token(), tmp_path, answers) as (running, link):
            command = [RUST, "device", link.for_apps(), tmp_path / "device"]
            phone = ProcessEnd(*command)
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(phone)
                listener = Listener(phone)
                await phone.send("chat.send", {"text": "hello"})
                assert (await listener.answer())[1] == "You said: hello"
                await asyncio.sleep(1.5)  # that is acknowledged
                middle.rewrite = rewrite
                await phone.send("chat.send", {"text": "the one"})
                if has_kept:
                    assert (await listener.answer())[1] == "You said: the one"
                    async with asyncio.timeout(TIMEOUT):
                        while not rewrite.lost:
                            await asyncio.sleep(0.02)
                else:
                    stopped = taken(tmp_path)
                    assert (await listener.answer())[1] == "You said: the one"
                phone.process.kill()
                await phone.process.wait()
            if not has_kept and taken(tmp_path) != stopped:
                pytest.skip("it was quicker: that it is kept is the other test's")
            middle.rewrite = lambda _role, message: [message]
            async with ProcessEnd(*command) as phone:
                listener = Listener(phone)
                if not has_kept:
                    assert (await listener.answer())[1] == "You said: the one"
                await phone.send("chat.send", {"text": "the next"})
                assert (await listener.answer())[1] == "You said: the next"
        assert answers.asked == ["hello", "the one", "the next"]


def taken(folder):
    return json.loads((folder / "device" / "device.json").read_text())["taken"]


async def test_9_an_agent_that_is_killed_in_an_answer_takes_its_question_once_more_or_has_it(relay, tmp_path):
    """It is answered once, whichever; what was acknowledged is not asked again."""
    answers = Answers()
    async with Network(relay.port) as network:
        token = await relay.token()
        async with agent_of("rust", network.url, token, tmp_path, answers) as (running, link):
            async with ProcessEnd(RUST, "device", link.for_apps(), tmp_path / "device") as phone:
                listener = Listener(phone)
                for number in range(max(3, FAULTS // 8)):
                    before = len(answers.asked)
                    await phone.send("chat.send", {"text": f"question {number}"})
                    async with asyncio.timeout(TIMEOUT):
                        while len(answers.asked) == before:
                            await asyncio.sleep(0.001)
                    running.kill()
                    running.process = running.popen(running.command, running.environment)
                    await phone.send("chat.send", {"text": f"after {number}"})
                    told = []
                    while f"You said: after {number}" not in told:
                        told.append((await listener.answer())[1])
                    assert told.count(f"You said: question {number}") <= 1 and told.count(f"You said: after {number}") == 1
                    assert answers.asked[before:].count(f"question {number}") <= 2
