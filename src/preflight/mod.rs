//! What the machine has to offer before a shard can start, and what to tell the operator when it does not.
//!
//! glommio has no good way of saying it: where io_uring is forbidden its executor panics, where an operation is missing
//! it ends the process. So all of this is found out before the first executor is built. The ring itself is tried out in
//! `ring`; here is only the reading of what was found.

mod driver;
pub mod rlimits;

pub use self::driver::Driver;

use std::fmt;
use std::fs;

/// The oldest kernel that has all the relay uses: multishot receive, provided-buffer rings, `DEFER_TASKRUN`.
pub const KERNEL_MIN: KernelVersion = KernelVersion { major: 6, minor: 1 };
/// The soft `RLIMIT_MEMLOCK` below which glommio 0.9 refuses to build an executor (`Reactor::new`), root or not.
pub const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// The fewest connections worth starting for.
pub const CONNECTIONS_MIN: u64 = 16;

/// The first two numbers of a kernel release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// 6 of 6.1.
    pub major: u32,
    /// 1 of 6.1.
    pub minor: u32,
}

impl KernelVersion {
    /// Reads a release as `uname -r` shows it, such as `6.1.0-13-amd64`.
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let (major, rest) = release.trim().split_once('.')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest[..digits].parse().ok()? })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What helps to tell why io_uring does not work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The running kernel.
    pub kernel: Option<KernelVersion>,
    /// The sysctl `kernel.io_uring_disabled`: 0 nobody, 1 the unprivileged, 2 everybody. Since kernel 6.6.
    pub io_uring_disabled: Option<u8>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn observe() -> Self {
        let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        Self {
            kernel: rustix::system::uname().release().to_str().ok().and_then(KernelVersion::parse),
            io_uring_disabled: sysctl.and_then(|text| parse_sysctl(&text)),
        }
    }
}

fn parse_sysctl(text: &str) -> Option<u8> {
    text.trim().parse().ok()
}

/// What is missing. `Display` names it; [`ProbeError::remedy`] says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// `ENOSYS`: the system call is not there.
    #[error("io_uring is not available here: the system call io_uring_setup does not exist (ENOSYS)")]
    Enosys,
    /// `EPERM` or `EACCES`, and no sysctl to explain it: most likely a seccomp filter.
    #[error("io_uring is forbidden here: the call was refused (EPERM), most likely by a seccomp filter")]
    Eperm,
    /// The sysctl forbids it.
    #[error("io_uring is turned off on this machine: the sysctl kernel.io_uring_disabled is {value}")]
    Disabled {
        /// 1: for the unprivileged; 2: for everybody.
        value: u8,
    },
    /// An old kernel, which lacks something that the relay uses.
    #[error("the kernel is too old: this is {found}, and the relay needs {needed} or newer")]
    KernelTooOld {
        /// The running kernel.
        found: KernelVersion,
        /// [`KERNEL_MIN`].
        needed: KernelVersion,
    },
    /// A kernel that is new enough by its number, and lacks something nevertheless.
    #[error("io_uring of this kernel lacks {0}")]
    MissingOp(&'static str),
    /// `RLIMIT_MEMLOCK` is too low.
    #[error("too little memory may be locked: RLIMIT_MEMLOCK is {limit} bytes, and io_uring's executor needs {needed}")]
    Memlock {
        /// The hard limit, to which the soft one was raised, in bytes.
        limit: u64,
        /// In bytes.
        needed: u64,
    },
    /// `ENOMEM`: the ring's memory was refused.
    #[error("the kernel has no memory for a ring (ENOMEM)")]
    Memory,
    /// `RLIMIT_NOFILE` is too low.
    #[error("too few files may be open: RLIMIT_NOFILE is {limit}, and the relay needs {needed} at the very least")]
    Nofile {
        /// The hard limit, to which the soft one was raised.
        limit: u64,
        /// The least to start with.
        needed: u64,
    },
    /// Another error number.
    #[error("io_uring does not work here: error number {errno}")]
    Other {
        /// As in errno(3).
        errno: i32,
    },
}

impl ProbeError {
    /// What the error number of a failed `io_uring_setup` or of a first `io_uring_enter` means here.
    #[must_use]
    pub fn of_errno(errno: i32, around: &Surroundings) -> Self {
        use rustix::io::Errno;
        match (Errno::from_raw_os_error(errno), around.io_uring_disabled) {
            (Errno::PERM | Errno::ACCESS, Some(value @ 1..)) => Self::Disabled { value },
            (Errno::PERM | Errno::ACCESS, _) => Self::Eperm,
            (Errno::NOSYS, _) => Self::Enosys,
            (Errno::NOMEM, _) => Self::Memory,
            // A flag that the kernel does not know.
            (Errno::INVAL, _) => Self::of_missing("a setup flag (SINGLE_ISSUER or DEFER_TASKRUN)", around),
            _ => Self::Other { errno },
        }
    }

