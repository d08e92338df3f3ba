//! One life of the service: start, serve, drain, end.

use std::future::IntoFuture;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::http;
use crate::log::Log;
use crate::settings::Settings;

/// For requests that are under way when the service is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// For what is left then: goodbyes to the database, and name lookups, which know no end of their own.
const LEFTOVERS: Duration = Duration::from_millis(100);

/// Serves until it is told to stop.
pub(crate) fn run(settings: Settings) -> ExitCode {
    let log = Arc::new(Log::new(&settings.instance));
    let served = Builder::new_multi_thread().enable_all().build().and_then(|runtime| {
        let served = runtime.block_on(serve(settings, Arc::clone(&log)));
        runtime.shutdown_timeout(LEFTOVERS);
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.error("failed", &[("error", error.to_string().into())]);
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings, log: Arc<Log>) -> io::Result<()> {
    // Before anything can be stopped: a signal that nobody waits for would end the process at once.
    let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let bind = settings.bind;
    let listener = TcpListener::bind(bind)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("BIND={bind}: {error}")))?;
    log.info(
        "start",
        &[
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("addr", listener.local_addr()?.to_string().into()),
            ("database", settings.database_addr().into()),
        ],
    );
    let database = Arc::new(Database::new(&settings, Arc::clone(&log)).map_err(io::Error::other)?);
    let router = http::router(settings, Arc::clone(&database), Arc::clone(&log)).map_err(io::Error::other)?;

    // Answers are small and complete: nothing to wait for.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let stop = CancellationToken::new();
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut server = std::pin::pin!(server.into_future());
    let name = tokio::select! {
        ended = &mut server => return ended,
        name = told(signals) => name,
    };
    log.info("stopping", &[("signal", name.into())]);
    stop.cancel();
    let complete = tokio::time::timeout(DRAIN, server).await.is_ok();
    // Sessions that end in order; one that cannot is not waited for.
    let _ = tokio::time::timeout(LEFTOVERS, database.close()).await;
    log.info("stop", &[("complete", complete.into())]);
    Ok(())
}

async fn told([mut terminate, mut interrupt]: [Signal; 2]) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
