//! What a seed draws before it begins: the relay's settings, the network's faults, and who is there.

use super::ledger::DEVICES;
use crate::proto::limits::{Limits, LimitsOverride};
use crate::proto::token::Role;
use crate::ring::simulated::{Faults, Random};
use crate::shard::Settings;
use crate::shard::shared::Caps;
use std::time::Duration;

/// How a seed ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All clients go.
    Left,
    /// The relay sends them away.
    Drained,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) shards: u16,
    pub(super) settings: Settings,
    pub(super) caps: Caps,
    pub(super) faults: Faults,
    /// Tokens of clients that behave well; those of the others come behind them.
    pub(super) tokens: usize,
    pub(super) rogue_tokens: usize,
    /// Each with its token and role, and which device it is; 0: none.
    pub(super) clients: Vec<(usize, Role, u8)>,
    /// Tokens that are bound, and have devices.
    pub(super) bound: Vec<usize>,
    /// How many clients that do not behave come in all.
    pub(super) rogues: usize,
    /// TLS is spoken, too.
    pub(super) has_tls: bool,
    /// Memory is scarce, and those who do not behave are after it.
    pub(super) is_hungry: bool,
    pub(super) steps: usize,
    /// How often a client leaves, in a thousand of its turns.
    pub(super) churn: u16,
    pub(super) messages_at_once: usize,
    /// How many of a thousand connections ask for the extension. Where none does, nobody acknowledges.
    pub(super) ext: u16,
    /// The largest message that a client sends.
    pub(super) message_bytes: usize,
    /// How often control changes its mind, in a thousand steps.
    pub(super) decisions: u16,
    /// The most milliseconds that a step takes, most of the time.
    pub(super) step_ms: usize,
    /// Commands that a shard's queue holds.
    pub(super) commands_max: usize,
    pub(super) ending: Ending,
}

impl Plan {
    /// That of a seed; `is_hungry`: memory is scarce in any case.
    pub(super) fn draw(random: &mut Random, is_hungry: bool) -> Self {
        let tokens = random.between(1, 3);
        let mut clients = Vec::new();
        for token in 0..tokens {
            clients.push((token, Role::Phone, 0));
            clients.push((token, Role::Agent, 0));
            if random.chance(300) {
                clients.push((token, random.pick(&[Role::Phone, Role::Agent]), 0));
            }
        }
        let mut plan = Self {
            shards: random.pick(&[1, 1, 2, 3]),
            settings: settings(random),
            caps: Caps {
                connections_max: random.pick(&[0, 40, 8]),
                unauthenticated_max: random.pick(&[0, 20, 4]),
                unauthenticated_per_address_max: random.pick(&[0, 8, 2]),
            },
            faults: faults(random),
            tokens,
            rogue_tokens: random.between(1, 2),
            clients,
            bound: Vec::new(),
            rogues: random.pick(&[0, 2, 6, 20]),
            has_tls: random.chance(60),
            is_hungry: random.chance(80) || is_hungry,
            steps: random.pick(&[20, 50, 80, 120]),
            churn: random.pick(&[0, 5, 20, 60]),
            messages_at_once: random.pick(&[1, 1, 2, 5]),
            ext: random.pick(&[0, 0, 500, 1000]),
            message_bytes: random.pick(&[400, 5_000, 40_000, 300_000]),
            decisions: random.pick(&[0, 0, 10, 50]),
            step_ms: random.pick(&[1, 5, 20, 100]),
            commands_max: random.pick(&[2, 16, 4096]),
            ending: random.pick(&[Ending::Left, Ending::Drained]),
        };
        if plan.is_hungry {
            (plan.rogues, plan.rogue_tokens) = (40, 6);
            (plan.steps, plan.step_ms) = (120, 200);
            plan.settings.budget_bytes = random.pick(&[128 << 10, 300 << 10]);
            plan.settings.limits = Limits { message_bytes_max: 250_000, ..limits(random) };
            plan.settings.write_timeout = Duration::from_secs(random.pick(&[2, 2, 10]));
            plan.caps = Caps { connections_max: 0, unauthenticated_max: 0, unauthenticated_per_address_max: 0 };
        }
        plan
    }

    /// Binds some tokens. It draws from numbers of its own: seeds without devices are as they would be if there were none.
    pub(super) fn bind_some(&mut self, random: &mut Random) {
        for token in 0..self.tokens {
            if random.chance(250) {
                self.bound.push(token);
                let devices = (1..=DEVICES as u8).chain(random.chance(300).then_some(1));
                self.clients.extend(devices.map(|device| (token, Role::Phone, device)));
            }
        }
    }
}

fn settings(random: &mut Random) -> Settings {
    let mut seconds = |choice: &[u64]| Duration::from_secs(random.pick(choice));
    let (auth_timeout, ping_interval) = (seconds(&[2, 5, 10]), seconds(&[1, 5, 30]));
    let (idle_timeout, write_timeout) = (seconds(&[0, 5, 60]), seconds(&[1, 3, 10]));
    Settings {
        limits: limits(random),
        auth_timeout,
        ping_interval,
        idle_timeout,
        write_timeout,
        budget_bytes: random.pick(&[128 << 10, 512 << 10, 1 << 20, 16 << 20]),
        mailbox_reads: 0,
    }
}

pub(super) fn limits(random: &mut Random) -> Limits {
    Limits {
        message_bytes_max: random.pick(&[30_000, 400_000, 5 << 20]),
        phone_per_minute: random.pick(&[0, 0, 30]),
        agent_per_minute: random.pick(&[0, 0, 120]),
        stream_per_second: random.pick(&[0, 5, 100]),
        daily_quota_bytes: random.pick(&[0, 0, 200_000]),
        monthly_quota_bytes: random.pick(&[0, 0, 10_000_000]),
        ..Limits::default()
    }
}

/// What a token may have of its own.
pub(super) fn own_limits(random: &mut Random) -> LimitsOverride {
    LimitsOverride {
        message_bytes_max: random.pick(&[None, None, Some(2_000)]),
        stream_per_second: random.pick(&[None, None, Some(10)]),
        phone_per_minute: random.pick(&[None, Some(0)]),
        ..LimitsOverride::default()
    }
}

fn faults(random: &mut Random) -> Faults {
    let mut often = |choice: &[u16]| random.pick(choice);
    Faults {
        delayed: often(&[0, 100, 400]),
        cut: often(&[0, 200, 700]),
        interrupted: often(&[0, 20, 100]),
        ended: often(&[0, 20, 200]),
        raced: often(&[0, 300, 900]),
        short: often(&[0, 100, 500]),
        late: often(&[0, 100, 500]),
        accept: often(&[0, 20, 200]),
        unknown: often(&[0, 0, 200]),
        is_shuffled: often(&[0, 1, 1]) == 1,
    }
}
