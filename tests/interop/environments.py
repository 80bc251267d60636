"""Virtual environments with the built wheel in them, as a user installs it: never the checkout."""

import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import fcntl

import relay as relays

PACKAGE = relays.ROOT / "clients" / "python"
FOLDER = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", relays.ROOT / "target")) / "python"
INSTALL_TIMEOUT = 900
MINOR_MAX = 20  # of a Python 3 that is looked for


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@functools.cache
def pythons():
    """The interpreters from Python 3.11 on that there are, by minor version; also those of pyenv."""
    found = {}
    for minor in range(11, MINOR_MAX + 1):
        pyenv = sorted(pathlib.Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        for path in [shutil.which(f"python3.{minor}"), *map(str, pyenv)]:
            check = f"import sys, venv, ensurepip; assert sys.version_info[:2] == (3, {minor})"
            if path and subprocess.run([path, "-c", check], capture_output=True).returncode == 0:
                found[minor] = path
                break
    assert found, "there is no Python from 3.11 on that has venv"
    return found


def sources_hash():
    """Of everything that goes into the wheel."""
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def wheel():
    """The wheel of the checkout, built once for each state of it."""
    folder = FOLDER / f"wheel-{sources_hash()}"
    with _locked(folder):
        if not list(folder.glob("*.whl")):
            shutil.rmtree(folder, ignore_errors=True)
            _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, PACKAGE)
    [path] = folder.glob("*.whl")
    return path


def environment(name, *requirements, minor=None):
    """The interpreter of an environment with the wheel and the newest that there is of the requirements. What was
    installed earlier for the same requirements is used again, but for the wheel."""
    minor = minor or min(pythons())
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    folder = FOLDER / f"{name}-3.{minor}-{digest}"
    python = folder / "bin" / "python"
    built = wheel()
    with _locked(folder):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run(pythons()[minor], "-m", "venv", folder)
            _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", built, *requirements)
            (folder / "ready").touch()
        if not (folder / built.parent.name).exists():
            flags = ["--quiet", "--disable-pip-version-check", "--force-reinstall", "--no-deps"]
            _run(python, "-m", "pip", "install", *flags, built)
            # What it requires may have changed.
            _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", built)
            (folder / built.parent.name).touch()
    return str(python)


class _locked:
    """Tests of several processes may want the same environment."""

    def __init__(self, folder):
        self.path = folder.with_name(f"{folder.name}.lock")

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()
