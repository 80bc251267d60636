//! The thread and the connections that it makes, against servers of the test's own.

use super::resolver::PublicOnly;
use super::*;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use ring::rand::SystemRandom;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;
use tower_service::Service;

const TARGET: Target = Target { token: TokenKey(7), device: DeviceId(1) };
const SECRET: &[u8] = b"0123456789abcdef";

fn notifier(hosts: &[&str], hook: Option<&str>) -> Arc<Notifier> {
    let random = SystemRandom::new();
    let key = VapidKey::from_pkcs8(&VapidKey::make(&random).unwrap(), &random).unwrap();
    let rules = Rules {
        contact: None,
        notification: Notification::new("Something").unwrap(),
        hosts: hosts.iter().map(|host| host.parse::<crate::push::HostRule>().unwrap()).collect(),
        hook: hook.map(|url| Hook { url: url.parse().unwrap(), secret: SECRET.to_vec() }),
    };
    Arc::new(Notifier::new(rules, key))
}

/// Answers each look-up with the next of these addresses.
#[derive(Clone)]
struct Answers(Arc<Mutex<VecDeque<Vec<IpAddr>>>>);

impl Service<Name> for Answers {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        let addresses = self.0.lock().unwrap().pop_front().unwrap();
        ready(Ok(addresses.into_iter().map(|address| (address, 0).into()).collect::<Vec<_>>().into_iter()))
    }
}

/// Sends a request for `name` to the listener's port, as its look-ups are answered; the errors.
fn requests(notifier: &Arc<Notifier>, name: &str, port: u16, answers: &[&[&str]]) -> Vec<String> {
    let parsed = answers.iter().map(|one| one.iter().map(|address| address.parse().unwrap()).collect());
    let inner = Answers(Arc::new(Mutex::new(parsed.collect())));
    let mut connector = HttpConnector::new_with_resolver(PublicOnly { notifier: Arc::clone(notifier), inner });
    connector.set_connect_timeout(Some(Duration::from_millis(300)));
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url: http::Uri = format!("http://{name}:{port}/").parse().unwrap();
    let request = || runtime.block_on(client.get(url.clone())).unwrap_err();
    answers.iter().map(|_| format!("{:?}", request())).collect()
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn nobody_came(listener: &TcpListener) -> bool {
    listener.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn a_name_that_leads_into_the_operators_network_is_not_connected_to() {
    let (listener, port) = listener();
    let notifier = notifier(&["named.example", "*.under.example"], None);
    for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fc00::7", "::ffff:127.0.0.1", "100.64.0.1"] {
        let errors = requests(&notifier, "push.example", port, &[&[address]]);
        assert!(errors[0].contains("no address in the public Internet"), "{address}: {}", errors[0]);
    }
    let errors = requests(&notifier, "a.under.example", port, &[&["127.0.0.1"]]);
    assert!(errors[0].contains("no address in the public Internet"), "{}", errors[0]);
    assert!(nobody_came(&listener));
}

#[test]
fn a_name_that_leads_elsewhere_the_second_time_is_looked_at_each_time() {
    let (listener, port) = listener();
    // Documentation addresses are not public either, so the first connection is one that nobody answers.
    let errors = requests(&notifier(&[], None), "rebind.example", port, &[&["192.31.195.1"], &["127.0.0.1"]]);
    assert!(!errors[0].contains("no address in the public Internet"), "{}", errors[0]);
    assert!(errors[1].contains("no address in the public Internet"), "{}", errors[1]);
    assert!(nobody_came(&listener));
}

#[test]
fn what_the_operator_has_named_may_be_anywhere() {
    let (listener, port) = listener();
    let server = thread::spawn(move || {
        listener.set_nonblocking(false).unwrap();
        // It says nothing.
        drop(listener.accept().unwrap());
    });
    let errors = requests(&notifier(&["named.example"], None), "named.example", port, &[&["127.0.0.1"]]);
    assert!(!errors[0].contains("no address in the public Internet"), "{}", errors[0]);
    server.join().unwrap();
}

/// A gateway that answers each request with the next of these, and tells what it was sent.
fn gateway(answers: &'static [&'static str]) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/wake", listener.local_addr().unwrap());
    let (sender, received) = channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut bytes = [0; 1024];
                let read = stream.read(&mut bytes).unwrap();
                request.extend_from_slice(&bytes[..read]);
            }
            stream.write_all(format!("HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
            sender.send(String::from_utf8(request).unwrap()).unwrap();
        }
    });
    (url, received)
}

