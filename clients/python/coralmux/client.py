"""A lasting connection to the relay: it authenticates, reconnects, agrees on keys and yields events."""

import asyncio
import contextlib
import ipaddress
import os
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, WebSocketException

from .end import DECRYPTION_FAILED, End, Exhausted, ExchangeError, OpenError, Protection, Waiting
from .records import Ack, Malformed, read_ack, read_record
from .resume import Resume
from .retry import Retry
from .wire import Unreadable, dumps, envelope

MAX_SIZE = 5 * 1024 * 1024
AUTH_TIMEOUT = 10
DELAYS = 1, 60  # seconds before the second try, and at most
EVENTS_MAX = 256
PADDING = 192  # sealed payloads are multiples of it: a piece of an answer, whose length would tell its words, has less
# Seconds between two openings that a phone makes because the agent seems to have other keys.
HEAL_INTERVAL = 5
CLOSING = 2  # seconds for what is to leave when the client ends
ACKS_MAX = 64  # of whose ids are remembered, for the relay may refuse them
RETRY_AFTER_MS_MAX = 65_000  # the longest that the relay can ask to wait with a key exchange
MONTH_MS = 31 * 86_400_000  # and with any message: to the end of a month's quota
# How long a phone without a secret waits for the agent's key before it speaks in clear to an agent that has none.
CLEAR_AFTER = 2
FINAL = {4001: "another connection has taken this role", 4002: "the token was revoked"}


def as_object(payload):
    """The payload of a message that has to have an object for it."""
    return payload if isinstance(payload, dict) else {}


def wait_of(error, longest_ms):
    """The seconds that an error of the relay asks to wait."""
    after_ms = error.get("retry_after_ms")
    is_time = isinstance(after_ms, int | float) and not isinstance(after_ms, bool) and after_ms >= 0
    return min(after_ms if is_time else 1000, longest_ms) / 1000


