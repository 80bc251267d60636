//! What the model knows of an end: which message of which session opens, and nothing of keys.

pub(super) const DAY: f64 = 86_400.;

/// What an end knows, without any key: sessions are numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mind {
    /// Confirmed sessions, the newest first: which, the next number, the time of confirmation.
    pub(super) held: Vec<(usize, u64, f64)>,
    /// The session that is sealed with, the next number, and the stored one.
    pub(super) sending: (usize, u64, u64),
    pub(super) drained: bool,
    /// Before it no long wind.
    pub(super) wind_again: f64,
    /// Agent: which, and when it was answered.
    pub(super) unconfirmed: Vec<(usize, f64)>,
    /// Agent: when it answered.
    pub(super) answered: Vec<f64>,
    /// Device: the newest opening.
    pub(super) pending: Option<usize>,
    pub(super) opened_at: f64,
}

impl Mind {
    pub(super) fn new() -> Self {
        Self {
            held: vec![(0, 0, 0.)],
            sending: (0, 0, 0),
            drained: true,
            wind_again: 0.,
            unconfirmed: vec![],
            answered: vec![],
            pending: None,
            opened_at: -10.,
        }
    }

    /// What is left after a crash.
    pub(super) fn on_disk(&self) -> Self {
        let (session, _, stored) = self.sending;
        Self { held: self.held.clone(), sending: (session, stored, stored), drained: false, ..Self::new() }
    }

    pub(super) fn seal(&mut self) -> (usize, u64, bool) {
        let (session, next, stored) = &mut self.sending;
        let store = next == stored;
        *stored += if store { 64 } else { 0 };
        *next += 1;
        (*session, *next - 1, store)
    }

    pub(super) fn delete(&mut self) {
        let newest = self.held.iter().position(|(_, next, _)| *next > 0).unwrap_or(usize::MAX - 1);
        self.held.truncate(newest + 1);
    }

    pub(super) fn forget_the_old(&mut self, now: f64) {
        let all = self.held.clone();
        let mut newer = all.iter().map(|(_, _, since)| now >= since + 8. * DAY);
        let mut gone = false;
        self.held.retain(|_| {
            let keep = !gone;
            gone |= newer.next().unwrap();
            keep
        });
    }

    pub(super) fn confirm(&mut self, session: usize, next: u64, now: f64) {
        self.held.insert(0, (session, next, now));
        self.held.truncate(4);
        self.sending = (session, 0, 0);
    }

    /// How many were skipped, and whether it confirmed its session; none where it does not open.
    pub(super) fn open(&mut self, now: f64, session: usize, number: u64, genuine: bool) -> Option<(u64, bool)> {
        self.forget_the_old(now);
        self.unconfirmed.retain(|(_, at)| now < at + 60.);
        let place = self.held.iter().position(|held| held.0 == session);
        let fresh = self.unconfirmed.iter().position(|fresh| fresh.0 == session);
        let next = match (place, fresh) {
            (Some(place), _) => self.held[place].1,
            (None, Some(_)) => 0,
            (None, None) => return None,
        };
        if number < next || number > next + 4096 || (number > next + 64 && now < self.wind_again) {
            return None;
        }
        if !genuine {
            self.wind_again = if number > next + 64 { now + 1. } else { self.wind_again };
            return None;
        }
        match (place, fresh) {
            (Some(place), _) => self.held[place].1 = number + 1,
            (None, Some(fresh)) => {
                self.unconfirmed.drain(..=fresh);
                self.confirm(session, number + 1, now);
            }
            (None, None) => unreachable!(),
        }
        if self.drained {
            self.delete();
        }
        Some((number - next, place.is_none()))
    }
}
