"""Both ends on the Python package, each away while the other speaks: what the relay keeps arrives, once and in order."""

import asyncio
import contextlib
import json
import time

import pytest
from household import Household, Party, asks, tells
from lying import LyingRelay
from middle import Hold, Middle

from bots import Bot, Tablet, answered, device_link
from coralmux import Link, StateError
from mailbox import BOUNDS, waiting
from relay import GENEROUS

TOKEN = f"oc_pair_{'7' * 32}"


async def until(is_so, timeout=30):
    async with asyncio.timeout(timeout):
        while not is_so():
            await asyncio.sleep(0.02)


async def kept(party, sent):
    """The relay has said of all these that it has them."""
    await party._until(lambda: sent <= {one["ref"] for one in party.of("relay.kept")}, "relay.kept", 30)


def texts(party, kind="chat.send", name="text"):
    return [payload[name] for payload in party.of(kind)]


async def test_questions_and_answers_wait_for_who_is_away(relay, tmp_path):
    """Neither end ever meets the other: of the questions the agent hears when it comes, of the answers the phone."""
    began = time.time() * 1000
    async with Household(relay.url, await relay.token(), tmp_path) as home:
        async with home.party("phone", await home.first()) as phone:
            await phone.expect("client.agreed")
            # On the very connection on which the one was admitted, and the other has bound its token.
            await home.agent.__aexit__()
            asked = [await phone.client.send("chat.send", {"text": f"{n}"}) for n in range(5)]
            await kept(phone, set(asked))
        await home.start()
        for message_id in asked:
            event = await home.agent.expect("chat.send")
            assert event.id == message_id and began <= event.sent_at <= time.time() * 1000
            await home.agent.client.send("chat.done", {"full_text": f"to {event.payload['text']}", "ref": event.id})
        await until(lambda: len(home.agent.of("relay.kept")) == 5)
        await home.agent.__aexit__()
        async with home.party("phone") as phone:
            for n, message_id in enumerate(asked):
                await phone.expect("chat.done", full_text=f"to {n}", ref=message_id)
            # What was taken is not taken again, and both ends go on when they meet.
            await home.start()
            await asks(phone, home.agent, "here")
            await tells(home.agent, [phone], "here, too")
            await home.agent.client.delivered()
            await phone.client.delivered()
            assert texts(home.agent) == ["here"]
            assert texts(phone, "chat.done", "full_text") == [*(f"to {n}" for n in range(5)), "here, too"]
            assert not [event for event in home.agent.told + phone.told if event.missed]


async def test_answers_to_many_pages_come_in_order_and_only_what_was_stored_is_confirmed(relay, tmp_path, monkeypatch):
    """Where the state cannot be written, nothing is confirmed; it comes again, and nothing twice."""
    async with Household(relay.url, await relay.token(), tmp_path) as home:
        async with home.party("phone", await home.first()) as phone:
            await phone.expect("client.agreed")
        await home.agent.expect("relay.device", online=False)
        # 80 messages of a few KiB: several pages, by count and by bytes.
        for n in range(80):
            await home.agent.client.send("chat.done", {"full_text": f"{n}", "more": "x" * 100 * n})
        await until(lambda: len(home.agent.of("relay.kept")) == 80)
        phone = home.party("phone")
        monkeypatch.setattr(phone.client.agent, "store", refuses)
        await phone.__aenter__()
        with pytest.raises(StateError, match="the disk is full"):
            await phone.task
        with contextlib.suppress(StateError):
            await phone.__aexit__()
        async with home.party("phone") as phone:
            await phone.expect("chat.done", full_text="79")
            assert texts(phone, "chat.done", "full_text") == [f"{n}" for n in range(80)]
            await home.agent.client.delivered()
        async with home.party("phone") as phone:
            await tells(home.agent, [phone], "live")
            assert texts(phone, "chat.done", "full_text") == ["live"]


def refuses(_state):
    raise StateError("the disk is full")