/// A control that knows one subscription; what it is told that has ended.
fn control(notifier: &Arc<Notifier>) -> Receiver<(Target, PushState)> {
    let (ended, ends): (Sender<_>, _) = channel();
    let answering = Arc::downgrade(notifier);
    notifier.connect(Box::new(move |question| {
        match question {
            Question::Subscription(target) => {
                let json = r#"{"kind":"hook","handle":"apns:1"}"#.to_owned();
                answering.upgrade().unwrap().answer(target, Some(json));
            }
            Question::End { target, state, .. } => ended.send((target, state)).unwrap(),
        }
        Ok(())
    }));
    notifier.start();
    ends
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_device_is_woken_by_a_signed_request_and_forgotten_where_the_gateway_says_so() {
    let (url, requests) = gateway(&["204 No Content", "410 Gone"]);
    let notifier = notifier(&[], Some(&url));
    let ends = control(&notifier);
    notifier.kept(TARGET.token, TARGET.device);
    let request = requests.recv_timeout(SOON).unwrap();
    assert!(request.starts_with("POST /wake HTTP/1.1\r\n"), "{request}");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, r#"{"v":1,"handle":"apns:1","ttl":86400}"#);
    let signature = head.lines().find_map(|line| line.strip_prefix("x-coralmux-signature: ")).unwrap();
    let at = signature.strip_prefix("t=").unwrap().split_once(',').unwrap().0.parse().unwrap();
    assert_eq!(signature, crate::push::hook_signature(SECRET, at, body));
    // It was there, and is away again.
    notifier.kept(TARGET.token, TARGET.device);
    notifier.present(TARGET.token, TARGET.device);
    notifier.kept(TARGET.token, TARGET.device);
    assert_eq!(requests.recv_timeout(SOON).unwrap().split_once("\r\n\r\n").unwrap().1, body);
    assert_eq!(ends.recv_timeout(SOON).unwrap(), (TARGET, PushState::Gone));
    let sent: Vec<_> = notifier.figures().sent().filter(|&(.., count)| count != 0).collect();
    assert_eq!(sent, [(Kind::Hook, Outcome::Delivered, 1), (Kind::Hook, Outcome::Gone, 1)]);
}

#[test]
fn a_failure_is_tried_once_more_after_the_time_that_it_names_and_a_refusal_is_told() {
    let (url, requests) =
        gateway(&["503 Unavailable\r\nRetry-After: 1", "302 Found\r\nLocation: http://127.0.0.1:1/", "403 Forbidden"]);
    let notifier = notifier(&[], Some(&url));
    let ends = control(&notifier);
    notifier.kept(TARGET.token, TARGET.device);
    for _ in 0..2 {
        requests.recv_timeout(SOON).unwrap();
    }
    assert_eq!(notifier.figures().refused(Instant::now()), None);
    notifier.present(TARGET.token, TARGET.device);
    notifier.kept(TARGET.token, TARGET.device);
    requests.recv_timeout(SOON).unwrap();
    assert_eq!(ends.recv_timeout(SOON).unwrap(), (TARGET, PushState::Refused));
    assert_eq!(notifier.figures().refused(Instant::now()), Some(403));
    assert!(notifier.state(Instant::now()).contains("403"));
    let sent: Vec<_> = notifier.figures().sent().filter(|&(.., count)| count != 0).collect();
    assert_eq!(sent, [(Kind::Hook, Outcome::Refused, 1), (Kind::Hook, Outcome::Failed, 2)]);
}

#[test]
fn five_failures_in_a_row_end_a_subscription() {
    let (url, requests) = gateway(&["500 Bad"; 5]);
    let notifier = notifier(&[], Some(&url));
    let ends = control(&notifier);
    for _ in 0..5 {
        notifier.present(TARGET.token, TARGET.device);
        notifier.kept(TARGET.token, TARGET.device);
        requests.recv_timeout(SOON).unwrap();
    }
    assert_eq!(ends.recv_timeout(SOON).unwrap(), (TARGET, PushState::Gone));
}

#[test]
fn what_is_offered_depends_on_what_the_operator_has_given() {
    let without = notifier(&[], None);
    assert_eq!(&*without.offer(PushState::None), r#"{"kinds":["unifiedpush"],"state":"none"}"#);
    let with = notifier(&[], Some("http://127.0.0.1:1/"));
    let mut rules = Rules { contact: "mailto:a@b.example".parse().ok(), ..copy(&with.rules()) };
    rules.hook = Some(Hook { url: "http://127.0.0.1:1/".parse().unwrap(), secret: SECRET.to_vec() });
    with.set_rules(rules);
    let offer: serde_json::Value = serde_json::from_str(&with.offer(PushState::Gone)).unwrap();
    assert_eq!(offer["vapid"].as_str().unwrap().len(), 87);
    assert_eq!(offer["kinds"], serde_json::json!(["webpush", "unifiedpush", "hook"]));
    assert_eq!(offer["state"], "gone");
    assert_eq!(with.state(Instant::now()), "ok");
    assert!(without.state(Instant::now()).contains("--push-contact"));
}

fn copy(rules: &Rules) -> Rules {
    Rules { contact: None, notification: rules.notification.clone(), hosts: rules.hosts.clone(), hook: None }
}
