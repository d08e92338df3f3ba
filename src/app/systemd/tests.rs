//! A socket that plays systemd, and threads that hang.

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;

use super::*;

/// What systemd would hear.
struct Heard(UnixDatagram);

impl Heard {
    /// The next message within `limit`.
    fn next(&self, limit: Duration) -> Option<String> {
        let mut message = [0; 4096];
        self.0.set_read_timeout(Some(limit)).unwrap();
        let length = self.0.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }
}

fn systemd(watchdog: Duration) -> (Systemd, Heard, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let heard = Heard(UnixDatagram::bind(&path).unwrap());
    let addr = heard.0.local_addr().unwrap();
    let (socket, is_main) = (Some(Arc::new(Socket::at(addr))), Arc::new(AtomicBool::new(true)));
    (Systemd { socket, watchdog: Some(watchdog), is_main, is_up: Arc::default() }, heard, dir)
}

#[test]
fn a_thread_that_hangs_ends_the_signs_of_life_and_one_that_answers_again_brings_them_back() {
    let limit = Duration::from_millis(400);
    let (systemd, heard, _dir) = systemd(limit);
    let roll = RollCall::default();
    let (answering, (work, to_do)) = (roll.enter("worker-0"), mpsc::channel::<mpsc::Receiver<()>>());
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(answering.beside(async {
            loop {
                match to_do.try_recv() {
                    // As a lock that is never released would.
                    Ok(until) => assert!(until.recv().is_err()),
                    Err(mpsc::TryRecvError::Empty) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(mpsc::TryRecvError::Disconnected) => break,
                }
            }
        }));
    });
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let control = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                () = systemd.live(&roll) => {}
                _ = ended => {}
            }
        });
    });
    let patience = Duration::from_secs(20);
    assert_eq!(heard.next(patience).as_deref(), Some("WATCHDOG=1\n"));
    let (go_on, until) = mpsc::channel();
    work.send(until).unwrap();
    let begun = Instant::now();
    while heard.next(limit).is_some() {
        assert!(begun.elapsed() < patience, "it is still called alive");
    }
    drop(go_on);
    assert_eq!(heard.next(patience).as_deref(), Some("WATCHDOG=1\n"));
    drop((work, end));
    worker.join().unwrap();
    control.join().unwrap();
}

#[tokio::test]
async fn nobody_who_listens_is_no_trouble() {
    let (systemd, heard, dir) = systemd(Duration::from_secs(1));
    systemd.tell(&[NotifyState::Ready]).await;
    assert_eq!(heard.next(Duration::from_secs(20)).as_deref(), Some("READY=1\n"));
    drop((heard, dir));
    systemd.tell(&[NotifyState::Ready]).await;
}

#[tokio::test]
async fn a_systemd_that_takes_nothing_more_holds_nobody_up() {
    let (systemd, _heard, _dir) = systemd(Duration::from_secs(1));
    // More than its queue holds, whatever that is: from then on each word is given up after a moment.
    let words = async {
        while !systemd.socket.as_ref().unwrap().has_failed() {
            systemd.tell(&[NotifyState::Watchdog]).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), words).await.unwrap();
}

#[tokio::test]
async fn a_reload_is_told_of_only_between_ready_and_stopping() {
    let (systemd, heard, _dir) = systemd(Duration::from_secs(1));
    let patience = Duration::from_secs(20);
    systemd.while_reloading(async {}).await;
    systemd.is_up.store(true, Ordering::Relaxed);
    systemd.while_reloading(async {}).await;
    let told = heard.next(patience);
    assert!(told.as_ref().is_some_and(|told| told.starts_with("RELOADING=1\n")), "{told:?}");
    assert_eq!(heard.next(patience).as_deref(), Some("READY=1\n"));
    // One that is under way when the end begins.
    systemd.while_reloading(systemd.is_stopping()).await;
    let told = heard.next(patience);
    assert!(told.as_ref().is_some_and(|told| told.starts_with("RELOADING=1\n")), "{told:?}");
    let told = heard.next(patience);
    assert!(told.as_ref().is_some_and(|told| told.starts_with("STOPPING=1\n")), "{told:?}");
    systemd.tell(&[NotifyState::Watchdog]).await;
    assert_eq!(heard.next(patience).as_deref(), Some("WATCHDOG=1\n"), "and no word that it is ready");
}