async def test_kill_9_of_agent_and_relay_between_keep_and_drain_loses_nothing(start_relay, tmp_path):
    """The agent program and the relay are killed again and again; each question is answered once."""
    relay = start_relay(*GENEROUS)
    bot = Bot(tmp_path, f"ws://127.0.0.1:{relay.port}")
    try:
        link = await device_link(bot.state, f"ws://127.0.0.1:{relay.port}")
        async with Party("phone", link, state=tmp_path / "phone.json") as phone:
            await phone.expect("client.agreed")
            number = 0
            for _ in range(3):
                bot.kill()
                asked = {}
                for _ in range(4):
                    number += 1
                    message = {"text": f"say {number}", "chat_id": f"{number}"}
                    asked[await phone.client.send("chat.send", message)] = f"{number} "
                await kept(phone, set(asked))
                relay.kill()
                relay.start()
                bot.process = bot.popen(bot.process.args, bot.environment)
                got = {}
                while len(got) < len(asked):
                    done = (await phone.expect("chat.done")).payload
                    assert done["ref"] not in got
                    got[done["ref"]] = done["full_text"]
                assert got == asked
        # And now with nobody there when the answers are made.
        bot.kill()
        async with Party("phone", None, state=tmp_path / "phone.json") as phone:
            asked = {}
            for number in range(100, 104):
                message = {"text": f"say {number}", "chat_id": f"{number}"}
                asked[await phone.client.send("chat.send", message)] = f"{number} "
            await kept(phone, set(asked))
        relay.kill()
        relay.start()
        bot.process = bot.popen(bot.process.args, bot.environment)
        await until(lambda: waiting(relay) == len(asked))
        bot.kill()
        relay.kill()
        relay.start()
        bot.process = bot.popen(bot.process.args, bot.environment)
        async with Party("phone", None, state=tmp_path / "phone.json") as phone:
            await phone._until(lambda: len(phone.of("chat.done")) >= len(asked), "the answers", 30)
            asked[await phone.client.send("chat.send", {"text": "say last"})] = "last "
            await phone.expect("chat.done", full_text="last ")
            done = phone.of("chat.done")
            assert {one["ref"]: one["full_text"] for one in done} == asked and len(done) == len(asked)
    finally:
        bot.kill()


async def test_of_many_questions_that_have_waited_each_is_answered(relay, tmp_path):
    """More than are answered at once."""
    bot = Bot(tmp_path, f"ws://127.0.0.1:{relay.port}")
    try:
        link = await device_link(bot.state, f"ws://127.0.0.1:{relay.port}")
        async with Party("phone", link, state=tmp_path / "phone.json") as phone:
            await phone.expect("client.agreed")
            bot.kill()
            send = phone.client.send
            asked = {await send("chat.send", {"text": f"say {n}", "chat_id": f"{n}"}): f"{n} " for n in range(40)}
            await kept(phone, set(asked))
            bot.process = bot.popen(bot.process.args, bot.environment)
            await phone._until(lambda: len(phone.of("chat.done")) == len(asked), "the answers", 30)
            assert {one["ref"]: one["full_text"] for one in phone.of("chat.done")} == asked
            assert not phone.of("chat.error")
    finally:
        bot.kill()


async def test_an_agent_that_is_killed_when_it_confirms_answers_nothing_twice(relay, tmp_path):
    """Its confirmation is lost with it: what it has taken is handed out again, and dropped by number."""
    swallows = []

    def swallow(role, message):
        if role == "agent" and message["type"] == "relay.mail.ack" and swallows:
            swallows.append(message["payload"]["upto"])
            return []
        return [message]

    async with Middle(relay, swallow) as middle, Household(middle.url, await relay.token(), tmp_path) as home:
        async with home.party("phone", await home.first()) as phone:
            await phone.expect("client.agreed")
            await home.agent.__aexit__()
            sent = {await phone.client.send("chat.send", {"text": f"{n}"}) for n in range(3)}
            await kept(phone, sent)
        swallows.append(None)
        await home.start()
        await until(lambda: len(swallows) > 1)
        assert texts(home.agent) == ["0", "1", "2"]
        await home.agent.crash()
        swallows.clear()
        await home.start()
        async with home.party("phone") as phone:
            await asks(phone, home.agent, "three")
            assert texts(home.agent) == ["three"]
            await phone.client.delivered()


