//! A payload on its way in: the mask comes off and the text is checked in one go, while the bytes are in the first-level
//! cache.

use crate::envelope::{Invalid, Scanner};
use crate::frame;

/// What is unmasked before it is looked at once more. Whole words of the mask.
pub const STEP_BYTES: usize = 16 << 10;

/// Takes the mask off what lies from `down` on, puts it at the start and feeds it to `scanner`. `phase` is the offset of
/// the piece within the frame's payload. The inside of long strings is looked at only once, for both.
///
/// # Errors
/// What [`Scanner::feed`] says; the mask is off then as well.
pub fn unmask_and_feed(
    bytes: &mut [u8],
    down: usize,
    key: [u8; 4],
    phase: usize,
    scanner: &mut Scanner,
) -> Result<(), Invalid> {
    let key = frame::key_at(key, phase);
    let length = bytes.len().saturating_sub(down);
    let mut fed = Ok(());
    for at in (0..length).step_by(STEP_BYTES) {
        let count = STEP_BYTES.min(length - at);
        let step = &mut bytes[at..at + count + down];
        let plain = if fed.is_ok() && scanner.is_in_text() { frame::unmask_plain(step, down, key) } else { 0 };
        frame::unmask_down(&mut step[plain..], down, key);
        if fed.is_ok() {
            scanner.pass_text(plain);
            fed = scanner.feed(&step[plain..count]);
        }
    }
    fed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What makes up the texts: long runs, and all that ends one.
    fn parts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            (0..40_000usize).prop_map(|count| "x".repeat(count)),
            "[ -~]{0,80}",
            Just("\\n".to_owned()),
            Just("é".to_owned()),
            Just("\"".to_owned()),
            Just("\n".to_owned()),
            Just("\",\"type\":\"".to_owned()),
        ];
        proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn it_unmasks_and_finds_what_a_second_look_finds(
            inside in parts(), broken in proptest::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
            key in any::<[u8; 4]>(), down in 0..20usize, cut in any::<prop::sample::Index>(),
        ) {
            let mut text = format!("{{\"type\":\"chat\",\"id\":\"7\",\"payload\":\"{inside}\"}}").into_bytes();
            if let Some((at, byte)) = broken {
                let at = at.index(text.len());
                text[at] = byte;
            }
            let mut whole = Scanner::new();
            let expected = whole.feed(&text).map(|()| whole.finish(&text));
            let mut masked = vec![0; down];
            masked.extend(text.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
            let cut = cut.index(text.len() + 1);
            let (mut scanner, mut second) = (Scanner::new(), masked.split_off(down + cut));
            let mut fed = unmask_and_feed(&mut masked, down, key, 0, &mut scanner);
            prop_assert_eq!(&masked[..cut], &text[..cut]);
            if fed.is_ok() {
                fed = unmask_and_feed(&mut second, 0, key, cut, &mut scanner);
                prop_assert_eq!(second.as_slice(), &text[cut..]);
            }
            prop_assert_eq!(fed.map(|()| scanner.finish(&text)), expected);
        }
    }
}
