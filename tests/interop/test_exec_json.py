"""coralmux-agent with a program behind it that speaks in lines of JSON (--exec-json)."""

import base64
import json
import shlex
import sys
import time

import pytest

from agents import Phone
from bots import shown
from coralmux.files import BYTES_MAX, FILES_MAX
from test_acp import ask, finish, is_alive, until

PROGRAM = """
import base64, json, os, sys, time
def say(kind, **fields): print(json.dumps({"type": kind} | fields), flush=True)
question = json.loads(sys.stdin.readline())
what = question["text"].split()[0]
if what == "work":
    say("thinking", text="Hm.")
    say("activity", tool="search", message="Looking", call_id="a")
    say("text", text="One ")
    print("a stray line", flush=True)
    say("activity", tool="search", status="done", call_id="a")
    say("news")
    say("text", text="two.")
elif what == "ask":
    say("ask", id="q", text="Shall I?", options=[{"id": "y", "label": "Yes"}, {"id": "n", "label": "No"}], default="n")
    say("text", text=json.dumps(json.loads(sys.stdin.readline())))
elif what == "words":
    say("ask", id="q", text="Your name?", free=True)
    say("text", text=json.loads(sys.stdin.readline())["text"])
elif what == "show":
    say("file", name="a.txt", mime="text/plain", data=base64.b64encode(b"a note").decode())
    say("file", name="odd", data="?")
elif what == "files":
    for number in range(int(question["text"].split()[1])): say("file", name=str(number), data="AA==")
elif what == "large":
    say("file", name="large", data=base64.b64encode(bytes(int(question["text"].split()[1]))).decode())
elif what == "cut":
    say("text", text="as far as")
    say("done", finish="length", notice="No more room.")
    time.sleep(1000)
elif what == "fail":
    say("error", message="no luck with sk-abcdefghijklmnop")
elif what == "die":
    say("text", text="half")
    sys.stdout.write('{"type":"te')
    sys.stdout.flush()
    sys.exit(3)
elif what == "hang":
    say("text", text=str(os.getpid()))
    time.sleep(1000)
elif what == "flood":
    for number in range(20_000): say("text", text="0123456789")
else:
    say("text", text=json.dumps(question))
"""


@pytest.fixture
def start(start_agent):
    command = f"exec {sys.executable} -c {shlex.quote(PROGRAM)}"
    return lambda *flags: start_agent("--exec", command, "--exec-json", *flags)


async def test_the_question_comes_with_its_images_and_what_was_said_before(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        await ask(phone, "work", chat_id="c")
        image = {"mime": "image/png", "data": "iVBORw0KGgo="}
        _, streamed, end = await ask(phone, "look", images=[image], chat_id="c")
        asked = json.loads(streamed)
        assert abs(asked.pop("asked_at") / 1000 - time.time()) < 600
        assert end.type == "chat.done" and asked == {
            "type": "question", "chat_id": "c", "text": "look", "images": [image],
            "history": [{"role": "user", "text": "work"}, {"role": "assistant", "text": "One two."}],
        }  # fmt: skip


async def test_pieces_and_activity_come_out(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        doing, streamed, end = await ask(phone, "work")
        assert streamed == end.payload["full_text"] == "One two."
        assert [(one["status"], one.get("tool"), one.get("detail")) for one in doing] == [
            ("thinking", None, "Hm."), ("running", "search", None), ("done", "search", None),
        ]  # fmt: skip
    assert "exec: not JSON: a stray line" in agent.output()


async def test_what_it_asks_is_answered_on_the_phone(start):
    agent = start("--timeout", "5")
    async with Phone(agent.link()) as phone:
        await phone.ask("ask", asks=1)
        asked = (await phone.expect("chat.ask")).payload
        assert (asked["text"], asked["default"]) == ("Shall I?", "n")
        await phone.client.send("chat.answer", {"ask": asked["ask"], "option": "y"})
        _, streamed, _ = await finish(phone)
        assert json.loads(streamed) == {"type": "answer", "id": "q", "option": "y"}
        await ask(phone, "words")
        assert (await ask(phone, "Ann"))[1] == "Ann"


async def test_its_files_reach_the_phone_within_their_bounds(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        await phone.ask("show", files=1)
        [file], end = await shown(phone)
        assert (file["name"], file["mime"], base64.b64decode(file["data"])) == ("a.txt", "text/plain", b"a note")
        assert (end.payload["full_text"], end.payload["files"]) == ("", 1)
        await phone.ask(f"large {BYTES_MAX}", files=1)
        [file], end = await shown(phone)
        assert base64.b64decode(file["data"]) == bytes(BYTES_MAX) and end.payload["files"] == 1
        await phone.ask(f"large {BYTES_MAX + 1}", files=1)
        files, end = await shown(phone)
        assert not files and "too large to be sent, for it may have 2.6 MB" in end.payload["full_text"]
        await phone.ask(f"files {FILES_MAX + 2}", files=1)
        files, end = await shown(phone)
        assert len(files) == FILES_MAX == end.payload["files"]
        assert end.payload["full_text"].count(f"has {FILES_MAX} files at most") == 2
    assert "exec: a file whose data is not base64: odd" in agent.output()


@pytest.mark.parametrize(
    ("question", "streamed", "words"),
    [("fail", "", "no luck with ***"), ("die", "half", "exit status: 3")],
)
async def test_what_goes_wrong_is_told_in_words(start, question, streamed, words):
    agent = start("--timeout", "1")
    async with Phone(agent.link()) as phone:
        _, said, end = await ask(phone, question)
        assert (said, end.type) == (streamed, "chat.error") and words in end.payload["message"], end


async def test_a_program_that_hangs_is_told_in_words_and_not_left_behind(start):
    agent = start("--timeout", "1")
    async with Phone(agent.link()) as phone:
        _, pid, end = await ask(phone, "hang")
        assert end.type == "chat.error" and "took longer than 1 s" in end.payload["message"], end
        await until(lambda: not is_alive(pid))
        await phone.ask("hang")
        pid = (await phone.expect("chat.stream")).payload["delta"]
        await phone.client.send("chat.cancel", {})
        assert (await phone.expect("chat.done")).payload["cancelled"] is True
        await until(lambda: not is_alive(pid))


async def test_a_flood_arrives_whole(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        _, streamed, end = await ask(phone, "flood")
        assert end.type == "chat.done" and streamed == end.payload["full_text"] == "0123456789" * 20_000


async def test_an_answer_that_it_calls_cut_is_marked_and_it_is_not_waited_for(start):
    agent = start()
    async with Phone(agent.link()) as phone:
        _, streamed, end = await ask(phone, "cut")
        assert (streamed, end.payload["finish"], end.payload["notice"]) == ("as far as", "length", "No more room.")
