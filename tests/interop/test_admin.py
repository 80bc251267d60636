"""`coralmux-relay admin` and the admin API's calls behind it, against running relays."""

import asyncio
import datetime
import functools
import json
import os
import pathlib
import pty
import signal
import sqlite3
import stat
import subprocess
import time

import pytest

import raw
from devices import Key, bound
from mailbox import device_of, gone, kept, page
from relay import ADMIN_KEY, Relay, binary

DEADLINE = 30


class Admin:
    def __init__(self, relay):
        self.relay = relay
        self.environment = {
            k: v for k, v in os.environ.items() if not k.startswith("CORALMUX_") and k != "RELAY_ADMIN_KEY"
        } | {"RELAY_ADMIN_KEY": ADMIN_KEY, "CORALMUX_URL": f"http://127.0.0.1:{relay.port}"}

    def run(self, *arguments, **environment):
        return subprocess.run(
            [binary(), "admin", *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            cwd=self.relay.directory,
        )

    def text(self, *arguments):
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments):
        return json.loads(self.text("--json", *arguments))


@pytest.fixture
def admin(start_relay):
    return Admin(start_relay("--register-rate", "0"))


def test_a_token_is_made_shown_limited_and_revoked(admin):
    made = admin.json("tokens", "create", "--label", "kitchen", "--phone-rate", "60", "--expires-in", "3600")
    assert made["token"].startswith("oc_pair_") and made["limits"] == {"phone_per_minute": 60}
    assert made["expires_at"] is not None
    name = made["id"]
    assert made["token"] not in admin.text("tokens", "list")
    assert "kitchen" in admin.text("tokens", "list")
    text = admin.text("tokens", "limits", name, "--daily-quota", "1GiB")
    assert "1.0 GiB   (its own)" in text and "60   (its own)" in text, "what was not named stays"
    shown = admin.json("tokens", "limits", name, "--phone-rate", "default")
    assert shown["limits"] == {"daily_quota_bytes": 1 << 30}
    shown = admin.json("tokens", "limits", name, "--clear", "--agent-rate", "0")
    assert shown["limits"] == {"agent_per_minute": 0}
    assert name in admin.text("tokens", "revoke", name)
    gone = admin.run("tokens", "show", name)
    assert (gone.returncode, gone.stdout) == (1, "") and "NOT_FOUND" in gone.stderr
    assert admin.json("tokens", "list") == {"tokens": []}


async def test_tokens_that_were_never_used_are_shown_and_swept(admin):
    """What clients registered; what somebody has connected with stays, and what the operator made."""
    unused, used = [(await admin.relay.http("POST", "/api/v1/register")).json() for _ in range(2)]
    made = await admin.relay.pair()
    async with await raw.RawSocket.authed(admin.relay, used["token"], "agent"):
        pass
    assert unused["unused_expires_at"] > unused["created_at"] and made["unused_expires_at"] is None
    assert "never used: expires" in admin.text("tokens", "show", unused["id"])
    assert admin.json("tokens", "show", used["id"])["unused_expires_at"] is None
    assert admin.json("tokens", "sweep") == {"removed": 0}, "it was registered today"
    assert "1 tokens removed" in admin.text("tokens", "sweep", "--unused-days", "0")
    assert {token["id"] for token in admin.json("tokens", "list")["tokens"]} == {used["id"], made["id"]}
    with pytest.raises(AssertionError, match="UNAUTHORIZED"):
        await raw.RawSocket.authed(admin.relay, unused["token"], "agent")


async def test_devices_are_listed_revoked_and_their_token_bound_to_another_agent(admin):
    made = await admin.relay.pair()
    name, command = made["id"], functools.partial(asyncio.to_thread, admin.text, "devices")
    assert "not bound" in await command("list", name)
    async with bound(admin.relay, token=made["token"]) as home:
        assert "no devices" in await command("list", name)
        device = await home.device("kitchen")
        text = await command("list", name)
        assert home.agent.key.sha256 in text and "not admitted" in text and "kitchen" in text and device.key.id in text
        assert home.agent.key.sha256 in await asyncio.to_thread(admin.text, "tokens", "show", name)
        assert device.key.id in await command("revoke", name, device.key.id)
        assert (await device.closed())[0] == 4002
        gone = await asyncio.to_thread(admin.run, "devices", "revoke", name, device.key.id)
        assert gone.returncode == 1 and "no such device" in gone.stderr
        successor = Key().sha256
        assert successor in await command("bind", name, successor)
        assert (await home.agent.closed())[0] == 4002
    assert successor not in await command("unbind", name)
    for wrong in (["revoke", name, "x"], ["list", "x"]):
        done = await asyncio.to_thread(admin.run, "devices", *wrong)
        assert done.returncode == 2 and "16 hex digits" in done.stderr
    done = await asyncio.to_thread(admin.run, "devices", "bind", name, "x")
    assert done.returncode == 1 and "agent_key" in done.stderr


