"""A lasting connection to the relay: it authenticates, reconnects, and yields events. What is said to whom, and with
which keys, is the peers' (`peer`)."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ipaddress
import os
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, WebSocketException

from .agent_state import AgentState
from .device_state import DeviceState
from .devices import LINK_LIFE, Devices, Joining
from .end import DECRYPTION_FAILED, PAYLOAD_MAX, Protection, Waiting
from .keyed import AgentPeer
from .link import Link, LinkError, new_secret
from .mailbox import read_mail, whole_number
from .peer import as_object
from .plain import PlainPeer
from .retry import Retry
from .state import StateError
from .store import StateFile, has_state
from .wire import Unreadable, dumps, envelope

MAX_SIZE = 5 * 1024 * 1024
AUTH_TIMEOUT = 10
DELAYS = 1, 60  # seconds before the second try, and at most
EVENTS_MAX = 256
CLOSING = 2  # seconds for what is to leave when the client ends
# How long a phone without a secret waits for the agent's key before it speaks in clear to an agent that has none.
CLEAR_AFTER = 2
KNOWS_PROXIES = "proxy" in inspect.signature(connect.__init__).parameters  # websockets from version 15 on
RECORD_BYTES = 256  # at most, of what a record has around its payload
PLAIN = "plain"  # in place of a device's id: the phone that is none
FINAL = {4001: "another connection has taken this role", 4002: "the token was revoked"}


def leads_here(url: str) -> bool:
    """Whether a URL leads to this machine, which no proxy does."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


class Refused(Exception):
    """The relay does not want this client back: the token is unknown or revoked, or another one took its place."""


@dataclass(frozen=True)
class Event:
    """A message of the peer or of the relay, or one of the client's own making:

    - `client.connected`: authenticated; the payload is that of `auth.ok`
    - `client.agreed`: new keys are in use; `protection` says of what kind
    - `client.refused`: something was refused; the payload has `reason` and `message`
    - `client.restarted`: the agent's process is another one: an answer in progress has ended
    - `client.delayed`: the relay refused a message for now, and it leaves again by itself; the payload is the relay's
    - `client.expired`: the relay no longer has `count` messages that it had kept for this end
    - `client.lost`: the connection is gone and tried again; the payload has `message`

    At a device `client.enrolling` has the `code` that people compare, and `device.welcome` says that it is admitted. An
    agent with devices has `client.link` (the first `link`, which is open), `client.joining` (`device`, `name`,
    `platform`, `code`: a stranger's words), `client.joined` and `client.left`.

    `device` is the id of the device that it came from or is about. `sent_at`: when its sender sent it, in Unix
    milliseconds by that one's clock, where it says so: what the relay has kept may be days old.
    """

    type: str
    payload: Any
    id: str | None = None
    protection: Protection = Protection.CLEAR
    missed: int = field(default=0)
    device: str | None = None
    sent_at: int | None = None


