//! Times of the parts that need no socket and no clock: `make bench-pure`, less than a minute.
//!
//! What a whole session costs is counted by `make bench-instructions`.

#![allow(clippy::expect_used, reason = "a benchmark that cannot set up its input should panic and say why")]

#[path = "pure/choosing.rs"]
mod choosing;
#[path = "pure/wire.rs"]
mod wire;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    // Enough for a few per cent, and all of them within a minute.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(50)
        .configure_from_args();
    wire::bench(&mut criterion);
    choosing::bench(&mut criterion);
    criterion.final_summary();
}
