"""A small agent: it answers each chat.send with an echo, word by word.

    python clients/python/agent.py 'openclaw://pair?token=...&relay=...&k=...'
    python clients/python/agent.py ws://127.0.0.1:8080/ws oc_pair_...
    python clients/python/agent.py --state FILE ws://127.0.0.1:8080/ws oc_pair_...

With the link's key (`k`) everything is encrypted and verified; without it the encryption is unverified, and a phone that
does not encrypt is answered in clear text. With `--state FILE` it has devices, each with keys of its own: it shows the link
for the first one, Enter shows one for another, and whoever comes with it is asked about on a terminal. Replace `answer`
with your model. PROTOCOL.md describes the messages.
"""

import asyncio
import contextlib
import sys

from coralmux import Client, Link, LinkError, NotDone, Refused, StateError
from coralmux.wire import printable


async def answer(client, text, ref):
    """Streams the answer piece by piece, then says that it is complete."""
    words = f"You said: {text}".split(" ")
    for seq, word in enumerate(words, start=1):
        delta = word + ("" if seq == len(words) else " ")
        await client.send("chat.stream", {"delta": delta, "seq": seq, "ref": ref})
        await asyncio.sleep(0.05)  # a model takes its time, too
    await client.send("chat.done", {"full_text": " ".join(words), "ref": ref}, wake=True)


def say(*words):
    """Shows a line; where nobody reads any more (a closed terminal, a log's reader that died) the agent answers on."""
    with contextlib.suppress(OSError):
        print(*words, flush=True)


class Keyboard:
    """A terminal's lines: each answers a question, or else asks for one more link."""

    def __init__(self):
        self.question = None
        self.is_there = sys.stdin.isatty()

    async def asks(self, joining):
        """Whether a device may join, which a person decides; where there is none, whoever has the link may."""
        say(f"{joining.name} ({joining.platform}) wants to join. It has to show this code: {joining.code}")
        if not self.is_there:
            return True
        say("Enter admits it, n refuses it.")
        self.question = asyncio.get_running_loop().create_future()
        try:
            return (await self.question).strip().lower() in ("", "y", "yes")
        finally:
            self.question = None

    def read(self, client):
        line = sys.stdin.readline()
        if not line:
            asyncio.get_running_loop().remove_reader(sys.stdin)
        elif self.question:
            self.question.set_result(line)
        else:
            asyncio.create_task(self.show_link(client))

    async def show_link(self, client):
        try:
            say("For one more device, within 10 minutes:", (await client.invite()).for_apps())
        except NotDone as error:
            say(f"No link: {error}")


async def main(link, state):
    keyboard, answers = Keyboard(), {}
    async with Client("agent", link, state=state, admit=keyboard.asks) as client:
        if state and keyboard.is_there:
            asyncio.get_running_loop().add_reader(sys.stdin, keyboard.read, client)
        async for event in client:
            if event.type == "chat.send":
                text = event.payload.get("text") if isinstance(event.payload, dict) else None
                if not isinstance(text, str):
                    await client.send("chat.error", {"code": "BACKEND_ERROR", "message": "the question has no text"})
                    continue
                say(f"phone ({event.protection.value}):", printable(text))
                task = asyncio.create_task(answer(client, text, event.id))
                answers[task] = event.device
                task.add_done_callback(answers.pop)
            elif event.type == "client.left":
                say("Device", event.device, "is one no more.")
                for task in [task for task, device in answers.items() if device == event.device]:
                    task.cancel()
            else:
                tell(client, event)


def tell(client, event):
    """What a person may want to know."""
    if event.type == "client.connected":
        say("Connected; the phone is", "online" if client.paired else "offline")
    elif event.type == "client.link":
        say("Pair with:", event.payload["link"])
    elif event.type == "client.joined":
        say(event.payload["name"], "has joined.")
    elif event.type == "client.agreed":
        say(f"Encrypted, {event.protection.value}.", client.fingerprint or "")
    elif event.type == "status":
        say("The phone is", "online" if client.paired else "offline")
    elif event.type in ("chat.error", "client.refused", "client.lost") and "message" in event.payload:
        say(f"{event.type}: {printable(event.payload['message'])}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal need not have all that a phone can say
    arguments, state = sys.argv[1:], None
    if len(arguments) > 1 and arguments[0] == "--state":
        _, state, *arguments = arguments
    if len(arguments) not in (1, 2):
        sys.exit(f"usage: {sys.argv[0]} [--state FILE] LINK, or ws://HOST:PORT/ws TOKEN")
    try:
        asyncio.run(main(Link(*arguments[::-1]) if len(arguments) == 2 else Link.parse(*arguments), state))
    except (LinkError, Refused, StateError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
