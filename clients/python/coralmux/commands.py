"""What a person asks of the agent that runs, from another terminal: to pair, list and revoke its devices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from . import pairing
from .agent import CommandError, say
from .agent_files import devices_folder
from .control import IS_KNOWN, AgentGone, Call
from .link import Link, LinkError
from .state import State
from .wire import printable

ADMITS = "", "y", "yes"


def ask(path: Path, kept: State, request: dict[str, Any]) -> None:
    """Asks for something that has one answer, and shows it."""
    answer = _ask(_call(path, kept), request)
    if isinstance(answer.get("done"), str):
        say(printable(answer["done"]))
    if isinstance(answer.get("devices"), list):
        for line in map(_line, answer["devices"]) if answer["devices"] else ["No devices."]:
            say(printable(line))


def _line(device: dict[str, Any]) -> str:
    """A device, on a line: what it calls itself comes last, for it may be anything."""
    notes = ["online" if device.get("online") is True else "away"] + ["owner"] * (device.get("owner") is True)
    by = f", invited by {device['by']}" if device.get("by") else ""
    return f"{device.get('device')}  {', '.join(notes)}{by}  {device.get('name')} ({device.get('platform')})"


def pair(path: Path, kept: State, codes: pairing.Codes) -> None:
    """Shows a link, waits for who comes by it, and asks whether to let it in."""
    call = _call(path, kept)
    try:
        link = Link.parse(str(_ask(call, {"do": "pair"}).get("link")))
    except LinkError:
        raise CommandError("the agent gives no link") from None
    say(pairing.instructions(link, codes, pairing.has_colours()))
    say("It is good for one device, for 10 minutes. Waiting for it; Ctrl-C ends that.")
    joined = _answer(call).get("joined") or {}
    say(printable(f"{joined.get('name')} ({joined.get('platform')}) wants to be a device. Its code: {joined.get('code')}"))
    say("Compare it with what it shows. Enter lets it in, r and Enter refuses it.")
    line = sys.stdin.readline()
    admits = line != "" and line.strip().lower() in ADMITS
    done = _ask(call, {"do": "admit" if admits else "refuse", "device": joined.get("device")})
    say(printable(str(done.get("done"))))


def _call(path: Path, kept: State) -> Call:
    if not IS_KNOWN:
        raise CommandError("on this system the agent's own terminal shows links, and lets devices in")
    try:
        return Call(devices_folder(path, kept.token))
    except OSError:
        raise CommandError(f"no agent with devices runs with {path}: start it first") from None


def _ask(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    try:
        call.ask(request)
    except OSError:
        raise CommandError("the agent has ended") from None
    return _answer(call)


def _answer(call: Call) -> dict[str, Any]:
    """The next answer, if it is no refusal."""
    try:
        answer = call.answer()
    except (AgentGone, OSError, ValueError):
        raise CommandError("the agent has ended") from None
    if isinstance(answer.get("error"), str):
        raise CommandError(printable(answer["error"]))
    return answer