async def test_what_waits_is_listed_and_thrown_away_and_its_receivers_are_told(admin):
    made = await admin.relay.pair()
    name, command = made["id"], functools.partial(asyncio.to_thread, admin.text, "mail")
    assert await command("list") == await command("list", name) == "nothing waits\n"
    async with bound(admin.relay, token=made["token"]) as home:
        one, two = await home.device(), await home.device()
        for device in (one, two):
            await gone(home, device)
            await kept(home.agent, device.key.id, 1)
        listed = await asyncio.to_thread(admin.json, "mail", "list")
        assert listed["messages"] == 2 and not listed["more"]
        assert {row["receiver"] for row in listed["receivers"]} == {one.key.id, two.key.id}
        assert {row["token"] for row in listed["receivers"]} == {name}
        text = await command("list", name)
        assert one.key.id in text and listed["receivers"][0]["oldest_at"] in text
        await command("empty", name, "--receiver", one.key.id)
        left = (await asyncio.to_thread(admin.json, "mail", "list", name))["receivers"]
        assert [row["receiver"] for row in left] == [two.key.id]
        await command("empty", name)
        async with device_of(home, one.key) as device:
            assert device.mail["waiting"] == 0
            _, end = await page(device)
            assert end == {"upto": 0, "left": 0, "lost": 1}
        for online in (True, False):
            assert await home.agent.expect("relay.device") == {"device": one.key.id, "online": online}
        # A backup has it only if it is to.
        await kept(home.agent, two.key.id, 2)
        for flags, expected in [((), []), (("--mail",), [(1,)])]:
            named = f"{len(flags)}.backup"
            await asyncio.to_thread(admin.text, "backup", "--name", named, *flags)
            mail = pathlib.Path(admin.relay.directory, named + ".mail")
            assert mail.exists() == bool(flags)
            if flags:
                assert stat.S_IMODE(mail.stat().st_mode) == 0o600
                with sqlite3.connect(mail) as copy:
                    assert copy.execute("SELECT count(*) FROM message").fetchall() == expected
    done = await asyncio.to_thread(admin.run, "mail", "empty", name, "--receiver", "x")
    assert done.returncode == 2 and "agent or a device" in done.stderr
    done = await asyncio.to_thread(admin.run, "mail", "list", "0123456789abcdef")
    assert done.returncode == 1


def test_a_file_of_certificates_that_is_none_is_named_and_not_waited_for(admin):
    pipe = pathlib.Path(admin.relay.directory, "pipe.pem")
    os.mkfifo(pipe)
    none = pathlib.Path(admin.relay.directory, "none.pem")
    none.write_text("no certificate\n")
    for path, wrong in ((pipe, "not a regular file"), (none, "holds no certificate"), (none.with_name("x"), "No such file")):
        done = admin.run("--ca", path, "tokens", "list")
        assert (done.returncode, done.stdout) == (1, ""), done
        assert f"{path}: {wrong}" in done.stderr


async def test_a_new_token_admits_as_the_command_printed_it(admin):
    text = await asyncio.to_thread(admin.text, "tokens", "create")
    token = next(line.split()[1] for line in text.splitlines() if line.startswith("token "))
    async with await raw.RawSocket.authed(admin.relay, token, "agent"):
        pass


async def test_long_lists_are_read_page_by_page(admin):
    with sqlite3.connect(admin.relay.db, timeout=10) as store:
        rows = [(os.urandom(32), f"number {n}", n) for n in range(2500)]
        store.executemany("INSERT INTO token (hash, label, created_at) VALUES (?, ?, ?)", rows)
    store.close()
    listed = admin.json("tokens", "list")["tokens"]
    assert [token["label"] for token in listed] == [f"number {n}" for n in range(2500)]
    assert len(admin.text("tokens", "list").splitlines()) == 2501


