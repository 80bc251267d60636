"""The phone as a tool of any MCP client: `coralmux-mcp`, a server on standard input and output.

`ask_human` asks the owner on the phone and waits for the reply, `notify` tells something. It has a pairing of its own,
apart from any agent's, because a token has one agent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from . import pairing, state
from .agent import ENV_RELAY, Agent, AgentError, link_of, version
from .chats import AnswerError
from .client import Refused
from .question import Question
from .register import RegisterError, register
from .relay_url import RelayUrl, RelayUrlError
from .state import Lock, State, StateError

PROGRAM = "coralmux-mcp"
ASK_TIMEOUT, ASK_TIMEOUT_MAX = 300.0, 86_400.0
NOBODY = "Nobody reads this: programs ask here, and tell. Your reply is wanted when one has asked."
SENT, WAITS = "Sent.", "The phone is away: it is told when it comes, if this program still runs."
NO_REPLY = "There was no reply within {:g} s: the person may be away from the phone."


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; exits with 1 and words if it fails, with 2 if the command line is wrong."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--version", action="version", version=version())
    parser.add_argument("command", nargs="?", choices=("serve", "link"), default="serve",
                        help="link: pair, if that has not been done, and show the link; else serve MCP")  # fmt: skip
    parser.add_argument("--relay", default=os.environ.get(ENV_RELAY, ""), help=f"wss://relay.example.com [{ENV_RELAY}]")
    parser.add_argument("--state", help=f"where the pairing is kept [a file for each relay in {PROGRAM}]")
    parser.add_argument("--name", default="Programs", help="its name on the phone")
    parser.add_argument("--qr", choices=("app", "browser", "both", "none"), default="both", help="which codes to show")
    options = parser.parse_args(arguments)
    try:
        relay = RelayUrl.parse(options.relay)
        path = options.state or state.default_path(relay, PROGRAM)
        if options.command == "link":
            _show_link(relay, Path(path), options.qr)
        else:
            _serve(Agent(str(relay), state=path, name=options.name, backend="mcp", say=_say))
    except (AgentError, RegisterError, RelayUrlError, StateError) as error:
        sys.exit(f"{PROGRAM}: {error}")


def _say(line: str) -> None:
    """Standard output is the MCP client's."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _show_link(relay: RelayUrl, path: Path, qr: pairing.Codes) -> None:
    kept, _ = state.read(path)
    if kept is None:
        with Lock(path):
            kept = State.begun(register(relay))
            state.write(path, relay, kept)
    print(pairing.instructions(link_of(path, relay, kept, 2), qr, pairing.has_colours()))


async def _nobody(_question: Question) -> str:
    return NOBODY


def _serve(agent: Agent) -> None:
    try:
        try:
            from mcp.server import mcpserver as mcp
            from mcp.server.mcpserver import exceptions

            make_server: Any = mcp.MCPServer
        except ImportError:  # before version 2
            from mcp.server import fastmcp
            from mcp.server.fastmcp import exceptions

            make_server = fastmcp.FastMCP
    except ImportError:
        raise AgentError("the package mcp is missing: pip install 'coralmux[mcp]'") from None
    phone = Phone(agent, exceptions.ToolError)

    @contextlib.asynccontextmanager
    async def lifespan(_server: Any) -> AsyncIterator[None]:
        serving = asyncio.create_task(phone.serve())
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.wait({serving})

    server = make_server(PROGRAM, instructions="Reaches the owner on the phone.", lifespan=lifespan)
    server.tool()(phone.ask_human)
    server.tool()(phone.notify)
    server.run()


class Phone:
    """The tools. What goes wrong they say in an `error`, which is what MCP's clients show."""

    def __init__(self, agent: Agent, error: Callable[[str], Exception]) -> None:
        self.agent, self.error = agent, error
        self._failure: str | None = None
        self._ready = asyncio.Event()

    async def serve(self) -> None:
        try:
            await self.agent.serving(_nobody, ready=self._ready.set)
        except (AgentError, RegisterError, StateError, Refused) as error:
            self._failure = f"the phone cannot be reached: {error}"
            _say(f"{PROGRAM}: {self._failure}")
            self._ready.set()

    async def ask_human(self, question: str, options: list[str] | None = None, timeout_s: float = ASK_TIMEOUT) -> str:
        """Ask the owner a question on the phone and wait for the reply. `options` are replies to choose from (at most
        12); the owner may reply in other words, too. Waits for up to `timeout_s` seconds."""
        wait = min(max(timeout_s, 1.0), ASK_TIMEOUT_MAX)
        reply = await self._do(lambda: self.agent.ask(question, options or (), timeout=wait))
        return NO_REPLY.format(wait) if reply is None else str(reply)

    async def notify(self, message: str) -> str:
        """Tell the owner something on the phone. Does not wait until it is read."""
        return SENT if await self._do(lambda: self.agent.tell(message)) else WAITS

    async def _do(self, work: Callable[[], Any]) -> Any:
        await self._ready.wait()
        if self._failure:
            raise self.error(self._failure)
        try:
            return await work()
        except (AgentError, AnswerError, ValueError) as error:
            raise self.error(str(error)) from None


if __name__ == "__main__":
    main()