class Client:
    """Use it as a context manager, and iterate over its events.

    `role` is "phone" or "agent". `clear_after`: seconds until a phone without a secret speaks in clear to an agent
    that agrees no keys; None: never. `resume`: whether breaks lose nothing, if the peer can do that, too; it needs a
    link with a secret. Other options go to `websockets.connect`.

    Devices: a phone whose link names its agent (`Link.agent`) becomes a device of it. `state` is the file that keeps its
    keys; without one they end with the process. Once it is one, it needs no link. `name`: what others see. With a `state`
    and the link of a plain phone it becomes a device when its agent has learnt to have some (`client.lifted`).

    An agent with a `state` file has devices, and one plain phone until the first of them has enrolled. `admit`: a
    function, or a coroutine, of a `Joining` that says whether who shows the agent's own link becomes a device; without
    one everybody does. `restored`: the file is of a backup. `keep_plain`: the plain phone's place stays open though
    nobody has used it for 7 days.
    """

    def __init__(
        self,
        role: str,
        link: Link | None = None,
        *,
        clear_after: float | None = CLEAR_AFTER,
        delays: tuple[float, float] = DELAYS,
        resume: bool = True,
        state: str | os.PathLike[str] | StateFile | None = None,
        name: str | None = None,
        admit: Callable[[Joining], Any] | None = None,
        restored: bool = False,
        keep_plain: bool = False,
        random: Callable[[int], bytes] = os.urandom,
        **options: Any,
    ) -> None:
        self.role, self.random = role, random
        self.retry = Retry(delays)
        self.lock = asyncio.Condition()  # who seals and sends holds it; notified when something may have changed
        self.plain: Any = None
        self.agent: Any = None
        self.devices: Any = None  # the other ends: for an agent with devices two of them
        self._resume = resume
        file = state if isinstance(state, StateFile) else StateFile(state)
        if role == "agent" and state is not None and link is not None:
            kept = AgentState.open(file, link, restored, random)
            self.devices = Devices(self, kept, admit, name or "Agent", keep_plain)
            self.plain = self._plain_of(link, kept.plain)
        elif role == "phone" and (link is None or link.agent or has_state(state)):
            own = DeviceState.open(file, link, name, random)
            link = link or Link(own.token, own.relay)
            self.agent = AgentPeer(self, own)
        elif link is not None:
            lifts = role == "phone" and state is not None and link.secret
            lift = (lambda text: self._lift(text, state, name)) if lifts else None
            self.plain = PlainPeer(self, link, clear_after, resume, lift)
        if link is None:
            raise ValueError("a link is missing")
        self.link = link
        proxy = {"proxy": None} if KNOWS_PROXIES and leads_here(link.relay) else {}  # else as the environment says
        timing = {
            "ping_interval": 30,
            "ping_timeout": 10,
            "close_timeout": 2,
        }  # the last: to wait for a dead connection
        self.options = proxy | timing | {"max_size": MAX_SIZE} | options
        self._paired = False
        self._unconfirmed: int | None = None  # the page of the mailbox that is to be confirmed
        self._ws: ClientConnection | None = None
        self._authenticated_at: float | None = None
        self._events: asyncio.Queue[Event | None] = (
            asyncio.Queue()
        )  # of no more than EVENTS_MAX, and what the peers may have unacknowledged
        self._read = asyncio.Event()  # somebody has taken an event
        self._due = asyncio.Event()  # there may be something to send
        self._ended: Exception | None = None

    def _plain_of(self, link: Link, secret: bytes | None) -> PlainPeer | None:
        return PlainPeer(self, Link(link.token, link.relay, secret), None, self._resume) if secret else None

    async def __aenter__(self) -> Client:
        self._tasks = [asyncio.create_task(self.run(part())) for part in (self._stay, self._pump)]
        return self

    async def __aexit__(self, error: type[BaseException] | None = None, *_: Any) -> None:
        if error is None and not self._ended:  # what was sent leaves, as far as the peers' windows let it
            with contextlib.suppress(TimeoutError, Refused):
                await self._until(lambda: all(peer.has_left for peer in self._peers), CLOSING)
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        try:
            for peer in self._peers:
                peer.keep()
        finally:
            for part in filter(None, (self.plain, self.agent, self.devices)):
                part.close()

    def __aiter__(self) -> Client:
        return self

    async def __anext__(self) -> Event:
        event = await self._events.get()
        self._read.set()
        if self._events.qsize() == EVENTS_MAX - 1:
            self._due.set()
        if event is None:
            self._events.put_nowait(None)
            raise self._ended or Refused("the client has ended")
        return event

    @property
    def paired(self) -> bool:
        """Whether the peer is here; at an agent with devices any of them."""
        return self._paired or bool(self.devices and any(peer.online for peer in self.devices.admitted))

    @property
    def protection(self) -> Protection:
        """Of what is sent now."""
        if self.agent or (self.devices and self.devices.admitted):
            return Protection.VERIFIED if any(peer.resumes for peer in self._peers) else Protection.WAITING
        return self.plain.end.protection if self.plain else Protection.WAITING

    @property
    def resumes(self) -> bool:
        """Whether breaks lose nothing, as was agreed with the peer last."""
        return any(peer.resumes for peer in self._peers)

    @property
    def fingerprint(self) -> str | None:
        plain: PlainPeer | None = self.plain
        return plain.end.fingerprint if plain else None

    @property
    def is_connected(self) -> bool:
        return self._ws is not None

    @property
    def _peers(self) -> list[Any]:
        return [*filter(None, (self.plain, self.agent)), *(self.devices.peers.values() if self.devices else ())]

    @property
    def _keyed(self) -> list[Any]:
        """The other ends for which the relay may keep something, and of which it may have kept something."""
        return [self.agent] if self.agent else list(self.devices.peers.values()) if self.devices else []

    def _keep(self, peer: Any, payload: Any, wake: bool) -> str:
        """How the relay keeps a message for a peer that is away: while who asked is here, nobody else is woken."""
        return "wake" if wake and self.devices and not self.devices.is_for_another(payload, peer) else "quiet"

    def _receivers(self, payload: Any, device: str | None) -> list[Any]:
        """Who gets a message: this device, the plain phone, or everybody. A plain phone takes whatever comes for an answer to what it has
        asked itself: so answers to devices are not for it."""
        if device == PLAIN or (device is not None and not self.devices):
            return [*filter(None, (self.plain, self.agent))]
        if device is not None:
            return [peer for peer in self.devices.admitted if peer.device == device]
        admitted = self.devices.admitted if self.devices else []
        if self.devices and self.devices.was_asked_by_device(payload):
            return list(admitted)
        # A plain phone that was never here makes nobody wait who has devices.
        plain = self.plain if self.plain and not (admitted and self.plain.end.keys is None) else None
        return [*filter(None, (plain, self.agent)), *admitted]

    async def send(
        self,
        kind: str,
        payload: Any = None,
        timeout: float | None = 30,
        device: str | None = None,
        wake: bool = False,
    ) -> str:
        """Sends a message to the peer, encrypted if keys are agreed; waits for connection and keys. Returns its id.
        ValueError: the payload has what JSON has not (NaN, infinity), or no message is large enough for it.

        With a peer that resumes it waits for nothing but room: the message is held until the peer has it (`delivered`).
        A message that the relay refuses comes back as the event `chat.error` whose payload has this id as `ref`.

        An agent sends to all of its devices, with an id for each, or to one `device`, or with PLAIN to the phone that is
        none; to one that was revoked, nothing. What is for a device, or an agent of devices, that is away, the relay keeps,
        if it keeps messages (pieces of answers aside). `wake`: a device is woken for it by a notification; where `ref`
        names the question of a device that is here, no other one is.
        """
        ids: list[str] = []
        payload = {} if payload is None else payload
        check(kind, payload)
        try:
            async with asyncio.timeout(timeout), self.lock:
                while not self._ended:
                    peers = self._receivers(payload, device)
                    if not peers and (device is not None or (self.devices and self.devices.was_asked_by_device(payload))):
                        return str(uuid.uuid4())  # who asked is here no more
                    if peers and all(peer.has_room(kind, payload) for peer in peers):
                        with contextlib.suppress(Waiting, ConnectionClosed):
                            for peer in peers:
                                ids.append(await peer.send(kind, payload, self._keep(peer, payload, wake)))
                            self._due.set()
                            # What may leave does so before the next message: pieces grow only where they have to wait.
                            await self.lock.wait_for(lambda: self._ended or not any(p.is_leaving for p in peers))
                            return ids[0]
                    await self.lock.wait()
        except TimeoutError:
            if not ids:
                raise
            return ids[0]
        raise self._ended

    async def delivered(self, timeout: float | None = 30) -> None:
        """Waits until the peer's process has all that was sent to it. With a peer that does not resume nobody knows."""
        await self._until(lambda: all(peer.is_idle for peer in self._peers), timeout)

    async def _until(self, is_so: Callable[[], bool], timeout: float | None) -> None:
        async with asyncio.timeout(timeout), self.lock:
            await self.lock.wait_for(lambda: is_so() or self._ended)
        if self._ended:
            raise self._ended

    async def disconnect(self) -> None:
        """Cuts the connection, as a network would: the client comes back by itself."""
        if self._ws:
            self._ws.transport.abort()

    async def invite(self, lifetime: float = LINK_LIFE) -> Link:
        """An agent's link for one more device, open for so many seconds. Raises NotDone."""
        devices: Devices = self.devices
        return await devices.invite(lifetime=lifetime)

    async def revoke(self, device: str, keep_invited: bool = False) -> None:
        """An agent's device is one no more, nor is what it invited, unless that is to be kept. Raises NotDone."""
        await self.devices.revoke(device, keep_invited)

    def refused(self, text: str) -> Refused:
        return Refused(text)

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await coroutine
        except ConnectionClosed:
            pass  # what was to be said is said again, or asked for
        except Exception as error:  # a fault of this client's: who waits for events or to send must hear of it
            self._ended = error
            await self._set_connection(None)
            self._events.put_nowait(None)

    async def _stay(self) -> None:
        while True:
            self._authenticated_at = None
            code: int | None = None
            try:
                async with connect(self.link.relay, **self.options) as ws:
                    await self._serve(ws)
                reason = f"closed by the relay ({ws.close_code} {ws.close_reason})"
                code = ws.close_code
                final = FINAL.get(code or 0)
            except Refused as refused:
                final = str(refused)
            except (OSError, TimeoutError, InvalidHandshake, Unreadable, WebSocketException) as error:
                rcvd = getattr(error, "rcvd", None)
                code = rcvd.code if rcvd else None
                reason, final = str(error), FINAL.get(code or 0)
            self._ended = Refused(final) if final else None
            await self._set_connection(None)
            if final:
                self._events.put_nowait(None)
                return
            await self.tell("client.lost", {"message": reason})
            since = self._authenticated_at
            await asyncio.sleep(self.retry.wait(None if since is None else time.monotonic() - since, code))

    async def _serve(self, ws: ClientConnection) -> None:
        """One connection, from `auth` to its end."""
        await ws.send(self._envelope("auth", {"token": self.link.token, "role": self.role} | self._auth())[0])
        kind, _, payload, _ = envelope(await asyncio.wait_for(ws.recv(), AUTH_TIMEOUT))
        payload = as_object(payload)
        if kind == "auth.fail":
            raise Refused(str(payload.get("message", "the relay refused the token")))
        if kind != "auth.ok":
            return
        ext = as_object(payload.get("ext"))
        if self.agent and (problem := self.agent.problem(ext)):
            raise Refused(problem)
        self._authenticated_at = time.monotonic()
        self._unconfirmed = None
        self._paired = payload.get("paired") is True
        await self.tell("client.connected", payload)
        await self._set_connection(ws)
        if self.devices:
            await self.devices.handle_connected(ext)
        if self.agent:
            self.agent.handle_connected(self._paired, read_mail(ext))
        if self.plain:
            await self.plain.handle_connected(ext.get("v") != 1)
        async for text in ws:
            try:
                message = envelope(text)
            except Unreadable as error:  # the peer's fault: it costs that message and nothing else
                await self.tell(
                    "client.refused", {"reason": "unreadable", "message": f"a message is passed over: {error}"}
                )
            else:
                await self._handle(*message)

    def _auth(self) -> dict[str, Any]:
        """What `auth` has beside token and role."""
        if self.devices or self.agent:
            keyed: Devices | AgentPeer = self.devices or self.agent
            return keyed.auth()
        return {"ext": 1} if self.plain.end.resume else {}

    async def _handle(self, kind: str, message_id: str | None, payload: Any, device: str | None) -> None:
        if kind in ("ping", "pong"):
            return
        if kind.startswith("relay.") and (self.devices or self.agent):
            await self._handle_relay(kind, as_object(payload))
        elif kind == "chat.error" and await self._handle_refused(as_object(payload)):
            pass
        elif kind == "status":
            await self._handle_status(as_object(payload))
        elif device is not None and self.devices:
            await self._handle_of_device(device, kind, message_id, payload)
        elif peer := self.agent or self.plain:
            if kind == "key_exchange":
                await peer.handle_key_exchange(message_id, payload)
            else:
                await peer.handle_message(kind, payload, message_id)

    async def _handle_relay(self, kind: str, payload: Any) -> None:
        if kind == "relay.mail":
            await self._handle_page(payload)
        elif self.devices is None:
            if kind == "relay.admitted":
                self.agent.handle_mail(read_mail(payload))
            elif kind == "relay.kept":
                self.agent.handle_kept(payload.get("ref"))
            await self.tell(kind, payload)  # the relay's word: what a device goes by is the agent's
        elif not self.devices.handle_answer(kind, payload):
            await self.devices.handle_relay(kind, payload)

    async def _handle_page(self, page: dict[str, Any]) -> None:
        """A page of what the relay has kept for this end has ended."""
        upto, is_last = whole_number(page.get("upto")), page.get("left") == 0
        confirmed = [peer.handle_page(upto, 0 if is_last else 1) for peer in self._keyed]
        if upto and all(confirmed):
            self._unconfirmed = upto
        if is_last:
            for peer in self._keyed:
                peer.handle_drained()
        self.is_due()
        if count := whole_number(page.get("lost")):
            text = f"{count} of the messages that waited at the relay have expired"
            await self.tell("client.expired", {"count": count, "message": text})

    async def _confirm(self) -> None:
        """Under the lock: all that a page has brought is on the disk, and the relay need not keep it."""
        if self._unconfirmed is not None:
            for peer in self._keyed:
                peer.keep()
            upto, self._unconfirmed = self._unconfirmed, None
            await self.put("relay.mail.ack", {"upto": upto})

    async def _handle_refused(self, error: dict[str, Any]) -> bool:
        """The relay refused something of ours; whether that is dealt with."""
        if error.get("code") == DECRYPTION_FAILED:  # which is the other end's to say
            return False
        if self.devices and error.get("ref") and self.devices.handle_answer("chat.error", error):
            return True
        if self.plain and self.plain.is_about_exchange(error.get("ref")):
            await self.plain.handle_unsaid(error)
            return True
        for peer in self._peers:
            if await peer.handle_refused(error):
                return True
        return False

    async def _handle_status(self, payload: Any) -> None:
        self._paired = payload.get("peer") == "online"
        if self.plain:
            self.plain.handle_pause()
        await self.tell("status", payload)
        if self.agent:
            self.agent.handle_online(self._paired)
        elif self.plain and self._paired:
            await self.plain.handle_online()

    async def _handle_of_device(self, device: str, kind: str, message_id: str | None, payload: Any) -> None:
        if kind == "key_exchange":
            await self.devices.handle_key_exchange(device, message_id, payload)
        elif peer := self.devices.peers.get(device):
            await peer.handle_message(kind, payload, message_id)

    def _lift(self, text: str, state: str | os.PathLike[str] | StateFile | None, name: str | None) -> None:
        """The agent makes a device of this phone, over the keys that the two have: it enrols with this link."""
        with contextlib.suppress(LinkError, StateError):
            link = Link.parse(text)
            if link.agent and link.token == self.link.token:
                file = state if isinstance(state, StateFile) else StateFile(state)
                kept = DeviceState.open(file, Link(link.token, self.link.relay, link.secret, link.agent), name)
                self.close_plain()
                self.agent = AgentPeer(self, kept)
                self.tell_now("client.lifted", {})
                if self._ws:
                    self._ws.transport.abort()  # and comes back as what it is now

    def change_plain(self) -> None:
        """The plain phone has to scan a new link."""
        kept = self.devices.state
        kept.plain = new_secret()
        kept.keep()
        self.plain.close()
        self.plain = self._plain_of(self.link, kept.plain)

    def close_plain(self) -> None:
        if self.plain:
            self.plain.close()
        self.plain = None

    async def _pump(self) -> None:
        """Sends what the rules of resuming let leave."""
        while True:
            self._due.clear()
            is_full, has_more = self._events.qsize() >= EVENTS_MAX, False
            async with self.lock:
                if self.devices:
                    self.devices.park_stalled()
                if self.is_connected and not is_full:  # nor is more taken from the relay than is looked at
                    with contextlib.suppress(ConnectionClosed):
                        await self._confirm()
                for peer in self._peers:
                    peer.resume.receiver.is_full = is_full
                    with contextlib.suppress(ConnectionClosed):  # the next one asks again for what is due
                        has_more |= self.is_connected and await peer.send_next()
                self.lock.notify_all()  # acknowledgements make room
            if has_more:
                continue
            deadlines: list[float | None] = [peer.deadline() for peer in self._peers] if self._ws else []
            deadline = min((at for at in deadlines if at is not None), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if deadline is None else max(0, deadline - time.monotonic())):
                    await self._due.wait()

    def is_due(self) -> None:
        """There may be something to send."""
        self._due.set()

    async def put(
        self,
        kind: str,
        payload: Any,
        message_id: str | None = None,
        device: str | None = None,
        keep: str | None = None,
    ) -> str:
        """Sends a message as it is; under the lock, and while there is a connection. Returns its id. `keep`: how the relay
        keeps it where its receiver is away; None: not at all."""
        text, message_id = self._envelope(kind, payload, message_id, device, keep)
        if self._ws is None:
            raise ConnectionClosed(None, None)
        await self._ws.send(text)
        return message_id

    @staticmethod
    def _envelope(
        kind: str,
        payload: Any,
        message_id: str | None = None,
        device: str | None = None,
        keep: str | None = None,
    ) -> tuple[str, str]:
        message_id = message_id or str(uuid.uuid4())
        now_ms = int(time.time() * 1000)
        message = {"v": 1, "type": kind, "id": message_id, "ts": now_ms, "payload": payload}
        more = ({"device": device} if device else {}) | ({"keep": keep} if keep else {})
        return dumps(message | more), message_id

    async def _set_connection(self, ws: ClientConnection | None) -> None:
        self._ws = ws
        if ws is None:
            for peer in self._peers:
                peer.handle_pause()
            if self.devices:
                self.devices.handle_pause()
        await self.notify()

    async def notify(self) -> None:
        """Wakes those who wait to send."""
        async with self.lock:
            self.lock.notify_all()

    async def tell(
        self,
        kind: str,
        payload: Any,
        message_id: str | None = None,
        protection: Protection = Protection.CLEAR,
        missed: int = 0,
        device: str | None = None,
    ) -> None:
        """An event, as soon as there is room for it."""
        while self._events.qsize() >= EVENTS_MAX:
            self._read.clear()
            await self._read.wait()
        self.tell_now(kind, payload, device, message_id, protection, missed)

    def tell_now(
        self,
        kind: str,
        payload: Any,
        device: str | None = None,
        message_id: str | None = None,
        protection: Protection = Protection.CLEAR,
        missed: int = 0,
        sent_at: int | None = None,
    ) -> None:
        if self.devices and kind == "chat.send" and message_id:
            self.devices.note_question(message_id, device)
        self._events.put_nowait(Event(kind, payload, message_id, protection, missed, device, sent_at))


def check(kind: str, payload: Any) -> None:
    """ValueError where no message has this type, or holds this payload and what numbers it."""
    if "\0" in kind:
        raise ValueError("a message's type cannot have the character U+0000")
    size = len(dumps(payload).encode())
    if size > PAYLOAD_MAX - RECORD_BYTES:
        raise ValueError(f"the payload has {size} bytes, and a message holds {PAYLOAD_MAX - RECORD_BYTES} at most")
