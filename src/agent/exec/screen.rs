//! What a program's output looks like on a terminal: colours and other escapes are gone, and of a line that is written
//! over again and again, as progress is shown, the last state stays.

use super::controls::Controls;
use std::time::{Duration, Instant};
use vte::{Params, Parser, Perform};

/// A line that is not whole waits this long for what may be written over it. Then it is shown, and goes on as it comes.
pub(super) const HOLD: Duration = Duration::from_millis(200);
/// The longest line that can be written over, in characters. A longer one is shown in parts.
const LINE_MAX: usize = 8192;

/// Takes text as it is printed; gives what is to be shown.
#[derive(Default)]
pub(super) struct Screen {
    controls: Controls,
    parser: Parser<1024>,
    line: Line,
    /// Since when the line that is not whole waits.
    since: Option<Instant>,
}

/// What is to be shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// To be added.
    pub(super) text: String,
    /// What was shown before of the last line is not what the line became: this is the whole output.
    pub(super) whole: Option<String>,
}

impl Screen {
    /// Takes what was printed.
    pub(super) fn feed(&mut self, now: Instant, text: &str) -> String {
        let text = self.controls.without_strings(text);
        self.parser.advance(&mut self.line, text.as_bytes());
        self.poll(now)
    }

    /// What can be shown now.
    pub(super) fn poll(&mut self, now: Instant) -> String {
        if !self.line.can_be_shown() {
            self.since = None;
        } else if self.line.shown != 0 || now >= *self.since.get_or_insert(now) + HOLD {
            self.line.show_rest();
            self.since = None;
        }
        std::mem::take(&mut self.line.out)
    }

    /// Nothing more is printed.
    pub(super) fn finish(&mut self) -> Shown {
        self.line.end();
        let text = std::mem::take(&mut self.line.out);
        let whole = self.line.is_amended.then(|| std::mem::take(&mut self.line.whole));
        Shown { text, whole }
    }
}

/// The line that is not whole yet, and what has become of those before it.
#[derive(Default)]
struct Line {
    cells: Vec<char>,
    cursor: usize,
    /// Counters that were shown already, as they were then.
    shown: usize,
    /// Some were written over.
    is_rewritten: bool,
    /// What was shown is not what the line has become.
    is_stale: bool,
    /// To be shown.
    out: String,
    /// All lines as they became, but for this one.
    whole: String,
    /// That is not what was shown.
    is_amended: bool,
}

impl Line {
    fn can_be_shown(&self) -> bool {
        !self.is_rewritten && self.cursor == self.cells.len() && self.shown < self.cells.len()
    }

    fn show_rest(&mut self) {
        self.out.extend(&self.cells[self.shown..]);
        self.shown = self.cells.len();
    }

    fn put(&mut self, c: char) {
        if self.cells.len() >= LINE_MAX && self.cursor >= self.cells.len() {
            self.end();
        }
        self.cells.resize(self.cells.len().max(self.cursor), ' ');
        if self.cursor < self.cells.len() {
            self.touch(self.cursor);
            self.cells[self.cursor] = c;
        } else {
            self.cells.push(c);
        }
        self.cursor += 1;
    }

    /// Counters from here on become others.
    fn touch(&mut self, from: usize) {
        self.is_rewritten = true;
        self.is_stale |= from < self.shown;
    }

    fn erase(&mut self, from: usize, to: usize) {
        let (from, to) = (from.min(self.cells.len()), to.min(self.cells.len()));
        if from < to {
            self.touch(from);
            self.cells[from..to].fill(' ');
            if to == self.cells.len() {
                self.cells.truncate(from);
            }
        }
    }

    /// The line is as it stays.
    fn end(&mut self) {
        if self.is_rewritten {
            let blanks = self.cells.iter().rev().take_while(|c| **c == ' ').count();
            let kept = self.cells.len() - blanks;
            self.is_stale |= kept < self.shown;
            self.cells.truncate(kept);
        }
        self.whole.extend(&self.cells);
        if self.is_stale {
            // What was shown of it stays as a line of its own until the end.
            self.is_amended = true;
            self.out.push('\n');
            self.shown = 0;
        }
        self.show_rest();
        self.cells.clear();
        (self.cursor, self.shown) = (0, 0);
        (self.is_rewritten, self.is_stale) = (false, false);
    }

