//! One case in a process of its own: no case changes the count of another. On x86-64 valgrind's callgrind counts, on 64-bit
//! ARM a plugin of QEMU's, whose core is the same on every machine.

use std::process::Command;

/// Comes before the name of the one case that a process is to run.
pub(crate) const CASE_FLAG: &str = "--case";

/// The instructions between entry and return of [`under_count`](crate::cases::under_count) in a case.
pub(crate) fn count(case: &str) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let (Some(folder), Some(file)) = (own.parent(), own.file_name().and_then(|name| name.to_str())) else {
        return Err(format!("not a path of a file: {}", own.display()));
    };
    let mut counter = if cfg!(target_arch = "aarch64") { qemu() } else { callgrind() };
    // Environment and path lie on the stack, so they are the same everywhere: what stands above them keeps its place.
    let output = counter
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(folder)
        .args([&format!("./{file}"), CASE_FLAG, case])
        .output()
        .map_err(|error| {
            format!("{} does not start (see benches/README.md): {error}", counter.get_program().display())
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = collected(&said).filter(|&count| output.status.success() && count > 0);
    collected.ok_or_else(|| format!("{case}: no count, {}\n{said}", output.status))
}

fn callgrind() -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*under_count*"]);
    command
}

/// The plugin (`count.c`) is beside the program. Symbols are read only if something is logged.
fn qemu() -> Command {
    let mut command = Command::new("qemu-aarch64");
    command.args(["-cpu", "neoverse-n1", "-L", "/usr/aarch64-linux-gnu"]);
    command.args(["-d", "unimp", "-D", "/dev/null", "-plugin", "./count.so,function=under_count"]);
    command
}

/// Reads the line `==PID== Collected : COUNT`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once(" Collected : ")?.1.trim().parse().ok())
}
