"""coralmux-agent with an AI server behind it; the phone is the Python client."""

import asyncio
import json
import os
import pathlib
import re
import subprocess

import pytest

from agents import DONE, Agent, AiServer, Phone, event, head


async def ask_one(start_agent, answer, *flags, text="hi", env=None, **more):
    """One question: what was streamed, the event that ended it, the server's requests, the agent's output."""
    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m", *flags, env=env)
        async with Phone(agent.link()) as phone:
            await phone.ask(text, **more)
            streamed, end = await phone.answer()
        return streamed, end, server.requests, agent.output()


TEXT = "Grüße an die \U0001f980: 10 €, \"quoted\"\nand a second line"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
async def test_an_answer_is_the_same_wherever_its_bytes_are_cut(start_agent, size):
    stream = b": comment\n\n" + event(role="assistant") + b"".join(event(c) for c in TEXT)
    stream += event(finish_reason="stop") + DONE

    async def answer(_, write):
        await write(head())
        for at in range(0, len(stream), size):
            await write(stream[at : at + size])

    streamed, end, requests, _ = await ask_one(start_agent, answer, "--system", "Be brief.")
    assert (streamed, end.type, end.payload["full_text"]) == (TEXT, "chat.done", TEXT)
    [(_, body)] = requests
    assert (body["model"], body["stream"]) == ("m", True)
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


async def test_chunks_of_http_are_no_borders_either(start_agent):
    stream = event("a") + event("\U0001f980") + event("z") + DONE

    async def answer(_, write):
        await write(head("200 OK", "text/event-stream; charset=utf-8", "Transfer-Encoding: chunked"))
        for byte in stream:
            await write(b"1\r\n" + bytes([byte]) + b"\r\n")
        await write(b"0\r\n\r\n")

    assert (await ask_one(start_agent, answer))[0] == "a\U0001f980z"


async def test_an_answer_is_passed_on_while_it_is_made(start_agent):
    go = asyncio.Event()

    async def answer(_, write):
        await write(head() + event("first"))
        await go.wait()
        await write(event(" second") + DONE)

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m")
        async with Phone(agent.link()) as phone:
            await phone.ask("hi")
            assert (await phone.expect("chat.stream")).payload["delta"] == "first"
            go.set()
            assert (await phone.answer())[0] == " second"


async def test_a_server_that_does_not_stream_will_do(start_agent):
    async def answer(_, write):
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": TEXT}}]}).encode()
        await write(head("200 OK", "application/json", f"Content-Length: {len(body)}") + body)

    assert (await ask_one(start_agent, answer))[0] == TEXT


async def test_the_conversation_and_its_images_go_along(start_agent):
    async def answer(body, write):
        await write(head() + event(f"answer {len(body['messages'])}") + DONE)

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m", "--context", "3")
        async with Phone(agent.link()) as phone:
            await phone.ask("what is this?", images=[{"mime": "image/png", "data": "iVBORw0KGgo="}])
            assert (await phone.answer())[0] == "answer 1"
            await phone.ask("and now?")
            assert (await phone.answer())[0] == "answer 3"
            await phone.ask("more")
            assert (await phone.answer())[0] == "answer 3", "no more than --context"
            await phone.ask("elsewhere", chat_id="other")
            assert (await phone.answer())[0] == "answer 1"
        bodies = [body["messages"] for _, body in server.requests]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    first = {"role": "user", "content": [{"type": "text", "text": "what is this?"}, image]}
    assert bodies[0] == [first]
    assert bodies[1] == [first, {"role": "assistant", "content": "answer 1"}, {"role": "user", "content": "and now?"}]


async def test_a_server_that_keeps_conversations_is_told_which_one_and_the_newest_turn(start_agent):
    async def answer(_, write):
        await write(head() + event("yes") + DONE)

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m", "--stateful", "--system", "Be brief.")
        async with Phone(agent.link()) as phone:
            for text, chat in [("one", "c"), ("two", "c"), ("three", "d")]:
                await phone.ask(text, chat_id=chat)
                await phone.answer()
        bodies = [body for _, body in server.requests]
    assert [[m["content"] for m in body["messages"]] for body in bodies] == [["Be brief.", t] for t in ("one", "two", "three")]
    users = [body["user"] for body in bodies]
    assert users[0] == users[1] != users[2] and re.fullmatch("coralmux:[0-9a-f]{16}:c", users[0])