async def test_an_agent_that_is_killed_before_it_has_stored_a_page_hears_it_again(relay, tmp_path, monkeypatch):
    async with Household(relay.url, await relay.token(), tmp_path) as home:
        async with home.party("phone", await home.first()) as phone:
            await phone.expect("client.agreed")
            await home.agent.__aexit__()
            await kept(phone, {await phone.client.send("chat.send", {"text": "once"})})
        crashed = Party("agent", home.link, state=tmp_path / "agent.json")
        monkeypatch.setattr(crashed.client, "_confirm", never)
        monkeypatch.setattr(crashed.client, "_pump", asyncio.Event().wait)
        async with crashed:
            await crashed.expect("chat.send", text="once")
            await crashed.crash()
        await home.start()
        await home.agent.expect("chat.send", text="once")


async def never():
    """In place of what confirms."""


async def test_who_is_woken(relay, tmp_path):
    """An answer wakes all who are away, unless who has asked is here; then nobody is."""
    wishes = []

    def look(role, message):
        if role == "agent" and "keep" in message:
            wishes.append((message["type"], message["device"], message["keep"]))
        return [message]

    async with Middle(relay, look) as middle, Household(middle.url, await relay.token(), tmp_path) as home:
        phone, tablet = await home.device("phone"), await home.device("tablet")
        question = await asks(phone, home.agent)
        await tablet.__aexit__()
        await home.agent.expect("relay.device", device=tablet.device, online=False)
        wishes.clear()
        send = home.agent.client.send
        await send("chat.done", {"full_text": "here", "ref": question.id}, wake=True)
        await phone.expect("chat.done")
        await until(lambda: len(done_of(wishes)) == 2)
        assert done_of(wishes) == {phone.device: "wake", tablet.device: "quiet"}
        await phone.__aexit__()
        await home.agent.expect("relay.device", device=phone.device, online=False)
        wishes.clear()
        await send("chat.stream", {"delta": "aw", "seq": 1, "ref": question.id})
        await send("chat.done", {"full_text": "away", "ref": question.id}, wake=True)
        await send("chat.turn", {"role": "user", "text": "x"}, device=phone.device)
        await until(lambda: wishes[-1:] == [("chat.turn", phone.device, "quiet")] and len(done_of(wishes)) == 2)
        assert done_of(wishes) == {phone.device: "wake", tablet.device: "wake"}
        assert not [kind for kind, *_ in wishes if kind == "chat.stream"]


def done_of(wishes):
    return {device: keep for kind, device, keep in wishes if kind == "chat.done"}


async def test_what_the_mailbox_refuses_is_told_in_words_and_arrives_later_in_order(start_relay, tmp_path):
    relay = start_relay(*GENEROUS, "--mailbox-messages", "3")
    async with Household(relay.url, await relay.token(), tmp_path) as home:
        async with home.party("phone", await home.first()) as phone:
            await phone.expect("client.agreed")
        await home.agent.expect("relay.device", online=False)
        for n in range(6):
            await home.agent.client.send("chat.done", {"full_text": f"{n}"})
        delayed = (await home.agent.expect("client.delayed", code="MAILBOX_FULL")).payload
        assert "for the receiver" in delayed["message"]
        await asyncio.sleep(0.3)
        assert len(home.agent.of("client.delayed")) == 1, "it is not tried again before the phone has been there"
        async with home.party("phone") as phone:
            await phone.expect("chat.done", full_text="5")
            assert texts(phone, "chat.done", "full_text") == [f"{n}" for n in range(6)]


async def test_what_is_too_long_to_be_kept_waits_and_is_not_given_up(start_relay, tmp_path):
    """Also where it was on its way to a phone that left in this moment."""
    relay = start_relay(*GENEROUS, "--mailbox-message", "8000")
    hold = Hold("agent", "chat.done")
    async with Middle(relay, hold) as middle, Household(middle.url, await relay.token(), tmp_path) as home:
        link = await home.first()
        async with home.party("phone", Link(link.token, relay.url, link.secret, link.agent)) as phone:
            await phone.expect("client.agreed")
            await tells(home.agent, [phone], "short")
            hold.close()
            await home.agent.client.send("chat.done", {"full_text": "x" * 20_000})
            await until(lambda: hold.held)
        await home.agent.expect("relay.device", online=False)
        hold.open()
        delayed = (await home.agent.expect("client.delayed", code="MESSAGE_TOO_LARGE")).payload
        assert "not there" in delayed["message"]
        await home.agent.client.send("chat.done", {"full_text": "y" * 20_000})
        await home.agent.client.send("chat.done", {"full_text": "behind it"})
        async with home.party("phone") as phone:
            await phone.expect("chat.done", full_text="behind it")
            assert [text[0] for text in texts(phone, "chat.done", "full_text")] == ["x", "y", "b"]
        assert not home.agent.of("chat.error")


