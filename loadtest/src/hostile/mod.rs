//! `hostile`: a share of the pairs does the worst that is known, and the others say what they notice of it.
//!
//! For each kind of hostility a relay of its own is started, with its limits in force for the hostile pairs and lifted
//! for the others. Calm and attack are measured in turn, round by round, and the median of the rounds' own ratios counts.

mod attack;
mod honest;
mod summary;

use crate::adversary::{KINDS, Kind, named};
use crate::cli::HostileArgs;
use crate::launch::{Server, pin_to};
use crate::report::compare::Comparison;
use crate::report::html;
use crate::report::outcome::Outcome;
use crate::report::progress::Progress;
use crate::scenario::connect::open_all;
use crate::scenario::measure::{measure, warm_up};
use crate::scenario::{Opening, Relay, Run, nanoseconds};
use anyhow::{Context as _, Result, bail, ensure};
use attack::Attack;
use honest::Honest;
use std::path::Path;
use std::time::Duration;
pub(crate) use summary::Summary;
use summary::Table;

/// What all kinds at once are called.
const MIXED: &str = "mixed";
const WARM_UP: f64 = 1.0;
/// How long the others' messages may take to arrive after a window, while the attack goes on.
const GRACE: f64 = 15.0;
/// How long a relay may take to be itself again when the attack is over.
const RECOVERY: f64 = 60.0;
/// Between an attack and the calm that it is compared with.
const SETTLE: f64 = 0.5;
/// Rates as the relay has them; only what a day may bring is lifted, for an attacker has as many tokens as it likes.
const HOSTILE_LIMITS: &str = r#"{"limits":{"daily_quota_bytes":0,"monthly_quota_bytes":0}}"#;
const HONEST_LIMITS: &str = r#"{"limits":{"phone_per_minute":0,"agent_per_minute":0,"stream_per_second":0,"daily_quota_bytes":0,"monthly_quota_bytes":0}}"#;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    /// The share of pairs that are hostile, 0 to 1.
    pub(crate) share: f64,
    /// Messages a second of all others together.
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
}

impl Plan {
    fn hostile_pairs(&self) -> usize {
        ((self.pairs as f64 * self.share.clamp(0.0, 1.0)).ceil() as usize).max(1)
    }

    fn honest_pairs(&self) -> usize {
        self.pairs.saturating_sub(self.hostile_pairs())
    }
}

