//! Where push services are: names are looked up each time a connection is made, and only addresses of the public Internet
//! come back. So what was checked is what is connected to, whatever the name says the next time.

use super::Notifier;
use crate::push::is_global;
use hyper_util::client::legacy::connect::dns::Name;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec::IntoIter;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A resolver that keeps addresses of the operator's own network back, unless the operator has named the host.
#[derive(Clone)]
pub(super) struct PublicOnly<R> {
    pub(super) notifier: Arc<Notifier>,
    pub(super) inner: R,
}

impl<R> Service<Name> for PublicOnly<R>
where
    R: Service<Name>,
    R::Response: Iterator<Item = SocketAddr>,
    R::Error: Into<BoxError>,
    R::Future: Send + 'static,
{
    type Response = IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let may_be_anywhere = self.notifier.rules().hosts.names(name.as_str());
        let resolving = self.inner.call(name);
        Box::pin(async move {
            let all = resolving.await.map_err(Into::into)?;
            let usable: Vec<_> = all.filter(|address| may_be_anywhere || is_global(address.ip())).collect();
            match usable.is_empty() {
                true => Err("the push service's name has no address in the public Internet".into()),
                false => Ok(usable.into_iter()),
            }
        })
    }
}
