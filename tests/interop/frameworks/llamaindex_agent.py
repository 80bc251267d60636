"""An agent of LlamaIndex."""

import os
import sys

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.workflow import Context, HumanResponseEvent, InputRequiredEvent
from llama_index.llms.openai_like import OpenAILike

from coralmux import Agent
from coralmux.llamaindex import answers


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


async def consent(ctx: Context, what: str) -> str:
    """Asks the person."""
    text = f"May I {what}?"
    asked = InputRequiredEvent(prefix=text, what=what)
    return (await ctx.wait_for_event(HumanResponseEvent, waiter_event=asked, waiter_id=text, requirements={"what": what})).response


llm = OpenAILike(
    model="fake-model",
    api_base=os.environ["FAKE_AI"],
    api_key="x",
    is_chat_model=True,
    is_function_calling_model=True,
    max_retries=0,
)
Agent(sys.argv[1], state=sys.argv[2], name="LlamaIndex").serve(answers(FunctionAgent(tools=[add, consent], llm=llm)))
