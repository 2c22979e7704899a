//! Ctrl-C and SIGTERM: the first asks for a clean stop, the second leaves at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, Exit};

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
            loop {
                let exit = tokio::select! {
                    _ = int.recv() => Exit::Interrupted,
                    _ = term.recv() => Exit::Terminated,
                };
                if tell.borrow().is_some() {
                    std::process::exit(exit as i32);
                }
                tell.send_replace(Some(exit));
            }
        });
        Ok(Self(told))
    }

    /// One that nobody ever raises.
    #[cfg(test)]
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
