//! What answers, as the command line asks for it.

use super::acp::{self, Acp};
use super::agent_protocol::AgentProtocol;
use super::agents::Agents;
use super::agui::{self, AgUi};
use super::backend::Backend;
use super::echo::Echo;
use super::exec::{Exec, JsonLines};
use super::http;
use super::openai::{self, OpenAi};
use super::options::{BackendOptions, Options};
use super::printable::warn;
use coralmux_client::Trust;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Why it cannot.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("the API key in {path}: {text}", path = .path.display())]
    ApiKey { path: PathBuf, text: String },
    #[error("{0}")]
    Server(#[from] http::OpenError),
    #[error("the folder {path} (--acp-dir): {error}", path = .path.display())]
    Directory { path: PathBuf, error: io::Error },
}

/// Opens all of them. `state`: where the pairing is kept; what else is kept is beside it.
pub(super) fn open_all(options: &Options, state: &Path) -> Result<Agents, Failure> {
    let of_others = options.another.iter().map(|another| &another.backend);
    // None of the programs gets a key that is for another's server.
    let hidden: Vec<&str> = [&options.backend].into_iter().chain(of_others).map(|of| of.api_key_env.as_str()).collect();
    let first = open(&options.backend, &hidden, state.with_extension("acp.json"))?;
    let first = Agents::one(options.name.clone(), first, options.backend.context);
    options.another.iter().try_fold(first, |agents, another| {
        let sessions = state.with_extension(format!("{}.acp.json", another.id));
        let backend = open(&another.backend, &hidden, sessions)?;
        let name = another.name.as_ref().unwrap_or(&another.id);
        Ok(agents.and(another.id.clone(), name.clone(), backend, another.backend.context))
    })
}

/// `hidden`: variables that its program does not get; `sessions`: where it keeps those of its program.
fn open(options: &BackendOptions, hidden: &[&str], sessions: PathBuf) -> Result<Arc<dyn Backend>, Failure> {
    if let Some(command) = options.exec.as_ref().filter(|_| options.exec_json) {
        return Ok(Arc::new(JsonLines::new(command.clone(), options.timeout, hidden, &options.exec_env)));
    }
    if let Some(command) = &options.exec {
        return Ok(Arc::new(Exec::new(command.clone(), options.timeout, hidden, &options.exec_env)));
    }
    if let Some(command) = &options.acp {
        let settings = acp::Settings {
            command: command.clone(),
            directory: directory(options.acp_dir.as_deref().unwrap_or(Path::new(".")))?,
            sessions,
            timeout: options.timeout,
        };
        return Ok(Arc::new(Acp::new(settings, hidden, &options.exec_env)));
    }
    let is_stateful = options.stateful;
    if let Some(url) = &options.ag_ui {
        return Ok(Arc::new(AgUi::new(agui::Settings { server: server(url, options)?, is_stateful })?));
    }
    if let Some(url) = &options.agent_protocol {
        return Ok(Arc::new(AgentProtocol::new(server(url, options)?)?));
    }
    let (Some(url), Some(model)) = (&options.openai, &options.model) else { return Ok(Arc::new(Echo)) };
    let (server, model, system) = (server(url, options)?, model.clone(), options.system.clone());
    Ok(Arc::new(OpenAi::new(openai::Settings { server, model, system, is_stateful })?))
}

fn server(url: &str, options: &BackendOptions) -> Result<http::Settings, Failure> {
    let trust = options.openai_ca_file.clone().map_or(Trust::PublicRoots, Trust::PublicRootsAnd);
    let server = http::Settings { url: url.to_owned(), api_key: api_key(options)?, timeout: options.timeout, trust };
    if server.is_exposed() {
        warn(&format!(
            "coralmux-agent: warning: {url} has no TLS: on the way anyone can read the API key. Use https://."
        ));
    }
    Ok(server)
}

/// The folder's path from the root.
fn directory(path: &Path) -> Result<PathBuf, Failure> {
    let refused = |error| Failure::Directory { path: path.to_owned(), error };
    let whole = path.canonicalize().map_err(refused)?;
    if whole.is_dir() { Ok(whole) } else { Err(refused(io::ErrorKind::NotADirectory.into())) }
}

fn api_key(options: &BackendOptions) -> Result<Option<String>, Failure> {
    let key = match &options.api_key_file {
        None => std::env::var(&options.api_key_env).ok(),
        Some(path) => {
            let refused = |text: String| Failure::ApiKey { path: path.clone(), text };
            let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
            if text.trim().is_empty() {
                return Err(refused("the file is empty".to_owned()));
            }
            Some(text)
        }
    };
    Ok(key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()))
}
