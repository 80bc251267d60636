"""An agent of AG2, with a tool that asks the person."""

import os
import sys

from ag2 import Agent as Helper
from ag2 import Context
from ag2.config import OpenAIConfig

from coralmux import Agent
from coralmux.ag2 import answers


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


async def consent(what: str, context: Context) -> str:
    """Asks the person."""
    return await context.input(f"May I {what}?")


config = OpenAIConfig(model="fake-model", base_url=os.environ["FAKE_AI"], api_key="x", streaming=True, max_retries=0)
helper = Helper("helper", "Be brief.", config=config, tools=[add, consent])
Agent(sys.argv[1], state=sys.argv[2], name="AG2").serve(answers(helper))
