"""A client of CoralMux Relay, for phones and agents, with end-to-end encryption of both versions.

    from coralmux import Agent

    agent = Agent("wss://relay.example.com")

    @agent.answer
    async def reply(question):
        yield f"You said: {question.text}"

    agent.run()

`agent` is an agent that only has to answer; `langchain`, `crewai`, ... make answers of what a framework has. `client` has
the connection for everything else, `end` the encryption without any I/O, `noise` and `crypto` its building blocks.
PROTOCOL.md describes the wire format.
"""

from .agent import Agent, AgentError
from .chats import AnswerError
from .client import Client, Event, Refused
from .end import End, ExchangeError, OpenError, Opened, Protection, Waiting
from .link import Link, LinkError, new_secret
from .pieces import Answers, Piece, Tool
from .question import Image, Question, Turn

__all__ = [
    "Agent",
    "AgentError",
    "AnswerError",
    "Answers",
    "Client",
    "End",
    "Event",
    "ExchangeError",
    "Image",
    "Link",
    "LinkError",
    "OpenError",
    "Opened",
    "Piece",
    "Protection",
    "Question",
    "Refused",
    "Tool",
    "Turn",
    "Waiting",
    "new_secret",
]
