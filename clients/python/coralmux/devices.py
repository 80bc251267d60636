"""An agent's devices (PROTOCOL.md, "Devices" and "Between devices and their agent"): it binds its token, opens links,
decides who becomes a device, and answers what devices ask about each other."""

from __future__ import annotations

import asyncio
import base64
import builtins
import contextlib
import hashlib
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed

from .agent_state import PLAIN_UNUSED, SEEN_INTERVAL, Device
from .crypto import b64url, unb64url
from .keyed import DevicePeer, now
from .mailbox import Mail, read_mail
from .peer import Peer, as_object
from .v3 import EnrolError, cleaned, invite, parse_key_exchange

if TYPE_CHECKING:
    from .agent_state import AgentState
    from .client import Client
    from .link import Link
    from .v3 import AgentEnd
    from .v3.enrol import Joined, Open

LINK_LIFE = 600  # seconds
PENDING_LIFE = 300  # seconds, after which the relay closes who was not admitted
ANSWER_TIME = 10  # seconds for the relay to confirm something
RETRY_TIME = 5  # seconds until it is told again
QUESTIONS_MAX = 1024  # of which is known who asked them
INVITES_MAX = 4  # open links that devices or the agent itself asked for
UNSURE = "RELAY_BUSY"


def _digest(raw: bytes) -> str:
    """An invite, as the relay is told of it."""
    return base64.b64encode(hashlib.sha256(raw).digest()).decode()


@dataclass(frozen=True)
class Joining:
    """Somebody has shown a link's secret. `name` and `platform` are a stranger's words; `code`: what the device shows."""

    device: str
    name: str
    platform: str
    code: str


Decide = Callable[[Joining], Any]


