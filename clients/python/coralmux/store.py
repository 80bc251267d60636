"""Where ends keep keys that outlast them: JSON in files of their owner alone, and one process at a time."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from .state import Lock, StateError, replace

FILE_BYTES_MAX = 1 << 20


def has_state(path: Any) -> bool:
    """Whether something is kept there."""
    return path is not None and pathlib.Path(path).exists()


class StateFile:
    """One file, or with `path` None only memory: it ends with the process then."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else pathlib.Path(path)
        self._lock = Lock(self.path) if self.path else None

    def read(self) -> dict[str, Any] | None:
        """What was written last, or None; and keeps other processes out from now on. StateError where there is one."""
        if self.path is None or self._lock is None:
            return None
        self._lock.__enter__()
        return read(self.path)

    def write(self, value: dict[str, Any]) -> None:
        if self.path:
            replace(self.path, json.dumps(value, separators=(",", ":")))

    @property
    def _folder(self) -> pathlib.Path | None:
        return self.path and self.path.with_name(f"{self.path.name}.d")

    def part(self, name: str) -> Part:
        """A file of this name beside it, under the same lock."""
        return Part(self._folder and self._folder / f"{name}.json")

    def parts(self) -> list[str]:
        """The names that there are."""
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def close(self) -> None:
        if self._lock:
            self._lock.__exit__(None, None, None)


class Part:
    """A file beside a state file; `path` None: none."""

    def __init__(self, path: pathlib.Path | None) -> None:
        self.path = path

    def read(self) -> dict[str, Any] | None:
        return read(self.path) if self.path else None

    def write(self, value: dict[str, Any]) -> None:
        if self.path:
            replace(self.path, json.dumps(value, separators=(",", ":")))

    def remove(self) -> None:
        if self.path:
            self.path.unlink(missing_ok=True)


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """A file's JSON object; None where there is no such file."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ValueError
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict) or value.get("v") != 1:
            raise ValueError
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise StateError(f"{path} has no keys of this version: remove it, or name another file") from None
    return value
