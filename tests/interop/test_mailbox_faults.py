"""The mailbox when things go wrong: kill -9, disks and files that fail, clocks that jump, receivers that are slow."""

import asyncio
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from devices import Peer, bound
from mailbox import agent_of, counted, device_of, drain, gone, keep, kept, page, sized
from relay import GENEROUS
from test_mailbox import until

# How often the relay is killed; the long form is `make test-mailbox-kills`.
ROUNDS = int(os.environ.get("CORALMUX_MAILBOX_ROUNDS", "50"))


async def test_15_what_was_said_to_be_kept_is_there_after_kill_9(start_relay):
    """A fresh kill right after some `relay.kept`, while others are on their way: all that was said is delivered, in
    order, once, and what was not said at most once."""
    relay = start_relay(*GENEROUS, "--daily-quota", "0", "--monthly-quota", "0")
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    async with bound(relay) as home:
        device = await home.device()
        await gone(home, device)
        agent, key, number = home.agent, device.key, 0
        for _ in range(ROUNDS):
            said, refs = [], {}
            for _ in range(rng.randrange(1, 40)):
                number += 1
                refs[await keep(agent, key.id, number)] = number
            for _ in range(rng.randrange(1, len(refs) + 1)):
                said.append(refs[(await agent.expect("relay.kept"))["ref"]])
            relay.kill()
            relay.start()
            agent = await home.stack.enter_async_context(await Peer.join(relay, home.token, "agent", home.agent.key))
            await counted(agent)
            async with device_of(home, key) as device:
                got, lost = await drain(device)
                assert lost == 0
                assert got[: len(said)] == said, f"seed {seed}"
                assert got == sorted(set(got)) and set(got) <= set(refs.values()), f"seed {seed}"
                await device.expect_silence()
            # The confirmation may not have come to the disk: what comes again then is what was there.
            for online in (True, False):
                assert (await agent.expect("relay.device"))["online"] is online


async def test_16_what_was_not_kept_yet_is_sent_again_and_delivered_once(start_relay):
    relay = start_relay(*GENEROUS)
    async with bound(relay) as home:
        device = await home.device()
        await gone(home, device)
        sent = [await keep(home.agent, device.key.id, number) for number in range(20)]
        relay.kill()
        relay.start()
        async with agent_of(home) as agent:
            for number in range(20):
                await kept(agent, device.key.id, 100 + number)
            async with device_of(home, device.key) as device:
                numbers, _ = await drain(device)
                assert numbers[-20:] == list(range(100, 120))
                assert numbers[:-20] == list(range(len(numbers) - 20)), "none but the first of those"
        assert len(set(sent)) == 20


@pytest.mark.parametrize(
    ("flags", "fits", "size", "text"),
    [
        (["--mailbox-bytes", "10000"], 3, 3000, "bytes"),
        (["--mailbox-messages", "4"], 4, 300, "for the receiver"),
        (["--mailbox-total", "10000"], 3, 3000, "relay"),
    ],
)
async def test_17_each_bound_by_itself_refuses_the_message_over_it(start_relay, flags, fits, size, text):
    relay = start_relay(*GENEROUS, *flags)
    async with bound(relay) as home:
        device = await home.device()
        await gone(home, device)
        for number in range(fits):
            message, ref = sized("chat.done", size, number, device=device.key.id, keep="quiet")
            await home.agent.send_text(message)
            assert (await home.agent.expect("relay.kept"))["ref"] == ref
        message, ref = sized("chat.done", size, fits, device=device.key.id, keep="quiet")
        await home.agent.send_text(message)
        refused = await home.agent.expect_error("MAILBOX_FULL", ref)
        assert text in refused["message"] and "retry_after_ms" not in refused
        assert refused["device"] == device.key.id
        async with device_of(home, device.key) as device:
            assert (await drain(device))[0] == list(range(fits))
            assert (await home.agent.expect("relay.device"))["online"] is True
        assert (await home.agent.expect("relay.device"))["online"] is False
        # There is room again.
        await until_kept(home.agent, device.key.id, size)


async def until_kept(agent, device, size):
    """Sends until it is kept: a deletion is on the disk a moment after the confirmation."""
    for _ in range(100):
        message, _ = sized("chat.done", size, 0, device=device, keep="quiet")
        await agent.send_text(message)
        if (await agent.receive())["type"] == "relay.kept":
            return
        await asyncio.sleep(0.05)
    raise AssertionError("there is no room")


