//! Transactions: conditions and reads on the state as it was, then all writes at one revision.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::batch::{Staged, Staging, met};
use crate::command::{
    Answer, NoLease, Nothing, TXN_RANGE_ITEMS_MAX, TXN_RESULT_BYTES_MAX, Txn, TxnCondition, TxnDone, TxnGot,
    TxnItem, TxnItems, TxnOp, TxnOpKind, TxnRange, TxnRefused, TxnResult, TxnResultKind, TxnTest, Value,
};
use crate::error::StoreError;
use crate::layers::{Resolved, Values};
use crate::reader::{Page, View};
use crate::store::Store;

impl Store {
    /// The state as it is now, published or not.
    fn now(&self) -> View {
        View::of(self.layers.clone(), self.position, &self.leases)
    }

    /// Keys from `start` on, at most so many, and the one after them.
    pub(crate) fn keys_in(
        &self,
        start: &[u8],
        end: Option<&Bytes>,
        limit: usize,
    ) -> Result<(Vec<Bytes>, Option<Bytes>), StoreError> {
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
        let page = self.now().keys(Bound::Included(start), end, limit.saturating_add(1), usize::MAX)?;
        let mut keys: Vec<Bytes> = page.items.into_iter().map(|(key, _)| key).collect();
        let next = if keys.len() > limit { keys.pop() } else { None };
        Ok((keys, next))
    }

    fn page_in(
        &self,
        start: &[u8],
        end: Option<&Bytes>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
        self.now().range(Bound::Included(start), end, limit, bytes_max)
    }

    fn value_of(&self, key: &[u8], values: Values) -> Result<Option<Value>, StoreError> {
        let current = self.current(key, values)?.filter(|row| row.is_live(self.position.last_clear));
        Ok(current.map(Resolved::into_value))
    }

    pub(crate) fn run_txn(&mut self, txn: &Txn) -> Result<Answer, StoreError> {
        if let Err(refused) = txn.check() {
            return Ok(Answer::TxnRefused(refused));
        }
        let mut succeeded = true;
        for condition in &txn.conditions {
            succeeded = succeeded && self.holds(condition)?;
        }
        let (branch, ops) = if succeeded { ("then", &txn.then) } else { ("else", &txn.otherwise) };
        let reads = match self.read(branch, ops)? {
            Ok(reads) => reads,
            Err(refused) => return Ok(Answer::TxnRefused(refused)),
        };
        let mut staged = Staging::new();
        let mut leased = 0;
        for (at, op) in ops.iter().enumerate() {
            match &op.kind {
                Some(TxnOpKind::Put(put)) => {
                    if put.lease != 0 && self.leases.usable(put.lease).is_none() {
                        let path = format!("/{branch}/{at}/put/lease");
                        return Ok(Answer::NoLease(NoLease { lease: put.lease, path }));
                    }
                    leased += usize::from(put.lease != 0);
                    let (value, content_type) = (put.value.clone(), put.content_type.clone());
                    staged.insert(put.key.clone(), Staged::Put { value, content_type, lease: put.lease });
                }
                Some(TxnOpKind::Delete(key)) => {
                    staged.insert(key.clone(), Staged::Delete);
                }
                _ => {}
            }
        }
        if let Err(limit) = self.leases.room_for_keys(leased) {
            return Ok(met(limit));
        }
        let deleted = self.write_staged(staged)?;
        let results = results(ops, reads, |key| deleted.contains(key));
        Ok(Answer::Txn(TxnDone { succeeded, revision: self.position.revision, results }))
    }

    fn holds(&self, condition: &TxnCondition) -> Result<bool, StoreError> {
        let Some(test) = &condition.test else { return Ok(false) };
        if let TxnTest::Lock(token) = test {
            return Ok(self.leases.holder(&condition.subject).is_some_and(|(holder, _)| holder == *token));
        }
        let values = Values::if_wanted(matches!(test, TxnTest::Value(_)));
        let value = self.value_of(&condition.subject, values)?;
        Ok(value_holds(test, value.as_ref()))
    }

    /// Does the reads of a branch, by their place; or says which one would make the answer too large.
    fn read(
        &self,
        branch: &str,
        ops: &[TxnOp],
    ) -> Result<Result<BTreeMap<usize, TxnResultKind>, TxnRefused>, StoreError> {
        let mut bytes = 0;
        let mut reads = BTreeMap::new();
        for (at, op) in ops.iter().enumerate() {
            let (read, size) = match &op.kind {
                Some(TxnOpKind::Get(key)) => {
                    let value = self.value_of(key, Values::Wanted)?;
                    let size = value.as_ref().map_or(0, |value| value.value.len());
                    (TxnResultKind::Get(TxnGot { value }), key.len() + size)
                }
                Some(TxnOpKind::Range(TxnRange { start, end, limit })) => {
                    let limit = (*limit).clamp(1, TXN_RANGE_ITEMS_MAX) as usize;
                    let room = TXN_RESULT_BYTES_MAX.saturating_sub(bytes).saturating_add(1);
                    let page = self.page_in(start, end.as_ref(), limit, room)?;
                    let size = page.items.iter().map(|(key, value)| key.len() + value.value.len()).sum();
                    (TxnResultKind::Range(items(page)), size)
                }
                _ => continue,
            };
            bytes += size;
            if bytes > TXN_RESULT_BYTES_MAX {
                let path = format!("/{branch}/{at}");
                let why = format!("the reads up to here give more than {TXN_RESULT_BYTES_MAX} bytes");
                return Ok(Err(TxnRefused { path, why }));
            }
            reads.insert(at, read);
        }
        Ok(Ok(reads))
    }
}

