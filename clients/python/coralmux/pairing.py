"""How a phone is paired: links, and QR codes for the terminal. They are passwords, and belong into no log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

import segno

from .link import Link

Codes = Literal["app", "browser", "both", "none"]
QUIET_ZONE = 2  # light modules around a code, which scanners need


def instructions(link: Link, codes: Codes = "both", colours: bool = False) -> str:
    """All that a person needs to pair a phone, as lines. `colours`: the terminal takes ANSI colours."""
    app, browser = link.for_apps(), link.for_browsers()
    parts = []
    if browser:
        title = "Open this in a browser, or scan the code with the phone's camera:"
        parts.append(_part(title, browser, codes in ("browser", "both"), colours))
    wants_code = codes in ("app", "both") or (browser is None and codes == "browser")
    parts.append(_part("For phone apps that read pairing codes:", app, wants_code, colours))
    return "".join(parts)


def _part(title: str, link: str, with_code: bool, colours: bool) -> str:
    code = drawing(link, colours) if with_code else None
    return f"{title}\n\n    {link}\n\n" + (f"{code}\n" if code else "")


def drawing(text: str, colours: bool) -> str | None:
    """A QR code in half blocks: two modules high a character. None where the text is too long for one. With colours it
    is black on white whatever the terminal's; without, it is drawn for light text on a dark ground."""
    try:
        code = segno.make(text, error="l", mode="byte", micro=False, boost_error=False)
    except segno.DataOverflowError:
        return None
    return "".join(f"{line}\n" for line in _lines(code.matrix, colours))


def _lines(code: Sequence[bytearray], colours: bool) -> Iterator[str]:
    width = len(code)
    side = width + 2 * QUIET_ZONE

    def is_inked(x: int, y: int) -> bool:
        """What is inked: the dark modules in black, or the light ones in the terminal's light text."""
        x, y = x - QUIET_ZONE, y - QUIET_ZONE
        is_dark = 0 <= x < width and 0 <= y < width and bool(code[y][x])
        return is_dark == colours and (y < side - QUIET_ZONE or not colours)

    for y in range(0, side, 2):
        blocks = "".join(" \u2580\u2584\u2588"[is_inked(x, y) + 2 * is_inked(x, y + 1)] for x in range(side))
        yield f"    \x1b[30;107m{blocks}\x1b[0m" if colours else f"    {blocks}"


def has_colours() -> bool:
    """Whether standard output is a terminal that takes colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
