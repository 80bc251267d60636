"""A client of CoralMux Relay, for phones and agents, with end-to-end encryption of both versions.

    from coralmux import Client, Link

    link = Link.parse("openclaw://pair?token=...&relay=...&k=...")
    async with Client("agent", link) as client:
        async for event in client:
            ...

`client` has the connection, `end` the encryption without any I/O, `noise` and `crypto` its building blocks. PROTOCOL.md
describes the wire format.
"""

from .client import Client, Event, Refused
from .end import End, ExchangeError, OpenError, Opened, Protection, Waiting
from .link import Link, LinkError, new_secret

__all__ = [
    "Client",
    "End",
    "Event",
    "ExchangeError",
    "Link",
    "LinkError",
    "OpenError",
    "Opened",
    "Protection",
    "Refused",
    "Waiting",
    "new_secret",
]
