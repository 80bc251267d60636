//! What a person asks of the agent that runs, from another terminal.

use super::options::Pairing;
use super::{Failure, state, state_path};
use serde_json::Value;

#[cfg(unix)]
pub(super) use unix::{ask, pair};

#[cfg(unix)]
mod unix {
    use super::{Failure, Pairing, Value, state, state_path};
    use crate::control::Connection;
    use crate::pairing::instructions;
    use crate::printable::printable;
    use crate::{has_colours, say};
    use coralmux_client::Link;
    use serde_json::json;
    use std::io;

    fn connect(pairing: &Pairing) -> Result<Connection, Failure> {
        let path = state_path(pairing)?;
        let state = state::read(&path)?.ok_or_else(|| Failure::NotPaired { path: path.clone() })?;
        let caller = Connection::connect(&state::devices_path(&path, &state.token));
        caller.ok_or(Failure::NotRunning { path })
    }

    /// The next answer, if it is no refusal.
    fn answer(caller: &mut Connection) -> Result<Value, Failure> {
        let answer = caller.answer().map_err(Failure::Control)?;
        match answer["error"].as_str() {
            Some(words) => Err(Failure::Refused(printable(words))),
            None => Ok(answer),
        }
    }

    /// Asks for something that has one answer, and shows it.
    pub(crate) fn ask(pairing: &Pairing, request: &Value) -> Result<(), Failure> {
        let mut caller = connect(pairing)?;
        caller.ask(request).map_err(Failure::Control)?;
        let answer = answer(&mut caller)?;
        if let Some(done) = answer["done"].as_str() {
            say(&printable(done));
        }
        if let Some(devices) = answer["devices"].as_array() {
            if devices.is_empty() {
                say("No devices.");
            }
            devices.iter().for_each(|device| say(&line(device)));
        }
        Ok(())
    }

    /// A device, on a line: what it calls itself comes last, for it may be anything.
    fn line(device: &Value) -> String {
        let text = |name: &str| device[name].as_str().unwrap_or_default();
        let mut notes = vec![if device["online"] == true { "online" } else { "away" }];
        if device["owner"] == true {
            notes.push("owner");
        }
        let by = device["by"].as_str().map(|by| format!(", invited by {by}")).unwrap_or_default();
        let line = format!("{}  {}{by}  {} ({})", text("device"), notes.join(", "), text("name"), text("platform"));
        printable(&line)
    }

    /// Shows a link, waits for who comes by it, and asks whether to let it in.
    pub(crate) fn pair(pairing: &Pairing) -> Result<(), Failure> {
        let mut caller = connect(pairing)?;
        caller.ask(&json!({"do": "pair"})).map_err(Failure::Control)?;
        let told = answer(&mut caller)?;
        let link = told["link"].as_str().and_then(|link| Link::parse(link).ok());
        let link = link.ok_or_else(|| Failure::Refused("the agent gives no link".to_owned()))?;
        say(&instructions(&link, pairing.qr, has_colours()));
        say("It is good for one device, for 10 minutes. Waiting for it; Ctrl-C ends that.");
        let joined = answer(&mut caller)?["joined"].clone();
        let text = |name: &str| printable(joined[name].as_str().unwrap_or_default());
        say(&format!("{} ({}) wants to be a device. Its code: {}", text("name"), text("platform"), text("code")));
        say("Compare it with what it shows. Enter lets it in, r and Enter refuses it.");
        let mut line = String::new();
        let typed = io::stdin().read_line(&mut line).map_err(Failure::Control)?;
        let admits = typed != 0 && matches!(line.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes");
        let answer_is = if admits { "admit" } else { "refuse" };
        caller.ask(&json!({"do": answer_is, "device": joined["device"]})).map_err(Failure::Control)?;
        let done = answer(&mut caller)?;
        say(&printable(done["done"].as_str().unwrap_or_default()));
        Ok(())
    }
}

/// There is no way to the agent that runs: its own terminal has all of it.
#[cfg(not(unix))]
pub(super) fn ask(_: &Pairing, _: &Value) -> Result<(), Failure> {
    Err(Failure::Refused("on this system the agent's own terminal shows links, and lets devices in".to_owned()))
}

/// See above.
#[cfg(not(unix))]
pub(super) fn pair(pairing: &Pairing) -> Result<(), Failure> {
    ask(pairing, &Value::Null)
}
