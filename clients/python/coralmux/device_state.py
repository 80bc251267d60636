"""What a device keeps: its credential at the relay, its keys, the link until it is admitted, and where it is in the
stream of its agent's messages."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .crypto import b64url, unb64url
from .link import secret_of, secret_text
from .state import StateError
from .v3 import DeviceEnd, StaticKey, device_id, invite

if TYPE_CHECKING:
    from .link import Link
    from .store import StateFile


class DeviceState:
    """`end` is None until the agent has answered, `k` from the moment on that it has admitted the device."""

    def __init__(self, file: StateFile, value: dict[str, Any]) -> None:
        self.file = file
        self.relay, self.token, self.a = value["relay"], value["token"], value["a"]
        self.name, self.platform, self.code = value["name"], value["platform"], value["code"]
        self.key, self.own = unb64url(value["key"]), StaticKey(unb64url(value["own"]))
        self.k = value["k"] and secret_of(value["k"])
        self.end = value["end"] and DeviceEnd.load(value["end"])
        self.position = {"taken": value["taken"], "lost": value.get("lost", [])}
        self.device = device_id(self.key)

    @classmethod
    def open(
        cls,
        file: StateFile,
        link: Link | None = None,
        name: str | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> DeviceState:
        """From its file, or begun with a link that has `a`. StateError where neither is possible."""
        value = file.read()
        if value is None:
            if link is None or link.agent is None or link.secret is None:
                raise StateError("this phone has not enrolled yet: it needs an agent's link")
            value = {"v": 1, "relay": link.relay, "token": link.token, "a": link.agent, "k": secret_text(link.secret)}
            value |= {"key": b64url(random(32)), "own": b64url(random(32)), "code": None, "end": None, "taken": []}
            file.write(value := value | {"name": name or platform.node() or "Python", "platform": "python"})
        try:
            state = cls(file, value)
        except (KeyError, TypeError, ValueError):
            raise StateError(f"{file.path} is damaged: remove it, and enrol with a new link") from None
        if link and (link.token != state.token or link.agent not in (state.a, None)):
            raise StateError(f"{file.path} has the keys for another agent: name another file")
        return state

    def auth(self) -> dict[str, Any]:
        """What `auth` has beside token and role."""
        return {"key": b64url(self.key)} | ({"invite": b64url(invite(self.k))} if self.k else {})

    def keep(self, changed: dict[str, Any]) -> None:
        """Keys or position have changed. Once the agent has admitted the device, the link's secret is forgotten."""
        if changed["end"] and changed["end"]["third"] is None:
            self.k = None
        own = {"key": b64url(self.key), "own": b64url(self.own.private), "k": self.k and secret_text(self.k)}
        about = {name: getattr(self, name) for name in ("relay", "token", "a", "name", "platform", "code")}
        self.file.write({"v": 1} | about | own | changed)

    def close(self) -> None:
        self.file.close()
