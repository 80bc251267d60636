"""The image, the compose file and the seccomp profile. No engine is needed: the image's tree is assembled as the
Dockerfile says and run within the bounds that the compose file sets."""

import copy
import hashlib
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys

import pytest
import yaml

import image as images
import seccomp
from client import pair
from relay import Relay, binary

DOCKER = images.ROOT / "deploy/docker"
CONTAIN = pathlib.Path(__file__).with_name("contain.py")
IO_URING = ["io_uring_enter", "io_uring_register", "io_uring_setup"]
# Of Docker's own default profile (moby 26.1.5), as canonical() writes it.
DEFAULT_PROFILE_SHA256 = "885442dc08f21f8d60f99ea43d59af88b1c529103815fe24bbf9ce998d3a609d"


def canonical(profile):
    return json.dumps(profile, sort_keys=True, separators=(",", ":")).encode()


def test_every_image_that_a_build_takes_is_named_by_its_digest():
    text = images.DOCKERFILE.read_text()
    assert "# syntax=" not in text, "that would be one more"
    taken = re.findall(r"^FROM (?:--\S+ )?(\S+)", text, re.MULTILINE)
    assert len(taken) == 2 and all(re.search(r":[^@/]+@sha256:[0-9a-f]{64}$", name) for name in taken), taken


def profile():
    return seccomp.read(DOCKER / "seccomp.json")


def default_profile():
    """Docker's own: ours without the last entry."""
    return profile() | {"syscalls": profile()["syscalls"][:-1]}


def service():
    with open(DOCKER / "compose.yaml") as file:
        return yaml.safe_load(file)["services"]["relay"]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    # Whoever runs inside must be able to come here.
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    return images.assemble(folder / "tree", binary())


class Container(Relay):
    """The relay of the image, with a volume of its own on /data."""

    def __init__(self, image, directory, *flags, seccomp_profile):
        super().__init__(directory)
        self.image, self.profile = image, seccomp_profile
        self.volume = self.directory / "volume"
        self.volume.mkdir(mode=0o700)
        # As Docker does for a new volume.
        owner = (image.tree / "data").stat()
        os.chown(self.volume, owner.st_uid, owner.st_gid)
        self.command = self.contained(*image.entrypoint, *flags)

    def contained(self, *argv):
        limits = {}
        for name, wanted in service()["ulimits"].items():
            hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
            limits[name] = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        spec = self.image.spec(
            argv,
            volumes={self.volume: "/data"},
            seccomp=self.profile,
            ulimits=limits,
            env={"CORALMUX_ADDR": f"127.0.0.1:{self.port}", "RELAY_ADMIN_KEY": self.admin_key, "CORALMUX_SHARDS": "2"},
        )
        return [sys.executable, str(CONTAIN), spec]

    def healthcheck(self):
        return subprocess.run(self.contained(*self.image.healthcheck), capture_output=True, text=True, timeout=30)


def test_the_profile_is_dockers_default_and_the_three_calls():
    *default, added = profile()["syscalls"]
    assert sorted(added["names"]) == IO_URING
    assert added["action"] == "SCMP_ACT_ALLOW"
    assert not {"args", "includes", "excludes"} & added.keys()
    assert not any("io_uring" in name for entry in default for name in entry["names"])
    assert hashlib.sha256(canonical(default_profile())).hexdigest() == DEFAULT_PROFILE_SHA256


def test_the_compose_file_sets_what_the_relay_needs_and_takes_the_rest_away(image):
    relay = service()
    assert f"seccomp={(DOCKER / 'seccomp.json').name}" in relay["security_opt"]
    assert "no-new-privileges:true" in relay["security_opt"]
    assert relay["cap_drop"] == ["ALL"] and relay["read_only"] is True
    assert relay["ulimits"] == {"nofile": 1048576, "memlock": 67108864, "core": 0}
    assert (DOCKER / relay["build"]["context"] / relay["build"]["dockerfile"]).resolve() == images.DOCKERFILE
    assert [volume.split(":")[1] for volume in relay["volumes"]] == image.volumes == ["/data"]
    assert [port.split(":")[-1] + "/tcp" for port in relay["ports"]] == image.exposed
    assert image.env["CORALMUX_ADDR"] == ":8080"


