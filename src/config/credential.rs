//! Secrets as credentials of the service manager (systemd's `LoadCredential=`): files that no other user and no other service
//! can read, in the directory that `CREDENTIALS_DIRECTORY` names.

use super::error::ConfigError;
use super::secret::Secret;
use crate::sys::file;
use std::io;
use std::path::Path;

/// The credentials' names.
const ADMIN_KEY: &str = "admin-key";
const PUSH_HOOK_SECRET: &str = "push-hook-secret";
/// A credential is one line.
const FILE_BYTES_MAX: u64 = 4096;

/// The admin key among the credentials, if there is one.
pub(super) fn admin_key(env: impl Fn(&str) -> Option<String>) -> Result<Option<Secret>, ConfigError> {
    read(env, ADMIN_KEY, Secret::new)
}

/// What requests to the operator's gateway are signed with, if it is among the credentials.
pub(super) fn push_hook_secret(env: impl Fn(&str) -> Option<String>) -> Result<Option<Secret>, ConfigError> {
    read(env, PUSH_HOOK_SECRET, Secret::of_hook)
}

fn read(
    env: impl Fn(&str) -> Option<String>,
    name: &str,
    secret: impl Fn(&str) -> Result<Secret, &'static str>,
) -> Result<Option<Secret>, ConfigError> {
    let Some(directory) = env("CREDENTIALS_DIRECTORY").filter(|text| !text.is_empty()) else { return Ok(None) };
    let path = Path::new(&directory).join(name);
    match file::read_text(&path, FILE_BYTES_MAX) {
        Ok(text) => match secret(text.trim_end_matches(['\r', '\n'])) {
            Ok(key) => Ok(Some(key)),
            Err(problem) => Err(ConfigError::File { path, detail: problem.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::File { path, detail: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_credential_is_the_key_without_its_line_end_and_an_empty_one_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().to_str().unwrap().to_owned();
        let env = |variable: &str| (variable == "CREDENTIALS_DIRECTORY").then(|| name.clone());
        assert!(admin_key(env).unwrap().is_none(), "no such credential");
        fs::write(directory.path().join(ADMIN_KEY), "of the manager\n").unwrap();
        assert!(admin_key(env).unwrap().unwrap().matches(b"of the manager"));
        fs::write(directory.path().join(ADMIN_KEY), "\n").unwrap();
        let text = admin_key(env).unwrap_err().to_string();
        assert!(text.contains(ADMIN_KEY) && text.contains("empty"), "{text}");
        assert!(push_hook_secret(env).unwrap().is_none(), "no such credential");
        fs::write(directory.path().join(PUSH_HOOK_SECRET), "0123456789abcdef\n").unwrap();
        assert_eq!(push_hook_secret(env).unwrap().unwrap().expose(), "0123456789abcdef");
        fs::write(directory.path().join(PUSH_HOOK_SECRET), "short\n").unwrap();
        assert!(push_hook_secret(env).unwrap_err().to_string().contains("16 characters"));
        assert!(admin_key(|_| None).unwrap().is_none());
        assert!(admin_key(|_| Some(String::new())).unwrap().is_none(), "not a file at the root");
    }
}
