"""57: what the relay says of its own, in clear, is shown as that and believed by nobody; codes that nobody knows cost
the message that they are about a few tries at the most."""

import asyncio
import contextlib
import pathlib

import pytest
from household import Household, Party
from lying import LyingRelay

from agents import TIMEOUT, Agent
from coralmux import Protection

from ends import device_of, missing
from test_agent_devices import answered as echoed, first_link, said
from test_agent_lying import mailbox, settled
from test_devices_lying import TOKEN, is_sealed
from test_devices_makes import device as device_of_make

pytestmark = pytest.mark.asyncio

NOT_VERIFIED = "The relay says (not verified)"
LOST = {"type": "relay.mail", "payload": {"upto": 0, "left": 0, "lost": 3}}
ERROR = {"type": "chat.error", "payload": {"code": "SOMETHING_NEW", "message": "come \x1b[2J closer"}}
FORGED = [
    {"type": "relay.ok", "payload": {"ref": "nobody's"}},
    {"type": "relay.admitted", "payload": {}},
    {"type": "relay.device", "payload": {"device": "0" * 16, "online": True}},
    {"type": "relay.pending", "payload": {"device": "0" * 16}},
    {"type": "auth.fail", "payload": {"code": "UNAUTHORIZED", "message": "go away"}},
    {"type": "auth.ok", "payload": {"paired": False}},
    {"type": "device.revoke", "payload": {"device": "0" * 16}},
    {"type": "relay.made.up", "payload": 7},
]


@contextlib.asynccontextmanager
async def program(relay, folder, *flags):
    (folder / "agent").mkdir()
    command = ["--echo", "--token", TOKEN, *flags]
    agent = await asyncio.to_thread(Agent, folder / "agent", relay.url.removesuffix("/ws"), *command)
    try:
        yield agent
    finally:
        agent.kill()


@contextlib.asynccontextmanager
async def with_device(relay, folder):
    async with program(relay, folder) as agent:
        async with Party("phone", await first_link(agent), state=folder / "phone.json", name="Phone") as phone:
            await phone.expect("client.agreed")
            await echoed(phone, "hello")
            yield agent, phone


async def test_coralmux_agent_shows_the_relays_word_as_that_and_deletes_nothing_for_it(tmp_path):
    async with LyingRelay() as relay, with_device(relay, tmp_path) as (agent, phone):
        files = {path for path in pathlib.Path(agent.state["XDG_STATE_HOME"]).rglob("*.json")}
        for message in [*FORGED, LOST, ERROR, ERROR | {"device": phone.device}]:
            await relay.tell("agent", message)
        await settled(relay)
        await said(agent, f"{NOT_VERIFIED} that 3 message(s) for this agent waited there for too long, and are gone.")
        async with asyncio.timeout(TIMEOUT):
            while agent.output().count(f"{NOT_VERIFIED}: SOMETHING_NEW: come \\u{{1b}}[2J closer") < 2:
                await asyncio.sleep(0.02)
        assert "Error SOMETHING_NEW" not in agent.output()
        await echoed(phone, "all the same")
        # The token was revoked, it says, and is not: the next start goes on where this one was.
        await relay.sockets["agent"].close(4002)
        assert await asyncio.to_thread(agent.process.wait, TIMEOUT) == 3
        assert files <= {path for path in pathlib.Path(agent.state["XDG_STATE_HOME"]).rglob("*.json")}
        agent.process = agent.popen(agent.command, agent.environment)
        await echoed(phone, "once more")


async def test_what_the_relay_says_to_keep_is_not_taken_for_delivered(tmp_path):
    """`relay.kept` for whatever the agent says to a device that is claimed to be away, and nothing of it arrives: it comes
    when the two meet."""
    lost = []

    def drop(who, message):
        if is_lying and who == "agent" and is_sealed(message):
            lost.append(message["type"])
            kept = {"ref": message["id"], "device": message["device"]}
            asyncio.ensure_future(relay.tell("agent", {"type": "relay.kept", "payload": kept}))
            return []
        return [message]

    is_lying = False
    async with LyingRelay(drop, mail=lambda who: mailbox() if who == "agent" else None) as relay:
        async with with_device(relay, tmp_path) as (agent, phone):
            is_lying = True
            await relay.tell("agent", {"type": "relay.device", "payload": {"device": phone.device, "online": False}})
            asked = await phone.client.send("chat.send", {"text": "is anybody there?"})
            async with asyncio.timeout(TIMEOUT):
                while "chat.done" not in lost:
                    await asyncio.sleep(0.02)
            await settled(relay)
            is_lying = False
            relay.cut("agent")
            assert (await phone.expect("chat.done", ref=asked)).payload["full_text"] == "You said: is anybody there?"
            await echoed(phone, "and on")


class Refusing:
    """For a lying relay: the first messages of this type of an end's are refused with a code that nobody knows."""

    def __init__(self, is_its, kind, code="NOBODY_KNOWS_THIS"):
        self.is_its, self.kind, self.code, self.ids = is_its, kind, code, []

    def __call__(self, who, message):
        if self.is_its(who) and message["type"] == self.kind and len(set(self.ids)) < 3:
            self.ids.append(message["id"])
            error = {"code": self.code, "message": "no", "ref": message["id"]}
            error |= {"device": message["device"]} if who == "agent" and "device" in message else {}
            asyncio.ensure_future(self.relay.tell(who, {"type": "chat.error", "payload": error}))
            return []
        return [message]

