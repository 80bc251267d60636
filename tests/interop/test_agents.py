"""Several agents behind one coralmux-agent (--another), of which the phone chooses one."""

import shlex
import sys

import pytest

from agents import TIMEOUT, Phone
from bots import answered

COUNT = "read line; sleep 0.1; echo 'begun '; sleep 1000"


PROGRAM = """
import json, os, sys
heard = [turn["text"] for turn in json.loads(sys.stdin.readline())["history"]]
print(json.dumps({"type": "text", "text": f"{os.environ['CORALMUX_CHAT_ID']} after {heard}"}))
"""


@pytest.fixture
def start(start_agent):
    command = f"exec {sys.executable} -c {shlex.quote(PROGRAM)}"
    second = shlex.join(["second", "--name", "Another agent", "--exec-json", "--exec", command])
    return lambda *flags: start_agent("--echo", "--name", "First", "--another", second, *flags)


async def listed(phone):
    await phone.client.send("agent.list", {})
    return (await phone.expect("agent.list.result")).payload["agents"]


async def test_the_phone_chooses_which_of_several_agents_answers(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        assert [(it["id"], it["name"], it["backend"]) for it in await listed(phone)] == [
            ("default", "First", "echo"), ("second", "Another agent", "exec"),
        ]  # fmt: skip
        await phone.ask("one", chat_id="a")
        end = (await answered(phone))[1].payload
        assert end["full_text"] == "You said: one" and "agent" not in end
        asked = await phone.ask("two", chat_id="a", agent="second")
        end = (await answered(phone))[1].payload
        assert end["full_text"] == "a after []", "it knows nothing of what the other was asked"
        assert (end["agent"], end["chat_id"], end["ref"]) == ("second", "a", asked)
        await phone.ask("three", chat_id="a", agent="default")
        end = (await answered(phone))[1].payload
        assert (end["full_text"], end["agent"]) == ("You said: three", "default")
        for agent_id, texts in (("default", ["one", "three"]), ("second", ["two"])):
            await phone.client.send("chat.history", {"chat_id": "a", "agent": agent_id})
            result = (await phone.expect("chat.history.result")).payload
            assert [it["text"] for it in result["messages"]][::2] == texts and result["agent"] == agent_id


async def test_an_agent_that_there_is_not_is_refused_in_words(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        for named, words in (("third", "no such agent"), (7, "agent is none"), ("x y", "agent is none")):
            for kind, payload in (("chat.send", {"text": "hello"}), ("chat.history", {})):
                sent = await phone.client.send(kind, payload | {"agent": named})
                error = (await answered(phone))[1].payload
                assert error["code"] == "BACKEND_ERROR" and words in error["message"] and error["ref"] == sent, error
        await phone.ask("still there")
        assert (await answered(phone))[1].payload["full_text"] == "You said: still there"


async def test_cancelling_one_agents_answer_leaves_the_others(start_agent):
    agent = start_agent("--exec", COUNT, "--another", shlex.join(["other", "--exec", COUNT]))
    async with Phone(agent.link()) as phone:
        for more in ({}, {"agent": "other"}):
            await phone.ask("count", chat_id="a", **more)
            await phone.expect("chat.stream")
        await phone.client.send("chat.cancel", {"chat_id": "a", "agent": "other"})
        end = (await phone.expect("chat.done")).payload
        assert (end["cancelled"], end["agent"]) == (True, "other")
        await phone.client.send("chat.cancel", {"chat_id": "a", "agent": "nobody"})
        await phone.client.send("system.status", {})
        assert (await phone.expect("system.status.result")).payload["running"] == 1
        await phone.client.send("chat.cancel", {"chat_id": "a"})
        end = (await phone.expect("chat.done")).payload
        assert end["cancelled"] is True and "agent" not in end


async def test_no_program_gets_the_key_of_anothers_server(start_agent):
    show = "cat >/dev/null; echo ${FIRST_KEY-none} ${SECOND_KEY-none} ${SECOND_KEY_OF_NOBODY-none}"
    flags = ("--exec", show, "--api-key-env", "FIRST_KEY", "--another", shlex.join(["b", "--api-key-env", "SECOND_KEY", "--exec", show]))
    env = {"FIRST_KEY": "one", "SECOND_KEY": "two", "SECOND_KEY_OF_NOBODY": "shown"}
    agent = start_agent(*flags, env=env)
    async with Phone(agent.link()) as phone:
        for more in ({}, {"agent": "b"}):
            await phone.ask("show", **more)
            assert (await answered(phone))[1].payload["full_text"].strip() == "none none shown"


def test_what_is_wrong_with_one_is_said_with_its_flag(start_agent):
    agent = start_agent("--echo", "--another", "b --acp cat --acp-dir /nowhere")
    assert agent.process.wait(TIMEOUT) == 1 and "/nowhere" in agent.output()
    agent = start_agent("--echo", "--another", "b --exec")
    assert agent.process.wait(TIMEOUT) == 2 and "--another" in agent.output() and "--exec" in agent.output()
