//! One of several that fit: leastconn, roundrobin, random, first, source.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use crate::config::Balance;

/// One that could be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What the picker keeps its turn by; below the number given to [`Picker::new`].
    pub index: usize,
    /// Above 0.
    pub weight: u16,
    /// Sessions or requests it has now.
    pub load: u32,
}

/// Picks for one listener. What must be remembered from pick to pick is here.
#[derive(Debug)]
pub struct Picker {
    balance: Balance,
    /// Smooth weighted round robin: how far each one is ahead of its turn.
    credit: Vec<i64>,
    random: fastrand::Rng,
}

impl Picker {
    /// A picker over indexes below `n`.
    #[must_use]
    pub fn new(balance: Balance, n: usize, seed: u64) -> Self {
        Self { balance, credit: vec![0; n], random: fastrand::Rng::with_seed(seed) }
    }

    /// Takes indexes below `n` from now on, if it did not before.
    pub fn make_room(&mut self, n: usize) {
        if self.credit.len() < n {
            self.credit.resize(n, 0);
        }
    }

    /// One of `candidates`; `None` only when there are none. `source` is the client's address.
    pub fn pick(&mut self, candidates: &[Candidate], source: IpAddr) -> Option<Candidate> {
        match self.balance {
            Balance::First => candidates.first().copied(),
            Balance::Roundrobin => self.next_in_turn(candidates),
            Balance::Leastconn => self.least_loaded(candidates),
            Balance::Random => self.better_of_two(candidates),
            Balance::Source => {
                candidates.iter().copied().max_by(|a, b| affinity(a, source).total_cmp(&affinity(b, source)))
            }
        }
    }

    /// Each one gains its weight, the one furthest ahead is picked and pays for all. Over a sum of weights each
    /// is picked exactly as often as it weighs, spread as evenly as can be.
    fn next_in_turn(&mut self, candidates: &[Candidate]) -> Option<Candidate> {
        let mut total = 0;
        let mut best: Option<(i64, Candidate)> = None;
        for candidate in candidates {
            let weight = i64::from(candidate.weight);
            total += weight;
            let credit = self.credit.get_mut(candidate.index)?;
            *credit += weight;
            if best.is_none_or(|(most, _)| most < *credit) {
                best = Some((*credit, *candidate));
            }
        }
        let (_, picked) = best?;
        *self.credit.get_mut(picked.index)? -= total;
        Some(picked)
    }

    /// The fewest sessions for its weight, counting the one to come; turns decide among equals, so that idle
    /// nodes share short sessions fairly.
    fn least_loaded(&mut self, candidates: &[Candidate]) -> Option<Candidate> {
        let least = candidates.iter().copied().reduce(|a, b| if is_lighter(&b, &a) { b } else { a })?;
        let equals: Vec<_> = candidates.iter().copied().filter(|c| !is_lighter(&least, c)).collect();
        self.next_in_turn(&equals)
    }

    fn better_of_two(&mut self, candidates: &[Candidate]) -> Option<Candidate> {
        let (a, b) = (self.draw(candidates)?, self.draw(candidates)?);
        Some(if is_lighter(&b, &a) { b } else { a })
    }

    fn draw(&mut self, candidates: &[Candidate]) -> Option<Candidate> {
        let total: u64 = candidates.iter().map(|c| u64::from(c.weight)).sum();
        let mut at = self.random.u64(0..total.max(1));
        candidates.iter().copied().find(|c| {
            let hit = at < u64::from(c.weight);
            at = at.saturating_sub(u64::from(c.weight));
            hit
        })
    }
}

/// Whether one more session weighs less on `a` than on `b`.
fn is_lighter(a: &Candidate, b: &Candidate) -> bool {
    let load = |c: &Candidate| u64::from(c.load) + 1;
    load(a) * u64::from(b.weight) < load(b) * u64::from(a.weight)
}

