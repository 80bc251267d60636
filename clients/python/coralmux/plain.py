"""The other end of a pair: keys of version 2 or 1 by `End`, agreed anew with each connection; or none."""

import asyncio
import contextlib
import os
import time
import uuid

from websockets.exceptions import ConnectionClosed

from .end import DECRYPTION_FAILED, End, ExchangeError, OpenError, Protection, Waiting
from .peer import Peer, as_object, wait_of

PADDING = 192  # sealed payloads are multiples of it: a piece of an answer, whose length would tell its words, has less
# Seconds between two openings that a phone makes because the agent seems to have other keys.
HEAL_INTERVAL = 5
OPENING_LIFE = 30  # seconds after which a phone takes an opening, or the answer to it, for lost
RETRY_AFTER_MS_MAX = 65_000  # the longest that the relay can ask to wait with a key exchange


class PlainPeer(Peer):
    """`lift`: what a phone does with a link by which the agent makes it a device; None: it becomes none."""

    def __init__(self, client, link, clear_after, resume, lift=None):
        super().__init__(client)
        self.lift = lift
        self.clear_after = clear_after
        self.end = End(client.role, link.token, link.secret, os.urandom, PADDING, resume, lift is not None)
        self._exchanges = set()  # ids of our own, on this connection
        self._timers = {}  # name: task
        self._heal_from = 0.0

    def seal_text(self, kind, _message_id, text):
        return self.end.seal_text(kind, text)

    def handle_exhausted(self):
        self._doubt()

    def has_room(self, kind, payload):
        """Without resuming a message can leave or not, and the one who sends it waits until it can."""
        return super().has_room(kind, payload) if self.resumes else self.client.is_connected

    async def send(self, kind, payload):
        """Under the lock. Raises Waiting or ConnectionClosed."""
        if self.resumes:
            return self.hold(kind, payload)
        return await self.client.put(kind, self.end.seal(kind, payload))

    def handle_taken(self, kind, payload, message_id, protection, missed):
        if kind == "device.invite.result" and self.lift and isinstance(as_object(payload).get("link"), str):
            self.lift(payload["link"])
        else:
            super().handle_taken(kind, payload, message_id, protection, missed)

    def close(self):
        """Ends what was to happen later."""
        for timer in self._timers.values():
            timer.cancel()

    def _later(self, name, coroutine):
        """One of each name at a time; one that starts itself anew is at its end."""
        old = self._timers.get(name)
        if old and old is not asyncio.current_task():
            old.cancel()
        self._timers[name] = asyncio.create_task(coroutine)

    async def handle_connected(self, is_counted):
        """The connection is authenticated. `is_counted`: the relay takes an acknowledgement for a message."""
        self._exchanges.clear()
        self.resume.receiver.counted = is_counted
        await self.handle_online()

    async def handle_online(self):
        """Keys are agreed anew."""
        self.resume.handle_pause()
        self.close()
        async with self.client.lock:
            if announcement := self.end.handle_online():
                await self._exchange(announcement)
        if self.client.role == "phone" and self.clear_after is not None and self.client.paired:
            self._later("clear", self._allow_clear())

    async def _allow_clear(self):
        await asyncio.sleep(self.clear_after)
        if self.end.protection is Protection.WAITING and self.end.allow_clear():
            await self.client.notify()

    async def handle_key_exchange(self, message_id, payload):
        reply_id = str(uuid.uuid4())
        try:
            async with self.client.lock:
                step = self.end.handle_key_exchange(message_id, payload, reply_id)
                if step.agreed:
                    had_resumed, self.resumes = self.resumes, self.end.resumes
                if step.reply:
                    await self._exchange(step.reply, reply_id)
                if step.agreed and self.resumes:
                    self.resume.handle_agreed()
                self.client.lock.notify_all()
        except ExchangeError as error:
            await self._refuse(error)
            return
        if step.agreed:
            self.client.is_due()
            await self.client.tell("client.agreed", {}, protection=self.end.protection)
            if self.client.devices and self.resumes:
                self.client.devices.later(self._tell_devices())
            if had_resumed and not self.resumes:
                await self._resume_no_more()

    async def _tell_devices(self):
        """An agent with devices keeps that a plain phone is in use, and lifts one that knows devices."""
        if invite := await self.client.devices.handle_plain(self.end.peer_knows_v3):
            self.hold("device.invite.result", invite)
            self.client.is_due()

    async def _resume_no_more(self):
        """The peer is another one now, or somebody on the way says so for it."""
        self.resume.handle_pause()
        unknown = len(self.resume.sender.held)
        text = "the other end no longer resumes: breaks may lose messages"
        if unknown:
            text += f", and {unknown} of those that were sent may not have arrived"
        waiting = self.resume.sender.take_waiting()
        await self.client.tell("client.refused", {"reason": "resumes_no_more", "message": text})
        async with self.client.lock:
            for message in waiting:
                if self.client.is_connected:
                    with contextlib.suppress(Waiting, ConnectionClosed):
                        sealed = self.end.seal_text(message.kind, message.text)
                        await self.client.put(message.kind, sealed, message.id)

    async def handle_message(self, kind, payload, message_id):
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
            await self.handle_sealed(kind, opened.payload, message_id, opened.protection)
            return
        if kind == "chat.error" and opened.protection is Protection.CLEAR:
            # The word of nobody in particular, so it is no more than a hint.
            if isinstance(opened.payload, dict) and opened.payload.get("code") == DECRYPTION_FAILED:
                self._doubt()
        payload = as_object(opened.payload) if kind == "chat.error" else opened.payload
        await self.client.tell(kind, payload, message_id, opened.protection, opened.missed)
        await self.client.notify()  # an agent may have learned that its phone speaks in clear

    def _doubt(self):
        """A phone's keys may be worth nothing: it opens anew, though not for each such sign."""
        if self.end.doubt():
            self.resume.handle_pause()
            at = max(time.monotonic(), self._heal_from)
            self._heal_from = at + HEAL_INTERVAL
            self._later("heal", self._reopen(at - time.monotonic()))

    async def _reopen(self, after):
        """Opens anew after so many seconds, if the agent is there and there are still no keys in use."""
        await asyncio.sleep(after)
        if self.client.paired and self.end.protection is Protection.WAITING:
            await self._say_again()

    def is_about_exchange(self, ref):
        """Whether an error is about a key exchange of ours."""
        return isinstance(ref, str) and ref in self._exchanges

    async def handle_unsaid(self, error):
        """The relay refused a key exchange of ours. That nobody is there is normal; else it is said again."""
        if error.get("code") == "PEER_OFFLINE":
            return
        self._later("unsaid", self._say_again(wait_of(error, RETRY_AFTER_MS_MAX)))

    async def _say_again(self, after=0.0):
        await asyncio.sleep(after)
        reply_id = str(uuid.uuid4())
        async with self.client.lock:
            if self.client.is_connected and (again := self.end.retry(reply_id)):
                with contextlib.suppress(ConnectionClosed):
                    await self._exchange(again, reply_id)

    async def _refuse(self, error):
        await self.client.tell("client.refused", {"reason": error.reason, "message": str(error)})
        if complaint := self.end.complaint(error):
            async with self.client.lock:
                await self.client.put(*complaint)

    async def _exchange(self, message, message_id=None):
        message_id = message_id or str(uuid.uuid4())
        self._exchanges.add(message_id)
        await self.client.put(*message, message_id)
        if self.client.role == "phone" and self.end.secret:
            self._later("lost", self._reopen(OPENING_LIFE))
