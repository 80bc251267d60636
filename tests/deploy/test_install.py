"""deploy/install.sh on a machine: first without an init, then with systemd as its PID 1."""

import re
import subprocess
import time

import pytest

import http1
from agents import Link, Phone
from image import ROOT
from machine import Booted
from relay import free_port
from release import PROGRAM, UNIT_FILES, own_keys, release, release_agent, sign

pytestmark = pytest.mark.needs_root

BIN = "/usr/local/bin/coralmux-relay"
OLD = BIN + ".old"
UNITS = "/usr/local/lib/systemd/system"
SETTINGS = "/etc/coralmux/environment"


@pytest.fixture
def first(machine):
    """A release on the machine that is not signed, and the path of its install.sh there."""
    release(machine.path("/tmp/first"))
    return "/tmp/first/install.sh"


def state(machine):
    """What could have been changed: names, contents and times."""
    files = {}
    for folder in ("/usr/local/bin", UNITS, "/etc/coralmux"):
        root = machine.path(folder)
        for path in sorted(root.glob("*")) if root.exists() else ():
            if path.is_file() and "coralmux" in str(path):
                files[str(path)] = (path.read_bytes(), path.stat().st_mtime_ns)
    return files


def test_it_installs_the_program_its_units_and_settings_to_begin_with(machine, first):
    said = machine.must(first)
    assert machine.must(BIN, "--version").startswith("coralmux-relay ")
    assert machine.path(BIN).read_bytes() == machine.path(f"/tmp/first/{PROGRAM}").read_bytes()
    for name in UNIT_FILES:
        assert machine.path(f"{UNITS}/{name}").read_text() == (ROOT / "deploy/systemd" / name).read_text()
    assert machine.path(SETTINGS).read_text() == (ROOT / "deploy/systemd/coralmux-relay.environment").read_text()
    assert machine.path(SETTINGS).stat().st_mode & 0o777 == 0o600
    assert all(line.startswith("#") for line in machine.path(SETTINGS).read_text().splitlines())
    assert "systemd does not run here" in said and "coralmux-relay doctor" in said
    assert not machine.path(OLD).exists()


def test_a_second_time_it_changes_nothing(machine, first):
    machine.must(first)
    before = state(machine)
    assert "already" in machine.must(first)
    assert state(machine) == before


def test_an_upgrade_keeps_the_program_before_it_and_the_settings_and_can_be_taken_back(machine, first):
    machine.must(first)
    machine.path(SETTINGS).write_text("CORALMUX_PHONE_RATE=60\n")
    second = release(machine.path("/tmp/second"), more=b"second")
    with open(second / UNIT_FILES[0], "a") as unit:
        unit.write("# another one\n")
    sign(second)
    machine.must(first, "--from", "/tmp/second/")
    unit = machine.path(f"{UNITS}/{UNIT_FILES[0]}")
    assert unit.read_text().endswith("# another one\n")
    old, new = (machine.path(f"/tmp/{name}/{PROGRAM}").read_bytes() for name in ("first", "second"))
    assert (machine.path(BIN).read_bytes(), machine.path(OLD).read_bytes()) == (new, old)
    assert machine.path(SETTINGS).read_text() == "CORALMUX_PHONE_RATE=60\n"
    machine.must(first, "--rollback")
    assert (machine.path(BIN).read_bytes(), machine.path(OLD).read_bytes()) == (old, new)
    assert not unit.read_text().endswith("# another one\n"), "the units go back with it"
    machine.must(first, "--rollback")
    assert machine.path(BIN).read_bytes() == new


def damage(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)


def forget(folder, name):
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if not line.endswith(f"{name}\n")))


@pytest.mark.parametrize("name", [PROGRAM, UNIT_FILES[0]])
@pytest.mark.parametrize("how, says", [(damage, "is not what SHA256SUMS says"), (forget, "has no line about")])
def test_what_the_checksums_do_not_vouch_for_is_not_installed(machine, first, name, how, says):
    machine.must(first)
    before = state(machine)
    bad = release(machine.path("/tmp/bad"), more=b"bad")
    how(bad, name)
    done = machine.run(first, "--from", "/tmp/bad")
    assert done.returncode == 1 and says in done.stdout, done.stdout
    assert state(machine) == before


