//! Without a process: somebody plays the old one.

use super::*;
use crate::app::Outfit;
use crate::app::upgrade::launch::Launch;
use crate::config::Config;
use crate::net::descriptors::Descriptors;
use crate::net::inherited::Inherited;
use crate::telemetry::events::Events;

/// One that has been prepared, and a passage to whoever plays the old process.
pub(in crate::app::upgrade) async fn prepared() -> (App, Inheritance, (Mouth, Ear)) {
    let config = "nodes: [\"127.0.0.1:1\"]\ncheck: {type: tcp}\nlisteners:\n  - {name: rw, bind: \"127.0.0.1:0\", target: any}\n\
                  admin: off\nruntime: {threads: 1, watch_config: false}\n";
    let config = Config::from_yaml(config, "test", &|_| None).unwrap();
    let outfit = Outfit {
        origin: "test".to_owned(),
        file: None,
        descriptors: Descriptors::of_process(),
        inherited: Inherited::default(),
        set_log: Box::new(|_| Ok(())),
        log_drops: Box::new(|| 0),
        events: Events::default(),
        launch: Launch { program: "none".into(), arguments: Vec::new() },
        handed: Some(Handed::default()),
    };
    let app = App::start(config, outfit).await.unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mouth, ear) = open(ours).unwrap();
    let (handed, by_hand) = (Handed::default(), ByHand::default());
    (app, Inheritance { mouth, ear, old: None, handed, by_hand }, open(theirs).unwrap())
}

/// One that receives sessions, of which the first has arrived.
async fn receiving() -> (Arrivals, Ear, oneshot::Receiver<()>, (Mouth, Ear)) {
    let (mut app, Inheritance { mouth, ear, by_hand, .. }, old) = prepared().await;
    let (sender, ours) = oneshot::channel();
    let arrivals = Arrivals {
        quarters: app.quarters.take().unwrap(),
        mouth,
        is_heard: true,
        waiting: HashMap::from([(1, sender)]),
        ready: mpsc::unbounded_channel().0,
        moved: 0,
        by_hand,
    };
    (arrivals, ear, ours, old)
}

#[tokio::test]
async fn what_was_set_by_hand_meanwhile_is_so_before_anybody_is_let_in() {
    let (mut app, inheritance, (mut mouth, mut ear)) = prepared().await;
    let (shared, gate) = (Arc::clone(&app.shared), app.quarters.as_ref().unwrap().gate.clone());
    let old = async {
        assert!(matches!(ear.hear().await.unwrap().unwrap().what, ToOld::Ready));
        let rw = || Arc::clone(shared.setup().listener("rw").unwrap());
        rw().set_paused(true);
        let by_hand = ByHand::of(&shared);
        rw().set_paused(false);
        assert_eq!(gate.now(), Word::Shut);
        mouth.say(&ToNew::Begin { numbers_above: 1, by_hand }).await.unwrap();
        assert!(matches!(ear.hear().await.unwrap().unwrap().what, ToOld::Begun));
        assert!(rw().is_paused());
    };
    let (taken, ()) = tokio::join!(inheritance.take_over(&mut app), old);
    assert_eq!((taken, gate.now()), (Ok(()), Word::Open));
}

#[tokio::test]
async fn a_session_that_was_given_away_is_taken_up_though_the_old_process_has_closed() {
    let (arrivals, ear, ours, (mut mouth, old_ear)) = receiving().await;
    mouth.say(&ToNew::Yours(1)).await.unwrap();
    drop((mouth, old_ear));
    // It would be said of another one that it is ready, and nobody is there to hear it.
    let (ready, readied) = mpsc::unbounded_channel();
    ready.send((2, Ok(()))).unwrap();
    arrivals.receive(ear, readied).await;
    assert_eq!(ours.await, Ok(()));
}

#[tokio::test]
async fn who_is_told_to_stop_by_the_other_process_does_so_in_its_own_time() {
    for is_stopped in [false, true] {
        let (arrivals, ear, ours, (mut mouth, old_ear)) = receiving().await;
        let (shared, is_to_stop) =
            (Arc::clone(&arrivals.quarters.shared), arrivals.quarters.is_to_stop.clone());
        if is_stopped {
            shared.stop.cancel();
        }
        mouth.say(&ToNew::Yours(1)).await.unwrap();
        mouth.say(&ToNew::Stop).await.unwrap();
        drop((mouth, old_ear));
        let (_ready, readied) = mpsc::unbounded_channel();
        arrivals.receive(ear, readied).await;
        assert_eq!((ours.await, is_to_stop.is_cancelled()), (Ok(()), true), "{is_stopped}");
        assert_eq!(shared.stop.is_cancelled(), is_stopped);
    }
}

#[tokio::test]
async fn who_is_stopped_takes_up_what_was_given_away() {
    let (arrivals, ear, ours, (mut mouth, mut old_ear)) = receiving().await;
    arrivals.quarters.shared.stop.cancel();
    let (_ready, readied) = mpsc::unbounded_channel();
    let old = async {
        // It says so while it does not know yet that nobody takes more.
        mouth.say(&ToNew::Yours(1)).await.unwrap();
        assert!(old_ear.hear::<ToOld>().await.unwrap().is_none());
        drop((mouth, old_ear));
    };
    tokio::join!(arrivals.receive(ear, readied), old);
    assert_eq!(ours.await, Ok(()));
}
