"""A small agent: it answers each chat.send with an echo, word by word.

    python clients/python/agent.py 'openclaw://pair?token=...&relay=...&k=...'
    python clients/python/agent.py ws://127.0.0.1:8080/ws oc_pair_...

With the link's key (`k`) everything is encrypted and verified; without it the encryption is unverified, and a phone that
does not encrypt is answered in clear text. Replace `answer` with your model. PROTOCOL.md describes the messages.
"""

import asyncio
import contextlib
import sys

from coralmux import Client, Link, LinkError, Refused
from coralmux.wire import printable


async def answer(client, text):
    """Streams the answer piece by piece, then says that it is complete."""
    words = f"You said: {text}".split(" ")
    for seq, word in enumerate(words, start=1):
        await client.send("chat.stream", {"delta": word + ("" if seq == len(words) else " "), "seq": seq})
        await asyncio.sleep(0.05)  # a model takes its time, too
    await client.send("chat.done", {"full_text": " ".join(words)})


def say(*words):
    """Shows a line; where nobody reads any more (a closed terminal, a log's reader that died) the agent answers on."""
    with contextlib.suppress(OSError):
        print(*words, flush=True)


async def main(link):
    async with Client("agent", link) as client:
        async for event in client:
            if event.type == "chat.send":
                text = event.payload.get("text") if isinstance(event.payload, dict) else None
                if not isinstance(text, str):
                    await client.send("chat.error", {"code": "BACKEND_ERROR", "message": "the question has no text"})
                    continue
                say(f"phone ({event.protection.value}):", printable(text))
                await answer(client, text)
            elif event.type == "client.connected":
                say("Connected; the phone is", "online" if client.paired else "offline")
            elif event.type == "client.agreed":
                say(f"Encrypted, {event.protection.value}.", client.fingerprint or "")
            elif event.type == "status":
                say("The phone is", "online" if client.paired else "offline")
            elif event.type in ("chat.error", "client.refused", "client.lost") and "message" in event.payload:
                say(f"{event.type}: {printable(event.payload['message'])}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal need not have all that a phone can say
    try:
        arguments = sys.argv[1:]
        asyncio.run(main(Link(arguments[1], arguments[0]) if len(arguments) == 2 else Link.parse(*arguments)))
    except (LinkError, Refused) as error:
        sys.exit(str(error))
    except TypeError:
        sys.exit(f"usage: {sys.argv[0]} LINK, or ws://HOST:PORT/ws TOKEN")
    except KeyboardInterrupt:
        pass
