//! What the agent keeps on the disk: the token and the pairing secret, one file for each relay, readable by its owner
//! alone. Anyone who reads it can pose as the agent.

use super::printable::warn;
use coralmux_client::{PairingSecret, RelayUrl};
use coralmux_proto::token::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Token and secret for one relay.
#[derive(Clone, Debug)]
pub struct State {
    /// The pairing token.
    pub token: String,
    /// The pairing secret.
    pub secret: PairingSecret,
}

/// The file. `relay` is for people who look into it.
#[derive(Serialize, Deserialize)]
struct File {
    relay: String,
    token: String,
    secret: String,
}

/// Why the state cannot be kept.
#[derive(Debug, Error)]
pub enum StateError {
    /// No home folder to keep it in.
    #[error("there is no home folder to keep the token in: name a file with --state")]
    NoHome,
    /// The system refuses.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not a state file.
    #[error("{path} is not a state file of an agent: remove it, or name another one with --state", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or write it, and that could not be changed.
    #[error("{path} can be read or written by others (mode {mode:o}): chmod 600 it, or pair anew if somebody has", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Where the state for a relay is kept, if nothing else is said: `$XDG_STATE_HOME/coralmux-agent`, which is
/// `~/.local/state/coralmux-agent`, or `%LOCALAPPDATA%\coralmux-agent`.
///
/// # Errors
/// [`StateError::NoHome`]
pub fn default_path(relay: &RelayUrl, env: impl Fn(&str) -> Option<String>) -> Result<PathBuf, StateError> {
    let given = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = if cfg!(windows) {
        given("LOCALAPPDATA")
    } else {
        given("XDG_STATE_HOME").or_else(|| given("HOME").map(|home| home.join(".local").join("state")))
    };
    // The name is for people, the hash makes it one relay's.
    let host: String = relay.host().chars().map(|c| if c == ':' { '_' } else { c }).take(100).collect();
    let hash = hex(&Sha256::digest(relay.to_string())[..4]);
    Ok(base.ok_or(StateError::NoHome)?.join("coralmux-agent").join(format!("{host}-{hash}.json")))
}

/// Reads the state. `None`: there is none yet.
///
/// # Errors
/// It cannot be read, is none, or others may read it.
pub fn read(path: &Path) -> Result<Option<State>, StateError> {
    let refused = |error: io::Error| StateError::Io { path: path.to_owned(), error };
    let damaged = || StateError::Damaged { path: path.to_owned() };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(damaged());
    }
    #[cfg(unix)]
    make_private(path, &metadata)?;
    let text = fs::read(path).map_err(refused)?;
    let file: File = serde_json::from_slice(&text).map_err(|_| damaged())?;
    let secret = PairingSecret::parse(&file.secret).ok_or_else(damaged)?;
    Ok(Some(State { token: file.token, secret }))
}

/// Takes the rights of others off the file, and says so. What everybody may write is refused: it may be anybody's.
#[cfg(unix)]
fn make_private(path: &Path, metadata: &fs::Metadata) -> Result<(), StateError> {
    use std::os::unix::fs::PermissionsExt;
    let is_private = |metadata: &fs::Metadata| metadata.permissions().mode() & 0o077 == 0;
    if is_private(metadata) {
        return Ok(());
    }
    let mode = metadata.permissions().mode() & 0o777;
    let changed = mode & 0o002 == 0 && fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700)).is_ok();
    // Some file systems take a mode and keep their own.
    if !(changed && fs::metadata(path).is_ok_and(|metadata| is_private(&metadata))) {
        return Err(StateError::Open { path: path.to_owned(), mode });
    }
    let path = path.display();
    warn(&format!(
        "{path} could be read or written by others (mode {mode:o}); it is for its owner alone now. Pair anew if somebody has."
    ));
    Ok(())
}

/// Writes the state, whole or not at all, for its owner's eyes alone.
///
/// # Errors
/// The system refuses.
pub fn write(path: &Path, relay: &RelayUrl, state: &State) -> Result<(), StateError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| StateError::Io { path, error }
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder).map_err(refused(folder))?;
    }
    let secret = state.secret.expose();
    let file = File { relay: relay.to_string(), token: state.token.clone(), secret: secret.to_string() };
    let text = serde_json::to_vec_pretty(&file).map_err(|error| refused(path)(error.into()))?;
    write_private(path, &text).map_err(refused(path))
}

/// Writes a file, whole or not at all, for its owner's eyes alone.
pub(crate) fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let written = write_new(&new, text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // Not left behind: it has secrets in it.
        let _ = fs::remove_file(&new);
    }
    written
}

fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    // What a process with the same number has left, long ago.
    let _ = fs::remove_file(path);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay() -> RelayUrl {
        "wss://relay.example.com".parse().unwrap()
    }

    fn state() -> State {
        State { token: "oc_pair_00".to_owned(), secret: PairingSecret::from_bytes([7; 32]) }
    }

    #[test]
    fn a_state_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("b.json");
        assert!(read(&path).unwrap().is_none());
        for _ in 0..2 {
            write(&path, &relay(), &state()).unwrap();
        }
        let found = read(&path).unwrap().unwrap();
        assert_eq!((found.token.as_str(), found.secret.as_bytes()), ("oc_pair_00", &[7; 32]));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("state.json");
        write(&path, &relay(), &state()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        for loose in [0o640, 0o664, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(loose)).unwrap();
            assert!(read(&path).unwrap().is_some(), "{loose:o}");
            assert_eq!(mode(&path), 0o600, "{loose:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(read(&path), Err(StateError::Open { mode: 0o666, .. })));
    }

    #[test]
    fn what_is_no_state_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for text in ["", "{}", r#"{"relay":"","token":"t","secret":"short"}"#] {
            write_new(&path, text.as_bytes()).unwrap();
            assert!(matches!(read(&path), Err(StateError::Damaged { .. })), "{text}");
        }
        assert!(matches!(read(folder.path()), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn each_relay_has_a_file_of_its_own() {
        let env = |name: &str| (name == "HOME" || name == "LOCALAPPDATA").then(|| "/home/me".to_owned());
        let path = default_path(&relay(), env).unwrap();
        let other = default_path(&"wss://relay.example.com/x".parse().unwrap(), env).unwrap();
        assert_ne!(path, other);
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with("relay.example.com-"));
        assert!(matches!(default_path(&relay(), |_| None), Err(StateError::NoHome)));
    }
}
