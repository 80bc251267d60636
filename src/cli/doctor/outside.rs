//! What is around the relay: ports, store and key, certificates, names.

use super::{Finding, State};
use crate::cluster::{StartError, probe};
use crate::config::{self, Config, MetricsAddr, PairFiles, Secret, WEAK_KEY, admin_key_file};
use crate::shelf::SUFFIX;
use crate::store::check::{CheckError, Found, check};
use crate::sys::file::{self, beside, folder_of};
use crate::sys::listen::{reachable, try_bind};
use crate::sys::time::unix_now;
use crate::sys::time::write_rfc3339;
use crate::tls::acme::Acme;
use crate::tls::certificate::Certificate;
use crate::tls::files::FILE_BYTES_MAX;
use rustix::fs::{Access, access};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// A certificate that ends sooner is worth a look.
const RENEW_WITHIN_S: u64 = 14 * 86_400;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = ports(config).collect();
    findings.push(store(&config.db));
    findings.push(mailbox(config));
    findings.push(admin_key(config));
    findings.push(notifications(config));
    findings.extend(config.cluster.is_on().then(|| nats(config)));
    findings.extend(config.tls.pairs.iter().map(pair));
    if let Some(acme) = &config.tls.acme {
        findings.push(acme_directory(acme));
        findings.extend(acme.domains.iter().map(|domain| name(domain)));
    }
    findings
}

/// What devices can be woken by.
fn notifications(config: &Config) -> Finding {
    let name = "notifications";
    if !config.push.is_on {
        return Finding::ok(name, "off");
    }
    let hook = if config.push.hook.is_some() { ", and by the hook" } else { "" };
    match config.push.contact {
        Some(_) => Finding::ok(name, format!("by push services of browsers, UnifiedPush{hook}")),
        None => {
            let to_do = "give --push-contact mailto:you@example.com, or --push off if none are wanted";
            Finding::warn(name, format!("browsers are not woken without --push-contact; by UnifiedPush{hook}"), to_do)
        }
    }
}

/// What tokens are shared through.
fn nats(config: &Config) -> Finding {
    match probe(&config.cluster.reach()) {
        Ok(found) => Finding::ok("NATS", found),
        Err(error @ StartError::Away(_)) => {
            let to_do = "start NATS, or see that it can be reached from here; a relay that has been part of the cluster \
                         starts without";
            Finding::fail("NATS", error.to_string(), to_do)
        }
        Err(error) => Finding::fail("NATS", error.to_string(), "see docs/operations/cluster.md"),
    }
}

fn ports(config: &Config) -> impl Iterator<Item = Finding> + '_ {
    let listen = config.listen.iter().map(|listen| listen.addr);
    let metrics = match config.metrics {
        MetricsAddr::Given(addr) => Some(port(addr)),
        MetricsAddr::Default(addr) => Some(unasked(port(addr))),
        MetricsAddr::Off => None,
    };
    let others = config.echo_addrs.iter().chain(&config.tls.http_addrs).copied();
    listen.chain(others).map(port).chain(metrics)
}

/// The metrics' port, which nobody asked for: the relay does without when it is taken.
fn unasked(port: Finding) -> Finding {
    match port.state {
        State::Fail => {
            let text = format!("{}; the relay starts without metrics", port.text);
            Finding::warn(port.name, text, "give another address with --metrics-addr, or off")
        }
        _ => port,
    }
}

fn port(addr: SocketAddr) -> Finding {
    let title = format!("port {addr}");
    match try_bind(addr) {
        Ok(()) => Finding::ok(title, "free"),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && answers(addr) => {
            Finding::ok(title, "in use by a relay that answers")
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let to_do =
                format!("see who has it: ss -ltnp 'sport = :{}'; end that, or give another address", addr.port());
            Finding::fail(title, "in use, and no relay answers in plain HTTP there", to_do)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let to_do = "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit (the one in deploy/systemd has it)";
            Finding::fail(title, "this user may not listen there", to_do)
        }
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            Finding::fail(title, "this machine has no such address", "give another --addr; see `ip address`")
        }
        Err(error) => Finding::fail(title, error.to_string(), "give another address"),
    }
}

