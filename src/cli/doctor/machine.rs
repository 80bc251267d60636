//! The machine: kernel, io_uring with each operation, seccomp, what the relay would run on, sysctls, limits, clock.

use super::Finding;
use crate::config::{Config, Io};
use crate::preflight::{Driver, KERNEL_MIN, ProbeError, Surroundings, rlimits};
use crate::ring::probe::{self, Parts, Unfit};
use crate::sys::time::unix_now;
use crate::sys::time::write_rfc3339;
use std::fs;
use std::path::Path;

/// Below it a crowd that comes back after a restart finds the queue of a port full.
const SOMAXCONN_MIN: u64 = 4096;
/// Locked memory that is enough for the rings of any number of shards that is usual.
const MEMLOCK_GOOD: u64 = 8 << 20;
/// Open files below which a relay for the public is too small.
const NOFILE_GOOD: u64 = 65_536;
/// 2025-01-01: a clock that says less was never set.
const CLOCK_MIN: u64 = 1_735_689_600;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let around = Surroundings::observe();
    let mut findings = Vec::new();
    match config.io {
        Io::Epoll => findings.push(kernel(&around, false)),
        Io::Auto | Io::Uring => {
            findings.push(kernel(&around, true));
            let (io_uring, works) = io_uring(&around);
            findings.extend(io_uring);
            findings.push(seccomp(works));
            findings.push(sysctl_io_uring(&around, works));
            findings.push(memlock());
        }
    }
    if config.io == Io::Auto {
        // The relay does without.
        findings.iter_mut().for_each(Finding::soften);
    }
    findings.push(driver(config));
    findings.push(somaxconn());
    findings.extend(files(config));
    findings.push(clock());
    findings
}

/// What the relay would run on.
fn driver(config: &Config) -> Finding {
    match Driver::choose(config.io, rlimits::raise_memlock().now) {
        Ok(Driver::Uring(_)) => Finding::ok("driver", "io_uring"),
        Ok(Driver::Epoll(None)) => Finding::ok("driver", "epoll, as --io says"),
        Ok(Driver::Epoll(Some(missing))) => {
            let to_do =
                "the relay runs as well; --io epoll says that it is meant, and the lines above how to have io_uring";
            Finding::warn("driver", format!("epoll: {missing}"), to_do)
        }
        Err(missing) => {
            Finding::fail("driver", missing.to_string(), "leave --io uring out, and the relay runs on epoll")
        }
    }
}

fn kernel(around: &Surroundings, for_io_uring: bool) -> Finding {
    match around.kernel {
        Some(found) if for_io_uring && found < KERNEL_MIN => {
            let to_do = ProbeError::KernelTooOld { found, needed: KERNEL_MIN }.remedy();
            Finding::warn("kernel", format!("{found}; io_uring needs {KERNEL_MIN} or newer"), to_do)
        }
        Some(found) => Finding::ok("kernel", found.to_string()),
        None => Finding::warn("kernel", "its release cannot be read", "see the lines about io_uring"),
    }
}

/// One line for the ring, and one for each operation; and whether all of it is there.
fn io_uring(around: &Surroundings) -> (Vec<Finding>, bool) {
    let fail = |error: ProbeError| Finding::fail("io_uring", error.to_string(), error.remedy());
    let Parts { parts, consumption } = match probe::parts() {
        Ok(parts) => parts,
        Err(Unfit::Refused(error)) => {
            let errno = error.raw_os_error().unwrap_or_default();
            return (vec![fail(ProbeError::of_errno(errno, around))], false);
        }
        Err(Unfit::Lacks(what)) => return (vec![fail(ProbeError::of_missing(what, around))], false),
    };
    let works = parts.iter().all(|&(_, is_there)| is_there);
    let line = |(name, is_there)| {
        let title = format!("io_uring {name}");
        if is_there {
            return Finding::ok(title, "there");
        }
        let error = ProbeError::of_missing(name, around);
        Finding::fail(title, error.to_string(), error.remedy())
    };
    let mut findings = vec![Finding::ok("io_uring", "a ring can be built")];
    findings.extend(parts.into_iter().map(line));
    findings.push(Finding::ok("io_uring receive buffers", consumption.to_string()));
    (findings, works)
}

