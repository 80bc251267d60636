"""AutoGPT's Forge, whose one step asks the model."""

import os
import sys

import uvicorn
from forge.agent import ForgeAgent
from forge.llm import chat_completion_request
from forge.sdk import AgentDB, LocalWorkspace


class Helper(ForgeAgent):
    async def execute_step(self, task_id, step_request):
        task = await self.db.get_task(task_id)
        step = await self.db.create_step(task_id=task_id, input=step_request, is_last=True)
        messages = [{"role": "user", "content": step_request.input or task.input}]
        answer = await chat_completion_request("openai/fake-model", messages)
        step.output = answer.choices[0].message.content
        return step


helper = Helper(AgentDB("sqlite:///./forge.db"), LocalWorkspace(os.path.join(os.getcwd(), "work")))
uvicorn.run(helper.get_agent_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
