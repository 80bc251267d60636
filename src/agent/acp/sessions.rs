//! Which session of the agent is which conversation, kept on the disk so that an agent that is started again goes on.

use coralmux_client::replace;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Conversations whose sessions are kept; the one that was begun first goes first.
const SESSIONS_MAX: usize = 256;
/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    /// Whose sessions they are: another program does not know them.
    command: String,
    directory: PathBuf,
    /// Conversation and session, oldest first.
    sessions: Vec<(String, String)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sessions {
    path: PathBuf,
    file: File,
}

impl Sessions {
    /// Those of this program in this folder that are kept in the file. One that cannot be read has none.
    pub(super) fn open(path: PathBuf, command: &str, directory: &Path) -> Self {
        let is_readable = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= FILE_BYTES_MAX);
        let kept = if is_readable { fs::read(&path).ok() } else { None };
        let kept: Option<File> = kept.and_then(|text| serde_json::from_slice(&text).ok());
        let is_same = |file: &File| file.command == command && file.directory == directory;
        let new = || File { command: command.to_owned(), directory: directory.to_owned(), sessions: Vec::new() };
        Self { path, file: kept.filter(is_same).unwrap_or_else(new) }
    }

    pub(super) fn of(&self, chat: &str) -> Option<&str> {
        self.file.sessions.iter().find(|(name, _)| name == chat).map(|(_, session)| session.as_str())
    }

    /// Keeps the session of a conversation, in place of the one that it had.
    ///
    /// # Errors
    /// It is known, and not on the disk.
    pub(super) fn keep(&mut self, chat: &str, session: &str) -> std::io::Result<()> {
        self.file.sessions.retain(|(name, _)| name != chat);
        self.file.sessions.push((chat.to_owned(), session.to_owned()));
        let beyond = self.file.sessions.len().saturating_sub(SESSIONS_MAX);
        self.file.sessions.drain(..beyond);
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        replace(&self.path, &serde_json::to_vec_pretty(&self.file)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_those_of_one_program_in_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept").join("sessions.json");
        let open = |command: &str, directory: &str| Sessions::open(path.clone(), command, Path::new(directory));
        let mut sessions = open("a", "/x");
        assert_eq!(sessions.of(""), None);
        sessions.keep("", "s-1").unwrap();
        sessions.keep("", "s-2").unwrap();
        assert_eq!(open("a", "/x").of(""), Some("s-2"));
        assert_eq!((open("b", "/x").of(""), open("a", "/y").of("")), (None, None));
        for number in 0..SESSIONS_MAX {
            sessions.keep(&number.to_string(), "s").unwrap();
        }
        let kept = open("a", "/x");
        assert_eq!((kept.of(""), kept.of("0"), kept.file.sessions.len()), (None, Some("s"), SESSIONS_MAX));
        fs::write(&path, "{").unwrap();
        assert_eq!(open("a", "/x").of("0"), None);
    }
}
