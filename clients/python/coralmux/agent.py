"""An agent for a phone: pairs once, takes what the phone asks to a function, and answers until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from . import pairing, state
from .agent_files import AgentFiles, devices_folder, first_link
from .asks import Option, ask_of
from .chats import Chats
from .client import FINAL, PLAIN, Client, Event, Refused
from .control import Control
from .devices import Joining
from .end import Protection
from .files import File
from .link import Link
from .peer import as_object
from .pieces import Answers
from .question import AGENT, Image
from .register import TOKEN, RegisterError, register
from .relay_url import RelayUrl
from .retry import Retry
from .state import Lock, State, StateError
from .wire import printable

log = logging.getLogger("coralmux")

ENV_RELAY, ENV_TOKEN = "CORALMUX_AGENT_RELAY", "CORALMUX_AGENT_TOKEN"
REGISTER_DELAYS = 1.0, 60.0
THREADS, THREADS_TIMEOUT = "coralmux-", 2.0  # seconds, for those that a framework has begun
FIRST, AGENTS_MAX = "default", 16
REFUSED, REPLACED = 3, 4  # exit codes, as coralmux-agent has them


class AgentError(Exception):
    """The agent cannot start; the text says why and what to do."""


class CommandError(Exception):
    """A command cannot be done; the text says why and what to do."""


def say(line: str) -> None:
    """Shows a line; one that cannot be written is nobody's loss."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)


def state_path(relay: RelayUrl, named: str | os.PathLike[str] | None) -> Path:
    """Where the pairing with a relay is kept."""
    return Path(named) if named is not None else state.default_path(relay)


def link_of(path: Path, relay: RelayUrl, kept: State, e2e: int) -> Link:
    """The pairing link of what is kept. Raises StateError where it was used."""
    link = first_link(path, relay, kept) if e2e == 2 else Link(kept.token, str(relay))
    if link is None:
        raise StateError("the link was used: `coralmux pair`, or a device that is paired, makes one for another device")
    return link