async def test_sessions_are_the_tokens_with_somebody_online(admin):
    for _ in range(3):
        await admin.relay.token()
    both, one = await admin.relay.pair(label="both"), await admin.relay.pair(label="one")
    async with (
        await raw.RawSocket.authed(admin.relay, both["token"], "agent"),
        await raw.RawSocket.authed(admin.relay, both["token"], "phone"),
        await raw.RawSocket.authed(admin.relay, one["token"], "phone"),
    ):
        sessions = (await asyncio.to_thread(admin.json, "sessions"))["sessions"]
        assert [(s["label"], s["online"]["phone"], s["online"]["agent"]) for s in sessions] == [
            ("both", True, True),
            ("one", True, False),
        ]
        page = (await admin.relay.http("GET", "/api/v1/sessions?limit=1", admin=True)).json()
        assert [s["label"] for s in page["sessions"]] == ["both"]
        rest = (await admin.relay.http("GET", f"/api/v1/sessions?limit=1&after={page['next']}", admin=True)).json()
        assert [s["label"] for s in rest["sessions"]] == ["one"]


async def test_usage_is_shown_by_day_and_token(admin):
    token, other = await admin.relay.pair(), await admin.relay.pair()
    used = {}
    for made, size in ((token, 1000), (other, 5000)):
        async with (
            await raw.RawSocket.authed(admin.relay, made["token"], "agent") as agent,
            await raw.RawSocket.authed(admin.relay, made["token"], "phone") as phone,
        ):
            text = json.dumps({"type": "chat.send", "payload": "x" * size})
            await phone.write(raw.frame(raw.TEXT, text))
            while (await agent.receive())["type"] != "chat.send":
                pass
            used[made["id"]] = len(text)
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    deadline = time.monotonic() + DEADLINE
    whole = {"days": [{"day": today, "bytes": sum(used.values()), "tokens": 2}]}
    while (shown := await asyncio.to_thread(admin.json, "usage")) != whole:
        assert time.monotonic() < deadline, shown
        await asyncio.sleep(0.1)
    mine = await asyncio.to_thread(admin.json, "usage", token["id"])
    assert mine == {"days": [{"day": today, "bytes": used[token["id"]], "tokens": 1}]}
    assert today in await asyncio.to_thread(admin.text, "usage")


async def test_a_backup_opens_as_a_store_with_all_tokens(admin, tmp_path):
    made = [await admin.relay.pair(label=f"t{n}") for n in range(20)]
    state = await asyncio.to_thread(admin.json, "backup", "--name", "monday.backup")
    copy = admin.relay.db.with_name("monday.backup")
    assert (state["state"], state["file"], state["bytes"]) == ("done", str(copy), copy.stat().st_size)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    again = await asyncio.to_thread(admin.run, "backup", "--name", "monday.backup")
    assert again.returncode == 1 and "EXISTS" in again.stderr
    unnamed = {(await asyncio.to_thread(admin.json, "backup"))["file"] for _ in range(3)}
    assert len(unnamed) == 3, "also within a second"
    outside = await asyncio.to_thread(admin.run, "backup", "--name", "../monday.backup")
    assert outside.returncode == 1 and "name:" in outside.stderr
    home = tmp_path / "restored"
    home.mkdir()
    copy.rename(home / "relay.db")
    restored = Relay(home).start()
    listed = (await restored.http("GET", "/api/v1/tokens", admin=True)).json()["tokens"]
    assert [token["id"] for token in listed] == [token["id"] for token in made]
    async with await raw.RawSocket.authed(restored, made[7]["token"], "agent"):
        pass
    restored.stop()


def test_a_backup_shows_its_progress_on_a_terminal(admin):
    controller, terminal = pty.openpty()
    done = subprocess.run(
        [binary(), "admin", "backup"], env=admin.environment, stdout=subprocess.PIPE, stderr=terminal, timeout=DEADLINE
    )
    os.close(terminal)
    shown = os.read(controller, 4096).decode()
    os.close(controller)
    assert done.returncode == 0 and "100%" in shown, shown
    assert pathlib.Path(done.stdout.decode().split(" (")[0]).exists()


async def test_drain_sends_clients_away_and_ends_the_relay(admin):
    async with await raw.RawSocket.authed(admin.relay, await admin.relay.token(), "agent") as agent:
        assert "draining" in await asyncio.to_thread(admin.text, "drain")
        assert (await agent.closed()).code == 1012
    assert admin.relay.wait() == 0
    assert "the admin API" in admin.relay.log()


async def test_a_signal_after_a_drain_by_the_api_is_the_first_one(start_relay):
    relay = start_relay("--drain-window", "2s")
    async with await raw.RawSocket.authed(relay, await relay.token(), "agent") as agent:
        assert (await relay.http("POST", "/api/v1/drain", admin=True)).status == 202
        relay.process.send_signal(signal.SIGTERM)
        assert (await agent.closed()).code == 1012
    assert relay.wait() == 0, "not ended at once"


