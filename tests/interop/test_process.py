"""The process: command line, admin key, exit codes, signals, and what survives a restart."""

import os
import re
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time

import pytest

import raw
import relay as relays
from certificates import certificate, tls_flags
from client import Client, pair
from relay import free_port
from secure import wait_for
from terminal import Screen


def run_to_end(relay, timeout=20):
    """For a relay that is expected to end by itself: exit code and what it wrote."""
    code = relay.wait(timeout)
    return code, relay.log()


async def test_one_dash_or_two_and_the_key_from_the_environment(start_relay):
    """`coralmux-relay -addr :8080 -admin-key my-secret`, with one dash or two; `RELAY_ADMIN_KEY`."""
    relay = start_relay(admin_key=None, env={"RELAY_ADMIN_KEY": "from-env"})
    relay.admin_key = "from-env"
    assert (await relay.pair())["token"]
    relay.stop()
    relay.command = ["--" + part[1:] if part in ("-addr", "-db") else part for part in relay.command]
    relay.start()
    assert (await relay.pair())["token"]
    assert "from-env" not in relay.log()


def test_without_a_host_it_listens_on_all_addresses(start_relay):
    """`-addr :8080`."""
    relay = start_relay(spawn_only=True)
    relay.kill()
    relay.command = [f":{relay.port}" if part == f"127.0.0.1:{relay.port}" else part for part in relay.command]
    relay.start()


async def test_without_an_admin_key_it_makes_one_and_keeps_it_beside_the_store(start_relay):
    """Without an admin key it makes one and keeps it beside the store; it says where, and to a log never what."""
    relay = start_relay(admin_key=None)
    files = [p for p in relay.directory.iterdir() if not p.name.startswith("relay.db") or "key" in p.name]
    files = [p for p in files if p.name != "relay.log"]
    assert len(files) == 1, files
    key = files[0].read_text().strip()
    assert len(key) >= 16
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert key not in relay.log() and str(files[0]) in relay.log()
    assert (await relay.http("POST", "/api/v1/pair")).status == 401
    assert (await relay.http("POST", "/api/v1/pair", headers=[("X-Admin-Key", "")])).status == 401
    relay.admin_key = key
    assert (await relay.pair())["token"]
    relay.stop()
    relay.start()
    assert (await relay.pair())["token"], "the same key after a restart"
    assert key not in relay.log() and str(files[0]) not in relay.log(), "said once"


def test_the_admin_key_that_was_made_is_shown_once_at_a_terminal(start_relay):
    relay = start_relay(admin_key=None, spawn_only=True)
    relay.kill()
    key_file = relay.db.with_name("relay.db.admin-key")
    for shown in (1, 0):
        if shown:
            key_file.unlink(missing_ok=True)
        with Screen(relay.log_path) as screen:
            relay.process = relay.popen(stdout=screen, stderr=screen)
        relay.await_health()
        relay.stop()
        relay.log_start = 0
        assert relay.log().count(key_file.read_text().strip()) == shown, relay.log()


@pytest.mark.parametrize("mode", [0o640, 0o664])
def test_a_key_file_that_others_may_read_is_made_private_with_a_warning(start_relay, mode):
    relay = start_relay(admin_key=None)
    relay.stop()
    key_file = relay.db.with_name("relay.db.admin-key")
    key_file.chmod(mode)
    relay.start()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    [line] = relay.lines("for its owner alone")
    assert (line["level"], line["file"], line["before"]) == ("WARN", str(key_file), f"{mode:o}")


@pytest.mark.parametrize(("mode", "lock_mode"), [(0o640, 0o644), (0o664, 0o666), (0o666, 0o660)])
def test_files_of_the_store_that_others_may_open_are_made_private_with_a_warning(start_relay, mode, lock_mode):
    relay = start_relay()
    relay.process.kill()
    relay.process.wait()
    modes = {relay.db: mode, relay.db.with_name("relay.db.lock"): lock_mode}
    modes |= {relay.db.with_name(f"relay.db-{name}"): mode for name in ("wal", "shm")}
    for file, before in modes.items():
        file.chmod(before)
    relay.start()
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in modes} == {file.name: 0o600 for file in modes}
    told = {line["file"]: (line["level"], line["before"]) for line in relay.lines("for its owner alone")}
    assert told == {str(file): ("WARN", f"{before:o}") for file, before in modes.items()}
    relay.stop()
    relay.start()
    assert len(relay.lines("for its owner alone")) == 0, "once"


