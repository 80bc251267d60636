//! What a push service's answer means.

use std::time::Duration;

/// When a notification that a push service could not take is sent once more, unless the service has said when.
pub const RETRY_AFTER: Duration = Duration::from_secs(30);
/// A longer wait than this that a push service asks for is cut short: the device may be back by then.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// So many failures of a subscription in a row, and it is given up.
pub const FAILURES_MAX: u8 = 5;

/// What has become of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The push service has it.
    Delivered,
    /// The subscription is none any more.
    Gone,
    /// The push service does not take notifications of this relay, or none like this.
    Refused,
    /// It may be sent once more after that long.
    Later(Duration),
}

/// Reads a status (RFC 8030, sections 5 and 7.3) and the seconds of `Retry-After`. A redirect is not followed: it counts as
/// a failure, as does any status that means nothing here.
#[must_use]
pub fn answer_of(status: u16, retry_after: Option<Duration>) -> Answer {
    match status {
        200..=299 => Answer::Delivered,
        404 | 410 => Answer::Gone,
        400 | 401 | 403 | 413 => Answer::Refused,
        _ => Answer::Later(retry_after.unwrap_or(RETRY_AFTER).clamp(Duration::from_secs(1), RETRY_AFTER_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_means_what_it_says() {
        for (status, answer) in [
            (200, Answer::Delivered),
            (201, Answer::Delivered),
            (202, Answer::Delivered),
            (404, Answer::Gone),
            (410, Answer::Gone),
            (400, Answer::Refused),
            (401, Answer::Refused),
            (403, Answer::Refused),
            (413, Answer::Refused),
            (301, Answer::Later(RETRY_AFTER)),
            (307, Answer::Later(RETRY_AFTER)),
            (429, Answer::Later(RETRY_AFTER)),
            (500, Answer::Later(RETRY_AFTER)),
            (507, Answer::Later(RETRY_AFTER)),
        ] {
            assert_eq!(answer_of(status, None), answer, "{status}");
        }
        let seconds = Duration::from_secs;
        assert_eq!(answer_of(429, Some(seconds(7))), Answer::Later(seconds(7)));
        assert_eq!(answer_of(429, Some(seconds(0))), Answer::Later(seconds(1)));
        assert_eq!(answer_of(503, Some(seconds(86_400))), Answer::Later(RETRY_AFTER_MAX));
        assert_eq!(answer_of(201, Some(seconds(7))), Answer::Delivered);
    }
}
