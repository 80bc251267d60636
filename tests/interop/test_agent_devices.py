"""coralmux-agent with devices: Rust's and Python's, over a real relay."""

import asyncio
import contextlib
import subprocess

import pytest

from agents import TIMEOUT, program
from coralmux import Client, Link
from ends import RUST, ProcessEnd
from household import Party
from pairing import Pairing

pytestmark = pytest.mark.asyncio


def device(link, folder):
    """A device on the Rust client, which keeps its keys in `folder`."""
    return ProcessEnd(RUST, "device", link.for_apps(), folder)


async def said(agent, text):
    """The agent has said this."""
    async with asyncio.timeout(TIMEOUT):
        while text not in agent.output():
            await asyncio.sleep(0.02)


async def first_link(agent):
    """The link of the first start, which names the agent."""
    async with asyncio.timeout(TIMEOUT):
        while not (link := await asyncio.to_thread(agent.link, device=True)).agent:
            await asyncio.sleep(0.05)
    return link


async def command(agent, *words, typed=None):
    """What a command of the agent's says, and its exit code."""
    state = {**agent.state, "PATH": "/usr/bin:/bin"}
    process = await asyncio.create_subprocess_exec(
        program("coralmux-agent"), words[0], *agent.pairing[:2], *words[1:], env=state,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(typed), TIMEOUT)
    return output.decode(), process.returncode


def pairs(agent):
    """`coralmux-agent pair`."""
    return Pairing([program("coralmux-agent"), "pair", *agent.pairing], agent.state)


async def asks(end, text):
    """Asks, and gets the answer; those to others come as well."""
    await end.send("chat.send", {"text": text})
    while await answer(end) != f"You said: {text}":
        pass


async def answer(end):
    while (event := await end.event("message"))["type"] != "chat.done":
        pass
    return event["payload"]["full_text"]


async def answered(party, text):
    """A device on the Python client asks an agent that echoes."""
    asked = await party.client.send("chat.send", {"text": text})
    assert (await party.expect("chat.done", ref=asked)).payload["full_text"] == f"You said: {text}"


async def until(end, kind):
    while (event := await end.event("message"))["type"] != kind:
        pass
    return event["payload"]


async def test_a_service_lets_in_the_first_device_and_both_ends_may_restart(start_agent, tmp_path):
    agent = start_agent("--echo")
    link = await first_link(agent)
    async with device(link, tmp_path / "device") as phone:
        code = (await phone.event("code"))["code"]
        await asks(phone, "one")
        await said(agent, f"code {code}")
        agent.stop()
        agent.process = agent.popen(agent.command, agent.environment)
        await asks(phone, "two")
    async with device(link, tmp_path / "device") as phone:
        await asks(phone, "three")
        await phone.send("chat.history", {})
        turns = (await until(phone, "chat.history.result"))["messages"]
        assert [turn["text"] for turn in turns if turn["role"] == "user"] == ["one", "two", "three"]
    # The link was used.
    async with device(link, tmp_path / "thief") as thief:
        assert "used" in (await thief.event("other"))["message"]
    shown = await asyncio.to_thread(agent.shown)
    assert "openclaw://" not in shown


async def test_devices_are_paired_listed_and_revoked_by_commands(start_agent, tmp_path):
    agent = start_agent("--echo")
    async with contextlib.AsyncExitStack() as stack:
        phone = await stack.enter_async_context(device(await first_link(agent), tmp_path / "phone"))
        await asks(phone, "hello")
        pairing = await stack.enter_async_context(pairs(agent))
        tablet = await stack.enter_async_context(
            Party("phone", await pairing.link(), state=tmp_path / "tablet.json", name="Tab\x1b[2Jlet")
        )
        code = await pairing.shows(r"Its code: (\d{6})")
        assert code == (await tablet.expect("client.enrolling")).payload["code"]
        assert "\x1b" not in pairing.output
        await pairing.types(b"\n")
        await tablet.expect("client.agreed")
        # What is asked on one shows on the other, and so does the answer.
        await phone.send("chat.send", {"text": "for both"})
        turn = (await tablet.expect("chat.turn", text="for both")).payload
        done = (await tablet.expect("chat.done")).payload
        assert (done["full_text"], done["ref"]) == ("You said: for both", turn["ref"])
        assert await answer(phone) == "You said: for both"
        listed, _ = await command(agent, "devices")
        lines = listed.splitlines()
        assert len(lines) == 2 and "owner" in lines[0] and lines[1].endswith("Tab[2Jlet (python)"), listed
        assert lines[1].startswith(tablet.device), listed
        # A device that is revoked is out, whatever it has.
        said_, code = await command(agent, "revoke", tablet.device)
        assert code == 0, said_
        await tablet.end()
        await asks(phone, "alone")
        listed, _ = await command(agent, "devices")
        assert tablet.device not in listed
        said_, code = await command(agent, "revoke", tablet.device)
        assert code == 1 and "no device has that id" in said_


