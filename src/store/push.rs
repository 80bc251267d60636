//! How devices are woken, and the key by which push services know the relay.

use super::devices::of_device;
use super::{Store, StoreError};
use crate::proto::device::DeviceId;
use crate::proto::token::TokenKey;
use crate::push::PushState;
use rusqlite::OptionalExtension;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};

impl Store {
    /// Writes how a device is woken (JSON), or that it is not to be. `false` if it is not there.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn put_push(
        &mut self,
        key: TokenKey,
        device: DeviceId,
        subscription: Option<&str>,
    ) -> Result<bool, StoreError> {
        let [a, b, c, d] = of_device(key, device);
        let Some(subscription) = subscription else {
            let mut delete = self.connection.prepare_cached(
                "DELETE FROM push WHERE token = (SELECT serial FROM token WHERE hash BETWEEN ?1 AND ?2)
                 AND device BETWEEN ?3 AND ?4",
            )?;
            delete.execute((a, b, c, d))?;
            let mut find = self.connection.prepare_cached(
                "SELECT 1 FROM device WHERE token = (SELECT serial FROM token WHERE hash BETWEEN ?1 AND ?2)
                 AND hash BETWEEN ?3 AND ?4",
            )?;
            return Ok(find.exists((a, b, c, d))?);
        };
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO push (token, device, state, subscription)
             SELECT device.token, device.hash, 'ok', ?5 FROM token JOIN device ON device.token = serial
             WHERE token.hash BETWEEN ?1 AND ?2 AND device.hash BETWEEN ?3 AND ?4
             ON CONFLICT (token, device) DO UPDATE SET state = excluded.state, subscription = excluded.subscription",
        )?;
        Ok(statement.execute((a, b, c, d, subscription))? != 0)
    }

    /// How a device is woken, if it can be.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn push(&self, key: TokenKey, device: DeviceId) -> Result<Option<String>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT subscription FROM push WHERE token = (SELECT serial FROM token WHERE hash BETWEEN ?1 AND ?2)
             AND device BETWEEN ?3 AND ?4 AND state = 'ok'",
        )?;
        let [a, b, c, d] = of_device(key, device);
        Ok(statement.query_row((a, b, c, d), |row| row.get(0)).optional()?.flatten())
    }

    /// Writes that a device cannot be woken any more by what it subscribed to, unless it has subscribed anew. One that is
    /// gone is forgotten. `false` if nothing has changed.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn end_push(
        &mut self,
        key: TokenKey,
        device: DeviceId,
        subscription: &str,
        state: PushState,
    ) -> Result<bool, StoreError> {
        let [a, b, c, d] = of_device(key, device);
        let kept = Some(subscription).filter(|_| state != PushState::Gone);
        let mut statement = self.connection.prepare_cached(
            "UPDATE push SET state = ?6, subscription = ?7
             WHERE token = (SELECT serial FROM token WHERE hash BETWEEN ?1 AND ?2)
             AND device BETWEEN ?3 AND ?4 AND subscription = ?5 AND state = 'ok'",
        )?;
        Ok(statement.execute((a, b, c, d, subscription, state.name(), kept))? != 0)
    }

    /// Devices in each of the states but the first.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn count_pushes(&self) -> Result<Vec<(PushState, u64)>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT state, count(*) FROM push GROUP BY state")?;
        let rows = statement.query_map([], |row| Ok((push_state(row.get_ref(0)?)?, row.get::<_, i64>(1)? as u64)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A secret of the relay's own; `None`: it has not been kept yet.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM secret WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    /// Keeps a secret that has not been kept yet.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails, or it has been kept.
    pub fn keep_secret(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.connection.execute("INSERT INTO secret (name, value) VALUES (?1, ?2)", (name, value))?;
        Ok(())
    }
}

/// Reads a state; that of a device without a row is the first.
pub(super) fn push_state(value: ValueRef<'_>) -> FromSqlResult<PushState> {
    match value.as_str_or_null()? {
        None => Ok(PushState::None),
        Some(name) => PushState::parse(name).ok_or(FromSqlError::InvalidType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::device::KeyHash;
    use crate::proto::limits::LimitsOverride;
    use crate::proto::token::TokenHash;
    use crate::store::{DeviceRow, TokenRow};

    #[test]
    fn a_subscription_is_its_devices_and_goes_with_it() {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("relay.db"), 0).unwrap();
        let hash = TokenHash::of("a");
        let (expires_at, limits) = (None, LimitsOverride::default());
        store
            .create(&TokenRow { serial: 0, hash, label: None, created_at: 1, expires_at, limits, unused_from: None })
            .unwrap();
        let (key, device) = (hash.key(), KeyHash([1; 32]));
        let id = device.device();
        let row = DeviceRow { key: device, label: None, added_at: 1, seen_at: 1, push: PushState::None };
        assert!(!store.put_push(key, id, Some("{}")).unwrap(), "no such device");
        assert!(!store.put_push(key, id, None).unwrap(), "no such device");
        assert!(store.bind(key, KeyHash([9; 32]), false).unwrap());
        assert!(store.put_device(key, &row, 0).unwrap());
        let state = |store: &Store| store.binding(1).unwrap().unwrap().devices[0].push;
        assert_eq!((state(&store), store.push(key, id).unwrap()), (PushState::None, None));
        assert!(store.put_push(key, id, Some("first")).unwrap());
        assert_eq!((state(&store), store.push(key, id).unwrap()), (PushState::Ok, Some("first".to_owned())));
        assert!(store.put_push(key, id, Some("second")).unwrap());
        assert!(!store.end_push(key, id, "first", PushState::Gone).unwrap(), "it has subscribed anew");
        assert!(store.end_push(key, id, "second", PushState::Refused).unwrap());
        assert_eq!((state(&store), store.push(key, id).unwrap()), (PushState::Refused, None));
        assert_eq!(store.bindings().unwrap()[&1].devices[0].push, PushState::Refused);
        assert!(store.put_push(key, id, Some("second")).unwrap(), "tried again");
        assert!(store.end_push(key, id, "second", PushState::Gone).unwrap());
        assert_eq!(store.count_pushes().unwrap(), [(PushState::Gone, 1)]);
        assert!(store.put_push(key, id, None).unwrap());
        assert_eq!(state(&store), PushState::None);
        assert!(store.put_push(key, id, Some("third")).unwrap());
        assert!(store.remove_device(key, id).unwrap());
        assert_eq!(store.count_pushes().unwrap(), []);
    }

    #[test]
    fn a_secret_is_kept_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("relay.db");
        let mut store = Store::open(&path, 0).unwrap();
        assert_eq!(store.secret("a").unwrap(), None);
        store.keep_secret("a", &[1]).unwrap();
        assert!(store.keep_secret("a", &[2]).is_err());
        assert_eq!((store.secret("a").unwrap(), store.secret("b").unwrap()), (Some(vec![1]), None));
        store.close().unwrap();
        assert_eq!(Store::open(&path, 0).unwrap().secret("a").unwrap(), Some(vec![1]));
    }
}