async def test_17_a_message_that_is_too_long_is_refused_and_so_is_what_the_disk_cannot_take_now(start_relay):
    relay = start_relay(*GENEROUS, "--mailbox-message", "2000", "--mailbox-queue-messages", "2")
    async with bound(relay) as home:
        device = await home.device()
        await gone(home, device)
        message, ref = sized("chat.done", 2001, 1, device=device.key.id, keep="quiet")
        await home.agent.send_text(message)
        await home.agent.expect_error("MESSAGE_TOO_LARGE", ref)
        messages = [sized("chat.done", 1000, n, device=device.key.id, keep="quiet")[0] for n in range(200)]
        await asyncio.gather(*(home.agent.send_text(message) for message in messages))
        kept_count = 0
        for _ in range(200):
            message = await home.agent.receive()
            if message["type"] == "relay.kept":
                kept_count += 1
            else:
                assert message["payload"]["code"] == "MAILBOX_FULL"
                assert message["payload"]["retry_after_ms"] == 1000, message
        assert 0 < kept_count < 200
        async with device_of(home, device.key) as device:
            numbers, _ = await drain(device)
            assert len(numbers) == kept_count and numbers == sorted(numbers)


LIBRARY = next(iter(sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


@pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime")
async def test_18_messages_expire_by_time_and_not_by_a_clock_that_jumps(start_relay, tmp_path):
    moved = tmp_path / "faketime"
    moved.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(moved),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    relay = start_relay(*GENEROUS, "--mailbox-age", "2d", env=env)
    async with bound(relay) as home:
        device = await home.device()
        await gone(home, device)
        for number in range(3):
            await kept(home.agent, device.key.id, number)
        # Years in both directions, while it runs and between two runs.
        for jump in ("+4000d", "-4000d", "+0"):
            moved.write_text(f"{jump}\n")
            await asyncio.sleep(2.5)
        for jump in ("+4000d", "-4000d", "+0", "+1d"):
            relay.stop()
            moved.write_text(f"{jump}\n")
            relay.start()
            await asyncio.sleep(1.5)
            with sqlite3.connect(relay.db.with_name("relay.db.mail")) as file:
                assert file.execute("SELECT count(*) FROM message").fetchone() == (3,), jump
        # A day more makes two: they are gone, and their receiver is told.
        relay.stop()
        moved.write_text("+50h\n")
        relay.start()
        async with device_of(home, device.key) as device:
            deadline = time.monotonic() + 10
            numbers, lost = [], 0
            if device.mail.get("waiting") != 0:
                numbers, lost = await drain(device)
            else:
                _, end = await page(device)
                lost = end["lost"]
                await device.send("relay.mail.ack", {"upto": end["upto"]})
            assert (numbers, lost) == ([], 3) and time.monotonic() < deadline


async def test_19_a_file_that_is_removed_is_noticed_and_made_anew(start_relay):
    relay = start_relay(*GENEROUS)
    async with bound(relay) as home:
        device, other = await home.device(), await home.device()
        await gone(home, device)
        await kept(home.agent, device.key.id, 1)
        for path in relay.db.parent.glob("relay.db.mail*"):
            path.unlink()
        await keep(home.agent, device.key.id, 2)
        refused = await home.agent.receive()
        if refused["type"] != "relay.kept":
            assert refused["payload"]["code"] == "MAILBOX_FULL" and refused["payload"]["retry_after_ms"] > 0
        # What is live goes on.
        await home.agent.send("chat.done", {"n": 1}, device=other.key.id)
        assert await other.expect("chat.done") == {"n": 1}
        await until(lambda: relay.db.with_name("relay.db.mail").exists())
        await until_kept(home.agent, device.key.id, 400)
        assert relay.health()["mailbox"] == "ok"
        async with device_of(home, device.key) as device:
            numbers, lost = await drain(device)
            assert numbers[-1] == 0 and lost == 1, (numbers, lost)


async def test_19_a_disk_that_is_full_refuses_what_is_to_be_kept_and_nothing_else_and_heals(start_relay, tmp_path):
    """The limit of a file's size stands for a disk that is full."""
    relay = start_relay(*GENEROUS, prepare=ignore_file_size_signal)
    async with bound(relay) as home:
        device, other = await home.device(), await home.device()
        await gone(home, device)
        await kept(home.agent, device.key.id, 1)
        pid = relay.process.pid
        size = relay.db.with_name("relay.db.mail-wal").stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        message, ref = sized("chat.done", 100_000, 2, device=device.key.id, keep="quiet")
        await home.agent.send_text(message)
        refused = await home.agent.expect_error("MAILBOX_FULL", ref)
        assert refused["retry_after_ms"] > 0
        health = relay.health()
        assert health["status"] == "degraded" and health["mailbox"] != "ok" and health["store"] == "ok"
        await home.agent.send("chat.done", {"n": 1}, device=other.key.id)
        assert await other.expect("chat.done") == {"n": 1}
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert await relay.token()
        await until_kept(home.agent, device.key.id, 100_000)
        await until(lambda: relay.health()["mailbox"] == "ok")
        async with device_of(home, device.key) as device:
            numbers, lost = await drain(device)
            assert numbers == [1, 0] and lost == 0


def ignore_file_size_signal():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


async def test_19_a_file_that_cannot_be_opened_keeps_nobody_out(start_relay):
    relay = start_relay(*GENEROUS)
    async with bound(relay) as home:
        device = await home.device()
        await gone(home, device)
        relay.stop()
        blocked = relay.db.with_name("relay.db.mail")
        blocked.mkdir()
        relay.start()
        async with agent_of(home) as agent:
            await until(lambda: relay.health()["status"] == "degraded")
            refused = await agent.expect_error("MAILBOX_FULL", await keep(agent, device.key.id, 1))
            assert refused["retry_after_ms"] > 0
            async with device_of(home, device.key) as there:
                assert await agent.expect("relay.device") == {"device": device.key.id, "online": True}
                await there.say()
                assert (await agent.receive())["type"] == "chat.send"
            assert (await agent.expect("relay.device"))["online"] is False
            blocked.rmdir()
            await until_kept(agent, device.key.id, 300)
        assert "state" in relay.log() and "mailbox" in relay.log()


async def test_20_what_is_sent_while_a_slow_receiver_drains_comes_behind_in_order(start_relay):
    flags = ["--mailbox-messages", "2000", "--daily-quota", "0"]
    relay = start_relay(*GENEROUS, *flags)
    async with bound(relay) as home:
        device = await home.device()
        await gone(home, device)
        for number in range(100):
            message, _ = sized("chat.done", 30_000, number, device=device.key.id, keep="quiet")
            await home.agent.send_text(message)
        for _ in range(100):
            await home.agent.expect("relay.kept")
        async with device_of(home, device.key) as device:
            # While it drains, slowly, more is sent to it.
            async def more():
                for number in range(100, 1100):
                    await keep(home.agent, device.key.id, number)

            sending = asyncio.create_task(more())
            got = []
            while len(got) < 1100:
                message = await device.receive()
                if message["type"] == "relay.mail":
                    await asyncio.sleep(0.01)
                    await device.send("relay.mail.ack", {"upto": message["payload"]["upto"]})
                else:
                    got.append(message["payload"]["n"])
            await sending
            assert got == list(range(1100))


STRACE = shutil.which("strace")


@pytest.mark.skipif(STRACE is None, reason="needs strace")
async def test_25_a_thousand_messages_at_once_need_few_fsyncs_and_live_ones_none(start_relay, tmp_path):
    relay = start_relay(*GENEROUS, "--mailbox-messages", "2000", "--daily-quota", "0")
    async with bound(relay) as home:
        device, other = await home.device(), await home.device()
        await gone(home, device)
        await kept(home.agent, device.key.id, 0)
        with fsyncs(relay, tmp_path / "live") as live:
            for number in range(200):
                await home.agent.send("chat.done", {"n": number}, device=other.key.id, keep="wake")
            for _ in range(200):
                await other.expect("chat.done")
        assert live() == 0
        # On a disk that takes its time, whatever else the machine does: what comes meanwhile goes together.
        with fsyncs(relay, tmp_path / "kept", "-e", "inject=fsync,fdatasync:delay_enter=100000") as counted:
            # In one write, as far as the network goes.
            frames = [text_frame(envelope_of(number, device.key.id)) for number in range(1000)]
            home.agent.ws.transport.write(b"".join(frames))
            for _ in range(1000):
                await home.agent.expect("relay.kept")
        assert 0 < counted() < 100, counted()


def envelope_of(number, device):
    return sized("chat.done", 400, number, device=device, keep="quiet")[0].encode()


def text_frame(payload):
    """A masked text frame whose mask is 0."""
    return b"\x81\xfe" + len(payload).to_bytes(2) + bytes(4) + payload


class fsyncs:  # noqa: N801
    """Counts the fsyncs of the mailbox's thread."""

    def __init__(self, relay, output, *more):
        self.relay, self.output, self.more = relay, output, more

    def __enter__(self):
        tasks = pathlib.Path(f"/proc/{self.relay.process.pid}/task")
        tid = next(task.name for task in tasks.iterdir() if (task / "comm").read_text().strip() == "shelf")
        command = [STRACE, "-e", "trace=fsync,fdatasync", *self.more, "-o", str(self.output), "-p", tid]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert b"attached" in self.process.stderr.readline()
        return lambda: len(re.findall(r"^f(?:data)?sync\(", self.output.read_text(), re.M))

    def __exit__(self, *_):
        time.sleep(0.3)
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
