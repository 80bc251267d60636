"""What a client has toward one other end over its connection: what it holds for it, and what it took from it.

`PlainPeer` (`plain`) has the keys of versions 1 and 2, `DevicePeer` and `AgentPeer` (`keyed`) those of version 3.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed

from .end import Exhausted, Waiting
from .records import Ack, Malformed, read_ack, read_record
from .resume import Resume
from .wire import dumps

if TYPE_CHECKING:
    from .client import Client
    from .end import Protection

ACKS_MAX = 64  # of whose ids are remembered, for the relay may refuse them
MONTH_MS = 31 * 86_400_000  # the longest that the relay can ask to wait: to the end of a month's quota


def as_object(payload: Any) -> dict[str, Any]:
    """The payload of a message that has to have an object for it."""
    return payload if isinstance(payload, dict) else {}


def wait_of(error: dict[str, Any], longest_ms: float) -> float:
    """The seconds that an error of the relay asks to wait."""
    after_ms: Any = error.get("retry_after_ms")
    is_time = isinstance(after_ms, int | float) and not isinstance(after_ms, bool) and after_ms >= 0
    return float(min(after_ms if is_time else 1000, longest_ms) / 1000)


class Peer:
    """One other end. `client` is whose it is; what this seals, it sends under the client's lock."""

    device: Any = None  # the id in the envelope, where one of the two ends is a device

    def __init__(self, client: Client) -> None:
        self.client = client
        self.resume = Resume(client.role)
        self.resumes = False  # as the newest keys have it, also while there is no connection
        self._missed = 0  # messages that the next event tells of
        self._acks: deque[str] = deque(maxlen=ACKS_MAX)  # ids of our own

    def seal_text(self, kind: str, message_id: str | None, text: str) -> dict[str, Any]:
        """The payload to send for this JSON text. Raises Waiting or Exhausted."""
        raise NotImplementedError

    def keep(self) -> None:
        """What has been taken is durable when this returns."""

    def has_room(self, kind: str, payload: Any) -> bool:
        """Whether a message may be held for it now."""
        return self.resume.sender.has_room(kind, payload)

    @property
    def is_leaving(self) -> bool:
        """Whether something that is held leaves by itself at once."""
        return self.resumes and self.resume.sender.is_leaving

    @property
    def is_idle(self) -> bool:
        return self.resume.sender.is_idle

    @property
    def has_left(self) -> bool:
        """Whether nothing is on its way out that could leave."""
        sender = self.resume.sender
        if sender.is_mailing:
            return sender.putting is None and sender.is_kept
        return not self.resume.is_agreed or sender.has_left

    def hold(self, kind: str, payload: Any, keep: str = "quiet") -> str:
        """Takes a message in, to be sent as the rules of resuming let it. Returns its id. `keep`: "wake" or "quiet", as the
        relay keeps it where the other end is away."""
        message_id = str(uuid.uuid4())
        given_up = self.resume.sender.push(kind, message_id, payload, keep)
        if given_up:
            text = f"{len(given_up)} of the oldest messages to the absent phone were given up"
            self.client.tell_now(
                "client.refused", {"reason": "given_up", "message": text, "refs": given_up}, self.device
            )
        return message_id

    def handle_pause(self) -> None:
        self.resume.handle_pause()

    def deadline(self) -> float | None:
        """When to come again even if nothing happens; None: never."""
        return self.resume.deadline()

    async def send_next(self) -> bool:
        """Sends one message, under the lock and while there is a connection; whether there may be another one."""
        leaving = self.resume.poll(time.monotonic()) if self.resumes else None
        if leaving is None:
            return False
        try:
            if isinstance(leaving, Ack):
                kind, message_id, keep = "ack", str(uuid.uuid4()), None
                self._acks.append(message_id)
            else:
                kind, message_id, keep = leaving.message.kind, leaving.message.id, leaving.keep
            text = self.resume.text(leaving)
            self.keep()  # for the text acknowledges what has been taken
            await self.client.put(kind, self.seal_text(kind, message_id, text), message_id, self.device, keep)
        except (Waiting, Exhausted, ConnectionClosed) as error:  # it is held, and leaves with the next agreement
            self.resume.handle_pause()
            if isinstance(error, Exhausted):
                self.handle_exhausted()
        return True

    def handle_exhausted(self) -> None:
        """The keys have sealed as many messages as they may."""

    async def handle_sealed(self, kind: str, payload: Any, message_id: str | None, protection: Protection) -> None:
        """A record or an acknowledgement, in clear."""
        now = time.monotonic()
        try:
            if kind == "ack":
                self.resume.handle_ack(now, read_ack(payload))
            else:
                record = read_record(payload)
                item = kind, record.p, message_id, protection, record.t
                if self.client.role == "phone" and self.resume.receiver.is_of_another_process(record):
                    self.client.tell_now("client.restarted", {}, self.device)
                taken, missed = self.resume.handle_record(now, record, len(dumps(record.p).encode()), item)
                self._missed += missed
                for item in taken:
                    self._tell_taken(*item)
            self._tell_undelivered()
        except Malformed as error:
            text = f"a message of the other end is passed over: {error}"
            await self.client.tell(
                "client.refused", {"reason": "malformed_record", "message": text}, device=self.device
            )
        self.client.is_due()

    def _tell_undelivered(self) -> None:
        """What a phone has sent and the agent never got: whether it is said again is the owner's to decide."""
        if gone := self.resume.sender.take_undelivered():
            text = f"{len(gone)} of the messages that waited for the agent never reached it"
            self.client.tell_now(
                "client.refused", {"reason": "undelivered", "message": text, "refs": gone}, self.device
            )

    def handle_kept(self, ref: Any) -> None:
        """The relay has a message of ours for the other end."""
        self.resume.sender.handle_kept(ref)
        self.client.is_due()

    def _tell_taken(
        self, kind: str, payload: Any, message_id: str | None, protection: Protection, sent_at: int | None
    ) -> None:
        """Does not wait for whoever reads the events: acknowledgements have to be read on. Instead nothing more is
        acknowledged by itself, and the peer's window fills."""
        payload = as_object(payload) if kind == "chat.error" else payload
        missed, self._missed = self._missed, 0
        self.handle_taken(kind, payload, message_id, protection, missed, sent_at)

    def handle_taken(
        self,
        kind: str,
        payload: Any,
        message_id: str | None,
        protection: Protection,
        missed: int,
        sent_at: int | None,
    ) -> None:
        """A message of the peer's, once and in order."""
        self.client.tell_now(kind, payload, self.device, message_id, protection, missed, sent_at)

    async def handle_refused(self, error: dict[str, Any]) -> bool:
        """The relay refused something that is held, or an acknowledgement; whether it did."""
        ref, code = error.get("ref"), error.get("code")
        is_full = code == "MAILBOX_FULL" and error.get("retry_after_ms") is None  # until the peer has been there
        after = 0.0 if is_full else wait_of(error, MONTH_MS)
        if ref in self._acks:
            if code != "PEER_OFFLINE":
                self.resume.receiver.handle_refused(time.monotonic() + after)
            return True
        verdict = self.resume.sender.handle_refused(time.monotonic(), ref, code, after)
        if verdict == "held" and code != "PEER_OFFLINE":
            await self.client.tell("client.delayed", error, device=self.device)
        self.client.is_due()
        return verdict == "held"
