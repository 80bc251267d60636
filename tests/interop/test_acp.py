"""coralmux-agent with an agent behind it that speaks the Agent Client Protocol by another library (acp_agent.py). What it
asks the person is answered on a phone that shows questions, and on one that does not."""

import asyncio
import base64
import os
import pathlib
import shlex
import sys
import time

import pytest

from agents import TIMEOUT, Agent, Phone
from bots import shown

SCRIPT = pathlib.Path(__file__).with_name("acp_agent.py")
PNG = b"\x89PNG\r\n" + bytes(100)  # as it has it


@pytest.fixture
def kept(tmp_path):
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


@pytest.fixture
def start(start_agent, kept):
    def start(*flags, how=""):
        return start_agent("--acp", f"exec {sys.executable} {SCRIPT} {shlex.quote(str(kept))} {how}", *flags)

    return start


async def ask(phone, text, **more):
    """A question; its activities, the text that was streamed, and the event that ended the answer."""
    await phone.ask(text, **more)
    return await finish(phone)


async def finish(phone):
    doing, streamed = [], ""
    while True:
        event = await phone.expect("chat.stream", "chat.tool_status", "chat.done", "chat.error")
        match event.type:
            case "chat.tool_status":
                doing.append(event.payload)
            case "chat.stream":
                streamed += event.payload["delta"]
            case _:
                return doing, streamed, event


async def text(phone, question, **more):
    _, streamed, end = await ask(phone, question, **more)
    assert end.type == "chat.done" and end.payload["full_text"] == streamed, end
    return streamed


def starts(kept):
    return (kept / "starts").read_text().count("start")


async def until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_each_conversation_has_a_session_of_its_own_that_remembers(start, kept):
    agent = start()
    async with Phone(agent.link()) as phone:
        assert await text(phone, "one") == "session-0 heard one"
        assert await text(phone, "two") == "session-0 heard one, two"
        assert await text(phone, "three", chat_id="c") == "session-1 heard three"
        image = {"mime": "image/png", "data": "iVBORw0KGgo="}
        assert await text(phone, "four", images=[image]) == "session-0 heard one, two, four, image/png 12"
        assert starts(kept) == 1
        listed = await phone.client.send("agent.list", {})
        result = await phone.expect("agent.list.result")
        assert (result.payload["ref"], result.payload["agents"][0]["backend"]) == (listed, "acp")


@pytest.mark.parametrize("how", ["", "boasts"])  # of resuming sessions, which it cannot
async def test_a_session_goes_on_after_a_restart_of_the_agent(start, relay, tmp_path, how):
    agent = start(how=how)
    async with Phone(agent.link()) as phone:
        await text(phone, "one")
    agent.stop()
    again = Agent(tmp_path / "agent-0", f"ws://127.0.0.1:{relay.port}", *agent.process.args[3:])
    try:
        async with Phone(again.link()) as phone:
            assert await text(phone, "two") == "session-0 heard one, two", "what it replays is not said again"
    finally:
        again.kill()


