"""33: an agent on the Python client, and the devices of the other makes, over the real relay."""

import contextlib

import pytest
from ends import NODE, RUST, ProcessEnd, missing
from household import Household, Party

TIMEOUT = 40


class PythonDevice:
    """The Python client with the interface of the other makes."""

    def __init__(self, link, folder):
        self.party = Party("phone", link, state=folder / "device.json")

    async def __aenter__(self):
        await self.party.__aenter__()
        return self

    async def __aexit__(self, *_):
        await self.party.__aexit__()

    async def send(self, kind, payload):
        await self.party.client.send(kind, payload)

    async def message(self, kind):
        return (await self.party.expect(kind)).payload


class OtherDevice(ProcessEnd):
    """A process; what it is told of other kinds is passed over."""

    async def message(self, kind):
        while (event := await self.event("message", timeout=TIMEOUT))["type"] != kind:
            pass
        return event["payload"]


def device(make, link, folder):
    if make == "python":
        return PythonDevice(link, folder)
    if reason := missing(make):
        pytest.fail(reason)
    if make == "rust":
        return OtherDevice(RUST, "device", link.for_apps(), folder)
    return OtherDevice("node", NODE / "end.mjs", link.for_browsers())


MAKES = ["python", "rust", "browser"]


@pytest.mark.parametrize("make", MAKES)
async def test_a_device_of_each_make_with_the_python_agent(relay, tmp_path, make):
    """It enrols, asks, hears answers and what others ask, over the agent's restart and over a session of new keys."""
    async with Household(relay.url, await relay.token(), tmp_path) as home, contextlib.AsyncExitStack() as stack:
        phone = await home.device("phone")
        end = await stack.enter_async_context(device(make, await home.agent.client.invite(), tmp_path / "other"))
        await end.send("chat.send", {"text": "hello"})
        asked = await home.agent.expect("chat.send", text="hello")
        assert (await phone.expect("chat.turn")).payload["from"] == asked.device
        for seq in range(3):
            await home.agent.client.send("chat.stream", {"delta": f"{seq} ", "seq": seq + 1})
        assert [await end.message("chat.stream") for _ in range(3)] == [{"delta": f"{n} ", "seq": n + 1} for n in range(3)]
        await phone.client.send("chat.send", {"text": "from the other"})
        turn = await end.message("chat.turn")
        assert (turn["text"], turn["from"]) == ("from the other", phone.device)
        await home.agent.__aexit__()
        await end.send("chat.send", {"text": "while the agent was away"})
        await home.start()
        await home.agent.expect("chat.send", text="while the agent was away")
        await home.agent.client.send("chat.done", {"full_text": "after the restart"})
        assert await end.message("chat.done") == {"full_text": "after the restart"}
        agent = home.agent.client.devices.peers[asked.device]
        old = agent.end.sessions.sid
        async with home.agent.client.lock:  # a hint that keys differ: the device opens a session, and all goes on
            await home.agent.client.put("chat.error", {"code": "DECRYPTION_FAILED", "message": "?"}, None, asked.device)
        await home.agent.expect("client.agreed")
        assert agent.end.sessions.sid != old
        await end.send("chat.send", {"text": "with new keys"})
        await home.agent.expect("chat.send", text="with new keys")
        await home.agent.client.send("chat.done", {"full_text": "to new keys"})
        assert await end.message("chat.done") == {"full_text": "to new keys"}
        assert not home.agent.of("client.refused")
