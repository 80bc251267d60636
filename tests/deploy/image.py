"""The image's file tree and settings, from its Dockerfile: the last stage is followed line by line, and what it copies
from the build stage is given. The base image's part of the tree is what distroless has of Debian's packages: the C
library, certificates, users."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
BASE = re.compile(r"gcr\.io/distroless/cc-debian12:nonroot@sha256:[0-9a-f]{64}")
BASE_PASSWD = "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"


@dataclasses.dataclass
class Image:
    tree: pathlib.Path
    user: tuple = (0, 0)
    workdir: str = "/"
    env: dict = dataclasses.field(default_factory=dict)
    entrypoint: list = dataclasses.field(default_factory=list)
    healthcheck: list = dataclasses.field(default_factory=list)
    volumes: list = dataclasses.field(default_factory=list)
    exposed: list = dataclasses.field(default_factory=list)
    stop_signal: str = "SIGTERM"

    def spec(self, argv, *, volumes, seccomp, ulimits, env=None):
        """What contain.py takes."""
        return json.dumps({
            "root": str(self.tree),
            "user": self.user,
            "workdir": self.workdir,
            "volumes": {str(source): target for source, target in volumes.items()},
            "argv": [str(arg) for arg in argv],
            "env": {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **self.env, **(env or {})},
            "seccomp": seccomp,
            "ulimits": ulimits,
        })  # fmt: skip


def instructions(dockerfile):
    """The instructions of the last stage, as name and rest."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    parsed = [tuple(line.split(None, 1)) for line in lines]
    last = max(index for index, (name, _) in enumerate(parsed) if name == "FROM")
    return parsed[last:]


def lay_base(tree, program):
    for folder in ("proc", "sys", "dev", "etc/ssl/certs", "home/nonroot", "tmp", "usr/bin"):
        (tree / folder).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    (tree / "etc/passwd").write_text(BASE_PASSWD)
    (tree / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    certificates = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        shutil.copy(certificates, tree / "etc/ssl/certs")
    # Of cc-debian12 come libc6, libgcc-s1 and libstdc++6; a program that needs another library does not start.
    allowed = r"(ld-linux-\S+|lib(c|m|dl|rt|pthread|resolv|gcc_s|stdc\+\+))\.so\.\d+"
    listing = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+) \(0x", listing):
        if re.fullmatch(allowed, os.path.basename(library)):
            target = tree / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


def copy(tree, rest, built):
    """COPY --from=build SOURCE TARGET."""
    words = shlex.split(rest)
    flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
    source, target = (word for word in words if not word.startswith("--"))
    assert flags.pop("from") == "build", rest
    target = tree / target.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if built[source] is None:
        target.mkdir()
    else:
        shutil.copy(built[source], target)
        target.chmod(0o755)
    if "chmod" in flags:
        target.chmod(int(flags.pop("chmod"), 8))
    if "chown" in flags:
        os.chown(target, *(int(number) for number in flags.pop("chown").split(":")))
    assert not flags, f"unknown flags: {rest}"


def assemble(tree, program, dockerfile=DOCKERFILE):
    """Builds the tree in `tree`, with `program` as what the build stage made."""
    (name, base), *rest = instructions(dockerfile)
    assert name == "FROM" and BASE.fullmatch(base), "lay_base() knows another base image"
    image = Image(tree)
    lay_base(tree, program)
    for name, value in rest:
        match name:
            case "COPY":
                copy(tree, value, {"/coralmux-relay": program, "/data": None})
            case "USER":
                image.user = tuple(int(number) for number in value.split(":"))
            case "WORKDIR":
                image.workdir = value
            case "ENV":
                image.env |= dict(pair.split("=", 1) for pair in shlex.split(value))
            case "ENTRYPOINT":
                image.entrypoint = json.loads(value)
            case "VOLUME":
                image.volumes = json.loads(value)
            case "EXPOSE":
                image.exposed = value.split()
            case "STOPSIGNAL":
                image.stop_signal = value
            case "HEALTHCHECK":
                image.healthcheck = json.loads(value[value.index("CMD") + 3 :])
            case "LABEL":
                pass
            case _:
                raise AssertionError(f"an instruction that this does not follow: {name} {value}")
    return image
