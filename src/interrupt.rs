//! Ctrl-C and SIGTERM: the first asks for a clean stop, the second leaves at once.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, Exit};

/// Signals this near are one: `timeout` and some job runners signal a process and then its group.
const SAME: Duration = Duration::from_millis(250);

/// Whether somebody asked us to stop.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<Option<Exit>>);

impl Interrupt {
    /// Listens from now on. The second signal ends the process.
    pub fn listen() -> std::io::Result<Self> {
        let (mut int, mut term) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let (tell, told) = watch::channel(None);
        tokio::spawn(async move {
            let mut first: Option<Instant> = None;
            loop {
                let exit = tokio::select! {
                    _ = int.recv() => Exit::Interrupted,
                    _ = term.recv() => Exit::Terminated,
                };
                match first {
                    None => {
                        first = Some(Instant::now());
                        tell.send_replace(Some(exit));
                    }
                    Some(at) if at.elapsed() < SAME => {}
                    Some(_) => std::process::exit(exit as i32),
                }
            }
        });
        Ok(Self(told))
    }

    /// One that nobody ever raises: for what must come to its end.
    pub fn never() -> Self {
        Self(watch::channel(None).1)
    }

    /// Whether the first signal came.
    pub fn is_requested(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves at the first signal.
    pub async fn requested(&self) {
        let mut told = self.0.clone();
        if told.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The error that a command ends with after the first signal.
    pub fn error(&self) -> Error {
        let exit = self.0.borrow().unwrap_or(Exit::Interrupted);
        Error::new("RMQ-E051", exit, "stopped by a signal")
    }
}
