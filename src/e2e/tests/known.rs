//! Known answers: those of the standards, and the vectors that all implementations share.

use super::{TOKEN, raw, reply};
use crate::*;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::VecDeque;

const V1: &str = include_str!("../../../clients/vectors/e2e_v1.json");
const V2: &str = include_str!("../../../clients/vectors/e2e_v2.json");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn key(hex: &str) -> [u8; 32] {
    bytes(hex).try_into().unwrap()
}

/// A source of randomness that gives out these values (hex), in this order, and no more.
fn drawn<'a>(values: impl IntoIterator<Item = &'a str>) -> impl Random + Send + 'static {
    let mut values: VecDeque<_> = values.into_iter().map(bytes).collect();
    move |out: &mut [u8]| out.copy_from_slice(&values.pop_front().unwrap())
}

fn same(left: &RawValue, right: &RawValue) {
    let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap();
    assert_eq!(value(left), value(right));
}

#[derive(Deserialize)]
struct Exchanges {
    phone: Box<RawValue>,
    agent: Box<RawValue>,
}

#[derive(Deserialize)]
struct Pair {
    phone_private: String,
    phone_public: String,
    agent_private: String,
    agent_public: String,
    shared: String,
    key: String,
    fingerprint: String,
    key_exchange: Exchanges,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    nonce: String,
    plaintext: Box<str>,
    payload: Box<RawValue>,
}

#[derive(Deserialize)]
struct Refused {
    why: String,
    payload: Box<RawValue>,
}

#[derive(Deserialize)]
struct Version1 {
    pairs: Vec<Pair>,
    messages: Vec<Message>,
    refused: Vec<Refused>,
    refused_public_keys: Vec<String>,
}

#[test]
fn version_1_agrees_the_vectors_keys() {
    let vectors: Version1 = serde_json::from_str(V1).unwrap();
    for pair in &vectors.pairs {
        let own = v1::KeyPair::from_private(key(&pair.phone_private));
        let other = v1::KeyPair::from_private(key(&pair.agent_private));
        assert_eq!((own.public(), other.public()), (&key(&pair.phone_public), &key(&pair.agent_public)));
        assert_eq!(*own.shared(other.public()).unwrap().as_bytes(), key(&pair.shared));
        assert_eq!(*v1::derive(&key(&pair.shared)), key(&pair.key));
        assert_eq!(Fingerprint::of(own.public(), other.public()).to_string(), pair.fingerprint);

        let mut phone = End::phone(TOKEN, None, drawn([pair.phone_private.as_str()]));
        let mut agent = End::agent(TOKEN, None, drawn([pair.agent_private.as_str()]));
        let announcement = agent.handle_online().unwrap().payload;
        same(&announcement, &pair.key_exchange.agent);
        let of_phone = reply(phone.handle_key_exchange(None, Some(&announcement), ""));
        same(&of_phone, &pair.key_exchange.phone);
        agent.handle_key_exchange(None, Some(&of_phone), "").unwrap();
        for end in [phone, agent] {
            assert_eq!(end.fingerprint().unwrap().to_string(), pair.fingerprint);
        }
    }
}

#[test]
fn version_1_seals_opens_and_refuses_as_the_vectors_have_it() {
    let vectors: Version1 = serde_json::from_str(V1).unwrap();
    let pair = &vectors.pairs[0];
    let agreed = v1::KeyPair::from_private(key(&pair.agent_private));
    let mut agreed = agreed.agree(&key(&pair.phone_public)).unwrap();
    let mut nonces = drawn(vectors.messages.iter().map(|message| message.nonce.as_str()));
    for message in &vectors.messages {
        let sealed = agreed.seal(&mut nonces, &raw(&message.plaintext)).unwrap();
        assert_eq!(sealed.get(), compact(&message.payload));
        let opened = agreed.open(&message.payload).unwrap().unwrap();
        assert_eq!(opened.get(), &*message.plaintext);
    }
    for Refused { why, payload } in &vectors.refused {
        assert!(agreed.open(payload).is_err(), "{why}");
    }
}

