"""A folder with the files of a release, as build-all.sh creates it in dist/."""

import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

from image import ROOT
from relay import binary

ARCHITECTURE = os.uname().machine
PROGRAM = f"coralmux-relay-linux-{ARCHITECTURE}"
AGENT = f"coralmux-agent-linux-{ARCHITECTURE}"
UNIT_FILES = ("coralmux-relay.service", "coralmux-relay.socket")


def keys():
    """Signing keys, as sign.sh takes them; others each time."""
    with tempfile.TemporaryDirectory() as folder:
        openssl, minisign = (pathlib.Path(folder) / name for name in ("openssl", "minisign"))
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", openssl], check=True)
        make = ["minisign", "-G", "-W", "-s", minisign, "-p", minisign.with_suffix(".pub")]
        subprocess.run(make, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return {"CORALMUX_SIGNING_KEY": openssl.read_text(), "CORALMUX_MINISIGN_KEY": minisign.read_text()}


@functools.cache
def own_keys():
    """Those of the releases of this run."""
    return keys()


def sign(folder, keys=None, url=None):
    """What sign.sh does, with these keys or none."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("CORALMUX_")} | (keys or {})
    if url:
        settings["CORALMUX_RELEASE_URL"] = url
    subprocess.run([ROOT / "deploy/sign.sh", folder], check=True, env=settings, stderr=subprocess.DEVNULL)


def release_agent(folder, keys=None, url=None):
    """Adds the agent's program to a release."""
    shutil.copy(pathlib.Path(binary()).with_name("coralmux-agent"), folder / AGENT)
    sign(folder, keys, url)


def release(folder, program=None, more=b"", keys=None, url=None):
    """A folder with what a release has; `more` behind the program makes it another one that runs as well."""
    folder.mkdir()
    if program is None:
        shutil.copy(binary(), folder / PROGRAM)
        with open(folder / PROGRAM, "ab") as file:
            file.write(more)
    else:
        (folder / PROGRAM).write_text(program)
    for file in (*(ROOT / "deploy/systemd").iterdir(), ROOT / "deploy/oracle-cloud/setup.sh"):
        shutil.copy(file, folder)
    sign(folder, keys, url)
    return folder
