"""coralmux-agent with different AI servers: what each of them sends, byte for byte (answers.json), over HTTP."""

import asyncio
import json
import pathlib

import pytest

from agents import DONE, AiServer, Phone, event, head

CASES = {case["name"]: case for case in json.loads(pathlib.Path(__file__).with_name("answers.json").read_text())}


async def write_case(case, write):
    body = case["body"].encode()
    if len(body) % 2:
        await write(head(f"{case['status']} X", case["type"], f"Content-Length: {len(body)}"))
    else:
        await write(head(f"{case['status']} X", case["type"]))
    for at in range(0, len(body), 7):
        await write(body[at : at + 7])


async def test_what_each_server_sends_reaches_the_phone(start_agent):
    async def answer(body, write):
        await write_case(CASES[body["messages"][-1]["content"]], write)

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m")
        async with Phone(agent.link()) as phone:
            for name, case in CASES.items():
                ref = await phone.ask(name, chat_id=name)
                streamed, end, thought = await phone.told()
                assert (streamed, end.payload["ref"], thought) == (case["text"], ref, case.get("thinks", False)), name
                if "error" in case:
                    assert end.payload["code"] == "BACKEND_ERROR" and case["error"] in end.payload["message"], (name, end)
                    continue
                assert (end.type, end.payload["full_text"]) == ("chat.done", case["text"]), (name, end)
                assert end.payload.get("finish") == case.get("finish"), (name, end)
                assert case.get("notice", "") in end.payload.get("notice", ""), (name, end)


async def test_a_connection_that_breaks_behind_the_end_has_lost_nothing(start_agent):
    async def answer(body, write):
        text = body["messages"][-1]["content"]
        chunk = event("all of it", finish_reason="stop" if text == "whole" else None)
        await write(head("200 OK", "text/event-stream", "Transfer-Encoding: chunked"))
        await write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m")
        async with Phone(agent.link()) as phone:
            await phone.ask("whole", chat_id="a")
            assert (await phone.answer())[1].payload["full_text"] == "all of it"
            await phone.ask("half", chat_id="b")
            streamed, end = await phone.answer()
            assert (streamed, end.payload["code"]) == ("all of it", "BACKEND_ERROR"), end


async def test_an_answer_that_ends_within_a_character_is_not_whole(start_agent):
    async def answer(_, write):
        await write(head() + event("half") + event("\U0001f980").removesuffix(b'"}}]}\n\n')[:-2])

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m")
        async with Phone(agent.link()) as phone:
            await phone.ask("hi")
            streamed, end = await phone.answer()
    assert (streamed, end.payload["code"]) == ("half", "BACKEND_ERROR"), end
    assert "middle of its answer" in end.payload["message"]


async def test_a_cancelled_question_ends_at_a_silent_server_at_once(start_agent):
    """More of them than answers are made at once."""

    async def answer(body, write):
        text = body["messages"][-1]["content"].split("\n\n")[-1]
        if text == "head":
            await write(head())
        if text != "now":
            await asyncio.sleep(60)
        await write(head() + event("here", finish_reason="stop") + DONE)

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m")
        async with Phone(agent.link()) as phone:
            for number in range(20):
                server.gone.clear()
                await phone.ask("head" if number % 2 else "nothing")
                while len(server.requests) <= number:
                    await asyncio.sleep(0.01)
                await phone.client.send("chat.cancel", {})
                assert (await phone.answer())[1].payload["cancelled"]
                await asyncio.wait_for(server.gone.wait(), 20)
            await phone.ask("now")
            assert (await phone.answer())[0] == "here"


async def test_roles_alternate_whatever_became_of_the_questions(start_agent):
    async def answer(body, write):
        roles = [message["role"] for message in body["messages"]]
        if roles[0] != "user" or any(one == next for one, next in zip(roles, roles[1:])):
            return await write(head("400 Bad Request", "text/plain") + b"roles must alternate")
        match body["messages"][-1]["content"].split("\n\n")[-1]:
            case "wait":
                await write(head() + b": nothing yet\n\n")
                await asyncio.sleep(60)
            case "refuse":
                await write(head("400 Bad Request", "text/plain") + b"no")
            case "empty":
                await write(head() + event(finish_reason="stop") + DONE)
            case "half":
                await write(head() + event("half"))
            case text:
                await write(head() + event(f"to {text}", finish_reason="stop") + DONE)

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m")
        async with Phone(agent.link()) as phone:
            for unanswered in ["wait", "refuse", "wait", "empty", "half", "wait"]:
                await phone.ask(unanswered)
                if unanswered == "wait":
                    while server.requests[-1:] == [] or not server.requests[-1][1]["messages"][-1]["content"].endswith("wait"):
                        await asyncio.sleep(0.01)
                    await phone.client.send("chat.cancel", {})
                await phone.answer()
                await phone.ask("good")
                streamed, end = await phone.answer()
                assert (streamed, end.type) == ("to good", "chat.done"), (unanswered, end)
            await phone.client.send("chat.history", {})
            history = (await phone.expect("chat.history.result")).payload["messages"]
    [half] = [turn for turn in history if turn["text"] == "half" and turn["role"] == "assistant"]
    assert half["finish"] == "error" and "middle of its answer" in half["notice"]


KEY = "sk-Zq9/vX3+Lw7-0123456789abcdef"


@pytest.mark.parametrize("cut", [len(KEY), 20, 12])
async def test_a_key_that_the_server_repeats_never_reaches_the_phone(start_agent, cut):
    said = f"Incorrect API key provided: {KEY[:cut]}. " + "x" * 240 + f" {KEY[:cut]} " + "y" * 100

    async def answer(body, write):
        match body["messages"][-1]["content"]:
            case "status":
                error = json.dumps({"error": {"message": said}}).encode()
                await write(head("401 Unauthorized", "application/json") + error)
            case "stream":
                await write(head() + f"error: {said}\n\n".encode())
            case "reason":
                await write(head() + event("x", finish_reason=KEY[:cut]) + DONE)

    async with AiServer(answer) as server:
        agent = start_agent("--openai", server.url, "--model", "m", env={"OPENAI_API_KEY": KEY})
        async with Phone(agent.link()) as phone:
            for kind in ("status", "stream", "reason"):
                await phone.ask(kind, chat_id=kind)
                _, end = await phone.answer()
                told = json.dumps(end.payload)
                assert "***" in told and not any(KEY[at : at + 6] in told for at in range(cut - 5)), told
        assert not any(KEY[at : at + 6] in agent.output() for at in range(cut - 5)), agent.output()
