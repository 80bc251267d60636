//! What a command says on its standard output and standard error. Their reader may be gone: `print!` and `eprintln!`
//! panic then, and a relay whose first line went nowhere would not start. What cannot be written is dropped.

use std::fmt::Display;
use std::io::{self, Write};

/// A text on standard output, as it is.
pub fn print(text: impl Display) {
    put(&mut io::stdout().lock(), text);
}

/// A line on standard output.
pub fn say(line: impl Display) {
    print(format_args!("{line}\n"));
}

/// A text on standard error, as it is.
pub fn print_error(text: impl Display) {
    put(&mut io::stderr().lock(), text);
}

/// A line on standard error.
pub fn warn(line: impl Display) {
    print_error(format_args!("{line}\n"));
}

fn put(to: &mut impl Write, text: impl Display) {
    let _ = write!(to, "{text}").and_then(|()| to.flush());
}
