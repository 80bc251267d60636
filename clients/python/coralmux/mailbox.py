"""What the relay says of its mailbox (PROTOCOL.md, "Mailbox"): messages that it keeps for whoever is away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OVERHEAD = 2048  # bytes, at most, of what a message has around its payload


@dataclass(frozen=True)
class Mail:
    """`bytes_max`: how long a payload may be that the relay keeps; None: it keeps nothing. `waits`: it has something for
    this end, or may have, which comes first."""

    bytes_max: int | None = None
    waits: bool = False


def read_mail(told: dict[str, Any]) -> Mail:
    """From `ext` of `auth.ok`, or from where the relay says it later."""
    mail = told.get("mail")
    if not isinstance(mail, dict):
        return Mail()
    # Sealed, a third is added.
    return Mail(max(0, whole_number(mail.get("message_max")) * 3 // 4 - OVERHEAD), mail.get("waiting") != 0)


def whole_number(value: Any) -> int:
    """A number of the relay's; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