def test_a_program_that_does_not_run_here_is_not_installed(machine, first):
    release(machine.path("/tmp/other"), program="\x7fELF of another machine")
    done = machine.run(first, "--from", "/tmp/other")
    assert done.returncode == 1 and "does not run on this machine" in done.stdout
    assert not list(machine.path("/usr/local/bin").glob("coralmux*"))
    release(machine.path("/tmp/lacking"), program="#!/bin/sh\necho no such library >&2\nexit 127\n")
    done = machine.run(first, "--from", "/tmp/lacking")
    assert done.returncode == 1 and "It says: no such library" in done.stdout, done.stdout


def test_an_architecture_without_a_release_is_named(machine, first):
    done = machine.run("setarch", "i686", first)
    assert done.returncode == 1 and "there is no release for i686" in done.stdout
    assert not machine.path(BIN).exists()


@pytest.mark.parametrize(
    "source",
    [
        "http://127.0.0.1:x@evil.example",
        "http://127.0.0.1@evil.example/release",
        "http://127.0.0.1:80@evil.example",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1:80evil.example",
        "http://127.0.0.1:",
        "http://127.0.0.1\\@evil.example",
        "http://127.0.0.1#@evil.example",
        "http://127.0.0.1?@evil.example",
        "HTTP://127.0.0.1",
        "ftp://127.0.0.1",
        "http://example.com/coralmux",
    ],
)
def test_a_url_that_only_looks_like_this_machine_is_not_fetched(machine, source):
    release(machine.path("/tmp/signed"), program="none", keys=own_keys())
    done = machine.run("/tmp/signed/install.sh", "--from", source)
    assert done.returncode == 1 and "only https is safe" in done.stdout, done.stdout
    assert not machine.path(BIN).exists()


@pytest.mark.parametrize("script, shell", [("install.sh", "sh"), ("install.sh", "bash"), ("setup.sh", "bash")])
def test_through_a_pipe_it_takes_nothing_out_of_the_current_folder(machine, first, script, shell):
    """`cd ~/Downloads; curl ... | sudo sh`: who put a SHA256SUMS there, and what with it?"""
    release(machine.path("/tmp/evil"), program="#!/bin/sh\ntouch /tmp/it-ran; echo coralmux-relay 9.9.9\n")
    machine.path(f"/tmp/evil/{shell}").write_text("a file with the shell's name\n")
    # Nobody is asked: the newest release is behind a proxy that is not there.
    proxy = {"https_proxy": "http://127.0.0.1:9"}
    done = machine.run("sh", "-c", f"cd /tmp/evil && {shell} </tmp/first/{script}", env=proxy)
    assert done.returncode == 1, done.stdout
    said = "from https://" if script == "install.sh" else "among the files of a release"
    assert said in done.stdout, done.stdout
    assert not machine.path("/tmp/it-ran").exists() and not machine.path(BIN).exists()


@pytest.mark.parametrize("call", ["./install.sh", "sh install.sh", "bash /tmp/first/install.sh"])
def test_started_as_a_file_it_takes_the_release_that_it_is_in(machine, first, call):
    machine.must("sh", "-c", f"cd /tmp/first && {call}")
    assert machine.path(BIN).exists()


def test_a_folder_for_temporary_files_that_nothing_runs_from_is_no_obstacle(machine):
    release(machine.path("/opt/first"))
    machine.mount("-t", "tmpfs", "-o", "noexec", "tmpfs", machine.root / "tmp")
    machine.must("/opt/first/install.sh")
    assert machine.must(BIN, "--version").startswith("coralmux-relay ")
    assert {path.name for path in machine.path("/usr/local/bin").glob("coralmux*")} == {"coralmux-relay"}


