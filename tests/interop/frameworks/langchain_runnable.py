"""A LangChain Runnable: a prompt and a model."""

import os
import sys

from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_openai import ChatOpenAI

from coralmux import Agent
from coralmux.langchain import answers, messages

prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), MessagesPlaceholder("conversation")])
model = ChatOpenAI(model="fake-model", base_url=os.environ["FAKE_AI"], api_key="x", max_retries=0)
chain = prompt | model

answer = answers(chain, make_input=lambda question: {"conversation": messages(question)})
Agent(sys.argv[1], state=sys.argv[2], name="LangChain").serve(answer)
