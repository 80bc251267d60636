//! The whole configuration: precedence, wrong values, values against each other.

use super::*;
use std::collections::HashMap;
use std::io::Write;

const MACHINE: Machine = Machine { cores: 4, memory_bytes: 16 << 30 };

fn config_with(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env: HashMap<&str, &str> = env.iter().copied().collect();
    let args = std::iter::once("coralmux-relay").chain(args.iter().copied()).map(OsString::from);
    resolve_on(MACHINE, args, |name| env.get(name).map(|text| (*text).to_owned()))
}

fn config(args: &[&str]) -> Result<Config, ConfigError> {
    config_with(args, &[])
}

fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

/// The text of the error that `args` earn; it must name each of `named`.
fn wrong(args: &[&str], env: &[(&str, &str)], named: &[&str]) -> String {
    let error = config_with(args, env).expect_err(&format!("{args:?} {env:?}"));
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    for part in named {
        assert!(text.contains(part), "{args:?} {env:?}: {part:?} is not in {text:?}");
    }
    text
}

#[test]
fn without_a_word_the_contracts_defaults_hold() {
    let config = config(&[]).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.listen, [Listen { addr: "[::]:8080".parse().unwrap(), tls: false }]);
    assert!(!config.tls.is_on() && config.tls.http_addrs.is_empty());
    assert_eq!((config.db.to_str(), config.shards), (Some("relay.db"), 4));
    assert_eq!((config.register_per_hour, config.registration, config.devices_max), (5, true, 8));
    assert_eq!((config.max_unauthenticated, config.max_unauthenticated_per_address), (8192, 64));
    assert_eq!((config.auth_timeout.as_secs(), config.ping_interval.as_secs()), (10, 30));
    assert_eq!((config.idle_timeout.as_secs(), config.write_timeout.as_secs()), (60, 30));
    assert_eq!(config.memory_budget_bytes, 1 << 30);
    assert!(config.admin_key.is_none() && config.max_connections.is_none() && config.echo_addrs.is_empty());
    assert_eq!(config.origins, Origins::Any);
}

#[test]
fn the_command_line_that_people_already_type() {
    for args in [["-addr", ":8081", "-admin-key", "my-secret"], ["--addr", ":8081", "--admin-key", "my-secret"]] {
        let config = config(&args).unwrap();
        assert_eq!(config.listen, [Listen { addr: "[::]:8081".parse().unwrap(), tls: false }]);
        assert!(config.admin_key.unwrap().matches(b"my-secret"));
    }
    let config = config(&["-addr=127.0.0.1:1", "-db", "/x/y.db"]).unwrap();
    assert_eq!((config.listen[0].addr.port(), config.db.to_str()), (1, Some("/x/y.db")));
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let (_file, path) = file("phone-rate = 1\nagent-rate = 1\nstream-rate = 1\n");
    let env = [("CORALMUX_PHONE_RATE", "2"), ("CORALMUX_AGENT_RATE", "2"), ("CORALMUX_CONFIG", &path)];
    let limits = config_with(&["--phone-rate", "3"], &env).unwrap().limits;
    assert_eq!((limits.phone_per_minute, limits.agent_per_minute, limits.stream_per_second), (3, 2, 1));
}

#[test]
fn the_file_takes_numbers_texts_switches_and_lists() {
    let (_file, path) = file(
        "addr = ['127.0.0.1:1', '127.0.0.1:2']\nmax-message = 1_048_576\ndaily-quota = '1GiB'\nregistration = false\n\
         admin-key = 'of the file'\ntrusted-proxy = '10.0.0.0/8, ::1'\n",
    );
    let config = config(&["--config", &path]).unwrap();
    assert_eq!(config.listen.len(), 2);
    assert_eq!((config.limits.message_bytes_max, config.limits.daily_quota_bytes), (1 << 20, 1 << 30));
    assert!(!config.registration);
    assert!(config.admin_key.unwrap().matches(b"of the file"));
    assert!(config.proxies.is_empty());
    assert_eq!(config.trusted_proxies, ["10.0.0.0/8", "::1"].map(|text| text.parse::<Network>().unwrap()));
    assert_eq!(config.config_file.unwrap().to_str(), Some(path.as_str()));
}

