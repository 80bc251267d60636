//! Any sequence of operations on a session: nothing is forwarded to somebody who is not there, what is forwarded is
//! what is counted, and who has left is told to nobody twice.
#![no_main]

use coralmux_proto::envelope::Kind;
use coralmux_proto::limits::Limits;
use coralmux_proto::quota::Used;
use coralmux_proto::token::Role;
use coralmux::session::policy::Policy;
use coralmux::session::{Session, Verdict};
use libfuzzer_sys::fuzz_target;
use std::rc::Rc;
use std::time::Duration;

const KINDS: [Kind; 8] =
    [Kind::Auth, Kind::AuthReserved, Kind::Status, Kind::Ping, Kind::Pong, Kind::Stream, Kind::Done, Kind::Other];

fn limits(bits: u8) -> Limits {
    let if_bit = |bit: u8, value: u64| if bits >> bit & 1 == 1 { value } else { 0 };
    Limits {
        phone_per_minute: if_bit(0, 3),
        agent_per_minute: if_bit(1, 5),
        stream_per_second: if_bit(2, 2),
        daily_quota_bytes: if_bit(3, 10_000),
        monthly_quota_bytes: if_bit(4, 30_000),
        ..Limits::default()
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, operations)) = input.split_first() else { return };
    let mut session = Session::new(Rc::new(Policy::new(limits(first))), Used::default());
    let mut present: [Option<u32>; 2] = [None, None];
    let (mut now, mut unix_ms) = (Duration::ZERO, 1_709_208_000_000);
    let (mut forwarded, mut reported, mut next) = (0u64, 0u64, 0u32);
    for operation in operations.chunks_exact(4) {
        let [what, a, b, c] = *operation else { return };
        let role = if what & 1 == 0 { Role::Phone } else { Role::Agent };
        match what >> 1 & 7 {
            0 => {
                next += 1;
                let joined = session.join(role, next);
                assert_eq!(joined.replaced, present[role as usize].replace(next));
                assert_eq!(joined.peer, present[role.peer() as usize]);
            }
            1 => {
                // The one that is there, or one that may have left or been replaced.
                let id = if a & 1 == 0 { present[role as usize].unwrap_or(0) } else { u32::from(b) };
                let was_there = present[role as usize] == Some(id);
                let left = session.leave(role, id);
                assert_eq!(left.map(|left| left.peer), was_there.then_some(present[role.peer() as usize]));
                if was_there {
                    present[role as usize] = None;
                }
            }
            2 => session.set_policy(Rc::new(Policy::new(limits(a)))),
            3 => {
                let bytes = session.take_unreported();
                if a & 1 == 0 {
                    session.put_back_unreported(bytes);
                } else {
                    reported += bytes;
                }
            }
            _ => {
                now += Duration::from_millis(u64::from(b) * u64::from(b));
                // The wall clock jumps, now and then back.
                unix_ms = (unix_ms + u64::from(b) * 100_000).saturating_sub(u64::from(a >> 5) * 1_000_000);
                let (kind, bytes) = (KINDS[usize::from(a % 8)], u64::from(c) * 20);
                let before = session.used(unix_ms);
                let verdict = session.handle_message(now, unix_ms, role, kind, bytes);
                let after = session.used(unix_ms);
                match verdict {
                    Verdict::Forward(to) => {
                        assert_eq!(Some(to), present[role.peer() as usize]);
                        assert!(
                            kind == Kind::Other || role == Role::Agent && matches!(kind, Kind::Stream | Kind::Done)
                        );
                        assert_eq!(after.day_bytes, before.day_bytes + bytes);
                        assert_eq!(after.month_bytes, before.month_bytes + bytes);
                        forwarded += bytes;
                        continue;
                    }
                    Verdict::Pong => assert_eq!(kind, Kind::Ping),
                    Verdict::Ignore => assert_eq!(kind, Kind::Pong),
                    Verdict::Later(wait) => {
                        assert!(kind == Kind::Stream && role == Role::Agent && !wait.is_zero());
                        // After that long it is decided.
                        let then = session.handle_message(now + wait, unix_ms, role, kind, bytes);
                        assert!(!matches!(then, Verdict::Later(_)));
                        if matches!(then, Verdict::Forward(_)) {
                            forwarded += bytes;
                        }
                        now += wait;
                        continue;
                    }
                    Verdict::Refuse(_) => {}
                }
                assert_eq!(after, before, "what is not forwarded is not counted");
            }
        }
        assert_eq!([session.connection(Role::Phone), session.connection(Role::Agent)], present);
        assert_eq!(session.is_empty(), present == [None, None]);
    }
    assert_eq!(reported + session.take_unreported(), forwarded);
});
