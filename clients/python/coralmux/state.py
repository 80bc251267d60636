"""What an agent keeps on the disk: the token and the pairing secret, one file for each relay, for its owner alone.

It is the file of `coralmux-agent`: one of the two can go on where the other was. They never use it at the same time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .link import LinkError, new_secret, secret_of, secret_text
from .relay_url import RelayUrl

FILE_BYTES_MAX = 64 << 10
# A file system without locks, such as some network file systems: better without than not at all.
NO_LOCKS = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)


class StateError(Exception):
    """The state cannot be kept; the text says why and what to do."""


@dataclass(frozen=True)
class State:
    """Token and secret for one relay. `more` is what other programs keep in the same file."""

    token: str = field(repr=False)
    secret: bytes = field(repr=False)
    more: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def begun(cls, token: str) -> State:
        """A new pairing with this token, and with the keys that devices need."""
        return cls(token, new_secret(), new_keys())


def new_keys() -> dict[str, str]:
    """The agent's key pair, and the key by which the relay knows it."""
    return {name: secret_text(new_secret()) for name in ("key", "relay_key")}


def default_path(relay: RelayUrl, program: str = "coralmux-agent", env: Mapping[str, str] = os.environ) -> Path:
    """Where a program keeps the state for a relay, if nothing else is said."""
    if sys.platform == "win32":
        base = env.get("LOCALAPPDATA")
    else:
        base = env.get("XDG_STATE_HOME") or (env.get("HOME") and str(Path(env["HOME"], ".local", "state")))
    if not base:
        raise StateError("there is no home folder to keep the token in: name a file for the state")
    # The name is for people, the hash makes it one relay's.
    digest = hashlib.sha256(str(relay).encode()).hexdigest()[:8]
    return Path(base, program, f"{relay.host.replace(':', '_')[:100]}-{digest}.json")


def read(path: Path) -> tuple[State | None, str | None]:
    """The state, None if there is none yet, and a warning. Raises StateError."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > FILE_BYTES_MAX:
            raise _damaged(path)
        warning = _make_private(path, found.st_mode) if os.name == "posix" else None
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise _damaged(path) from None
    if not isinstance(fields, dict):
        raise _damaged(path)
    token, secret = fields.pop("token", None), fields.pop("secret", None)
    try:
        if not isinstance(token, str) or not isinstance(secret, str):
            raise _damaged(path)
        return State(token, secret_of(secret), fields), warning
    except LinkError:
        raise _damaged(path) from None


def _damaged(path: Path) -> StateError:
    return StateError(f"{path} is not a state file of an agent: remove it, or name another one")


def _make_private(path: Path, mode: int) -> str | None:
    """Takes the rights of others off the file. What everybody may write is refused: it may be anybody's."""
    if mode & 0o077 == 0:
        return None
    changed = False
    if mode & 0o002 == 0:
        with contextlib.suppress(OSError):
            path.chmod(mode & 0o700)
            changed = path.stat().st_mode & 0o077 == 0  # some file systems take a mode and keep their own
    if not changed:
        raise StateError(
            f"{path} can be read or written by others (mode {mode & 0o777:o}): chmod 600 it, "
            "or pair anew if somebody has"
        )
    return (
        f"{path} could be read or written by others (mode {mode & 0o777:o}); it is for its owner alone now. "
        "Pair anew if somebody has."
    )


def write(path: Path, relay: RelayUrl, state: State) -> None:
    """Writes the state, whole or not at all. Raises StateError."""
    fields = {**state.more, "relay": str(relay), "token": state.token, "secret": secret_text(state.secret)}
    replace(path, json.dumps(fields, indent=2))


def replace(path: Path, text: str) -> None:
    """Writes a file for its owner alone, whole or not at all, and durable when this returns. Raises StateError."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        _make_folder(path.parent)
        new.unlink(missing_ok=True)  # what a process with the same number has left, long ago
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()  # not left behind: it has secrets in it
        raise StateError(f"{path}: {error.strerror or error}") from None


def _sync_folder(path: Path) -> None:
    """A file's new name outlasts a power cut, too. Windows has no such call."""
    if sys.platform != "win32":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _make_folder(path: Path) -> None:
    for missing in reversed([folder for folder in (path, *path.parents) if not folder.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


class Lock:
    """Keeps other programs off a state file while this one uses it. Raises StateError where another one does.

    It is a lock of the system's on a file beside it, `NAME.lock`, which stays: it ends with the process, however that
    ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Lock:
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            _make_folder(lock.parent)
            self._file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        except OSError as error:
            raise StateError(f"{lock}: {error.strerror or error}") from None
        try:
            _try_lock(self._file)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return self
            self._file.close()
            raise StateError(
                f"another program uses {self.path}: stop it, or name another state file, with a pairing of its own"
            ) from None
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