#[test]
fn each_flag_is_also_an_environment_variable_and_a_key_and_each_wrong_value_names_its_place() {
    // These take any text: wrong for them is no text.
    let blank = [
        "admin-key",
        "db",
        "config",
        "tls-cert",
        "tls-key",
        "acme-ca",
        "acme-dir",
        "acme-eab-kid",
        "push-text",
        "nats-creds",
        "nats-ca",
        "nats-cert",
        "nats-key",
    ];
    for name in settings::all().map(|setting| setting.name) {
        let bad = if blank.contains(&name) { "" } else { "@" };
        let variable = settings::variable(name);
        let flag = format!("--{name}");
        if name == "config" {
            wrong(&[], &[(&variable, "/nowhere.toml")], &["/nowhere.toml"]);
            continue;
        }
        wrong(&[&flag, bad], &[], &[&flag]);
        if bad == "@" {
            wrong(&[], &[(&variable, bad)], &[&variable]);
        }
        let (_file, path) = file(&format!("{name} = {bad:?}\n"));
        wrong(&["--config", &path], &[], &[&path, name]);
    }
}

#[test]
fn an_empty_environment_variable_says_nothing() {
    let unsaid = format!("{:?}", config(&[]).unwrap());
    for name in settings::all().map(|setting| setting.name).filter(|name| *name != "admin-key") {
        let variable = settings::variable(name);
        for empty in ["", " "] {
            let found = config_with(&[], &[(&variable, empty)]).map_err(|error| error.to_string());
            assert_eq!(found.map(|config| format!("{config:?}")), Ok(unsaid.clone()), "{variable}={empty:?}");
        }
    }
    let (_file, path) = file("phone-rate = 7\n");
    let env = [("CORALMUX_PHONE_RATE", ""), ("CORALMUX_CONFIG", path.as_str())];
    assert_eq!(config_with(&[], &env).unwrap().limits.phone_per_minute, 7, "the file is asked next");
    wrong(&["--phone-rate", ""], &[], &["--phone-rate"]);
}

#[test]
fn a_wrong_value_is_shown_with_what_would_be_right() {
    assert_eq!(
        wrong(&["--phone-rate", "fast"], &[], &[]),
        "--phone-rate: \"fast\" is invalid; expected a whole number up to 1000000000, such as 30; 0 lifts the limit"
    );
    wrong(&["--daily-quota", "500M"], &[], &["--daily-quota", "\"500M\"", "500MiB"]);
    wrong(&["--idle-timeout", "60"], &[], &["--idle-timeout", "\"60\"", "10s"]);
    wrong(&["--max-message", "65MiB"], &[], &["--max-message", "64MiB"]);
    for typed in ["-adr", "--adr"] {
        wrong(&[typed, ":80"], &[], &["'--adr'", "'--addr'"]);
    }
    let (_file, path) = file("addr = [':80'\n");
    wrong(&["--config", &path], &[], &[&path, "not TOML"]);
    let (_file, path) = file("phone-rate = [1, 2]\n");
    wrong(&["--config", &path], &[], &["phone-rate", "one value"]);
}

#[test]
fn an_unknown_key_of_the_file_is_refused_and_its_near_miss_named() {
    let cases =
        [("admin_key", Some("admin-key")), ("phonerate", Some("phone-rate")), ("max-mesage", Some("max-message"))];
    for (key, meant) in cases.into_iter().chain([("colour", None), ("config", None)]) {
        let (_file, path) = file(&format!("{key} = 1\n"));
        let Err(ConfigError::UnknownKey { key: found, near, .. }) = config(&["--config", &path]) else {
            panic!("{key}")
        };
        assert_eq!((found.as_str(), near.as_deref()), (key, meant));
    }
}

#[test]
fn an_empty_admin_key_is_an_error_wherever_it_stands() {
    let (_file, path) = file("admin-key = '  '\n");
    wrong(&["-admin-key", ""], &[], &["--admin-key", "empty"]);
    wrong(&["-admin-key", " "], &[], &["--admin-key", "empty"]);
    for variable in ["RELAY_ADMIN_KEY", "CORALMUX_ADMIN_KEY"] {
        wrong(&[], &[(variable, "")], &[variable, "empty"]);
    }
    wrong(&["--config", &path], &[], &[&path, "admin-key", "empty"]);
    let config = config_with(&[], &[("RELAY_ADMIN_KEY", "of the environment")]).unwrap();
    assert!(config.admin_key.unwrap().matches(b"of the environment"));
}

