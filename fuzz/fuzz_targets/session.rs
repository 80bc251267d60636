//! Any sequence of operations on a session: nothing is forwarded to somebody who is not there, what is forwarded is
//! what is counted, and who has left is told to nobody twice.
#![no_main]

use coralmux_proto::envelope::Kind;
use coralmux_proto::limits::Limits;
use coralmux_proto::quota::Used;
use coralmux_proto::token::Role;
use coralmux_session::message::{Ext, RelayMessage};
use coralmux_session::policy::Policy;
use coralmux_session::{Effect, Farewell, Heard, Joined, Member, Presence, Session};
use libfuzzer_sys::fuzz_target;
use std::rc::Rc;
use std::time::Duration;

const KINDS: [Kind; 11] = [
    Kind::Auth,
    Kind::AuthReserved,
    Kind::Status,
    Kind::Ping,
    Kind::Pong,
    Kind::Stream,
    Kind::Done,
    Kind::Ack,
    Kind::KeyExchange,
    Kind::Relay,
    Kind::Other,
];

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
    let mut has_ext = [false; 2];
    let (mut now, mut unix_ms) = (Duration::ZERO, 1_709_208_000_000);
    let (mut forwarded, mut reported, mut next) = (0u64, 0u64, 0u32);
    for operation in operations.chunks_exact(4) {
        let [what, a, b, c] = *operation else { return };
        let role = if what & 1 == 0 { Role::Phone } else { Role::Agent };
        match what >> 1 & 7 {
            0 => {
                next += 1;
                let replaced = present[role as usize].replace(next);
                let peer = present[role.peer() as usize];
                let ext = a & 1 == 1;
                has_ext[role as usize] = ext;
                let joined = session.join(Member::new(next, role, 0, now).with_ext(ext), None, unix_ms);
                let Joined { gone, welcome, told, .. } = joined.expect("the token is not bound");
                assert!(gone.into_iter().eq(replaced.map(|it| Effect::Close(it, Farewell::Replaced))));
                if let Some(replaced) = replaced {
                    assert_eq!(session.leave(replaced), []);
                }
                let expected = if ext { Ext::Plain } else { Ext::No };
                assert_eq!((welcome.paired, welcome.ext), (peer.is_some(), expected));
                let online = peer.map(|peer| Effect::Tell(peer, RelayMessage::Status { online: true }));
                assert!(told.into_iter().eq(online));
            }
            1 => {
                // The one that is there, or one that may have left or been replaced.
                let id = if a & 1 == 0 { present[role as usize].unwrap_or(0) } else { u32::from(b) };
                let role = if present[role.peer() as usize] == Some(id) { role.peer() } else { role };
                let was_there = present[role as usize] == Some(id);
                let peer = present[role.peer() as usize].filter(|_| was_there);
                let told = peer.map(|peer| Effect::Tell(peer, RelayMessage::Status { online: false }));
                assert_eq!(session.leave(id), told.into_iter().collect::<Vec<_>>());
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
                let (kind, bytes) = (KINDS[usize::from(a % 11)], u64::from(c) * 20);
                let Some(from) = present[role as usize] else { continue };
                let before = session.used(unix_ms);
                let effect = session.handle_message(now, unix_ms, from, Heard::new(kind, bytes));
                let after = session.used(unix_ms);
                match effect {
                    Effect::Forward(to) => {
                        assert_eq!(Some(to), present[role.peer() as usize]);
                        assert!(
                            matches!(kind, Kind::Other | Kind::Ack | Kind::KeyExchange | Kind::Relay)
                                || role == Role::Agent && matches!(kind, Kind::Stream | Kind::Done)
                        );
                        assert_eq!(after.day_bytes, before.day_bytes + bytes);
                        assert_eq!(after.month_bytes, before.month_bytes + bytes);
                        forwarded += bytes;
                        continue;
                    }
                    Effect::Tell(to, message) => {
                        assert_eq!((to, message, kind), (from, RelayMessage::Pong, Kind::Ping))
                    }
                    Effect::Close(..) => panic!("a message closes nobody"),
                    Effect::Keep(_) => panic!("there are no devices"),
                    Effect::Nothing => assert_eq!(kind, Kind::Pong),
                    Effect::Later(wait) => {
                        let is_stream = kind == Kind::Stream && role == Role::Agent;
                        let is_own_ack = kind == Kind::Ack && has_ext[role as usize] && bytes <= 2048;
                        assert!((is_stream || is_own_ack) && !wait.is_zero());
                        // After that long it is decided.
                        let then = session.handle_message(now + wait, unix_ms, from, Heard::new(kind, bytes));
                        assert!(!matches!(then, Effect::Later(_)));
                        if matches!(then, Effect::Forward(_)) {
                            forwarded += bytes;
                        }
                        now += wait;
                        continue;
                    }
                    Effect::Order | Effect::Wake(..) => panic!("nobody has shown a key"),
                    Effect::Refuse(_) => {}
                }
                assert_eq!(after, before, "what is not forwarded is not counted");
            }
        }
        for role in Role::ALL {
            assert!(session.connections(role).eq(present[role as usize]));
        }
        let expected = [Presence::Empty, Presence::Waiting, Presence::Paired];
        assert_eq!(session.presence(), expected[present.iter().flatten().count()]);
    }
    assert_eq!(reported + session.take_unreported(), forwarded);
});