class NotDone(Exception):
    """The relay, or this agent, refuses something. `code` is one of PROTOCOL.md's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Devices:
    """`decide(joining)`: whether who comes with the agent's own link becomes a device; may be a coroutine. None: everybody.
    `agent_name`: as devices show it."""

    def __init__(
        self,
        client: Client,
        state: AgentState,
        decide: Decide | None = None,
        agent_name: str = "Agent",
        keep_plain: bool = False,
    ) -> None:
        self.client, self.state, self.decide = client, state, decide
        self.agent_name, self.keep_plain = agent_name, keep_plain
        self.peers: dict[str, DevicePeer] = {
            name: self._peer(name, end, position) for name, (end, position) in state.ends.items()
        }
        self.mail = Mail()  # what the relay keeps
        self._bound = asyncio.Event()  # on this connection
        self._lifts = False  # a plain phone, on this connection
        self._askers: dict[str, str | None] = {}  # id of a question: the device that asked it
        self._settling: asyncio.Task[None] | None = None
        self._asked: dict[str, asyncio.Future[Any]] = {}  # id of a request to the relay: its future
        self._deciders: dict[bytes, Decide] = {}  # a link's secret: who decides about who comes by it
        self._deciding: dict[str, asyncio.Future[Any]] = {}  # device: the future of an inviter's decision
        self._let_in: set[str] = set()  # devices that were, while the relay did not know of them
        self._to_revoke: set[str] = set()  # the relay has not confirmed it
        self._tasks: set[asyncio.Task[Any]] = set()

    def _peer(self, name: str, end: AgentEnd, position: dict[str, Any]) -> DevicePeer:
        def store(changed: dict[str, Any]) -> None:
            self.state.keep_device(name, changed)

        return DevicePeer(self.client, name, end, position, store, self._handle_said)

    def auth(self) -> dict[str, Any]:
        """What `auth` has beside token and role."""
        return {"ext": 1, "key": b64url(self.state.key)}

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.state.close()

    @property
    def admitted(self) -> list[DevicePeer]:
        return [peer for peer in self.peers.values() if peer.end.admitted]

    @property
    def is_bound(self) -> bool:
        return self._bound.is_set()

    @property
    def link(self) -> Link | None:
        """The first link, while it is unused and the relay knows of it; None: there is none."""
        return self.state.link(self.state.first) if self.is_bound and self.state.first else None

    def listed(self, peer: DevicePeer, you: str | None = None) -> dict[str, Any]:
        """A device as others see it."""
        fields = {name: value for name, value in asdict(self.state.devices[peer.device]).items() if value}
        for own in ("code", "invite"):
            fields.pop(own, None)
        online = {"online": True} if peer.online else {}
        return fields | online | ({"you": True} if peer.device == you else {})

    def list(self, you: str | None = None) -> builtins.list[dict[str, Any]]:
        return [self.listed(peer, you) for peer in self.admitted]

    # ---- The connection ----

    async def handle_connected(self, ext: dict[str, Any]) -> bool:
        """The relay has let the agent in. Whether it knows devices."""
        self._fail_asked()
        self._bound.clear()
        self._lifts = False
        self.mail = read_mail(ext)
        for peer in self.peers.values():
            peer.handle_connection(self.mail)
        if ext.get("v") != 1 or not isinstance(ext.get("bound"), bool):
            text = "the relay knows no devices: only a plain phone can connect"
            await self.client.tell("client.refused", {"reason": "no_devices", "message": text})
            return False
        listed: Any = ext.get("devices") if isinstance(ext.get("devices"), list) else []
        at_relay: dict[Any, bool] = {
            one.get("device"): one.get("online") is True for one in listed if isinstance(one, dict)
        }
        self._close_unused_plain()
        for name, online in at_relay.items():
            if name in self.peers:
                self._handle_device(name, online)
        self._settling = self.later(self._settle(ext, at_relay))
        return True

    def handle_pause(self) -> None:
        """The connection is gone."""
        if self._settling:
            self._settling.cancel()
        self._fail_asked()
        self._bound.clear()
        for peer in self.peers.values():
            peer.online = False
            peer.handle_pause()

    async def _settle(self, ext: dict[str, Any], at_relay: dict[Any, bool]) -> None:
        """Binds, opens the links again, and has the relay's list of devices as the agent's own is."""
        while True:
            try:
                if not self.is_bound and (not ext["bound"] or ext.get("legacy") is not (self.state.plain is not None)):
                    await self._bind()
                self._bound.set()
                await self._let_in_again(at_relay)
                for link in self.state.enrolments.links:
                    await self._open_at_relay(link)
                break
            except NotDone as error:  # a busy relay's, most of all
                await self.client.tell("client.refused", {"reason": error.code, "message": str(error)})
                await asyncio.sleep(RETRY_TIME)
        for name in set(at_relay) - set(self.state.devices) | self._to_revoke:
            if isinstance(name, str):
                self.later(self._revoke_at_relay(name))
        gone = [one for one in self.state.devices.values() if one.device not in at_relay]
        missing = [one.name for one in gone if not one.code and not one.invite]
        if missing:
            text = f"the relay knows these devices no more: {', '.join(missing)}; revoke them, and enrol them again"
            await self.client.tell("client.refused", {"reason": "devices_missing", "message": text})
        for peer in self.peers.values():
            if not peer.end.admitted and peer.device in at_relay:
                self.later(self._decide(peer))
        if self.link:
            await self.client.tell("client.link", {"link": self.link.for_apps(), "web": self.link.for_browsers()})

    async def _bind(self) -> None:
        self.mail = read_mail(await self.ask("relay.bind", {"legacy_phone": self.state.plain is not None}))
        for peer in self.admitted:
            peer.handle_mail(self.mail)

    async def _open_at_relay(self, link: Open) -> None:
        until = {} if link.until is None else {"ttl_sec": max(1, int(link.until - time.time()))}
        await self.ask("relay.invite", {"invite": _digest(invite(link.k))} | until)

    async def _let_in_again(self, at_relay: dict[Any, bool]) -> None:
        """Devices that have enrolled and that the relay does not know as such: their links are used, and it forgot them
        with the agent's last connection."""
        for known in list(self.state.devices.values()):
            if known.invite is None:
                continue
            if known.device in at_relay and not known.code:
                self._confirmed(known)
            elif known.device not in at_relay and time.time() - known.added_at / 1000 < LINK_LIFE:
                try:
                    await self.ask("relay.invite", {"invite": _digest(unb64url(known.invite)), "ttl_sec": LINK_LIFE})
                except NotDone as error:
                    if error.code != "INVITES_FULL":
                        raise

    def _confirmed(self, known: Device) -> None:
        """The relay knows it as a device."""
        known.invite = None
        self.peers[known.device].change()
        self.peers[known.device].keep()

    def _close_unused_plain(self) -> None:
        """A plain phone's place that nobody has used for a week is closed, if there is a device to use in its stead."""
        unused = self.state.plain_at is not None and time.time() - self.state.plain_at > PLAIN_UNUSED
        if self.state.plain and self.state.devices and unused and not self.keep_plain:
            self._close_plain()

    def _close_plain(self) -> None:
        self.state.plain = None
        self.state.keep()
        self.client.close_plain()

    def end_plain(self) -> None:
        """Closes the plain phone's place, also while the relay is away."""
        self._close_plain()
        self.later(self._bind_quietly())

    async def handle_plain(self, is_v3: bool) -> dict[str, Any] | None:
        """A plain phone has agreed on keys of version 2. `is_v3`: it can become a device, and does with what is returned,
        the payload of a `device.invite.result`; once a connection."""
        used = self.state.plain_at
        if used is None or time.time() - used > SEEN_INTERVAL:
            self.state.plain_at = time.time()
            if self.state.first:  # it is that phone's from now on, and enrols nobody
                k = self.state.first
                self.state.enrolments.forget(invite(k))
                self.state.keep()
                self.later(self._withdraw(k))
            self.state.keep()
        if is_v3 and not self._lifts:
            self._lifts = True
            with contextlib.suppress(NotDone, TimeoutError):
                async with asyncio.timeout(ANSWER_TIME):
                    await self._bound.wait()
                return self.invite_result(await self.invite(by="plain"))
        return None

    async def _withdraw(self, k: bytes) -> None:
        if not self.is_bound:  # then the relay knows of no link
            return
        with contextlib.suppress(NotDone):
            await self.ask("relay.invite", {"invite": _digest(invite(k)), "ttl_sec": 0})

    # ---- Who asked ----

    def note_question(self, message_id: str, device: str | None) -> None:
        self._askers[message_id] = device
        while len(self._askers) > QUESTIONS_MAX:
            del self._askers[next(iter(self._askers))]

    def was_asked_by_device(self, payload: Any) -> bool:
        """Whether a message is about a question of a device's."""
        return self._asker_of(payload) is not None

    def _asker_of(self, payload: Any) -> str | None:
        ref = as_object(payload).get("ref")
        return self._askers.get(ref) if isinstance(ref, str) else None

    def is_for_another(self, payload: Any, peer: Peer) -> bool:
        """Whether a message is about a question of another device, which is here."""
        asker = self.peers.get(self._asker_of(payload) or "")
        return asker is not None and asker is not peer and asker.online

    # ---- What is said to the relay ----

    async def ask(self, kind: str, payload: Any) -> dict[str, Any]:
        """A request to the relay, confirmed when this returns: the payload of its answer. Raises NotDone."""
        message_id = str(uuid.uuid4())
        answer = self._asked[message_id] = asyncio.get_running_loop().create_future()
        try:
            async with self.client.lock:
                if not self.client.is_connected:
                    raise NotDone(UNSURE, "the relay is away")
                await self.client.put(kind, payload, message_id)
            async with asyncio.timeout(ANSWER_TIME):
                said = as_object(await answer)
        except (TimeoutError, ConnectionClosed):
            raise NotDone(UNSURE, "the relay has not confirmed it") from None
        finally:
            self._asked.pop(message_id, None)
        if "code" in said:
            raise NotDone(str(said["code"]), str(said.get("message")))
        return said

    def handle_answer(self, kind: str, payload: dict[str, Any]) -> bool:
        """Whether this is the relay's answer to a request of ours."""
        ref = payload.get("ref")
        answer = self._asked.get(ref) if isinstance(ref, str) else None
        if answer is None:
            return kind == "relay.ok"
        if not answer.done():
            answer.set_result(payload if kind == "relay.ok" else {"code": UNSURE} | payload)
        return True

    def _fail_asked(self) -> None:
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result({"code": UNSURE, "message": "the relay is away"})

    async def _revoke_at_relay(self, name: str) -> None:
        self._to_revoke.add(name)
        while self.client.is_connected:
            try:
                await self.ask("relay.revoke", {"device": name})
            except NotDone:
                await asyncio.sleep(RETRY_TIME)
            else:
                self._to_revoke.discard(name)
                return

    def park_stalled(self) -> None:
        """A device that has not acknowledged for long counts as absent, until it says something."""
        for peer in self.admitted:
            if peer.stalls():
                peer.handle_stalled()
                self.later(self._park(peer))

    async def _park(self, peer: DevicePeer) -> None:
        with contextlib.suppress(NotDone):
            await self.ask("relay.park", {"device": peer.device})
            peer.handle_parked()

    # ---- What the relay says ----

    async def handle_relay(self, kind: str, payload: dict[str, Any]) -> None:
        name = payload.get("device")
        if kind == "relay.device" and isinstance(name, str) and name in self.peers:
            self._handle_device(name, payload.get("online") is True)
        elif kind == "relay.kept" and isinstance(name, str) and name in self.peers:
            self.peers[name].handle_kept(payload.get("ref"))
        await self.client.tell(kind, payload, device=name if isinstance(name, str) else None)

    def _handle_device(self, name: str, online: bool) -> None:
        self.peers[name].handle_online(online)
        known = self.state.devices[name]
        unix_ms = int(time.time() * 1000)
        if online and unix_ms - known.seen_at > SEEN_INTERVAL * 1000:
            known.seen_at = unix_ms
            self.peers[name].change()
            self.peers[name].keep()

    # ---- Becoming a device ----

    async def handle_key_exchange(self, name: str, message_id: str | None, payload: Any) -> None:
        exchange, peer = parse_key_exchange(payload), self.peers.get(name)
        try:
            if exchange is None:
                raise EnrolError("malformed")
            if exchange[0] == 1 and peer is None:
                answer = self.state.enrolments.handle_first(now(), self.client.random, name, message_id, payload)
                self.state.keep()
                async with self.client.lock:
                    await self.client.put("key_exchange", answer, None, name)
            elif exchange[0] == 3 and peer is None:
                await self._handle_joined(self.state.enrolments.handle_third(now(), name, payload))
            elif exchange[0] == 3 and peer and peer.end.repeats_enrolment(payload):
                self.later(self._welcome(peer) if peer.end.admitted else self._decide(peer))
            elif exchange[0] is None and peer:
                await peer.handle_opening(message_id, payload)
        except EnrolError as error:
            self.state.keep()
            text = f"somebody could not enrol: {error}"
            await self.client.tell("client.refused", {"reason": str(error), "message": text}, device=name)

    async def _handle_joined(self, joined: Joined) -> None:
        """The third message fits: its link is used up, and nobody is told before that is on the disk."""
        name, by = joined.end.device, self.state.invited.get(b64url(joined.invite))
        is_first = self.state.first is not None and invite(self.state.first) == joined.invite
        self.state.devices[name] = Device(name, joined.name, joined.platform, int(time.time() * 1000), by=by)
        self.state.devices[name].code, self.state.devices[name].invite = joined.code, b64url(joined.invite)
        peer = self.peers[name] = self._peer(name, joined.end, {"taken": [], "lost": []})
        peer.end.handle_drained()
        peer.change()
        peer.keep()
        if is_first and self.state.plain == self.state.first:
            self._close_plain()
            self.later(self._bind_quietly())
        self.state.keep()
        self.later(self._decide(peer, self._deciders.pop(joined.invite, None)))

    async def _bind_quietly(self) -> None:
        with contextlib.suppress(NotDone):  # the next connection says it again
            await self._bind()

    async def _decide(self, peer: DevicePeer, decide: Decide | None = None) -> None:
        """Asks who has to be asked, and admits or refuses."""
        decide = decide or self.decide
        known = self.state.devices.get(peer.device)
        if known is None or peer.device in self._deciding or peer.end.admitted:
            return
        joining = Joining(known.device, known.name, known.platform, known.code or "")
        answer = self._deciding[peer.device] = asyncio.get_running_loop().create_future()
        try:
            await self.client.tell("client.joining", asdict(joining), device=peer.device)
            if peer.device in self._let_in:
                admits = True
            elif known.by in self.peers:
                about = asdict(joining) | {"expires_at": int((time.time() + PENDING_LIFE) * 1000)}
                self.peers[known.by].hold("device.pending", about)
                self.client.is_due()
                async with asyncio.timeout(PENDING_LIFE):
                    admits = await answer
            elif known.by is None and decide:
                asked = decide(joining)
                admits = await asked if asyncio.iscoroutine(asked) else asked
            else:
                admits = True
            if admits:
                self._let_in.add(peer.device)
                await self.admit(peer)
                self._let_in.discard(peer.device)
            else:
                await self.refuse(peer)
        except TimeoutError:
            await self.refuse(peer)
        except NotDone as error:
            await self.client.tell("client.refused", {"reason": error.code, "message": str(error)}, device=peer.device)
            if error.code == "DEVICES_FULL":
                await self.refuse(peer)
        finally:
            self._deciding.pop(peer.device, None)

    async def admit(self, peer: DevicePeer) -> None:
        await self.ask("relay.admit", {"device": peer.device, "label": None})
        known = self.state.devices[peer.device]
        known.code, known.invite, known.owner = None, None, not any(one.owner for one in self.state.devices.values())
        if known.by == "plain":
            known.by = None
        peer.end.admit()
        peer.handle_mail(self.mail)
        peer.change()
        peer.keep()
        peer.online = True
        await self._welcome(peer)
        await self.client.tell("client.joined", self.listed(peer), device=peer.device)
        self._tell_list(but=peer.device)

    async def _welcome(self, peer: DevicePeer) -> None:
        await peer.welcome({"devices": self.list(peer.device), "name": self.agent_name})

    async def refuse(self, peer: DevicePeer) -> None:
        """Leaves no trace of it."""
        self._forget(peer.device)
        await self._revoke_at_relay(peer.device)

    def _forget(self, name: str) -> None:
        self.peers.pop(name, None)
        self._let_in.discard(name)
        if name in self.state.devices:
            self.state.forget(name)

    # ---- Inviting, revoking ----

    async def invite(
        self, by: str | None = None, lifetime: float = LINK_LIFE, decide: Decide | None = None
    ) -> Link:
        """A link for one more device, open for so many seconds. Raises NotDone. `decide`: about who comes by it."""
        self.state.enrolments.invites(now())  # those whose time is over are gone
        others = [link for link in self.state.enrolments.links if link.k != self.state.first]
        if len(others) >= INVITES_MAX:
            raise NotDone("INVITES_FULL", f"{INVITES_MAX} links are open: use one, or wait until it expires")
        k = self.state.invite(by, lifetime)
        try:
            await self._open_at_relay(self.state.enrolments.links[-1])
        except NotDone:
            self.state.enrolments.forget(invite(k))
            self.state.keep()
            raise
        open_ = {invite(link.k) for link in self.state.enrolments.links}
        self._deciders = {name: one for name, one in self._deciders.items() if name in open_}
        if decide:
            self._deciders[invite(k)] = decide
        return self.state.link(k)

    def invite_result(self, link: Link) -> dict[str, Any]:
        until = next(one.until for one in self.state.enrolments.links if one.k == link.secret)
        web = link.for_browsers()
        return {"link": link.for_apps()} | ({"web": web} if web else {}) | {"expires_at": int((until or 0) * 1000)}

    async def revoke(self, name: str, keep_invited: bool = False) -> int:
        """Forgets a device, and what it invited unless said otherwise: nothing is sealed for them from here on. How many
        devices these are."""
        if name not in self.state.devices:
            raise NotDone("DEVICE_UNKNOWN", f"there is no device {name}")
        gone = [name] if keep_invited else [name, *self.state.invited_by(name)]
        was_owner = self.state.devices[name].owner
        for one in gone:
            open_before = {link.k for link in self.state.enrolments.links}
            self._forget(one)
            for k in open_before - {link.k for link in self.state.enrolments.links}:
                self.later(self._withdraw(k))
        if self.state.plain:
            self.client.change_plain()
        for one in gone:
            await self.client.tell("client.left", {"device": one}, device=one)
        if was_owner and self.admitted:
            first = min(self.admitted, key=lambda peer: self.state.devices[peer.device].added_at)
            self.own(first.device)
        self._tell_list()
        for one in gone:
            await self._revoke_at_relay(one)
        return len(gone)

    def own(self, name: str) -> None:
        """Makes this device the owner."""
        for peer in self.admitted:
            self.state.devices[peer.device].owner = peer.device == name
            peer.change()
            peer.keep()

    def _tell_list(self, but: str | None = None) -> None:
        for peer in self.admitted:
            if peer.device != but:
                peer.hold("device.list.result", {"devices": self.list(peer.device)})
        self.client.is_due()

    # ---- What devices say ----

    def _handle_said(self, peer: DevicePeer, kind: str, payload: Any, message_id: str | None) -> None:
        if kind == "chat.send" and isinstance(payload, dict):
            self._show_others(peer, payload, message_id)
        elif kind.startswith("device."):
            self.later(self._answer(peer, kind, as_object(payload), message_id))

    def _show_others(self, asker: DevicePeer, payload: Any, message_id: str | None) -> None:
        """A question that one device asks shows on the others."""
        turn = {"role": "user", "text": payload.get("text"), "ref": message_id, "from": asker.device}
        if isinstance(payload.get("images"), list):
            turn["images"] = len(payload["images"])
        if "chat_id" in payload:
            turn["chat_id"] = payload["chat_id"]
        for peer in self.admitted:
            if peer is not asker:
                peer.hold("chat.turn", turn)

    async def _answer(self, peer: DevicePeer, kind: str, payload: Any, message_id: str | None) -> None:
        ref = {"ref": message_id} if message_id else {}
        try:
            if kind == "device.invite":
                self._reply(peer, "device.invite.result", self.invite_result(await self.invite(peer.device)) | ref)
                return
            await self._do(peer, kind, payload)
        except NotDone as error:
            self._reply(peer, "chat.error", {"code": error.code, "message": str(error)} | ref)
        else:
            self._reply(peer, "device.list.result", {"devices": self.list(peer.device)} | ref)

    def _reply(self, peer: DevicePeer, kind: str, payload: Any) -> None:
        if peer.device in self.peers:
            peer.hold(kind, payload)
            self.client.is_due()

    async def _do(self, peer: DevicePeer, kind: str, payload: Any) -> None:
        name, owns = payload.get("device"), self.state.devices[peer.device].owner
        if kind == "device.list":
            return
        if kind not in ("device.rename", "device.admit", "device.refuse", "device.revoke"):
            raise NotDone("INVALID_MESSAGE", f"there is no {kind[:64]}")
        if not isinstance(name, str):
            raise NotDone("INVALID_MESSAGE", "device is missing, or no text")
        if name not in self.peers:
            raise NotDone("DEVICE_UNKNOWN", "there is no such device")
        known = self.state.devices[name]
        if kind in ("device.admit", "device.refuse"):
            if known.by != peer.device:
                raise NotDone("NOT_ALLOWED", "only who invited it can decide")
            if (decision := self._deciding.get(name)) and not decision.done():
                decision.set_result(kind == "device.admit")
            return
        if name != peer.device and not owns:
            raise NotDone("NOT_ALLOWED", "only the owner can change or revoke another device")
        if kind == "device.revoke":
            await self.revoke(name, payload.get("keep_invited") is True)
            return
        text = payload.get("name")
        if not isinstance(text, str) or not text or cleaned(text) != text:
            raise NotDone("INVALID_MESSAGE", "a name has 1 to 64 characters, none of them a control character")
        known.name = text
        self.peers[name].change()
        self.peers[name].keep()
        self._tell_list(but=peer.device)

    def later(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        task = asyncio.create_task(self.client.run(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
