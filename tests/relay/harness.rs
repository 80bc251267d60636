//! The real relay as a process of its own, and two clients: tungstenite, and one that writes its frames by hand.
//!
//! Everything waits for events with a deadline, [`DEADLINE`]; nothing sleeps for luck.

use coralmux_proto::owner::owner;
use coralmux_proto::token::TokenHash;
use coralmux_test_support::frames;
pub(crate) use coralmux_test_support::frames::{CLOSE, CONTINUATION, PING, PONG, TEXT};
use coralmux_test_support::launch::{self, Process};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

/// By when anything that is waited for has to have happened, on the slowest of machines.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// More than one, so that most connections are handed over to another shard.
pub(crate) const SHARDS: u16 = 3;
const ADMIN_KEY: &str = "test-key";

/// A relay process; killed when it goes out of scope.
pub(crate) struct Relay {
    process: Process,
    address: SocketAddr,
    directory: Arc<TempDir>,
    log: Arc<Mutex<String>>,
}

impl Relay {
    /// Starts a relay with a store of its own, and waits until it is ready. Limits are lifted but for `flags`.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), flags)
    }

    /// Starts a relay on the store that another has left.
    pub(crate) fn start_in(directory: Arc<TempDir>, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coralmux-relay"));
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        launch::relay(&mut command, any_port, ADMIN_KEY, &directory.path().join("relay.db"));
        command.args(["--shards", &SHARDS.to_string(), "--log-format", "json"]);
        launch::lift_limits(&mut command, flags);
        command.env_remove("RELAY_ADMIN_KEY").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, is_ready) = mpsc::channel();
        let kept = Arc::clone(&log);
        // Ends with the process, whose standard error it reads.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let json: Value = serde_json::from_str(&line).unwrap_or_default();
                if json["message"] == "ready" {
                    let _ = ready.send(json["listen"].as_str().unwrap().parse().unwrap());
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let address = is_ready.recv_timeout(DEADLINE).unwrap_or_else(|e| panic!("{e}:\n{}", log.lock().unwrap()));
        Self { process, address, directory, log }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens with TLS, as it says itself.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        let mut address = None;
        wait_until("the ready line", || {
            let log = self.log();
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            address = lines.find_map(|line| line["tls"].as_str()?.parse().ok());
            address.is_some()
        });
        address.unwrap()
    }

    /// Where it keeps its store.
    pub(crate) fn directory(&self) -> Arc<TempDir> {
        Arc::clone(&self.directory)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        ended("the relay", &mut self.process)
    }

    /// Stops it as an operator does.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// Its resident memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    /// A socket with a deadline on each read and write.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// One HTTP call with the admin key: status and body.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut stream = self.connect();
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nX-Admin-Key: {ADMIN_KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    /// A new token.
    pub(crate) fn token(&self) -> String {
        self.token_with(None)
    }

    /// A new token with a body of its own, for limits.
    pub(crate) fn token_with(&self, body: Option<Value>) -> String {
        let (status, answer) = self.call("POST", "/api/v1/pair", body);
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    /// Tokens that one shard owns.
    pub(crate) fn tokens_of_a_shard<const COUNT: usize>(&self) -> [String; COUNT] {
        let shard = |token: &str| owner(TokenHash::of(token).key(), SHARDS);
        let first = self.token();
        let others = std::iter::repeat_with(|| self.token()).filter(|token| shard(token) == shard(&first));
        let all: Vec<String> = std::iter::once(first.clone()).chain(others).take(COUNT).collect();
        all.try_into().unwrap()
    }

    /// Who is online, as the API tells it.
    pub(crate) fn online(&self, token: &str) -> (bool, bool) {
        let (_, answer) = self.call("GET", &format!("/api/v1/pair/{token}"), None);
        (answer["phone"] == true, answer["agent"] == true)
    }
}

/// Waits for a process's end.
pub(crate) fn ended(what: &str, process: &mut Process) -> ExitStatus {
    process.wait_for_end(DEADLINE).unwrap().unwrap_or_else(|| panic!("waited in vain for {what}'s end"))
}

/// Looks again and again, up to the deadline.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Small random numbers (xorshift); a failing test shows its seed in the message numbers that it prints.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// An auth message.
pub(crate) fn auth(token: &str, role: &str) -> String {
    json!({"v": 1, "type": "auth", "id": "a", "payload": {"token": token, "role": role}}).to_string()
}

/// A message that says which one it is; with odd spaces that a re-encoding would lose.
pub(crate) fn numbered(kind: &str, number: usize) -> String {
    format!(r#"{{"v":1, "type":"{kind}",  "id":"n-{number}","ts":1707451200000 ,"payload":{{"n":{number}}}}}"#)
}

/// The number of a message of [`numbered`], or of one that an error is about.
pub(crate) fn number_of(message: &Value) -> usize {
    let text = message["payload"]["ref"].as_str().or(message["id"].as_str());
    let number = text.and_then(|text| text.strip_prefix("n-")).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{message}"))
}

/// A message of that many bytes in all.
pub(crate) fn sized(kind: &str, bytes: usize) -> String {
    let (head, tail) = (format!(r#"{{"type":"{kind}","id":"big","payload":""#), "\"}");
    let filler = bytes.checked_sub(head.len() + tail.len()).unwrap();
    // A pattern of a prime length, so that a part in the wrong place shows.
    let pattern: String = (0..1009u32).map(|n| char::from(b'a' + (n * n % 26) as u8)).collect();
    format!("{head}{}{tail}", &pattern.repeat(filler / pattern.len() + 1)[..filler])
}

/// A client on tungstenite.
pub(crate) struct Client {
    pub(crate) socket: WebSocket<TcpStream>,
    /// What `auth.ok` said.
    pub(crate) auth_ok: Value,
    /// The payloads of the pongs that came meanwhile.
    pub(crate) pongs: Vec<Vec<u8>>,
}

impl Client {
    /// Connects and authenticates.
    pub(crate) fn authed(relay: &Relay, token: &str, role: &str) -> Self {
        Self::authed_on(relay.connect(), token, role)
    }

    /// Authenticates over a socket that is connected.
    pub(crate) fn authed_on(stream: TcpStream, token: &str, role: &str) -> Self {
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = tungstenite::client::client_with_config("ws://relay/ws", stream, Some(config)).unwrap();
        let mut client = Self { socket, auth_ok: Value::Null, pongs: Vec::new() };
        client.send(auth(token, role));
        let first = client.json();
        assert_eq!(first["type"], "auth.ok", "{first}");
        client.auth_ok = first["payload"].clone();
        client
    }

    /// Sends a text message.
    pub(crate) fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).unwrap();
    }

    /// The next text message.
    pub(crate) fn text(&mut self) -> String {
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < DEADLINE, "waited in vain for a message");
            match self.socket.read() {
                Ok(Message::Text(text)) => return text.as_str().to_owned(),
                Ok(Message::Pong(payload)) => self.pongs.push(payload.to_vec()),
                Ok(Message::Ping(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next text message, read.
    pub(crate) fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// The next message, which has to be of that type: its payload.
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        let message = self.json();
        assert_eq!(message["type"], kind, "{message}");
        message["payload"].clone()
    }

    /// Asks the relay for a pong, which comes behind all that it had queued, and panics if something else comes.
    pub(crate) fn expect_nothing(&mut self) {
        self.send(r#"{"type":"ping"}"#);
        self.expect("pong");
    }

    /// Reads until the close frame: its code and reason.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => {
                    return frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.as_str().to_owned()));
                }
                Ok(_) => {}
                Err(error) => panic!("no close frame: {error}"),
            }
        }
    }
}

