"""coralmux-agent whose relay is the attacker (`lying`), and whose state file is put back from a backup.

The numbers are those of the acceptance tests of devices. What the agent acts on is what its program is asked.
"""

import asyncio
import contextlib
import os
import pathlib
import shlex
import shutil

import pytest
from household import Party, request
from lying import LyingRelay

from agents import TIMEOUT, Agent
from coralmux import Link
from test_agent_devices import command, device as rust_device, first_link, pairs, said
from test_devices_lying import TOKEN, impatient, is_sealed, opens_in_vain, sent_by, sids, step, to_device

pytestmark = pytest.mark.asyncio
__all__ = ["impatient"]

LONG = bool(os.environ.get("CORALMUX_DEVICES_LONG"))
SILENT = 0.5  # seconds in which something would have happened
OPENINGS_MAX, OPENINGS_SPAN = 12, 60
MISMATCH = "the pairing secret does not match"


class Asked:
    """A program for `--exec` that notes what it is asked, says it again, and stays if the question is `slow`."""

    def __init__(self, folder):
        self.path, self.pids = folder / "asked", folder / "pids"
        path, pids = shlex.quote(str(self.path)), shlex.quote(str(self.pids))
        self.command = (
            f'read -r question; echo "$question" >> {path}; echo "$question"; '
            f'if [ "$question" = slow ]; then echo $$ >> {pids}; exec sleep 1000; fi'
        )

    @property
    def texts(self):
        return self.path.read_text().splitlines() if self.path.exists() else []

    async def until(self, texts, in_order=True):
        async with asyncio.timeout(TIMEOUT):
            while self.texts != texts and (in_order or sorted(self.texts) != sorted(texts)):
                await asyncio.sleep(0.02)

    async def has_ended(self):
        """The slow ones are gone."""
        async with asyncio.timeout(TIMEOUT):
            while any(pathlib.Path(f"/proc/{pid}").exists() for pid in self.pids.read_text().split()):
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def started(relay, folder, *flags):
    """An agent at this relay, and what it is asked."""
    asked = Asked(folder)
    (folder / "state").mkdir()
    command_ = ["--exec", asked.command, "--token", TOKEN, *flags]
    agent = await asyncio.to_thread(Agent, folder / "state", relay.url.removesuffix("/ws"), *command_)
    try:
        yield agent, asked
    finally:
        agent.kill()


async def restart(relay, agent, *more):
    """It starts again, and has been let in."""
    connections = len([message for message in sent_by(relay, "agent") if message["type"] == "auth"])
    agent.process = agent.popen([*agent.command, *more], agent.environment)
    await relay.until_seen(lambda *_: len([m for m in sent_by(relay, "agent") if m["type"] == "auth"]) > connections)
    await settled(relay)


async def settled(relay):
    """The agent has handled all that it was told."""
    pongs = len([message for message in sent_by(relay, "agent") if message["type"] == "pong"])
    await relay.tell("agent", {"type": "ping", "id": "p", "payload": {}})
    await relay.until_seen(lambda *_: len([m for m in sent_by(relay, "agent") if m["type"] == "pong"]) > pongs)


async def answered(party, text):
    """A device on the Python client asks, in a conversation of its own, and is answered once."""
    asked = await party.client.send("chat.send", {"text": text, "chat_id": text})
    assert (await party.expect("chat.done", ref=asked)).payload["full_text"].strip() == text


@contextlib.asynccontextmanager
async def one_device(relay, folder, *flags):
    async with started(relay, folder, *flags) as (agent, asked):
        async with Party("phone", await first_link(agent), state=folder / "phone.json", name="Phone") as phone:
            await phone.expect("client.agreed")
            yield agent, asked, phone


# ---- A state that is put back ----


@pytest.mark.parametrize("restored", [True, False])
async def test_an_agent_of_a_backup_acts_on_nothing_that_was_recorded_since(tmp_path, impatient, restored):
    """60: with --restored; without it what came since opens once more, which is what the flag is for. Links that were open
    admit nobody, and the device goes on."""
    state, backup = tmp_path / "state", tmp_path / "backup"
    async with LyingRelay() as relay, one_device(relay, tmp_path) as (agent, asked, phone):
        await answered(phone, "before")
        invited = await request(phone, "device.invite", result="device.invite.result")
        agent.stop()
        shutil.copytree(state, backup, ignore=shutil.ignore_patterns("control"))
        await restart(relay, agent)
        since = [f"since {number}" for number in range(3)]
        for text in since:
            await answered(phone, text)
        await phone.client.delivered()
        recorded = [message for message in sent_by(relay, phone.device) if is_sealed(message)]
        device = phone.device
        await phone.__aexit__()
        agent.stop()
        shutil.rmtree(state)
        shutil.copytree(backup, state)
        asked.path.unlink()
        await restart(relay, agent, *(["--restored"] if restored else []))
        await relay.tell("agent", {"type": "relay.device", "payload": {"device": device, "online": True}})
        for message in recorded:
            await relay.tell("agent", message)
        await settled(relay)
        await asyncio.sleep(SILENT)
        if restored:
            assert asked.texts == []
            async with Party("phone", Link.parse(invited["link"]), state=tmp_path / "late.json") as late:
                assert "show a new one" in await late.end()
                assert to_device(relay, late.device) == []
        else:
            await asked.until(since, in_order=False)
        asked.path.unlink(missing_ok=True)
        async with Party("phone", None, state=tmp_path / "phone.json") as phone:
            await answered(phone, "and on")
            await answered(phone, "once more")
        assert asked.texts == ["and on", "once more"]