@pytest.fixture
def unread():
    """The end of a pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def test_a_first_start_whose_output_nobody_reads_succeeds(start_relay, tmp_path, unread):
    relay = start_relay(admin_key=None)
    relay.stop()
    relay.directory = tmp_path / "anew"
    relay.directory.mkdir()
    relay.command[relay.command.index("-db") + 1] = str(relay.directory / "relay.db")
    relay.process = relay.popen(stdout=unread, stderr=unread)
    relay.await_health()
    assert (relay.directory / "relay.db.admin-key").exists()
    relay.stop()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["admin", "--help"], 0),
        (["doctor", "--help"], 0),
        (["healthcheck", "--help"], 0),
        (["completions", "bash"], 0),
        (["man"], 0),
        (["doctor", "--metrics-addr", "off"], None),
        (["healthcheck", "--addr", "127.0.0.1:1"], 1),
        (["--no-such-flag"], 2),
        (["--log-level", "loud"], 2),
        (["admin", "--relay", "nonsense", "sessions"], 2),
        (["demo", "--no-such-flag"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_command_whose_output_nobody_reads_ends_quietly(tmp_path, unread, arguments, code):
    environment = os.environ | {"CORALMUX_ADMIN_KEY": "x"}
    command = [relays.binary(), *arguments]
    ended = subprocess.run(command, stdout=unread, stderr=unread, cwd=tmp_path, env=environment, timeout=60)
    assert ended.returncode in ([0, 1] if code is None else [code])


def test_a_short_admin_key_is_warned_of(start_relay):
    relay = start_relay(admin_key="my-secret")
    wait_for(relay.log, lambda: relay.lines("admin key is short"))
    relay.stop()
    [line] = relay.lines("admin key is short")
    assert line["level"] == "WARN" and "my-secret" not in relay.log()
    relay = start_relay(admin_key="b1946ac92492d2347c6235b4d2611184")
    relay.stop()
    assert not relay.lines("admin key is short")


def test_an_address_without_tls_beside_certificates_is_warned_of(start_relay, tmp_path):
    relay = start_relay(*tls_flags(certificate(tmp_path, "a.example")), spawn_only=True)
    relay.kill()
    port = free_port()
    relay.command[relay.command.index(f"127.0.0.1:{relay.port}")] = f"0.0.0.0:{port}"
    relay.spawn()
    # Whether port 443 can be had where the test runs or not, the words come before.
    wait_for(relay.log, lambda: relay.lines(f"tls://:{port}"))
    relay.kill()


@pytest.mark.parametrize("empty", ["", " "])
def test_empty_environment_variables_are_as_good_as_none(start_relay, empty):
    """As compose files make them: CORALMUX_DOMAIN=, and so on for each setting."""
    names = subprocess.run([relays.binary(), "--help"], capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"^ +--([a-z-]+) <", names, re.MULTILINE)) - {"admin-key"}
    assert len(names) > 30
    others = ("CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC")
    env = {f"CORALMUX_{name.replace('-', '_').upper()}": empty for name in names} | dict.fromkeys(others, "")
    relay = start_relay(env=env)
    assert relay.health()["status"] == "ok"
    relay.stop()


@pytest.mark.parametrize(
    "command", ["demo", "doctor", "healthcheck", "admin", "admin tokens", "admin tokens create", "completions", "man"]
)
def test_the_help_of_a_subcommand_shows_how_that_is_called(command):
    done = subprocess.run([relays.binary(), *command.split(), "--help"], capture_output=True, text=True)
    usage = next(line for line in done.stdout.splitlines() if line.startswith("Usage:"))
    assert done.returncode == 0 and usage.startswith(f"Usage: coralmux-relay {command} "), done.stdout


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_an_empty_admin_key_is_refused(start_relay, by):
    """An empty key never means open: exit code 2, naming the flag."""
    options = {"admin_key": ""} if by == "flag" else {"admin_key": None, "env": {"RELAY_ADMIN_KEY": ""}}
    relay = start_relay(spawn_only=True, **options)
    code, log = run_to_end(relay)
    assert code == 2, log
    assert "admin-key" in log or "RELAY_ADMIN_KEY" in log


@pytest.mark.parametrize(
    "flag,value",
    [
        ("--phone-rate", "many"),
        ("--max-message", "5 apples"),
        ("--daily-quota", "-1"),
        ("--shards", "x"),
        ("--auth-timeout", "soon"),
        ("--log-format", "loud"),
        ("--echo-addr", "nowhere"),
    ],
)
def test_a_wrong_value_names_the_flag_and_the_value(start_relay, flag, value):
    """A wrong value names the flag, the value and what would be right; exit code 2."""
    code, log = run_to_end(start_relay(f"{flag}={value}", spawn_only=True))
    assert code == 2, log
    assert flag.lstrip("-") in log and value in log


@pytest.mark.parametrize("flag", ["--addr", "--echo-addr", "--metrics-addr"])
def test_a_name_that_does_not_resolve_is_no_reason_never_to_try_again(start_relay, flag):
    """Names are known late on a machine that starts; with exit code 2 a service manager gives up."""
    relay = start_relay(spawn_only=True)
    relay.kill()
    relay.command = [part for part in relay.command if part != "--metrics-addr"] + [flag, "relay.invalid:1"]
    relay.command = [part for part in relay.command if part != "off"]
    relay.spawn()
    code, log = run_to_end(relay)
    assert code == 1 and flag in log and "relay.invalid" in log, log


def test_an_unknown_flag_is_exit_code_2(start_relay):
    code, log = run_to_end(start_relay("--no-such-flag", spawn_only=True))
    assert code == 2, log


def test_an_address_in_use_is_exit_code_5(start_relay):
    """Another program has the port: the message names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, log = run_to_end(start_relay(spawn_only=True, port=port))
        assert code == 5, log
        assert str(port) in log


