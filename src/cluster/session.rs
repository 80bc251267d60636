//! One connection to NATS, from its checks to its end.

use super::bucket::{self, Buckets};
use super::refusal::{Refusal, check_replicas, check_server};
use super::state::State;
use super::{CALL_TIMEOUT, Call, Change, Event, Found, Options, PAUSE, Put, PutError, Reach, Sink};
use crate::proto::token::TokenHash;
use crate::store::Membership;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::OrderedConfig;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::stream::{self, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectOptions, HeaderMap, ServerAddr};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often NATS is pinged; without an answer to two of them the connection is given up.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether all that is written arrives.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Changes that are said at a time at the most.
const CHANGES_MAX: usize = 2048;
/// How soon control is told again whose queue was full.
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// Why a connection has not come about.
pub(super) enum OpenError {
    /// It may do later.
    Away(String),
    /// It will not do as it is.
    Refused(Refusal),
}

impl From<Refusal> for OpenError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn away(error: impl std::fmt::Display) -> OpenError {
    OpenError::Away(error.to_string())
}

/// A connection whose server and buckets have been checked.
pub(super) struct Session {
    context: Context,
    buckets: Buckets,
    tokens: Stream,
    membership: Membership,
    /// Becomes true when the connection is lost.
    lost: watch::Receiver<bool>,
}

impl Session {
    /// Connects, makes the buckets where they are missing, and sees whose they are.
    pub(super) async fn open(options: &Options) -> Result<(Self, Found), OpenError> {
        let (client, lost) = connect(&options.reach).await?;
        let server = client.server_info();
        check_server(&server.version, server.jetstream)?;
        let mut context = jetstream::new(client);
        context.set_timeout(CALL_TIMEOUT);
        let buckets = Buckets::of(&options.reach.name);
        let replicas = usize::from(options.reach.replicas);
        let control = ensure(&context, buckets.control_config(replicas), &server.version).await?;
        let tokens = ensure(&context, buckets.tokens_config(replicas), &server.version).await?;
        let found = whose(&context, &control, &buckets, options).await?;
        let (Found::Made(membership) | Found::There(membership) | Found::Away(membership, _)) = &found;
        let membership = membership.clone();
        Ok((Self { context, buckets, tokens, membership, lost }, found))
    }

    /// Says what is in the bucket and what is written there, and carries out calls, until the connection or what comes
    /// through it cannot be relied on; why.
    pub(super) async fn run(
        mut self,
        calls: &mut mpsc::Receiver<Call>,
        questions: &mut watch::Receiver<u64>,
        sink: &Sink,
        state: &Arc<State>,
    ) -> String {
        let mut lost = self.lost.clone();
        let caller =
            Caller { context: self.context.clone(), buckets: self.buckets.clone(), tokens: self.tokens.clone() };
        let serial_base = self.membership.serial_base;
        let carry_out = async {
            while let Some(call) = calls.recv().await {
                match call {
                    Call::Put(puts, reply) => {
                        let written = tokio::time::timeout(CALL_TIMEOUT, caller.put_all(&puts)).await;
                        // Who has stopped waiting needs no answer.
                        let written = written.unwrap_or_else(|_| vec![Err(PutError::Away); puts.len()]);
                        if written.contains(&Err(PutError::Away)) {
                            state.pause(PAUSE);
                        }
                        let _ = reply.send(written);
                    }
                    Call::Read(hash, reply) => {
                        let _ = reply.send(caller.read(hash, serial_base).await);
                    }
                    Call::BeginAgain => return,
                }
            }
            // Control has ended, and with it the relay.
            std::future::pending().await
        };
        tokio::select! {
            _ = lost.wait_for(|&lost| lost) => "the connection to NATS is lost".to_owned(),
            why = self.watch(questions, sink, state) => why,
            () = carry_out => "what is in NATS could not all be taken in".to_owned(),
        }
    }