async def test_a_person_may_refuse_and_a_second_agent_is_refused_in_words(start_agent, tmp_path):
    agent = start_agent("--echo")
    async with contextlib.AsyncExitStack() as stack:
        phone = await stack.enter_async_context(device(await first_link(agent), tmp_path / "phone"))
        await asks(phone, "hello")
        pairing = await stack.enter_async_context(pairs(agent))
        thief = await stack.enter_async_context(device(await pairing.link(), tmp_path / "thief"))
        await pairing.shows(r"Its code: (\d{6})")
        await pairing.types(b"r\n")
        assert "refused" in pairing.output
        assert (await thief.event("other", "lost"))["event"] == "other"
        listed, _ = await command(agent, "devices")
        assert len(listed.splitlines()) == 1, listed
    second = subprocess.run(
        [program("coralmux-agent"), *agent.pairing[:2], "--echo"], env=agent.state, capture_output=True, text=True
    )
    assert second.returncode == 1 and "another agent runs with this state" in second.stderr


async def test_devices_manage_each_other_as_the_owner_may(start_agent, tmp_path):
    agent = start_agent("--echo")
    async with contextlib.AsyncExitStack() as stack:
        owner = await stack.enter_async_context(
            Party("phone", await first_link(agent), state=tmp_path / "owner.json", name="Owner")
        )
        await owner.expect("client.agreed")
        request = await owner.client.send("device.invite", {})
        invited = (await owner.expect("device.invite.result", ref=request)).payload
        guest = await stack.enter_async_context(
            Party("phone", Link.parse(invited["link"]), state=tmp_path / "guest.json", name="Guest")
        )
        pending = (await owner.expect("device.pending")).payload
        code = (await guest.expect("client.enrolling")).payload["code"]
        assert (pending["name"], pending["code"], pending["device"]) == ("Guest", code, guest.device)
        request = await owner.client.send("device.admit", {"device": guest.device})
        await owner.expect("device.list.result", ref=request)
        await guest.expect("client.agreed")
        # A guest may do that to itself alone.
        request = await guest.client.send("device.revoke", {"device": owner.device})
        await guest.expect("chat.error", code="NOT_ALLOWED", ref=request)
        request = await guest.client.send("device.rename", {"device": guest.device, "name": "Kitchen"})
        devices = (await guest.expect("device.list.result", ref=request)).payload["devices"]
        assert [(it["name"], it.get("you"), it.get("owner")) for it in devices] == [
            ("Owner", None, True), ("Kitchen", True, None)
        ]  # fmt: skip
        assert devices[1]["by"] == owner.device
        request = await owner.client.send("device.revoke", {"device": guest.device})
        devices = (await owner.expect("device.list.result", ref=request)).payload["devices"]
        assert [it["name"] for it in devices] == ["Owner"]
        await guest.end()


async def test_a_phone_that_knows_no_devices_goes_on_beside_one(start_agent, tmp_path):
    agent = start_agent("--echo")
    await first_link(agent)
    plain = agent.link()
    async with Client("phone", plain, proxy=None) as old, contextlib.AsyncExitStack() as stack:
        await old.send("chat.send", {"text": "first"})
        await said(agent, "Encrypted end to end")
        pairing = await stack.enter_async_context(pairs(agent))
        phone = await stack.enter_async_context(device(await pairing.link(), tmp_path / "phone"))
        await pairing.shows(r"Its code: (\d{6})")
        await pairing.types(b"\n")
        await asks(phone, "new")
        await said(agent, "are still let in")
        await old.send("chat.send", {"text": "old"})
        async with asyncio.timeout(TIMEOUT):
            async for event in old:
                if event.type == "chat.done" and event.payload["full_text"] != "You said: first":
                    assert event.payload["full_text"] == "You said: old", "nothing of what a device asked"
                    break
        _, code = await command(agent, "revoke", "plain")
        assert code == 0
        async with asyncio.timeout(TIMEOUT):
            with contextlib.suppress(Exception):
                async for _ in old:
                    pass
        await asks(phone, "still there")