    /// What it means here that an operation or a feature is missing. The kernel's version alone decides nothing, for
    /// distributions carry things back; it explains.
    #[must_use]
    pub fn of_missing(what: &'static str, around: &Surroundings) -> Self {
        match around.kernel {
            Some(found) if found < KERNEL_MIN => Self::KernelTooOld { found, needed: KERNEL_MIN },
            _ => Self::MissingOp(what),
        }
    }

    /// Whether enough memory may be locked for io_uring's executor, in bytes, the limit already raised.
    ///
    /// # Errors
    ///
    /// [`Self::Memlock`].
    pub fn check_memlock(memlock: u64) -> Result<(), Self> {
        match memlock {
            ..MEMLOCK_BYTES_MIN => Err(Self::Memlock { limit: memlock, needed: MEMLOCK_BYTES_MIN }),
            _ => Ok(()),
        }
    }

    /// Whether enough files may be open, the limit already raised.
    ///
    /// # Errors
    ///
    /// [`Self::Nofile`].
    pub fn check_nofile(nofile: u64, shards: u16) -> Result<(), Self> {
        if rlimits::connection_capacity(nofile, shards) < CONNECTIONS_MIN {
            let own = u64::MAX - rlimits::connection_capacity(u64::MAX, shards);
            return Err(Self::Nofile { limit: nofile, needed: own + CONNECTIONS_MIN });
        }
        Ok(())
    }

    /// What the operator can do, a line for each place that the relay may run in.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Enosys => ENOSYS,
            Self::Eperm => EPERM,
            Self::Disabled { value: 1 } => DISABLED_UNPRIVILEGED,
            Self::Disabled { .. } => DISABLED,
            Self::KernelTooOld { .. } | Self::MissingOp(_) => KERNEL,
            Self::Memlock { .. } => MEMLOCK,
            Self::Memory => MEMORY,
            Self::Nofile { .. } => NOFILE,
            Self::Other { .. } => OTHER,
        }
    }

    /// All of it, as it goes to standard error before the process exits with code 3.
    #[must_use]
    pub fn report(&self) -> String {
        let otherwise = if matches!(self, Self::Nofile { .. }) { "" } else { WITHOUT };
        format!("coralmux-relay cannot start: {self}.\n\nWhat to do:\n{}{otherwise}", self.remedy())
    }
}

/// What can be done about everything but [`ProbeError::Nofile`].
const WITHOUT: &str = "  - Or run on epoll: leave --io uring out, or give --io epoll.
";
const ENOSYS: &str =
    "  - In a sandbox such as gVisor (runsc), or where a container runtime hides the call: use the runc runtime, and a
    seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register.
  - On WSL 1: use WSL 2.
  - Otherwise the kernel was built without CONFIG_IO_URING, or is older than 5.1: boot 6.1 or newer.
";
const EPERM: &str = "  - Docker, Podman, containerd: their default seccomp profile blocks io_uring. Run with
      --security-opt seccomp=FILE     a copy of the default profile that also allows io_uring_setup, io_uring_enter and
                                      io_uring_register
      --security-opt seccomp=unconfined     to try it out
  - Kubernetes: securityContext.seccompProfile, type Localhost with such a profile.
  - systemd: SystemCallFilter= of the unit has to allow @aio.
  - SELinux or AppArmor: look for a denial in the audit log.
";
const DISABLED: &str = "  - Turn it on for now:   sysctl -w kernel.io_uring_disabled=0
  - and for good:         echo 'kernel.io_uring_disabled = 0' > /etc/sysctl.d/60-io_uring.conf
  - In a container, this is a setting of the host.
";
const DISABLED_UNPRIVILEGED: &str =
    "  - Let the relay's group have it:   sysctl -w kernel.io_uring_group=GID   (the number of a group that it runs in)
  - or turn it on for all:           sysctl -w kernel.io_uring_disabled=0
  - For good: put the same line, without `sysctl -w`, into /etc/sysctl.d/60-io_uring.conf
  - In a container, this is a setting of the host.
";
const KERNEL: &str = "  - Debian 12 or newer, and Ubuntu 24.04, have a kernel that will do.
  - Ubuntu 22.04: apt install linux-generic-hwe-22.04 (on Oracle Cloud linux-oracle, on AWS linux-aws), then reboot.
  - Oracle Linux: Unbreakable Enterprise Kernel 8 (kernel-uek of UEK R8).
  - In a container, the kernel is that of the host.
";
const MEMLOCK: &str = "  - systemd: LimitMEMLOCK=8M in the unit.
  - Docker, Podman: --ulimit memlock=8388608:8388608   (bytes)
  - A shell: `* hard memlock 8192` and `* soft memlock 8192` (KiB) in /etc/security/limits.conf, then log in again.
";
const MEMORY: &str = "  - See how much memory is free, and what the cgroup allows (memory.max).
  - Raise RLIMIT_MEMLOCK: LimitMEMLOCK=8M in a systemd unit, --ulimit memlock=8388608:8388608 with Docker.
  - Run fewer shards: --shards 1
";
const NOFILE: &str = "  - systemd: LimitNOFILE=1048576 in the unit.
  - Docker, Podman: --ulimit nofile=1048576:1048576
  - A shell: `* hard nofile 1048576` in /etc/security/limits.conf, then log in again.
  - Each connection takes one file: the relay raises the soft limit to the hard one.