async def test_openings_that_are_replayed_change_nothing_while_mail_of_an_older_session_waits(tmp_path):
    """51: 1,000 of them, old and new, before the mail is handed out: all of that opens, no key changes, and 12 answers a
    minute are all that comes of it. The long form waits until a true opening gets through."""
    held, waiting = [], 0

    def keep(who, message):
        """What devices say to an absent agent is kept."""
        if who != "agent" and "agent" not in relay.sockets and message.get("keep"):
            held.append(message)
            kept = {"ref": message["id"], "device": who}
            asyncio.ensure_future(relay.tell(who, {"type": "relay.kept", "payload": kept}))
            return []
        return [message]

    mail = lambda who: mailbox(waiting if who == "agent" else 0)  # noqa: E731
    async with LyingRelay(keep, mail=mail) as relay, started(relay, tmp_path) as (agent, asked):
        async with rust_device(await first_link(agent), tmp_path / "phone") as phone:
            await says(phone, "first")
            (device,) = relay.admitted
            for number in range(2):
                await relay.tell(device, hint())
                await relay.until_seen(lambda *_, n=number: len(openings_of(relay, device)) > n)
                await says(phone, f"with keys {number}")
            agent.stop()
            for text in ("mail 1", "mail 2", "mail 3"):
                await phone.send("chat.send", {"text": text, "chat_id": text})
            async with asyncio.timeout(TIMEOUT):
                while len(held) < 3:
                    await asyncio.sleep(0.02)
            asked.path.unlink()
            replayed, waiting = openings_of(relay, device), 3
            await restart(relay, agent)
            before, since = len(answers_to(relay, device)), len(relay.seen)
            for number in range(1000):
                await relay.tell("agent", replayed[number % len(replayed)])
            for message in held:
                await relay.tell("agent", message)
            await relay.tell("agent", {"type": "relay.mail", "payload": {"upto": 3, "left": 0, "lost": 0}})
            await relay.until_seen(lambda who, m: m["type"] == "relay.mail.ack" and m["payload"]["upto"] == 3)
            await asked.until(["mail 1", "mail 2", "mail 3"], in_order=False)
            assert {await answer_of(phone) for _ in range(3)} == {"mail 1", "mail 2", "mail 3"}
            await says(phone, "after a thousand")
            assert 1 <= len(answers_to(relay, device)) - before <= OPENINGS_MAX
            sealed = [m for who, m in relay.seen[since:] if who == "agent" and m.get("device") == device]
            assert len(set(sids(sealed))) == 1, "no key has changed"
            if LONG:
                sid, began = sids(sealed)[0], asyncio.get_running_loop().time()
                while sids(to_device(relay, device))[-1] == sid:
                    assert asyncio.get_running_loop().time() < began + OPENINGS_SPAN + 10
                    await relay.tell(device, hint())
                    await asyncio.sleep(1)
                    await says(phone, "are there new keys?")


def mailbox(waiting=0):
    """What a relay says of one."""
    bounds = {"bytes": 0, "bytes_max": 4 << 20, "count_max": 256, "message_max": 1 << 20, "age_max_sec": 604_800}
    return bounds | {"waiting": waiting}


def hint():
    return {"type": "chat.error", "payload": {"code": "DECRYPTION_FAILED", "message": "so the relay says"}}


def openings_of(relay, device):
    return [message for message in sent_by(relay, device) if step(message) == 0]


def answers_to(relay, device):
    return [message for message in to_device(relay, device) if step(message) == 0]


async def answer_of(end):
    while (event := await end.event("message"))["type"] != "chat.done":
        pass
    return event["payload"]["full_text"].strip()


async def says(end, text):
    """A device on the Rust client asks, and is answered."""
    await end.send("chat.send", {"text": text})
    assert await answer_of(end) == text


