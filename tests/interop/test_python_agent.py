"""The Python package's agent, a program of its own, through the real relay with a phone that verifies it."""

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from agents import Phone, program
from bots import BOT, CHECKOUT, TIMEOUT, Bot, Tablet, answered, appears, coralmux, device_link
from coralmux import Client, Link, Protection
from terminal import Screen


@pytest.fixture
def ask_bot(start_bot):
    """A phone that is paired with a bot."""
    bot = start_bot()
    yield lambda: Phone(bot.link())
    bot.stop()


@pytest.fixture
async def ask(ask_bot):
    """Asks a bot one thing."""

    async def ask(text):
        async with ask_bot() as phone:
            await phone.ask(text)
            return await answered(phone)

    yield ask


async def test_an_answer_streams_verified_and_names_its_question(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        asked = await phone.ask("say Grüße an die \U0001f980", chat_id="kitchen")
        end = (await answered(phone))[1]
        assert end.payload == {"full_text": "Grüße an die \U0001f980 ", "ref": asked, "chat_id": "kitchen"}
        assert end.protection is Protection.VERIFIED
        await phone.client.send("chat.history", {"chat_id": "kitchen"})
        result = (await phone.expect("chat.history.result")).payload
        assert [(turn["role"], turn["text"]) for turn in result["messages"]] == [
            ("user", "say Grüße an die \U0001f980"),
            ("assistant", "Grüße an die \U0001f980 "),
        ]
        await phone.client.send("agent.list")
        agent, *others = (await phone.expect("agent.list.result")).payload["agents"]
        assert (agent["name"], agent["backend"], agent["model"]) == ("Bot", "python", "none")
        assert {other["backend"] for other in others} == {"python"}
        await phone.client.send("system.status")
        assert (await phone.expect("system.status.result")).payload["running"] == 0
    bot.stop()
    assert "verified by the pairing secret" in bot.output()
    assert bot.link().token not in bot.output() and "Traceback" not in bot.output()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("boom", "the agent failed: ValueError: no key *** in ... ***"),
        ("exit", "the agent failed: SystemExit: I want out"),
        ("sorry", "come back later"),
        ("silent", "the agent gave no answer"),
        ("number", "the agent failed: TypeError: an answer is text, files or pieces of it, not int"),
    ],
)
async def test_a_failure_is_told_in_words_without_paths_or_keys(ask, text, words):
    streamed, end = await ask(text)
    assert (streamed, end.type, end.payload["code"]) == ("", "chat.error", "BACKEND_ERROR")
    assert re.sub("[.,]+", "", end.payload["message"]) == re.sub("[.,]+", "", words)
    assert end.payload.get("retry_after_ms") == (2000 if text == "sorry" else None)