fn items(page: Page) -> TxnItems {
    let items = page.items.into_iter().map(|(key, value)| TxnItem { key, value: Some(value) });
    TxnItems { items: items.collect(), more: page.more }
}

/// Whether a test of a key holds, given what the key has.
pub(crate) fn value_holds(test: &TxnTest, value: Option<&Value>) -> bool {
    match test {
        TxnTest::Revision(revision) => value.map_or(0, |value| value.revision) == *revision,
        TxnTest::Version(version) => value.map_or(0, |value| value.version) == *version,
        TxnTest::Exists(exists) => value.is_some() == *exists,
        TxnTest::Value(wanted) => value
            .is_some_and(|value| value.value == wanted.value && value.content_type.is_none() == wanted.json),
        TxnTest::Lock(_) => false,
    }
}

/// One result for each operation.
pub(crate) fn results(
    ops: &[TxnOp],
    mut reads: BTreeMap<usize, TxnResultKind>,
    was_deleted: impl Fn(&Bytes) -> bool,
) -> Vec<TxnResult> {
    let result = |(at, op): (usize, &TxnOp)| {
        let kind = match &op.kind {
            Some(TxnOpKind::Put(_)) => Some(TxnResultKind::Put(Nothing {})),
            Some(TxnOpKind::Delete(key)) => Some(TxnResultKind::Delete(was_deleted(key))),
            _ => reads.remove(&at),
        };
        TxnResult { kind }
    };
    ops.iter().enumerate().map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{TxnPut, TxnValue};

    /// The model asks the same function, and so would not tell.
    #[test]
    fn a_test_holds_where_it_says_so_and_nowhere_else() {
        let json =
            Value { value: "1".into(), revision: 7, create_revision: 5, version: 2, ..Value::default() };
        let raw = Value { content_type: Some("x/y".into()), ..json.clone() };
        let is = |value: &'static str, json| TxnTest::Value(TxnValue { value: value.into(), json });
        // The test, and whether it holds of a JSON value, of a raw one, and where there is none.
        let table = [
            (TxnTest::Revision(7), [true, true, false]),
            (TxnTest::Revision(6), [false, false, false]),
            (TxnTest::Revision(5), [false, false, false]),
            (TxnTest::Revision(8), [false, false, false]),
            (TxnTest::Revision(0), [false, false, true]),
            (TxnTest::Version(2), [true, true, false]),
            (TxnTest::Version(1), [false, false, false]),
            (TxnTest::Version(3), [false, false, false]),
            (TxnTest::Version(7), [false, false, false]),
            (TxnTest::Version(0), [false, false, true]),
            (TxnTest::Exists(true), [true, true, false]),
            (TxnTest::Exists(false), [false, false, true]),
            (is("1", true), [true, false, false]),
            (is("1", false), [false, true, false]),
            (is("2", true), [false, false, false]),
            (is("", true), [false, false, false]),
            (is("", false), [false, false, false]),
            (TxnTest::Lock(7), [false, false, false]),
        ];
        for (test, wanted) in table {
            let found = [Some(&json), Some(&raw), None].map(|value| value_holds(&test, value));
            assert_eq!(found, wanted, "{test:?}");
        }
    }

    #[test]
    fn each_operation_has_its_own_result_in_its_place() {
        let op = |kind| TxnOp { kind: Some(kind) };
        let got =
            |revision| TxnResultKind::Get(TxnGot { value: Some(Value { revision, ..Value::default() }) });
        let ops = [
            op(TxnOpKind::Delete("there".into())),
            op(TxnOpKind::Get("a".into())),
            op(TxnOpKind::Put(TxnPut { key: "there".into(), ..TxnPut::default() })),
            op(TxnOpKind::Get("b".into())),
            op(TxnOpKind::Delete("absent".into())),
        ];
        let found = results(&ops, BTreeMap::from([(1, got(1)), (3, got(3))]), |key| key == "there");
        let wanted = [
            TxnResultKind::Delete(true),
            got(1),
            TxnResultKind::Put(Nothing {}),
            got(3),
            TxnResultKind::Delete(false),
        ];
        assert_eq!(found, wanted.map(|kind| TxnResult { kind: Some(kind) }));
    }
}
