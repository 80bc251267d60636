"""The log as an operator finds it: two lines for each connection, no token, floods summarised, and never blocking."""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import subprocess

import pytest

import http1
from client import Client, pair, sized
from metrics import scrape_until
from relay import GENEROUS, START_TIMEOUT, Relay, free_port


async def lines_until(relay, holds):
    for _ in range(100):
        found = [line for line in relay.lines() if holds(line)]
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"no such line within 5 s:\n{relay.log()}")


async def test_a_connections_life_is_two_lines(start_relay):
    relay = start_relay(*GENEROUS)
    made = await relay.pair()
    async with pair(relay, made["token"]) as (agent, phone):
        for _ in range(3):
            await phone.send_text(sized("chat.send", 500)[0])
            await agent.receive()
    await lines_until(relay, lambda line: line["message"] == "closed" and line["role"] == "phone")
    await lines_until(relay, lambda line: line["message"] == "closed" and line["role"] == "agent")
    about = [line for line in relay.lines() if line.get("token") == made["id"] and line.get("role") == "phone"]
    opened, closed = about
    assert (opened["message"], opened["level"], opened["address"]) == ("opened", "INFO", "127.0.0.1")
    assert (closed["message"], closed["level"], closed["reason"], closed["code"]) == ("closed", "INFO", "client", 1000)
    assert (closed["messages"], closed["bytes"]) == (3, 1500)
    assert closed["conn"] == opened["conn"] and closed["shard"] == opened["shard"]
    assert 0 <= closed["seconds"] < 60


async def test_who_is_replaced_has_a_last_line_of_its_own(start_relay):
    relay = start_relay(*GENEROUS)
    made = await relay.pair()
    async with await Client.authed(relay, made["token"], "agent") as old:
        async with await Client.authed(relay, made["token"], "agent") as new:
            await old.closed()
            await new.expect_silence()
    await lines_until(relay, lambda line: line["message"] == "closed" and line["reason"] == "client")
    lives = [(line["message"], line["conn"]) for line in relay.lines() if line.get("token") == made["id"]]
    (_, first), (_, second) = lives[:2]
    assert sorted(lives[:2]) == [("opened", first), ("opened", second)] or lives[1][0] == "closed"
    closed = {line["conn"]: line["reason"] for line in relay.lines() if line["message"] == "closed"}
    assert sorted(closed.values()) == ["client", "replaced"] and len(closed) == 2


async def test_no_token_is_ever_in_the_log(start_relay):
    relay = start_relay("--log-level", "trace", "--daily-quota", "3000", *GENEROUS[:4])
    token, other = await relay.token(label="kitchen"), await relay.token()
    async with pair(relay, token) as (agent, phone):
        await phone.send_text(sized("chat.send", 1500)[0])
        await agent.receive()
        await phone.send("auth", {"token": token, "role": "phone"})
        await phone.expect_error("INVALID_MESSAGE")
        await phone.send_text(sized("chat.send", 2500)[0])
        await phone.expect_error("DAILY_QUOTA_EXCEEDED")
        async with await Client.authed(relay, token, "phone"):
            await phone.closed()
    async with await Client.open(relay) as stranger:
        await stranger.send("auth", {"token": "oc_pair_" + "f" * 32, "role": "agent"})
        await stranger.expect("auth.fail")
    await relay.http("GET", f"/api/v1/pair/{token}")
    await relay.http("GET", f"/api/v1/pair/{other}?x={token}")
    await relay.http("GET", f"/{token}")
    await relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)
    await relay.http("POST", "/api/v1/register")
    relay.stop()
    log = relay.log()
    assert "authentication refused" in log and "token revoked" in log
    assert "oc_pair_" not in log
    assert token.removeprefix("oc_pair_") not in log and relay.admin_key not in log