def test_uninstalling_leaves_the_store_unless_told_to_purge(machine, first):
    machine.must(first)
    machine.path("/var/lib/coralmux").mkdir(parents=True, exist_ok=True)
    store = machine.path("/var/lib/coralmux/relay.db")
    store.write_text("tokens")
    assert "stay" in machine.must(first, "--uninstall")
    assert not any("bin" in name or "systemd" in name for name in state(machine))
    assert store.exists() and machine.path(SETTINGS).exists()
    machine.must(first, "--uninstall", "--purge")
    assert not store.exists() and not machine.path("/etc/coralmux").exists()
    machine.must(first, "--uninstall")


def test_it_needs_root_and_known_arguments(machine, first):
    done = machine.run("setpriv", "--reuid=65534", "--clear-groups", first)
    assert done.returncode == 1 and "this needs root" in done.stdout
    for wrong in (["--form", "/tmp/first"], ["--from"], ["--purge"]):
        assert machine.run(first, *wrong).returncode == 1
    assert "--rollback" in machine.must(first, "--help")
    assert not machine.path(BIN).exists()


def get(port, path="/health"):
    return http1.get_blocking(port, path).split(b"\r\n")[0]


async def test_under_systemd_it_starts_upgrades_takes_back_what_fails_and_ends(booted):
    """One machine through its life, for each boot takes seconds."""
    port = free_port()
    for name, more in (("first", b""), ("second", b"second")):
        release(booted.path(f"/opt/{name}"), more=more)
    booted.path("/etc/coralmux").mkdir()
    booted.path(SETTINGS).write_text(f"CORALMUX_ADDR=127.0.0.1:{port}\nCORALMUX_SHARDS=2\nRELAY_ADMIN_KEY=key\n")
    booted.must("/opt/first/install.sh")
    assert get(port) == b"HTTP/1.1 200 OK"
    assert booted.must("systemctl", "is-enabled", "coralmux-relay").strip() == "enabled"
    answer = await http1.request(port, "POST", "/api/v1/pair", headers=[("X-Admin-Key", "key")])
    assert answer.status == 201
    token = answer.json()["token"]

    def pid():
        return booted.must("systemctl", "show", "--property=MainPID", "--value", "coralmux-relay").strip()

    # Nothing new: nobody is disturbed.
    before = pid()
    assert "nothing has changed" in booted.must("/opt/first/install.sh")
    assert pid() == before

    booted.must("/opt/second/install.sh")
    assert pid() != before and get(port) == b"HTTP/1.1 200 OK"
    path = f"/api/v1/pair/{token}"
    known = await http1.request(port, "GET", path, headers=[("X-Admin-Key", "key")])
    assert known.status == 200, "the store survives the upgrade"

    # It says its version, and ends when it is started.
    broken = '#!/bin/sh\n[ "$1" != --version ] || { echo coralmux-relay 9.9.9; exit 0; }\nexit 3\n'
    release(booted.path("/opt/broken"), program=broken)
    done = booted.run("/opt/broken/install.sh")
    assert done.returncode == 1 and "the one before it is back" in done.stdout, done.stdout
    assert booted.path(BIN).read_bytes() == booted.path(f"/opt/second/{PROGRAM}").read_bytes()
    assert booted.path(OLD).read_text() == broken
    assert get(port) == b"HTTP/1.1 200 OK"

    # An agent that has not been told its relay is not started.
    agent = "/opt/second/install.sh", "agent"
    release_agent(booted.path("/opt/second"))
    said = booted.must(*agent)
    assert "not started" in said and "/etc/coralmux-agent/environment" in said, said
    with open(booted.path("/etc/coralmux-agent/environment"), "a") as settings:
        settings.write(f"CORALMUX_AGENT_RELAY=ws://127.0.0.1:{port}\nCORALMUX_AGENT_FLAGS=--echo --name Echo\n")
    assert "it runs" in booted.must(*agent)
    link = ["coralmux-agent", "link", "--qr", "none", "--relay", f"ws://127.0.0.1:{port}"]
    deadline = time.monotonic() + 20
    while (shown := booted.run(*link, env={"XDG_STATE_HOME": "/var/lib"})).returncode:
        assert time.monotonic() < deadline, shown.stdout + booted.run("journalctl", "-u", "coralmux-agent").stdout
        time.sleep(0.1)
    pair = Link.parse(re.search(r"openclaw://pair\S+", shown.stdout)[0])
    async with Phone(pair) as phone:
        await phone.ask("good morning")
        assert (await phone.answer())[0] == "You said: good morning"

    booted.must("/opt/second/install.sh", "--uninstall")
    assert booted.run("systemctl", "is-active", "coralmux-agent").returncode != 0
    with pytest.raises(OSError):
        get(port)
    assert not booted.path(f"{UNITS}/coralmux-relay.service").exists()
    assert booted.path("/var/lib/private/coralmux/relay.db").exists()