/// A payload as it is sent: without white space, its fields in their order.
fn compact(payload: &RawValue) -> String {
    #[derive(Deserialize, serde::Serialize)]
    struct InOrder<'a> {
        enc: bool,
        ciphertext: &'a str,
        nonce: &'a str,
    }
    serde_json::to_string(&serde_json::from_str::<InOrder<'_>>(payload.get()).unwrap()).unwrap()
}

#[test]
fn public_keys_of_low_order_or_wrong_length_are_refused() {
    let vectors: Version1 = serde_json::from_str(V1).unwrap();
    let mut agent = End::agent(TOKEN, None, drawn([vectors.pairs[0].agent_private.as_str()]));
    agent.handle_online();
    for public in &vectors.refused_public_keys {
        let payload = raw(&format!(r#"{{"pubkey":"{public}"}}"#));
        let refused = agent.handle_key_exchange(None, Some(&payload), "").unwrap_err();
        assert!(matches!(refused, ExchangeError::Key(_)), "{public}: {refused}");
    }
    assert_eq!(vectors.refused_public_keys.len(), 10);
}

#[derive(Deserialize)]
struct Links {
    relay: String,
    for_apps: String,
    for_browsers: String,
}

#[derive(Deserialize)]
struct Fillers {
    announcement: String,
    opening: String,
    answer: String,
}

#[derive(Deserialize)]
struct Three {
    announcement: Box<RawValue>,
    opening: Box<RawValue>,
    answer: Box<RawValue>,
}

#[derive(Deserialize)]
struct Arrival {
    #[serde(rename = "type")]
    kind: String,
    payload: Box<RawValue>,
    opens: Option<String>,
    #[serde(default)]
    missed: u64,
    #[serde(default)]
    why: String,
}

#[derive(Deserialize)]
struct RefusedHandshake {
    why: String,
    noise: String,
}

#[derive(Deserialize)]
struct Version2 {
    token: String,
    secret: String,
    links: Links,
    phone_ephemeral_private: String,
    agent_ephemeral_private: String,
    fillers: Fillers,
    opening_id: String,
    key_exchange: Three,
    messages: Vec<Message>,
    arrivals: Vec<Arrival>,
    refused_message_1: Vec<RefusedHandshake>,
    refused_message_2: Vec<RefusedHandshake>,
}

impl Version2 {
    fn read() -> Self {
        serde_json::from_str(V2).unwrap()
    }

    fn secret(&self) -> PairingSecret {
        PairingSecret::from_bytes(key(&self.secret))
    }

    fn announced_agent(&self) -> End {
        let random = [&self.fillers.announcement, &self.agent_ephemeral_private, &self.fillers.answer];
        let mut agent = End::agent(&self.token, Some(self.secret()), drawn(random.map(String::as_str)));
        same(&agent.handle_online().unwrap().payload, &self.key_exchange.announcement);
        agent
    }

    fn opening_phone(&self) -> End {
        let random = [&self.phone_ephemeral_private, &self.fillers.opening];
        let mut phone = End::phone(&self.token, Some(self.secret()), drawn(random.map(String::as_str)));
        let announcement = &self.key_exchange.announcement;
        let opening = phone.handle_key_exchange(None, Some(announcement), &self.opening_id);
        same(&reply(opening), &self.key_exchange.opening);
        phone
    }

    fn ends(&self) -> (End, End) {
        let (mut phone, mut agent) = (self.opening_phone(), self.announced_agent());
        let opening = &self.key_exchange.opening;
        let answer = agent.handle_key_exchange(Some(&self.opening_id), Some(opening), "");
        same(&reply(answer), &self.key_exchange.answer);
        assert!(phone.handle_key_exchange(None, Some(&self.key_exchange.answer), "").unwrap().agreed);
        (phone, agent)
    }

    /// A `key_exchange` payload with another handshake message.
    fn with_noise(payload: &RawValue, noise: &str) -> Box<RawValue> {
        let mut payload: Value = serde_json::from_str(payload.get()).unwrap();
        payload["noise"] = noise.into();
        to_raw_value(&payload).unwrap()
    }
}

#[test]
fn version_2_exchanges_the_vectors_messages() {
    let vectors = Version2::read();
    let (mut phone, mut agent) = vectors.ends();
    for message in &vectors.messages {
        let (from, to) = if message.from == "phone" { (&mut phone, &mut agent) } else { (&mut agent, &mut phone) };
        let sealed = from.seal(&message.kind, Some(&raw(&message.plaintext))).unwrap();
        assert_eq!(sealed.get(), compact(&message.payload));
        let opened = to.open(&message.kind, Some(&message.payload)).unwrap();
        assert_eq!((opened.payload.get(), opened.protection), (&*message.plaintext, Protection::Verified));
    }
    assert_eq!(vectors.messages.len(), 8);
}

#[test]
fn version_2_takes_and_refuses_what_arrives_as_the_vectors_have_it() {
    let vectors = Version2::read();
    let (_, mut agent) = vectors.ends();
    for Arrival { kind, payload, opens, missed, why } in &vectors.arrivals {
        let opened = agent.open(kind, Some(payload));
        let Some(opens) = opens else {
            assert!(opened.is_err(), "{why}");
            continue;
        };
        let opened = opened.unwrap();
        same(&opened.payload, &raw(opens));
        assert_eq!(opened.missed, *missed);
    }
}

#[test]
fn version_2_refuses_the_vectors_false_handshakes() {
    let vectors = Version2::read();
    let (mut phone, mut agent) = (vectors.opening_phone(), vectors.announced_agent());
    for RefusedHandshake { why, noise } in &vectors.refused_message_1 {
        // Each try draws an ephemeral key, even where the message is invalid.
        let random = drawn([vectors.agent_ephemeral_private.as_str()]);
        let mut agent = End::agent(&vectors.token, Some(vectors.secret()), random);
        let payload = Version2::with_noise(&vectors.key_exchange.opening, noise);
        let refused = agent.handle_key_exchange(None, Some(&payload), "").unwrap_err();
        assert!(matches!(refused, ExchangeError::WrongSecret | ExchangeError::Malformed), "{why}: {refused}");
        assert_eq!(agent.seal("chat.stream", None).unwrap_err(), SealError::Waiting, "{why}");
    }
    for RefusedHandshake { why, noise } in &vectors.refused_message_2 {
        let payload = Version2::with_noise(&vectors.key_exchange.answer, noise);
        let refused = phone.handle_key_exchange(None, Some(&payload), "").unwrap_err();
        assert!(matches!(refused, ExchangeError::WrongSecret | ExchangeError::Malformed), "{why}: {refused}");
    }
    let answer = agent.handle_key_exchange(Some(&vectors.opening_id), Some(&vectors.key_exchange.opening), "");
    assert!(phone.handle_key_exchange(None, Some(&reply(answer)), "").unwrap().agreed);
}

#[test]
fn links_are_those_of_the_vectors() {
    let vectors = Version2::read();
    let link = Link {
        token: vectors.token.clone(),
        relay: vectors.links.relay.clone(),
        secret: Some(vectors.secret()),
        agent: None,
    };
    assert_eq!(link.for_apps(), vectors.links.for_apps);
    assert_eq!(link.for_browsers().unwrap(), vectors.links.for_browsers);
}

/// RFC 7748, section 6.1.
#[test]
fn x25519_gives_the_rfcs_answer() {
    let alice = v1::KeyPair::from_private(key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    let bob = v1::KeyPair::from_private(key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    assert_eq!(*alice.public(), key("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
    assert_eq!(*bob.public(), key("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
    let shared = key("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(*alice.shared(bob.public()).unwrap().as_bytes(), shared);
    assert_eq!(*bob.shared(alice.public()).unwrap().as_bytes(), shared);
}

/// RFC 5869, appendix A.1.
#[test]
fn hkdf_gives_the_rfcs_answer() {
    let mut okm = [0; 42];
    let (salt, info) = (bytes("000102030405060708090a0b0c"), bytes("f0f1f2f3f4f5f6f7f8f9"));
    hkdf::Hkdf::<sha2::Sha256>::new(Some(&salt), &[0x0b; 22]).expand(&info, &mut okm).unwrap();
    let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
    assert_eq!(okm.as_slice(), bytes(expected));
}

/// The test cases 13 to 16 of the GCM specification that was submitted to NIST.
#[test]
fn aes_256_gcm_gives_nists_answers() {
    let zeros = gcm::Gcm::new(&[0; 32]);
    assert_eq!(zeros.seal(&[0; 12], b"", b""), bytes("530f8afbc74536b9a963b4f1c4cb738b"));
    let sealed = bytes("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    assert_eq!(zeros.seal(&[0; 12], b"", &[0; 16]), sealed);

    let cipher = gcm::Gcm::new(&key(&"feffe9928665731c6d6a8f9467308308".repeat(2)));
    let nonce = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
    let plaintext = bytes(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
    );
    let ciphertext = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";
    let tag = "b094dac5d93471bdec1a502270e3cc6c";
    assert_eq!(cipher.seal(&nonce, b"", &plaintext), bytes(&format!("{ciphertext}{tag}")));
    let associated = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let tag = "76fc6ece0f4e1768cddf8853bb2d551b";
    let sealed = bytes(&format!("{}{tag}", &ciphertext[..120]));
    assert_eq!(cipher.seal(&nonce, &associated, &plaintext[..60]), sealed);
    assert_eq!(cipher.open(&nonce, &associated, sealed.clone()).unwrap(), &plaintext[..60]);
    assert!(cipher.open(&nonce, b"", sealed).is_none());
}

/// The vector of this protocol that the Haskell library cacophony published (and snow tests itself with).
#[test]
fn the_handshake_gives_cacophonys_answers() {
    let psk = PairingSecret::from_bytes(*b"This is my Austrian perspective!");
    let side = |ephemeral: &str, initiator| v2::handshake(b"John Galt", &psk, key(ephemeral), initiator);
    let mut phone = side("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a", true);
    let mut agent = side("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b", false);
    let (mut message, mut payload) = ([0; 128], [0; 128]);

    let written = phone.write_message(b"Ludwig von Mises", &mut message).unwrap();
    let expected = "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79447c37a89fc17813788d30df2d59501d6066f5f8aecc3406bbd9829f2d24a531b1";
    assert_eq!(message[..written], bytes(expected));
    agent.read_message(&message[..written], &mut payload).unwrap();
    let written = agent.write_message(b"Murray Rothbard", &mut message).unwrap();
    let expected = "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088432f29d79368ef9de4e1ae7a362fb05bf0ad668e026bf5714554497b3a720461";
    assert_eq!(message[..written], bytes(expected));
    phone.read_message(&message[..written], &mut payload).unwrap();
    let hash = bytes("9f3b1f9afd7767767b5b9d1069844a6154fdbdcc36dfb3e31c0fffc5c973d530");
    assert_eq!((phone.get_handshake_hash(), agent.get_handshake_hash()), (hash.as_slice(), hash.as_slice()));

    // What Noise's transport does with the split keys and counter 0 is what ours does.
    let (from_phone, from_agent) = phone.dangerously_get_raw_split();
    assert_eq!((from_phone, from_agent), agent.dangerously_get_raw_split());
    let nonce = v2::nonce_of(0);
    let sealed = bytes("7c01e898a6201f36aecee532e29cd0b7f8ffa29d3366ad0dce39a6");
    assert_eq!(gcm::Gcm::new(&from_phone).seal(&nonce, b"", b"F. A. Hayek"), sealed);
    let sealed = bytes("a9ff535aace3db6a1da1a7fb00fe2de2622bb373abad9fb42c00e0");
    assert_eq!(gcm::Gcm::new(&from_agent).seal(&nonce, b"", b"Carl Menger"), sealed);
}