/// A request for an upgrade.
pub(crate) const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client's frame, masked.
pub(crate) fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    frames::frame(fin, opcode, payload, [0x12, 0x9a, 0x5b, 0xfe])
}

/// A whole text message as one frame.
pub(crate) fn text(payload: &str) -> Vec<u8> {
    frame(true, TEXT, payload.as_bytes())
}

/// A client that writes its bytes itself.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// Bytes that were read; those before `used` are used.
    bytes: Vec<u8>,
    used: usize,
    /// The payloads of the pongs that came meanwhile.
    pub(crate) pongs: Vec<Vec<u8>>,
}

impl Raw {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, bytes: Vec::new(), used: 0, pongs: Vec::new() }
    }

    /// Connects and upgrades.
    pub(crate) fn upgraded(relay: &Relay) -> Self {
        let mut raw = Self::new(relay.connect());
        raw.write(UPGRADE.as_bytes());
        raw.read_upgrade();
        raw
    }

    /// Connects, upgrades and authenticates.
    pub(crate) fn authed(relay: &Relay, token: &str, role: &str) -> Self {
        let mut raw = Self::upgraded(relay);
        raw.write(&text(&auth(token, role)));
        let first = raw.json();
        assert_eq!(first["type"], "auth.ok", "{first}");
        raw
    }

    /// As [`Raw::authed`], over a socket that holds little, so that it is stuck soon when nobody reads.
    pub(crate) fn authed_narrow(relay: &Relay, token: &str, role: &str) -> Self {
        let stream = relay.connect();
        socket2::SockRef::from(&stream).set_recv_buffer_size(16 << 10).unwrap();
        let mut raw = Self::new(stream);
        raw.write(UPGRADE.as_bytes());
        raw.read_upgrade();
        raw.write(&text(&auth(token, role)));
        assert_eq!(raw.json()["type"], "auth.ok");
        raw
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Takes the relay's agreement to an upgrade off the stream.
    pub(crate) fn read_upgrade(&mut self) {
        loop {
            let rest = &self.bytes[self.used..];
            if let Some(end) = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&rest[..end]);
                assert!(head.starts_with("HTTP/1.1 101"), "{head}");
                self.used += end + 4;
                return;
            }
            assert!(self.fill(), "ended before the upgrade: {:?}", String::from_utf8_lossy(&self.bytes));
        }
    }

    /// Reads more; `false` at the end of the stream.
    fn fill(&mut self) -> bool {
        self.bytes.drain(..std::mem::take(&mut self.used));
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.bytes.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next frame: whether it ends its message, its opcode, its payload. `None` at the end of the stream.
    pub(crate) fn frame(&mut self) -> Option<(bool, u8, Vec<u8>)> {
        loop {
            let come = &self.bytes[self.used..];
            if let [first, second, rest @ ..] = come {
                assert!(first & 0x70 == 0 && second & 0x80 == 0, "a frame of a server: {:x?}", &come[..2]);
                let (length, at) = match (second, rest) {
                    (126, [a, b, ..]) => (Some(usize::from(u16::from_be_bytes([*a, *b]))), 4),
                    (127, rest) => (rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes) as usize), 10),
                    (126, _) => (None, 4),
                    (short, _) => (Some(usize::from(*short)), 2),
                };
                let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
                if let Some(length) = length
                    && let Some(payload) = come.get(at..at + length)
                {
                    let payload = payload.to_vec();
                    self.used += at + length;
                    return Some((fin, opcode, payload));
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The next text message, put together from its fragments.
    pub(crate) fn text(&mut self) -> String {
        let (started, mut message) = (Instant::now(), Vec::new());
        loop {
            assert!(started.elapsed() < DEADLINE, "waited in vain for a message");
            match self.frame() {
                Some((_, PONG, payload)) => self.pongs.push(payload),
                Some((_, PING, _)) => {}
                Some((fin, opcode @ (TEXT | CONTINUATION), payload)) => {
                    assert_eq!(opcode == TEXT, message.is_empty());
                    message.extend(payload);
                    if fin {
                        return String::from_utf8(message).unwrap();
                    }
                }
                Some((_, opcode, payload)) => panic!("opcode {opcode}: {:?}", String::from_utf8_lossy(&payload)),
                None => panic!("the stream ended"),
            }
        }
    }

    /// The next text message, read.
    pub(crate) fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Reads until the close frame, if one comes: its code and reason.
    pub(crate) fn closed(&mut self) -> Option<(u16, String)> {
        while let Some((_, opcode, payload)) = self.frame() {
            if opcode == CLOSE {
                let (code, reason) = payload.split_first_chunk().unwrap_or((&[0; 2], &[]));
                return Some((u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()));
            }
        }
        None
    }

    /// Drops the connection so that the other side meets a reset.
    pub(crate) fn reset(self) {
        reset(self.stream);
    }
}

/// Drops a connection so that the other side meets a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}