@pytest.fixture
def secluded(tmp_path):
    folder = tmp_path / "machine"
    folder.mkdir()
    with Booted(folder, private=True) as machine:
        yield machine


def test_the_service_waits_for_an_address_that_appears_late_and_a_port_that_is_taken(secluded):
    release(secluded.path("/opt/first"))
    secluded.must("/opt/first/install.sh", "--no-start")
    secluded.path(SETTINGS).write_text("CORALMUX_ADDR=198.51.100.7:8080\nCORALMUX_SHARDS=1\n")
    # As many starts as would take half a minute, in a few seconds.
    drop_in = secluded.path("/etc/systemd/system/coralmux-relay.service.d/fast.conf")
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nRestartSec=50ms\n")
    secluded.must("systemctl", "daemon-reload")

    def show(*names):
        return secluded.must("systemctl", "show", "--value", *(f"--property={name}" for name in names), "coralmux-relay").split()

    def wait_until(reached):
        deadline = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < deadline, secluded.run("journalctl", "-u", "coralmux-relay", "-n", "30").stdout
            time.sleep(0.1)

    secluded.run("systemctl", "start", "coralmux-relay")
    wait_until(lambda: int(show("NRestarts")[0]) > 15)
    assert show("ActiveState") == ["activating"], "it goes on"
    taken = "import socket, time; s = socket.create_server(('198.51.100.7', 8080)); print('taken', flush=True); time.sleep(600)"
    secluded.must("ip", "link", "set", "lo", "up")
    secluded.must("ip", "address", "add", "198.51.100.7/32", "dev", "lo")
    wait_until(lambda: show("ActiveState") == ["active"])
    secluded.must("systemctl", "stop", "coralmux-relay")
    secluded.must("systemd-run", "--unit=taker", "/usr/bin/python3", "-c", taken)
    wait_until(lambda: "taken" in secluded.run("journalctl", "-u", "taker", "-o", "cat").stdout)
    secluded.run("systemctl", "start", "--no-block", "coralmux-relay")
    wait_until(lambda: int(show("NRestarts")[0]) > 1)
    secluded.must("systemctl", "stop", "taker")
    wait_until(lambda: show("ActiveState") == ["active"])
    assert show("LimitCORE") == ["0"] and show("MemoryMax")[0].isdigit()


def test_a_build_without_a_standard_library_for_the_target_says_how_to_get_one(tmp_path):
    build = [ROOT / "deploy/build-all.sh", "riscv64gc-unknown-linux-gnu"]
    done = subprocess.run(build, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "DIST": str(tmp_path)})
    assert done.returncode == 1 and "no Rust standard library for riscv64gc" in done.stderr, done.stderr


SCRIPTS = [*(ROOT / "deploy").rglob("*.sh"), *(ROOT / "tests/arm64").glob("*.sh"), *(ROOT / "benches").glob("*.sh"), ROOT / "tests/install.sh"]


@pytest.mark.parametrize("script", sorted(SCRIPTS), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script):
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