    /// Follows the bucket; why it cannot any more.
    async fn watch(&mut self, questions: &mut watch::Receiver<u64>, sink: &Sink, state: &State) -> String {
        match self.follow(questions, sink, state).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn follow(
        &mut self,
        questions: &mut watch::Receiver<u64>,
        sink: &Sink,
        state: &State,
    ) -> Result<std::convert::Infallible, String> {
        let failed = |error: async_nats::Error| format!("the tokens in NATS cannot be followed: {error}");
        let at_first = self.tokens.get_info().await.map_err(|error| failed(error.into()))?.state;
        let config = OrderedConfig {
            deliver_subject: self.context.client().new_inbox(),
            // Each key has one message: its last.
            deliver_policy: DeliverPolicy::All,
            ..OrderedConfig::default()
        };
        let consumer = self.tokens.create_consumer(config).await.map_err(|error| failed(error.into()))?;
        let mut messages = consumer.messages().await.map_err(|error| failed(error.into()))?;
        tell(sink, Event::Begun).await;
        let mut is_read = at_first.messages == 0;
        if is_read {
            tell(sink, Event::Read).await;
        }
        let (mut seen, mut seen_before, mut late) = (0, 0, None);
        // A question, and what has to be seen before it is answered.
        let mut question: Option<(u64, u64)> = None;
        let mut check = tokio::time::interval(CHECK_EVERY);
        loop {
            if let Some((number, _)) = question.filter(|&(_, last)| is_read && seen >= last) {
                question = None;
                tell(sink, Event::Current(number)).await;
            }
            let first = tokio::select! {
                message = messages.next() => message.ok_or("NATS has ended the watch")?,
                Ok(()) = questions.changed() => {
                    let number = *questions.borrow_and_update();
                    let info = self.tokens.get_info().await.map_err(|error| failed(error.into()))?;
                    question = Some((number, info.state.last_sequence));
                    continue;
                }
                _ = check.tick() => {
                    let last = self.tokens.get_info().await.map_err(|error| failed(error.into()))?.state.last_sequence;
                    if last < seen {
                        return Err(format!("NATS has lost writes: it was at {seen} and is at {last}"));
                    }
                    // What was written a moment ago may be on its way, and the first reading takes as long as it goes on.
                    let owed = if is_read { late } else { late.map(|_| seen_before + 1) };
                    if owed.is_some_and(|owed| seen < owed) {
                        return Err("NATS does not say what is written".to_owned());
                    }
                    // What another write has replaced meanwhile was counted as still to come, and does not come.
                    if !is_read && seen >= last {
                        is_read = true;
                        tell(sink, Event::Read).await;
                    }
                    (late, seen_before) = ((seen < last).then_some(last), seen);
                    continue;
                }
            };
            let (mut changes, mut next, mut pending) = (Vec::new(), Some(first), 0);
            while let Some(message) = next {
                let message = message.map_err(|error| failed(error.into()))?;
                let info = message.info().map_err(failed)?;
                (seen, pending) = (info.stream_sequence.max(seen), info.pending);
                let (subject, headers) = (message.subject.as_str(), message.headers.as_ref());
                let base = self.membership.serial_base;
                match self.buckets.change(subject, headers, &message.payload, info.stream_sequence, base) {
                    Ok(change) => changes.push(change),
                    Err(problem) => {
                        state.add_unreadable();
                        tracing::error!(subject, %problem, "a token in NATS is passed over");
                    }
                }
                next = if changes.len() < CHANGES_MAX { messages.next().now_or_never().flatten() } else { None };
            }
            state.set_revision(seen);
            tell(sink, Event::Changes(changes)).await;
            if !is_read && pending == 0 {
                is_read = true;
                tell(sink, Event::Read).await;
            }
        }
    }
}

/// What carries out control's calls.
struct Caller {
    context: Context,
    buckets: Buckets,
    tokens: Stream,
}

impl Caller {
    async fn put_all(&self, puts: &[Put]) -> Vec<Result<u64, PutError>> {
        futures_util::future::join_all(puts.iter().map(|put| self.put(put))).await
    }

    async fn put(&self, put: &Put) -> Result<u64, PutError> {
        let headers = bucket::headers(put.after, put.token.is_none());
        let subject = self.buckets.subject(&put.hash);
        publish(&self.context, subject, headers, bucket::payload(put)).await.map_err(|error| match error {
            Some(PublishErrorKind::WrongLastSequence) => PutError::Conflict,
            _ => PutError::Away,
        })
    }

