//! Looks at NATS as a relay would that starts, and changes nothing.

use super::bucket::Buckets;
use super::refusal::{StartError, check_server};
use super::session::{OpenError, connect, find};
use super::{CALL_TIMEOUT, Reach};
use async_nats::jetstream;

/// What is there, in words.
///
/// # Errors
/// What would keep a relay from starting.
pub fn probe(reach: &Reach) -> Result<String, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StartError::Thread(error.to_string()))?;
    runtime.block_on(look(reach)).map_err(|error| match error {
        OpenError::Away(why) => StartError::Away(why),
        OpenError::Refused(refusal) => StartError::Refused(refusal),
    })
}

async fn look(reach: &Reach) -> Result<String, OpenError> {
    let (client, _) = connect(reach).await?;
    let server = client.server_info();
    check_server(&server.version, server.jetstream)?;
    let mut context = jetstream::new(client);
    context.set_timeout(CALL_TIMEOUT);
    let (buckets, replicas) = (Buckets::of(&reach.name), usize::from(reach.replicas));
    find(&context, &buckets.control_config(replicas), &server.version).await?;
    let tokens = find(&context, &buckets.tokens_config(replicas), &server.version).await?;
    let has = match &tokens {
        Some(tokens) => format!("{} tokens and revocations", tokens.cached_info().state.messages),
        None => format!("no cluster {} yet, which the first relay begins", reach.name),
    };
    Ok(format!("nats-server {}, {has}", server.version))
}