async def test_of_kept_messages_one_is_left_out_and_its_sender_shows_it(tmp_path):
    """54: the next one is delivered while the sender is claimed to be absent: the first one is named in `x`, and shown as
    not delivered, although the relay has said that it keeps it."""
    held, waiting, is_held = [], 0, False

    def keep(who, message):
        if who != "agent" and is_held:
            if message.get("keep"):
                held.append(message)
                kept = {"ref": message["id"], "device": who}
                asyncio.ensure_future(relay.tell(who, {"type": "relay.kept", "payload": kept}))
            return []
        return [message]

    def claims_absent(who, ext):
        return ext | ({"devices": [one | {"online": False} for one in ext["devices"]]} if who == "agent" else {})

    mail = lambda who: mailbox(waiting if who == "agent" else 0)  # noqa: E731
    async with LyingRelay(keep, mail=mail) as relay, started(relay, tmp_path) as (agent, asked):
        async with rust_device(await first_link(agent), tmp_path / "phone") as phone:
            await says(phone, "first")
            (device,) = relay.admitted
            is_held = True
            agent.stop()
            for text in ("left out", "delivered"):
                await phone.send("chat.send", {"text": text, "chat_id": text})
            async with asyncio.timeout(TIMEOUT):
                while len(held) < 2:
                    await asyncio.sleep(0.02)
            waiting, relay.ext = 1, claims_absent
            await restart(relay, agent)
            await relay.tell("agent", held[1])
            await relay.tell("agent", {"type": "relay.mail", "payload": {"upto": 1, "left": 0, "lost": 0}})
            await asked.until(["first", "delivered"])
            is_held = False
            await relay.tell("agent", {"type": "relay.device", "payload": {"device": device, "online": True}})
            assert (await phone.event("not sent"))["event"] == "not sent"
            assert await answer_of(phone) == "delivered"
            await says(phone, "and on")
            assert asked.texts == ["first", "delivered", "and on"]
            await said(agent, "1 message(s) of the phone were given up on the way.")


# ---- Revoked ----


async def test_a_revoked_device_gets_not_one_byte_whatever_the_relay_does(tmp_path, impatient):
    """56: what it invited goes with it, its open links admit nobody, its answer ends, the plain phone has to scan anew, and
    nothing goes out in clear."""
    async with LyingRelay() as relay, started(relay, tmp_path) as (agent, asked), contextlib.AsyncExitStack() as stack:
        await first_link(agent)
        plain = await asyncio.to_thread(agent.link)
        old = await stack.enter_async_context(Party("phone", plain))
        await old.expect("client.agreed")
        await answered(old, "of the plain phone")
        pairing = await stack.enter_async_context(pairs(agent))
        owner = await enters(stack, tmp_path, "owner", await pairing.link())
        await pairing.shows(r"Its code: (\d{6})")
        await pairing.types(b"\n")
        await owner.expect("client.agreed")
        thief = await invited_by(owner, stack, tmp_path, "thief")
        friend = await invited_by(thief, stack, tmp_path, "friend")
        unused = (await request(thief, "device.invite", result="device.invite.result"))["link"]
        await thief.client.send("chat.send", {"text": "slow"})
        await thief.expect("chat.stream")
        said_, code = await command(agent, "revoke", thief.device)
        assert code == 0 and "2 device(s)" in said_
        await asked.has_ended()
        await settled(relay)
        gone = {thief.device, friend.device}
        before, since = len(asked.texts), len(relay.seen)
        for device, text in ((thief, "still there?"), (friend, "and I?")):
            await device.client.send("chat.send", {"text": text})
        await opens_in_vain(thief, relay)
        async with Party("phone", Link.parse(unused), state=tmp_path / "late.json") as late:
            assert "show a new one" in await late.end()
        await old.client.send("chat.send", {"text": "and the plain one?"})
        await answered(owner, "not for you")
        await settled(relay)
        assert asked.texts[before:] == ["not for you"]
        of_agent = [message for who, message in relay.seen[since:] if who == "agent"]
        assert not [message for message in of_agent if message.get("device") in gone | {late.device}]
        clear = [m for m in of_agent if not is_sealed(m) and not m["type"].startswith("relay.")]
        assert {message["type"] for message in clear} <= {"key_exchange", "pong", "chat.error"}, clear
        # The plain phone's secret is another.
        await old.__aexit__()
        refusals = agent.output().count(MISMATCH)
        async with Party("phone", plain, clear_after=None) as again, asyncio.timeout(TIMEOUT):
            while agent.output().count(MISMATCH) == refusals:
                await asyncio.sleep(0.02)
            assert not again.of("client.agreed")


async def enters(stack, folder, name, link):
    return await stack.enter_async_context(Party("phone", link, state=folder / f"{name}.json", name=name))


async def invited_by(inviter, stack, folder, name):
    link = (await request(inviter, "device.invite", result="device.invite.result"))["link"]
    guest = await enters(stack, folder, name, Link.parse(link))
    pending = (await inviter.expect("device.pending")).payload
    await inviter.client.send("device.admit", {"device": pending["device"]})
    await guest.expect("client.agreed")
    return guest
