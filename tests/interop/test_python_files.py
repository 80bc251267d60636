"""What an agent on the Python package shows beside text, and which of several agents answers."""

import base64

import pytest

from agents import Phone
from bots import Tablet, answered, shown
from coralmux.files import BYTES_MAX, FILES_MAX, NAME_MAX, File, file_of
from test_python_commands import PYTHON, pairs

PNG = b"\x89PNG\r\n" + bytes(100)  # as bot.py has it


async def test_a_phone_that_shows_files_gets_them(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        asked = await phone.ask("show", chat_id="a", files=1)
        (image, note), end = await shown(phone)
        assert (image["name"], image["mime"], image["ref"], image["chat_id"]) == ("image-1.png", "image/png", asked, "a")
        assert base64.b64decode(image["data"]) == PNG
        assert (note["name"], note["mime"]) == ("..note.txt", "text/plain")
        assert (end.payload["full_text"], end.payload["files"]) == ("Here: ", 2)
        await phone.ask("file 10", files=1)
        (only,), end = await shown(phone)
        assert (end.type, end.payload["full_text"], end.payload["files"]) == ("chat.done", "", 1)
        assert only["mime"] == "application/octet-stream"
        await phone.client.send("chat.history", {"chat_id": "a"})
        assert (await phone.expect("chat.history.result")).payload["messages"][-1]["files"] == 2


async def test_the_largest_file_arrives_and_a_larger_one_is_told_in_words(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        await phone.ask(f"file {BYTES_MAX}", files=1)
        [file], end = await shown(phone)
        assert base64.b64decode(file["data"]) == bytes(BYTES_MAX) and end.payload["files"] == 1
        await phone.ask(f"file {BYTES_MAX + 1}", files=1)
        files, end = await shown(phone)
        assert not files and "files" not in end.payload and "too large to be sent" in end.payload["full_text"]
        await phone.ask(f"files {FILES_MAX + 2}", files=1)
        files, end = await shown(phone)
        assert len(files) == FILES_MAX and end.payload["full_text"].count(f"has {FILES_MAX} files at most") == 2


async def test_a_phone_that_shows_no_files_is_told_in_words(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        for unable in ({}, {"files": True}, {"files": 2}, {"files": "1"}):
            await phone.ask("show", **unable)
            files, end = await shown(phone)
            text = end.payload["full_text"]
            assert not files and "files" not in end.payload
            assert "[Image image-1.png, 106 bytes: this phone does not show files of an agent.]" in text
            assert "[File ..note.txt, 6 bytes" in text


@pytest.mark.parametrize(
    ("name", "kept"),
    [("a.png", "a.png"), ("/etc/passwd", "etcpasswd"), ("\u202ea\x1b\n", "\u202ea"), ("", "file-3"), ("x" * 200, "x" * 100)],
)
def test_a_name_is_one_that_a_phone_can_store_a_file_by(name, kept):
    assert file_of(File(name, b""), 3).name == kept and len(kept) <= NAME_MAX


async def test_the_phone_chooses_which_of_several_agents_answers(start_bot):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        await phone.client.send("agent.list", {})
        agents = (await phone.expect("agent.list.result")).payload["agents"]
        assert [(it["id"], it["name"]) for it in agents] == [("default", "Bot"), ("second", "Another bot")]
        await phone.ask("say first", chat_id="a")
        assert "agent" not in (await answered(phone))[1].payload
        for number, history in enumerate(([], ["one", "second, after []"])):
            asked = await phone.ask(["one", "two"][number], chat_id="a", agent="second")
            end = (await answered(phone))[1].payload
            assert end["full_text"] == f"second, after {history}"
            assert (end["agent"], end["chat_id"], end["ref"]) == ("second", "a", asked)
        await phone.ask("history", chat_id="a", agent="default")
        end = (await answered(phone))[1].payload
        assert end["full_text"] == str([("user", "say first"), ("assistant", "first ")]) and end["agent"] == "default"
        await phone.client.send("chat.history", {"chat_id": "a", "agent": "second"})
        result = (await phone.expect("chat.history.result")).payload
        assert [it["text"] for it in result["messages"]][::2] == ["one", "two"] and result["agent"] == "second"
        for agent, words in (("third", "no such agent"), (7, "agent is none"), ("x y", "agent is none")):
            await phone.ask("hello", agent=agent)
            error = (await answered(phone))[1].payload
            assert error["code"] == "BACKEND_ERROR" and words in error["message"], error


async def test_cancelling_one_agents_answer_leaves_the_others(start_bot, tmp_path):
    bot = start_bot()
    async with Phone(bot.link()) as phone:
        await phone.ask(f"hang {tmp_path / 'ended'}", chat_id="a")
        await phone.expect("chat.stream")
        await phone.client.send("chat.cancel", {"chat_id": "a", "agent": "second"})
        await phone.ask("hello", chat_id="a", agent="second")
        assert (await answered(phone))[1].payload["agent"] == "second"
        await phone.client.send("chat.cancel", {"chat_id": "a"})
        assert (await answered(phone))[1].payload["cancelled"] is True


async def test_what_one_asks_about_the_conversation_only_that_one_hears(start_bot, tmp_path):
    bot = start_bot(state=tmp_path / "state.json")
    plain_link = bot.link()
    async with Phone(plain_link) as plain:
        await plain.ask("say hello")
        await answered(plain)
        # The plain phone's secret is not the first device's any more, so the device comes by another link.
        async with pairs(PYTHON, bot) as pairing, Tablet(await pairing.link(), tmp_path / "tablet.json") as tablet:
            await pairing.shows(r"(\d{6})")
            await pairing.types(b"\n")
            await tablet.expect("device.welcome")
            await plain.client.send("chat.history", {})
            assert len((await plain.expect("chat.history.result")).payload["messages"]) == 2
            await plain.client.send("agent.list", {})
            await plain.expect("agent.list.result")
            await plain.client.send("chat.history", {"limit": -1})
            assert "limit" in (await plain.expect("chat.error")).payload["message"]
            await plain.client.send("chat.answer", {"ask": "never", "option": "1"})
            await plain.expect("chat.answered")
            await plain.ask("say on")
            heard = []
            async for event in tablet.client:
                heard.append(event.type)
                if event.type == "chat.done":
                    break
            told = {"chat.history.result", "agent.list.result", "chat.error", "chat.answered"}
            assert not told & set(heard), heard
