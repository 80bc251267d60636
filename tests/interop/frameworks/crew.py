"""A crew of one."""

import os
import sys

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

from crewai import LLM, Crew, Task  # noqa: E402
from crewai import Agent as Member  # noqa: E402
from crewai.tools import tool  # noqa: E402

from coralmux import Agent, ask_in_thread  # noqa: E402
from coralmux.crewai import answers  # noqa: E402


@tool("add")
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool("consent")
def consent(what: str) -> str:
    """Asks the person."""
    return ask_in_thread(f"May I {what}?") or ""


llm = LLM(model="openai/fake-model", base_url=os.environ["FAKE_AI"], api_key="x")


def make_crew():
    helper = Member(role="Helper", goal="help", backstory="kind", llm=llm, tools=[add, consent])
    return Crew(agents=[helper], tasks=[Task(description="{history}\n{text}", expected_output="text", agent=helper)])


Agent(sys.argv[1], state=sys.argv[2], name="CrewAI").serve(answers(make_crew))
