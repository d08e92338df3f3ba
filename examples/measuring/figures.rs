//! From the runs of several peers in several rounds to medians and ratios.

use std::collections::BTreeMap;

/// Share of the cores that other programs may use during a run before it is repeated.
pub(crate) const CALM: f64 = 0.15;

/// What one run of a case against a peer measured.
pub(crate) trait Run {
    /// Share of all cores that was used by programs that have nothing to do with this.
    fn others(&self) -> f64;

    /// What went wrong in it.
    fn errors(&mut self) -> &mut u64;
}

/// The calmest of a few runs, unless the first was calm. Only what other programs do decides which one counts;
/// errors of the others count too.
pub(crate) async fn calmest<R: Run, E>(
    repeats: u32,
    mut measure: impl AsyncFnMut() -> Result<R, E>,
) -> Result<R, E> {
    let mut calmest = measure().await?;
    for _ in 0..repeats {
        if calmest.others() < CALM {
            break;
        }
        let mut again = measure().await?;
        let errors = *calmest.errors() + *again.errors();
        if again.others() < calmest.others() {
            calmest = again;
        }
        *calmest.errors() = errors;
    }
    Ok(calmest)
}

/// All peers, in each round another one first, so that none always comes after the same one.
pub(crate) fn in_turn<P: Copy>(peers: &[P], round: u32) -> impl Iterator<Item = P> {
    let first = round as usize % peers.len().max(1);
    peers.iter().copied().cycle().skip(first).take(peers.len())
}

/// Which of two figures is the better one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// The runs of one case: by peer, by round.
pub(crate) struct Compared<P, R>(BTreeMap<P, BTreeMap<u32, R>>);

impl<P, R> Default for Compared<P, R> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<P: Copy + Ord, R> Compared<P, R> {
    pub(crate) fn insert(&mut self, peer: P, round: u32, run: R) {
        self.0.entry(peer).or_default().insert(round, run);
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = P> {
        self.0.keys().copied()
    }

    /// The runs of a peer with their rounds.
    pub(crate) fn of(&self, peer: P) -> impl Iterator<Item = (u32, &R)> {
        self.0.get(&peer).into_iter().flatten().map(|(&round, run)| (round, run))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &R> {
        self.0.values().flat_map(BTreeMap::values)
    }

    pub(crate) fn median(&self, peer: P, figure: impl Fn(&R) -> Option<f64>) -> Option<f64> {
        median(self.of(peer).filter_map(|(_, run)| figure(run)).collect())
    }

    /// The median over the rounds of what this peer had as a multiple of what the other had in the same round. A
    /// machine that is slower for a while is so for both.
    pub(crate) fn ratio(&self, peer: P, other: Option<P>, figure: impl Fn(&R) -> Option<f64>) -> Option<f64> {
        let others = self.0.get(&other?)?;
        let of_round = |(round, run)| Some(figure(run)? / figure(others.get(&round)?)?);
        median(self.of(peer).filter_map(of_round).filter(|ratio| ratio.is_finite()).collect())
    }

    /// The peer with the best median among those that `takes_part` names.
    pub(crate) fn best(
        &self,
        better: Better,
        takes_part: impl Fn(P) -> bool,
        figure: impl Fn(&R) -> Option<f64>,
    ) -> Option<P> {
        let medians = self.peers().filter(|&peer| takes_part(peer));
        let medians = medians.filter_map(|peer| Some((self.median(peer, &figure)?, peer)));
        let order = |a: &(f64, P), b: &(f64, P)| a.0.total_cmp(&b.0);
        let best = match better {
            Better::More => medians.max_by(order),
            Better::Less => medians.min_by(order),
        };
        best.map(|(_, peer)| peer)
    }
}

/// Median and largest share of the cores that other programs used during the runs.
pub(crate) fn others<'a, R: Run + 'a>(runs: impl Iterator<Item = &'a R>) -> (f64, f64) {
    let shares: Vec<f64> = runs.map(Run::others).collect();
    let most = shares.iter().copied().fold(0.0, f64::max);
    (median(shares).unwrap_or(0.0), most)
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    fn compared(runs: &[(&'static str, u32, f64)]) -> Compared<&'static str, f64> {
        let mut compared = Compared::default();
        for &(peer, round, value) in runs {
            compared.insert(peer, round, value);
        }
        compared
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // In the second round the machine was ten times slower, for both.
        let compared = compared(&[("a", 0, 2.0), ("b", 0, 1.0), ("a", 1, 0.2), ("b", 1, 0.1), ("a", 2, 5.0)]);
        assert_eq!(compared.ratio("a", Some("b"), |&value| Some(value)), Some(2.0));
        assert_eq!(compared.ratio("a", Some("nobody"), |&value| Some(value)), None);
        assert_eq!(compared.ratio("a", None, |&value| Some(value)), None);
    }

    #[test]
    fn the_best_is_found_among_those_that_take_part() {
        let compared = compared(&[("a", 0, 1.0), ("b", 0, 2.0), ("c", 0, 3.0)]);
        let best = |better| compared.best(better, |peer| peer != "c", |&value| Some(value));
        assert_eq!(best(Better::More), Some("b"));
        assert_eq!(best(Better::Less), Some("a"));
    }

    #[test]
    fn each_round_begins_with_another_peer() {
        let of_round = |round| in_turn(&["a", "b", "c"], round).collect::<Vec<_>>();
        assert_eq!(of_round(0), ["a", "b", "c"]);
        assert_eq!(of_round(4), ["b", "c", "a"]);
        assert_eq!(in_turn::<u8>(&[], 1).count(), 0);
    }

    struct Shaken(f64, u64);

    impl Run for Shaken {
        fn others(&self) -> f64 {
            self.0
        }

        fn errors(&mut self) -> &mut u64 {
            &mut self.1
        }
    }

    #[tokio::test]
    async fn of_disturbed_runs_the_calmest_counts_with_the_errors_of_all() {
        let mut shares = [0.5, 0.3, 0.4, 0.0].into_iter();
        let run = calmest(2, async || shares.next().map(|share| Shaken(share, 1)).ok_or("no more")).await;
        assert!(run.is_ok_and(|run| (run.0 - 0.3).abs() < f64::EPSILON && run.1 == 3));
        assert_eq!(shares.next(), Some(0.0));
    }
}