def test_a_second_relay_on_the_same_address_is_exit_code_5(start_relay):
    """SO_REUSEPORT is for the relay's own shards: two relays must not share clients by accident."""
    first = start_relay()
    code, log = run_to_end(start_relay(spawn_only=True, port=first.port))
    assert code == 5, log


@pytest.mark.parametrize("what", ["a directory", "not a database", "no such directory"])
def test_a_store_that_cannot_be_opened_is_exit_code_4(start_relay, tmp_path, what):
    """A broken file is a clear error at start."""
    path = tmp_path / "broken.db"
    match what:
        case "a directory":
            path.mkdir()
        case "not a database":
            path.write_bytes(b"this is not a database\n" * 1000)
        case "no such directory":
            path = tmp_path / "missing" / "relay.db"
    code, log = run_to_end(start_relay(spawn_only=True, db=path))
    assert code == 4, log
    assert path.name in log


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
async def test_a_signal_closes_clients_with_1012_and_exits_0(start_relay, name):
    """SIGTERM/SIGINT: tell the connected with close 1012, flush usage, exit 0."""
    relay = start_relay()
    async with pair(relay) as (agent, phone), await Client.open(relay) as waiting:
        relay.process.send_signal(getattr(signal, name))
        assert (await agent.closed())[0] == 1012
        assert (await phone.closed())[0] == 1012
        await waiting.closed()
        assert relay.wait() == 0, relay.log()


async def test_after_a_signal_nobody_new_is_taken(start_relay):
    """SIGTERM: refuse new."""
    relay = start_relay()
    token = await relay.token()
    async with await raw.RawSocket.authed(relay, token, "agent") as agent:
        relay.process.send_signal(signal.SIGTERM)
        assert (await agent.closed()).code == 1012
        with pytest.raises((OSError, raw.Refused, raw.Closed, AssertionError)):
            async with await raw.RawSocket.authed(relay, token, "phone"):
                pass
    assert relay.wait() == 0, relay.log()


async def test_a_second_signal_ends_at_once(start_relay):
    """A second signal ends at once, although a client does not answer its close frame."""
    relay = start_relay()
    async with await raw.RawSocket.authed(relay, await relay.token(), "agent") as agent:
        relay.process.send_signal(signal.SIGTERM)
        assert (await agent.closed()).code == 1012
        started = time.monotonic()
        relay.process.send_signal(signal.SIGTERM)
        relay.wait()
        assert time.monotonic() - started < 2


