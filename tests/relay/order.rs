//! Order on connect, sentence by sentence, with clients that put upgrade, auth and messages into one write. With three
//! shards about two of three connections are handed over, bytes and all.

use crate::harness::{Client, PING, Random, Raw, Relay, UPGRADE, auth, frame, number_of, numbered, text};
use serde_json::{Value, json};

const ROUNDS: usize = 100;

#[test]
fn a_pair_forwards_byte_for_byte_in_both_directions() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let mut agent = Client::authed(&relay, &token, "agent");
    let mut phone = Client::authed(&relay, &token, "phone");
    assert_eq!((&agent.auth_ok["paired"], &phone.auth_ok["paired"]), (&json!(false), &json!(true)));
    assert_eq!(agent.expect("status"), json!({"peer": "online"}));
    for message in [
        r#"{"type":"chat.send"}"#,
        r#" { "payload" : null , "type" : "chat.send" , "id" : "x" , "ts" : 1.50e3 } "#,
        r#"{"v":1,"type":"new.type","id":"ü\u00fc","unknown":[1,{"a":[]}],"payload":{"n":123456789012345678901234}}"#,
        "\t{\"type\":\"chat.error\",\"payload\":\"\u{1f600}\\ud83d\\ude00\"}\r\n",
        &numbered("key_exchange", 1),
    ] {
        phone.send(message);
        assert_eq!(agent.text(), message);
        agent.send(message);
        assert_eq!(phone.text(), message);
    }
    phone.expect_nothing();
    agent.expect_nothing();
}

/// Upgrade, auth and `messages` as one client sends them.
fn pipelined(token: &str, role: &str, messages: &[String]) -> Vec<u8> {
    let mut bytes = UPGRADE.as_bytes().to_vec();
    bytes.extend(text(&auth(token, role)));
    bytes.extend(messages.iter().flat_map(|message| text(message)));
    bytes
}

#[test]
fn order_1_the_first_message_after_auth_is_auth_ok_although_the_peer_never_stops_sending() {
    let relay = Relay::start(&[]);
    for round in 0..ROUNDS {
        let token = relay.token();
        let mut phone = Raw::authed(&relay, &token, "phone");
        let mut agent = Raw::new(relay.connect());
        let flood: Vec<u8> = (0..20).flat_map(|n| text(&numbered("chat.send", n))).collect();
        phone.write(&flood);
        agent.write(&pipelined(&token, "agent", &[]));
        phone.write(&flood);
        agent.read_upgrade();
        let first = agent.json();
        assert_eq!((&first["type"], &first["payload"]["paired"]), (&json!("auth.ok"), &json!(true)), "round {round}");
    }
}

#[test]
fn order_1_a_refused_auth_is_answered_with_auth_fail_first_and_nothing_is_forwarded() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let mut agent = Client::authed(&relay, &token, "agent");
    for wrong in [auth("oc_pair_00000000000000000000000000000000", "phone"), auth(&token, "admin")] {
        let mut phone = Raw::new(relay.connect());
        let messages: Vec<u8> = (0..5).flat_map(|n| text(&numbered("chat.send", n))).collect();
        phone.write(&[UPGRADE.as_bytes(), &text(&wrong), &messages].concat());
        phone.read_upgrade();
        let first = phone.json();
        assert_eq!((&first["type"], &first["payload"]["code"]), (&json!("auth.fail"), &json!("UNAUTHORIZED")));
        assert_eq!(phone.closed().map(|(code, _)| code), Some(1008));
    }
    agent.expect_nothing();
}

#[test]
fn order_2_status_online_comes_before_any_message_of_the_newcomer_and_none_is_lost_or_reordered() {
    let relay = Relay::start(&[]);
    for round in 0..ROUNDS {
        let token = relay.token();
        let (there, newcomer) = if round % 2 == 0 { ("agent", "phone") } else { ("phone", "agent") };
        let mut first = Client::authed(&relay, &token, there);
        let mut messages = vec![numbered("key_exchange", 0)];
        messages.extend((1..20).map(|n| numbered("chat.history", n)));
        let mut second = Raw::new(relay.connect());
        second.write(&pipelined(&token, newcomer, &messages));
        assert_eq!(first.expect("status"), json!({"peer": "online"}), "round {round}");
        for message in &messages {
            assert_eq!(first.text(), *message, "round {round}");
        }
        second.read_upgrade();
        let answer = second.json();
        assert_eq!((&answer["type"], &answer["payload"]["paired"]), (&json!("auth.ok"), &json!(true)));
    }
}

