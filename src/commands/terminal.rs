//! The terminal as a command in a node sees it: bytes as they are typed, and its size.

use std::io::{IsTerminal, Read};

use bytes::Bytes;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::runtime::Input;

/// Pieces of input on their way.
const PIECES_WAITING_MAX: usize = 16;
const PIECE: usize = 16 << 10;

/// This program's standard input, handed to a command elsewhere. Dropped, the terminal is as it was.
pub struct Handed {
    before: Option<Termios>,
}

impl Handed {
    /// Hands over what this program reads. Where it stands between two terminals, the command gets one too: keys go to it as they are
    /// typed, Ctrl-C among them.
    pub fn take() -> (Handed, Input) {
        let (send, bytes) = mpsc::channel(PIECES_WAITING_MAX);
        // A thread of its own: a read that nothing ends must not keep the program.
        std::thread::spawn(move || {
            let mut piece = vec![0; PIECE];
            while let Ok(count @ 1..) = std::io::stdin().lock().read(&mut piece) {
                let piece = Bytes::copy_from_slice(&piece[..count]);
                if send.blocking_send(piece).is_err() {
                    break;
                }
            }
        });
        let both = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let before = both.then(raw).flatten();
        let terminal = before.as_ref().map(|_| sizes());
        (Handed { before }, Input { bytes, terminal })
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nobody is left to be told that it cannot be.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Has keys come as they are typed, those that were typed already among them; how the terminal was before, if it could be changed.
fn raw() -> Option<Termios> {
    let before = tcgetattr(std::io::stdin()).ok()?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
    Some(before)
}

/// The terminal's size, rows and columns, now and whenever it changes.
fn sizes() -> mpsc::Receiver<(u16, u16)> {
    let (send, sizes) = mpsc::channel(1);
    tokio::spawn(async move {
        let Ok(mut changes) = signal(SignalKind::window_change()) else {
            return;
        };
        while let Ok(size) = tcgetwinsize(std::io::stdin()) {
            let told = send.send((size.ws_row, size.ws_col)).await;
            if told.is_err() || changes.recv().await.is_none() {
                break;
            }
        }
    });
    sizes
}
