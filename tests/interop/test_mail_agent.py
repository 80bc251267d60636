"""coralmux-agent and a device on the Rust client, each away while the other speaks: what the relay keeps arrives."""

import asyncio

import pytest

from test_agent_devices import answer, asks, device, first_link

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
