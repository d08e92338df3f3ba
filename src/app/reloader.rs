//! Loads the configuration again, one time after the other, whoever asks for it, and tells everybody how that went.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::SetLog;
use super::running::Running;
use super::systemd::Systemd;
use super::upgrade::child::Child;
use super::upgrade::old::{Outcome, Predecessor};
use super::watch;
use crate::admin::reload::{Refused, Reload, Reloaded, Reloads};
use crate::admin::upgrade::Upgrade;
use crate::config::diff::{Diff, Effect, diff, keep_until_restart};
use crate::config::{Config, ConfigError};
use crate::session::setup::Setup;
use crate::session::shared::Shared;

/// Who changes what runs.
pub(super) struct Reloader {
    pub shared: Arc<Shared>,
    pub running: Running,
    pub reloads: Reloads,
    /// What is loaded again; `None`: there is no file.
    pub file: Option<PathBuf>,
    pub set_log: SetLog,
    /// Lets another process take this one's place,
    pub predecessor: Predecessor,
    /// which is cancelled when one has.
    pub is_replaced: CancellationToken,
    pub tasks: TaskTracker,
    /// Ends the watch of the file.
    pub watching: Option<DropGuard>,
    pub systemd: Systemd,
}

impl Reloader {
    /// Does what is asked for until the process stops; then the threads, whose connections go on, and the process that was to
    /// take this one's place and stops with it.
    pub(super) async fn run(
        mut self,
        mut asked: mpsc::Receiver<Reload>,
        mut upgrades: mpsc::Receiver<Upgrade>,
    ) -> (Vec<JoinHandle<()>>, Option<Child>) {
        let (stop, mut other) = (self.shared.stop.clone(), None);
        self.watch();
        loop {
            let Reload { by, answer } = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(reload) = asked.recv() => reload,
                Some(upgrade) = upgrades.recv() => {
                    match self.predecessor.upgrade(&mut self.running, upgrade).await {
                        Outcome::Stays => continue,
                        Outcome::Leaves => self.is_replaced.cancel(),
                        Outcome::Stops(child) => other = Some(child),
                    }
                    // Who asks for something now is told that it comes too late.
                    drop((asked, upgrades));
                    stop.cancelled().await;
                    break;
                }
            };
            let systemd = self.systemd.clone();
            let outcome = systemd.while_reloading(self.reload()).await;
            let reloaded = Arc::new(Reloaded { at: SystemTime::now(), by, outcome });
            self.shared.metrics.reloaded(reloaded.result());
            self.reloads.note(&reloaded);
            tell(&reloaded);
            self.watch();
            // Who has asked may not care.
            let _ = answer.send(reloaded);
        }
        (self.running.into_workers(), other)
    }

    async fn reload(&mut self) -> Result<Diff, Refused> {
        let old = self.shared.setup();
        let Some(file) = self.file.clone() else { return Err(Refused::NoFile(old.origin.to_string())) };
        // A file system may take its time.
        let loading =
            tokio::task::spawn_blocking(move || Config::load_again(&file, &|name| std::env::var(name).ok()));
        let stop = self.shared.stop.clone();
        let mut config = match stop.run_until_cancelled(loading).await {
            Some(Ok(loaded)) => loaded.map_err(refused)?,
            Some(Err(_)) => {
                return Err(Refused::Faults(vec!["the file could not be loaded".to_owned()], Vec::new()));
            }
            None => return Err(Refused::Faults(vec!["pgsplit is stopping".to_owned()], Vec::new())),
        };
        let diff = diff(&old.config, &config);
        for warning in config.warnings.iter().filter(|warning| !old.config.warnings.contains(warning)) {
            warn!(text = warning.as_str(), "config_warning");
        }
        keep_until_restart(&old.config, &mut config);
        if diff.is_applied() {
            let prepared = self
                .running
                .prepare(&config, Vec::new(), None)
                .map_err(|error| Refused::Faults(vec![error.in_words()], Vec::new()))?;
            let set = (self.set_log)(&config.log);
            set.map_err(|error| Refused::Faults(vec![format!("log.level: {error}")], Vec::new()))?;
            self.running.go_by(config, prepared).await;
            self.running.leave_lent();
        } else {
            // It may say the same in other words.
            let Config { warnings, read, .. } = config;
            let config = Arc::new(Config { warnings, read, ..Config::clone(&old.config) });
            self.shared.replace_setup(Setup { config, loaded_at: SystemTime::now(), ..Setup::clone(&old) });
        }
        Ok(diff)
    }

    /// Watches the file, or does not, as the configuration has it.
    fn watch(&mut self) {
        let is_wanted = self.file.is_some() && self.shared.setup().config.runtime.watch_config;
        if is_wanted && self.watching.is_none() {
            let end = CancellationToken::new();
            let watch = watch::watch(Arc::clone(&self.shared), self.reloads.clone());
            self.tasks.spawn(end.clone().run_until_cancelled_owned(watch));
            self.watching = Some(end.drop_guard());
        } else if !is_wanted {
            self.watching = None;
        }
    }
}

/// Tells the log.
fn tell(Reloaded { by, outcome, .. }: &Reloaded) {
    match outcome {
        Ok(diff) => {
            let (changed, restart) = (diff.keys(Effect::Applied), diff.keys(Effect::NeedsRestart));
            match (changed.is_empty(), *by) {
                (false, _) => info!(by, changed, "config_reload"),
                // Files are touched all the time.
                (true, "file") => debug!(by, "config_unchanged"),
                (true, _) => info!(by, "config_unchanged"),
            }
            if !restart.is_empty() {
                warn!(by, keys = restart, hint = "restart to apply them", "config_needs_restart");
            }
        }
        Err(Refused::NoFile(origin)) => {
            let hint = "there is no file to load: restart with other flags";
            warn!(by, started_with = origin.as_str(), hint, "config_reload_failed");
        }
        Err(Refused::Faults(faults, _)) => {
            let hint = "what was in force before still is";
            for fault in faults {
                error!(by, error = fault.as_str(), hint, "config_reload_failed");
            }
        }
    }
}

fn refused(error: ConfigError) -> Refused {
    let faults = error.lines();
    let files = if let ConfigError::Invalid(report) = error { report.files } else { Vec::new() };
    Refused::Faults(faults, files)
}