async def test_a_client_that_does_not_answer_the_close_does_not_hold_the_exit_up(start_relay):
    """... exit 0 within the deadline."""
    relay = start_relay()
    async with await raw.RawSocket.authed(relay, await relay.token(), "agent"):
        relay.stop()


async def test_tokens_and_usage_survive_a_restart(start_relay):
    """Usage survives with nothing lost at an orderly stop; tokens with label, limits and expiry."""
    relay = start_relay()
    created = await relay.pair(label="stays", limits={"daily_quota_bytes": 4096})
    async with pair(relay, created["token"]) as (agent, phone):
        await phone.send("chat.send", {"text": "x" * 1000})
        used = len((await agent.receive_text()).encode())
    relay.stop()
    relay.start()
    async with await Client.authed(relay, created["token"], "agent") as agent:
        assert agent.auth_ok == {"paired": False, "daily_quota_bytes": 4096, "daily_used_bytes": used}
    shown = (await relay.http("GET", f"/api/v1/tokens/{created['id']}", admin=True)).json()
    assert shown["label"] == "stays"


async def test_a_revoked_token_stays_revoked_after_a_restart(start_relay):
    relay = start_relay()
    token = await relay.token()
    assert (await relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)).status == 204
    relay.stop()
    relay.start()
    async with await Client.open(relay) as client:
        await client.send("auth", {"token": token, "role": "agent"})
        assert (await client.expect("auth.fail"))["code"] == "UNAUTHORIZED"


async def test_an_acknowledged_token_survives_kill_9(start_relay):
    """A token whose 201 was sent survives `kill -9`."""
    relay = start_relay("--register-rate", "0")
    tokens = [await relay.token() for _ in range(20)]
    relay.kill()
    relay.start()
    for token in tokens:
        async with await Client.authed(relay, token, "agent"):
            pass


async def test_usage_survives_kill_9_with_at_most_a_second_lost(start_relay):
    """Usage survives with at most one second lost: after two seconds it is on disk."""
    relay = start_relay()
    created = await relay.pair()
    async with pair(relay, created["token"]) as (agent, phone):
        await phone.send("chat.send", {"text": "x" * 1000})
        used = len((await agent.receive_text()).encode())
        time.sleep(2)  # the contract's own second, and one more for a slow machine
        relay.kill()
    relay.start()
    async with await Client.authed(relay, created["token"], "agent") as agent:
        assert agent.auth_ok["daily_used_bytes"] == used


async def test_tokens_are_not_in_the_store_in_clear(start_relay):
    """Tokens stand as SHA-256, never in clear: neither in the store, nor in its journal, nor in the log."""
    relay = start_relay()
    token = await relay.token()
    async with pair(relay, token):
        pass
    relay.stop()
    for path in relay.directory.iterdir():
        data = path.read_bytes()
        assert token.encode() not in data and token.removeprefix("oc_pair_").encode() not in data, path


async def test_the_old_relays_store_is_taken_over(start_relay, tmp_path):
    """An existing relay.db with tables tokens and bandwidth: opening it takes tokens and this month's usage over."""
    path = tmp_path / "old.db"
    token, idle = "oc_pair_" + "ab" * 16, "oc_pair_" + "cd" * 16
    with sqlite3.connect(path) as old:
        old.executescript(
            """
            CREATE TABLE tokens (token TEXT PRIMARY KEY, created_at DATETIME DEFAULT CURRENT_TIMESTAMP);
            CREATE TABLE bandwidth (id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL, bytes INTEGER NOT NULL,
                recorded_at DATETIME DEFAULT CURRENT_TIMESTAMP,
                FOREIGN KEY (token) REFERENCES tokens(token) ON DELETE CASCADE);
            CREATE INDEX idx_bandwidth_token_date ON bandwidth(token, recorded_at);
            """
        )
        old.executemany("INSERT INTO tokens (token) VALUES (?)", [(token,), (idle,)])
        old.executemany("INSERT INTO bandwidth (token, bytes) VALUES (?, ?)", [(token, 1000), (token, 234)])
        old.execute("INSERT INTO bandwidth (token, bytes, recorded_at) VALUES (?, 77, '2020-01-01 00:00:00')", (token,))
    old.close()
    relay = start_relay(db=path)
    for _ in range(2):  # at the first start, and at one that has nothing left to take over
        async with await Client.authed(relay, token, "agent") as agent:
            assert agent.auth_ok["daily_used_bytes"] == 1234
        async with await Client.authed(relay, idle, "phone") as phone:
            assert phone.auth_ok["daily_used_bytes"] == 0
        relay.stop()
        relay.start()
    for left in path.parent.glob("old.db*"):
        assert token.encode() not in left.read_bytes(), "taken over, and not kept in clear"