";
const OTHER: &str = "  - See what the kernel log says: dmesg | tail
  - Please report it, with `uname -a` and what it runs in: https://github.com/coralmux/coralmux-relay/issues
";

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: KernelVersion = KernelVersion { major: 5, minor: 15 };

    #[test]
    fn kernel_releases_are_read_and_compared_as_numbers() {
        let version = |text| KernelVersion::parse(text).map(|v| (v.major, v.minor));
        assert_eq!(version("6.1.0-13-amd64\n"), Some((6, 1)));
        assert_eq!(version("6.10-rc3"), Some((6, 10)));
        assert_eq!(version("5.15.167.4-microsoft-standard-WSL2"), Some((5, 15)));
        for bad in ["", "6", "6.", "x.1", "6.x", "-6.1"] {
            assert_eq!(version(bad), None, "{bad}");
        }
        assert!(KernelVersion { major: 6, minor: 10 } > KernelVersion { major: 6, minor: 2 });
        assert!(OLD < KERNEL_MIN);
    }

    #[test]
    fn the_sysctl_is_a_small_number() {
        assert_eq!(parse_sysctl("2\n"), Some(2));
        assert_eq!(parse_sysctl(""), None);
    }

    #[test]
    fn an_error_number_is_explained_by_the_surroundings() {
        use rustix::io::Errno;
        let of = |errno: Errno, kernel, io_uring_disabled| {
            ProbeError::of_errno(errno.raw_os_error(), &Surroundings { kernel, io_uring_disabled })
        };
        assert_eq!(of(Errno::PERM, None, None), ProbeError::Eperm);
        assert_eq!(of(Errno::PERM, Some(KERNEL_MIN), Some(0)), ProbeError::Eperm);
        assert_eq!(of(Errno::PERM, None, Some(1)), ProbeError::Disabled { value: 1 });
        assert_eq!(of(Errno::ACCESS, None, Some(2)), ProbeError::Disabled { value: 2 });
        assert_eq!(of(Errno::NOSYS, Some(OLD), None), ProbeError::Enosys);
        assert_eq!(of(Errno::INVAL, Some(OLD), None), ProbeError::KernelTooOld { found: OLD, needed: KERNEL_MIN });
        assert!(matches!(of(Errno::INVAL, Some(KERNEL_MIN), None), ProbeError::MissingOp(_)));
        assert_eq!(of(Errno::NOMEM, None, None), ProbeError::Memory);
        assert_eq!(of(Errno::IO, None, None), ProbeError::Other { errno: Errno::IO.raw_os_error() });
    }

    #[test]
    fn limits_are_enough_or_named() {
        assert_eq!((ProbeError::check_memlock(512 << 10), ProbeError::check_nofile(1024, 2)), (Ok(()), Ok(())));
        let memlock = ProbeError::Memlock { limit: 65536, needed: 524_288 };
        assert_eq!(ProbeError::check_memlock(65536), Err(memlock));
        let Err(ProbeError::Nofile { limit: 100, needed }) = ProbeError::check_nofile(100, 2) else { panic!() };
        assert_eq!(ProbeError::check_nofile(needed, 2), Ok(()));
        assert!(ProbeError::check_nofile(needed - 1, 2).is_err());
    }

    #[test]
    fn each_report_says_what_is_missing_and_what_to_do() {
        for (error, missing, to_do) in [
            (ProbeError::Enosys, "ENOSYS", "gVisor"),
            (ProbeError::Eperm, "EPERM", "--security-opt seccomp="),
            (ProbeError::Disabled { value: 2 }, "kernel.io_uring_disabled is 2", "kernel.io_uring_disabled=0"),
            (ProbeError::Disabled { value: 1 }, "kernel.io_uring_disabled is 1", "kernel.io_uring_group"),
            (ProbeError::KernelTooOld { found: OLD, needed: KERNEL_MIN }, "5.15, and the relay needs 6.1", "Debian 12"),
            (ProbeError::MissingOp("RECV_MULTISHOT"), "RECV_MULTISHOT", "Debian 12"),
            (ProbeError::Memlock { limit: 65536, needed: MEMLOCK_BYTES_MIN }, "65536 bytes", "LimitMEMLOCK"),
            (ProbeError::Memory, "ENOMEM", "--shards"),
            (ProbeError::Nofile { limit: 64, needed: 144 }, "RLIMIT_NOFILE is 64", "LimitNOFILE"),
            (ProbeError::Other { errno: 5 }, "error number 5", "dmesg"),
        ] {
            let report = error.report();
            let first = report.lines().next().unwrap();
            assert!(first.contains(missing), "{report}");
            assert!(error.remedy().contains(to_do) && error.remedy().ends_with('\n'), "{report}");
            assert!(error.remedy().lines().all(|line| line.starts_with("  ") && line.len() <= 120), "{report}");
        }
    }

    #[test]
    fn this_machine_has_surroundings() {
        assert!(Surroundings::observe().kernel.is_some());
    }
}
