"""`coralmux pair`, `devices`, `revoke` and `owner`: each command, of this package or of coralmux-agent, reaches an agent of
either kind."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys

import pytest

from agents import TIMEOUT, program
from bots import CHECKOUT, coralmux, device_link
from household import Party
from pairing import Pairing

PYTHON, RUST = [sys.executable, "-m", "coralmux"], [program("coralmux-agent")]
NAMES = {"python": PYTHON, "rust": RUST}


async def command(words, agent, what, *more, typed=None):
    """What a command says, and its exit code."""
    flags = ["--relay", agent.relay, "--state", str(agent.state)]
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *words, what, *flags, *more, env=os.environ | CHECKOUT, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(typed), TIMEOUT)
    return output.decode(), process.returncode


def pairs(words, agent):
    """`pair` of either."""
    flags = ["--relay", agent.relay, "--state", str(agent.state), "--qr", "none"]
    return Pairing([*words, "pair", *flags], os.environ | CHECKOUT)


class RustAgent:
    """coralmux-agent with a named state file."""

    def __init__(self, start_agent, state, relay):
        self.relay, self.state = f"ws://127.0.0.1:{relay.port}", state
        start_agent("--echo", "--state", str(state))


async def tablet(stack, link, path):
    return await stack.enter_async_context(Party("phone", link, state=path, name="Tab\x1b[2Jlet"))


@pytest.mark.parametrize("words", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("kind", ["python", "rust"])
async def test_devices_are_paired_listed_and_revoked(start_bot, start_agent, relay, tmp_path, kind, words):
    state = tmp_path / "state.json"
    agent = start_bot(state=state) if kind == "python" else RustAgent(start_agent, state, relay)
    async with contextlib.AsyncExitStack() as stack:
        phone = await tablet(stack, await device_link(state, agent.relay), tmp_path / "phone.json")
        await phone.expect("client.agreed")
        pairing = await stack.enter_async_context(pairs(words, agent))
        second = await tablet(stack, await pairing.link(), tmp_path / "second.json")
        code = await pairing.shows(r"Its code: (\d{6})")
        assert code == (await second.expect("client.enrolling")).payload["code"]
        assert await pairing.types(b"\n") == 0 and "it is let in" in pairing.output
        assert "\x1b" not in pairing.output
        await second.expect("client.agreed")

        lines = (await command(words, agent, "devices"))[0].splitlines()
        assert len(lines) == 2 and "owner" in lines[0] and lines[1].endswith("Tab[2Jlet (python)"), lines
        said, failed = await command(words, agent, "owner", second.device)
        assert failed == 0 and second.device in said
        lines = (await command(words, agent, "devices"))[0].splitlines()
        assert ["owner" in line for line in lines] == [line.startswith(second.device) for line in lines]

        said, failed = await command(words, agent, "revoke", phone.device)
        assert (said, failed) == ("1 device(s) revoked\n", 0)
        await phone.end()
        said, failed = await command(words, agent, "revoke", phone.device)
        assert failed == 1 and "no device has that id" in said
        assert (await command(words, agent, "revoke", "plain"))[1] == 0


async def test_who_is_refused_or_left_alone_becomes_no_device(start_bot, tmp_path):
    bot = start_bot(state=tmp_path / "state.json")
    async with contextlib.AsyncExitStack() as stack:
        phone = await tablet(stack, await device_link(bot.state, bot.relay), tmp_path / "phone.json")
        await phone.expect("client.agreed")
        async with pairs(PYTHON, bot) as pairing:
            thief = await tablet(stack, await pairing.link(), tmp_path / "thief.json")
            await pairing.shows(r"Its code: (\d{6})")
            await pairing.types(b"r\n")
            assert "it is refused" in pairing.output
            await thief.end()
        async with pairs(PYTHON, bot) as pairing:
            late, link = tmp_path / "late.json", await pairing.link()
        thief = await tablet(stack, link, late)  # nobody waits with that link any more
        await thief.end()
        assert len((await command(PYTHON, bot, "devices"))[0].splitlines()) == 1
        assert "used" in (await command(PYTHON, bot, "link"))[0]


async def test_commands_say_why_they_cannot(start_bot, tmp_path):
    bot = start_bot(state=tmp_path / "state.json")
    await device_link(bot.state, bot.relay)
    assert (await command(PYTHON, bot, "devices"))[0] == "No devices.\n"
    assert "no device has that id" in (await command(PYTHON, bot, "revoke", "9f2c9f2c9f2c9f2c"))[0]
    bot.stop()
    said, failed = await command(PYTHON, bot, "devices")
    assert failed == 1 and "no agent with devices runs" in said
    assert "no pairing is kept" in coralmux("pair", "--relay", bot.relay, "--state", str(tmp_path / "none")).stderr


async def test_what_is_no_request_ends_nothing_and_callers_have_a_bound(start_bot, relay, tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    bot = start_bot(state=folder / "state.json")  # a path that is too long for a socket
    await device_link(bot.state, bot.relay)
    [control] = folder.glob("state.json.devices-*/control")
    assert control.stat().st_mode & 0o777 == 0o600
    opened = os.open(control.parent, os.O_RDONLY)
    callers = [socket.socket(socket.AF_UNIX) for _ in range(12)]
    for number, caller in enumerate(callers):
        caller.connect(f"/proc/self/fd/{opened}/control")
        caller.settimeout(TIMEOUT)
        caller.sendall([b"nonsense\n", b"[]\n", b"x" * 70_000 + b"\n", b'{"do":"fly"}\n'][number % 4])
    answers = [answer_of(caller) for caller in callers]
    assert b"does not know that command" in answers[0] and answers.count(b"") >= 4
    for caller in callers:
        caller.close()
    os.close(opened)
    async with asyncio.timeout(TIMEOUT):
        while (await command(PYTHON, bot, "devices"))[0] != "No devices.\n":
            pass
    bot.stop()
    assert not control.exists()


def answer_of(caller):
    try:
        return caller.recv(1000)
    except ConnectionError:
        return b""
