//! What the agent keeps on the disk: the token and the pairing secret, one file for each relay, readable by its owner
//! alone. Anyone who reads it can pose as the agent.

use super::printable::warn;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coralmux_client::{AgentKeys, PairingSecret, RelayUrl, StaticKey, make_folder, replace};
use coralmux_proto::token::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    /// For devices. `None`: a version without devices has written it.
    pub keys: Option<AgentKeys>,
}

/// The file. `relay` is for people who look into it.
#[derive(Serialize, Deserialize)]
struct File {
    relay: String,
    token: String,
    secret: String,
    /// The private key of the agent, in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// By which the relay knows it, in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relay_key: Option<String>,
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
    /// Another agent uses it.
    #[error("another agent runs with this state ({path}): end it first, or name another file with --state", path = .path.display())]
    InUse {
        /// The lock.
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
    let keys = match (&file.key, &file.relay_key) {
        (Some(key), Some(relay_key)) => {
            let bytes = |text: &str| -> Option<[u8; 32]> { URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok() };
            let (key, relay_key) = (bytes(key).ok_or_else(damaged)?, bytes(relay_key).ok_or_else(damaged)?);
            Some(AgentKeys { key: Arc::new(StaticKey::from_private(key)), relay_key })
        }
        _ => None,
    };
    Ok(Some(State { token: file.token, secret, keys }))
}

/// Where what belongs to this token's devices is kept, beside the state file.
#[must_use]
pub fn devices_path(path: &Path, token: &str) -> PathBuf {
    let mut name = devices_prefix(path);
    name.push_str(&hex(&Sha256::digest(token)[..4]));
    path.with_file_name(name)
}

fn devices_prefix(path: &Path) -> String {
    format!("{}.devices-", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Forgets the devices of other tokens, which this state file has had before.
pub fn forget_other_devices(path: &Path, token: &str) {
    let (prefix, own) = (devices_prefix(path), devices_path(path, token));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
        if Some(entry.file_name().as_os_str()) != own.file_name() {
            // What cannot be removed is of a token that nobody uses.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Held while an agent uses a state file: a second one would use the same keys.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "it is held, and closed")] fs::File);

/// Takes the state file for this process.
///
/// # Errors
/// [`StateError::InUse`], or the system refuses.
pub fn lock(path: &Path) -> Result<Lock, StateError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let refused = |error: io::Error| StateError::Io { path: path.clone(), error };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder).map_err(refused)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;
        options.share_mode(0); // whoever has it open has it alone
    }
    let file = match options.open(&path) {
        Ok(file) => file,
        Err(_) if cfg!(windows) && path.exists() => return Err(StateError::InUse { path }),
        Err(error) => return Err(refused(error)),
    };
    #[cfg(unix)]
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(StateError::InUse { path }),
        // A file system without locks, such as some network file systems: better without than not at all.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOLCK | rustix::io::Errno::NOSYS) => {}
        Err(error) => return Err(refused(error.into())),
    }
    Ok(Lock(file))
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
    let secret = state.secret.expose();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let file = File {
        relay: relay.to_string(),
        token: state.token.clone(),
        secret: secret.to_string(),
        key: state.keys.as_ref().map(|keys| text(keys.key.expose())),
        relay_key: state.keys.as_ref().map(|keys| text(&keys.relay_key)),
    };
    let text = serde_json::to_vec_pretty(&file).map_err(|error| refused(path)(error.into()))?;
    replace(path, &text).map_err(refused(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay() -> RelayUrl {
        "wss://relay.example.com".parse().unwrap()
    }

    fn state() -> State {
        State { token: "oc_pair_00".to_owned(), secret: PairingSecret::from_bytes([7; 32]), keys: None }
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
        assert!(found.keys.is_none(), "a file of 0.1.0 has none");
        let keys = AgentKeys::generate();
        write(&path, &relay(), &State { keys: Some(keys.clone()), ..state() }).unwrap();
        let found = read(&path).unwrap().unwrap().keys.unwrap();
        assert_eq!((found.key.public(), found.relay_key), (keys.key.public(), keys.relay_key));
    }

    #[test]
    fn one_agent_at_a_time_has_the_state_and_old_devices_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let held = lock(&path).unwrap();
        let error = lock(&path).unwrap_err();
        assert!(matches!(error, StateError::InUse { .. }), "{error}");
        drop(held);
        lock(&path).unwrap();
        for token in ["old", "new"] {
            replace(&devices_path(&path, token).join("links.json"), b"{}").unwrap();
        }
        forget_other_devices(&path, "new");
        assert!(!devices_path(&path, "old").exists() && devices_path(&path, "new").exists());
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
            replace(&path, text.as_bytes()).unwrap();
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