async def test_what_it_does_is_shown(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        doing, streamed, end = await ask(phone, "work", chat_id="c")
        assert streamed == end.payload["full_text"] == "Let me look.\n\nIt is done."
        assert {(one.pop("chat_id"), one.pop("ref")) for one in doing} == {("c", end.payload["ref"])}
    thinking, plan, *calls = doing
    assert (thinking["status"], thinking["detail"]) == ("thinking", "What is there?")
    assert plan == {
        "status": "running", "tool": "plan", "call_id": "plan", "message": "look around",
        "detail": "[>] look around\n[ ] think",
    }  # fmt: skip
    edit = {"tool": "edit", "message": "Edit notes", "call_id": "call-1"}
    make = {"tool": "execute", "message": "make", "call_id": "call-2"}
    assert calls == [
        edit | {"status": "running"}, edit | {"status": "done", "detail": "/tmp/notes\n-two\n+three"},
        make | {"status": "running"}, make | {"status": "error"},
    ]  # fmt: skip


async def test_images_and_files_reach_a_phone_that_shows_them(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        ref = await phone.ask("draw", chat_id="c", files=1)
        (image, table), end = await shown(phone)
        assert (image["name"], image["mime"], image["ref"], image["chat_id"]) == ("chart.png", "image/png", ref, "c")
        assert base64.b64decode(image["data"]) == PNG
        assert (table["name"], table["mime"]) == ("table.bin", "application/octet-stream")
        assert (end.payload["full_text"], end.payload["files"]) == ("Here: (an image)", 2)
        await phone.client.send("chat.history", {"chat_id": "c"})
        assert (await phone.expect("chat.history.result")).payload["messages"][-1]["files"] == 2
        await phone.ask("only", files=1)
        [image], end = await shown(phone)
        assert image["name"] == "image-1.png" and (end.payload["full_text"], end.payload["files"]) == ("", 1)


async def test_a_phone_that_shows_no_files_is_told_in_words(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        await phone.ask("draw")
        files, end = await shown(phone)
        assert not files and "files" not in end.payload
        for words in ("[Image chart.png, 106 bytes: this phone does not show files of an agent.]", "[File table.bin, 7"):
            assert words in end.payload["full_text"]


@pytest.mark.parametrize(("option", "said"), [("once", "selected once"), ("never", "selected never")])
async def test_a_permission_is_given_on_the_phone_once(start, option, said):
    agent = start()
    async with Phone(agent.link()) as phone:
        ref = await phone.ask("ask", asks=1, chat_id="c")
        asked = (await phone.expect("chat.ask")).payload
        assert "rm -r build" in asked["text"] and (asked["default"], asked["call_id"]) == ("never", "call-1")
        assert asked["options"] == [
            {"id": "once", "label": "Allow once", "kind": "allow_once"},
            {"id": "never", "label": "Reject", "kind": "reject_once"},
        ]
        assert 3500 < asked["expires_at"] / 1000 - time.time() < 3700
        assert (asked["ref"], asked["chat_id"]) == (ref, "c")
        wrong = await phone.client.send("chat.answer", {"ask": asked["ask"], "option": "sudo"})
        refused = (await phone.expect("chat.error")).payload
        assert refused["ref"] == wrong and "no such option" in refused["message"]
        for answer in [option, "once"]:
            await phone.client.send("chat.answer", {"ask": asked["ask"], "option": answer})
            over = (await phone.expect("chat.answered")).payload
            assert (over["outcome"], over["option"], over["ask"]) == ("answered", option, asked["ask"])
        await phone.client.send("chat.answer", {"ask": "gone", "option": "once", "chat_id": "c"})
        unknown = (await phone.expect("chat.answered")).payload
        assert (unknown["outcome"], unknown["ask"], unknown["chat_id"]) == ("unknown", "gone", "c")
        assert (await phone.expect("chat.done")).payload["full_text"].endswith(said)


async def test_a_question_is_asked_again_after_a_reconnect_and_another_page_may_answer(start):
    agent = start()
    link = agent.link()
    async with Phone(link) as phone:
        await phone.ask("ask", asks=1)
        asked = (await phone.expect("chat.ask")).payload
    async with Phone(link) as phone:
        again = (await phone.expect("chat.ask")).payload
        assert again == asked
        await phone.client.send("chat.answer", {"ask": asked["ask"], "option": "once"})
        assert (await phone.expect("chat.answered")).payload["outcome"] == "answered"
        assert (await phone.expect("chat.done")).payload["full_text"].endswith("selected once")


async def test_a_question_expires_with_its_default(start):
    agent = start("--ask-timeout", "1")
    async with Phone(agent.link()) as phone:
        await phone.ask("ask", asks=1)
        over = (await phone.expect("chat.answered")).payload
        assert (over["outcome"], over["option"]) == ("expired", "never")
        assert (await phone.expect("chat.done")).payload["full_text"].endswith("selected never")


async def test_a_phone_without_buttons_is_asked_in_plain_text_and_answers_so(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        _, asked, end = await ask(phone, "ask", chat_id="c")
        assert end.type == "chat.done" and asked == end.payload["full_text"]
        for line in ["I need to clean up.", "1. Allow once", "2. Reject", "Without an answer within 60 minutes: Reject."]:
            assert line in asked.splitlines(), asked
        _, unclear, end = await ask(phone, "well, maybe", chat_id="c")
        assert unclear.endswith("60 minutes: Reject.") and "1. Allow once" in unclear
        _, said, end = await ask(phone, "Yes.", chat_id="c")
        assert said == end.payload["full_text"] == "selected once"


async def test_what_follows_on_a_plain_question_that_expires_is_said_unasked(start):
    agent = start("--ask-timeout", "1")
    async with Phone(agent.link()) as phone:
        asked = await phone.ask("ask", chat_id="c")
        _, question, end = await finish(phone)
        assert "Without an answer within 1 s: Reject." in question and end.payload["ref"] == asked
        _, said, end = await finish(phone)
        assert said == end.payload["full_text"] == "selected never"
        assert (end.payload["unasked"], end.payload["chat_id"]) == (True, "c") and end.payload["ref"] != asked


async def test_a_permission_for_a_call_that_is_over_is_withdrawn(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        await phone.ask("withdraw", asks=1)
        asked = (await phone.expect("chat.ask")).payload
        over = (await phone.expect("chat.answered")).payload
        assert (over["outcome"], over["ask"]) == ("cancelled", asked["ask"])
        assert (await phone.expect("chat.done")).payload["full_text"] == "cancelled"


@pytest.mark.parametrize("asks", [1, None])
async def test_a_permission_whose_program_dies_is_gone_and_the_answer_ends_in_words(start, kept, asks):
    agent = start()
    async with Phone(agent.link()) as phone:
        await phone.ask("lose", **({"asks": 1} if asks else {}))
        if asks:
            asked = (await phone.expect("chat.ask")).payload
            assert (await phone.expect("chat.answered")).payload["outcome"] == "cancelled"
        else:
            assert "1. Allow once" in (await phone.expect("chat.done")).payload["full_text"]
        end = (await phone.expect("chat.error")).payload
        assert "exit status: 3" in end["message"] and "The next message starts it anew" in end["message"]
        if asks:
            await phone.client.send("chat.answer", {"ask": asked["ask"], "option": "once"})
            assert (await phone.expect("chat.answered")).payload["outcome"] == "cancelled"
        assert await text(phone, "one") == "session-0 heard lose, one"


async def test_a_program_that_dies_in_half_a_line_is_started_anew_and_goes_on(start, kept):
    agent = start()
    async with Phone(agent.link()) as phone:
        await text(phone, "one")
        _, streamed, end = await ask(phone, "die")
        assert (streamed, end.type, end.payload["code"]) == ("I am", "chat.error", "BACKEND_ERROR")
        assert "exit status: 3" in end.payload["message"]
        assert await text(phone, "two") == "session-0 heard one, die, two"
        assert starts(kept) == 2


async def test_an_agent_that_cannot_load_sessions_says_that_it_has_begun_anew(start, kept):
    agent = start(how="forgetful")
    async with Phone(agent.link()) as phone:
        await text(phone, "one")
        await ask(phone, "die")
        answer = await text(phone, "two")
        assert answer.startswith("*The agent has begun a new session") and answer.endswith("session-1 heard two")


async def test_a_cancelled_answer_stops_the_agent_and_the_session_goes_on(start, kept):
    agent = start()
    async with Phone(agent.link()) as phone:
        await phone.ask("count")
        await phone.expect("chat.stream")
        await phone.client.send("chat.cancel", {})
        _, _, end = await finish(phone)
        assert end.payload["cancelled"] is True
        await until((kept / "cancelled").exists)
        assert await text(phone, "two") == "session-0 heard count, two"
        assert starts(kept) == 1


async def test_a_question_to_the_person_ends_with_the_answer_that_needs_it(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        await phone.ask("ask", asks=1)
        await phone.expect("chat.ask")
        await phone.ask("one", asks=1)
        assert (await phone.expect("chat.answered")).payload["outcome"] == "cancelled"
        assert (await phone.expect("chat.done")).payload["cancelled"] is True
        assert (await phone.expect("chat.done")).payload["full_text"] == "session-0 heard ask, one"


async def test_a_program_that_hangs_is_killed_with_what_it_started(start, kept):
    agent = start("--timeout", "1")
    async with Phone(agent.link()) as phone:
        _, streamed, end = await ask(phone, "hang")
        assert (streamed, end.type) == ("wait", "chat.error") and "said nothing for 1 s" in end.payload["message"]
        pids = (kept / "pids").read_text().split()
        await until(lambda: not any(map(is_alive, pids)))
        assert await text(phone, "two") == "session-0 heard hang, two"
        assert starts(kept) == 2


async def test_what_is_said_and_asked_after_a_cancel_reaches_nobody(start, kept):
    agent = start()
    async with Phone(agent.link()) as phone:
        await phone.ask("stubborn", asks=1)
        await phone.expect("chat.stream")
        await phone.client.send("chat.cancel", {})
        heard = []
        while not heard or heard[-1].type != "chat.done" or heard[-1].payload.get("cancelled"):
            heard.append(await phone.expect("chat.stream", "chat.tool_status", "chat.ask", "chat.done", "chat.error"))
            if heard[-1].payload.get("cancelled"):
                await phone.ask("one")
        assert [event.type for event in heard if event.type != "chat.stream"] == ["chat.done", "chat.done"], heard
        assert (heard[0].payload["full_text"], heard[-1].payload["full_text"]) == ("one ", "session-0 heard stubborn, one")
    assert (kept / "permitted").read_text() == "cancelled"


async def test_a_program_that_does_not_stop_is_killed_and_the_next_question_answered(start, kept):
    agent = start()
    async with Phone(agent.link()) as phone:
        await phone.ask("deaf")
        await phone.expect("chat.stream")
        await phone.client.send("chat.cancel", {})
        assert (await phone.expect("chat.done")).payload["cancelled"] is True
        assert await text(phone, "one") == "session-0 heard deaf, one"
        assert not is_alive((kept / "pids").read_text()) and starts(kept) == 2


async def test_a_flood_arrives_in_few_messages(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        await phone.ask("flood")
        pieces = 0
        while (event := await phone.expect("chat.stream", "chat.done", "chat.error")).type == "chat.stream":
            pieces += 1
        assert event.payload["full_text"] == "0123456789" * 20_000
        assert pieces < 5_000, "they were put together"


async def test_a_flood_without_end_is_cut_off_and_the_agent_stopped(start, kept):
    agent = start()
    async with Phone(agent.link()) as phone:
        doing, streamed, end = await ask(phone, "endless")
        assert end.type == "chat.error" and "too long" in end.payload["message"] and len(streamed) <= 1 << 20
        assert len(doing) < 200, "as many as an agent's rate has room for"
        await until((kept / "cancelled").exists)
        assert await text(phone, "one") == "session-0 heard endless, one"


async def test_nothing_of_it_is_left_when_the_agent_ends(start, kept):
    agent = start("--shutdown-timeout", "1")
    async with Phone(agent.link()) as phone:
        await phone.ask("hang")
        await phone.expect("chat.stream")
        agent.stop()
    pids = (kept / "pids").read_text().split()
    await until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize(
    ("question", "words"),
    [("nothing", "without a word"), ("fail", "Internal error: no model for ***")],
)
async def test_what_is_no_answer_is_told_in_words(start, question, words):
    agent = start()
    async with Phone(agent.link()) as phone:
        _, _, end = await ask(phone, question)
        assert end.type == "chat.error" and words in end.payload["message"], end


async def test_a_turn_without_a_word_in_which_something_was_done_is_no_error(start):
    agent = start("--ask-timeout", "1")
    async with Phone(agent.link()) as phone:
        await phone.ask("silently", asks=1)
        end = (await phone.expect("chat.done")).payload
        assert (end["full_text"], end["finish"]) == ("", "other") and "without saying anything" in end["notice"]


async def test_an_answer_that_was_cut_is_marked(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        _, streamed, end = await ask(phone, "long")
        assert (streamed, end.payload["finish"]) == ("as far as", "length")
        assert await text(phone, "chatter") == "said"
    assert "acp: not JSON: a log line" in agent.output()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/nowhere/at/all", "exit status: 127"),
        ("echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":9}}'; cat", "speaks version 9"),
        ("read line; echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,\"message\":\"log in\"}}'; cat", "signed in"),
        ("exec >&-; sleep 1000", "closed its output"),
    ],
)  # fmt: skip
async def test_a_program_that_is_none_is_told_in_words(start_agent, command, words):
    agent = start_agent("--acp", command)
    async with Phone(agent.link()) as phone:
        for _ in range(2):
            _, _, end = await ask(phone, "one")
            assert end.type == "chat.error" and words in end.payload["message"], end


def test_the_folder_has_to_be_there(start_agent):
    agent = start_agent("--acp", "cat", "--acp-dir", "/nowhere")
    assert agent.process.wait(TIMEOUT) == 1 and "--acp-dir" in agent.output()
    assert os.path.exists("/nowhere") is False
