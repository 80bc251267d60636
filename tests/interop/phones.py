"""WebSocket libraries that apps for phones and desktops are made with, each with a program in the folder `phones` that plays
the phone: it authenticates, sends texts of the given sizes, hears each of them back in three pieces and whole, and closes
with 1000. `python phones.py` writes their table of docs/WORKS-WITH.md."""

import datetime
import json
import os
import pathlib
import subprocess
from dataclasses import dataclass

from environments import FOLDER

PROGRAMS = pathlib.Path(__file__).with_name("phones")
INSTALLED = FOLDER.parent / "phones"
RESULTS = FOLDER / "works-with-phones"
# Bytes of text. The last one makes a message near the limit, which the relay sends in fragments.
SIZES = (5, 100_000, 5_000_000)
INSTALL_TIMEOUT = 900


@dataclass(frozen=True)
class Library:
    """`command()` makes what has to be made, and returns the command that takes URL, token and sizes. `debian` and `npm`
    are installed before; the versions of those in `versions` are for the table."""

    name: str
    stands_for: str
    command: object
    debian: tuple = ()
    npm: tuple = ()
    needs: str = ""  # what an app has to set
    is_quick: bool = False  # it is tried in `make test`, too

    @property
    def key(self):
        return "".join(letter if letter.isalnum() else "-" for letter in self.name.lower())

    @property
    def folder(self):
        return INSTALLED / self.key


def run(*command, timeout=INSTALL_TIMEOUT, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def debian_version(package):
    """None where it is not installed."""
    done = subprocess.run(["dpkg-query", "-W", "-f=${Status} ${Version}", package], capture_output=True, text=True)
    found = done.stdout.startswith("install ok installed ")
    return done.stdout.split()[-1].split("-")[0].split("+")[0] if found else None


def install(library):
    """Returns the versions of its packages. Raises where they cannot be had."""
    missing = [package for package in library.debian if not debian_version(package)]
    if missing:
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    library.folder.mkdir(parents=True, exist_ok=True)
    if library.npm and not (library.folder / "node_modules").exists():
        run("npm", "install", "--no-audit", "--no-fund", "--no-save", *library.npm, cwd=library.folder)
    return {package: debian_version(package) for package in library.debian}


def java():
    source, jars = PROGRAMS / "Ok.java", "/usr/share/java/okhttp.jar:/usr/share/java/okio.jar"
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", jars, source]


LIBRARIES = [
    Library(
        "OkHttp",
        "Android; React Native on Android",
        java,
        debian=("libokhttp-java", "libokio-java"),
        needs="at most 16 MiB are queued: `send` then returns false, and the socket closes",
        is_quick=True,
    ),
]


def tried():
    """All of them with WORKS_WITH=all, as `make works-with` sets it; else the quick ones."""
    return [library for library in LIBRARIES if library.is_quick or os.environ.get("WORKS_WITH") == "all"]


def record(library, versions):
    """Keeps that it has passed, and with which versions."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    passed = {"versions": versions, "date": str(datetime.date.today())}
    (RESULTS / f"{library.key}.json").write_text(json.dumps(passed))
