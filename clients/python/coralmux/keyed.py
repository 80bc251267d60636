"""The two ends of version 3: a device as its agent has it, and the agent as its device has it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .end import DECRYPTION_FAILED, Protection
from .noise import HandshakeError
from .peer import Peer, as_object
from .plain import PADDING
from .v3 import EnrolError, Enrolment, Now, OpenError, parse_key_exchange
from .wire import dumps

if TYPE_CHECKING:
    from .client import Client
    from .device_state import DeviceState
    from .mailbox import Mail
    from .v3 import AgentEnd
    from .v3.enrol import Enrolled

STALLED = 15  # seconds in which a device has acknowledged nothing: it sleeps
POLL_INTERVAL = 60  # seconds between two looks at whether the session has aged
ENROL_POLL = 1  # the same while it enrols
SPENT = "the agent does not answer this link: show a new one"


def now() -> Now:
    return Now(time.monotonic(), time.time())


class KeyedPeer(Peer):
    """`end` has the keys, of which and of the receiver's position `store(state)` keeps what changed."""

    protection = Protection.VERIFIED

    def __init__(
        self,
        client: Client,
        device: str,
        end: Any,
        position: dict[str, Any],
        store: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(client)
        self.device, self.store = device, store
        self.resume.receiver.restore(position["taken"], position["lost"])
        self._is_changed = False
        # What the relay has kept for this end is coming, and the other one is not there meanwhile.
        self.is_draining = False
        self.use(end)

    def use(self, end: Any) -> None:
        self.end: Any = end  # AgentEnd or DeviceEnd; None before there is one
        self.resumes = end is not None and end.admitted
        if end:
            end.sessions.padding = PADDING

    @property
    def state(self) -> dict[str, Any]:
        receiver = self.resume.receiver
        return {"end": self.end and self.end.state, "taken": receiver.stored, "lost": receiver.stored_lost}

    def keep(self) -> None:
        if self._is_changed:
            self.store(self.state)
            self._is_changed = False

    def change(self) -> None:
        """Keys or position have changed: kept before anything is said about it."""
        self._is_changed = True

    def has_room(self, kind: str, payload: Any) -> bool:
        return self.resumes and super().has_room(kind, payload)

    def seal_text(self, kind: str, message_id: str | None, text: str) -> dict[str, Any]:
        payload: dict[str, Any]
        payload, to_store = self.end.seal_text(self.client.random, kind, message_id, text)
        if to_store:
            self.change()
            self.keep()
        return payload

    async def send(self, kind: str, payload: Any, keep: str) -> str:
        return self.hold(kind, payload, keep)

    def handle_connection(self, mail: Mail) -> None:
        """The relay has let this end in."""
        self.is_draining = mail.waits
        self.resume.handle_connected(mail.bytes_max, mail.waits)
        if self.end:
            self.end.handle_connected()
            if not mail.waits:
                self.end.handle_drained()

    def handle_mail(self, mail: Mail) -> None:
        """What the relay keeps from now on: it says so to who has just been admitted or has just bound its token, too."""
        self.resume.sender.mail_bytes_max = mail.bytes_max
        self.client.is_due()

    def handle_page(self, upto: int, left: int) -> bool:
        """A page of what the relay has kept has ended. Whether it may be confirmed, once what it brought is stored."""
        taken, missed, confirm = self.resume.handle_mail(time.monotonic(), upto, left)
        self._missed += missed
        if missed or taken:
            self.change()
        for item in taken:
            self._tell_taken(*item)
        return confirm is not None

    def handle_drained(self) -> None:
        """All that the relay has kept for this end has come."""
        self.is_draining = False
        if self.end:
            self.end.handle_drained()

    def agree(self) -> None:
        """The other end is there: each says what it lacks, before anything that is numbered."""
        if self.resumes:
            self.resume.handle_agreed()
            self.client.is_due()

    async def handle_message(self, kind: str, payload: Any, message_id: str | None) -> None:
        try:
            opened = self.end.open(now(), kind, message_id, payload) if self.end else None
        except OpenError as error:
            await self.handle_unopened(error, kind, payload, message_id)
            return
        if opened is None:
            return
        self.change()
        if opened.confirmed:
            self.resumes = True
            self.keep()
            self.agree()
        if kind == "device.welcome" and self.client.role == "phone":
            await self.client.tell(kind, opened.payload, message_id, Protection.VERIFIED, device=self.device)
        else:
            await self.handle_sealed(kind, opened.payload, message_id, Protection.VERIFIED)
        if opened.confirmed:
            await self.client.tell("client.agreed", {}, protection=Protection.VERIFIED, device=self.device)
            await self.client.notify()

    async def handle_unopened(self, error: OpenError, kind: str, payload: Any, message_id: str | None) -> None:
        """A message is refused, and moved nothing."""
        text = f"a message of the other end is refused: {error.reason}"
        await self.client.tell("client.refused", {"reason": error.reason, "message": text}, device=self.device)

    async def exchange(self, payload: Any, message_id: str | None = None) -> str:
        """Under the lock."""
        return await self.client.put("key_exchange", payload, message_id, self.device)


class DevicePeer(KeyedPeer):
    """A device, at its agent. `handle_device(peer, kind, payload, id)` gets what it says, once and in order;
    what is about devices (`device.*`) is its alone."""

    def __init__(
        self,
        client: Client,
        device: str,
        end: AgentEnd,
        position: dict[str, Any],
        store: Callable[[dict[str, Any]], None],
        handle_device: Callable[[DevicePeer, str, Any, str | None], None],
    ) -> None:
        super().__init__(client, device, end, position, store)
        self.handle_device = handle_device
        self.online = False
        self._complaint: tuple[OpenError, str | None] | None = (
            None  # an error, and the id of what it is about: said as soon as it may be
        )
        self._acked: tuple[str, int] | None = None
        self._since = 0.0  # what it had acknowledged at this time, and nothing since

    def handle_taken(
        self,
        kind: str,
        payload: Any,
        message_id: str | None,
        protection: Protection,
        missed: int,
        sent_at: int | None,
    ) -> None:
        self.handle_device(self, kind, payload, message_id)
        if not kind.startswith("device."):
            super().handle_taken(kind, payload, message_id, protection, missed, sent_at)

    def handle_online(self, online: bool) -> None:
        """The relay says whether the device is there."""
        self.online = online
        if not self.is_draining:
            self._begin()

    def _begin(self) -> None:
        self.handle_pause()
        if self.online:
            self._acked = None
            self.agree()
        else:
            self.resume.handle_absent()
            self.client.is_due()

    def handle_drained(self) -> None:
        super().handle_drained()
        self._begin()

    def handle_stalled(self) -> None:
        """It sleeps, and the relay does not know that yet."""
        self.online = False
        self.handle_pause()

    def handle_parked(self) -> None:
        """The relay takes it for absent."""
        if not (self.online or self.is_draining):
            self._begin()

    async def handle_opening(self, message_id: str | None, payload: Any) -> None:
        try:
            answer = self.end.handle_opening(now(), self.client.random, message_id, payload)
        except HandshakeError as error:
            text = f"an opening of a session is refused: {error}"
            await self.client.tell("client.refused", {"reason": "opening", "message": text}, device=self.device)
            return
        if answer:
            async with self.client.lock:
                await self.exchange(answer)

    async def welcome(self, payload: Any) -> None:
        """It is admitted, and hears so."""
        self.resumes = True
        message_id = str(uuid.uuid4())
        async with self.client.lock:
            sealed = self.seal_text("device.welcome", message_id, dumps(payload))
            self.keep()
            await self.client.put("device.welcome", sealed, message_id, self.device)
        self.agree()

    async def handle_unopened(self, error: OpenError, kind: str, payload: Any, message_id: str | None) -> None:
        await super().handle_unopened(error, kind, payload, message_id)
        if self.end.owes_complaint(error):
            self._complaint = error, message_id
            self.client.is_due()

    def agree(self) -> None:
        self._complaint = None  # what was refused comes again
        super().agree()

    async def send_next(self) -> bool:
        if self._complaint and self.end.complains(now(), self._complaint[0]):
            (error, message_id), self._complaint = self._complaint, None
            complaint = {"code": DECRYPTION_FAILED, "message": str(error)} | ({"ref": message_id} if message_id else {})
            await self.client.put("chat.error", complaint, None, self.device)
            return True
        return await super().send_next()

    def stalls(self) -> bool:
        """Whether it has acknowledged nothing for so long that it sleeps: it counts as absent until it says something."""
        sender = self.resume.sender
        acked = (sender.boot, sender.acked) if sender.is_open and sender.held else None
        if acked != self._acked:
            self._acked, self._since = acked, time.monotonic()
        return acked is not None and time.monotonic() >= self._since + STALLED

    def deadline(self) -> float | None:
        stalled = self._since + STALLED if self._acked else None
        complains = self.end.complains_at if self._complaint else None
        return min((at for at in (super().deadline(), stalled, complains) if at is not None), default=None)


class AgentPeer(KeyedPeer):
    """The agent, at a device. `device_state` is what the device keeps (`DeviceState`)."""

    def __init__(self, client: Client, device_state: DeviceState) -> None:
        self.kept = device_state
        super().__init__(client, device_state.device, device_state.end, device_state.position, device_state.keep)
        self.enrolment: Enrolment | None = None
        if self.end is None:
            state = device_state
            about = state.token, state.device, state.own, state.k, state.a, state.name, state.platform
            self.enrolment = Enrolment(*about)
        self._third_due = False

    def auth(self) -> dict[str, Any]:
        """What `auth` has beside token and role."""
        return {"ext": 1} | self.kept.auth()

    def close(self) -> None:
        self.kept.close()

    def problem(self, ext: dict[str, Any]) -> str | None:
        """What is wrong with the relay's `auth.ok`; None: nothing. Nothing is said in the plain phone's place."""
        if ext.get("v") == 1 and ext.get("device") == self.device:
            return None
        return "the relay does not take this phone for a device: ask the agent for a new link"

    def handle_connected(self, is_online: bool, mail: Mail) -> None:
        """The relay has let the device in."""
        self.handle_connection(mail)
        if self.enrolment and not self.end:
            self.enrolment.handle_connected()
        self.handle_online(is_online)

    def handle_online(self, is_online: bool) -> None:
        """The relay says whether the agent is there."""
        if not self.is_draining:
            self._begin(is_online)

    def _begin(self, is_online: bool) -> None:
        self.handle_pause()
        if self.enrolment and is_online:
            self.enrolment.handle_connected()
        if self.end:
            self.end.handle_agent(is_online)
            self._third_due = is_online
            if is_online:
                self.agree()
            else:
                self.resume.handle_absent()
        self.client.is_due()

    def handle_drained(self) -> None:
        super().handle_drained()
        self._begin(self.client.paired)

    def deadline(self) -> float | None:
        if self.enrolment and not self.enrolment.done:
            return time.monotonic() + ENROL_POLL
        at = self.end and self.end.opens_at
        at = time.monotonic() + POLL_INTERVAL if at is None else max(at, time.monotonic() + 0.05)
        return min(one for one in (super().deadline(), at) if one is not None)

    async def send_next(self) -> bool:
        if self.client.paired and await self._send_exchange():
            return True
        return await super().send_next()

    async def _send_exchange(self) -> bool:
        """Sends the step of enrolment or session that is due; whether there was one."""
        message_id = str(uuid.uuid4())
        if self.enrolment and not self.enrolment.done:
            try:
                first = self.enrolment.poll_first(now(), self.client.random, message_id)
            except EnrolError:
                raise self.client.refused(SPENT) from None
            if first:
                await self.exchange(first[1], first[0])
            return first is not None
        if self._third_due:
            self._third_due = False
            if third := self.end.poll_enrolment():
                await self.exchange(third)
                return True
        if self.end and (opening := self.end.poll_opening(now(), self.client.random, message_id)):
            await self.exchange(opening, message_id)
            return True
        return False

    async def handle_key_exchange(self, _message_id: str | None, payload: Any) -> None:
        exchange = parse_key_exchange(payload)
        try:
            if exchange and exchange[0] == 2 and self.enrolment:
                enrolled = self.enrolment.handle_second(now(), payload)
                if enrolled:
                    await self._handle_enrolled(enrolled)
            elif self.end and self.end.handle_answer(now(), payload):
                self.change()
                self.keep()
                self.agree()
                await self.client.tell("client.agreed", {}, protection=Protection.VERIFIED, device=self.device)
        except (EnrolError, HandshakeError) as error:
            reason = str(error)
            text = f"what answers is not the agent of this link: {reason}"
            await self.client.tell("client.refused", {"reason": reason, "message": text}, device=self.device)

    async def _handle_enrolled(self, enrolled: Enrolled) -> None:
        """The agent has answered; now it decides, or a person does, who compares the code."""
        self.use(enrolled.end)
        self.kept.code = enrolled.code
        self.end.handle_drained()
        self.end.handle_agent(True)
        self.change()
        self.keep()
        self._third_due = True
        await self.client.tell("client.enrolling", {"code": enrolled.code}, device=self.device)
        self.client.is_due()

    async def handle_message(self, kind: str, payload: Any, message_id: str | None) -> None:
        sealed = isinstance(payload, dict) and payload.get("enc") is True
        if kind == "chat.error" and not sealed:
            if as_object(payload).get("code") == DECRYPTION_FAILED and self.end:
                self.end.handle_complaint()
                self.client.is_due()
            await self.client.tell(kind, as_object(payload), message_id, device=self.device)
            return
        await super().handle_message(kind, payload, message_id)
        if self.end and self.end.admitted and self.enrolment:
            self.enrolment = None
            self.change()
            self.keep()
        self.client.is_due()