/// Rendezvous hashing by weight: when a node comes or goes, only its own clients move.
/// See Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005.
fn affinity(candidate: &Candidate, source: IpAddr) -> f64 {
    let mut hasher = DefaultHasher::new();
    (candidate.index, source).hash(&mut hasher);
    #[expect(clippy::cast_precision_loss, reason = "53 bits are shifted to fit a float exactly")]
    let unit = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(candidate.weight) / unit.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const ALL: [Balance; 5] =
        [Balance::Leastconn, Balance::Roundrobin, Balance::Random, Balance::First, Balance::Source];
    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn candidates(weights: &[u16]) -> Vec<Candidate> {
        weights.iter().enumerate().map(|(index, &weight)| Candidate { index, weight, load: 0 }).collect()
    }

    /// How often each one is picked in `n` picks of which none ends.
    fn shares(balance: Balance, weights: &[u16], n: u32) -> Vec<u32> {
        let mut candidates = candidates(weights);
        let mut picker = Picker::new(balance, weights.len(), 7);
        for _ in 0..n {
            let chosen = picker.pick(&candidates, HOME).unwrap();
            candidates[chosen.index].load += 1;
        }
        candidates.iter().map(|c| c.load).collect()
    }

    #[test]
    fn weights_are_exact_over_a_run() {
        assert_eq!(shares(Balance::Roundrobin, &[1, 2, 3], 6000), [1000, 2000, 3000]);
        assert_eq!(shares(Balance::Leastconn, &[1, 2, 3], 6000), [1000, 2000, 3000]);
        assert_eq!(shares(Balance::First, &[1, 2, 3], 60), [60, 0, 0]);
    }

    #[test]
    fn a_heavy_one_is_not_picked_in_bursts() {
        let mut picker = Picker::new(Balance::Roundrobin, 3, 7);
        let all = candidates(&[1, 2, 3]);
        let order: Vec<_> = (0..6).map(|_| picker.pick(&all, HOME).unwrap().index).collect();
        assert_eq!(order, [2, 1, 0, 2, 1, 2]);
    }

    #[test]
    fn leastconn_fills_the_emptiest_and_takes_turns_among_equals() {
        let mut all = candidates(&[100, 100, 100]);
        all[0].load = 5;
        let mut picker = Picker::new(Balance::Leastconn, 3, 7);
        let order: Vec<_> = (0..4).map(|_| picker.pick(&all, HOME).unwrap().index).collect();
        assert_eq!(order, [1, 2, 1, 2]);
    }

    #[test]
    fn random_is_near_its_weights_and_better_than_one_draw() {
        let got = shares(Balance::Random, &[1, 1, 2], 4000);
        for (share, want) in got.iter().zip([1000, 1000, 2000]) {
            assert!(share.abs_diff(want) < 100, "{got:?}");
        }
    }

    #[test]
    fn source_keeps_a_client_where_it_was_when_another_node_leaves() {
        let all = candidates(&[100, 100, 100]);
        let mut picker = Picker::new(Balance::Source, 3, 7);
        let mut moved = 0;
        for last in 0..=255 {
            let client = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
            let before = picker.pick(&all, client).unwrap().index;
            assert_eq!(picker.pick(&all, client).unwrap().index, before);
            let after = picker.pick(&all[..2], client).unwrap().index;
            moved += u32::from(before != after);
            assert!(before == 2 || before == after);
        }
        assert!((50..120).contains(&moved), "{moved}");
    }

    proptest! {
        #[test]
        fn one_of_the_candidates_is_picked(
            weights in proptest::collection::vec(1u16..=256, 0..8),
            loads in proptest::collection::vec(any::<u32>(), 8),
        ) {
            let mut all = candidates(&weights);
            all.iter_mut().zip(loads).for_each(|(c, load)| c.load = load);
            for balance in ALL {
                let picked = Picker::new(balance, all.len(), 1).pick(&all, HOME);
                prop_assert_eq!(picked.is_some(), !all.is_empty());
                prop_assert!(picked.is_none_or(|p| all.contains(&p)));
            }
        }
    }
}
