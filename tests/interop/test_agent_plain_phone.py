"""coralmux-agent and phones that know no devices: their place beside the devices, how it closes, and how one becomes a
device (PROTOCOL.md, "Old and new")."""

import asyncio
import contextlib
import json
import pathlib
import time

import pytest
from household import Party, request

from agents import TIMEOUT
from coralmux import Link
from test_agent_devices import answered, command, first_link, pairs, said
from test_agent_household import ASKING

pytestmark = pytest.mark.asyncio

STILL = "Phones that know no devices are still let in"
CLOSED = "Phones that know no devices are not let in any more"
DAY_MS = 24 * 60 * 60 * 1000


def links_file(agent):
    """What the agent keeps beside its devices."""
    [path] = pathlib.Path(agent.state["XDG_STATE_HOME"]).rglob("links.json")
    return path


def unused_for(agent, days):
    """As if the plain phone had last been here so long ago, and the first device had come then."""
    path = links_file(agent)
    value = json.loads(path.read_text())
    at = int(time.time() * 1000) - days * DAY_MS
    value["plain"] |= {"used_at": at, "since": at}
    path.write_text(json.dumps(value))


def restart(agent, *more):
    agent.stop()
    agent.process = agent.popen([*agent.command, *more], agent.environment)


@contextlib.asynccontextmanager
async def beside_a_device(agent, folder):
    """A plain phone that was there first, and a device."""
    await first_link(agent)
    async with Party("phone", agent.link()) as old:
        await old.expect("client.agreed")
        await answered(old, "from the plain phone")
        async with pairs(agent) as pairing:
            async with Party("phone", await pairing.link(), state=folder / "device.json") as device:
                await pairing.shows(r"Its code: (\d{6})")
                await pairing.types(b"\n")
                await device.expect("client.agreed")
                await answered(device, "from the device")
                yield old, device


async def test_what_stays_open_is_said_with_each_device_and_how_it_is_closed(start_agent, tmp_path):
    agent = start_agent("--echo")
    async with beside_a_device(agent, tmp_path) as (old, device):
        await said(agent, f"{STILL}, until none has come for 7 days. `coralmux-agent revoke plain` ends that at once.")
        async with pairs(agent) as pairing:
            async with Party("phone", await pairing.link(), state=tmp_path / "second.json") as second:
                await pairing.shows(r"Its code: (\d{6})")
                await pairing.types(b"\n")
                await second.expect("client.agreed")
        async with asyncio.timeout(TIMEOUT):
            while agent.output().count(STILL) < 2:
                await asyncio.sleep(0.02)
        await answered(old, "still there")
        _, code = await command(agent, "revoke", "plain")
        assert code == 0
        assert await old.end()
        await answered(device, "alone")


async def test_with_the_flag_nothing_is_said_of_seven_days(start_agent, tmp_path):
    agent = start_agent("--echo", "--legacy-phone")
    async with beside_a_device(agent, tmp_path) as (old, device):
        await said(agent, f"{STILL}, for --legacy-phone says so. `coralmux-agent revoke plain` ends that.")
        assert "7 days" not in agent.output()
        await answered(old, "for ever")
        await answered(device, "beside it")


@pytest.mark.parametrize(
    ("days", "flags", "closes"), [(6, (), False), (8, (), True), (8, ("--legacy-phone",), False)]
)
async def test_a_place_that_nobody_uses_closes_by_itself_after_a_week(start_agent, tmp_path, days, flags, closes):
    agent = start_agent("--echo", *flags)
    link = agent.link()
    async with beside_a_device(agent, tmp_path):
        pass
    agent.stop()
    unused_for(agent, days)
    agent.process = agent.popen(agent.command, agent.environment)
    async with Party("phone", None, state=tmp_path / "device.json") as device:
        await answered(device, "after a while")
        async with Party("phone", link) as old:
            if closes:
                await said(agent, f"{CLOSED}: none has come for 7 days. --legacy-phone keeps them.")
                assert "show a new link" in await old.end()
            else:
                await answered(old, "after a while")
                assert CLOSED not in agent.output()
        await answered(device, "and on")
        if closes:  # and closed it stays
            restart(agent)
            await answered(device, "after a restart")
            async with Party("phone", link) as old:
                assert await old.end()


async def test_a_phone_that_was_paired_before_becomes_a_device_by_itself(start_agent, tmp_path):
    """The agent was one without devices; its pairing goes on, and a phone that has learnt of them enrols in silence."""
    agent = start_agent("--echo", "--e2e", "2")
    link = agent.link()
    async with Party("phone", link) as old:
        await old.expect("client.agreed")
        await answered(old, "before")
    agent.stop()
    command_ = [word for word in agent.command if word not in ("--e2e", "2")]
    agent.process = agent.popen(command_, agent.environment)
    agent.pairing = agent.pairing[:2]
    async with Party("phone", link, state=tmp_path / "phone.json", name="Phone") as phone:
        await phone.expect("client.lifted")
        await phone.expect("device.welcome")
        await said(agent, "The phone that was paired before is a device now: Phone (python), code ")
        await answered(phone, "as a device")
        listed = (await request(phone, "device.list"))["devices"]
        assert [(one["name"], one["owner"], one["you"]) for one in listed] == [("Phone", True, True)]
    async with Party("phone", link, state=tmp_path / "phone.json") as again:  # its old link leads to the device that it is
        await answered(again, "once more")
    async with Party("phone", link) as old:  # one that knows none is not shut out by that
        await answered(old, "an old app")