async def test_a_device_that_says_nothing_any_more_is_kept_for(relay, tmp_path, monkeypatch):
    """It is parked: what it has not acknowledged and what follows is kept, and it gets all of it once when it wakes."""
    monkeypatch.setattr("coralmux.keyed.STALLED", 4)
    deaf = []

    def no_acks(role, message):
        return [] if role == "phone" and message["type"] == "ack" and deaf else [message]

    async with Middle(relay, no_acks) as middle, Household(relay.url, await relay.token(), tmp_path) as home:
        link = await home.first()
        async with home.party("phone", Link(link.token, middle.url, link.secret, link.agent)) as phone:
            await phone.expect("client.agreed")
            await tells(home.agent, [phone], "heard")
            await home.agent.client.delivered()
            deaf.append(True)
            for text in ("one", "two"):
                await kept(home.agent, {await home.agent.client.send("chat.done", {"full_text": text})})
            assert texts(phone, "chat.done", "full_text") == ["heard", "one"]
            deaf.clear()
            await phone.client.send("chat.send", {"text": "I am back"})
            await phone.expect("chat.done", full_text="two")
            await home.agent.client.delivered()
            assert texts(phone, "chat.done", "full_text") == ["heard", "one", "two"]


async def test_what_has_expired_is_told(tmp_path):
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        await relay.tell(phone.device, {"type": "relay.mail", "payload": {"upto": 3, "left": 0, "lost": 2}})
        assert (await phone.expect("client.expired")).payload["count"] == 2
        ack = await relay.until_seen(lambda who, message: message["type"] == "relay.mail.ack")
        assert ack["payload"] == {"upto": 3}


async def test_a_relay_that_keeps_nothing_is_asked_for_nothing(start_relay, tmp_path):
    relay = start_relay(*GENEROUS, "--mailbox", "off")
    seen = []
    async with Middle(relay, lambda role, message: seen.append(message) or [message]) as middle:
        async with Household(middle.url, await relay.token(), tmp_path) as home:
            async with home.party("phone", await home.first()) as phone:
                await phone.expect("client.agreed")
            await home.agent.expect("relay.device", online=False)
            await home.agent.client.send("chat.done", {"full_text": "later"}, wake=True)
            async with home.party("phone") as phone:
                await phone.expect("chat.done", full_text="later")
    assert not [message for message in seen if "keep" in message or message["type"] == "relay.mail.ack"]


async def test_an_agent_that_is_stopped_leaves_its_last_words_at_the_relay(relay, tmp_path):
    bot = Bot(tmp_path, f"ws://127.0.0.1:{relay.port}")
    try:
        link = await device_link(bot.state, f"ws://127.0.0.1:{relay.port}")
        async with Tablet(link, tmp_path / "tablet.json") as tablet:
            await tablet.expect("client.agreed")
            asked = await tablet.ask(f"hang {tmp_path / 'ended'}")
            await tablet.expect("chat.stream")
        bot.stop()
        async with Tablet(None, tmp_path / "tablet.json") as tablet:
            end = (await answered(tablet))[1]
            assert (end.payload["ref"], end.payload["cancelled"]) == (asked, True)
    finally:
        bot.kill()


def test_the_bounds_of_the_relay_leave_room_for_what_is_around_a_payload():
    from coralmux.mailbox import OVERHEAD, read_mail

    told = {"mail": {"waiting": 0} | BOUNDS}
    mail = read_mail(told)
    assert not mail.waits and (mail.bytes_max + OVERHEAD) * 4 // 3 <= BOUNDS["message_max"]
    for strange in ({}, {"mail": None}, {"mail": []}):
        assert read_mail(strange).bytes_max is None
    for strange in (None, "x", -1, True, 1.5):
        assert read_mail({"mail": {"message_max": strange}}).bytes_max == 0
    assert json.dumps(told)
