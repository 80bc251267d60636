//! `bench --tls`: what TLS costs more than plain connections, and than a proxy that speaks it in front of the reference.

use super::{Bench, CPU, RSS, one, ratio};
use crate::bench::table::{Bound, Row};
use crate::launch::{KeyKind, Secured, Server};
use crate::report::latency::round;
use crate::scenario::{Relay, idle, pingpong, storm};
use crate::tls::TlsArgs;
use anyhow::{Context as _, Result};
use std::process::{Command, Stdio};

const PAIRS: usize = 100;
const PAIRS_IDLE: usize = 4000;
const PAIRS_STORM: usize = 1000;
/// Handshakes on their way at the same time when everybody comes back.
const HERD: usize = 64;

/// TLS against plain: name, bytes, and the most that the ratio may be.
const MESSAGES: [(&str, usize, f64); 2] =
    [("CPU per message over TLS, 256 B", 256, 1.5), ("CPU per message over TLS, 64 KiB", 64 << 10, 2.5)];
/// Against HAProxy in front of the reference.
const PROXIED: [(&str, usize, f64); 2] = [
    ("CPU per message against HAProxy and reference, 256 B", 256, 0.7),
    ("CPU per message against HAProxy and reference, 64 KiB", 64 << 10, 0.7),
];

impl Bench<'_> {
    /// All rows about TLS.
    pub(super) fn tls(&mut self) -> Result<()> {
        self.tls_messages()?;
        self.tls_proxied()?;
        self.tls_memory()?;
        self.tls_handshakes()?;
        self.tls_storm()
    }

    fn tls_messages(&mut self) -> Result<()> {
        for (name, bytes, at_most) in MESSAGES {
            if !self.wants(name) {
                continue;
            }
            let Secured { plain, tls, .. } = &self.secured(PAIRS, &TlsArgs::default())?;
            let plan = self.plan(PAIRS, bytes, 1);
            let result = self.in_turn(tls, plain, |run| pingpong::run(run, &plan))?;
            self.table.put(Row::ratio(name, Bound::AtMost(at_most), ratio(&result, CPU)?, "µs"));
        }
        Ok(())
    }

    fn tls_proxied(&mut self) -> Result<()> {
        for (name, bytes, at_most) in PROXIED {
            if !self.wants(name) {
                continue;
            }
            let Secured { tls, .. } = &self.secured(PAIRS, &TlsArgs::default())?;
            let (_reference, behind) = Server::reference(&self.binaries, self.args.server_core, 0)?;
            let (_proxy, proxied) = Server::haproxy(&self.args.haproxy, self.args.server_core, &behind, PAIRS)?;
            let plan = self.plan(PAIRS, bytes, 1);
            let result = self.in_turn(tls, &proxied, |run| pingpong::run(run, &plan))?;
            self.table.put(Row::ratio(name, Bound::AtMost(at_most), ratio(&result, CPU)?, "µs"));
        }
        Ok(())
    }

    /// In a relay that has not served any before.
    fn tls_memory(&mut self) -> Result<()> {
        let name = "memory of an idle TLS connection, 4,000 pairs, bytes";
        if !self.wants(name) {
            return Ok(());
        }
        let Secured { tls, .. } = &self.secured(PAIRS_IDLE, &TlsArgs::default())?;
        let plan = idle::Plan { pairs: PAIRS_IDLE, active: 0, bytes: 256, seconds: 3.0 };
        let outcome = one(tls, "relay", &|run| idle::run(run, &plan))?;
        let note = "after the handshake and the first message".to_owned();
        self.table.put(Row::new(name, Bound::AtMost(3584.0), outcome.figure_of(RSS)?, note));
        Ok(())
    }

    /// What a handshake costs beyond a plain connection, against what the signature and the key exchange alone cost
    /// OpenSSL. X25519 alone, for that is what its speed test has.
    fn tls_handshakes(&mut self) -> Result<()> {
        let full = ("full handshakes a core, of what openssl speed allows", "server_cpu_us_per_connection");
        let resumed = ("resumed handshakes a core, of the same", "server_cpu_us_per_return");
        let rsa = ("full handshakes a core with an RSA certificate, of what openssl speed allows", full.1);
        let mut rows =
            vec![(full, false, KeyKind::P256), (resumed, true, KeyKind::P256), (rsa, false, KeyKind::Rsa2048)];
        rows.retain(|((name, _), ..)| self.wants(name));
        if rows.is_empty() {
            return Ok(());
        }
        let allowed = Allowed::measure()?;
        let mut full_share = None;
        for ((name, cost), resume, kind) in rows {
            // Those that come back have the tickets of their first visit. Clients that check nothing: with what they would
            // have to do the generator would be what is saturated, and the relay would wake up for each step.
            let settings = TlsArgs { classic: true, resume, insecure: true, ..TlsArgs::default() };
            let Secured { plain, tls, .. } =
                &Server::secured(&self.binaries, self.args.server_core, PAIRS_STORM, &settings, kind)?;
            let plan = storm::Plan { pairs: PAIRS_STORM, herd: HERD, seconds: 60.0, restart: None };
            let result = self.in_turn(tls, plain, |run| storm::run(run, &plan))?;
            let (secured, plain) = ratio(&result, cost)?.values;
            let handshake_us = secured - plain;
            let allowed_us = allowed.exchange_us
                + match kind {
                    KeyKind::P256 => allowed.p256_us,
                    KeyKind::Rsa2048 => allowed.rsa2048_us,
                };
            let note = format!(
                "{:.0} a second ({handshake_us:.0} µs beyond {plain:.0} µs plain); allowed: {:.0}",
                1e6 / handshake_us,
                1e6 / allowed_us
            );
            let share = round(allowed_us / handshake_us);
            // Those that resume are to be more than full ones.
            let least = full_share.filter(|_| resume).unwrap_or(0.85);
            self.table.put(Row::new(name, Bound::AtLeast(least), share, note));
            full_share.get_or_insert(share);
        }
        Ok(())
    }

    /// How long messages take while others shake hands as fast as they can.
    fn tls_storm(&mut self) -> Result<()> {
        let name = "p99 of pairs during a storm of handshakes, ms";
        if !self.wants(name) {
            return Ok(());
        }
        let Secured { tls, .. } = &self.secured(PAIRS, &TlsArgs::default())?;
        let plan = pingpong::Plan { rate: Some(2000.0), sleeps: true, ..self.plan(PAIRS, 256, 1) };
        let p99_ms = |relay: &Relay, name: &str| {
            let outcome = one(relay, name, &|run| pingpong::run(run, &plan))?;
            anyhow::Ok(outcome.figure_of("latency_p99_us")? / 1000.0)
        };
        let calm = p99_ms(tls, "calm")?;
        let crowd = crowd(tls)?;
        let stormy = p99_ms(tls, "storm")?;
        drop(crowd);
        let note = format!("without the storm {:.2}; the crowd shares the generator's core", round(calm));
        self.table.put(Row::new(name, Bound::AtMost(5.0), round(stormy), note));
        Ok(())
    }

    fn secured(&self, pairs: usize, settings: &TlsArgs) -> Result<Secured> {
        Server::secured(&self.binaries, self.args.server_core, pairs, settings, KeyKind::P256)
    }
}