def leads_here(url):
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
    - `client.lost`: the connection is gone and tried again; the payload has `message`
    """

    type: str
    payload: dict
    id: str | None = None
    protection: Protection = Protection.CLEAR
    missed: int = field(default=0)


class Client:
    """Use it as a context manager, and iterate over its events.

    `role` is "phone" or "agent". `clear_after`: seconds until a phone without a secret speaks in clear to an agent
    that agrees no keys; None: never. `resume`: whether breaks lose nothing, if the peer can do that, too; it needs a
    link with a secret. Other options go to `websockets.connect`.
    """

    def __init__(self, role, link, *, clear_after=CLEAR_AFTER, delays=DELAYS, resume=True, **options):
        self.role, self.link, self.clear_after = role, link, clear_after
        self.retry = Retry(delays)
        self.end = End(role, link.token, link.secret, os.urandom, PADDING, resume)
        self.resume = Resume(role)
        proxy = {"proxy": None} if leads_here(link.relay) else {}  # else as the environment says
        timing = {"ping_interval": 30, "ping_timeout": 10, "close_timeout": 2}  # the last: to wait for a dead connection
        self.options = proxy | timing | {"max_size": MAX_SIZE} | options
        self.paired = False
        self._ws = None
        self._events = asyncio.Queue()  # of no more than EVENTS_MAX, and what the peer may have unacknowledged
        self._read = asyncio.Event()  # somebody has taken an event
        self._changed = asyncio.Condition()
        self._resuming = False  # as the newest keys have it, also while there is no connection
        self._due = asyncio.Event()  # there may be something to send
        self._missed = 0  # messages that the next event tells of
        self._acks = deque(maxlen=ACKS_MAX)  # ids of our own
        self._exchanges = set()  # ids of our own, on this connection
        self._ended = None
        self._clear_timer = None
        self._heal_timer, self._heal_from = None, 0.0

    async def __aenter__(self):
        self._task, self._pump_task = (asyncio.create_task(self._run(part)) for part in (self._stay, self._pump))
        return self

    async def __aexit__(self, error=None, *_):
        if error is None and not self._ended:  # what was sent leaves, as far as the peer's window lets it
            with contextlib.suppress(TimeoutError, Refused):
                await self._until(lambda: not self.resume.is_agreed or self.resume.sender.has_left, CLOSING)
        for task in filter(None, (self._task, self._pump_task, self._clear_timer, self._heal_timer)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def __aiter__(self):
        return self

    async def __anext__(self):
        event = await self._events.get()
        self._read.set()
        if self.resume.receiver.is_full:
            self._due.set()
        if event is None:
            self._events.put_nowait(None)
            raise self._ended
        return event

    @property
    def protection(self):
        return self.end.protection

    @property
    def resumes(self):
        """Whether breaks lose nothing, as was agreed with the peer last."""
        return self._resuming

    @property
    def fingerprint(self):
        return self.end.fingerprint

    async def send(self, kind, payload=None, timeout=30):
        """Sends a message to the peer, encrypted if keys are agreed; waits for connection and keys. Returns its id.
        ValueError: the payload has what JSON has not (NaN, infinity).

        With a peer that resumes it waits for nothing but room: the message is held until the peer has it (`delivered`).
        A message that the relay refuses comes back as the event `chat.error` whose payload has this id as `ref`.
        """
        payload, held = {} if payload is None else payload, None
        try:
            async with asyncio.timeout(timeout), self._changed:
                while not self._ended:
                    if self._resuming:
                        if self.resume.sender.has_room(kind, payload):
                            held = self._hold(kind, payload)
                            # What may leave does so before the next message: pieces grow only where they have to wait.
                            await self._changed.wait_for(lambda: not self.resume.sender.is_leaving or self._ended)
                            return held
                    elif self._ws:
                        # Sealed and sent under one lock: counters go up on the wire, and no key is used before its
                        # answer.
                        with contextlib.suppress(Waiting, ConnectionClosed):
                            return await self._put(kind, self.end.seal(kind, payload))
                    await self._changed.wait()
        except TimeoutError:
            if held is None:
                raise
            return held
        raise self._ended

    def _hold(self, kind, payload):
        message_id = str(uuid.uuid4())
        given_up = self.resume.sender.push(kind, message_id, payload)
        self._due.set()
        if given_up:
            text = f"{len(given_up)} of the oldest messages to the absent phone were given up"
            payload = {"reason": "given_up", "message": text, "refs": given_up}
            self._events.put_nowait(Event("client.refused", payload))
        return message_id

    async def delivered(self, timeout=30):
        """Waits until the peer's process has all that was sent to it. With a peer that does not resume nobody knows."""
        await self._until(lambda: self.resume.sender.is_idle, timeout)

    async def _until(self, is_so, timeout):
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: is_so() or self._ended)
        if self._ended:
            raise self._ended

    async def disconnect(self):
        """Cuts the connection, as a network would: the client comes back by itself."""
        if self._ws:
            self._ws.transport.abort()

    async def _run(self, part):
        try:
            await part()
        except Exception as error:  # a fault of this client's: who waits for events or to send must hear of it
            self._ended = error
            await self._set_connection(None)
            self._events.put_nowait(None)

    async def _stay(self):
        while True:
            self._authenticated_at, code = None, None
            try:
                async with connect(self.link.relay, **self.options) as ws:
                    await self._serve(ws)
                reason = f"closed by the relay ({ws.close_code} {ws.close_reason})"
                code = ws.close_code
                final = FINAL.get(code)
            except Refused as refused:
                final = str(refused)
            except (OSError, TimeoutError, InvalidHandshake, Unreadable, WebSocketException) as error:
                rcvd = getattr(error, "rcvd", None)
                code = rcvd.code if rcvd else None
                reason, final = str(error), FINAL.get(code)
            self._ended = Refused(final) if final else None
            await self._set_connection(None)
            if final:
                self._events.put_nowait(None)
                return
            await self._tell("client.lost", {"message": reason})
            since = self._authenticated_at
            await asyncio.sleep(self.retry.wait(None if since is None else time.monotonic() - since, code))

    async def _serve(self, ws):
        """One connection, from `auth` to its end."""
        more = {"ext": 1} if self.end.resume else {}
        await ws.send(self._envelope("auth", {"token": self.link.token, "role": self.role} | more)[0])
        kind, _, payload = envelope(await asyncio.wait_for(ws.recv(), AUTH_TIMEOUT))
        payload = as_object(payload)
        if kind == "auth.fail":
            raise Refused(str(payload.get("message", "the relay refused the token")))
        if kind != "auth.ok":
            return
        self._authenticated_at = time.monotonic()
        self._exchanges.clear()
        self.resume.receiver.counted = as_object(payload.get("ext")).get("v") != 1
        self.paired = payload.get("paired") is True
        await self._tell("client.connected", payload)
        await self._set_connection(ws)
        await self._online()
        async for text in ws:
            try:
                message = envelope(text)
            except Unreadable as error:  # the peer's fault: it costs that message and nothing else
                await self._tell("client.refused", {"reason": "unreadable", "message": f"a message is passed over: {error}"})
            else:
                await self._handle(*message)

    async def _online(self):
        """Keys are agreed anew."""
        self.resume.handle_pause()
        async with self._changed:
            if announcement := self.end.handle_online():
                await self._exchange(announcement)
        for timer in filter(None, (self._clear_timer, self._heal_timer)):
            timer.cancel()
        if self.role == "phone" and self.clear_after is not None and self.paired:
            self._clear_timer = asyncio.create_task(self._allow_clear())

    async def _allow_clear(self):
        await asyncio.sleep(self.clear_after)
        if self.end.protection is Protection.WAITING and self.end.allow_clear():
            await self._notify()

    async def _handle(self, kind, message_id, payload):
        if kind in ("ping", "pong"):
            return
        if kind == "status":
            payload = as_object(payload)
            self.paired = payload.get("peer") == "online"
            self.resume.handle_pause()
            await self._tell(kind, payload)
            if self.paired:
                await self._online()
        elif kind == "key_exchange":
            await self._handle_key_exchange(message_id, payload)
        elif kind == "chat.error" and self._is_of_ours(as_object(payload).get("ref")):
            await self._handle_unsaid(payload)
        elif kind == "chat.error" and await self._handle_refused(as_object(payload)):
            pass
        else:
            await self._handle_message(kind, payload, message_id)

    async def _handle_key_exchange(self, message_id, payload):
        reply_id = str(uuid.uuid4())
        try:
            async with self._changed:
                step = self.end.handle_key_exchange(message_id, payload, reply_id)
                if step.agreed:
                    had_resumed, self._resuming = self._resuming, self.end.resumes
                if step.reply:
                    await self._exchange(step.reply, reply_id)
                if step.agreed and self._resuming:
                    self.resume.handle_agreed()
                self._changed.notify_all()
        except ExchangeError as error:
            await self._refuse(error)
            return
        if step.agreed:
            self._due.set()
            await self._tell("client.agreed", {}, protection=self.end.protection)
            if had_resumed and not self._resuming:
                await self._resume_no_more()

    async def _resume_no_more(self):
        """The peer is another one now, or somebody on the way says so for it."""
        self.resume.handle_pause()
        unknown = len(self.resume.sender.held)
        text = "the other end no longer resumes: breaks may lose messages"
        if unknown:
            text += f", and {unknown} of those that were sent may not have arrived"
        waiting = self.resume.sender.take_waiting()
        await self._tell("client.refused", {"reason": "resumes_no_more", "message": text})
        async with self._changed:
            for message in waiting:
                if self._ws:
                    with contextlib.suppress(Waiting, ConnectionClosed):
                        sealed = self.end.seal_text(message.kind, message.text)
                        await self._put(message.kind, sealed, message.id)

    async def _handle_message(self, kind, payload, message_id):
        try:
            opened = self.end.open(kind, payload)
        except OpenError as error:
            # While keys are agreed it may be of an opening whose answer went down with a connection: no news for anybody.
            if error.of_other_keys and self.end.agreeing:
                return
            if error.of_other_keys:
                self._doubt()
            await self._refuse(error)
            return
        if opened.resumes:
            await self._handle_sealed(kind, opened, message_id)
            return
        if kind == "chat.error" and opened.protection is Protection.CLEAR:
            # The word of nobody in particular, so it is no more than a hint.
            if isinstance(opened.payload, dict) and opened.payload.get("code") == DECRYPTION_FAILED:
                self._doubt()
        payload = as_object(opened.payload) if kind == "chat.error" else opened.payload
        await self._tell(kind, payload, message_id, opened.protection, opened.missed)
        await self._notify()  # an agent may have learned that its phone speaks in clear

    async def _handle_sealed(self, kind, opened, message_id):
        """A record or an acknowledgement of a peer that resumes."""
        now = time.monotonic()
        try:
            if kind == "ack":
                self.resume.handle_ack(now, read_ack(opened.payload))
            else:
                record = read_record(opened.payload)
                item = kind, record.p, message_id, opened.protection
                if self.role == "phone" and self.resume.receiver.is_of_another_process(record):
                    self._events.put_nowait(Event("client.restarted", {}))
                taken, missed = self.resume.handle_record(now, record, len(dumps(record.p).encode()), item)
                self._missed += missed
                for item in taken:
                    self._tell_taken(*item)
        except Malformed as error:
            text = f"a message of the other end is passed over: {error}"
            await self._tell("client.refused", {"reason": "malformed_record", "message": text})
        self._due.set()

    def _tell_taken(self, kind, payload, message_id, protection):
        """Does not wait for whoever reads the events: acknowledgements have to be read on. Instead nothing more is
        acknowledged by itself, and the peer's window fills."""
        payload = as_object(payload) if kind == "chat.error" else payload
        missed, self._missed = self._missed, 0
        self._events.put_nowait(Event(kind, payload, message_id, protection, missed))

    async def _handle_refused(self, error):
        """The relay refused something that is held, or an acknowledgement; whether it did."""
        ref, code = error.get("ref"), error.get("code")
        after = wait_of(error, MONTH_MS)
        if ref in self._acks:
            if code != "PEER_OFFLINE":
                self.resume.receiver.handle_refused(time.monotonic() + after)
            return True
        verdict = self.resume.sender.handle_refused(time.monotonic(), ref, code, after)
        if verdict == "held" and code != "PEER_OFFLINE":
            await self._tell("client.delayed", error)
        self._due.set()
        return verdict == "held"

    async def _pump(self):
        """Sends what the rules of resuming let leave."""
        while True:
            self._due.clear()
            self.resume.receiver.is_full = self._events.qsize() >= EVENTS_MAX
            async with self._changed:
                has_more = await self._send_next()
                self._changed.notify_all()  # acknowledgements make room
            if has_more:
                continue
            deadline = self.resume.deadline() if self._ws else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if deadline is None else max(0, deadline - time.monotonic())):
                    await self._due.wait()

    async def _send_next(self):
        """Sends one message under the lock; whether there may be another one."""
        leaving = self.resume.poll(time.monotonic()) if self._ws and self._resuming else None
        if leaving is None:
            return False
        try:
            if isinstance(leaving, Ack):
                kind, message_id = "ack", str(uuid.uuid4())
                self._acks.append(message_id)
            else:
                kind, message_id = leaving.message.kind, leaving.message.id
            await self._put(kind, self.end.seal_text(kind, self.resume.text(leaving)), message_id)
        except (Waiting, Exhausted, ConnectionClosed) as error:  # it is held, and leaves with the next agreement
            self.resume.handle_pause()
            if isinstance(error, Exhausted):
                self._doubt()
        return True

    def _doubt(self):
        """A phone's keys may be worth nothing: it opens anew, though not for each such sign."""
        if self.end.doubt():
            self.resume.handle_pause()
            at = max(time.monotonic(), self._heal_from)
            self._heal_from = at + HEAL_INTERVAL
            self._heal_timer = asyncio.create_task(self._heal(at))

    async def _heal(self, at):
        await asyncio.sleep(at - time.monotonic())
        reply_id = str(uuid.uuid4())
        async with self._changed:
            if self._ws and self.end.protection is Protection.WAITING and (opening := self.end.retry(reply_id)):
                with contextlib.suppress(ConnectionClosed):
                    await self._exchange(opening, reply_id)

    def _is_of_ours(self, ref):
        """Whether an error is about a key exchange of ours."""
        return isinstance(ref, str) and ref in self._exchanges

    async def _handle_unsaid(self, error):
        """The relay refused a key exchange of ours. That nobody is there is normal; else it is said again."""
        if error.get("code") == "PEER_OFFLINE":
            return
        await asyncio.sleep(wait_of(error, RETRY_AFTER_MS_MAX))
        reply_id = str(uuid.uuid4())
        async with self._changed:
            if again := self.end.retry(reply_id):
                await self._exchange(again, reply_id)

    async def _refuse(self, error):
        await self._tell("client.refused", {"reason": error.reason, "message": str(error)})
        if complaint := self.end.complaint(error):
            async with self._changed:
                await self._put(*complaint)

    async def _exchange(self, message, message_id=None):
        message_id = message_id or str(uuid.uuid4())
        self._exchanges.add(message_id)
        await self._put(*message, message_id=message_id)

    async def _put(self, kind, payload, message_id=None):
        """Under the lock, and while there is a connection."""
        text, message_id = self._envelope(kind, payload, message_id)
        await self._ws.send(text)
        return message_id

    @staticmethod
    def _envelope(kind, payload, message_id=None):
        message_id = message_id or str(uuid.uuid4())
        now_ms = int(time.time() * 1000)
        message = {"v": 1, "type": kind, "id": message_id, "ts": now_ms, "payload": payload}
        return dumps(message), message_id

    async def _set_connection(self, ws):
        self._ws = ws
        if ws is None:
            self.resume.handle_pause()
        await self._notify()

    async def _notify(self):
        """Wakes those who wait to send."""
        async with self._changed:
            self._changed.notify_all()

    async def _tell(self, kind, payload, message_id=None, protection=Protection.CLEAR, missed=0):
        while self._events.qsize() >= EVENTS_MAX:
            self._read.clear()
            await self._read.wait()
        self._events.put_nowait(Event(kind, payload, message_id, protection, missed))