/// Measures each of the kinds that are wanted, and prints the table.
pub(crate) fn run(args: &HostileArgs) -> Result<()> {
    let plan = args.plan();
    ensure!(plan.honest_pairs() >= 2, "this takes two pairs at least that are not hostile");
    let selected = select(&args.kinds, args.tls)?;
    pin_to(args.generator_core)?;
    let mut table = Table::begin();
    for (name, kinds) in &selected {
        table.put(one(args, &plan, name, kinds).with_context(|| name.clone())?);
    }
    let rows = table.end();
    if let Some(path) = &args.json {
        write(path, &(serde_json::to_string_pretty(&rows)? + "\n"))?;
    }
    args.html.as_deref().map_or(Ok(()), |path| write(path, &html::hostile(&rows)))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Names and what they stand for: each kind alone, then all of them at once, or what was asked for.
fn select(names: &[String], tls: bool) -> Result<Vec<(String, Vec<&'static Kind>)>> {
    let all: Vec<_> = KINDS.iter().filter(|kind| tls || !kind.needs_tls).collect();
    if names.is_empty() {
        let each = all.iter().map(|kind| (kind.name.to_owned(), vec![*kind]));
        return Ok(each.chain([(MIXED.to_owned(), all.clone())]).collect());
    }
    let mut selected = Vec::new();
    for name in names {
        let kinds = match (name.as_str(), named(name)) {
            (MIXED, _) => all.clone(),
            (_, Some(kind)) if kind.needs_tls && !tls => bail!("{name} attacks TLS: add --tls"),
            (_, Some(kind)) => vec![kind],
            (_, None) => {
                let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
                bail!("{name} is not a kind of hostility; there are {} and {MIXED}", known.join(", "))
            }
        };
        selected.push((name.clone(), kinds));
    }
    Ok(selected)
}

/// All rounds of one kind, against a relay of its own.
fn one(args: &HostileArgs, plan: &Plan, name: &str, kinds: &[&'static Kind]) -> Result<Summary> {
    let honest_pairs = plan.honest_pairs();
    let server = Server::attacked(&args.relay, args.server_core, args.tls, &args.relay_flags)?;
    let honest_tokens = server.tokens(honest_pairs + 1, HONEST_LIMITS)?;
    let hostile_tokens = server.tokens(plan.hostile_pairs(), HOSTILE_LIMITS)?;
    let relay = Relay { tokens: honest_tokens, ..server.relay.clone() };
    let progress = Progress::new(name);
    let opening = Opening { concurrency: 32, ramp_up: Duration::ZERO };
    let run = Run { relay: &relay, opening, progress: &progress };
    let (mut net, mut honest) = Honest::new(plan, &relay)?;
    open_all(run, &mut net)?;
    honest.add_newcomer(&mut net, &relay.tokens[honest_pairs]);
    honest.start(&net);
    warm_up(run, &mut net, &mut honest, WARM_UP)?;
    let (mut rounds, mut stuck) = (Vec::new(), false);
    for _ in 0..plan.rounds.max(1) {
        let mut window = |attack: Option<Attack>| window(run, plan, name, &mut net, &mut honest, attack);
        let (calm, _) = window(None)?;
        let (attacked, recovered) = window(Some(Attack::start(&relay.target, &hostile_tokens, kinds)?))?;
        rounds.push((attacked, calm));
        stuck = !recovered;
        if stuck {
            break;
        }
    }
    progress.end();
    let comparison = Comparison::new("attacked", "calm", rounds);
    Ok(Summary::new(name, kinds, comparison, stuck))
}

/// One window of the others' traffic, and whether the relay was itself again afterwards.
fn window(
    run: Run<'_>,
    plan: &Plan,
    name: &str,
    net: &mut crate::generator::Net,
    honest: &mut Honest,
    attack: Option<Attack>,
) -> Result<(Outcome, bool)> {
    honest.start(net);
    let measured = measure(run, net, honest, plan.seconds, |_, _| false)?;
    honest.pause();
    let grace = net.now() + nanoseconds(GRACE);
    net.run(honest, grace, |net, honest| honest.is_done(net))?;
    let noticed = honest.take();
    let (connections, megabytes) = attack.as_ref().map(Attack::done).unwrap_or_default();
    let attacked = attack.is_some();
    drop(attack);
    let mut recovered = true;
    if attacked {
        honest.start(net);
        honest.pause();
        net.run(honest, net.now() + nanoseconds(SETTLE), |_, _| false)?;
        net.run(honest, net.now() + nanoseconds(RECOVERY), |net, honest| honest.is_done(net))?;
        recovered = honest.is_done(net);
        honest.take();
    }
    let count = measured.count;
    let rss_most = measured.series.iter().filter_map(|sample| sample.rss_bytes).max();
    let mut outcome = Outcome::new("hostile", &run.relay.target.url, "messages", measured)
        .setting("kind", name)
        .setting("pairs", plan.pairs)
        .setting("hostile_pairs", plan.hostile_pairs())
        .setting("rate", plan.rate)
        .throughput("messages_per_second", "server_cpu_us_per_message", count)
        .figure("cut_off", noticed.cut_off as f64)
        .figure("lost_messages", noticed.lost as f64)
        .figure("hostile_connections", connections)
        .figure("hostile_megabytes", megabytes)
        .figure_if("rss_most_megabytes", rss_most.map(|bytes| bytes as f64 / 1e6))
        .latency("message", "latency_p50_us", "latency_p99_us", &noticed.chats)
        .latency("image", "image_p50_us", "image_p99_us", &noticed.images)
        .latency("newcomer", "newcomer_p50_us", "newcomer_p99_us", &noticed.arrivals);
    outcome.errors = noticed.errors;
    Ok((outcome, recovered))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kinds: &[&str], tls: bool) -> Result<Vec<String>> {
        let kinds: Vec<_> = kinds.iter().map(ToString::to_string).collect();
        Ok(select(&kinds, tls)?.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn kinds_are_selected_by_name_and_what_attacks_tls_takes_tls() {
        let all = names(&[], true).unwrap();
        assert_eq!((all.len(), all.last().unwrap().as_str()), (KINDS.len() + 1, MIXED));
        let plain = names(&[], false).unwrap();
        assert!(plain.contains(&"pings".to_owned()) && !plain.contains(&"handshakes".to_owned()));
        assert_eq!(names(&["pings", "mixed"], false).unwrap(), ["pings", "mixed"]);
        let error = |kind| names(&[kind], false).unwrap_err().to_string();
        assert!(error("handshakes").contains("--tls"));
        assert!(error("kindness").contains("kindness is not") && error("kindness").contains("half-heads"));
    }

    #[test]
    fn there_is_a_hostile_pair_at_least_and_the_others_are_the_rest() {
        let plan = |pairs, share| Plan { pairs, share, rate: 1.0, seconds: 1.0, rounds: 1 };
        let counts = |plan: Plan| (plan.hostile_pairs(), plan.honest_pairs());
        assert_eq!(counts(plan(100, 0.1)), (10, 90));
        assert_eq!(counts(plan(15, 0.1)), (2, 13));
        assert_eq!(counts(plan(10, 0.0)), (1, 9));
        assert_eq!(counts(plan(10, 1.0)), (10, 0));
    }
}
