//! How a node of an ephemeral cluster knows that it is to end: its time is up, or whoever held it is gone.
//!
//! A holder is the other end of the node's standard input: the process itself for a plain process, the daemon on behalf of an
//! attached client for a container. It writes [`HELD`] once; when its process ends, however it ends, the kernel closes the
//! connection and the node reads the end of its input. Nothing is polled, no port is opened, and a node that nobody held
//! (its input is empty from the start) goes on until its time is up.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

/// What a holder writes: from now on, the end of input is the end of the node.
pub const HELD: &[u8] = b"h";

/// Between two looks at the clock: a timer does not see a suspended machine's time, nor a clock that is set.
const CLOCK_LOOK: Duration = Duration::from_secs(15);

/// Unix seconds of now.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Waits until the node whose standard input this process has is to end, and says why.
pub async fn lapse(until: u64) -> &'static str {
    tokio::select! {
        () = time_is_up(until) => "its time is up",
        () = holder_is_gone(std::io::stdin()) => "the rmqctl that held the cluster is gone",
    }
}

async fn time_is_up(until: u64) {
    while let Some(left) = until.checked_sub(now()).filter(|left| *left > 0) {
        tokio::time::sleep(Duration::from_secs(left).min(CLOCK_LOOK)).await;
    }
}

/// Resolves when `input` ends after a holder spoke; never when none did.
async fn holder_is_gone(mut input: impl Read + Send + 'static) {
    let (tell, told) = oneshot::channel();
    // A thread of its own: one of the pool's would keep the process from ending while it reads.
    std::thread::spawn(move || {
        let mut held = false;
        let mut buffer = [0; 64];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => held = true,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if held {
            // Nobody waits any more when the node ends already.
            let _ = tell.send(());
        }
    });
    if told.await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_node_ends_when_its_holder_does_and_not_before() {
        let (read, mut write) = std::io::pipe().unwrap();
        let gone = holder_is_gone(read);
        tokio::pin!(gone);
        write.write_all(HELD).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), &mut gone).await;
        assert!(early.is_err(), "its holder is there");
        drop(write);
        gone.await;
    }

    #[tokio::test]
    async fn a_node_that_nobody_held_outlives_its_empty_input() {
        let gone = holder_is_gone(std::io::empty());
        let ended = tokio::time::timeout(Duration::from_millis(50), gone).await;
        assert!(ended.is_err());
    }

    #[tokio::test]
    async fn time_that_is_past_is_up_at_once() {
        time_is_up(now()).await;
        time_is_up(0).await;
        let later = tokio::time::timeout(Duration::from_millis(50), time_is_up(now() + 60)).await;
        assert!(later.is_err());
    }
}