/// Whether a relay answers there, in plain HTTP.
fn answers(addr: SocketAddr) -> bool {
    let addr = reachable(addr);
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(3)))
        .max_redirects(0)
        .proxy(None)
        .build()
        .new_agent();
    let get = |path: &str| {
        let answer = agent.get(format!("http://{addr}{path}")).call();
        answer.ok().and_then(|mut answer| answer.body_mut().read_to_string().ok()).unwrap_or_default()
    };
    let health: serde_json::Value = serde_json::from_str(&get("/health")).unwrap_or_default();
    health["uptime_sec"].is_u64() || get("/metrics").contains("coralmux_")
}

fn store(path: &Path) -> Finding {
    let directory = folder_of(path);
    let title = format!("store {}", path.display());
    if !directory.is_dir() {
        return Finding::fail(title, "its directory does not exist", format!("mkdir -p {}", directory.display()));
    }
    if access(directory, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let to_do =
            format!("let the relay's user write {}, for SQLite makes files beside the store", directory.display());
        return Finding::fail(title, "its directory cannot be written by this user", to_do);
    }
    if path.exists() && access(path, Access::READ_OK | Access::WRITE_OK).is_err() {
        return Finding::fail(title, "it cannot be read and written by this user", "chown it to the relay's user");
    }
    match check(path) {
        Ok(Found::Nothing) => Finding::ok(title, "not there yet; it is made at the first start"),
        Ok(Found::Store { tokens }) => Finding::ok(title, format!("whole, {tokens} tokens")),
        Ok(Found::GoRelay) => Finding::warn(
            title,
            "of the Go relay: the first start takes it over",
            "keep a copy, for there is no way back",
        ),
        Err(error) => {
            let to_do = match error {
                CheckError::Locked => "end it and start again",
                CheckError::Unreadable(_) => "check its owner, its mode and the disk, or name another file with --db",
                CheckError::Damaged(_) => "put a backup in its place, or name another file with --db",
                CheckError::Foreign => "name the right file with --db",
                CheckError::Newer { .. } => "run that version, or restore a backup of before the upgrade",
            };
            Finding::fail(title, error.to_string(), to_do)
        }
    }
}

/// The mailbox's file. Whatever is wrong with it, the relay runs.
fn mailbox(config: &Config) -> Finding {
    if !config.mailbox {
        return Finding::ok("mailbox", "off: nothing is kept for who is not there");
    }
    let path = beside(&config.db, SUFFIX);
    let title = format!("mailbox {}", path.display());
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::ok(title, "not there yet; it is made with the first message that is to be kept")
        }
        Err(error) => Finding::warn(title, error.to_string(), "check the owner and mode of its directory"),
        Ok(meta) if !meta.is_file() => {
            Finding::warn(title, "it is not a file: nothing can be kept", "remove it, and a file is made in its place")
        }
        Ok(_) if access(&path, Access::READ_OK | Access::WRITE_OK).is_err() => {
            Finding::warn(title, "it cannot be read and written by this user", "chown it to the relay's user")
        }
        Ok(meta) => Finding::ok(title, format!("{} bytes on the disk", meta.len())),
    }
}

