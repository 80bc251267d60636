//! That an answer is not wanted any more: said once, heard by whoever makes it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    cancelled: bool,
    hook: Option<Hook>,
}

/// Clones are the same answer's.
#[derive(Clone, Default)]
pub struct Cancel {
    inner: Arc<(Mutex<State>, Condvar)>,
}

impl Cancel {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock.
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says so. Again, it does nothing.
    pub fn cancel(&self) {
        let mut state = self.state();
        state.cancelled = true;
        let hook = state.hook.take();
        drop(state);
        self.inner.1.notify_all();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Whether it was said.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// Has `hook` called when it is said; at once where it was already. The one before it is forgotten.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.cancelled {
            drop(state);
            hook();
        } else {
            state.hook = Some(Box::new(hook));
        }
    }

    /// Forgets the hook.
    pub fn forget(&self) {
        self.state().hook = None;
    }

    /// Sleeps, unless it is said meanwhile. Whether it was said.
    #[must_use]
    pub fn sleep(&self, time: Duration) -> bool {
        let state = self.state();
        let wait = self.inner.1.wait_timeout_while(state, time, |state| !state.cancelled);
        wait.unwrap_or_else(PoisonError::into_inner).0.cancelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_hook_is_called_once_also_when_it_comes_late() {
        let (cancel, (sender, calls)) = (Cancel::default(), mpsc::channel());
        let early = sender.clone();
        cancel.on_cancel(move || early.send(1).unwrap());
        cancel.cancel();
        cancel.cancel();
        cancel.on_cancel(move || sender.send(2).unwrap());
        assert_eq!(calls.iter().collect::<Vec<_>>(), [1, 2]);
        assert!(cancel.is_cancelled() && cancel.sleep(Duration::MAX));
    }

    #[test]
    fn a_hook_that_was_forgotten_is_not_called() {
        let cancel = Cancel::default();
        cancel.on_cancel(|| panic!("called"));
        cancel.forget();
        cancel.cancel();
    }
}