#[test]
fn order_2_the_newcomers_bytes_may_be_cut_anywhere() {
    let relay = Relay::start(&[]);
    let mut random = Random(0x5eed_cafe);
    for round in 0..ROUNDS {
        let token = relay.token();
        let mut agent = Client::authed(&relay, &token, "agent");
        // One message is too large for what is sent in one piece, so that a part of it is handed over too.
        let mut messages: Vec<String> = (0..4).map(|n| numbered("chat.send", n)).collect();
        messages.insert(random.below(4), crate::harness::sized("file.part", 40_000 + round));
        let bytes = pipelined(&token, "phone", &messages);
        let mut phone = Raw::new(relay.connect());
        // The cuts lie near the seams: the end of the request, the auth frame, the heads of the messages.
        let seam = UPGRADE.len() + text(&auth(&token, "phone")).len();
        let mut cuts = [
            UPGRADE.len() - 2 + random.below(6),
            seam - 3 + round % 20,
            seam + random.below(bytes.len() - seam),
            random.below(bytes.len()),
        ];
        cuts.sort_unstable();
        let mut at = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            phone.write(&bytes[at..cut]);
            at = cut;
        }
        assert_eq!(agent.expect("status"), json!({"peer": "online"}), "round {round}, cuts {cuts:?}");
        for message in &messages {
            assert!(agent.text() == *message, "round {round}, cuts {cuts:?}");
        }
        phone.read_upgrade();
        assert_eq!(phone.json()["type"], "auth.ok");
    }
}

#[test]
fn order_2_status_online_comes_before_the_agents_own_key_exchange_can_reach_the_newcomer() {
    let relay = Relay::start(&[]);
    for round in 0..ROUNDS {
        let token = relay.token();
        let mut agent = Client::authed(&relay, &token, "agent");
        let mut phone = Raw::new(relay.connect());
        phone.write(&pipelined(&token, "phone", &[]));
        let total = 30;
        for number in 0..total {
            agent.send(numbered("key_exchange", number));
        }
        // Up to some number they are refused, from there on they arrive, and `status` is in between.
        let mut refused = 0;
        let status = loop {
            let message = agent.json();
            if message["type"] == "status" {
                break message;
            }
            assert_eq!(message["payload"]["code"], "PEER_OFFLINE", "round {round}: {message}");
            assert_eq!(number_of(&message), refused, "round {round}");
            refused += 1;
        };
        assert_eq!(status["payload"]["peer"], "online");
        phone.read_upgrade();
        assert_eq!(phone.json()["type"], "auth.ok", "round {round}");
        for number in refused..total {
            assert_eq!(phone.text(), numbered("key_exchange", number), "round {round}");
        }
        agent.expect_nothing();
    }
}

#[test]
fn order_3_status_online_never_goes_to_the_newcomer() {
    let relay = Relay::start(&[]);
    for _ in 0..ROUNDS {
        let token = relay.token();
        let mut agent = Client::authed(&relay, &token, "agent");
        let mut phone = Client::authed(&relay, &token, "phone");
        assert_eq!((&agent.auth_ok["paired"], &phone.auth_ok["paired"]), (&json!(false), &json!(true)));
        phone.expect_nothing();
        assert_eq!(agent.expect("status"), json!({"peer": "online"}));
        agent.expect_nothing();
    }
}

#[test]
fn order_4_a_key_exchange_to_nobody_earns_peer_offline_with_its_id() {
    let relay = Relay::start(&[]);
    for round in 0..ROUNDS {
        let token = relay.token();
        let mut agent = Raw::new(relay.connect());
        agent.write(&pipelined(&token, "agent", &[numbered("key_exchange", round)]));
        agent.read_upgrade();
        let first = agent.json();
        assert_eq!((&first["type"], &first["payload"]["paired"]), (&json!("auth.ok"), &json!(false)));
        let error = agent.json();
        assert_eq!((&error["type"], &error["payload"]["code"]), (&json!("chat.error"), &json!("PEER_OFFLINE")));
        assert_eq!(number_of(&error), round);
    }
}

#[test]
fn a_ping_in_the_same_write_as_the_upgrade_is_answered_behind_it() {
    let relay = Relay::start(&[]);
    for _ in 0..ROUNDS {
        let token = relay.token();
        let mut phone = Raw::new(relay.connect());
        let pings = [frame(true, PING, b"before"), text(&auth(&token, "phone")), frame(true, PING, b"behind")];
        phone.write(&[UPGRADE.as_bytes(), &pings.concat()].concat());
        phone.read_upgrade();
        assert_eq!(phone.json()["type"], "auth.ok");
        phone.write(&text(r#"{"type":"ping"}"#));
        assert_eq!(phone.json()["type"], "pong");
        assert_eq!(phone.pongs, [b"before", b"behind"]);
    }
}

#[test]
fn status_offline_comes_when_the_other_one_leaves_and_not_when_it_is_replaced() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let mut agent = Client::authed(&relay, &token, "agent");
    let mut old: Option<Client> = None;
    for _ in 0..20 {
        let mut new = Client::authed(&relay, &token, "phone");
        if let Some(mut old) = old.take() {
            assert_eq!(old.closed(), (4001, "replaced".to_owned()));
        }
        assert_eq!(agent.expect("status"), json!({"peer": "online"}));
        new.send(numbered("chat.send", 1));
        assert_eq!(agent.text(), numbered("chat.send", 1));
        agent.send(numbered("chat.done", 2));
        assert_eq!(new.text(), numbered("chat.done", 2));
        old = Some(new);
    }
    drop(old);
    assert_eq!(agent.expect("status"), json!({"peer": "offline"}));
    let payload: Value = {
        agent.send(numbered("chat.done", 3));
        agent.expect("chat.error")
    };
    assert_eq!(payload["code"], "PEER_OFFLINE");
}
