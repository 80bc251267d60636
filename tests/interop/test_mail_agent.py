"""coralmux-agent and a device on the Rust client, each away while the other speaks: what the relay keeps arrives."""

import asyncio
import contextlib
import dataclasses

import pytest
from household import Party
from middle import Hold, Middle
from test_agent_household import guest_of, owner_of
from test_mail_python import done_of, until

from agents import DONE, Agent, AiServer, event, head
from ends import RUST, ProcessEnd
from mailbox import waiting
from relay import GENEROUS
from test_agent_devices import answer, answered, asks, device, first_link
from test_agent_devices import until as message_of
from test_mailbox_faults import LIBRARY

pytestmark = pytest.mark.asyncio


async def kept(end):
    """The relay has the next message that this end has sent."""
    while not (event := await end.event("other"))["message"].startswith("Kept"):
        pass


async def test_a_question_waits_for_the_agent_and_its_answer_for_the_device(start_agent, tmp_path):
    """Tests of both directions at once: neither end ever meets the other."""
    agent = start_agent("--echo")
    link = await first_link(agent)
    async with device(link, tmp_path / "device") as phone:
        # It was admitted on this very connection, and its agent has bound the token on its own.
        await asks(phone, "one")
        agent.stop()
        for text in ("two", "three"):
            await phone.send("chat.send", {"text": text, "chat_id": text})
            await kept(phone)
    # The agent takes the questions, answers while nobody is there, and ends when the relay has the answers.
    agent.process = agent.popen(agent.command, agent.environment)
    await asyncio.sleep(1)
    agent.stop()
    async with device(link, tmp_path / "device") as phone:
        # Of two conversations, which are answered side by side.
        assert {await answer(phone), await answer(phone)} == {"You said: two", "You said: three"}
        agent.process = agent.popen(agent.command, agent.environment)
        # What was taken from the relay is not taken again.
        await phone.send("chat.send", {"text": "four"})
        assert await answer(phone) == "You said: four"


@contextlib.asynccontextmanager
async def household(relay, folder, rewrite):
    """The agent program behind a middle, and what its devices are entered into."""
    async with Middle(relay, rewrite) as middle, contextlib.AsyncExitStack() as stack:
        agent = Agent(folder, middle.url.removesuffix("/ws"), "--echo", "--token", await relay.token())
        stack.callback(agent.kill)
        yield agent, middle, stack


async def test_an_answer_wakes_who_is_away_unless_who_has_asked_is_here(relay, tmp_path):
    wishes = []

    def look(role, message):
        if role == "agent" and "keep" in message:
            wishes.append((message["type"], message["device"], message["keep"]))
        return [message]

    async with household(relay, tmp_path, look) as (agent, _, stack):
        owner = await owner_of(agent, tmp_path, stack, relay=relay.url)
        guest = await guest_of(owner, tmp_path, stack, "Guest", relay=relay.url)
        await answered(guest, "both are here")
        await guest.__aexit__()
        await answered(owner, "the guest has left")
        wishes.clear()
        await answered(owner, "who asks is here")
        await until(lambda: len(done_of(wishes)) == 2)
        assert done_of(wishes) == {owner.device: "wake", guest.device: "quiet"}
        agent.stop()
        await owner.expect("status", peer="offline")
        asked = await owner.client.send("chat.send", {"text": "nobody is here"})
        await owner.expect("relay.kept", ref=asked)
        await owner.__aexit__()
        wishes.clear()
        agent.process = agent.popen(agent.command, agent.environment)
        await until(lambda: len(done_of(wishes)) == 2)
        assert done_of(wishes) == {owner.device: "wake", guest.device: "wake"}


async def test_a_device_that_says_nothing_any_more_is_kept_for(relay, tmp_path):
    """Parked, it counts as absent: what it has not acknowledged is kept, and it gets all of it once when it wakes."""
    deaf = []

    def no_acks(role, message):
        return [] if role == "phone" and message["type"] == "ack" and deaf else [message]

    async with household(relay, tmp_path, no_acks) as (agent, middle, stack):
        owner = await owner_of(agent, tmp_path, stack, relay=relay.url)
        silent = await guest_of(owner, tmp_path, stack, "Silent", relay=middle.url)
        await answered(silent, "before")
        deaf.append(True)
        await answered(owner, "one")
        await silent.expect("chat.done", full_text="You said: one")
        await until(lambda: waiting(relay, silent.device) > 0, 60)
        await answered(owner, "two")
        await until(lambda: waiting(relay, silent.device) >= 4)
        deaf.clear()
        await answered(silent, "I am back")
        heard = [one["full_text"] for one in silent.of("chat.done")]
        assert heard == [f"You said: {text}" for text in ("before", "one", "two", "I am back")]


async def test_what_is_too_long_to_be_kept_and_was_on_its_way_to_a_phone_that_left_waits_for_it(start_relay, tmp_path):
    relay = start_relay(*GENEROUS, "--mailbox-message", "8000")
    hold = Hold("agent", "chat.done")
    async with household(relay, tmp_path, hold) as (agent, _, stack):
        link = dataclasses.replace(await first_link(agent), relay=relay.url)
        text = "x" * 20_000
        async with Party("phone", link, state=tmp_path / "phone.json") as phone:
            await phone.expect("client.agreed")
            await answered(phone, "short")
            hold.close()
            await phone.client.send("chat.send", {"text": text})
            await until(lambda: hold.held)
        hold.open()
        await asyncio.sleep(0.5)
        async with Party("phone", None, state=tmp_path / "phone.json") as phone:
            await phone.expect("chat.done", full_text=f"You said: {text}")
            await answered(phone, "behind it")


@pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime")
async def test_a_model_and_the_history_are_told_when_a_question_was_asked_that_waited_for_days(start_agent, tmp_path):
    async def reply(_, write):
        await write(head() + event("yes", finish_reason="stop") + DONE)

    past = ("env", f"LD_PRELOAD={LIBRARY}", "FAKETIME=-73h", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1")
    async with AiServer(reply) as server:
        agent = start_agent("--openai", server.url, "--model", "m")
        folder, link = tmp_path / "device", await first_link(agent)

        def device(*under):
            return ProcessEnd(*under, RUST, "device", link.for_apps(), folder)

        async with device() as phone:
            await phone.send("chat.send", {"text": "now"})
            assert await answer(phone) == "yes"
        agent.stop()
        # It was three days ago, by the phone's clock.
        async with device(*past) as phone:
            await phone.send("chat.send", {"text": "still?"})
            await kept(phone)
        agent.process = agent.popen(agent.command, agent.environment)
        async with device() as phone:
            assert await answer(phone) == "yes"
            await phone.send("chat.history", {})
            turns = (await message_of(phone, "chat.history.result"))["messages"]
        asked = [body["messages"][-1]["content"] for _, body in server.requests]
        assert asked == ["now", "still?\n\n(This was asked 3 days ago, and has only arrived now.)"]
        assert [turn["text"] for turn in turns] == ["now", "yes", "still?", "yes"]
        days = (turns[3]["ts"] - turns[2]["ts"]) / 86_400_000
        assert 3 < days < 3.2
