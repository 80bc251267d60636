"""A client of CoralMux Relay, for phones and agents, with end-to-end encryption of both versions.

    from coralmux import Agent

    agent = Agent("wss://relay.example.com")

    @agent.answer
    async def reply(question):
        yield f"You said: {question.text}"

    agent.run()

`agent` is an agent that only has to answer; `langchain`, `crewai`, ... make answers of what a framework has. `client` has
the connection for everything else, and `peer` what is said over it to each other end: `plain` with the keys of versions 1
and 2, `keyed` with those of version 3 (`devices` is an agent's). `end` and `v3` have the encryption without any I/O,
`noise` and `crypto` its building blocks. PROTOCOL.md describes the wire format.
"""

from .agent import Agent, AgentError
from .asks import Option
from .chats import AnswerError
from .client import Client, Event, Refused
from .devices import Joining, NotDone
from .end import End, ExchangeError, Opened, OpenError, Protection, Waiting
from .files import File
from .link import Link, LinkError, new_secret
from .person import ask, ask_in_thread
from .pieces import Answers, Piece, Tool
from .question import Image, Question, Turn
from .state import StateError

__all__ = [
    "Agent",
    "AgentError",
    "AnswerError",
    "Answers",
    "Client",
    "End",
    "Event",
    "ExchangeError",
    "File",
    "Image",
    "Joining",
    "Link",
    "LinkError",
    "NotDone",
    "OpenError",
    "Opened",
    "Option",
    "Piece",
    "Protection",
    "Question",
    "Refused",
    "StateError",
    "Tool",
    "Turn",
    "Waiting",
    "ask",
    "ask_in_thread",
    "new_secret",
]
