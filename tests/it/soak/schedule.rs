//! What goes wrong, in which order: a pure function of the seed.
//!
//! Nodes are meant by what they are when their turn comes, so that the same seed means the same story however long a
//! promotion took on this machine.

use std::time::Duration;

use fastrand::Rng;

/// Which node a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The primary of that moment.
    Primary,
    /// One of the two standbys of that moment, in the order of the file.
    Standby(usize),
}

/// How an old primary ends before a standby is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// `kill -9` of all its processes.
    Killed,
    /// `pg_ctl stop -m fast`.
    Stopped,
}

/// What goes wrong. Never with more than one node at a time, but for the last two of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Killed with all its processes, and started again. While it is away its port refuses, or accepts and resets.
    Kill {
        /// Nothing listens on its address meanwhile.
        refuses: bool,
    },
    /// Stopped in a hurry and started again.
    Restart,
    /// Frozen with all its processes.
    Stop,
    /// Nothing moves between pgsplit and it, and arrives later.
    Freeze,
    /// Whatever is sent vanishes.
    Drop,
    /// Every connection is reset.
    Reset,
    /// Connections end after this many bytes of the server, in the middle of whatever it is.
    Cut(u64),
    /// New connections are refused, open ones go on.
    Refuse,
    /// Everything is this many milliseconds late.
    Delay(u64),
    /// Everything comes in pieces of this many bytes.
    Slice(usize),
    /// All its connections are taken.
    Full,
    /// It replays nothing; a standby always.
    ReplayPause,
    /// The primary dies, a standby is promoted, the old one returns as a standby.
    Promote(Death),
    /// A standby is promoted beside the primary, which goes on as if nothing were.
    TwoPrimaries,
    /// A crowd of clients breaks off in the middle of everything.
    ClientResets,
    /// pgsplit itself is frozen.
    StopBalancer,
    /// Nobody reads pgsplit's log.
    LogStall,
}

/// One fault of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Calm before it.
    pub after: Duration,
    /// What happens.
    pub fault: Fault,
    /// To whom, if to a node.
    pub whom: Whom,
    /// From its beginning to the moment when it is mended.
    pub lasts: Duration,
}

/// The endless schedule of a seed.
#[derive(Clone, Debug)]
pub struct Schedule {
    rng: Rng,
    /// Faults still to come before any comes again: a short run, too, sees many kinds.
    bag: Vec<Kind>,
}

/// Faults without their details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Restart,
    Stop,
    Freeze,
    Drop,
    Reset,
    Cut,
    Refuse,
    Delay,
    Slice,
    Full,
    ReplayPause,
    Promote,
    TwoPrimaries,
    ClientResets,
    StopBalancer,
    LogStall,
}

/// What a bag holds at first.
const BAG: [Kind; 21] = [
    Kind::Kill,
    Kind::Kill,
    Kind::Restart,
    Kind::Stop,
    Kind::Stop,
    Kind::Freeze,
    Kind::Freeze,
    Kind::Drop,
    Kind::Drop,
    Kind::Reset,
    Kind::Cut,
    Kind::Refuse,
    Kind::Delay,
    Kind::Slice,
    Kind::Full,
    Kind::ReplayPause,
    Kind::Promote,
    Kind::TwoPrimaries,
    Kind::ClientResets,
    Kind::StopBalancer,
    Kind::LogStall,
];

impl Schedule {
    /// The schedule of this seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), bag: Vec::new() }
    }

    fn kind(&mut self) -> Kind {
        if self.bag.is_empty() {
            self.bag = BAG.to_vec();
        }
        let at = self.rng.usize(..self.bag.len());
        self.bag.swap_remove(at)
    }

    fn lasts(&mut self, millis: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(millis))
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let after = self.lasts(1000..4000);
        let kind = self.kind();
        let whom = if self.rng.bool() { Whom::Primary } else { Whom::Standby(self.rng.usize(..2)) };
        let (fault, millis) = match kind {
            Kind::Kill => (Fault::Kill { refuses: self.rng.bool() }, 200..3000),
            Kind::Restart => (Fault::Restart, 0..1),
            Kind::Stop => (Fault::Stop, 300..8000),
            Kind::Freeze => (Fault::Freeze, 300..8000),
            Kind::Drop => (Fault::Drop, 300..8000),
            Kind::Reset => (Fault::Reset, 300..2000),
            Kind::Cut => (Fault::Cut(1 + self.rng.u64(..30).pow(2)), 300..2000),
            Kind::Refuse => (Fault::Refuse, 300..3000),
            Kind::Delay => (Fault::Delay(self.rng.u64(5..60)), 500..3000),
            Kind::Slice => (Fault::Slice(self.rng.usize(40..400)), 500..2000),
            Kind::Full => (Fault::Full, 500..3000),
            Kind::ReplayPause => (Fault::ReplayPause, 500..4000),
            Kind::Promote => {
                let death = if self.rng.bool() { Death::Killed } else { Death::Stopped };
                (Fault::Promote(death), 200..2000)
            }
            Kind::TwoPrimaries => (Fault::TwoPrimaries, 6000..8000),
            Kind::ClientResets => (Fault::ClientResets, 0..1),
            Kind::StopBalancer => (Fault::StopBalancer, 500..501),
            Kind::LogStall => (Fault::LogStall, 500..3000),
        };
        let lasts = self.lasts(millis);
        let whom = match (fault, whom) {
            (Fault::ReplayPause, Whom::Primary) => Whom::Standby(self.rng.usize(..2)),
            (Fault::Promote(_) | Fault::TwoPrimaries, _) => Whom::Primary,
            _ => whom,
        };
        Some(Step { after, fault, whom, lasts })
    }
}

#[test]
fn the_same_seed_tells_the_same_story_and_every_story_has_every_fault() {
    let steps = |seed| Schedule::new(seed).take(BAG.len()).collect::<Vec<_>>();
    assert_eq!(steps(7), steps(7));
    assert_ne!(steps(7), steps(8));
    for seed in 0..50 {
        let kinds: std::collections::HashSet<_> =
            steps(seed).iter().map(|step| std::mem::discriminant(&step.fault)).collect();
        assert_eq!(kinds.len(), 17, "seed {seed}");
        let early = steps(seed).into_iter().find(|step| step.fault == Fault::ReplayPause).unwrap();
        assert_ne!(early.whom, Whom::Primary);
    }
}
