//! One case in a process of its own under callgrind: no case changes the count of another.

use std::process::Command;

/// Comes before the name of the one case that a process is to run.
pub(crate) const CASE_FLAG: &str = "--case";

/// The instructions between entry and return of [`under_callgrind`](crate::cases::under_callgrind) in a case.
pub(crate) fn count(case: &str) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let (Some(folder), Some(file)) = (own.parent(), own.file_name().and_then(|name| name.to_str())) else {
        return Err(format!("not a path of a file: {}", own.display()));
    };
    // Environment and path lie on the stack, so they are the same everywhere: what stands above them keeps its place.
    let output = Command::new("valgrind")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(folder)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*under_callgrind*"])
        .args([&format!("./{file}"), CASE_FLAG, case])
        .output()
        .map_err(|error| format!("valgrind does not start (apt-get install valgrind): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = collected(&said).filter(|&count| output.status.success() && count > 0);
    collected.ok_or_else(|| format!("{case}: no count, {}\n{said}", output.status))
}

/// Reads the line `==PID== Collected : COUNT`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once(" Collected : ")?.1.trim().parse().ok())
}