@pytest.mark.parametrize(
    "method, path",
    [("GET", "sessions"), ("GET", "usage"), ("POST", "drain"), ("POST", "backup"), ("GET", "backup")],
)
async def test_every_call_needs_the_key(relay, method, path):
    assert (await relay.http(method, f"/api/v1/{path}")).status == 401
    headers = [("X-Admin-Key", "wrong")]
    assert (await relay.http(method, f"/api/v1/{path}", headers=headers)).status == 401
    assert (await relay.http("DELETE", f"/api/v1/{path}", admin=True)).status == 405


def test_the_log_level_is_shown_and_changed(admin):
    assert admin.text("log-level") == "info\n"
    assert admin.text("log-level", "debug") == "debug\n"
    assert admin.json("log-level") == {"level": "debug"}
    wrong = admin.run("log-level", "loud")
    assert wrong.returncode == 1 and "loud" in wrong.stderr


def test_what_is_wrong_is_said(admin):
    wrong = admin.run("tokens", "list", RELAY_ADMIN_KEY="wrong")
    assert wrong.returncode == 1 and "UNAUTHORIZED" in wrong.stderr
    nobody = admin.run("--relay", "http://127.0.0.1:1", "tokens", "list")
    assert nobody.returncode == 1 and "127.0.0.1:1" in nobody.stderr
    assert admin.run("--relay", "127.0.0.1:1", "tokens", "list").returncode == 2
    assert admin.run("tokens", "show", "../../health").returncode == 2
    many = admin.run("tokens", "limits", "0" * 16, "--phone-rate", "many")
    assert many.returncode == 2 and "--phone-rate" in many.stderr and "a whole number" in many.stderr
    assert admin.run("nothing").returncode == 2
    nothing = admin.run("tokens", "list", RELAY_ADMIN_KEY="")
    assert nothing.returncode == 1 and "--key-file" in nothing.stderr


def test_the_key_is_read_from_files_too(start_relay, tmp_path):
    relay = start_relay(admin_key=None)
    admin = Admin(relay)
    assert admin.run("tokens", "list", RELAY_ADMIN_KEY="").returncode == 0, "relay.db.admin-key lies there"
    elsewhere = tmp_path / "key"
    elsewhere.write_text((relay.directory / "relay.db.admin-key").read_text())
    assert admin.run("--key-file", str(elsewhere), "tokens", "list").returncode == 0


@pytest.mark.parametrize("shell, check", [("bash", ["bash", "-n"]), ("zsh", None), ("fish", None)])
def test_completions(shell, check):
    done = subprocess.run([binary(), "completions", shell], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and "phone-rate" in done.stdout and "backup" in done.stdout
    if check:
        assert subprocess.run(check, input=done.stdout, text=True, timeout=DEADLINE).returncode == 0


@pytest.mark.parametrize("line, words", [
    ("", {"admin", "doctor", "healthcheck", "demo", "--phone-rate"}),
    ("admin ", {"tokens", "sessions", "backup", "--relay"}),
    ("admin tokens ", {"list", "create", "limits", "revoke"}),
    ("admin tokens limits --pho", {"--phone-rate"}),
    ("doctor --", {"--json", "--db"}),
    ("healthcheck --ad", {"--addr", "--admin-key"}),
    ("demo --", {"--addr", "--data"}),
    ("completions ", {"bash", "zsh", "fish"}),
])
def test_bash_completes(line, words):
    typed = ["coralmux-relay", *line.split(" ")]
    script = """
        source <("$0" completions bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _coralmux__relay "$1" "${@: -1}" "${@: -2:1}" && printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script, binary(), *typed], capture_output=True, text=True, timeout=DEADLINE)
    assert words <= set(done.stdout.split()), (done.stdout, done.stderr)


def test_manual_pages(tmp_path):
    done = subprocess.run([binary(), "man"], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and ".TH coralmux-relay 1" in done.stdout
    assert subprocess.run([binary(), "man", "--directory", tmp_path], timeout=DEADLINE).returncode == 0
    assert (tmp_path / "coralmux-relay-admin.1").exists()


@pytest.mark.parametrize("text", ["", " \n", "two\nlines"])
def test_a_key_file_without_a_key_is_named(admin, tmp_path, text):
    (tmp_path / "key").write_text(text)
    done = admin.run("--key-file", str(tmp_path / "key"), "sessions")
    assert done.returncode == 1 and str(tmp_path / "key") in done.stderr and "no admin key" in done.stderr
