"""Waits for the relay that quickstart.sh starts, makes a pairing token and prints how to use it."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

from coralmux import Link, new_secret

WAIT_SECONDS = 30


def call(request):
    """The JSON answer. Straight to the relay: a proxy in the environment has no business here."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as answer:
        return json.load(answer)


def main(base, python, relay_pid):
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            call(f"{base}/health")
            break
        except OSError as error:
            os.kill(relay_pid, 0)  # the relay has ended: it has said why
            if time.monotonic() > deadline:
                sys.exit(f"The relay does not answer at {base}/health: {error}")
            time.sleep(0.05)
    key = {"X-Admin-Key": os.environ["RELAY_ADMIN_KEY"], "Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/api/v1/pair", b'{"label":"make run"}', key, method="POST")
    try:
        token = call(request)["token"]
    except urllib.error.HTTPError as error:
        sys.exit(f"No token: {error.code} {error.read().decode(errors='replace')}")
    link = Link(token, base.replace("http://", "ws://") + "/ws", new_secret()).for_apps()
    print(
        f"""
The relay runs at {base}. Its newest pairing token is
    {token}

Start an agent in a second terminal, then send it a message from a third. The link holds the key of their encryption,
which the relay does not know:
    {python} clients/python/agent.py '{link}'
    {python} clients/python/phone.py '{link}' "hello"

Ctrl-C stops the relay.
""",
        flush=True,
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except ProcessLookupError:
        sys.exit(1)
    except KeyboardInterrupt:
        pass
