"""LangChain's human-in-the-loop middleware: the person approves a tool's call."""

import os
import sys

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from coralmux import Agent
from coralmux.langchain import answers


@tool
def consent(what: str) -> str:
    """Does it."""
    return f"did {what}"


model = ChatOpenAI(model="fake-model", base_url=os.environ["FAKE_AI"], api_key="x", max_retries=0)
asking = HumanInTheLoopMiddleware(interrupt_on={"consent": True})
graph = create_agent(model, [consent], middleware=[asking], checkpointer=InMemorySaver())
Agent(sys.argv[1], state=sys.argv[2], name="LangChain").serve(answers(graph))
