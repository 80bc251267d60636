//! What a message says of whether it is to be kept: read from any bytes as `serde_json` reads them, or refused with a word.
#![no_main]

use coralmux_session::message::ErrorCode;
use coralmux_session::read_keep;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|message: &[u8]| {
    match read_keep(message) {
        Err(refusal) => {
            assert_eq!((refusal.code, refusal.retry_after_ms), (ErrorCode::InvalidMessage, None));
            assert!(!refusal.message.is_empty());
        }
        Ok(wake) => {
            // What is read and no `Value`: escaped lone surrogates and numbers out of range, in what is ignored; and an array,
            // which no envelope is.
            let Ok(value @ Value::Object(_)) = serde_json::from_slice::<Value>(message) else { return };
            assert_eq!(value["keep"].as_str().map(|keep| keep == "wake"), wake);
            assert!(wake.is_none() || !value["id"].is_null());
        }
    }
});
