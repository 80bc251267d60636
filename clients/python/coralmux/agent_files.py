"""An agent's state as `coralmux-agent` keeps it: one file with token, secret and keys, and a folder beside it with the
open links and each device. It stands in for `StateFile`, whose one file has the same in another arrangement."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any

from . import state
from .crypto import b64url
from .link import Link, secret_of, secret_text
from .relay_url import RelayUrl
from .state import State, StateError, new_keys
from .store import Part, StateFile
from .v3 import StaticKey, agent_print, invite

LINKS, DEVICE = "links", re.compile(r"[0-9a-f]{16}")


class AgentFiles(StateFile):
    """Whoever uses it holds the lock. While the relay has not accepted a new token, nothing is written: `accept`."""

    def __init__(self, path: Path, relay: RelayUrl, kept: State, is_new: bool) -> None:
        super().__init__(None)
        self.relay, self.kept, self.is_new = relay, kept, is_new
        self.place = path
        self.links = Part(devices_folder(path, kept.token) / f"{LINKS}.json")
        self._unwritten: dict[str, Any] | None = None
        self.is_bound = False  # the relay has said that it knows devices

    def read(self) -> dict[str, Any]:
        """As `StateFile` has it; of a new pairing, too."""
        links = self.links.read()
        return self._begun() if links is None else self._read(links)

    def _begun(self) -> dict[str, Any]:
        keys, secret = {**new_keys(), **self.kept.more}, secret_text(self.kept.secret)
        value = {"v": 1, "relay": str(self.relay), "token": self.kept.token, "invited": {}, "plain": secret}
        value |= {"key": keys["relay_key"], "own": keys["key"]}
        if "relay_key" in self.kept.more:
            open_: list[dict[str, Any]] = [{"k": secret, "until": None, "answered": 0}]
            value |= {"first": secret, "plain_at": None, "enrolments": {"v": 1, "links": open_}}
        else:  # of a version without devices: a phone has its secret, and may be away for a while
            value |= {"first": None, "plain_at": time.time(), "enrolments": {"v": 1, "links": []}}
        self.write(value)
        return value

    def _read(self, links: dict[str, Any]) -> dict[str, Any]:
        keys, secret = self.kept.more, secret_text(self.kept.secret)
        value: dict[str, Any] = {"v": 1, "relay": str(self.relay), "token": self.kept.token}
        try:
            plain, open_ = links["plain"], [secret_of(link["k"]) for link in links["links"]["links"]]
            self.is_bound = links["bound"] is True
            by = dict(links["by"])
            invited = {b64url(invite(k)): by[_hash(k)] for k in open_ if _hash(k) in by}
            used_at = plain["used_at"]
            value |= {"key": keys["relay_key"], "own": keys["key"], "enrolments": links["links"], "invited": invited}
            value |= {"first": secret if self.kept.secret in open_ else None}
            value |= {"plain": (plain["k"] or secret) if plain["open"] else None}
            return value | {"plain_at": None if used_at is None else used_at / 1000}
        except (KeyError, TypeError, ValueError):
            raise StateError(f"{self.links.path} is damaged: remove it, and pair anew with another token") from None

    def write(self, value: dict[str, Any]) -> None:
        self._unwritten = value
        if not self.is_new:
            self._write(value)

    def accept(self) -> None:
        """The relay has accepted the token, and knows devices if `is_bound` says so."""
        self.is_new = False
        if self._unwritten:
            self._write(self._unwritten)

    def _write(self, value: dict[str, Any]) -> None:
        keys = {"key": value["own"], "relay_key": value["key"]}
        if any(self.kept.more.get(name) != key for name, key in keys.items()):
            self.kept = State(self.kept.token, self.kept.secret, {**self.kept.more, **keys})
            state.write(self.place, self.relay, self.kept)
        secret, before = secret_text(self.kept.secret), self.links.read() or {}
        since = (before.get("plain") or {}).get("since") or (int(time.time() * 1000) if self.parts() else None)
        used_at = None if value["plain_at"] is None else int(value["plain_at"] * 1000)
        own = value["plain"] if value["plain"] not in (None, secret) else None
        plain = {"open": value["plain"] is not None, "k": own, "first_is_used": value["first"] is None}
        plain |= {"used_at": used_at, "since": since}
        open_ = [secret_of(link["k"]) for link in value["enrolments"]["links"]]
        asked = [(_hash(k), value["invited"].get(b64url(invite(k)))) for k in open_]
        by = [[name, device] for name, device in asked if device not in (None, "plain")]
        links = {"v": 1, "bound": self.is_bound, "plain": plain, "by": by, "links": value["enrolments"]}
        self.links.write(links)

    def part(self, name: str) -> Part:
        return Part(devices_folder(self.place, self.kept.token) / f"{name}.json")

    def parts(self) -> list[str]:
        folder = devices_folder(self.place, self.kept.token)
        return sorted(path.stem for path in folder.glob("*.json") if DEVICE.fullmatch(path.stem))

    def close(self) -> None:
        pass


def first_link(path: Path, relay: RelayUrl, kept: State) -> Link | None:
    """The link that is shown first, by what is kept: that of the first device while it is unused, then that of phones
    that know no devices; None: others make links for further devices."""
    link = Link(kept.token, str(relay), kept.secret)
    links = Part(devices_folder(path, kept.token) / f"{LINKS}.json").read() if "relay_key" in kept.more else None
    if links is None:
        return link
    try:
        plain = links["plain"]
        if links["bound"] and not plain["first_is_used"]:
            own = StaticKey(secret_of(kept.more["key"]))
            return Link(kept.token, str(relay), kept.secret, agent_print(own.public))
        if not plain["open"]:
            return None
        return Link(kept.token, str(relay), secret_of(plain["k"]) if plain["k"] else kept.secret)
    except (KeyError, TypeError, ValueError):
        raise StateError(f"{path} has damaged keys: remove it, and pair anew with another token") from None


def devices_folder(path: Path, token: str) -> Path:
    """Where the devices are kept of what is kept in the file `path`."""
    return path.with_name(f"{path.name}.devices-{hashlib.sha256(token.encode()).hexdigest()[:8]}")


def _hash(k: bytes) -> str:
    return hashlib.sha256(invite(k)).hexdigest()
