//! A backend that is served by the Agent Protocol (<https://agentprotocol.ai>), AutoGPT's: each question is a task, which is
//! done in steps until one of them is the last. Such an agent keeps no conversation, and takes no images.

use super::activity::{Activity, Doing};
use super::backend::{Backend, BackendError, Outcome, Output, Question};
use super::cancel::Cancel;
use super::http::{self, ANSWER_TIMEOUT, OpenError, Server};
use super::paragraphs::Paragraphs;
use serde_json::{Value, json};
use std::time::Instant;

/// Steps of a task.
const STEPS_MAX: usize = 200;
/// The names of files that are told.
const FILES_MAX: usize = 20;

/// See the module.
pub(super) struct AgentProtocol {
    server: Server,
    tasks: String,
}

impl AgentProtocol {
    /// A backend that asks this server; its address goes up to and with `/ap/v1`, which is added where there is no path.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub(super) fn new(settings: http::Settings) -> Result<Self, OpenError> {
        let server = Server::new(settings)?;
        let tasks = server.endpoint("/ap/v1", "/agent/tasks");
        Ok(Self { server, tasks })
    }

    fn post(&self, url: &str, body: &Value, cancel: &Cancel) -> Result<Value, BackendError> {
        let answer = self.server.post(url, body, cancel)?;
        self.server.json(answer, cancel)
    }

    fn ask(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        if !question.images().is_empty() {
            return Err(BackendError::failed("this agent takes text only"));
        }
        let task = self.post(&self.tasks, &json!({"input": question.text_with_age()}), cancel)?;
        let is_plain =
            |id: &&str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let Some(id) = task["task_id"].as_str().filter(is_plain) else {
            return Err(BackendError::failed("the AI server began a task without a name"));
        };
        let steps = format!("{}/{id}/steps", self.tasks);
        let (mut text, started) = (Paragraphs::default(), Instant::now());
        for _ in 0..STEPS_MAX {
            if started.elapsed() > ANSWER_TIMEOUT {
                break;
            }
            let step = self.post(&steps, &json!({}), cancel)?;
            text.act();
            text.push(step["output"].as_str().unwrap_or_default().trim(), output)?;
            if let Some(files) = files(&step) {
                text.act();
                text.push(&files, output)?;
            }
            if step["is_last"] != false {
                let is_empty = !text.has_text();
                return if is_empty {
                    Err(BackendError::failed("the AI server sent an empty answer"))
                } else {
                    Ok(Outcome::Whole)
                };
            }
            let tool = step["name"].as_str().unwrap_or("step").to_owned();
            output.activity(&Activity { doing: Doing::Running, tool, ..Activity::default() });
        }
        Err(BackendError::failed("the AI server does not come to an end"))
    }
}

/// What a step has made, in words: the files stay where they are.
fn files(step: &Value) -> Option<String> {
    let names = step["artifacts"].as_array()?.iter().filter_map(|file| file["file_name"].as_str());
    let names: Vec<String> = names.take(FILES_MAX).map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("Files at the agent: {}", names.join(", ")))
}

impl Backend for AgentProtocol {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        self.server.told(self.ask(question, output, cancel), cancel)
    }

    fn kind(&self) -> &'static str {
        "agent-protocol"
    }
}
