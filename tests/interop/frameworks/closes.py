"""Takes some pieces of an answer and then, between two of them, no more: what has asked the model for it is to let go.

python closes.py PROGRAM; it prints "closed", and ends with its input."""

import asyncio
import gc
import pathlib
import runpy
import sys

import coralmux

PIECES = 5
FURTHER = 0.3  # seconds, in which further pieces come that nobody takes


class Taken(Exception):
    pass


class Agent(coralmux.Agent):
    """Gives what answers away, in place of serving it."""

    def serve(self, answers):
        raise Taken(answers)


def answers_of(program):
    coralmux.Agent = Agent
    sys.argv = [program, "ws://localhost", str(pathlib.Path.home() / "none")]
    try:
        runpy.run_path(program, run_name="__main__")
    except Taken as taken:
        return taken.args[0]


async def main():
    pieces = answers_of(sys.argv[1])(coralmux.Question("SLOW"))
    left = PIECES
    async for piece in pieces:
        left -= isinstance(piece, str)
        if not left:
            break
    await asyncio.sleep(FURTHER)
    await pieces.aclose()
    del pieces
    gc.collect()  # as an agent does
    print("closed", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