#[test]
fn a_file_with_a_secret_that_everybody_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let (opened, path) = file("admin-key = 'of the file'\n");
    let cautions = |mode| {
        opened.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        config(&["--config", &path]).unwrap().cautions
    };
    assert!(cautions(0o600).is_empty() && cautions(0o640).is_empty());
    let [caution] = cautions(0o644).try_into().unwrap();
    assert!(caution.contains(&path) && caution.contains("admin-key") && !caution.contains("of the file"), "{caution}");
    let (opened, path) = file("phone-rate = 7\n");
    opened.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(config(&["--config", &path]).unwrap().cautions.is_empty());
}

#[test]
fn the_admin_key_is_neither_in_debug_nor_in_errors() {
    let config = config(&["-admin-key", "my-secret"]).unwrap();
    assert!(!format!("{config:?}").contains("my-secret"));
    let text = wrong(&["-admin-key", "my-secret\n"], &[], &["--admin-key"]);
    assert!(!text.contains("my-secret"), "{text}");
    let (_file, path) = file("addr = ':80'\nadmin-key = my-secret\n");
    let text = wrong(&["--config", &path], &[], &[&path, "line 2: not TOML"]);
    assert!(!text.contains("my-secret"), "{text}");
}

#[test]
fn zero_lifts_a_limit_but_not_the_hard_bound_of_a_message() {
    let args = ["--phone-rate", "0", "--daily-quota", "0", "--max-message", "0", "--max-connections", "0"];
    let config = config(&args).unwrap();
    assert_eq!((config.limits.phone_per_minute, config.limits.daily_quota_bytes), (0, 0));
    assert_eq!(config.limits.message_bytes_max, value::MESSAGE_BYTES_HARD_MAX);
    assert_eq!(config.max_connections, None);
}

#[test]
fn values_that_are_wrong_together_are_named_together() {
    wrong(&["--idle-timeout", "30s"], &[], &["--idle-timeout", "--ping-interval"]);
    let twice = ["--addr", "127.0.0.1:8080", "--metrics-addr", "127.0.0.1:8080"];
    wrong(&twice, &[], &["--metrics-addr", "127.0.0.1:8080 is named twice"]);
    assert!(config(&["--addr", "127.0.0.1:9464"]).is_ok(), "the default port gives way");
    wrong(&["--memory-budget", "4MiB"], &[], &["--memory-budget", "--max-message"]);
    wrong(&["--addr", ":80", "--echo-addr", ":80"], &[], &["--echo-addr", "[::]:80"]);
    wrong(&["--addr", "tls://:443"], &[], &["--addr", "--domain", "--tls-cert"]);
    wrong(&["--http-addr", ":80"], &[], &["--http-addr", "--domain"]);
    wrong(&["-domain", "a.example", "--addr", ":80"], &[], &["--http-addr", "[::]:80"]);
    wrong(&["--tls-cert", "a.pem"], &[], &["--tls-cert", "--tls-key", "1 and 0"]);
    wrong(&["--acme-email", "a@b.example"], &[], &["--acme-email", "--domain"]);
    wrong(&["-domain", "a.example", "--acme-eab-kid", "k"], &[], &["--acme-eab-kid", "--acme-eab-key"]);
    assert!(config(&["--addr", "127.0.0.1:0", "--echo-addr", "127.0.0.1:0"]).is_ok());
}

#[test]
fn a_domain_alone_makes_the_relay_listen_for_tls_and_for_the_ca() {
    let all = config(&["-domain", "Relay.example.com", "-admin-key", "k", "-db", "/x/y.db"]).unwrap();
    assert_eq!(all.listen, [Listen { addr: "[::]:443".parse().unwrap(), tls: true }]);
    assert_eq!(all.tls.http_addrs, ["[::]:80".parse().unwrap()]);
    let acme = all.tls.acme.unwrap();
    assert_eq!((acme.domains, acme.dir.to_str()), (vec!["relay.example.com".to_owned()], Some("/x/y.db.acme")));
    assert_eq!(acme.directory, tls::DEFAULT_DIRECTORY);
}

