//! The plan in words.

use super::limits::Machine;
use super::{ACTIVE_PAIRS, Plan, REST_SECONDS};
use crate::report::plot::short;

/// The plan as it is printed.
pub(super) fn of(plan: &Plan) -> String {
    let (measured, machine) = (&plan.measured, &plan.machine);
    let mut text = String::new();
    let mut line = |line: String| {
        text += &line;
        text.push('\n');
    };
    line(format!(
        "Measured on this machine, relay on {} core(s), {} idle pairs:",
        measured.server_cores, measured.pairs
    ));
    line(format!(
        "  an idle connection      {:.0} bytes of user space (its part of the token included), {:.0} bytes of kernel",
        measured.user_bytes_per_connection, measured.kernel_bytes_per_connection
    ));
    line(format!(
        "  keepalive               {:.3}% of a core for 1,000 connections (over {REST_SECONDS} s)",
        measured.rest_cores_per_connection * 1e5
    ));
    line(format!(
        "  messages of {} bytes   {}/s at saturation ({ACTIVE_PAIRS} pairs)",
        measured.message_bytes,
        short(measured.saturated_per_second)
    ));
    let wanted = short(measured.p99_wanted_us / 1e3);
    line(if measured.rate_per_second > 0.0 {
        let (rate, p99) = (short(measured.rate_per_second), short(measured.rate_p99_us / 1e3));
        format!("  within the latency      {rate}/s, with p99 at {p99} ms where {wanted} ms are allowed")
    } else {
        format!("  within the latency      no rate that was tried kept p99 at {wanted} ms")
    });
    line(format!("  locked memory           {} KiB", machine.locked_bytes / 1024));
    line("\nExtrapolated, in proportion to the number of connections:".to_owned());
    for limit in &plan.limits {
        line(format!("  {:>10} idle pairs   {}", limit.pairs, limit.because));
    }
    if let [first, second, ..] = &plan.limits[..] {
        line(format!(
            "\nFirst limit: {}, at {} pairs; the next one is {}.",
            first.because, first.pairs, second.because
        ));
        let files_first = first.because.contains("nofile");
        let pairs = if files_first { second.pairs } else { first.pairs };
        let files = Machine::files_for(pairs);
        line(format!("Settings for {pairs} pairs:"));
        line(format!("  LimitNOFILE={files}"));
        if let Some(possible) = machine.files_possible.filter(|possible| *possible < files) {
            line(format!("  sysctl fs.nr_open={files} (it is {possible})"));
        }
        line(format!("  LimitMEMLOCK at least {} KiB, or infinity", machine.locked_bytes / 1024 * 2));
        line("  --shards: one for each core, which is the default".to_owned());
    }
    line("\nNot measured: TLS, a network between clients and relay, tokens by the million.".to_owned());
    if measured.shared_core {
        line("Relay and generator shared the only core: the rates are too low.".to_owned());
    } else {
        line("The generator had one core for itself, which a relay alone on this machine would use too.".to_owned());
    }
    if measured.others_cores > 0.1 {
        line(format!(
            "Others used up to {:.2} cores meanwhile: latencies and rates would be better without.",
            measured.others_cores
        ));
    }
    text
}