/// Another process of this program whose clients connect, leave and come back.
fn crowd(relay: &Relay) -> Result<Server> {
    let tls = relay.target.tls.as_ref().context("no TLS")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["storm", "--url", &relay.target.url, "--pairs", "5000", "--seconds", "120"]);
    command.args(tls.args.to_args()).stderr(Stdio::null());
    let crowd = Server::spawn(command, None)?;
    // Until it has its tokens and connects.
    std::thread::sleep(std::time::Duration::from_secs(1));
    Ok(crowd)
}

/// Microseconds of what a full handshake cannot do without, as OpenSSL does it here.
struct Allowed {
    p256_us: f64,
    rsa2048_us: f64,
    /// X25519.
    exchange_us: f64,
}

impl Allowed {
    fn measure() -> Result<Self> {
        let output = Command::new("openssl")
            .args(["speed", "-seconds", "2", "ecdsap256", "rsa2048", "ecdhx25519"])
            .stderr(Stdio::null())
            .output()
            .context("cannot run openssl speed")?;
        let text = String::from_utf8_lossy(&output.stdout);
        // After the name come the times, with their unit, and then how many a second, of which the first one is wanted.
        let us = |name: &str| {
            let figures = text.lines().find_map(|line| Some(line.split_once(name)?.1));
            let per_second =
                figures.and_then(|figures| figures.split_whitespace().find_map(|word| word.parse::<f64>().ok()));
            per_second.map(|count| 1e6 / count).with_context(|| format!("openssl speed said nothing of {name}: {text}"))
        };
        Ok(Self {
            p256_us: us("bits ecdsa (nistp256)")?,
            rsa2048_us: us("rsa 2048 bits").or_else(|_| us("rsa  2048 bits"))?,
            exchange_us: us("bits ecdh (X25519)")?,
        })
    }
}