async def test_the_level_changes_while_it_runs(start_relay):
    relay = start_relay(*GENEROUS)
    level = "/api/v1/log-level"
    assert (await relay.http("GET", level)).status == 401
    assert (await relay.http("PUT", level, {"level": "debug"})).status == 401
    assert (await relay.http("GET", level, admin=True)).json() == {"level": "info"}
    refuse = lambda line: line["message"] == "authentication refused"  # noqa: E731
    for to, told in (("debug", True), ("info", False)):
        answer = await relay.http("PUT", level, {"level": to}, admin=True)
        assert (answer.status, answer.json()) == (200, {"level": to})
        before = len([line for line in relay.lines() if refuse(line)])
        async with await Client.open(relay) as stranger:
            await stranger.send("auth", {})
            await stranger.expect("auth.fail")
        async with pair(relay):
            pass
        await lines_until(relay, lambda line: line["message"] == "closed")
        assert (len([line for line in relay.lines() if refuse(line)]) > before) == told
    for bad in ({"level": "loud"}, {"level": 1}, {}, {"level": "info", "more": 1}):
        assert (await relay.http("PUT", level, bad, admin=True)).status == 400, bad
    assert (await relay.http("GET", level, admin=True)).json() == {"level": "info"}


async def test_a_flood_of_refused_authentications_is_summed_up(start_relay):
    relay = start_relay(*GENEROUS,)

    async def fail():
        async with await Client.open(relay) as stranger:
            await stranger.send("auth", {})
            await stranger.expect("auth.fail")

    await asyncio.gather(*(fail() for _ in range(30)))
    relay.stop()
    said = [line for line in relay.lines() if line["message"] == "authentications refused"]
    # At once the first of each shard, and of the rest a sum at most every ten seconds.
    assert 1 <= len(said) <= 6 and said[0]["count"] == 1, said
    assert sum(line["count"] for line in said) == 30, "the last sum is said when the relay ends"


async def test_a_log_that_nobody_takes_holds_nobody_up(tmp_path):
    port = free_port()
    relay = Relay(tmp_path, *GENEROUS, "--log-level", "trace", "--metrics-addr", f"127.0.0.1:{port}")
    takes_nothing, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    try:
        relay.process = relay.popen(stdout=subprocess.DEVNULL, stderr=end)
        os.close(end)
        for _ in range(START_TIMEOUT * 10):
            try:
                if http1.get_blocking(port, "/readyz").startswith(b"HTTP/1.1 200"):
                    break
            except OSError:
                pass
            await asyncio.sleep(0.1)
        # Each of these connections is a line.
        for _ in range(30):
            for _ in range(200):
                assert http1.get_blocking(relay.port, "/nothing").startswith(b"HTTP/1.1 404")
            figures = await scrape_until(port, lambda _: True)
            if figures.get("coralmux_log_lines_dropped_total") > 0:
                break
        assert figures.get("coralmux_log_lines_dropped_total") > 0
        async with pair(relay) as (agent, phone):
            await phone.send_text(sized("chat.send", 500)[0])
            await agent.receive()
        relay.process.send_signal(signal.SIGTERM)
        assert relay.process.wait(20) == 0
    finally:
        if relay.running():
            relay.kill()
        os.close(takes_nothing)


def journald(tmp_path):
    """A shell line that runs a command with a journald of the test's own, or skips where namespaces are not allowed."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    return f"mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind {tmp_path} /run/systemd/journal"


async def test_under_systemd_events_are_journal_entries_with_fields(tmp_path):
    setup = journald(tmp_path)
    entries = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    entries.bind(str(tmp_path / "socket"))
    entries.settimeout(START_TIMEOUT)
    relay = Relay(tmp_path)
    # As systemd does: standard error is a stream to journald, and JOURNAL_STREAM says which.
    ours, theirs = socket.socketpair()
    stat = os.fstat(theirs.fileno())
    relay.command = ["unshare", "--mount", "sh", "-c", setup + ' && exec "$@"', "sh", *relay.command]
    relay.environment["JOURNAL_STREAM"] = f"{stat.st_dev}:{stat.st_ino}"
    relay.process = relay.popen(stdout=subprocess.DEVNULL, stderr=theirs.fileno())
    theirs.close()
    try:
        while True:
            entry = entries.recv(65536).decode().splitlines()
            fields = dict(line.split("=", 1) for line in entry)
            assert fields["SYSLOG_IDENTIFIER"] == "coralmux-relay" and fields["PRIORITY"] == "6", fields
            if fields["MESSAGE"] == "ready":
                break
        assert fields["SHARDS"] == "2" and fields["TARGET"] == "coralmux::server::announce"
        async with pair(relay):
            pass
        while fields["MESSAGE"] != "closed":
            fields = dict(line.split("=", 1) for line in entries.recv(65536).decode().splitlines())
        assert fields["REASON"] == "client" and fields["CODE"] == "1000"
        relay.stop()
    finally:
        if relay.running():
            relay.kill()
        ours.close()
        entries.close()