#[test]
fn plain_and_tls_stand_side_by_side() {
    let pair = ["--tls-cert", "a.pem", "--tls-cert", "b.pem", "--tls-key", "a.key,b.key"];
    let with = |more: &[&str]| config(&[&pair, more].concat()).unwrap();
    let all = with(&["--addr", "127.0.0.1:8080", "--addr", "tls://127.0.0.1:8443"]);
    let [plain, tls] = all.listen.as_slice() else { panic!("{:?}", all.listen) };
    assert_eq!((plain.tls, plain.addr.port(), tls.tls, tls.addr.port()), (false, 8080, true, 8443));
    assert_eq!(all.tls.pairs[1], PairFiles { cert: "b.pem".into(), key: "b.key".into() });
    assert!(all.tls.http_addrs.is_empty());
    let all = with(&["--addr", "127.0.0.1:8080", "--http-addr", "127.0.0.1:80"]);
    assert_eq!((all.listen.len(), all.listen[1].addr.port(), all.tls.http_addrs.len()), (2, 443, 1));
    assert!(all.cautions.is_empty(), "the loopback is meant to be plain");
    for (typed, also) in [(":8443", "tls://:8443"), ("192.0.2.1:8443", "tls://192.0.2.1:8443")] {
        let all = with(&["--addr", typed]);
        assert_eq!((all.listen[0].tls, all.listen[1].tls, all.cautions.len()), (false, true, 1));
        assert!(all.cautions[0].contains(also) && all.cautions[0].contains("without TLS"), "{:?}", all.cautions);
        assert!(with(&["--addr", typed, "--addr", "tls://:443"]).cautions.is_empty(), "said, and so meant");
    }
    assert!(config(&["--addr", ":8080", "-admin-key", "my-secret"]).unwrap().cautions.is_empty());
    assert!(config(&["-domain", "relay.example.com"]).unwrap().cautions.is_empty());
    assert!(config(&["-domain", "a.example", "--http-addr", "off"]).unwrap().tls.http_addrs.is_empty());
}

#[test]
fn the_binding_key_is_neither_in_debug_nor_in_errors() {
    let args = ["-domain", "a.example", "--acme-eab-kid", "kid-1", "--acme-eab-key", "c2VjcmV0LXRleHQ"];
    let all = config(&args).unwrap();
    assert!(!format!("{all:?}").contains("secret-text"), "{all:?}");
    assert_eq!(all.tls.acme.unwrap().binding.unwrap().key, b"secret-text");
    let text = wrong(&["--acme-eab-key", "not base64: secret"], &[], &["--acme-eab-key", "base64url"]);
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn the_memory_budget_follows_the_machine_and_has_room_for_a_message() {
    let small = Machine { cores: 2, memory_bytes: 100 << 20 };
    let budget = |args: &[&str]| {
        let args = std::iter::once(&"x").chain(args).map(OsString::from);
        resolve_on(small, args, |_| None).unwrap().memory_budget_bytes
    };
    assert_eq!(budget(&[]), draft::MEMORY_BUDGET_MIN);
    assert_eq!(budget(&["--max-message", "64MiB"]), 64 << 20);
    assert_eq!(budget(&["--memory-budget", "5MiB"]), 5 << 20);
}

#[test]
fn named_origins_alone_are_allowed() {
    let named = config(&["--allow-origin", "https://a.example,HTTPS://B.example:8443"]).unwrap().origins;
    assert_eq!(named, Origins::Only(vec!["https://a.example".to_owned(), "https://b.example:8443".to_owned()]));
    assert_eq!(config(&["--allow-origin", "https://a.example", "--allow-origin", "*"]).unwrap().origins, Origins::Any);
}

#[test]
fn help_and_version_are_no_errors() {
    let Err(help @ ConfigError::Help(_)) = config(&["-help"]) else { panic!() };
    assert!(help.to_string().contains("--addr <HOST:PORT>") && help.exit_code() == 0);
    let Err(version @ ConfigError::Version(_)) = config(&["--version"]) else { panic!() };
    assert_eq!(version.to_string(), concat!("coralmux-relay ", env!("CARGO_PKG_VERSION"), "\n"));
}
