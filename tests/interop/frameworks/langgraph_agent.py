"""LangChain's agent on LangGraph, with a checkpointer, and a tool that needs the person's consent."""

import os
import sys

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt

from coralmux import Agent
from coralmux.langchain import answers


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool
def consent(what: str) -> str:
    """Asks the person."""
    return interrupt({"question": f"May I {what}?", "options": ["Yes", "No"]})


model = ChatOpenAI(model="fake-model", base_url=os.environ["FAKE_AI"], api_key="x", max_retries=0)
graph = create_agent(model, [add, consent], checkpointer=InMemorySaver())
Agent(sys.argv[1], state=sys.argv[2], name="LangGraph").serve(answers(graph))
