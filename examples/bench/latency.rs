//! How long things took.

/// Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

impl Latency {
    /// Of all these; `None` of none.
    pub(crate) fn of(mut took: Vec<u64>) -> Option<Self> {
        took.sort_unstable();
        // The smallest that so many percent do not exceed.
        let percentile =
            |percent: usize| took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { p50: percentile(50)?, p99: percentile(99)?, max: *took.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let of = |took: Vec<u64>| Latency::of(took).map(|all| [all.p50, all.p99, all.max]);
        assert_eq!(of(vec![]), None);
        assert_eq!(of(vec![7]), Some([7, 7, 7]));
        assert_eq!(of((1..=200).rev().collect()), Some([100, 198, 200]));
    }
}