fn admin_key(config: &Config) -> Finding {
    let judged = |key: &Secret, how: String| match key.is_weak() {
        true => Finding::warn("admin key", how, WEAK_KEY),
        false => Finding::ok("admin key", how),
    };
    if let Some(key) = &config.admin_key {
        return judged(key, "given".to_owned());
    }
    let path = admin_key_file(&config.db);
    let shown = path.display();
    match fs::metadata(&path) {
        Err(_) => Finding::ok("admin key", format!("made at the first start, and kept in {shown}")),
        Ok(found) if found.mode() & 0o077 != 0 => {
            let mode = found.mode() & 0o777;
            let text = format!("{shown}: others may read or write it (mode {mode:03o})");
            let to_do = format!("chmod 600 {shown}, or remove it and a new one is made");
            match mode & 0o002 {
                0 => Finding::warn("admin key", format!("{text}; the relay takes that from them"), to_do),
                _ => Finding::fail("admin key", text, to_do),
            }
        }
        Ok(_) => match config::admin_key_kept(&path) {
            Ok(key) => judged(&key, format!("kept in {shown}")),
            Err(error) => Finding::fail("admin key", error.to_string(), "see above, or give one with --admin-key"),
        },
    }
}

fn pair(files: &PairFiles) -> Finding {
    let title = format!("certificate {}", files.cert.display());
    let to_do = "give a PEM chain with --tls-cert, and the key that belongs to it with --tls-key";
    let read = |path: &Path| file::read(path, FILE_BYTES_MAX).map_err(|error| format!("{}: {error}", path.display()));
    let loaded = read(&files.cert).and_then(|chain| {
        let key = read(&files.key)?;
        Certificate::from_pem(&chain, &key).map_err(|error| error.to_string())
    });
    let certificate = match loaded {
        Ok(certificate) => certificate,
        Err(text) => return Finding::fail(title, text, to_do),
    };
    let now = unix_now().as_secs();
    if let Err(error) = certificate.check_time(now) {
        return Finding::fail(title, error.to_string(), "renew it; the relay loads the new file automatically");
    }
    let ends = write_rfc3339(certificate.not_after);
    match certificate.not_after.saturating_sub(now) {
        left if left < RENEW_WITHIN_S => Finding::warn(title, format!("good until {ends}"), "renew it"),
        _ => Finding::ok(title, format!("good until {ends}")),
    }
}

fn acme_directory(acme: &Acme) -> Finding {
    let title = format!("certificates in {}", acme.dir.display());
    let place = if acme.dir.is_dir() { &acme.dir } else { folder_of(&acme.dir) };
    if acme.dir.exists() && !acme.dir.is_dir() {
        return Finding::fail(title, "not a directory", "name another place with --acme-dir, or move it away");
    }
    match access(place, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(title, format!("can be kept there; asked for at {}", acme.directory)),
        Err(_) => Finding::fail(title, "this user cannot write there", "name another place with --acme-dir"),
    }
}

/// Whether a domain leads to this machine: the CA looks for the relay there.
fn name(domain: &str) -> Finding {
    let title = format!("name {domain}");
    let found: Vec<IpAddr> = match (domain, 443).to_socket_addrs() {
        Ok(found) => found.map(|addr| addr.ip()).collect(),
        Err(error) => {
            let to_do = "add an A or AAAA record with this machine's public address, and wait until it is known";
            return Finding::fail(title, format!("does not resolve: {error}"), to_do);
        }
    };
    let all = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    // Only an address of this machine can be bound.
    let elsewhere: Vec<&IpAddr> = found.iter().filter(|&&ip| UdpSocket::bind((ip, 0)).is_err()).collect();
    if elsewhere.is_empty() {
        return Finding::ok(title, format!("leads here: {all}"));
    }
    let to_do = "right where the machine's public address is another one (cloud, NAT); else mend the record: the CA has to \
                 reach the relay at each of them, on port 443 or 80";
    Finding::warn(title, format!("leads to {all}, and not all of these are this machine's own"), to_do)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_to_this_machine_is_well() {
        assert_eq!(name("localhost").state, State::Ok);
        // An address for documentation (RFC 5737), which no machine has.
        let finding = name("192.0.2.1");
        assert_eq!(finding.state, State::Warn);
        assert!(finding.text.contains("192.0.2.1") && finding.to_do.is_some());
    }
}
