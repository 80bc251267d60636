//! The account at the CA: made once, kept on the disk, made anew where the CA has forgotten it.

use super::client::{Client, RetryAfter};
use super::disk::Disk;
use super::order::Fault;
use super::{Acme, DiskError, read_roots};
use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use tokio::sync::Mutex;

/// Opens the account when it is needed, and keeps it open.
pub(super) struct Accounts {
    acme: Acme,
    disk: Disk,
    retry_after: RetryAfter,
    open: Mutex<Option<Account>>,
}

impl Accounts {
    pub(super) fn new(acme: Acme, disk: Disk, retry_after: RetryAfter) -> Self {
        Self { acme, disk, retry_after, open: Mutex::default() }
    }

    /// The URL of the directory that is asked.
    pub(super) fn directory(&self) -> &str {
        &self.acme.directory
    }

    /// The account. Asks the CA for its directory the first time, and for an account where there is none.
    pub(super) async fn open(&self) -> Result<Account, Fault> {
        let mut open = self.open.lock().await;
        if let Some(account) = &*open {
            return Ok(account.clone());
        }
        let account = match self.kept()? {
            Some(credentials) => self.builder()?.from_credentials(credentials).await?,
            None => self.make().await?,
        };
        *open = Some(account.clone());
        Ok(account)
    }

    /// Makes another account in place of one that the CA does not know any more.
    pub(super) async fn renew(&self) -> Result<(), Fault> {
        let mut open = self.open.lock().await;
        *open = Some(self.make().await?);
        Ok(())
    }

    /// Closes it, so that the next to ask fetches the directory anew: its URLs may have changed.
    pub(super) async fn close(&self) {
        *self.open.lock().await = None;
    }

    fn kept(&self) -> Result<Option<AccountCredentials>, Fault> {
        let Some(json) = self.disk.account().map_err(unusable)? else { return Ok(None) };
        let useless = "account.json in --acme-dir is not an ACME account; remove it, and the relay creates a new one";
        let credentials = serde_json::from_slice(&json).map_err(|_| Fault::Useless(useless.to_owned()))?;
        Ok(Some(credentials))
    }

    async fn make(&self) -> Result<Account, Fault> {
        let acme = &self.acme;
        let contact = acme.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let binding = acme.binding.as_ref().map(|binding| ExternalAccountKey::new(binding.kid.clone(), &binding.key));
        let made = self.builder()?.create(&new, acme.directory.clone(), binding.as_ref());
        let (account, credentials) = made.await?;
        let json = serde_json::to_vec(&credentials).map_err(|error| Fault::Away(Error::Json(error)))?;
        self.disk.keep_account(&json).map_err(unusable)?;
        tracing::info!(directory = acme.directory, account = account.id(), "created an account at the CA");
        Ok(account)
    }

    fn builder(&self) -> Result<instant_acme::AccountBuilder, Fault> {
        let roots = self.acme.ca.as_deref().map(read_roots).transpose().map_err(Fault::Unreadable)?;
        let client = Client::new(roots.as_deref(), self.retry_after.clone())?;
        Ok(Account::builder_with_http(Box::new(client)))
    }
}

fn unusable(error: DiskError) -> Fault {
    Fault::Useless(error.to_string())
}
