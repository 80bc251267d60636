//! `coralmux-relay healthcheck`: asks the relay that runs with the same settings how it is, for containers without a
//! shell. It reads no store and starts nothing.

use super::exit;
use crate::config::Config;
use crate::console;
use crate::sys::listen::reachable;
use crate::tls::certificate::provider;
use std::time::Duration;
use ureq::tls::TlsConfig;

/// What `--help` says.
pub const HELP: &str = "\
Asks the relay that runs with the same settings how it is, on this machine and never through a proxy.
Give it the flags that the relay is started with (see `coralmux-relay --help`).

Usage: coralmux-relay healthcheck [OPTIONS OF THE RELAY]

Exit code: 0 where the relay is ready, 1 where it is not or does not answer, 2 where the configuration is
wrong.
";

/// How long an answer may take. A container's own time-out for the check has to be longer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Asks at an address of `config`, a plain one if there is one, and says on standard error what is wrong; the exit code
/// is 0 where nothing is, else 1, the only two that Docker knows.
#[must_use]
pub fn run(config: &Config) -> u8 {
    let Some(listen) = config.listen.iter().min_by_key(|listen| listen.tls) else { return exit::FAILURE };
    let url = format!("{}://{}/readyz", if listen.tls { "https" } else { "http" }, reachable(listen.addr));
    match ask(&url) {
        Ok(()) => exit::OK,
        Err(what) => {
            console::warn(format_args!("coralmux-relay: {url}: {what}"));
            exit::FAILURE
        }
    }
}

fn ask(url: &str) -> Result<(), String> {
    // The question is whether the relay lives, and it is asked on this machine: the name in the certificate is another.
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider()).disable_verification(true).build();
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .tls_config(tls)
        // The environment's proxy is for elsewhere.
        .proxy(None)
        .build()
        .new_agent();
    let answer = agent.get(url).call().map_err(|error| error.to_string())?;
    match answer.status().as_u16() {
        200 => Ok(()),
        status => Err(format!("the relay answers {status}")),
    }
}
