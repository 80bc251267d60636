"""An agent on the Python package, which does as it is told: the first word of a question says how it behaves.

python bot.py RELAY STATE [plain|thread]
"""

import asyncio
import base64
import os
import sys
import time

from coralmux import Agent, AnswerError, File, Image, Option, Tool

agent = Agent(
    sys.argv[1], state=sys.argv[2], name="Bot", model="none", timeout=float(os.environ.get("BOT_TIMEOUT", 60))
)
SECRET = os.environ.setdefault("BOT_API_KEY", "hunter2-hunter2")
OPTIONS = [Option("Allow once", "allow_once"), Option("No", "reject_once"), "Later"]


PNG = b"\x89PNG\r\n" + bytes(100)


class Stubborn:
    """A framework that goes on whatever is asked of it."""

    def __init__(self, until):
        self.until = until

    async def work(self):
        while not os.path.exists(self.until):
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                pass


async def bot(question):
    word, _, rest = question.text.partition(" ")
    if word == "say":
        for piece in rest.split(" "):
            yield piece + " "
    elif word == "boom":
        raise ValueError(f"no key {SECRET} in /home/me/.config/key.json, sk-abcdefghijklmnop")
    elif word == "exit":
        sys.exit("I want out")
    elif word == "sorry":
        raise AnswerError("come back later", retry_after=2)
    elif word == "half":
        yield "half of it"
        raise RuntimeError("then it broke")
    elif word == "hang":
        yield "I begin"
        try:
            await asyncio.sleep(3600)
        finally:
            open(rest, "w").close()
    elif word == "stubborn":
        yield "I begin"
        await Stubborn(rest).work()
        yield "and I go on"
    elif word == "silent":
        return
    elif word == "number":
        yield 7
    elif word == "long":
        for _ in range(int(rest)):
            yield "0123456789" * 100
    elif word == "pieces":
        for number in range(int(rest)):
            yield f"{number} "
            await asyncio.sleep(0)
    elif word == "tools":
        for number in range(int(rest)):
            yield Tool(f"tool {number}", message="Looking", call_id=f"call {number}")
        yield "done with tools"
    elif word == "ask":
        yield "Well."
        reply = await question.ask("Really?", OPTIONS, free=rest != "strictly")
        yield f"You said {reply}"
    elif word == "expire":
        reply = await question.ask("Now?", OPTIONS, default="No", timeout=1)
        yield f"You said {reply}"
    elif word == "history":
        yield repr([(turn.role, turn.text) for turn in question.history])
    elif word == "show":
        yield "Here: "
        yield Image("image/png", PNG)
        yield File("../no\x07te.txt", b"a note")
    elif word == "file":
        yield File("large", bytes(int(rest)))
    elif word == "files":
        for number in range(int(rest)):
            yield File(f"{number}.bin", b"x")
    elif word == "images":
        yield repr([(image.mime, base64.b64encode(image.data[:6]).decode()) for image in question.images])


def in_thread(question):
    """The same, for those who do not write asynchronous code."""
    word, _, rest = question.text.partition(" ")
    if word == "plain":
        return f"plain {rest}"
    return generated(word, rest)


def generated(word, rest):
    if word == "boom":
        raise ValueError("in a thread")
    try:
        for piece in rest.split(" "):
            yield piece + " "
        while word == "endless":
            time.sleep(0.01)
            yield "more "
    finally:
        if word == "endless":
            open(rest, "w").close()


@agent.another("second", name="Another bot")
def second(question):
    return f"second, after {[turn.text for turn in question.history]}"


agent.serve(in_thread if sys.argv[3:] == ["thread"] else bot)
