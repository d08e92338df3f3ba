//! Whether the threads that serve still answer. One that hangs answers nobody; one that only got no processor is not
//! blamed for that time.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Calls threads and hears who answers. One for a process; a clone calls the same threads.
#[derive(Clone, Debug, Default)]
pub struct RollCall(Arc<Mutex<Vec<Called>>>);

/// One of them, as the caller sees it.
#[derive(Debug)]
struct Called {
    name: String,
    ear: Arc<Ear>,
    /// When it was called last, and how long it had waited for a processor until then.
    at: Instant,
    waited: Duration,
}

/// What caller and thread share.
#[derive(Debug, Default)]
struct Ear {
    call: Notify,
    /// Called, and no answer yet.
    is_awaited: AtomicBool,
    has_left: AtomicBool,
    /// The number of its thread, once it runs.
    thread: OnceLock<i32>,
}

/// A thread that has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// Its name.
    pub name: String,
    /// For how long, without the time in which it would have run and got no processor.
    pub since: Duration,
}

/// A thread's part: it answers by this.
#[derive(Debug)]
pub struct Answering(Arc<Ear>);

impl RollCall {
    /// A thread of this name is called from now on, whether or not it runs yet.
    #[must_use]
    pub fn enter(&self, name: &str) -> Answering {
        let ear = Arc::<Ear>::default();
        let (name, at, waited) = (name.to_owned(), Instant::now(), Duration::ZERO);
        self.lock().push(Called { name, ear: Arc::clone(&ear), at, waited });
        Answering(ear)
    }

    /// Calls all threads that have answered the last call. Those that have not are the answer. Never waits.
    #[must_use]
    pub fn call(&self) -> Vec<Silent> {
        let mut all = self.lock();
        all.retain(|called| !called.ear.has_left.load(Ordering::Relaxed));
        all.iter_mut().filter_map(Called::call).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Called>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Called {
    fn call(&mut self) -> Option<Silent> {
        let waited =
            self.ear.thread.get().and_then(|&thread| waited_for_processor(thread)).unwrap_or_default();
        if self.ear.is_awaited.load(Ordering::Relaxed) {
            let starved = waited.saturating_sub(self.waited);
            let since = self.at.elapsed().saturating_sub(starved);
            return Some(Silent { name: self.name.clone(), since });
        }
        (self.at, self.waited) = (Instant::now(), waited);
        self.ear.is_awaited.store(true, Ordering::Relaxed);
        self.ear.call.notify_one();
        None
    }
}

impl Answering {
    /// Runs `life`, the whole life of a thread, on that thread, and answers calls beside it. Who has come to the end of it
    /// is called no more; who has panicked is, and never answers. Cancel safe if `life` is.
    pub async fn beside<Life: Future>(self, life: Life) -> Life::Output {
        #[cfg(target_os = "linux")]
        let _ = self.0.thread.set(rustix::thread::gettid().as_raw_nonzero().get());
        let answer = async {
            loop {
                self.0.call.notified().await;
                self.0.is_awaited.store(false, Ordering::Relaxed);
            }
        };
        let end = tokio::select! {
            biased;
            end = life => end,
            () = answer => unreachable!("it answers for ever"),
        };
        self.0.has_left.store(true, Ordering::Relaxed);
        end
    }
}

/// How long a thread of this process, since it began, could have run and had to wait for a processor; `None` where the
/// system does not say. From the second number of `schedstat`, nanoseconds
/// (<https://docs.kernel.org/scheduler/sched-stats.html>).
fn waited_for_processor(thread: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread::JoinHandle;

    type Work = Box<dyn FnOnce() + Send>;

    /// A thread with a runtime of its own that does what it is sent, and ends when nobody can send any more.
    fn thread(roll: &RollCall, name: &str) -> (mpsc::Sender<Work>, JoinHandle<()>) {
        let answering = roll.enter(name);
        let (sender, work) = mpsc::channel::<Work>();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(answering.beside(async {
                loop {
                    match work.try_recv() {
                        Ok(work) => work(),
                        Err(mpsc::TryRecvError::Disconnected) => break,
                        Err(mpsc::TryRecvError::Empty) => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                }
            }));
        };
        (sender, std::thread::spawn(run))
    }

    /// Calls until `wanted` holds of who is silent.
    fn call_until(roll: &RollCall, wanted: impl Fn(&[Silent]) -> bool) -> Vec<Silent> {
        let start = Instant::now();
        loop {
            let silent = roll.call();
            if wanted(&silent) {
                return silent;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "last: {silent:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_is_stuck_is_named_until_it_goes_on() {
        let roll = RollCall::default();
        let (_idle, _thread) = thread(&roll, "worker-0");
        let (stuck, _) = thread(&roll, "worker-1");
        call_until(&roll, <[_]>::is_empty);
        let (go_on, wait) = mpsc::channel::<()>();
        stuck.send(Box::new(move || assert!(wait.recv().is_err()))).unwrap();
        let long = Duration::from_millis(200);
        let silent = call_until(&roll, |silent| silent.iter().any(|silent| long < silent.since));
        let stuck: Vec<_> = silent.iter().filter(|silent| long < silent.since).collect();
        assert_eq!(stuck.iter().map(|silent| &silent.name).collect::<Vec<_>>(), ["worker-1"]);
        drop(go_on);
        call_until(&roll, |silent| silent.iter().all(|silent| silent.name != "worker-1"));
    }

    #[test]
    fn who_has_ended_is_called_no_more_and_who_has_panicked_is() {
        let roll = RollCall::default();
        let (ended, thread_0) = thread(&roll, "worker-0");
        let (broken, thread_1) = thread(&roll, "worker-1");
        drop(ended);
        thread_0.join().unwrap();
        broken.send(Box::new(|| panic!("as a bug would"))).unwrap();
        assert!(thread_1.join().is_err());
        let _ = roll.call();
        let silent: Vec<_> = roll.call().into_iter().map(|silent| silent.name).collect();
        assert_eq!(silent, ["worker-1"]);
    }

    /// Spins on one processor, the same for all who call this, until `is_over`.
    #[cfg(target_os = "linux")]
    fn crowd(is_over: &AtomicBool) {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let allowed = sched_getaffinity(None).unwrap();
        let mut first = CpuSet::new();
        first.set((0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap());
        sched_setaffinity(None, &first).unwrap();
        while !is_over.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_time_without_a_processor_is_not_held_against_a_thread() {
        let roll = RollCall::default();
        let (starved, _) = thread(&roll, "worker-0");
        call_until(&roll, <[_]>::is_empty);
        let is_over = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        for _ in 0..4 {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || crowd(&is_over));
        }
        let until = Arc::clone(&is_over);
        starved.send(Box::new(move || crowd(&until))).unwrap();
        // It has a fifth of the processor.
        call_until(&roll, |silent| {
            let took = begun.elapsed();
            let is_spared = |silent: &Silent| Duration::ZERO < silent.since && silent.since < took / 2;
            Duration::from_millis(200) < took && silent.iter().any(is_spared)
        });
        is_over.store(true, Ordering::Relaxed);
    }
}
