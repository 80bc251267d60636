"""Resume: both ends number, acknowledge and resend, so that no break loses a message and none arrives twice.

`Resume` is one end's side of it, without any I/O: time (seconds of any steady clock), randomness and records are passed
in. `handle_*` takes something in, `poll` yields what is to be sealed and sent, `deadline` says when to poll again.
PROTOCOL.md's chapter "Resume" has the rules.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .receiver import Receiver
from .records import Ack, record_text
from .sender import Sender

if TYPE_CHECKING:
    from .records import Record
    from .sender import Leaving

BOOT_BYTES = 8
REPEAT_FIRST, REPEAT_MAX = 2.0, 30.0  # seconds after which an end repeats its first ack
NEVER = float("-inf")


class Resume:
    """One end of a pair that resumes: its sender, its receiver, and the agreement between them."""

    def __init__(self, role: str, random: Callable[[int], bytes] = os.urandom) -> None:
        def draw_boot() -> str:
            return base64.urlsafe_b64encode(random(BOOT_BYTES)).decode().rstrip("=")

        self.sender, self.receiver = Sender(role, draw_boot), Receiver()
        self.is_agreed = False
        self.repeat_at, self.repeat_delay = NEVER, REPEAT_FIRST
        self.is_said = False  # this end's first ack has left

    def handle_pause(self) -> None:
        """The connection is gone or new, or the peer has come or left: keys are to be agreed."""
        self.is_agreed = False
        self.sender.handle_pause()
        if not self.receiver.is_draining:
            self.receiver.drop_ahead()

    def handle_connected(self, mail_bytes_max: int | None, drains: bool) -> None:
        """The relay has let this end in. `mail_bytes_max`: how long a payload may be that it keeps for an absent peer;
        None: it keeps nothing. `drains`: it has something for this end."""
        self.sender.mail_bytes_max = mail_bytes_max
        self.receiver.handle_connected(drains)
        self.handle_pause()

    def handle_absent(self) -> None:
        """The relay says that the peer is not there: what it keeps leaves all the same."""
        self.handle_pause()
        self.sender.handle_absent()

    def handle_mail(self, now: float, upto: int, left: int) -> tuple[list[Any], int, int | None]:
        """As of the receiver: what is taken at the end of a page, how many are missed, and what to confirm."""
        return self.receiver.handle_mail(now, upto, left)

    def handle_agreed(self) -> None:
        """New keys are in use."""
        self.handle_pause()
        self.sender.handle_agreed()
        self.receiver.asked_at = NEVER
        self.is_agreed, self.is_said, self.repeat_delay = True, False, REPEAT_FIRST

    def handle_ack(self, now: float, ack: Ack) -> None:
        """An ack that was sealed with the keys in use."""
        if not self.is_agreed:
            self.sender.handle_ack(now, ack.a)
            return
        if not self.sender.is_open:
            self.sender.is_open = True
        elif ack.r:
            self.receiver.owed = True
        self.sender.handle_ack(now, ack.a, ack.r)

    def handle_record(self, now: float, record: Record, size: int, item: Any) -> tuple[list[Any], int]:
        """The items of what is taken with this record, and how many messages are missed."""
        if record.a:
            self.sender.handle_ack(now, record.a)
        return self.receiver.handle(now, record, size, item)

    def poll(self, now: float) -> Ack | Leaving | None:
        """The next Ack or Leaving to seal and send, or None."""
        if not self.is_agreed:
            return self.sender.poll(now)
        if not self.is_said or (not self.sender.is_open and now >= self.repeat_at):
            if self.is_said:
                self.repeat_delay = min(2 * self.repeat_delay, REPEAT_MAX)
            self.is_said, self.repeat_at = True, now + self.repeat_delay
            return Ack(self.receiver.told(), r=True)
        return self.receiver.poll(now) or self.sender.poll(now)

    def text(self, leaving: Ack | Leaving) -> str:
        """The plaintext of what `poll` yielded."""
        if isinstance(leaving, Ack):
            return leaving.text()
        text, at = leaving.message.text or "", leaving.message.t if leaving.keep else None
        return record_text(leaving.e, leaving.n, leaving.f, leaving.b, self.receiver.told(), text, at)

    def deadline(self) -> float | None:
        """When to poll again even if nothing happens; None: never."""
        if not self.is_agreed:
            return self.sender.deadline()
        times = [self.receiver.deadline(), self.sender.deadline()]
        if not self.sender.is_open:
            times.append(self.repeat_at)
        return min((time for time in times if time is not None), default=None)
