//! How a phone is paired: links, and QR codes for the terminal.

use clap::ValueEnum;
use coralmux_client::Link;
use qrcode::{EcLevel, QrCode};
use std::fmt::Write;

/// Light modules around a code, which scanners need.
const QUIET_ZONE: usize = 2;

/// Which QR codes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Codes {
    /// For phone apps.
    App,
    /// For a phone's camera.
    Browser,
    /// Both.
    Both,
    /// The links alone.
    None,
}

/// All that a person needs to pair a phone, as lines. `colours`: the terminal takes ANSI colours.
#[must_use]
pub fn instructions(link: &Link, codes: Codes, colours: bool) -> String {
    let app = link.for_apps();
    let browser = link.for_browsers();
    let mut text = String::new();
    let mut show = |title: &str, link: &str, with_code: bool| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{title}\n\n    {link}\n");
        if let Some(code) = with_code.then(|| qr(link, colours)).flatten() {
            let _ = writeln!(text, "{code}");
        }
    };
    if let Some(browser) = &browser {
        let title = "Open this in a browser, or scan the code with the phone's camera:";
        show(title, browser, matches!(codes, Codes::Browser | Codes::Both));
    }
    let wants_code = matches!(codes, Codes::App | Codes::Both) || browser.is_none() && codes == Codes::Browser;
    show("For phone apps that read pairing codes:", &app, wants_code);
    text
}

/// A QR code in half blocks: two modules high a character. `None` where the text is too long for one. With colours it
/// is black on white whatever the terminal's; without, it is drawn for light text on a dark ground.
#[must_use]
pub fn qr(text: &str, colours: bool) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let width = code.width();
    let modules = code.to_colors();
    let is_dark = |x: usize, y: usize| {
        let (x, y) = (x.wrapping_sub(QUIET_ZONE), y.wrapping_sub(QUIET_ZONE));
        x < width && y < width && modules[y * width + x] == qrcode::Color::Dark
    };
    let side = width + 2 * QUIET_ZONE;
    let mut drawn = String::new();
    for y in (0..side).step_by(2) {
        drawn.push_str(if colours { "    \x1b[30;107m" } else { "    " });
        for x in 0..side {
            // What is inked: the dark modules in black, or the light ones in the terminal's light text.
            let inked = |y: usize| is_dark(x, y) == colours && (y < side || !colours);
            drawn.push(match (inked(y), inked(y + 1)) {
                (true, true) => '\u{2588}',
                (true, false) => '\u{2580}',
                (false, true) => '\u{2584}',
                (false, false) => ' ',
            });
        }
        drawn.push_str(if colours { "\x1b[0m\n" } else { "\n" });
    }
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coralmux_client::PairingSecret;

    /// The modules that a drawing shows, dark ones true.
    fn seen(drawn: &str, colours: bool) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in drawn.lines() {
            let line = line.trim_start_matches("    ").trim_start_matches("\x1b[30;107m").trim_end_matches("\x1b[0m");
            for upper in [true, false] {
                rows.push(
                    line.chars()
                        .map(|c| {
                            let inked = match c {
                                '\u{2588}' => true,
                                '\u{2580}' => upper,
                                '\u{2584}' => !upper,
                                _ => false,
                            };
                            inked == colours
                        })
                        .collect(),
                );
            }
        }
        rows
    }

    #[test]
    fn a_drawing_shows_the_codes_modules() {
        let text = "openclaw://pair?token=x";
        let code = QrCode::with_error_correction_level(text, EcLevel::L).unwrap();
        let modules = code.to_colors();
        for colours in [false, true] {
            // Without colours a line begins with blocks, for the quiet zone is inked.
            let rows = seen(&qr(text, colours).unwrap(), colours);
            for y in 0..code.width() {
                for x in 0..code.width() {
                    let dark = modules[y * code.width() + x] == qrcode::Color::Dark;
                    assert_eq!(rows[y + QUIET_ZONE][x + QUIET_ZONE], dark, "{x} {y} {colours}");
                }
            }
            assert!(rows[..QUIET_ZONE].iter().flatten().all(|dark| !dark));
        }
    }

    #[test]
    fn both_links_are_shown_with_the_codes_that_were_asked_for() {
        let secret = Some(PairingSecret::from_bytes([1; 32]));
        let mut link = Link { token: "t".to_owned(), relay: "ws://127.0.0.1:8080/ws".to_owned(), secret, agent: None };
        let count = |link: &Link, codes| {
            let text = instructions(link, codes, false);
            assert!(text.contains("openclaw://pair?token=t&relay=ws%3A%2F%2F127.0.0.1%3A8080%2Fws&k="), "{text}");
            (text.contains("http://127.0.0.1:8080/#token=t&k="), text.matches("\n\n    \u{2588}").count())
        };
        assert_eq!(count(&link, Codes::Both), (true, 2));
        assert_eq!(count(&link, Codes::App), (true, 1));
        assert_eq!(count(&link, Codes::None), (true, 0));
        link.relay = "ws://127.0.0.1:8080/other".to_owned();
        // No page there: the app's code takes its place.
        let text = instructions(&link, Codes::Browser, false);
        assert!(!text.contains("browser") && text.contains('\u{2588}'), "{text}");
    }
}
