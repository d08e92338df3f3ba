//! What is the matter with a node, as far as it concerns the sessions that are on it: they stay through most of what
//! keeps new ones away.

use std::sync::Arc;

use crate::base::board::{Board, Small};

/// What is the matter with a node now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "any of them may be so at the same time")]
pub struct Trouble {
    /// It is down, its server did not even say no, and no session hears from it either.
    pub is_unreachable: bool,
    /// It is not the cluster's primary, or no longer: what is written there is refused, or lost.
    pub is_demoted: bool,
    /// It is further behind than allowed.
    pub is_lagging: bool,
    /// It is to be left: its name does not lead to its address any more.
    pub is_leaving: bool,
    /// Somebody has taken it out of use.
    pub is_draining: bool,
}

impl Trouble {
    /// What is the matter by both accounts: of two in a row, what has not got better.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            is_unreachable: self.is_unreachable && other.is_unreachable,
            is_demoted: self.is_demoted && other.is_demoted,
            is_lagging: self.is_lagging && other.is_lagging,
            is_leaving: self.is_leaving && other.is_leaving,
            is_draining: self.is_draining && other.is_draining,
        }
    }
}

impl Small for Trouble {
    fn to_bits(self) -> u8 {
        let flags =
            [self.is_unreachable, self.is_demoted, self.is_lagging, self.is_leaving, self.is_draining];
        flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u8::from(flag))
    }

    fn from_bits(bits: u8) -> Self {
        let flag = |at: u8| bits >> at & 1 == 1;
        Self {
            is_unreachable: flag(0),
            is_demoted: flag(1),
            is_lagging: flag(2),
            is_leaving: flag(3),
            is_draining: flag(4),
        }
    }
}

/// Where a node's sessions see what is the matter with it.
pub type Troubles = Arc<Board<Trouble>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fits_on_a_board() {
        for bits in 0..32 {
            assert_eq!(Trouble::from_bits(bits).to_bits(), bits);
        }
        let lagging = Trouble { is_lagging: true, ..Trouble::default() };
        assert_eq!(Trouble::from_bits(lagging.to_bits()), lagging);
    }
}