async def test_who_was_refused_may_come_with_another_link(start_agent, tmp_path):
    agent = start_agent("--echo")
    async with Party("phone", await first_link(agent), state=tmp_path / "owner.json") as owner:
        await answered(owner, "hello")
        for number, answer in enumerate((b"r\n", b"\n")):
            async with pairs(agent) as pairing:
                link = await pairing.link()
                async with Party("phone", link, state=tmp_path / f"guest{number}.json", name="Guest") as guest:
                    await pairing.shows(r"Its code: (\d{6})")
                    await pairing.types(answer)
                    if number:
                        await answered(guest, "let in")
                    else:
                        assert await guest.end()
        listed = (await request(owner, "device.list"))["devices"]
        assert [one["name"] for one in listed][1:] == ["Guest"]


async def test_whom_a_command_was_asked_about_is_refused_when_that_has_ended(start_agent, tmp_path):
    """Also with --yes: somebody was shown a code, and did not say yes to it."""
    agent = start_agent("--echo", "--yes")
    async with Party("phone", await first_link(agent), state=tmp_path / "owner.json") as owner:
        await answered(owner, "hello")
        async with contextlib.AsyncExitStack() as stack:
            async with pairs(agent) as pairing:
                link = await pairing.link()
                guest = await stack.enter_async_context(Party("phone", link, state=tmp_path / "guest.json", name="Guest"))
                await pairing.shows(r"Its code: (\d{6})")
            await said(agent, "Guest is refused: `coralmux-agent pair` has ended without an answer.")
            assert await guest.end()
        assert len((await request(owner, "device.list"))["devices"]) == 1


async def test_the_owner_is_whom_the_command_names(start_agent, tmp_path):
    agent = start_agent("--echo", "--yes")
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            Party("phone", await first_link(agent), state=tmp_path / "first.json", name="First")
        )
        await first.expect("client.agreed")
        link = Link.parse((await request(first, "device.invite", result="device.invite.result"))["link"])
        second = await stack.enter_async_context(Party("phone", link, state=tmp_path / "second.json", name="Second"))
        await first.client.send("device.admit", {"device": (await first.expect("device.pending")).payload["device"]})
        await second.expect("client.agreed")
        output, code = await command(agent, "owner", "f" * 16)
        assert code == 1 and "no device has that id" in output
        output, code = await command(agent, "owner", second.device)
        assert code == 0 and second.device in output
        listed = (await first.expect("device.list.result")).payload["devices"]
        while [one.get("owner") for one in listed] != [None, True]:
            listed = (await first.expect("device.list.result")).payload["devices"]
        listed, _ = await command(agent, "devices")
        assert ["owner" in line for line in listed.splitlines()] == [False, True], listed
        error = await request(first, "device.revoke", {"device": second.device}, result="chat.error")
        assert error["code"] == "NOT_ALLOWED"
        agent.stop()
        agent.process = agent.popen(agent.command, agent.environment)
        await answered(second, "after a restart")
        left = (await request(second, "device.revoke", {"device": first.device, "keep_invited": True}))["devices"]
        assert [one["name"] for one in left] == ["Second"]
        assert "revoked" in await first.end()


async def test_with_yes_a_service_lets_in_who_has_a_link(start_agent, tmp_path):
    """And without it none but the first one: `coralmux-agent pair` asks, and whoever it asks for has to be there."""
    for yes in (True, False):
        agent = start_agent("--echo", *(["--yes"] if yes else []))
        async with Party("phone", await first_link(agent), state=tmp_path / f"first{yes}.json") as first:
            await answered(first, "hello")
            async with pairs(agent) as pairing:
                link = await pairing.link()  # then whoever asked for it is gone, and with it who would be asked
            async with Party("phone", link, state=tmp_path / f"second{yes}.json", name="Second") as second:
                if yes:
                    await answered(second, "let in")
                    await said(agent, "Second (python) is let in without being asked about; code ")
                else:
                    assert await second.end()
                    await said(agent, "Second (python) is refused: nobody is here to compare its code ")
        agent.stop()


async def test_a_question_that_is_asked_again_of_a_plain_phone_is_not_asked_again_of_devices(start_agent, tmp_path):
    """Each time it would wait at the relay once more, and wake them."""
    agent = start_agent("--exec", ASKING, "--exec-json", "--timeout", "60")
    await first_link(agent)
    async with Party("phone", agent.link()) as old:
        await old.expect("client.agreed")
        async with pairs(agent) as pairing:
            async with Party("phone", await pairing.link(), state=tmp_path / "device.json") as device:
                await pairing.shows(r"Its code: (\d{6})")
                await pairing.types(b"\n")
                await device.expect("client.agreed")
        await old.client.send("chat.send", {"text": "ask", "asks": 1})
        name = (await old.expect("chat.ask")).payload["ask"]
        for _ in range(3):
            await old.client.disconnect()
            await old.expect("client.agreed")
            await old.expect("chat.ask", ask=name)
        await old.client.send("chat.answer", {"ask": name, "option": "y"})
        await old.expect("chat.answered", ask=name)
        async with Party("phone", None, state=tmp_path / "device.json") as device:
            await device.expect("chat.answered", ask=name)
            assert len(device.of("chat.ask")) == 1