@pytest.mark.needs_root
async def test_the_image_forwards_messages_as_nobody_special_on_a_read_only_root(image, tmp_path):
    container = Container(image, tmp_path, seccomp_profile=profile()).start()
    assert container.health()["io"] == "io_uring"
    status = pathlib.Path(f"/proc/{container.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["65532"] * 4
    assert fields["CapEff"] == fields["CapBnd"] == "0" * 16
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert pathlib.Path(f"/proc/{container.process.pid}/root").readlink() == image.tree
    async with pair(container) as (agent, phone):
        await phone.send("chat.send", {"text": "ahoy"})
        assert await agent.expect("chat.send") == {"text": "ahoy"}
        await agent.send("chat.stream", {"text": "x" * 1_000_000})
        assert len((await phone.expect("chat.stream"))["text"]) == 1_000_000
    assert (container.volume / "relay.db").exists()
    assert image.stop_signal == "SIGTERM"
    container.stop()


@pytest.mark.needs_root
def test_the_image_says_itself_whether_it_is_healthy(image, tmp_path):
    container = Container(image, tmp_path, seccomp_profile=profile()).start()
    healthy = container.healthcheck()
    assert (healthy.returncode, healthy.stderr) == (0, "")
    container.process.send_signal(signal.SIGSTOP)
    stuck = container.healthcheck()
    container.process.send_signal(signal.SIGCONT)
    assert stuck.returncode == 1 and "timeout" in stuck.stderr, stuck.stderr
    container.stop()
    gone = container.healthcheck()
    assert gone.returncode == 1 and f"127.0.0.1:{container.port}" in gone.stderr, gone.stderr


@pytest.mark.needs_root
async def test_under_dockers_own_default_the_relay_runs_on_epoll(image, tmp_path):
    container = Container(image, tmp_path, seccomp_profile=default_profile()).start()
    health = container.health()
    assert health["io"] == "epoll" and "io_uring is forbidden here" in health["io_reason"], health
    async with pair(container) as (agent, phone):
        await phone.send("chat.send", {"text": "ahoy"})
        assert await agent.expect("chat.send") == {"text": "ahoy"}
        await agent.send("chat.stream", {"text": "x" * 1_000_000})
        assert len((await phone.expect("chat.stream"))["text"]) == 1_000_000
    container.stop()


@pytest.mark.needs_root
@pytest.mark.parametrize("call", IO_URING)
def test_each_of_the_three_calls_is_needed_for_io_uring(image, tmp_path, call):
    without = copy.deepcopy(profile())
    without["syscalls"][-1]["names"].remove(call)
    container = Container(image, tmp_path, "--io", "uring", seccomp_profile=without).spawn()
    assert container.wait() == 3, container.log()
    assert "io_uring is forbidden here" in container.log() and "--security-opt seccomp=" in container.log()


@pytest.mark.needs_root
@pytest.mark.parametrize("made_of", [profile, default_profile])
def test_what_docker_forbids_stays_forbidden(made_of):
    """So the filter of these tests is one."""
    program = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "for f, a in ((c.unshare, (0x10000000,)), (c.mount, (0, b'/', 0, 0, 0)), (c.swapoff, (b'/x',))):\n"
        "    print(f(*a), ctypes.get_errno())"
    )
    spec = {
        "root": None, "user": (65534, 65534), "volumes": {}, "workdir": "/", "ulimits": {}, "env": {},
        "argv": ["/usr/bin/python3", "-c", program], "seccomp": made_of(),
    }  # fmt: skip
    done = subprocess.run([sys.executable, str(CONTAIN), json.dumps(spec)], capture_output=True, text=True, timeout=30)
    assert done.stdout.split("\n")[:3] == ["-1 1", "-1 1", "-1 1"], done
