//! Mistakes that a test makes the shard make, to see that the simulation finds them. Elsewhere they compile to nothing.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    /// Any phase follows any other.
    AnyPhase,
    /// One that has to go on waiting for memory is forgotten.
    LostWaiter,
    /// An id finds whoever has its place.
    StaleId,
    /// An end is counted twice.
    CountedTwice,
    /// A connection that leaves its session does not let its peer go on.
    LostRelief,
    /// What was received while reading is paused is put before what waits already.
    Overtaken,
    /// A connection that moves to another shard has no extension there.
    ExtLeftBehind,
}

#[cfg(test)]
thread_local! {
    static MADE: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Whether this mistake is to be made.
#[cfg(test)]
pub(super) fn is_made(mutation: Mutation) -> bool {
    MADE.get() == Some(mutation)
}

/// Whether this mistake is to be made: never.
#[cfg(not(test))]
pub(super) const fn is_made(_: Mutation) -> bool {
    false
}

/// From now on this thread's shards make that mistake, or none.
#[cfg(test)]
pub(super) fn make(mutation: Option<Mutation>) {
    MADE.set(mutation);
}
