"""The other end of a pair: keys of version 2 or 1 by `End`, agreed anew with each connection; or none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed

from .end import DECRYPTION_FAILED, End, Exchange, ExchangeError, OpenError, Protection, Waiting
from .peer import Peer, as_object, wait_of

if TYPE_CHECKING:
    from .client import Client
    from .link import Link

PADDING = 192  # sealed payloads are multiples of it: a piece of an answer, whose length would tell its words, has less
# Seconds between two openings that a phone makes because the agent seems to have other keys.
HEAL_INTERVAL = 5
OPENING_LIFE = 30  # seconds after which a phone takes an opening, or the answer to it, for lost
RETRY_AFTER_MS_MAX = 65_000  # the longest that the relay can ask to wait with a key exchange


class PlainPeer(Peer):
    """`lift`: what a phone does with a link by which the agent makes it a device; None: it becomes none."""

    def __init__(
        self,
        client: Client,
        link: Link,
        clear_after: float | None,
        resume: bool,
        lift: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(client)
        self.lift = lift
        self.clear_after = clear_after
        self.end = End(client.role, link.token, link.secret, os.urandom, PADDING, resume, lift is not None)
        self._exchanges: set[str] = set()  # ids of our own, on this connection
        self._timers: dict[str, asyncio.Task[None]] = {}  # name: task
        self._heal_from = 0.0

    def seal_text(self, kind: str, _message_id: str | None, text: str) -> dict[str, Any]:
        return self.end.seal_text(kind, text)

    def handle_exhausted(self) -> None:
        self._doubt()

    def has_room(self, kind: str, payload: Any) -> bool:
        """Without resuming a message can leave or not, and the one who sends it waits until it can."""
        return super().has_room(kind, payload) if self.resumes else self.client.is_connected

    async def send(self, kind: str, payload: Any, _keep: str) -> str:
        """Under the lock. Raises Waiting or ConnectionClosed."""
        if self.resumes:
            return self.hold(kind, payload)
        return await self.client.put(kind, self.end.seal(kind, payload))

    def handle_taken(
        self,
        kind: str,
        payload: Any,
        message_id: str | None,
        protection: Protection,
        missed: int,
        sent_at: int | None,
    ) -> None:
        if kind == "device.invite.result" and self.lift and isinstance(as_object(payload).get("link"), str):
            self.lift(payload["link"])
        else:
            super().handle_taken(kind, payload, message_id, protection, missed, sent_at)

    def close(self) -> None:
        """Ends what was to happen later."""
        for timer in self._timers.values():
            timer.cancel()

    def _later(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        """One of each name at a time; one that starts itself anew is at its end."""
        old = self._timers.get(name)
        if old and old is not asyncio.current_task():
            old.cancel()
        self._timers[name] = asyncio.create_task(coroutine)

    async def handle_connected(self, is_counted: bool) -> None:
        """The connection is authenticated. `is_counted`: the relay takes an acknowledgement for a message."""
        self._exchanges.clear()
        self.resume.receiver.counted = is_counted
        await self.handle_online()

    async def handle_online(self) -> None:
        """Keys are agreed anew."""
        self.resume.handle_pause()
        self.close()
        async with self.client.lock:
            if announcement := self.end.handle_online():
                await self._exchange(announcement)
        if self.client.role == "phone" and self.clear_after is not None and self.client.paired:
            self._later("clear", self._allow_clear())

    async def _allow_clear(self) -> None:
        await asyncio.sleep(self.clear_after or 0)
        if self.end.protection is Protection.WAITING and self.end.allow_clear():
            await self.client.notify()

    async def handle_key_exchange(self, message_id: str | None, payload: Any) -> None:
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

    async def _tell_devices(self) -> None:
        """An agent with devices keeps that a plain phone is in use, and lifts one that knows devices."""
        if self.client.devices and (invite := await self.client.devices.handle_plain(self.end.peer_knows_v3)):
            self.hold("device.invite.result", invite)
            self.client.is_due()

    async def _resume_no_more(self) -> None:
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
                        sealed = self.end.seal_text(message.kind, message.text or "")
                        await self.client.put(message.kind, sealed, message.id)

    async def handle_message(self, kind: str, payload: Any, message_id: str | None) -> None:
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

    def _doubt(self) -> None:
        """A phone's keys may be worth nothing: it opens anew, though not for each such sign."""
        if self.end.doubt():
            self.resume.handle_pause()
            at = max(time.monotonic(), self._heal_from)
            self._heal_from = at + HEAL_INTERVAL
            self._later("heal", self._reopen(at - time.monotonic()))

    async def _reopen(self, after: float) -> None:
        """Opens anew after so many seconds, if the agent is there and there are still no keys in use."""
        await asyncio.sleep(after)
        if self.client.paired and self.end.protection is Protection.WAITING:
            await self._say_again()

    def is_about_exchange(self, ref: Any) -> bool:
        """Whether an error is about a key exchange of ours."""
        return isinstance(ref, str) and ref in self._exchanges

    async def handle_unsaid(self, error: dict[str, Any]) -> None:
        """The relay refused a key exchange of ours. That nobody is there is normal; else it is said again."""
        if error.get("code") == "PEER_OFFLINE":
            return
        self._later("unsaid", self._say_again(wait_of(error, RETRY_AFTER_MS_MAX)))

    async def _say_again(self, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        reply_id = str(uuid.uuid4())
        async with self.client.lock:
            if self.client.is_connected and (again := self.end.retry(reply_id)):
                with contextlib.suppress(ConnectionClosed):
                    await self._exchange(again, reply_id)

    async def _refuse(self, error: ExchangeError | OpenError) -> None:
        await self.client.tell("client.refused", {"reason": error.reason, "message": str(error)})
        if complaint := self.end.complaint(error):
            async with self.client.lock:
                await self.client.put(*complaint)

    async def _exchange(self, message: Exchange, message_id: str | None = None) -> None:
        message_id = message_id or str(uuid.uuid4())
        self._exchanges.add(message_id)
        kind, payload = message
        await self.client.put(kind, payload, message_id)
        if self.client.role == "phone" and self.end.secret:
            self._later("lost", self._reopen(OPENING_LIFE))
