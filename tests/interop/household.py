"""An agent and its devices on the Python client, against any relay: what each is told is kept, and can be waited for."""

import asyncio
import contextlib

from coralmux import Client, Link, Refused

TIMEOUT = 30  # much more than anything takes


class Party:
    """One client. `told` has all of its events; `ended` the reason for which the relay or the client ended it."""

    def __init__(self, role, link, **options):
        self.client = Client(role, link, proxy=None, delays=(0.01, 0.1), **options)
        self.told, self.at, self.changed, self.ended = [], 0, asyncio.Event(), None

    async def __aenter__(self):
        await self.client.__aenter__()
        self.task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_):
        await self.client.__aexit__()
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def crash(self):
        """Ends as a killed process would: nothing more leaves, nothing more is kept."""
        for peer in self.client._peers:
            peer.keep = lambda: None
        await self.client.__aexit__(KeyboardInterrupt)
        self.task.cancel()

    async def _listen(self):
        try:
            async for event in self.client:
                self.told.append(event)
                self.changed.set()
        except Refused as refused:
            self.ended = str(refused)
            self.changed.set()

    async def _until(self, is_so, what, timeout):
        try:
            async with asyncio.timeout(timeout):
                while not is_so():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            told = [(event.type, event.payload) for event in self.told[self.at :]]
            raise AssertionError(f"{what} did not come; since the last: {told}") from None

    async def expect(self, kind, timeout=TIMEOUT, **fields):
        """The next event of this type, whose payload has these fields; others are passed over."""

        def find():
            while self.at < len(self.told):
                event = self.told[self.at]
                self.at += 1
                if event.type == kind and all(event.payload.get(name) == value for name, value in fields.items()):
                    return event
            return None

        found = []
        await self._until(lambda: found.append(find()) or found[-1], (kind, fields), timeout)
        return found[-1]

    async def end(self, timeout=TIMEOUT):
        """Why it was ended."""
        await self._until(lambda: self.ended, "an end", timeout)
        return self.ended

    def of(self, kind):
        """The payloads of all events of this type so far."""
        return [event.payload for event in self.told if event.type == kind]

    @property
    def device(self):
        return self.client.agent.device


class Household:
    """An agent with a state file in `folder`, at a relay's URL."""

    def __init__(self, url, token, folder, **options):
        self.url, self.token, self.folder, self.options = url, token, folder, options
        self.link = Link(token, url)
        self.stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        await self.stack.__aenter__()
        await self.start()
        return self

    async def __aexit__(self, *error):
        await self.stack.__aexit__(*error)

    async def start(self, **more):
        """The agent, for the first time or again."""
        self.agent = Party("agent", self.link, state=self.folder / "agent.json", **self.options | more)
        await self.stack.enter_async_context(self.agent)

    async def first(self):
        """The agent's first link."""
        return Link.parse((await self.agent.expect("client.link")).payload["link"])

    def party(self, name, link=None, **options):
        """A phone that has a state file; it is not started yet."""
        return Party("phone", link, state=self.folder / f"{name}.json", name=name, **options)

    async def device(self, name, link=None, **options):
        """A device that has enrolled with this link, or the first one, or is started again."""
        known = (self.folder / f"{name}.json").exists()
        if link is None and not known:
            link = await self.first() if not self.agent.client.devices.peers else await self.agent.client.invite()
        party = await self.stack.enter_async_context(self.party(name, link, **options))
        await party.expect("client.connected" if known else "client.agreed")
        return party


async def asks(device, agent, text="a question"):
    """A question of the device arrives, once."""
    message_id = await device.client.send("chat.send", {"text": text})
    event = await agent.expect("chat.send", text=text)
    assert (event.id, event.device) == (message_id, device.device)
    return event


async def tells(agent, devices, text="an answer"):
    """An answer reaches these devices."""
    await agent.client.send("chat.done", {"full_text": text})
    for device in devices:
        await device.expect("chat.done", full_text=text)


async def request(device, kind, payload=None, result="device.list.result"):
    """What the agent answers a device that asks about devices."""
    asked = await device.client.send(kind, payload)
    return (await device.expect(result, ref=asked)).payload
