"""A lasting connection to the relay: it authenticates, reconnects, agrees on keys and yields events."""

import asyncio
import contextlib
import ipaddress
import os
import random
import time
import uuid
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, WebSocketException

from .end import DECRYPTION_FAILED, End, ExchangeError, OpenError, Protection, Waiting
from .wire import Unreadable, dumps, envelope

MAX_SIZE = 5 * 1024 * 1024
AUTH_TIMEOUT = 10
DELAYS = 1, 60  # seconds before the second try, and at most
EVENTS_MAX = 256
PADDING = 192  # sealed payloads are multiples of it: a piece of an answer, whose length would tell its words, has less
# Seconds between two openings that a phone makes because the agent seems to have other keys.
HEAL_INTERVAL = 5
RETRY_AFTER_MS_MAX = 65_000  # the longest that the relay can ask to wait with a key exchange
# How long a phone without a secret waits for the agent's key before it speaks in clear to an agent that has none.
CLEAR_AFTER = 2
FINAL = {4001: "another connection has taken this role", 4002: "the token was revoked"}


def as_object(payload):
    """The payload of a message that has to have an object for it."""
    return payload if isinstance(payload, dict) else {}


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
    that agrees no keys; None: never. Other options go to `websockets.connect`.
    """

    def __init__(self, role, link, *, clear_after=CLEAR_AFTER, delays=DELAYS, **options):
        self.role, self.link, self.clear_after, self.delays = role, link, clear_after, delays
        self.end = End(role, link.token, link.secret, os.urandom, PADDING)
        proxy = {"proxy": None} if leads_here(link.relay) else {}  # else as the environment says
        self.options = proxy | {"ping_interval": 30, "ping_timeout": 10, "max_size": MAX_SIZE} | options
        self.paired = False
        self._ws = None
        self._events = asyncio.Queue(EVENTS_MAX)
        self._changed = asyncio.Condition()
        self._exchanges = set()  # ids of our own, on this connection
        self._ended = None
        self._clear_timer = None
        self._heal_timer, self._heal_from = None, 0.0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        for task in filter(None, (self._task, self._clear_timer, self._heal_timer)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def __aiter__(self):
        return self

    async def __anext__(self):
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)
            raise self._ended
        return event

    @property
    def protection(self):
        return self.end.protection

    @property
    def fingerprint(self):
        return self.end.fingerprint

    async def send(self, kind, payload=None, timeout=30):
        """Sends a message to the peer, encrypted if keys are agreed; waits for connection and keys. Returns its id.
        ValueError: the payload has what JSON has not (NaN, infinity).

        A message that the relay refuses comes back as the event `chat.error` whose payload has this id as `ref`.
        """
        async with asyncio.timeout(timeout), self._changed:
            while not self._ended:
                if self._ws:
                    # Sealed and sent under one lock: counters go up on the wire, and no key is used before its answer.
                    with contextlib.suppress(Waiting, ConnectionClosed):
                        return await self._put(kind, self.end.seal(kind, payload))
                await self._changed.wait()
        raise self._ended

    async def disconnect(self):
        """Cuts the connection, as a network would: the client comes back by itself."""
        if self._ws:
            self._ws.transport.abort()

    async def _run(self):
        try:
            await self._stay()
        except Exception as error:  # a fault of this client's: who waits for events or to send must hear of it
            self._ended = error
            await self._set_connection(None)
            await self._events.put(None)

    async def _stay(self):
        delay, delay_max = self.delays
        while True:
            started = time.monotonic()
            try:
                async with connect(self.link.relay, **self.options) as ws:
                    await self._serve(ws)
                reason = f"closed by the relay ({ws.close_code} {ws.close_reason})"
                final = FINAL.get(ws.close_code)
            except Refused as refused:
                final = str(refused)
            except (OSError, TimeoutError, InvalidHandshake, Unreadable, WebSocketException) as error:
                rcvd = getattr(error, "rcvd", None)
                reason, final = str(error), FINAL.get(rcvd.code if rcvd else None)
            self._ended = Refused(final) if final else None
            await self._set_connection(None)
            if final:
                await self._events.put(None)
                return
            await self._tell("client.lost", {"message": reason})
            if time.monotonic() - started > delay_max:
                delay = self.delays[0]
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, delay_max)

    async def _serve(self, ws):
        """One connection, from `auth` to its end."""
        await ws.send(self._envelope("auth", {"token": self.link.token, "role": self.role})[0])
        kind, _, payload = envelope(await asyncio.wait_for(ws.recv(), AUTH_TIMEOUT))
        payload = as_object(payload)
        if kind == "auth.fail":
            raise Refused(str(payload.get("message", "the relay refused the token")))
        if kind != "auth.ok":
            return
        self._exchanges.clear()
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
            await self._tell(kind, payload)
            if self.paired:
                await self._online()
        elif kind == "key_exchange":
            await self._handle_key_exchange(message_id, payload)
        elif kind == "chat.error" and self._is_of_ours(as_object(payload).get("ref")):
            await self._handle_unsaid(payload)
        else:
            await self._handle_message(kind, payload, message_id)

    async def _handle_key_exchange(self, message_id, payload):
        reply_id = str(uuid.uuid4())
        try:
            async with self._changed:
                step = self.end.handle_key_exchange(message_id, payload, reply_id)
                if step.reply:
                    await self._exchange(step.reply, reply_id)
                self._changed.notify_all()
        except ExchangeError as error:
            await self._refuse(error)
            return
        if step.agreed:
            await self._tell("client.agreed", {}, protection=self.end.protection)

    async def _handle_message(self, kind, payload, message_id):
        try:
            opened = self.end.open(kind, payload)
        except OpenError as error:
            if error.of_other_keys:
                self._doubt()
            await self._refuse(error)
            return
        if kind == "chat.error" and opened.protection is Protection.CLEAR:
            # The word of nobody in particular, so it is no more than a hint.
            if isinstance(opened.payload, dict) and opened.payload.get("code") == DECRYPTION_FAILED:
                self._doubt()
        payload = as_object(opened.payload) if kind == "chat.error" else opened.payload
        await self._tell(kind, payload, message_id, opened.protection, opened.missed)
        await self._notify()  # an agent may have learned that its phone speaks in clear

    def _doubt(self):
        """A phone's keys may be worth nothing: it opens anew, though not for each such sign."""
        if self.end.doubt():
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
        after_ms = error.get("retry_after_ms")
        is_time = isinstance(after_ms, int | float) and not isinstance(after_ms, bool) and after_ms >= 0
        await asyncio.sleep(min(after_ms if is_time else 1000, RETRY_AFTER_MS_MAX) / 1000)
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
        await self._notify()

    async def _notify(self):
        """Wakes those who wait to send."""
        async with self._changed:
            self._changed.notify_all()

    async def _tell(self, kind, payload, message_id=None, protection=Protection.CLEAR, missed=0):
        await self._events.put(Event(kind, payload, message_id, protection, missed))
