"""Agents and devices at the relay, without encryption: PROTOCOL.md, "Devices"."""

import base64
import contextlib
import hashlib
import os

from websockets.exceptions import ConnectionClosed

from client import Client


def base64url(raw):
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Key:
    """The credential of an agent or a device."""

    def __init__(self, raw=None):
        self.raw = raw or os.urandom(32)
        self.text = base64url(self.raw)
        self.sha256 = hashlib.sha256(self.raw).hexdigest()
        self.id = self.sha256[:16]


class Invite:
    def __init__(self):
        self.raw = os.urandom(16)
        self.text = base64url(self.raw)
        self.hash = base64.b64encode(hashlib.sha256(self.raw).digest()).decode()


class Peer(Client):
    """A client with the extension, perhaps with a key."""

    key = None
    # What a device was told when its agent admitted it.
    admitted = None

    @classmethod
    async def join(cls, relay, token, role, key=None, invite=None, more=None):
        """One that has authenticated."""
        self = await cls.open(relay)
        self.key = key
        await self.send("auth", shown(token, role, key, invite, more))
        self.auth_ok = await self.expect("auth.ok")
        return self

    @property
    def ext(self):
        """What `auth.ok` says of the extension, but for the mailbox."""
        ext = dict(self.auth_ok["ext"])
        ext.pop("mail", None)
        if "devices" in ext:
            ext["devices"] = [{key: one[key] for key in ("device", "online")} for one in ext["devices"]]
        return ext

    @property
    def mail(self):
        """What it says of the mailbox."""
        return self.auth_ok["ext"].get("mail")

    async def order(self, kind, payload=None):
        """Asks the relay for something, and gets it; what it says of the mailbox to who binds a token."""
        ref = await self.send(kind, payload)
        answer = await self.expect("relay.ok")
        mail = answer.pop("mail", None) if kind == "relay.bind" else None
        assert answer == {"ref": ref}
        return mail

    async def order_fails(self, code, kind, payload=None):
        ref = await self.send(kind, payload)
        return await self.expect_error(code, ref)

    async def say(self, kind="chat.send", payload=None, **more):
        """From a device: sends a message that names it."""
        return await self.send(kind, payload, device=self.key.id, **more)


def shown(token, role, key=None, invite=None, more=None):
    """The payload of an `auth`."""
    payload = {"token": token, "role": role, "ext": 1}
    payload |= {"key": key.text} if key else {}
    payload |= {"invite": invite.text} if invite else {}
    return payload | (more or {})


async def refusal(relay, token, role, key=None, invite=None, more=None):
    """What refuses a first message; or, where it is closed without a word, the code and reason."""
    async with await Peer.open(relay) as client:
        await client.send("auth", shown(token, role, key, invite, more))
        try:
            message = await client.receive()
        except ConnectionClosed:
            return await client.closed()
        assert message["type"] == "auth.fail", message
        assert message["payload"]["code"] == "UNAUTHORIZED"
        assert (await client.closed())[0] == 1008
        return message["payload"]["message"]


class Home:
    """A bound token with its agent, and whom that admits."""

    def __init__(self, relay, token, agent, stack):
        self.relay, self.token, self.agent, self.stack = relay, token, agent, stack

    async def pending(self, key=None, invite=None):
        """A device that has come with an invite, and is known to the agent."""
        key = key or Key()
        if invite is None:
            invite = Invite()
            await self.agent.order("relay.invite", {"invite": invite.hash, "ttl_sec": 600})
        device = await self.join(key, invite)
        assert await self.agent.expect("relay.pending") == {"device": key.id}
        return device

    async def join(self, key, invite=None):
        device = await Peer.join(self.relay, self.token, "phone", key, invite)
        return await self.stack.enter_async_context(device)

    async def device(self, label=None):
        """A device that the agent has admitted."""
        device = await self.pending()
        ref = await self.agent.send("relay.admit", {"device": device.key.id, "label": label})
        assert await self.agent.expect("relay.device") == {"device": device.key.id, "online": True}
        assert await self.agent.expect("relay.ok") == {"ref": ref}
        device.admitted = await device.expect("relay.admitted")
        assert set(device.admitted) <= {"mail", "push"}
        return device

    async def again(self, device):
        """The device connects once more; the agent hears of it."""
        device = await self.join(device.key)
        assert await self.agent.expect("relay.device") == {"device": device.key.id, "online": True}
        return device


@contextlib.asynccontextmanager
async def bound(relay, legacy_phone=False, token=None, key=None):
    token = token or await relay.token()
    async with contextlib.AsyncExitStack() as stack:
        agent = await stack.enter_async_context(await Peer.join(relay, token, "agent", key or Key()))
        await agent.order("relay.bind", {"legacy_phone": legacy_phone})
        yield Home(relay, token, agent, stack)
