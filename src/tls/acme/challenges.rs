//! What the CA's HTTP-01 challenges (RFC 8555 section 8.3) are answered with on port 80.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The answers to challenges in progress.
#[derive(Debug, Default)]
pub struct ChallengeAnswers(Mutex<HashMap<String, String>>);

impl ChallengeAnswers {
    /// Presents an answer until the guard is dropped.
    #[must_use]
    pub fn present(self: &Arc<Self>, token: &str, answer: &str) -> Token {
        self.all().insert(token.to_owned(), answer.to_owned());
        Token { tokens: Arc::clone(self), token: token.to_owned() }
    }

    /// The answer that is presented for a token.
    #[must_use]
    pub fn answer(&self, token: &str) -> Option<String> {
        self.all().get(token).cloned()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, String>> {
        // Each change is whole before anything in it can panic.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// An answer that is being presented.
#[derive(Debug)]
pub struct Token {
    tokens: Arc<ChallengeAnswers>,
    token: String,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.tokens.all().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_while_it_is_presented() {
        let tokens = Arc::new(ChallengeAnswers::default());
        let token = tokens.present("token-1", "token-1.thumbprint");
        assert_eq!(tokens.answer("token-1").as_deref(), Some("token-1.thumbprint"));
        assert_eq!(tokens.answer("token-2"), None);
        drop(token);
        assert_eq!(tokens.answer("token-1"), None);
    }
}
