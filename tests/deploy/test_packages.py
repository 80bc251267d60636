"""The archive and the packages that deploy/release.sh makes, installed and removed on machines of their families."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tarfile

import pytest

import http1
from image import ROOT
from relay import binary, free_port
from release import AGENT, ARCHITECTURE, PROGRAM, UNIT_FILES, own_keys, release

pytestmark = pytest.mark.needs_root

DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}[ARCHITECTURE]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole release with the programs of this build, less what only a debugger reads."""
    folder = tmp_path_factory.mktemp("made") / "dist"
    release(folder, program="")
    for name, program in ((PROGRAM, "coralmux-relay"), (AGENT, "coralmux-agent")):
        built = pathlib.Path(binary()).with_name(program)
        subprocess.run(["strip", "-o", folder / name, built], check=True)
        (folder / name).chmod(0o755)
    environment = os.environ | own_keys() | {"SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run([ROOT / "deploy/release.sh", folder], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def one(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


def traces(machine):
    """Everything of ours on a machine, except what this one has under /tmp and in caches."""
    found = []
    for folder in ("/etc", "/usr/bin", "/usr/lib/systemd", "/usr/share/doc", "/var/lib"):
        for parent, folders, files in os.walk(machine.path(folder)):
            found += [os.path.join(parent, name) for name in (*folders, *files) if "coralmux" in name]
    return [path for path in found if "/rpm/" not in path]


def test_every_file_of_a_release_is_in_its_checksums(made):
    sums = dict(reversed(line.split("  ")) for line in (made / "SHA256SUMS").read_text().splitlines())
    others = {"SHA256SUMS", "SHA256SUMS.sig", "SHA256SUMS.minisig"}
    assert set(sums) == {path.name for path in made.iterdir()} - others
    assert all(hashlib.sha256((made / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())


def test_the_archive_has_the_programs_their_units_and_the_licence(made):
    with tarfile.open(one(made, f"coralmux-*-linux-{ARCHITECTURE}.tar.gz")) as archive:
        names = archive.getnames()
        assert {member.uid for member in archive} == {0} and {member.mtime for member in archive} == {1700000000}
    (top,) = {name.split("/")[0] for name in names}
    for name in ("coralmux-relay", "coralmux-agent", "coralmux-agent.service", "LICENSE", *UNIT_FILES):
        assert f"{top}/{name}" in names


def test_a_debian_package_starts_the_relay_and_leaves_nothing_when_purged(made, booted):
    port = free_port()
    before = traces(booted)
    for part in ("relay", "agent"):
        shutil.copy(one(made, f"coralmux-{part}_*_{DEBIAN}.deb"), booted.path(f"/opt/{part}.deb"))
    # Settings that are there already are kept.
    booted.path("/etc/coralmux").mkdir()
    settings = f"CORALMUX_ADDR=127.0.0.1:{port}\nCORALMUX_SHARDS=1\n"
    booted.path("/etc/coralmux/environment").write_text(settings)
    booted.must("dpkg", "--force-confold", "-i", "/opt/relay.deb", "/opt/agent.deb")
    assert http1.get_blocking(port, "/health").startswith(b"HTTP/1.1 200")
    assert booted.path("/etc/coralmux/environment").read_text() == settings
    assert booted.must("systemctl", "is-enabled", "coralmux-relay", "coralmux-agent").split() == ["enabled"] * 2
    assert booted.run("systemctl", "is-active", "coralmux-agent").stdout.strip() == "inactive"
    assert booted.path("/etc/coralmux-agent/environment").stat().st_mode & 0o777 == 0o600

    def pid():
        return booted.must("systemctl", "show", "--property=MainPID", "--value", "coralmux-relay").strip()

    # The same again is what an upgrade does: it goes on with the new program.
    running = pid()
    booted.must("dpkg", "--force-confold", "-i", "/opt/relay.deb")
    assert pid() not in (running, "0")
    assert http1.get_blocking(port, "/health").startswith(b"HTTP/1.1 200")
    booted.must("dpkg", "--remove", "coralmux-relay", "coralmux-agent")
    with pytest.raises(OSError):
        http1.get_blocking(port, "/health")
    assert booted.path("/var/lib/private/coralmux/relay.db").exists(), "what is stored stays"
    assert booted.path("/etc/coralmux/environment").exists()
    booted.must("dpkg", "--purge", "coralmux-relay", "coralmux-agent")
    assert traces(booted) == before


def test_an_rpm_package_can_be_installed_upgraded_and_erased(made, machine):
    before = traces(machine)
    files = []
    for part in ("relay", "agent"):
        files.append(f"/tmp/{part}.rpm")
        shutil.copy(one(made, f"coralmux-{part}-*.{ARCHITECTURE}.rpm"), machine.path(files[-1]))
    # Debian's rpm knows of no C library.
    requires = machine.must("rpm", "-qp", "--requires", files[0])
    assert "libc.so.6(GLIBC_" in requires, requires
    install = ["rpm", "--nodeps", "-U"]
    machine.must(*install, *files)
    for part in ("relay", "agent"):
        assert machine.must(f"coralmux-{part}", "--version").startswith(f"coralmux-{part} ")
        unit = machine.path(f"/usr/lib/systemd/system/coralmux-{part}.service").read_text()
        assert f"ExecStart=/usr/bin/coralmux-{part}" in unit
    settings = machine.path("/etc/coralmux/environment")
    assert settings.stat().st_mode & 0o777 == 0o600
    assert machine.must("rpm", "-V", "--nodeps", "coralmux-relay", "coralmux-agent") == ""
    settings.write_text("CORALMUX_SHARDS=1\n")
    machine.must(*install, "--force", *files)
    assert settings.read_text() == "CORALMUX_SHARDS=1\n"
    machine.must("rpm", "-e", "coralmux-relay", "coralmux-agent")
    kept = machine.path("/etc/coralmux/environment.rpmsave")
    assert kept.read_text() == "CORALMUX_SHARDS=1\n"
    kept.unlink()
    settings.parent.rmdir()
    assert traces(machine) == before