fn seccomp(works: bool) -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
    match (mode, works) {
        (Some("0"), _) => Finding::ok("seccomp", "no filter"),
        (_, true) => Finding::ok("seccomp", "a filter, which lets io_uring through"),
        (_, false) => Finding::fail("seccomp", "a filter, and io_uring does not work", ProbeError::Eperm.remedy()),
    }
}

fn sysctl_io_uring(around: &Surroundings, works: bool) -> Finding {
    let name = "sysctl kernel.io_uring_disabled";
    match around.io_uring_disabled {
        None => Finding::ok(name, "not there: nothing is disabled"),
        Some(0) => Finding::ok(name, "0"),
        Some(value) if works => {
            let to_do = "another user may be refused: run doctor as the relay's user";
            Finding::warn(name, format!("{value}, and it works for this user"), to_do)
        }
        Some(value) => Finding::fail(name, value.to_string(), ProbeError::Disabled { value }.remedy()),
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn somaxconn() -> Finding {
    let name = "sysctl net.core.somaxconn";
    match number("/proc/sys/net/core/somaxconn") {
        Some(found) if found < SOMAXCONN_MIN => {
            let to_do = format!(
                "clients reconnecting after a restart may be refused: sysctl -w net.core.somaxconn={SOMAXCONN_MIN}"
            );
            Finding::warn(name, found.to_string(), to_do)
        }
        Some(found) => Finding::ok(name, found.to_string()),
        None => Finding::warn(name, "cannot be read", "/proc is not mounted here"),
    }
}

fn memlock() -> Finding {
    let memlock = rlimits::raise_memlock().now;
    match ProbeError::check_memlock(memlock) {
        Err(error) => Finding::fail("limit memlock", error.to_string(), error.remedy()),
        Ok(()) if memlock < MEMLOCK_GOOD => {
            let to_do = "enough for few shards; for more: LimitMEMLOCK=64M in the unit";
            Finding::warn("limit memlock", format!("{memlock} bytes"), to_do)
        }
        Ok(()) if memlock == u64::MAX => Finding::ok("limit memlock", "none"),
        Ok(()) => Finding::ok("limit memlock", format!("{memlock} bytes")),
    }
}

fn files(config: &Config) -> [Finding; 2] {
    let nofile = rlimits::raise_nofile().now;
    let capacity = rlimits::connection_capacity(nofile, config.shards);
    let files = format!("{nofile}, for {capacity} connections");
    let of_process = match ProbeError::check_nofile(nofile, config.shards) {
        Err(error) => Finding::fail("limit nofile", error.to_string(), error.remedy()),
        Ok(()) if nofile < NOFILE_GOOD => {
            let to_do = "for more: LimitNOFILE=1048576 in the unit, --ulimit nofile=1048576:1048576 in a container";
            Finding::warn("limit nofile", files, to_do)
        }
        Ok(()) => Finding::ok("limit nofile", files),
    };
    let file_max = number("/proc/sys/fs/file-max").unwrap_or(u64::MAX);
    let of_machine = if file_max < nofile {
        let to_do = format!("the whole machine may open fewer files than this process: sysctl -w fs.file-max={nofile}");
        Finding::warn("sysctl fs.file-max", file_max.to_string(), to_do)
    } else {
        Finding::ok("sysctl fs.file-max", file_max.to_string())
    };
    [of_process, of_machine]
}

fn clock() -> Finding {
    let now = unix_now().as_secs();
    let text = write_rfc3339(now);
    if now < CLOCK_MIN {
        let to_do = "set it: quotas, expiry and certificates go by it (timedatectl set-ntp true)";
        return Finding::fail("clock", text, to_do);
    }
    // systemd-timesyncd leaves this file when it has set the clock.
    let daemon = Path::new("/run/systemd/timesync");
    if daemon.is_dir() && !daemon.join("synchronized").exists() {
        return Finding::warn("clock", format!("{text}, not synchronised yet"), "see `timedatectl timesync-status`");
    }
    Finding::ok("clock", text)
}
