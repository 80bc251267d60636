"""The relay's address: what a person types, and the WebSocket and HTTP addresses that follow from it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

URL_BYTES_MAX = 2048
OWN_NETWORK = (".localhost", ".local", ".lan", ".home", ".internal", ".home.arpa")
SHARED = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598: mesh VPNs use it


class RelayUrlError(ValueError):
    """The text is no relay's address."""


@dataclass(frozen=True)
class RelayUrl:
    """Where a relay is: `wss://relay.example.com/ws`. `host` has no brackets, `path` begins with a slash."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> RelayUrl:
        """Reads `wss://host[:port][/path]`; without a path it is `/ws`. `https://` and `http://` stand for `wss://` and
        `ws://`. Raises RelayUrlError."""
        scheme, found, rest = text.strip().partition("://")
        if not found or scheme.lower() not in ("wss", "https", "ws", "http"):
            raise RelayUrlError("a relay's address begins with wss:// or ws://")
        authority, _, path = rest.partition("/")
        path = f"/{path}" if path else "/ws"
        if len(text) > URL_BYTES_MAX or "@" in authority or not re.fullmatch(r"[!$-;=@-\[\]_a-z~&%'()*+,.]+", path):
            raise RelayUrlError("the address has a query, a fragment, a user name, or a character that must be escaped")
        matched = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(.*))?", authority)
        if not matched:
            raise RelayUrlError("the address has no valid host")
        if matched[1]:
            try:
                ipaddress.IPv6Address(matched[1])
            except ValueError:
                raise RelayUrlError("the address has no valid host") from None
        secure = scheme.lower() in ("wss", "https")
        port = matched[3]
        if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 1 << 16):
            raise RelayUrlError("the address has no valid port")
        return cls(secure, (matched[1] or matched[2]).lower(), int(port or (443 if secure else 80)), path)

    def __str__(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """Host and port as they stand in an address; the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def http(self) -> str:
        """The relay's HTTP address, without a slash at its end."""
        prefix = self.path.removesuffix("/ws") if self.path.endswith("/ws") else ""
        return f"{'https' if self.secure else 'http'}://{self.authority}{prefix}"

    @property
    def is_exposed(self) -> bool:
        """Whether others than those of one's own network can read on the way what is sent: there is no TLS."""
        return not self.secure and not _is_of_own_network(self.host)


def _is_of_own_network(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.rstrip(".")
        return "." not in name or name.endswith(OWN_NETWORK)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    is_shared = isinstance(ip, ipaddress.IPv4Address) and ip in SHARED
    return ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_unspecified or is_shared