    fn end_line(&mut self) {
        self.end();
        self.out.push('\n');
        self.whole.push('\n');
    }
}

impl Perform for Line {
    fn print(&mut self, c: char) {
        // DEL is printed by nobody.
        if !c.is_control() {
            self.put(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' => self.end_line(),
            b'\r' => self.cursor = 0,
            b'\t' => self.put('\t'),
            0x08 => self.cursor = self.cursor.saturating_sub(1),
            // Bells and the like.
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _ignore: bool, action: char) {
        if !intermediates.is_empty() {
            return;
        }
        let first = params.iter().next().map_or(0, |param| usize::from(param[0]));
        let count = first.max(1);
        match (action, first) {
            ('C', _) => self.cursor = (self.cursor + count).min(LINE_MAX),
            ('D', _) => self.cursor = self.cursor.saturating_sub(count),
            ('G' | '`', _) => self.cursor = (count - 1).min(LINE_MAX),
            ('K', 0) => self.erase(self.cursor, usize::MAX),
            ('K', 1) => self.erase(0, self.cursor.saturating_add(1)),
            ('K', 2) => self.erase(0, usize::MAX),
            ('P', _) => {
                let to = (self.cursor + count).min(self.cells.len());
                if self.cursor < to {
                    self.touch(self.cursor);
                    self.cells.drain(self.cursor..to);
                }
            }
            // Colours, and what only a whole screen has.
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _ignore: bool, byte: u8) {
        // NEL: the next line.
        if intermediates.is_empty() && byte == b'E' {
            self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What was shown at once and what is the whole, with all pieces printed at the same time.
    fn printed(pieces: &[&str]) -> String {
        let (mut screen, now) = (Screen::default(), Instant::now());
        let mut text: String = pieces.iter().map(|piece| screen.feed(now, piece)).collect();
        let shown = screen.finish();
        text += &shown.text;
        assert_eq!(shown.whole, None, "nothing was shown too early");
        text
    }

    const CASES: [(&str, &str); 21] = [
        ("\x1b[32mok\x1b[0m\n10%\r50%\n", "ok\n50%\n"),
        ("plain, gr\u{fc}\u{df}e \u{1f980}", "plain, gr\u{fc}\u{df}e \u{1f980}"),
        ("one\r\ntwo\r\n\r\nthree", "one\ntwo\n\nthree"),
        ("  indented  \n\tand a tab\t\n", "  indented  \n\tand a tab\t\n"),
        ("12345\rab", "ab345"),
        ("loading...\r\x1b[Kdone\n", "done\n"),
        ("loading...\x1b[2K\x1b[1Gdone\n", "done\n"),
        ("100%\r     \rdone", "done"),
        ("\r 10%|#  |\r 99%|## |\r100%|###|\n", "100%|###|\n"),
        ("abc\x08\x08X\n", "aXc\n"),
        ("\x1b]0;a title\x07x\x1b]8;;https://x.y\x1b\\link\x1b]8;;\x1b\\\n", "xlink\n"),
        ("\x1b[?25l\x1b[1;31mred\x1b[m\x1b[?25h\n", "red\n"),
        ("a\x07b\x00c\x7fd\n", "abcd\n"),
        ("\x1b(Bx\x1b=y\x1bEz", "xy\nz"),
        ("a\x1b[3Cb", "a   b"),
        ("\x1bPq#0;2;0;0;0\x1b\\after\n", "after\n"),
        ("one\x1b]0;no end\ntwo\n", "one\ntwo\n"),
        ("one\x1bPno end\r\ntwo\n", "one\ntwo\n"),
        ("one\x1b_no end\ntwo\x1b^no end\nthree\x1bXno end\nfour", "one\ntwo\nthree\nfour"),
        ("\u{9b}31mred\u{9b}0m \x1b]0;title\u{9c}x\x1bPq\u{9c}y\n", "red xy\n"),
        ("\u{e2}\u{80}\u{9c}quoted\u{e2}\u{80}\u{9d} twice\n", "\u{e2}quoted\u{e2} twice\n"),
    ];

    #[test]
    fn escapes_are_gone_and_the_last_state_of_a_line_stays_wherever_the_output_is_cut() {
        for (text, shown) in CASES {
            for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
                assert_eq!(printed(&[&text[..cut], &text[cut..]]), shown, "{text:?} {cut}");
            }
            let single: Vec<&str> = text.split("").collect();
            assert_eq!(printed(&single), shown, "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_not_whole_is_shown_after_a_while_and_goes_on_as_it_comes() {
        let (mut screen, now) = (Screen::default(), Instant::now());
        assert_eq!(screen.feed(now, "to"), "");
        assert_eq!(screen.poll(now + HOLD / 2), "");
        assert_eq!(screen.poll(now + HOLD), "to");
        assert_eq!(screen.feed(now + HOLD, "ken"), "ken");
        assert_eq!(screen.feed(now + HOLD, "s\nne"), "s\n");
        assert_eq!(screen.finish(), Shown { text: "ne".to_owned(), whole: None });
    }

    #[test]
    fn what_was_shown_too_early_is_not_in_the_whole() {
        let (mut screen, now) = (Screen::default(), Instant::now());
        screen.feed(now, "start\n10%");
        assert_eq!(screen.poll(now + HOLD), "10%");
        assert_eq!(screen.feed(now + 2 * HOLD, "\r50%"), "");
        assert_eq!(screen.poll(now + 9 * HOLD), "", "it may be written over again");
        assert_eq!(screen.feed(now + 9 * HOLD, "\r99%\nend"), "\n99%\n");
        let shown = screen.finish();
        assert_eq!((shown.text.as_str(), shown.whole.as_deref()), ("end", Some("start\n99%\nend")));
    }

    #[test]
    fn a_line_without_end_takes_no_endless_memory() {
        let (mut screen, now) = (Screen::default(), Instant::now());
        let mut text = screen.feed(now, &"x".repeat(3 * LINE_MAX));
        text += &screen.feed(now, "\x1b[65535C\x1b[65535Cy\x1b]0;");
        text += &screen.feed(now, &"t".repeat(1 << 20));
        assert!(screen.line.cells.capacity() <= 4 * LINE_MAX);
        text += &screen.finish().text;
        assert_eq!(
            (text.matches('x').count(), text.matches('y').count(), text.contains('t')),
            (3 * LINE_MAX, 1, false)
        );
    }

    /// Pieces of output, of the kinds that are hard.
    fn output() -> impl Strategy<Value = Vec<String>> {
        let parts = vec![
            "a",
            "bc ",
            " ",
            "\u{1f980}",
            "\r",
            "\n",
            "\t",
            "\x08",
            "\x1b[K",
            "\x1b[1K",
            "\x1b[2K",
            "\x1b[3D",
            "\x1b[9C",
            "\x1b[G",
            "\x1b[65535G",
            "\x1b[2P",
            "\x1b[",
            "\x1b]0;",
            "\x07",
            "\x1b\\",
            "\x1bP",
            "\x1b",
            "7",
            ";",
            "m",
            "\u{9b}",
            "\u{9d}",
            "\u{9c}",
            "\x18",
        ];
        prop::collection::vec(prop::sample::select(parts).prop_map(str::to_owned), 0..40)
    }

    proptest! {
        #[test]
        fn the_whole_output_is_the_same_whenever_it_comes(pieces in output(), pauses in prop::collection::vec(any::<bool>(), 40)) {
            let whole = printed(&[&pieces.concat()]);
            let (mut screen, mut now, mut text) = (Screen::default(), Instant::now(), String::new());
            for (piece, pause) in pieces.iter().zip(pauses) {
                text += &screen.feed(now, piece);
                if pause {
                    now += HOLD;
                    text += &screen.poll(now);
                    now += HOLD;
                    text += &screen.poll(now);
                }
            }
            let shown = screen.finish();
            text += &shown.text;
            prop_assert_eq!(shown.whole.unwrap_or(text), whole);
        }
    }
}
