"""A folder with the files of a release, as build-all.sh creates it in dist/."""

import hashlib
import os
import shutil

from image import ROOT
from relay import binary

PROGRAM = f"coralmux-relay-linux-{os.uname().machine}"
UNIT_FILES = ("coralmux-relay.service", "coralmux-relay.socket")


def sign(folder):
    """SHA256SUMS as build-all.sh writes it."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name != "SHA256SUMS":
            lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


def release(folder, program=None, more=b""):
    """A folder with what a release has; `more` behind the program makes it another one that runs as well."""
    folder.mkdir()
    if program is None:
        shutil.copy(binary(), folder / PROGRAM)
        with open(folder / PROGRAM, "ab") as file:
            file.write(more)
    else:
        (folder / PROGRAM).write_text(program)
    for name in UNIT_FILES:
        shutil.copy(ROOT / "deploy/systemd" / name, folder)
    for script in ("install.sh", "oracle-cloud/setup.sh"):
        shutil.copy(ROOT / "deploy" / script, folder)
    sign(folder)
    return folder
