//! Tokens that are bound to an agent's key, and their devices.

use super::push::push_state;
use super::{Store, StoreError, hashes_with, integer, natural};
use crate::proto::device::{DeviceId, KeyHash};
use crate::proto::token::{TokenHash, TokenKey};
use crate::push::PushState;
use rusqlite::{OptionalExtension, Row, TransactionBehavior};
use std::collections::HashMap;

/// What a token is bound to, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundRow {
    /// The key of its agent.
    pub agent: KeyHash,
    /// Whether a phone without a device's key is admitted, too.
    pub legacy_phone: bool,
    /// In the order in which they were added.
    pub devices: Vec<DeviceRow>,
}

/// A device, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// What stands for its key.
    pub key: KeyHash,
    /// For the operator.
    pub label: Option<String>,
    /// Unix seconds.
    pub added_at: u64,
    /// Unix seconds, of the first time on a day.
    pub seen_at: u64,
    /// Whether it can be woken. Written by itself: [`Store::put_push`].
    pub push: PushState,
}

impl Store {
    /// What each token is bound to that is, by its serial.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn bindings(&self) -> Result<HashMap<u64, BoundRow>, StoreError> {
        let mut bound = HashMap::new();
        let mut statement = self.connection.prepare("SELECT token, agent, legacy_phone FROM binding")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            bound.insert(natural(row.get(0)?), bound_row(row)?);
        }
        let mut statement = self.connection.prepare(
            "SELECT device.token, hash, label, added_at, seen_at, state FROM device
                 LEFT JOIN push ON push.token = device.token AND push.device = hash ORDER BY added_at, hash",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(bound) = bound.get_mut(&natural(row.get(0)?)) {
                bound.devices.push(device_row(row)?);
            }
        }
        Ok(bound)
    }

    /// What a token is bound to.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn binding(&self, serial: u64) -> Result<Option<BoundRow>, StoreError> {
        let serial = integer(serial);
        let mut statement =
            self.connection.prepare_cached("SELECT token, agent, legacy_phone FROM binding WHERE token = ?1")?;
        let Some(mut bound) = statement.query_row([serial], bound_row).optional()? else { return Ok(None) };
        let mut statement = self.connection.prepare_cached(
            "SELECT device.token, hash, label, added_at, seen_at, state FROM device
             LEFT JOIN push ON push.token = device.token AND push.device = hash
             WHERE device.token = ?1 ORDER BY added_at, hash",
        )?;
        bound.devices = statement.query_map([serial], device_row)?.collect::<Result<_, _>>()?;
        Ok(Some(bound))
    }

    /// Binds a token, or binds it to something else; its devices stay. `false` if it is not there.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn bind(&mut self, key: TokenKey, agent: KeyHash, legacy_phone: bool) -> Result<bool, StoreError> {
        let (from, to) = hashes_with(&key.0.to_be_bytes());
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO binding (token, agent, legacy_phone) SELECT serial, ?3, ?4 FROM token WHERE hash BETWEEN ?1 AND ?2
             ON CONFLICT (token) DO UPDATE SET agent = excluded.agent, legacy_phone = excluded.legacy_phone",
        )?;
        Ok(statement.execute((from, to, agent.0, legacy_phone))? != 0)
    }

    /// Unbinds a token, which then has no devices.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn unbind(&mut self, key: TokenKey) -> Result<(), StoreError> {
        let range = hashes_with(&key.0.to_be_bytes());
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM binding WHERE token = (SELECT serial FROM token WHERE hash BETWEEN ?1 AND ?2)",
        )?;
        statement.execute(range)?;
        Ok(())
    }

    /// Writes a device of a bound token, or another label of one that is there; `age`: the store's. `false` if the token is
    /// not there, or not bound.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn put_device(&mut self, key: TokenKey, device: &DeviceRow, age: u64) -> Result<bool, StoreError> {
        let (from, to) = hashes_with(&key.0.to_be_bytes());
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO device (token, hash, label, added_at, seen_at, seen_age)
             SELECT serial, ?3, ?4, ?5, ?6, ?7 FROM token JOIN binding ON binding.token = serial
             WHERE hash BETWEEN ?1 AND ?2
             ON CONFLICT (token, hash) DO UPDATE SET label = excluded.label",
        )?;
        let times = (integer(device.added_at), integer(device.seen_at), integer(age));
        Ok(statement.execute((from, to, device.key.0, &device.label, times.0, times.1, times.2))? != 0)
    }

    /// Takes a device out; `false` if it is not there.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn remove_device(&mut self, key: TokenKey, device: DeviceId) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM device
             WHERE token = (SELECT serial FROM token WHERE hash BETWEEN ?1 AND ?2) AND hash BETWEEN ?3 AND ?4",
        )?;
        Ok(statement.execute(of_device(key, device))? != 0)
    }

    /// Writes that these devices have connected, at this time and age of the store.
    ///
    /// # Errors
    /// What kept it from being written; then nothing has been.
    pub fn mark_seen(&mut self, seen_at: u64, age: u64, seen: &[(TokenKey, DeviceId)]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut mark = transaction.prepare_cached(
                "UPDATE device SET seen_at = ?5, seen_age = ?6
                 WHERE token = (SELECT serial FROM token WHERE hash BETWEEN ?1 AND ?2) AND hash BETWEEN ?3 AND ?4",
            )?;
            for &(key, device) in seen {
                let [a, b, c, d] = of_device(key, device);
                mark.execute((a, b, c, d, integer(seen_at), integer(age)))?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Devices that tokens have.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn count_devices(&self) -> Result<u64, StoreError> {
        Ok(self.connection.query_row("SELECT count(*) FROM device", [], |row| row.get(0)).map(natural)?)
    }

    /// At most `limit` devices that were last seen at this age of the store or before.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn unseen(&self, seen_by: u64, limit: u32) -> Result<Vec<(TokenKey, DeviceId)>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT token.hash, device.hash FROM device JOIN token ON serial = token
             WHERE seen_age <= ?1 ORDER BY seen_age LIMIT ?2",
        )?;
        let read = |row: &Row<'_>| Ok((TokenHash(row.get(0)?).key(), KeyHash(row.get(1)?).device()));
        let rows = statement.query_map((integer(seen_by), limit), read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// The least and greatest hashes of a token and of a device.
pub(super) fn of_device(key: TokenKey, device: DeviceId) -> [[u8; 32]; 4] {
    let ((a, b), (c, d)) = (hashes_with(&key.0.to_be_bytes()), hashes_with(&device.0.to_be_bytes()));
    [a, b, c, d]
}

fn bound_row(row: &Row<'_>) -> rusqlite::Result<BoundRow> {
    Ok(BoundRow { agent: KeyHash(row.get(1)?), legacy_phone: row.get(2)?, devices: Vec::new() })
}

fn device_row(row: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    Ok(DeviceRow {
        key: KeyHash(row.get(1)?),
        label: row.get(2)?,
        added_at: natural(row.get(3)?),
        seen_at: natural(row.get(4)?),
        push: push_state(row.get_ref(5)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::limits::LimitsOverride;
    use crate::store::TokenRow;

    fn device(n: u8, label: Option<&str>) -> DeviceRow {
        let label = label.map(str::to_owned);
        DeviceRow { key: KeyHash([n; 32]), label, added_at: u64::from(n), seen_at: u64::from(n), push: PushState::None }
    }

    fn store_with(names: &[&str]) -> (tempfile::TempDir, Store, Vec<TokenKey>) {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("relay.db"), 0).unwrap();
        let keys = names.iter().map(|name| {
            let hash = TokenHash::of(name);
            let (expires_at, limits) = (None, LimitsOverride::default());
            let row = TokenRow { serial: 0, hash, label: None, created_at: 1, expires_at, limits, unused_from: None };
            store.create(&row).unwrap();
            hash.key()
        });
        let keys = keys.collect();
        (home, store, keys)
    }

    #[test]
    fn a_binding_and_its_devices_read_back_and_go_with_their_token() {
        let (_home, mut store, keys) = store_with(&["a", "b"]);
        let agent = KeyHash([9; 32]);
        assert!(!store.put_device(keys[0], &device(1, None), 5).unwrap(), "not bound");
        assert!(!store.bind(TokenHash::of("c").key(), agent, true).unwrap(), "no such token");
        assert!(store.bind(keys[0], agent, true).unwrap());
        assert!(store.put_device(keys[0], &device(2, Some("desk")), 5).unwrap());
        assert!(store.put_device(keys[0], &device(1, None), 5).unwrap());
        assert!(store.put_device(keys[0], &device(1, Some("new")), 7).unwrap(), "only the label changes");
        assert!(store.bind(keys[0], agent, false).unwrap());
        let devices = vec![device(1, Some("new")), device(2, Some("desk"))];
        let bound = BoundRow { agent, legacy_phone: false, devices };
        assert_eq!(store.binding(1).unwrap(), Some(bound.clone()));
        assert_eq!(store.bindings().unwrap(), HashMap::from([(1, bound)]));
        assert_eq!(store.binding(2).unwrap(), None);
        assert_eq!(store.count_devices().unwrap(), 2);

        let id = KeyHash([1; 32]).device();
        assert!(!store.remove_device(keys[1], id).unwrap(), "another token's");
        assert!(store.remove_device(keys[0], id).unwrap());
        assert!(!store.remove_device(keys[0], id).unwrap());
        store.unbind(keys[0]).unwrap();
        assert_eq!(store.binding(1).unwrap(), None);
        assert!(store.bind(keys[0], agent, true).unwrap());
        assert_eq!(store.binding(1).unwrap().unwrap().devices, [], "what was unbound has no devices");
        assert!(store.put_device(keys[0], &device(3, None), 5).unwrap());
        assert!(store.revoke(&TokenHash::of("a")).unwrap());
        assert_eq!(store.unseen(u64::MAX, 9).unwrap(), [], "nothing is left of a token's devices");
    }

    #[test]
    fn devices_are_unseen_from_the_age_on_at_which_they_were_last_seen() {
        let (_home, mut store, keys) = store_with(&["a", "b"]);
        for &key in &keys {
            assert!(store.bind(key, KeyHash([9; 32]), true).unwrap());
            assert!(store.put_device(key, &device(1, None), 5).unwrap());
        }
        let id = KeyHash([1; 32]).device();
        assert_eq!(store.unseen(4, 9).unwrap(), []);
        assert_eq!(store.unseen(5, 9).unwrap().len(), 2);
        assert_eq!(store.unseen(5, 1).unwrap().len(), 1);
        store.mark_seen(1000, 8, &[(keys[1], id)]).unwrap();
        assert_eq!(store.unseen(7, 9).unwrap(), [(keys[0], id)]);
        assert_eq!(store.binding(2).unwrap().unwrap().devices[0].seen_at, 1000);
    }
}
