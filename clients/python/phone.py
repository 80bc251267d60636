"""A small phone: it sends one chat message and prints the answer while it streams in, also over breaks of the connection.

    python clients/python/phone.py 'openclaw://pair?token=...&relay=...&k=...' "hello"
    python clients/python/phone.py ws://127.0.0.1:8080/ws oc_pair_... "hello"

A link that names its agent (`a`) makes it a device of that agent, once; its keys are kept in `--state FILE`, or in a file
for each agent in ~/.local/state/coralmux-phone. The same link leads to the agent from then on.

Exits with 0 after a complete answer, with 1 otherwise; the reason goes to standard error.
"""

import asyncio
import hashlib
import os
import sys

from coralmux import Client, Link, LinkError, Protection, Refused, StateError
from coralmux.end import DECRYPTION_FAILED
from coralmux.peer import as_object
from coralmux.wire import printable

HELP = {
    "PEER_OFFLINE": "No agent is connected with this token. Start clients/python/agent.py first.",
    "RATE_LIMITED": "Too many messages.",
    "DAILY_QUOTA_EXCEEDED": "This token's bandwidth for today is used up.",
    "MONTHLY_QUOTA_EXCEEDED": "This token's bandwidth for this month is used up.",
}
ENCRYPTED = Protection.VERIFIED, Protection.UNVERIFIED


def heals(link, event):
    """Whether the client agrees on keys anew by itself: what is refused then is sent again, and may be anybody's word."""
    hint = event.type == "chat.error" and event.protection is Protection.CLEAR and event.payload.get("code")
    reason = event.type == "client.refused" and event.payload["reason"]
    return link.secret and (hint == DECRYPTION_FAILED or reason in ("forged", "replayed"))


async def ask(client, link, text):
    sending = asyncio.create_task(client.send("chat.send", {"text": text}, timeout=None))  # it waits for the keys
    sending.add_done_callback(lambda sent: sent.cancelled() or sent.exception())
    async for event in client:
        payload = event.payload
        if heals(link, event):
            print(printable(payload.get("message", "")), file=sys.stderr)
        elif event.type == "client.connected" and not client.paired and not sending.done():
            sys.exit(HELP["PEER_OFFLINE"])
        elif event.type == "client.enrolling":
            print(f"The agent has to show this code, and to admit this phone: {payload['code']}", file=sys.stderr)
        elif event.type == "client.agreed" and event.protection is not Protection.VERIFIED:
            print(f"Encrypted, {event.protection.value}: the agent shows {client.fingerprint}?", file=sys.stderr)
        elif is_of_another(payload, sending):
            pass
        elif event.type == "chat.stream":
            print(printable(as_object(payload).get("delta", "")), end="", flush=True)
        elif event.type == "chat.done":
            print()
            if notice := as_object(payload).get("notice"):
                print(printable(notice), file=sys.stderr)  # the answer is not simply complete
            return
        elif event.type == "chat.error":
            code, wait = str(payload.get("code")), payload.get("retry_after_ms")
            hint = f" Try again in {-(-wait // 1000)} s." if isinstance(wait, int) else ""
            words = HELP.get(code, printable(f"{code}: {payload.get('message')}")) + hint
            is_relays = event.protection is Protection.CLEAR and client.protection in ENCRYPTED
            sys.exit(f"The relay says (not verified): {words}" if is_relays else words)
        elif event.type == "client.refused" or (event.type == "client.lost" and not client.resumes):
            sys.exit(payload["message"])
        elif event.type == "client.restarted" or (event.type == "status" and not client.paired):
            sys.exit("The agent went away before its answer was complete.")


def is_of_another(payload, sending):
    """Whether a message is about what another device has asked."""
    ref = payload.get("ref") if isinstance(payload, dict) else None
    return ref is not None and sending.done() and not sending.cancelled() and ref != sending.result()


def state_of(link):
    """Where a device's keys are kept, if nothing else is said."""
    name = hashlib.sha256(f"{link.token} {link.agent}".encode()).hexdigest()[:16]
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "coralmux-phone", f"{name}.json")


async def main(link, text, state):
    async with Client("phone", link, state=state or (state_of(link) if link.agent else None)) as client:
        await ask(client, link, text)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal need not have all that an agent can say
    arguments, state = sys.argv[1:], None
    if len(arguments) > 1 and arguments[0] == "--state":
        _, state, *arguments = arguments
    if len(arguments) not in (2, 3):
        sys.exit(f'usage: {sys.argv[0]} [--state FILE] LINK "TEXT", or ws://HOST:PORT/ws TOKEN "TEXT"')
    *where, what = arguments
    try:
        asyncio.run(main(Link(where[1], where[0]) if len(where) == 2 else Link.parse(where[0]), what, state))
    except (LinkError, Refused, StateError) as error:
        sys.exit(str(error))