class Agent:
    """The other end of a phone.

        agent = Agent("wss://relay.example.com")

        @agent.answer
        async def reply(question):
            yield f"You said: {question.text}"

        agent.run()

    The first start registers a token at the relay (or takes `token`), and shows the pairing link on a terminal;
    `coralmux link` shows it again. The pairing is kept in `state`, or where `coralmux-agent` keeps it.

    - `relay`: `wss://relay.example.com`; if missing, the variable CORALMUX_AGENT_RELAY
    - `name`: for the phone; `backend`, `model`: what answers, in a word each, for the phone, too
    - `new`: forget what is kept, and pair anew
    - `e2e`: 2 is verified by the link's secret; 1 is for phones that know no other
    - `context`: turns of the conversation that a question has as its `history`, 200 at most
    - `timeout`: seconds that an answer may be silent
    - `qr`: which codes to show: "app", "browser", "both" or "none"
    - `ssl`: trust for the relay's certificate, if not the system's
    - `say`: shows a line to whoever started it; on standard output, if nothing else is said
    """

    def __init__(
        self,
        relay: str | None = None,
        *,
        name: str = "CoralMux agent",
        backend: str = "python",
        model: str | None = None,
        state: str | os.PathLike[str] | None = None,
        token: str | None = None,
        new: bool = False,
        e2e: int = 2,
        context: int = 40,
        timeout: float = 300,
        qr: pairing.Codes = "both",
        ssl: ssl.SSLContext | None = None,
        say: Callable[[str], None] = say,
    ) -> None:
        relay = relay or os.environ.get(ENV_RELAY, "").strip()
        if not relay:
            raise AgentError(f"no relay: name it, such as wss://relay.example.com, or set {ENV_RELAY}")
        if e2e not in (1, 2):
            raise AgentError(f"there is no version {e2e} of the encryption: 2, or 1 for phones that know no other")
        token = token or os.environ.get(ENV_TOKEN, "").strip() or None
        if token and not TOKEN.fullmatch(token):
            raise AgentError("the token is none: they are oc_pair_ and 32 lower-case hex digits")
        self.relay = RelayUrl.parse(relay)
        self.name, self.backend, self.model = name, backend, model
        self.state, self.token, self.new, self.e2e = state, token, new, e2e
        self.context, self.timeout, self.qr, self.ssl = context, timeout, qr, ssl
        self.say = say
        self._answers: Answers | None = None
        self._others: dict[str, tuple[str, Answers]] = {}  # id: name, and what answers
        self._chats: Chats | None = None  # while it serves
        self._client: Client | None = None
        self._started = time.monotonic()

    def answer(self, answers: Answers) -> Answers:
        """Decorator: this function answers. It gets a `Question`, and returns or yields text (and `Tool`, for what it
        is doing, `File` and `Image`). If it is not asynchronous, each question has a thread."""
        self._answers = answers
        return answers

    def another(self, id: str, name: str | None = None) -> Callable[[Answers], Answers]:
        """Decorator: one more agent behind the same pairing, which the person chooses on the phone. `id`: 1 to 64
        characters of `A-Z a-z 0-9 _ -`. Those that cannot choose talk to the one of `answer`."""
        if not AGENT.fullmatch(id) or id == FIRST or len(self._others) >= AGENTS_MAX - 1:
            raise AgentError(f"{id!r} cannot name one more agent: there are {AGENTS_MAX} at most, with ids of their own")

        def take(answers: Answers) -> Answers:
            self._others[id] = name or id, answers
            return answers

        return take

    def serve(self, answers: Answers) -> None:
        """As `run`, with what answers."""
        self.answer(answers)
        self.run()

    def run(self) -> None:
        """Serves until SIGINT or SIGTERM; for a program that does nothing else. A second signal ends it at once.

        Exits with words and code 1 if it cannot start, with 3 if the relay refuses the token, with 4 if another agent
        took its place.
        """
        if not logging.getLogger().handlers:
            logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
        loop, threads = asyncio.new_event_loop(), ThreadPoolExecutor(thread_name_prefix=THREADS)
        loop.set_default_executor(threads)
        try:
            stuck = loop.run_until_complete(self._run_until_signal())
        except (AgentError, RegisterError, StateError, Refused) as error:
            _warn(str(error))
            code = 1 if not isinstance(error, Refused) else REPLACED if str(error) == FINAL[4001] else REFUSED
            raise SystemExit(code) from None
        finally:
            # Not asyncio.run, which waits for tasks and threads that do not stop.
            loop.close()
        threads.shutdown(wait=False)
        if stuck or not _have_ended(THREADS):
            _warn("what an answer has begun does not stop, and ends with the process")
            _flush()
            os._exit(0)

    async def _run_until_signal(self) -> int:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def first(number: int, _frame: Any) -> None:
            signal.signal(number, signal.SIG_DFL)
            loop.call_soon_threadsafe(stop.set)

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, first) for number in numbers]
        try:
            return await self.serving(stop=stop)
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    async def ask(
        self,
        text: str,
        options: Sequence[str | Option] = (),
        *,
        free: bool | None = None,
        default: str | None = None,
        timeout: float | None = None,
        chat_id: str | None = None,
    ) -> str | None:
        """As `Question.ask`, while the agent serves, and without a question of the person's."""
        return await self._serving().ask(chat_id, ask_of(text, options, free, default, timeout))

    async def tell(self, text: str, *, files: Sequence[File | Image] = (), chat_id: str | None = None) -> bool:
        """Says something, or shows `files`, while the agent serves, without having been asked. False: the phone is away, and is told when
        it comes, if the agent still serves then; what is for devices the relay keeps for them, if it keeps messages. Raises
        AnswerError if that is too much."""
        return await self._serving().tell(chat_id, text, files)

    def _serving(self) -> Chats:
        if self._chats is None:
            raise AgentError("the agent does not serve: nobody can be reached")
        return self._chats

    async def serving(
        self,
        answers: Answers | None = None,
        *,
        stop: asyncio.Event | None = None,
        ready: Callable[[], None] | None = None,
    ) -> int:
        """Serves within a running event loop, until `stop` is set or the task is cancelled; returns how many answers
        did not stop in time. `ready` is called when it can `ask` and `tell`. Raises AgentError, RegisterError,
        StateError, and Refused where the relay refuses it."""
        answers = answers or self._answers
        if answers is None:
            raise AgentError("nothing answers: decorate a function with @agent.answer, or give one to serve()")
        if self.relay.is_exposed:
            _warn(f"warning: {self.relay} has no TLS: on the way anyone can read the token. Use wss://.")
        path = state_path(self.relay, self.state)
        with Lock(path):
            kept, is_new = await self._open_state(path)
            link = Link(kept.token, str(self.relay), kept.secret if self.e2e == 2 else None)
            files = AgentFiles(path, self.relay, kept, is_new) if self.e2e == 2 else None
            if files is None or not sys.stdout.isatty():
                self._show(link, path)
            options: dict[str, Any] = {"ssl": self.ssl} if self.ssl else {}
            async with contextlib.AsyncExitStack() as stack:
                client = Client("agent", link, state=files, name=self.name, admit=self._admits, **options)
                self._client = await stack.enter_async_context(client)
                if files:
                    await stack.enter_async_context(
                        Control(client.devices, devices_folder(path, kept.token), log.warning)
                    )
                agents = {FIRST: answers} | {name: other[1] for name, other in self._others.items()}
                chats = self._chats = Chats(client, agents, self.context, self.timeout)
                if ready:
                    ready()
                serving = asyncio.create_task(self._serve(client, chats, path, kept if is_new else None, files))
                stopping = asyncio.create_task(stop.wait() if stop else asyncio.Event().wait())
                try:
                    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    if serving.done():
                        serving.result()
                finally:
                    self._chats = self._client = None
                    for task in (serving, stopping):
                        task.cancel()
                    stuck = await chats.cancel_all()
                return stuck

    async def _serve(
        self, client: Client, chats: Chats, path: Path, unkept: State | None, files: AgentFiles | None
    ) -> None:
        async for event in client:
            if files and event.type in ("client.link", "client.joining", "relay.device"):
                files.is_bound = True
            if event.type == "client.connected" and unkept:  # what was kept before is replaced only now
                state.write(path, self.relay, unkept)
                self.say(f"Token and pairing secret are kept in {path}.")
                unkept = None
            if files and event.type in ("client.connected", "client.link"):
                files.accept()
            if files and sys.stdout.isatty():
                self._show_link(event, files, path)
            await self._handle(client, chats, event)

    def _admits(self, joining: Joining) -> bool:
        """Who shows a link of the agent's own that nobody waits with: there is nobody to ask."""
        is_first = not (self._client and self._client.devices.admitted)
        if not is_first:
            who = printable(f"{joining.name} ({joining.platform})")
            self.say(f"{who} is refused: nobody is here to compare its code {joining.code}. `coralmux pair` asks.")
        return is_first

    async def _handle(self, client: Client, chats: Chats, event: Event) -> None:
        if event.missed:
            log.warning("%d message(s) from the phone did not arrive or could not be read", event.missed)
        asker = event.device or PLAIN
        if event.type == "chat.send":
            await chats.handle_question(event.id, event.payload, event.device)
        elif event.type == "client.left":
            await chats.handle_left(event.device)
        elif event.type == "chat.cancel":
            await chats.handle_cancel(event.payload)
        elif event.type == "chat.answer":
            await chats.asks.handle_answer(event.id, event.payload, asker)
        elif event.type == "chat.history":
            await chats.handle_history(event.id, event.payload, asker)
        elif event.type == "agent.list":
            about: dict[str, Any] = {"backend": self.backend, "model": self.model, "status": "online"}
            names = {FIRST: self.name} | {name: other[0] for name, other in self._others.items()}
            agents = [{"id": id, "name": name} | about for id, name in names.items()]
            await client.send("agent.list.result", {"agents": agents, "ref": event.id}, device=asker)
        elif event.type == "system.status":
            await client.send("system.status.result", {**self._status(chats), "ref": event.id}, device=asker)
        elif event.type == "chat.error":
            await self._handle_error(chats, as_object(event.payload), event.protection)
        else:
            if event.type == "client.agreed" or (event.type == "status" and client.paired and self.e2e == 1):
                await chats.asks.handle_agreed(asker)
            self._tell(client, event)

    def _status(self, chats: Chats) -> dict[str, Any]:
        return {
            "status": "ok",
            "name": self.name,
            "version": version(),
            "backend": self.backend,
            "model": self.model,
            "uptime_sec": int(time.monotonic() - self._started),
            "running": chats.count,
        }

    async def _handle_error(self, chats: Chats, error: dict[str, Any], protection: Protection) -> None:
        code, ref, is_relays = error.get("code"), error.get("ref"), protection is Protection.CLEAR
        if code != "PEER_OFFLINE":  # said already, as the phone's going offline
            who = "The relay says (not verified): " if is_relays else ""
            log.warning("%s", printable(f"{who}{code}: {error.get('message')}"))
        if code == "MESSAGE_TOO_LARGE" and isinstance(ref, str) and is_relays:
            await chats.handle_too_large(ref)

    def _tell(self, client: Client, event: Event) -> None:
        """What the person who started the agent may want to know."""
        if event.type in ("client.connected", "status"):
            self.say("The phone is online." if client.paired else "The phone is offline.")
        elif event.type == "client.agreed" and client.fingerprint:
            self.say(f"Encrypted end to end, not verified. Compare with the phone: {client.fingerprint}")
        elif event.type == "client.agreed":
            self.say("Encrypted end to end, verified by the pairing secret.")
        elif event.type in ("client.joining", "client.joined"):
            what = f"shows the code {event.payload['code']}" if event.type == "client.joining" else "is a device now"
            self.say(printable(f"{event.payload.get('name')} ({event.payload.get('platform')}) {what}."))
        elif event.type in ("client.lost", "client.refused", "client.delayed", "client.expired"):
            log.warning("%s", printable(str(as_object(event.payload).get("message", event.type))))

    def _show_link(self, event: Event, files: AgentFiles, path: Path) -> None:
        """The link, as soon as it is known whether the relay knows devices."""
        if event.type == "client.link":
            self._show(Link.parse(event.payload["link"]), path)
        elif event.type == "client.refused" and event.payload.get("reason") == "no_devices":
            plain = self._client.devices.state.plain if self._client else None
            if plain is None:
                self.say("The relay does not know devices any more: they cannot connect.")
            else:
                self._show(Link(files.kept.token, str(self.relay), plain), path)

    def _show(self, link: Link, path: Path) -> None:
        if sys.stdout.isatty():
            self.say(pairing.instructions(link, self.qr, pairing.has_colours()))
        else:  # it would stay in a log, for anyone who reads it
            more = f" --state {path}" if self.state is not None else ""
            more += " --e2e 1" if self.e2e == 1 else ""
            self.say(f"The pairing link is shown on a terminal only, or by `coralmux link --relay {self.relay}{more}`.")

    async def _open_state(self, path: Path) -> tuple[State, bool]:
        """The pairing, and whether it is not kept yet."""
        kept, warning = (None, None) if self.new else state.read(path)
        if warning:
            _warn(warning)
        if kept and self.token in (None, kept.token):
            return kept, False
        return State.begun(self.token or await self._register()), True

    async def _register(self) -> str:
        """A token from the relay, as soon as it gives one. Raises RegisterError where waiting does not help."""
        retry = Retry(REGISTER_DELAYS)
        while True:
            try:
                return await asyncio.to_thread(register, self.relay, self.ssl)
            except RegisterError as error:
                if error.final:
                    raise
                wait = max(retry.wait(None, None), error.retry_after)
                self.say(printable(f"No token: {error}; trying again in {wait:.1f} s."))
                await asyncio.sleep(wait)


def version() -> str:
    """This package's version."""
    try:
        return metadata.version("coralmux")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "0"


def _warn(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(printable(text), file=sys.stderr, flush=True)


def _have_ended(prefix: str) -> bool:
    """Whether the threads of this name end soon."""
    until = time.monotonic() + THREADS_TIMEOUT
    while any(thread.name.startswith(prefix) for thread in threading.enumerate()):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