async def test_flag_before_environment_before_file(start_relay, tmp_path):
    """Flags, environment and an optional TOML file resolve once into a checked Config."""
    path = tmp_path / "relay.toml"
    path.write_text('phone-rate = 1\nagent-rate = 1\ndaily-quota = "3KiB"\n')
    env = {"CORALMUX_PHONE_RATE": "2", "CORALMUX_AGENT_RATE": "2"}
    relay = start_relay("--config", path, "--agent-rate", "3", env=env)
    token = await relay.token()
    async with await Client.authed(relay, token, "agent") as agent:
        assert agent.auth_ok["daily_quota_bytes"] == 3072
        async with await Client.authed(relay, token, "phone") as phone:
            await agent.expect("status")
            for sender, burst in ((phone, 2), (agent, 3)):
                for _ in range(burst + 1):
                    await sender.send("chat.history")
                await sender.expect_error("RATE_LIMITED") if sender is phone else None
            for _ in range(2):
                await agent.expect("chat.history")
            await agent.expect_error("RATE_LIMITED")


def test_an_unknown_key_in_the_file_is_exit_code_2(start_relay, tmp_path):
    path = tmp_path / "relay.toml"
    path.write_text("no_such_setting = 1\n")
    code, log = run_to_end(start_relay("--config", path, spawn_only=True))
    assert code == 2, log
    assert "no_such_setting" in log


def test_too_few_open_files_is_exit_code_3(start_relay):
    """A preflight names exactly what is missing, what to do about it, and exits with a code of its own."""
    code, log = run_to_end(start_relay(spawn_only=True, rlimits=[(resource.RLIMIT_NOFILE, 40)]))
    assert code == 3, log
    assert "RLIMIT_NOFILE" in log and "40" in log


def test_two_relays_do_not_share_a_store(start_relay):
    first = start_relay()
    code, log = run_to_end(start_relay(spawn_only=True, db=first.db))
    assert code == 4, log


async def test_the_python_clients_make_a_message_go_from_a_phone_to_an_agent(relay):
    """`make run` prints two lines; these are the programs that they start."""
    clients = relays.ROOT / "clients" / "python"
    token = await relay.token()
    phone = [sys.executable, str(clients / "phone.py"), relay.url, token, "hello there"]
    lonely = subprocess.run(phone, capture_output=True, text=True, timeout=20)
    assert lonely.returncode == 1 and "No agent is connected" in lonely.stderr
    agent = subprocess.Popen(
        [sys.executable, str(clients / "agent.py"), relay.url, token], stdout=subprocess.PIPE, text=True
    )
    try:
        assert agent.stdout.readline().startswith("Connected")
        answered = subprocess.run(phone, capture_output=True, text=True, timeout=20)
        assert (answered.returncode, answered.stdout) == (0, "You said: hello there\n"), answered.stderr
        agent.stdout.close()  # nobody reads what it shows any more
        for _ in range(2):
            answered = subprocess.run(phone, capture_output=True, text=True, timeout=20)
            assert (answered.returncode, answered.stdout) == (0, "You said: hello there\n"), answered.stderr
    finally:
        agent.terminate()
        agent.wait()
    wrong = subprocess.run([*phone[:3], "oc_pair_" + "0" * 32, "hi"], capture_output=True, text=True, timeout=20)
    assert wrong.returncode == 1 and "unknown, revoked or expired" in wrong.stderr
