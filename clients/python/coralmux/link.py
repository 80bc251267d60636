"""The pairing link: `openclaw://pair?...` for apps, `https://.../#...` for the page that the relay serves."""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from .crypto import unb64url

SECRET_BYTES = 32
LINK_BYTES_MAX = 4096


class LinkError(ValueError):
    """The text is no pairing link, or a part of it is damaged."""


def new_secret() -> bytes:
    """A pairing secret: 32 random bytes."""
    return os.urandom(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """A secret as links have it: 43 characters of base64url without padding."""
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")


def secret_of(text: str) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", text):
        raise LinkError("the pairing link's secret is damaged: copy the whole link")
    try:
        secret = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except binascii.Error:
        secret = b""
    if secret_text(secret) != text:  # bits that stand for nothing
        raise LinkError("the pairing link's secret is damaged: copy the whole link")
    return secret


def agent_of(text: str) -> str:
    """The field `a`, by which a device knows its agent."""
    try:
        if len(unb64url(text)) == 16:
            return text
    except ValueError:
        pass
    raise LinkError("the pairing link's `a` is damaged: copy the whole link")


@dataclass(frozen=True)
class Link:
    """What a phone needs to reach its agent. `secret` is None for version 1; `agent` is there where a phone becomes a
    device, with keys of its own."""

    token: str
    relay: str
    secret: bytes | None = field(default=None, repr=False)
    agent: str | None = None

    @classmethod
    def parse(cls, text: str) -> Link:
        text = text.strip()
        if len(text.encode()) > LINK_BYTES_MAX:
            raise LinkError("too long for a pairing link")
        if text.startswith("openclaw://pair?"):
            return cls._of_fields(text.removeprefix("openclaw://pair?"), None)
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or "#" not in text:
            raise LinkError("not a pairing link: it begins neither with openclaw://pair? nor with http")
        scheme = "wss" if parts.scheme == "https" else "ws"
        folder = parts.path.rpartition("/")[0]  # the page asks for `ws` in its own: the relay may be behind a prefix
        return cls._of_fields(parts.fragment, f"{scheme}://{parts.netloc}{folder}/ws")

    @classmethod
    def _of_fields(cls, fields: str, relay: str | None) -> Link:
        token = secret = agent = None
        for part in fields.split("&"):
            name, _, value = part.partition("=")
            if name == "token":
                token = unquote(value)
            elif name == "relay":
                relay = unquote(value)
            elif name == "k":
                secret = secret_of(value)
            elif name == "a":
                agent = agent_of(value)
        if not relay or not re.fullmatch(r"wss?://[^/?#]+.*", relay):
            raise LinkError("the pairing link has no relay address that begins with ws:// or wss://")
        if not token or not re.fullmatch(r"[A-Za-z0-9_-]+", token):
            raise LinkError("the pairing link has no token")
        if agent and not secret:
            raise LinkError("the pairing link has no secret: copy the whole link")
        return cls(token, relay, secret, agent)

    def for_apps(self) -> str:
        return f"openclaw://pair?token={self.token}&relay={quote(self.relay, safe='')}{self._more_fields()}"

    def for_browsers(self) -> str | None:
        """None where the relay's address does not end with /ws: the page would look for it there."""
        matched = re.fullmatch(r"ws(s?)://([^/?#]+(?:/[^?#]*)?)/ws", self.relay)
        return matched and f"http{matched[1]}://{matched[2]}/#token={self.token}{self._more_fields()}"

    def _more_fields(self) -> str:
        agent = f"&a={self.agent}" if self.agent else ""
        return f"&k={secret_text(self.secret)}{agent}" if self.secret else ""
