//! Whether the kernel may cut receive buffers into pieces.
//!
//! With incremental buffers (`IOU_PBUF_RING_INC`, kernel 6.12) a completion names a buffer and a length, but not where in
//! the buffer its bytes begin: that follows from the completions of that buffer before it. Until "io_uring: ensure
//! deferred completions are flushed for multishot" (687b2bae0eff, in 6.15-rc6, 6.14.7 and 6.12.29) the kernel posted some
//! of them out of order. Bytes of one connection would then be taken for another's. So the kernel's own number decides.
//!
//! A vendor's kernel is judged by the same number, whatever was carried back to it: `6.12.0-100.28.2.el9uek` says 6.12.0
//! and nothing about the fix, so it is not trusted. What it loses is speed, at most.

use std::fmt;

/// How the receive buffers of multishot receives are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumption {
    /// Piece by piece: many small messages share one buffer, and a large read finds a large one.
    Incremental,
    /// Each receive takes a buffer of its own.
    Whole(Why),
}

/// Why buffers are not used up piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The kernel is older than 6.12.
    Older,
    /// The kernel may complete receives of one buffer out of order.
    Unordered,
    /// The kernel's release does not begin with a version.
    Unreadable,
    /// The kernel refused to register such buffers, though its version promises them.
    Refused,
}

impl Consumption {
    /// That of the running kernel, before it has been asked.
    pub(super) fn of_this_kernel() -> Self {
        rustix::system::uname().release().to_str().map_or(Self::Whole(Why::Unreadable), Self::of_release)
    }

    /// What a kernel can be trusted with whose `uname -r` is `release`.
    fn of_release(release: &str) -> Self {
        let Some((version, candidate)) = parse(release) else { return Self::Whole(Why::Unreadable) };
        // A candidate of the first fixed release may have been made before the fix.
        let since = |fixed| version > fixed || version == fixed && !candidate;
        match (version.0, version.1) {
            (..=5, _) | (6, ..=11) => Self::Whole(Why::Older),
            (6, 12) if since((6, 12, 29)) => Self::Incremental,
            (6, 14) if since((6, 14, 7)) => Self::Incremental,
            (6, 12..=14) => Self::Whole(Why::Unordered),
            _ if since((6, 15, 0)) => Self::Incremental,
            _ => Self::Whole(Why::Unordered),
        }
    }
}

impl fmt::Display for Consumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incremental => "incremental: the kernel keeps receives of one buffer in order",
            Self::Whole(Why::Older) => "one for each receive: the kernel is older than 6.12",
            Self::Whole(Why::Unordered) => {
                "one for each receive: by its version the kernel may complete receives of one buffer out of order \
                 (fixed in 6.12.29, 6.14.7 and 6.15)"
            }
            Self::Whole(Why::Unreadable) => "one for each receive: the kernel's release is not a version",
            Self::Whole(Why::Refused) => "one for each receive: the kernel refused incremental ones",
        })
    }
}

/// The version that a release begins with, and whether it is a release candidate.
fn parse(release: &str) -> Option<((u32, u32, u32), bool)> {
    let release = release.trim();
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    let (version, rest) = release.split_at(end);
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    let patch = numbers.next().unwrap_or(Some(0))?;
    let is_candidate = |at: usize| {
        let (before, behind) = (rest[..at].chars().next_back(), rest[at + 2..].chars().next());
        !before.is_some_and(|c| c.is_ascii_alphabetic()) && behind.is_some_and(|c| c.is_ascii_digit())
    };
    Some(((major, minor, patch), rest.match_indices("rc").any(|(at, _)| is_candidate(at))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_that_keep_completions_in_order_may_cut_buffers_up() {
        let whole = |why: Why| Consumption::Whole(why);
        for (releases, expected) in [
            (
                &["5.14.0-570.12.1.el9_6.x86_64", "6.1.0-13-amd64", "6.11.11", "6.6.87.2-microsoft-standard-WSL2"][..],
                whole(Why::Older),
            ),
            (&["6.12.0", "6.12.28", "6.12.12+bpo-amd64", "6.12.9-200.fc41.x86_64"], whole(Why::Unordered)),
            // Vendors: the number is all that is looked at.
            (
                &["6.12.0-100.28.2.el9uek", "6.12.0-55.9.1.el10_0.x86_64", "6.12.0-160000.5-default"],
                whole(Why::Unordered),
            ),
            (&["6.12.29", "6.12.48+deb13-amd64", "6.12.37-61.105.amzn2023.aarch64\n"], Consumption::Incremental),
            (&["6.13.0", "6.13.12", "6.13.99-arch1-1"], whole(Why::Unordered)),
            (&["6.14.0-24-generic", "6.14.6", "6.14.0-1012-azure"], whole(Why::Unordered)),
            (&["6.14.7", "6.14.8-2-pve", "6.14.11-300.fc42.x86_64"], Consumption::Incremental),
            (&["6.15.0", "6.15", "6.15.0-arch1-1", "6.15.4-200.fc42.x86_64"], Consumption::Incremental),
            (&["6.17.0-5-generic", "6.18.44-fc-v669", "7.0.0-rc1", "10.1"], Consumption::Incremental),
            // Candidates of the first fixed releases may lack the fix.
            (
                &["6.15.0-rc5", "6.15-rc6", "6.15.0-0.rc5.20250506git0d8d44db295c.47.fc43.x86_64", "6.14.7-rc1"],
                whole(Why::Unordered),
            ),
            (&["6.16.0-rc1", "6.15.1-rc2"], Consumption::Incremental),
            (&["", "6", "6.", "six.twelve", "v6.18.1", "6.12.-1", "-6.18", "99999999999.1"], whole(Why::Unreadable)),
        ] {
            for release in releases {
                assert_eq!(Consumption::of_release(release), expected, "{release:?}");
            }
        }
    }
}