CODES = ["NOBODY_KNOWS_THIS", "", "relay_busy", 7, None, "RELAY_BUSY"]


@pytest.mark.parametrize("code", CODES)
async def test_coralmux_agent_bears_errors_that_nobody_knows(tmp_path, code):
    """What is refused so is not lost, is not sent again and again, and holds up nothing."""
    refusing = Refusing(lambda who: who == "agent", "chat.done", code)
    async with LyingRelay() as relay, with_device(relay, tmp_path) as (agent, phone):
        refusing.relay, relay.rewrite = relay, refusing
        asked = [await phone.client.send("chat.send", {"text": f"question {n}", "chat_id": f"{n}"}) for n in range(3)]
        async with asyncio.timeout(TIMEOUT):
            while len(set(refusing.ids)) < 3:
                await asyncio.sleep(0.02)
        await settled(relay)
        await asyncio.sleep(1.5)
        assert len(refusing.ids) <= 9, "again and again"
        relay.cut(phone.device)
        for ref in asked:
            await phone._until(lambda ref=ref: any(it["ref"] == ref for it in phone.of("chat.done")), ref, TIMEOUT)
        await echoed(phone, "and on")
        assert agent.process.poll() is None


@pytest.mark.parametrize("make", ["python", "rust", "browser"])
async def test_devices_bear_errors_that_nobody_knows(tmp_path, make):
    """The same of questions, with an agent on the Python client."""
    if reason := missing(make):
        pytest.fail(reason)
    refusing = Refusing(lambda who: who != "agent", "chat.send")
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home, contextlib.AsyncExitStack() as stack:
        link = await home.first()
        phone = await device_of(make, home, link, stack, tmp_path / "phone")
        await phone.send("chat.send", {"text": "hello"})
        device = (await home.agent.expect("chat.send", text="hello")).device
        refusing.relay, relay.rewrite = relay, refusing
        for number in range(3):
            await phone.send("chat.send", {"text": f"question {number}"})
        async with asyncio.timeout(TIMEOUT):
            while len(set(refusing.ids)) < 3:
                await asyncio.sleep(0.02)
        await asyncio.sleep(1.5)
        assert len(refusing.ids) <= 9, "again and again"
        relay.cut(device)
        for number in range(3):
            await home.agent.expect("chat.send", text=f"question {number}")
        assert len(home.agent.of("chat.send")) == 4


FORGED_TO_DEVICE = [
    {"type": "relay.admitted", "payload": {}},
    LOST,
    {"type": "relay.made.up", "payload": 7},
    {"type": "auth.fail", "payload": {"code": "UNAUTHORIZED", "message": "go away"}},
    {"type": "chat.done", "id": "x", "payload": {"full_text": "in clear"}},
    {"type": "device.welcome", "id": "y", "payload": {"devices": []}},
    ERROR,
]


@pytest.mark.parametrize("make", ["python", "rust", "browser"])
async def test_a_device_takes_the_relays_word_for_no_more_than_that(tmp_path, make):
    """It is told, as nobody's; no key is another; what the relay says to keep is sent again when the ends meet."""
    if reason := missing(make):
        pytest.fail(reason)
    lost = []

    def drop(who, message):
        if who == "agent" or message["type"] != "chat.send" or lost:
            return [message]
        lost.append(message["id"])
        kept = {"ref": message["id"], "device": who}
        asyncio.ensure_future(relay.tell(who, {"type": "relay.kept", "payload": kept}))
        return []

    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home, contextlib.AsyncExitStack() as stack:
        link = await home.first()
        phone = await stack.enter_async_context(device_of_make(make, link, tmp_path / "phone"))
        await phone.send("chat.send", {"text": "hello"})
        device = (await home.agent.expect("chat.send", text="hello")).device
        sid = home.agent.client.devices.peers[device].end.sessions.sid
        for message in FORGED_TO_DEVICE:
            if message["type"] != "auth.fail" or make != "browser":  # the page ends its connection, and says whose word it was
                await relay.tell(device, message)
        if make == "python":
            told = await phone.party.expect("chat.error", code="SOMETHING_NEW")
            assert told.protection is Protection.CLEAR
        else:
            while (told := await phone.event("error"))["code"] != "SOMETHING_NEW":
                pass
            assert not told.get("authenticated")
        relay.rewrite = drop
        await phone.send("chat.send", {"text": "kept, it says"})
        await relay.until_seen(lambda *_: lost)
        relay.cut(device)
        await home.agent.expect("chat.send", text="kept, it says")
        await home.agent.client.send("chat.done", {"full_text": "sealed"})
        assert await phone.message("chat.done") == {"full_text": "sealed"}
        assert home.agent.client.devices.peers[device].end.sessions.sid == sid
        assert [payload["text"] for payload in home.agent.of("chat.send")] == ["hello", "kept, it says"]