@pytest.mark.parametrize(
    ("status", "words"),
    [("401 Unauthorized", "API key"), ("429 Too Many Requests", "too much"), ("500 Internal Server Error", "failed")],
)
async def test_an_error_is_told_in_words_and_never_with_the_key(start_agent, status, words):
    async def answer(_, write):
        body = json.dumps({"error": {"message": "the server's own words"}}).encode()
        more = ["Retry-After: 7"] if status.startswith("429") else []
        await write(head(status, "application/json", f"Content-Length: {len(body)}", *more) + body)

    key = "sk-very-secret"
    streamed, end, requests, output = await ask_one(start_agent, answer, env={"OPENAI_API_KEY": key})
    assert (streamed, end.type, end.payload["code"]) == ("", "chat.error", "BACKEND_ERROR")
    assert words in end.payload["message"] and "the server's own words" in end.payload["message"]
    assert end.payload.get("retry_after_ms") == (7000 if status.startswith("429") else None)
    assert f"authorization: bearer {key}" in requests[0][0].lower()
    assert key not in output and key not in end.payload["message"]


@pytest.mark.parametrize("said", [b"", event("half")])
async def test_a_server_that_hangs_is_given_up(start_agent, said):
    async def answer(_, write):
        if said:
            await write(head() + said)
        await asyncio.sleep(60)

    streamed, end, _, _ = await ask_one(start_agent, answer, "--timeout", "1")
    assert streamed == ("half" if said else "")
    assert end.payload["code"] == "BACKEND_ERROR" and "said nothing for 1 s" in end.payload["message"], end


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (event("half"), "middle of its answer"),
        (event("half") + b'data: {"error": {"message": "out of memory"}}\n\n', "out of memory"),
        (event("half") + b"data: <html>\n\n", "invalid answer"),
    ],
)
async def test_an_answer_that_breaks_off_is_an_error_behind_what_came(start_agent, stream, words):
    async def answer(_, write):
        await write(head() + stream)

    streamed, end, _, _ = await ask_one(start_agent, answer)
    assert (streamed, end.payload["code"]) == ("half", "BACKEND_ERROR")
    assert words in end.payload["message"], end


async def test_no_server_is_an_error_too(start_agent):
    agent = start_agent("--openai", "http://127.0.0.1:1/v1", "--model", "m")
    async with Phone(agent.link()) as phone:
        await phone.ask("hi")
        _, end = await phone.answer()
    assert end.payload["code"] == "BACKEND_ERROR" and "127.0.0.1:1" in end.payload["message"], end


async def test_another_question_ends_the_answer_at_the_server_too(start_agent):
    async def answer(body, write):
        await write(head())
        if body["messages"][-1]["content"] == "first":
            while True:
                await write(event("word "))
                await asyncio.sleep(0.01)
        await write(event("short") + DONE)

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m")
        async with Phone(agent.link()) as phone:
            first = await phone.ask("first")
            await phone.expect("chat.stream")
            second = await phone.ask("second")
            _, end = await phone.answer()
            assert end.payload["cancelled"] and end.payload["ref"] == first
            streamed, end = await phone.answer()
            assert (streamed, end.payload["ref"], "cancelled" in end.payload) == ("short", second, False)
            await asyncio.wait_for(server.gone.wait(), 20)


async def test_an_agent_of_version_1_talks_to_a_python_phone(start_agent):
    agent = start_agent("--echo", "--e2e", "1")
    link = agent.link()
    assert link.secret is None
    async with Phone(link) as phone:
        await phone.expect("client.agreed")
        await phone.ask("hello")
        assert (await phone.answer())[0] == "You said: hello"
        assert phone.client.fingerprint in agent.output()


async def test_a_program_gets_none_of_the_agents_secrets(start_agent):
    secrets = ["CORALMUX_AGENT_TOKEN", "CORALMUX_ADMIN_KEY", "OPENAI_API_KEY", "RELAY_ADMIN_KEY", "MY_KEY"]
    env = {name: f"secret {name}" for name in secrets if name != "CORALMUX_AGENT_TOKEN"}
    # Of version 2, for the token would be bound to the first agent's key.
    flags = ["--e2e", "2", "--exec", "env"]
    agent = start_agent(*flags, "--api-key-env", "MY_KEY", "--exec-env", "OPENAI_API_KEY", env=env)
    async with Phone(agent.link()) as phone:
        await phone.ask("x")
        printed, _ = await phone.answer()
    assert re.findall(r"secret \w+", printed) == ["secret OPENAI_API_KEY"]
    # A token of the environment has to be one that the relay knows.
    token = agent.link().token
    agent.stop()
    agent = start_agent(*flags, env={"CORALMUX_AGENT_TOKEN": token})
    async with Phone(agent.link()) as phone:
        await phone.ask("x")
        printed, _ = await phone.answer()
    assert "PATH=" in printed and token not in printed