    async fn read(&self, hash: TokenHash, serial_base: u64) -> Result<Option<Change>, PutError> {
        let subject = self.buckets.subject(&hash);
        let read = tokio::time::timeout(CALL_TIMEOUT, self.tokens.get_last_raw_message_by_subject(&subject)).await;
        match read.map_err(|_| PutError::Away)? {
            Ok(message) => self
                .buckets
                .change(&message.subject, Some(&message.headers), &message.payload, message.sequence, serial_base)
                .map(Some)
                .map_err(|_| PutError::Away),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(_) => Err(PutError::Away),
        }
    }
}

pub(super) async fn connect(reach: &Reach) -> Result<(Client, watch::Receiver<bool>), OpenError> {
    let (gone, lost) = watch::channel(false);
    let mut connect = ConnectOptions::new()
        .name("coralmux-relay")
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_EVERY)
        .request_timeout(Some(CALL_TIMEOUT))
        // A lost connection is made again from the beginning, with all checks.
        .max_reconnects(1)
        .event_callback(move |event| {
            if matches!(event, async_nats::Event::Disconnected | async_nats::Event::Closed) {
                gone.send_replace(true);
            }
            std::future::ready(())
        });
    if reach.servers.iter().any(super::NatsUrl::is_tls) {
        connect = connect.require_tls(true);
    }
    if let Some(ca) = &reach.tls.ca {
        connect = connect.add_root_certificates(ca.clone());
    }
    if let Some((cert, key)) = &reach.tls.pair {
        connect = connect.add_client_certificate(cert.clone(), key.clone());
    }
    if let Some(creds) = &reach.creds {
        let refused = |error: std::io::Error| Refusal::Files(format!("--nats-creds: {}: {error}", creds.display()));
        connect = connect.credentials_file(creds).await.map_err(refused)?;
    }
    let servers: Result<Vec<ServerAddr>, _> = reach.servers.iter().map(|url| url.to_string().parse()).collect();
    let client = connect.connect(servers.map_err(away)?).await.map_err(|error| {
        let servers: Vec<String> = reach.servers.iter().map(ToString::to_string).collect();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        away(format_args!("NATS cannot be reached at {}: {error}{cause}", servers.join(", ")))
    })?;
    Ok((client, lost))
}

/// The stream, made where it is missing.
async fn ensure(context: &Context, wanted: stream::Config, version: &str) -> Result<Stream, OpenError> {
    match find(context, &wanted, version).await? {
        Some(stream) => Ok(stream),
        None => {
            let bucket = wanted.name.clone();
            context.create_stream(wanted).await.map_err(|error| away(format_args!("bucket {bucket}: {error}")))
        }
    }
}

/// The stream, if it is there, and fit for what it is for.
pub(super) async fn find(
    context: &Context,
    wanted: &stream::Config,
    version: &str,
) -> Result<Option<Stream>, OpenError> {
    check_replicas(version, wanted.num_replicas)?;
    match context.get_stream(&wanted.name).await {
        Ok(stream) => {
            bucket::check(&stream.cached_info().config, wanted, version)?;
            Ok(Some(stream))
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(code) if code.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(away(format_args!("bucket {}: {error}", wanted.name))),
        },
    }
}

/// Whose the buckets are. Who finds them empty says that they are of its cluster, or of a new one.
async fn whose(context: &Context, control: &Stream, buckets: &Buckets, options: &Options) -> Result<Found, OpenError> {
    let subject = buckets.meta_subject();
    let failed = |error: &dyn std::fmt::Display| away(format_args!("bucket {}: {error}", buckets.control()));
    // Where another relay is faster, its word is read.
    for _ in 0..2 {
        match control.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => {
                let there = bucket::read_meta(&message.payload)
                    .map_err(|problem| Refusal::Bucket { bucket: buckets.control(), problem })?;
                return match &options.member_of {
                    Some(ours) if ours.cluster != there.cluster => {
                        let (ours, there) = (ours.cluster.clone(), there.cluster);
                        Err(Refusal::OtherCluster { ours, there }.into())
                    }
                    _ => Ok(Found::There(there)),
                };
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(failed(&error)),
        }
        let membership = options.member_of.as_ref().unwrap_or(&options.new);
        let meta = bucket::write_meta(membership);
        match publish(context, subject.clone(), bucket::headers(0, false), meta).await {
            Ok(_) if options.member_of.is_some() => return Ok(Found::There(membership.clone())),
            Ok(_) => return Ok(Found::Made(membership.clone())),
            Err(Some(PublishErrorKind::WrongLastSequence)) => {}
            Err(_) => return Err(failed(&"it cannot be written")),
        }
    }
    Err(failed(&"what is written there is not read"))
}

/// Publishes and waits for the answer: the message's place.
async fn publish(
    context: &Context,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<u64, Option<PublishErrorKind>> {
    let sent = context.publish_with_headers(subject, headers, payload).await.map_err(|error| Some(error.kind()))?;
    match tokio::time::timeout(CALL_TIMEOUT, sent).await {
        Ok(answer) => answer.map(|answer| answer.sequence).map_err(|error| Some(error.kind())),
        Err(_) => Err(None),
    }
}

/// Tells control, which may be busy.
async fn tell(sink: &Sink, mut event: Event) {
    while let Err(again) = sink(event) {
        event = again;
        tokio::time::sleep(TELL_AGAIN).await;
    }
}
