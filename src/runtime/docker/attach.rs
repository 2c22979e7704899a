//! Containers that go when they end: what they say is read while they run, since nobody can ask for it afterwards, and a
//! holder keeps their standard input open.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::query_parameters as query;
use futures_util::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::Docker;
use super::log::Lines;
use crate::lease;
use crate::runtime::RuntimeError;

/// Lines kept of each container.
const KEPT_LINES: usize = 200;

/// A connection to a container's standard streams.
pub(super) struct Attached {
    tail: Arc<Mutex<VecDeque<String>>>,
    /// Dropped, or closed by the end of this process, it ends the container (`StdinOnce`).
    _input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
}

impl Attached {
    /// The last `count` lines, oldest first.
    pub(super) fn last_lines(&self, count: usize) -> Vec<String> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter()
            .skip(tail.len().saturating_sub(count))
            .cloned()
            .collect()
    }
}

impl Docker {
    /// Attaches to a container that is about to be started, so that not a line of it is missed.
    pub(super) async fn attach(&self, container: &str, hold: bool) -> Result<(), RuntimeError> {
        let failed = |reason: String| RuntimeError::failed("attach to", container, reason);
        let options = query::AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(hold)
            .stdout(true)
            .stderr(true)
            .build();
        let mut streams = self
            .api
            .attach_container(container, Some(options))
            .await
            .map_err(|e| failed(e.to_string()))?;
        let input = if hold {
            let told = async {
                streams.input.write_all(lease::HELD).await?;
                streams.input.flush().await
            };
            told.await.map_err(|e| failed(e.to_string()))?;
            Some(streams.input)
        } else {
            None
        };
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let kept = tail.clone();
        let mut output = streams.output;
        tokio::spawn(async move {
            let mut lines = Lines::default();
            // The stream ends with the container; what comes after a broken connection is lost, and only that.
            while let Some(Ok(piece)) = output.next().await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(lines.push(&piece.into_bytes()));
                let excess = kept.len().saturating_sub(KEPT_LINES);
                kept.drain(..excess);
            }
        });
        let attached = Attached {
            tail,
            _input: input,
        };
        self.attached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(container.to_owned(), attached);
        Ok(())
    }
}
