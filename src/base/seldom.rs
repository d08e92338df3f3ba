//! What is said of trouble that comes again and again: once, and then now and then, with how often it came meanwhile.

use std::time::Duration;

use tokio::time::Instant;

/// When something was last said.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// It has come again. How often it did since it was last said, if it is to be said now: that is not more than once in
    /// `every`.
    pub fn again(&mut self, every: Duration) -> Option<u64> {
        if self.said.is_some_and(|at| at.elapsed() < every) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_at_once_and_then_now_and_then() {
        let (mut seldom, every) = (Seldom::default(), Duration::from_secs(10));
        assert_eq!([(); 3].map(|()| seldom.again(every)), [Some(0), None, None]);
        tokio::time::advance(every).await;
        assert_eq!([(); 2].map(|()| seldom.again(every)), [Some(2), None]);
    }
}