async def test_a_programs_output_is_shown_as_on_a_terminal(start_agent):
    agent = start_agent("--exec", r"printf '\033[32mok\033[0m\n10%%'; sleep 0.5; printf '\r50%%\033'; printf '[K\n'")
    async with Phone(agent.link()) as phone:
        await phone.ask("x")
        streamed, end = await phone.answer()
    assert (streamed, end.payload["full_text"]) == ("ok\n10%\n50%\n", "ok\n50%\n")


async def test_the_end_of_the_agent_ends_what_has_left_its_programs_group(start_agent, tmp_path):
    pid_file = tmp_path / "pid"
    command = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 1000' & echo begun; sleep 1000"
    agent = start_agent("--exec", command, "--shutdown-timeout", "1")
    async with Phone(agent.link()) as phone:
        await phone.ask("x")
        await phone.expect("chat.stream")
        while not (pid_file.exists() and pid_file.read_text()):
            await asyncio.sleep(0.01)
        agent.stop()
    stat = pathlib.Path(f"/proc/{pid_file.read_text().strip()}/stat")
    async with asyncio.timeout(20):
        while stat.exists() and ") Z " not in stat.read_text():
            await asyncio.sleep(0.01)


def running(*command):
    """Whether a process runs with this command line."""
    line = b"".join(word.encode() + b"\0" for word in command)
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes() == line:
                return True
        except OSError:
            continue  # it has ended meanwhile
    return False


async def test_in_a_namespace_without_its_sessions_leader_answers_are_made_and_what_is_left_behind_ends(
    start_agent, tmp_path
):
    under = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*under, "true"], capture_output=True).returncode:
        pytest.skip("namespaces of processes cannot be made here")
    began = tmp_path / "began"
    seconds = f"1000.{os.getpid()}"
    command = f"setsid sh -c 'touch {began}; exec sleep {seconds}' & while [ ! -e {began} ]; do sleep 0.01; done; cat"
    agent = start_agent("--exec", command, under=under)
    async with Phone(agent.link()) as phone:
        await phone.ask("hello")
        streamed, end = await phone.answer()
    assert (streamed, end.type) == ("hello", "chat.done"), agent.output()
    async with asyncio.timeout(20):
        while running("sleep", seconds):
            await asyncio.sleep(0.01)


class Unread(Agent):
    """An agent whose output nobody reads any more, as when a log's reader has died."""

    def popen(self, command, environment):
        self.log_path.touch()
        reader, writer = os.pipe()
        os.close(reader)
        try:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=environment
            )
        finally:
            os.close(writer)


@pytest.fixture
def start_unread(tmp_path, relay):
    started = []

    def start(*flags):
        started.append(Unread(tmp_path, f"ws://127.0.0.1:{relay.port}", *flags))
        return started[-1]

    yield start
    for agent in started:
        agent.kill()


async def test_an_agent_whose_output_nobody_reads_answers_on(start_unread):
    async def answer(body, write):
        failing = body["messages"][-1]["content"] == "fail"
        await write(head("500 X", "application/json") + b'{"error": "boom"}' if failing else head() + event("ok") + DONE)

    async with AiServer(answer) as server:
        agent = start_unread("--openai", server.url, "--model", "m")
        async with Phone(agent.link()) as phone:
            for text, kind in [("fail", "chat.error"), ("hi", "chat.done"), ("fail", "chat.error"), ("hi", "chat.done")]:
                await phone.ask(text)
                assert (await phone.answer())[1].type == kind
        agent.stop()


async def test_a_program_may_complain_where_nobody_reads(start_unread):
    agent = start_unread("--exec", "for i in 1 2 3 4 5; do echo oh >&2; sleep 0.1; done; echo done")
    async with Phone(agent.link()) as phone:
        await phone.ask("x")
        assert (await phone.answer())[1].payload.get("full_text") == "done\n"
    agent.stop()
