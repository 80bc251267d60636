"""coralmux-agent and a Python phone that resume: whatever breaks, each question is asked and answered once."""

import asyncio
import dataclasses

from agents import DONE, Agent, AiServer, event, head
from coralmux import Client, Protection
from coralmux.end import DECRYPTION_FAILED
from network import Network
from test_resume import FAULTS, TIMEOUT, Breaking, delay, half_open, reset

PIECES = 40
WHOLE = "".join(f"{number} " for number in range(PIECES))
AT_ONCE = 4  # questions, each in a conversation of its own


async def answer(_, write):
    await write(head())
    for number in range(PIECES):
        await write(event(f"{number} "))
        await asyncio.sleep(0.002)  # a model takes its time
    await write(event(finish_reason="stop") + DONE)


async def answered(phone, questions):
    """The pieces come once and in order, without those that the answer's end made void; then the whole, once."""
    streamed = {question: [-1] for question in questions}
    async for message in phone:
        if message.type == "chat.stream":
            numbers = streamed[message.payload["ref"]]
            numbers += map(int, message.payload["delta"].split())
            assert numbers == sorted(set(numbers))
        elif message.type == "chat.error" and message.protection is Protection.CLEAR:
            # No end of an answer: the agent's hint that its keys are others, upon which the phone opens anew.
            assert message.payload["code"] == DECRYPTION_FAILED, message
        elif message.type in ("chat.done", "chat.error"):
            assert message.type == "chat.done", message
            assert message.payload["full_text"] == WHOLE
            del streamed[message.payload["ref"]]
        assert message.missed == 0
        if not streamed:
            return


async def test_the_agent_program_asks_and_answers_each_question_once(relay, tmp_path):
    async with Network(relay.port) as phones, Network(relay.port) as agents, AiServer(answer) as server:
        agent = Agent(tmp_path, agents.url.removesuffix("/ws"), "--openai", server.url, "--model", "m")
        try:
            link = await asyncio.to_thread(agent.link)  # the networks move meanwhile
            link = dataclasses.replace(link, relay=phones.url)
            async with Client("phone", link, proxy=None, delays=(0.01, 0.1)) as phone, asyncio.timeout(TIMEOUT):
                async for message in phone:
                    if message.type == "client.agreed":
                        break
                assert phone.resumes
                of_phone = Breaking(phones, [reset, half_open, delay], FAULTS)
                of_agent = Breaking(agents, [reset, half_open, delay], 3)  # it waits longer after each that breaks soon
                asked = []
                while of_phone.goes_on() or of_agent.goes_on():
                    questions = {}
                    for number in range(AT_ONCE):
                        asked.append(f"question {len(asked)}")
                        payload = {"text": asked[-1], "chat_id": f"chat {number}"}
                        questions[await phone.send("chat.send", payload)] = None
                    await answered(phone, questions)
            heard = [body["messages"][-1]["content"] for _, body in server.requests]
            assert sorted(heard) == sorted(asked)
        finally:
            agent.kill()
