"""`curl -sSL https://.../install.sh | sh`: a release on a server, and machines with a lot and with next to nothing."""

import contextlib
import functools
import http.server
import pathlib
import shutil
import subprocess
import threading

import pytest

from image import ROOT
from machine import Bare, Machine
from relay import binary
from release import AGENT, PROGRAM, keys, own_keys, release, release_agent, sign

pytestmark = pytest.mark.needs_root

BIN = "/usr/local/bin/coralmux-relay"
# A program that says its version, where it matters what is installed and not what it does.
STAND_IN = "#!/bin/sh\necho coralmux-relay 9.9.9\n"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def served(tmp_path):
    """A server: its `folder`, `url` and the paths that it was `asked` for."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        server.folder, server.asked = folder, []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def debian(folder):
    return Machine(folder)


def bare(*programs):
    def machine(folder):
        return Bare(folder), programs

    machine.__name__ = f"busybox with {' and '.join(programs) or 'nothing'}"
    return machine


@contextlib.contextmanager
def started(kind, tmp_path):
    folder = tmp_path / "machine"
    folder.mkdir()
    if kind is debian:
        with Machine(folder) as machine:
            yield machine.with_devices()
        return
    machine, programs = kind(folder)
    with machine:
        machine.give(*programs)
        yield machine


def line(machine, url, *arguments, env=None):
    """The one line, with what the machine has."""
    fetch = "curl -sSL" if machine.path("/usr/bin/curl").exists() else "wget -q -O -"
    rest = f" -s -- {' '.join(arguments)}" if arguments else ""
    return machine.run("sh", "-c", f"{fetch} {url}/install.sh | sh{rest}", env=env)


def installed(machine):
    folder = machine.path("/usr/local/bin")
    return sorted(path.name for path in folder.glob("coralmux*")) if folder.exists() else []


ALL = [debian, bare("openssl"), bare("minisign")]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_one_line_installs_relay_and_agent_from_the_newest_release(tmp_path, served, kind):
    here = served.folder / "newest"
    url = f"{served.url}/newest"
    release(here, keys=own_keys(), url=url)
    release_agent(here, own_keys(), url)
    with started(kind, tmp_path) as machine:
        if isinstance(machine, Bare):
            machine.give(libraries_of=[binary(), pathlib.Path(binary()).with_name("coralmux-agent")])
        said = line(machine, url, "relay", "agent")
        assert said.returncode == 0, said.stdout
        assert installed(machine) == ["coralmux-agent", "coralmux-relay"]
        for name, program in (("relay", PROGRAM), ("agent", AGENT)):
            assert machine.path(f"/usr/local/bin/coralmux-{name}").read_bytes() == (here / program).read_bytes()
            assert machine.must(f"coralmux-{name}", "--version").startswith(f"coralmux-{name} ")
            assert f"coralmux-{name}" in said.stdout.split("next:", 1)[1]
            assert machine.path(f"/usr/local/lib/systemd/system/coralmux-{name}.service").exists()
        # Once more, without names: what is there is upgraded, and it is the newest already.
        again = line(machine, url)
        assert again.returncode == 0 and again.stdout.count("already") == 2, again.stdout
        said = machine.must("sh", "-c", "cat >/tmp/install.sh && sh /tmp/install.sh --uninstall --purge", stdin=(here / "install.sh").read_text())
        assert "the relay" in said and "the agent" in said and installed(machine) == []
        assert not machine.path("/etc/coralmux").exists() and not machine.path("/etc/coralmux-agent").exists()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_where_a_program_lacks_its_c_library_the_static_one_is_installed(tmp_path, served, kind):
    here = served.folder / "newest"
    url = f"{served.url}/newest"
    release(here, keys=own_keys(), url=url)
    # Linked with a C library that no machine has: one can start it as little as Alpine can start the real one.
    program = (here / PROGRAM).read_bytes()
    assert program.count(b"/ld-linux-") == 1
    (here / PROGRAM).write_bytes(program.replace(b"/ld-linux-", b"/ld-other-"))
    sign(here, own_keys(), url)
    with started(kind, tmp_path) as machine:
        said = line(machine, url)
        assert said.returncode != 0 and "does not run on this machine; nothing has been changed" in said.stdout
        assert installed(machine) == []
        static = here / f"{PROGRAM}-static"
        static.write_text(STAND_IN)
        sign(here, own_keys(), url)
        said = line(machine, url)
        assert said.returncode == 0 and "so it is the static one" in said.stdout, said.stdout
        assert machine.path(BIN).read_text() == STAND_IN
        # Nothing that the key does not vouch for, however it is linked.
        static.write_text(STAND_IN.replace("9.9.9", "6.6.6"))
        said = line(machine, url)
        assert said.returncode != 0 and "is not what SHA256SUMS says" in said.stdout, said.stdout
        assert machine.path(BIN).read_text() == STAND_IN


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def sums_anew(folder, signatures):
    """SHA256SUMS over what is there now, with these signatures and the right install.sh."""
    script = (folder / "install.sh").read_bytes()
    sign(folder, signatures)
    (folder / "install.sh").write_bytes(script)


def broken(folder):
    flip(folder / PROGRAM)


def truncated(folder):
    cut(folder / PROGRAM)


def wrong(folder):
    shutil.copy(folder / "setup.sh", folder / PROGRAM)


def unit(folder):
    with open(folder / "coralmux-relay.service", "a") as file:
        file.write("ExecStartPre=+/bin/sh -c evil\n")


def unsigned(folder):
    broken(folder)
    sums_anew(folder, None)


def resummed(folder):
    signatures = {name: (folder / name).read_bytes() for name in ("SHA256SUMS.sig", "SHA256SUMS.minisig")}
    unsigned(folder)
    for name, signature in signatures.items():
        (folder / name).write_bytes(signature)


def foreign(folder):
    broken(folder)
    sums_anew(folder, keys())


def half_sums(folder):
    cut(folder / "SHA256SUMS")


def half_signature(folder):
    cut(folder / "SHA256SUMS.sig")
    cut(folder / "SHA256SUMS.minisig")


def empty_signature(folder):
    for name in ("SHA256SUMS.sig", "SHA256SUMS.minisig"):
        (folder / name).write_bytes(b"")


BAD = {
    "is not what SHA256SUMS says": [broken, truncated, wrong, unit],
    "the signature of SHA256SUMS is not that of a release": [resummed, foreign, half_sums, half_signature, empty_signature],
    "could not be had": [unsigned],
}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_what_the_key_does_not_vouch_for_is_not_installed(tmp_path, served, kind):
    good = release(served.folder / "good", program=STAND_IN, keys=own_keys())
    with started(kind, tmp_path) as machine:
        for says, faults in BAD.items():
            for fault in faults:
                bad = served.folder / fault.__name__
                shutil.copytree(good, bad)
                fault(bad)
                url = f"{served.url}/{fault.__name__}"
                done = line(machine, url, "--from", url)
                assert done.returncode == 1 and says in done.stdout, (fault.__name__, done.stdout)
                assert installed(machine) == [], fault.__name__
        # What was refused was refused for its fault.
        url = f"{served.url}/good"
        done = line(machine, url, "--from", url)
        assert done.returncode == 0 and installed(machine) == ["coralmux-relay"], done.stdout


def test_without_a_way_to_check_the_signature_nothing_is_installed(tmp_path, served):
    release(served.folder / "good", program=STAND_IN, keys=own_keys())
    release(served.folder / "keyless", program=STAND_IN)
    with started(bare(), tmp_path) as machine:
        done = line(machine, f"{served.url}/good", "--from", f"{served.url}/good")
        assert done.returncode == 1 and "neither openssl nor minisign is here" in done.stdout, done.stdout
        done = line(machine, f"{served.url}/keyless", "--from", f"{served.url}/keyless")
        assert done.returncode == 1 and "built without a release's key" in done.stdout, done.stdout
        absent = line(machine, f"{served.url}/good", "--from", f"{served.url}/elsewhere")
        assert absent.returncode == 1 and installed(machine) == []


@pytest.mark.parametrize("kind", ALL[:2], ids=lambda kind: kind.__name__)
def test_half_of_the_script_does_nothing(tmp_path, served, kind):
    """A connection that breaks while the shell reads."""
    release(served.folder / "good", program=STAND_IN, keys=own_keys(), url=f"{served.url}/good")
    script = (served.folder / "good/install.sh").read_text().rstrip("\n")
    with started(kind, tmp_path) as machine:
        ends = [*range(0, len(script), 701), *range(len(script) - 24, len(script))]
        for end in ends:
            machine.run("sh", stdin=script[:end])
        assert served.asked == [] and installed(machine) == []
        machine.must("sh", stdin=script)
        assert installed(machine) == ["coralmux-relay"]


def test_what_is_on_this_machine_is_fetched_without_a_proxy(tmp_path, served):
    url = f"{served.url}/good"
    release(served.folder / "good", program=STAND_IN, keys=own_keys(), url=url)
    proxy = {"http_proxy": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9"}
    with started(debian, tmp_path) as machine:
        machine.must("sh", stdin=(served.folder / "good/install.sh").read_text(), env=proxy)
        assert installed(machine) == ["coralmux-relay"]


def test_keys_that_are_not_what_they_should_be_are_refused(tmp_path):
    good = own_keys()
    for settings, says in (
        ({"CORALMUX_SIGNING_KEY": good["CORALMUX_SIGNING_KEY"]}, "belong together"),
        (good | {"CORALMUX_SIGNING_KEY": "nonsense"}, "not a private key as PEM"),
        (good | {"CORALMUX_MINISIGN_KEY": "nonsense"}, "not a secret key of minisign"),
    ):
        folder = tmp_path / says
        release(folder, program=STAND_IN)
        command = [ROOT / "deploy/sign.sh", folder]
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"} | settings)
        assert done.returncode != 0 and says in done.stderr, done.stderr
        assert not (folder / "SHA256SUMS.sig").exists()
