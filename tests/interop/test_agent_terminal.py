"""coralmux-agent at a terminal: what a person types, and what a terminal shows, which is not what was written."""

import asyncio
import contextlib
import os

import pytest
from household import Party

from agents import program
from coralmux import Link
from coralmux.v3 import enrol
from terminal import Typed
from test_agent_devices import answered

pytestmark = pytest.mark.asyncio

LINK = "    openclaw://pair?"
ASKS = "wants to be a device. Its code: "


@contextlib.asynccontextmanager
async def at_terminal(relay, folder, *flags):
    environment = os.environ | {"XDG_STATE_HOME": str(folder), "TERM": "xterm-256color"}
    command = [program("coralmux-agent"), "--relay", f"ws://127.0.0.1:{relay.port}", "--qr", "none", "--echo", *flags]
    agent = Typed(command, environment)
    try:
        yield agent
    finally:
        agent.kill()


async def shows(agent, text, count=1):
    return await asyncio.to_thread(agent.shows, text, count)


async def link(agent, count=1):
    return Link.parse((await shows(agent, LINK, count)).strip())


def device(folder, name, link, **options):
    return Party("phone", link, state=folder / f"{name}.json", name=name, **options)


async def test_enter_lets_a_device_in_and_shows_a_link_for_another_one(relay, tmp_path):
    async with at_terminal(relay, tmp_path) as agent, contextlib.AsyncExitStack() as stack:
        phone = await stack.enter_async_context(device(tmp_path, "Phone", await link(agent)))
        code = (await phone.expect("client.enrolling")).payload["code"]
        assert (await shows(agent, ASKS)) == f"Phone (python) {ASKS}{code}"
        assert not phone.of("client.agreed")
        agent.types("perhaps\n")
        await shows(agent, "Enter lets a device in, or shows a link for another one; r and Enter refuses.")
        assert not phone.of("client.agreed")
        agent.types("\n")
        await phone.expect("client.agreed")
        await answered(phone, "hello")
        await shows(agent, "A link is worth one device. Enter shows a link for another one.")
        agent.types("\n")
        second = await link(agent, 2)
        await shows(agent, "It is good for one device, for 10 minutes.")
        thief = await stack.enter_async_context(device(tmp_path, "Thief", second))
        await shows(agent, f"Thief (python) {ASKS}")
        agent.types("r\n")
        await shows(agent, "Thief is refused.")
        assert await thief.end()
        agent.types("\n")
        third = await link(agent, 3)
        assert len({phone.client.agent.kept.k, second.secret, third.secret}) == 3
        tablet = await stack.enter_async_context(device(tmp_path, "Tablet", third))
        await shows(agent, f"Tablet (python) {ASKS}")
        agent.types("y\n")
        await tablet.expect("client.agreed")
        await answered(tablet, "hello")
        agent.types("\x03")
        assert await asyncio.to_thread(agent.process.wait, 20) == 0


async def test_with_yes_nobody_is_asked_and_another_link_is_there_after_a_restart(relay, tmp_path):
    async with at_terminal(relay, tmp_path, "--yes") as agent:
        async with device(tmp_path, "Phone", await link(agent)) as phone:
            await answered(phone, "hello")
            await shows(agent, "Phone (python) is let in without being asked about; code ")
        first = await link(agent)
    async with at_terminal(relay, tmp_path, "--yes") as agent:
        another = await link(agent)
        assert another.secret != first.secret
        async with device(tmp_path, "Tablet", another) as tablet:
            await answered(tablet, "hello")


# What a device of an attacker's calls itself; `cleaned` is the client's own, which it does not use.
EVIL = {
    "erases the screen": "\x1b[2J\x1b[H",
    "is red, and blinks": "\x1b[31;5mred",
    "moves up and writes a code": "\x1b[3A\rcode 000000",
    "has a title": "\x1b]0;title\x07",
    "asks the terminal": "\x1b[6n\x1b[c",
    "has eight-bit controls": "\x9b2J\x90q\x9c",
    "writes over the line": "\rEnter lets it in\r",
    "erases backwards": "\b" * 40 + "x",
    "has lines": "one\ntwo\x0b\x0cthree",
    "is read from the right": "\u202e000000 edoc\u2066",
    "is long": "x" * 1000,
    "scrolls": "\x1bM" * 20 + "\x1b[5;9r",
    "has other letters": "\x0e\x1b(0lqqk",
}


@pytest.mark.parametrize("name", EVIL.values(), ids=EVIL)
async def test_no_name_moves_anything_on_the_terminal(relay, tmp_path, name, monkeypatch):
    """58: the terminal shows what it showed before, and below it lines of the agent's own; the code among them, if any."""
    monkeypatch.setattr(enrol, "SILENCE", 60)
    async with at_terminal(relay, tmp_path) as agent:
        party = device(tmp_path, "Evil", await link(agent))
        await shows(agent, "Enter shows a link for another one.")
        before = agent.lines()
        party.client.agent.enrolment.about["name"] = name
        async with party:
            code = (await party.expect("client.enrolling")).payload["code"]
            refused = asyncio.create_task(party.end())
            asked = asyncio.create_task(shows(agent, ASKS))
            done, _ = await asyncio.wait([refused, asked], return_when=asyncio.FIRST_COMPLETED)
            if asked in done:
                asked.result()
            else:
                await shows(agent, "Error ")
            for task in (refused, asked):
                task.cancel()
            assert not party.of("client.agreed")
            with contextlib.suppress(AssertionError):  # of what is no enrolment at all nothing is said
                await asyncio.to_thread(agent.shows, "", len(before) + 1, 3)
            screen, lines = agent.screen(), agent.lines()
            assert lines[: len(before)] == before
            added = lines[len(before) :]
            assert len(added) <= 3, added
            if asked.done() and not asked.cancelled():
                assert added[0].endswith(f"{ASKS}{code}") and len(added[0]) < 160
            else:
                assert all(line.startswith(("Error ENROLMENT_REFUSED", "Error")) for line in added), added
            assert (screen.cursor.x, screen.margins, screen.title) == (0, None, "")
            used = [cell for row in screen.buffer.values() for cell in row.values() if cell.data.strip()]
            assert {(cell.fg, cell.bg, cell.blink, cell.reverse) for cell in used} == {("default", "default", False, False)}
