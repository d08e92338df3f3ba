//! Workers that ask by HTTP.

use std::sync::Arc;
use std::time::Duration;

use crate::caller::Caller;
use crate::ledger::Kind;
use crate::run::Book;

/// Numbers that stand for `{n}`.
const NUMBERS: std::ops::RangeInclusive<u64> = 1..=1000;

pub(crate) async fn ask(book: Arc<Book>, kind: Kind, mut caller: Caller, timeout: Duration) {
    while book.goes_on() {
        let begun = book.begin(kind);
        let answer = caller.call(fastrand::u64(NUMBERS), timeout).await;
        for _ in 0..std::mem::take(&mut caller.reopened) {
            book.reopened(begun);
        }
        match answer {
            Ok(source) => book.good(begun, &source),
            Err(failure) => book.failed(begun, failure.status, &failure.text),
        }
        book.pause().await;
    }
}