async def test_what_was_said_before_a_failure_stays(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        await phone.ask("half")
        streamed, end = await answered(phone)
        assert (end.type, end.payload["message"]) == ("chat.error", "the agent failed: RuntimeError: then it broke")
        await phone.ask("history")
        assert (await answered(phone))[1].payload["full_text"] == "[('user', 'half'), ('assistant', 'half of it')]"


async def test_an_answer_that_hangs_is_given_up(start_bot, tmp_path):
    bot = start_bot(env={"BOT_TIMEOUT": "1"})
    async with Phone(bot.link()) as phone:
        await phone.ask(f"hang {tmp_path / 'ended'}")
        streamed, end = await answered(phone)
        assert (streamed, end.payload["message"]) == ("I begin", "the agent said nothing for 1 s")
        await appears(tmp_path / "ended")
        await phone.ask("say on")
        assert (await answered(phone))[1].payload["full_text"] == "on "


async def test_the_next_question_ends_the_answer_where_it_is(start_bot, tmp_path):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        first = await phone.ask(f"hang {tmp_path / 'ended'}")
        await phone.expect("chat.stream")
        await phone.ask("say second", chat_id="other")
        assert (await answered(phone))[1].payload["full_text"] == "second ", "conversations do not wait for each other"
        third = await phone.ask("say third")
        cancelled = (await answered(phone))[1].payload
        assert cancelled == {"full_text": "I begin", "cancelled": True, "ref": first}
        assert (await answered(phone))[1].payload["ref"] == third
        await appears(tmp_path / "ended")
        await phone.ask(f"hang {tmp_path / 'ended too'}")
        await phone.expect("chat.stream")
        await phone.client.send("chat.cancel")
        assert (await answered(phone))[1].payload["cancelled"] is True


async def test_an_answer_that_does_not_stop_says_nothing_more_and_holds_up_its_conversation_alone(start_bot, tmp_path):
    bot, until = start_bot(), tmp_path / "until"
    async with Phone(bot.link()) as phone:
        await phone.ask(f"stubborn {until}")
        await phone.expect("chat.stream")
        await phone.client.send("chat.cancel")
        assert (await answered(phone))[1].payload["cancelled"] is True
        await phone.ask("say waits")
        await phone.ask("say elsewhere", chat_id="other")
        assert (await answered(phone))[1].payload["full_text"] == "elsewhere "
        until.touch()
        streamed, end = await answered(phone)
        assert end.payload["full_text"] == "waits ", "and nothing of the one that went on"


async def test_what_does_not_stop_ends_with_the_process(start_bot, tmp_path, monkeypatch):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        await phone.ask(f"stubborn {tmp_path / 'never'}")
        await phone.expect("chat.stream")
        bot.process.send_signal(signal.SIGTERM)
        assert (await answered(phone))[1].payload["cancelled"] is True
    assert bot.process.wait(TIMEOUT) == 0
    assert "does not stop, and ends with the process" in bot.output()


async def test_an_answer_has_a_bound_and_says_so(ask):
    streamed, end = await ask("long 5000")
    assert len(end.payload["full_text"]) == 1_048_000, "less than a piece below 1 MiB"
    assert end.payload["full_text"].startswith(streamed)
    assert (end.payload["finish"], end.payload["notice"]) == (
        "length",
        "The answer was cut off: it is longer than 1 MiB.",
    )


async def test_many_pieces_leave_in_few_messages(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        await phone.ask("pieces 20000")
        count, began = 0, time.monotonic()
        while (event := await phone.expect("chat.stream", "chat.done", "chat.error")).type == "chat.stream":
            count += 1
            assert event.payload["seq"] == count
        assert event.payload["full_text"] == "".join(f"{number} " for number in range(20000))
        assert count <= 25 * (time.monotonic() - began) + 5


async def test_tools_are_told_within_the_rate_of_an_agents_messages(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        asked = await phone.ask("tools 500", chat_id="a")
        told = []
        while (event := await phone.expect("chat.tool_status", "chat.done", "chat.error")).type == "chat.tool_status":
            told.append(event.payload)
        common = {"status": "running", "message": "Looking", "ref": asked, "chat_id": "a"}
        assert told[0] == {"tool": "tool 0", "call_id": "call 0"} | common
        assert 20 <= len(told) <= 30 and event.payload["full_text"] == "done with tools"


PLAIN = "Really?\n1. Allow once\n2. No\n3. Later"


async def test_a_phone_without_buttons_is_asked_in_plain_text(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        asked = await phone.ask("ask", chat_id="a")
        question = (await answered(phone))[1].payload
        assert question == {"full_text": f"Well.\n\n{PLAIN}", "ref": asked, "chat_id": "a"}
        await phone.ask("say elsewhere", chat_id="b")
        assert (await answered(phone))[1].payload["full_text"] == "elsewhere ", "others are not held up"
        replied = await phone.ask(" 2. ", chat_id="a")
        assert (await answered(phone))[1].payload == {"full_text": "You said No", "ref": replied, "chat_id": "a"}
        await phone.ask("history", chat_id="a")
        said = (await answered(phone))[1].payload["full_text"]
        assert said.endswith(
            f"('assistant', {f'Well.{chr(10)}{chr(10)}{PLAIN}'!r}), ('user', ' 2. '), ('assistant', 'You said No')]"
        )


@pytest.mark.parametrize(
    ("text", "taken"), [("yes", "Allow once"), ("N", "No"), ("later.", "Later"), ("3", "Later"), ("Why?", "Why?")]
)
async def test_a_plain_reply_is_read_as_people_write(ask_bot, text, taken):
    async with ask_bot() as phone:
        await phone.ask("ask")
        await answered(phone)
        await phone.ask(text)
        assert (await answered(phone))[1].payload["full_text"] == f"You said {taken}"


async def test_what_is_no_reply_repeats_the_options_and_cancel_ends_the_question(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        await phone.ask("ask strictly")
        await answered(phone)
        for more in ({}, {"images": [{"data": "AAAA"}]}):
            again = await phone.ask("Why?" if not more else "yes", **more)
            assert (await answered(phone))[1].payload == {"full_text": PLAIN, "ref": again}
        await phone.ask("ok")
        assert (await answered(phone))[1].payload["full_text"] == "You said Allow once"
        await phone.ask("ask")
        await answered(phone)
        await phone.client.send("chat.cancel")
        await phone.ask("say not a reply any more")
        assert (await answered(phone))[1].payload["full_text"] == "not a reply any more "


async def test_a_plain_question_expires_with_its_default_and_the_agent_speaks_first(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        asked = await phone.ask("expire", chat_id="a")
        assert ": No" in (await answered(phone))[1].payload["full_text"].splitlines()[-1]
        end = (await answered(phone))[1].payload
        assert (end["full_text"], end["unasked"], end["chat_id"]) == ("You said No", True, "a")
        assert end["ref"] != asked


async def test_a_phone_with_buttons_is_asked_with_them(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        asked = await phone.ask("ask", chat_id="a", asks=1)
        shown = (await phone.expect("chat.ask")).payload
        name = shown.pop("ask")
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
        assert abs(shown.pop("expires_at") / 1000 - time.time() - 86_400) < 60
        assert shown == {
            "text": "Really?",
            "options": [
                {"id": "1", "label": "Allow once", "kind": "allow_once"},
                {"id": "2", "label": "No", "kind": "reject_once"},
                {"id": "3", "label": "Later"},
            ],
            "free": True,
            "chat_id": "a",
            "ref": asked,
        }
        wrong = await phone.client.send("chat.answer", {"ask": name, "option": "9", "chat_id": "a"})
        refused = (await phone.expect("chat.error")).payload
        assert (refused["code"], refused["ref"]) == ("BACKEND_ERROR", wrong)
        await phone.client.send("chat.answer", {"ask": name, "option": "2", "chat_id": "a"})
        over = (await phone.expect("chat.answered")).payload
        assert over == {"ask": name, "outcome": "answered", "option": "2", "chat_id": "a", "ref": asked}
        assert (await answered(phone))[1].payload["full_text"] == "Well.You said No"
        await phone.client.send("chat.answer", {"ask": name, "text": "but", "chat_id": "a"})
        assert (await phone.expect("chat.answered")).payload == over, "the first one decides"
        await phone.client.send("chat.answer", {"ask": "never", "option": "1"})
        assert (await phone.expect("chat.answered")).payload == {"ask": "never", "outcome": "unknown"}


async def test_an_open_question_comes_again_to_a_phone_that_was_away_and_ends_with_its_answer(start_bot):
    bot = start_bot()
    link = bot.link()
    async with Phone(link) as phone:
        await phone.ask("ask", asks=1)
        shown = (await phone.expect("chat.ask")).payload
    async with Phone(link) as phone:
        assert (await phone.expect("chat.ask")).payload == shown
        await phone.ask("say on", asks=1)
        over = (await phone.expect("chat.answered")).payload
        assert (over["ask"], over["outcome"]) == (shown["ask"], "cancelled")
        await phone.ask("expire", asks=1)
        over = (await phone.expect("chat.answered")).payload
        assert (over["outcome"], over["option"]) == ("expired", "2")
        assert (await answered(phone))[1].payload["full_text"] == "You said No"


async def test_images_arrive_and_what_is_none_is_refused_in_words(start_bot):
    bot = start_bot()
    png = base64.b64encode(b"\x89PNG\r\n" + bytes(100)).decode()
    async with Phone(bot.link()) as phone:
        await phone.ask("images", images=[{"mime": "image/png", "data": png}, {"data": png}])
        expected = str([("image/png", "iVBORw0K"), ("image/jpeg", "iVBORw0K")])
        assert (await answered(phone))[1].payload["full_text"] == expected
        for payload, words in [
            ({"text": 7}, "text is not a string"),
            ({"text": "x", "chat_id": 7}, "chat_id is not a string"),
            ({"text": "x", "chat_id": "x" * 300}, "chat_id is too long"),
            ({"images": [{"data": "%"}]}, "not image data"),
            ({}, "neither text nor images"),
            ([], "not a JSON object"),
        ]:
            await phone.client.send("chat.send", payload)
            assert words in (await answered(phone))[1].payload["message"], payload


async def test_functions_that_are_not_asynchronous_have_threads(start_bot, tmp_path):
    bot = start_bot("thread")
    async with Phone(bot.link()) as phone:
        await phone.ask("plain text")
        assert (await answered(phone))[1].payload["full_text"] == "plain text"
        await phone.ask("boom")
        assert (await answered(phone))[1].payload["message"] == "the agent failed: ValueError: in a thread"
        await phone.ask(f"endless {tmp_path / 'ended'}")
        await phone.expect("chat.stream")
        await phone.ask("say on")
        assert (await answered(phone))[1].payload["cancelled"] is True
        assert (await answered(phone))[1].payload["full_text"] == "on "
        await appears(tmp_path / "ended")
    bot.stop()


async def test_two_programs_never_use_one_pairing(start_bot, tmp_path):
    state = tmp_path / "state.json"
    bot = start_bot(state=state)
    link = bot.link()
    other = start_bot(state=state)
    assert other.process.wait(TIMEOUT) == 1
    assert f"another program uses {state}: stop it, or name another state file" in other.output()
    bot.stop()
    assert state.stat().st_mode & 0o777 == 0o600
    again = start_bot(state=state)
    async with Phone(link) as phone:
        await phone.ask("say and again")
        assert (await answered(phone))[1].payload["full_text"] == "and again "
    again.stop()


def agent_has_devices():
    """Whether coralmux-agent keeps devices in its state, as this package does."""
    return subprocess.run([program("coralmux-agent"), "devices", "--help"], capture_output=True).returncode == 0


async def test_a_phone_becomes_a_device_and_stays_one(start_bot, tmp_path):
    state, keys = tmp_path / "state.json", tmp_path / "tablet.json"
    bot = start_bot(state=state)
    link = await device_link(state, bot.relay)
    async with Tablet(link, keys) as tablet:
        await tablet.expect("device.welcome")
        await tablet.ask("say to a device", chat_id="a")
        end = (await answered(tablet))[1]
        assert (end.payload["full_text"], end.protection) == ("to a device ", Protection.VERIFIED)
        await tablet.client.send("chat.history", {"chat_id": "a"})
        assert len((await tablet.expect("chat.history.result")).payload["messages"]) == 2
        assert "the link was used" in coralmux("link", "--relay", bot.relay, "--state", str(state)).stderr
        bot.stop()
        again = start_bot(state=state)
        await tablet.ask("say the same")
        assert (await answered(tablet))[1].payload["full_text"] == "the same "
        again.stop()


@pytest.mark.skipif(not agent_has_devices(), reason="this coralmux-agent has no devices")
async def test_a_device_stays_one_whichever_agent_goes_on(start_bot, start_agent, tmp_path):
    state = tmp_path / "state.json"
    bot = start_bot(state=state)
    async with Tablet(await device_link(state, bot.relay), tmp_path / "tablet.json") as tablet:
        await tablet.expect("device.welcome")
        bot.stop()
        for number in range(2):
            agent = start_agent("--echo", "--state", str(state))
            await tablet.ask(f"echo {number}")
            assert f"echo {number}" in (await answered(tablet))[1].payload["full_text"]
            agent.stop()
            bot = start_bot(state=state)
            await tablet.ask(f"say bot {number}")
            assert (await answered(tablet))[1].payload["full_text"] == f"bot {number} "
            bot.stop()


def test_both_keep_a_relays_pairing_in_the_same_place(start_agent, relay, tmp_path):
    agent = start_agent("--echo")
    link = agent.link()
    shown = coralmux("link", "--relay", f"ws://127.0.0.1:{relay.port}", "--qr", "none", **agent.state)
    assert f"    {link.for_apps()}" in shown.stdout, shown.stderr  # and behind it what makes a phone a device
    shown = coralmux("link", "--relay", f"ws://127.0.0.1:{relay.port}", XDG_STATE_HOME=str(tmp_path / "none"))
    assert shown.returncode == 1 and "start the agent first" in shown.stderr


@pytest.mark.parametrize("name", [".openclaw-agent", ".openclaw-relay-connector"])
async def test_the_old_connectors_token_is_taken_over(start_bot, relay, tmp_path, name):
    token = await relay.token()
    config = tmp_path / name / "config.yaml"
    config.parent.mkdir()
    url = f"ws://127.0.0.1:{relay.port}/ws"
    config.write_text(f"backend:\n  type: auto\n  token: no\nrelay:\n  token: {token}\n  url: '{url}'  # ours\n")
    state = tmp_path / "state.json"
    done = coralmux("take-over", "--state", str(state), HOME=str(tmp_path))
    assert done.returncode == 0 and token not in done.stdout, done.stderr
    assert "Stop the connector" in done.stdout
    assert coralmux("take-over", str(config), "--state", str(state)).returncode == 0, "again changes nothing"
    bot = start_bot(state=state)
    link = bot.link()
    assert link.token == token
    async with Phone(link) as phone:
        await phone.ask("say hello")
        assert (await answered(phone))[1].protection is Protection.VERIFIED


def test_a_configuration_without_a_token_is_told(tmp_path):
    config = tmp_path / "config.yaml"
    for text, words in [
        (None, "name the connector's configuration"),
        ('relay:\n  url: wss://r/ws\n  token: ""\n', "has no token"),
        (f"relay:\n  token: oc_pair_{'0' * 32}\n", "has no relay address"),
        (f"relay:\n  token: oc_pair_{'0' * 32}\n  url: ftp://r\n", "begins with wss://"),
    ]:
        if text is not None:
            config.write_text(text)
        done = coralmux("take-over", str(config), "--state", str(tmp_path / "s.json"))
        assert done.returncode == 1 and words in done.stderr and "0000" not in done.stderr + done.stdout


async def test_a_token_that_the_relay_does_not_know_ends_it_with_words(start_bot, tmp_path):
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"relay": "x", "token": "oc_pair_" + "0" * 32, "secret": "A" * 43}))
    bot = start_bot(state=state)
    assert bot.process.wait(TIMEOUT) == 3
    assert "could be read or written by others" in bot.output() and "Traceback" not in bot.output()


async def test_an_agent_whose_place_is_taken_ends_and_says_so(start_bot, tmp_path):
    bot = start_bot()
    bot.link()
    copy = tmp_path / "copy.json"  # which no lock keeps from being used
    copy.write_text(bot.state.read_text())
    other = start_bot(state=copy)
    assert bot.process.wait(TIMEOUT) == 4
    assert "another connection has taken this role" in bot.output() and "Traceback" not in bot.output()
    other.stop()


async def test_on_a_terminal_the_link_is_shown_once_with_its_codes(relay, tmp_path):
    state = tmp_path / "state.json"
    with Screen(tmp_path / "screen") as screen:
        command = [sys.executable, str(BOT), f"ws://127.0.0.1:{relay.port}", str(state)]
        process = subprocess.Popen(command, stdin=screen, stdout=screen, stderr=screen, env=os.environ | CHECKOUT)
        shown = lambda: (tmp_path / "screen").read_text(errors="replace")  # noqa: E731
        try:
            async with asyncio.timeout(TIMEOUT):
                while not (found := re.search(r"(openclaw://pair\S+)\s+[\u2588\u2580\u2584\x1b]", shown())):
                    await asyncio.sleep(0.05)
            link = Link.parse(found[1])
            async with Phone(replace(link, agent=None)) as phone:
                await phone.ask("say hello")
                assert (await answered(phone))[1].payload["full_text"] == "hello "
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()
    assert shown().count("openclaw://pair?") == 1 and shown().count(f"#token={link.token}") == 1


async def test_nothing_is_lost_where_the_relay_is_killed_in_an_answer(start_relay, tmp_path):
    relay = start_relay("--register-rate", "0")
    bot = Bot(tmp_path, f"ws://127.0.0.1:{relay.port}")
    try:
        async with Phone(bot.link()) as phone:
            await phone.ask("pieces 3")
            await answered(phone)
            await phone.ask("stubborn " + str(tmp_path / "until"))
            await phone.expect("chat.stream")
            relay.kill()
            (tmp_path / "until").touch()
            relay.start()
            assert (await answered(phone))[1].payload["full_text"] == "I beginand I go on"
    finally:
        bot.kill()
