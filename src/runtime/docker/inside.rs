//! What is done in a container: commands run, addresses dialled, files copied out and in.

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters as query;
use bytes::Bytes;
use futures_util::StreamExt;
use rocketmq_protocol::json;
use rocketmq_protocol::partition::Order;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{Receiver, Sender};

use super::super::{Input, Output, RuntimeError, no_orders, order_address};
use super::Docker;
use crate::probe::Dial;
use crate::topology::{Desired, Node};

/// How the command line names the engine's binary, wherever it lies in the image.
const OUR_NAME: &str = "rmqctl";

impl Docker {
    /// Runs a command beside the engine, gives it what it is to read and sends what it prints; its exit code.
    pub(super) async fn run_in(
        &self,
        container: &str,
        command: &[String],
        input: Option<Input>,
        output: &Sender<Output>,
    ) -> Result<i64, RuntimeError> {
        let failed = |e: bollard::errors::Error| {
            RuntimeError::failed("run a command in", container, daemon_words(e))
        };
        let mut command = command.to_vec();
        if let Some(program) = command.first_mut().filter(|name| *name == OUR_NAME) {
            *program = crate::topology::CONTAINER_BINARY.to_owned();
        }
        let tty = input.as_ref().is_some_and(|input| input.terminal.is_some());
        let options = CreateExecOptions {
            attach_stdin: Some(input.is_some()),
            tty: Some(tty),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command),
            ..Default::default()
        };
        let made = self.api.create_exec(container, options).await;
        let id = made.map_err(failed)?.id;
        let options = StartExecOptions {
            tty,
            ..Default::default()
        };
        let started = self.api.start_exec(&id, Some(options)).await;
        let StartExecResults::Attached {
            output: mut pieces,
            input: mut stdin,
        } = started.map_err(failed)?
        else {
            return Err(RuntimeError::failed(
                "run a command in",
                container,
                "the daemon detached it",
            ));
        };
        let (bytes, sizes) = match input {
            Some(input) => (Some(input.bytes), input.terminal),
            None => (None, None),
        };
        let feed = async {
            if let Some(mut bytes) = bytes {
                while let Some(piece) = bytes.recv().await {
                    // A command that reads no more may still print, and its exit code counts.
                    if stdin.write_all(&piece).await.is_err() || stdin.flush().await.is_err() {
                        break;
                    }
                }
                let _ = stdin.shutdown().await;
            }
            std::future::pending::<()>().await;
        };
        let resize = async {
            if let Some(mut sizes) = sizes {
                while let Some((height, width)) = sizes.recv().await {
                    // One that has ended meanwhile needs no size.
                    let size = ResizeExecOptions { height, width };
                    let _ = self.api.resize_exec(&id, size).await;
                }
            }
            std::future::pending::<()>().await;
        };
        let print = async {
            while let Some(piece) = pieces.next().await {
                let piece = match piece.map_err(failed)? {
                    LogOutput::StdErr { message } => Output::Err(message),
                    other => Output::Out(other.into_bytes()),
                };
                // Whoever listens no more still wants the exit code.
                let _ = output.send(piece).await;
            }
            Ok::<(), RuntimeError>(())
        };
        // The command ends when it has printed all; what it did not read is left.
        tokio::select! {
            printed = print => printed?,
            () = feed => {}
            () = resize => {}
        }
        let ended = self.api.inspect_exec(&id).await.map_err(failed)?;
        ended.exit_code.ok_or_else(|| {
            RuntimeError::failed(
                "run a command in",
                container,
                "the daemon knows no exit code",
            )
        })
    }

    /// Runs the engine's own dialler in the container, one process for all addresses. It prints a line an address:
    /// `ok HOST:PORT`, or `fail HOST:PORT REASON`.
    pub(super) async fn dial_from(
        &self,
        container: &str,
        addresses: &[String],
    ) -> Result<Vec<Dial>, RuntimeError> {
        let mut command = vec![
            crate::topology::CONTAINER_BINARY.to_string(),
            "engine".into(),
            "health".into(),
        ];
        for address in addresses {
            command.extend(["--dial".to_string(), address.clone()]);
        }
        let (_, text) = self.heard_in(container, &command).await?;
        Ok(parse_dials(addresses, &text))
    }

    /// Runs a command beside the engine: its exit code, and all that it prints.
    async fn heard_in(
        &self,
        container: &str,
        command: &[String],
    ) -> Result<(i64, String), RuntimeError> {
        let (send, mut receive) = tokio::sync::mpsc::channel(8);
        let run = async {
            let send = send;
            self.run_in(container, command, None, &send).await
        };
        let collect = async {
            let mut text = String::new();
            while let Some(Output::Out(piece) | Output::Err(piece)) = receive.recv().await {
                text.push_str(&String::from_utf8_lossy(&piece));
            }
            text
        };
        let (ran, text) = tokio::join!(run, collect);
        ran.map(|code| (code, text))
    }

    /// From within the container: the engine takes orders from nobody outside, not even through its published port.
    pub(super) async fn give_order(
        &self,
        desired: &Desired,
        node: &Node,
        order: &Order,
    ) -> Result<(), RuntimeError> {
        let container = node.container.as_str();
        let failed = |reason: String| RuntimeError::failed("give an order to", container, reason);
        if let Some(error) = no_orders(node, "docker") {
            return Err(error);
        }
        self.must_own(desired, container).await?;
        let address =
            order_address(node, "127.0.0.1").ok_or_else(|| failed("it listens nowhere".into()))?;
        let order = json::to_fastjson(order);
        let binary = crate::topology::CONTAINER_BINARY;
        let command = [binary, "engine", "order", &address, &order].map(str::to_owned);
        match self.heard_in(container, &command).await? {
            (0, _) => Ok(()),
            (_, text) if text.contains("unrecognized subcommand") => Err(failed(
                "its engine is older than this rmqctl and knows no such order; `upgrade` replaces it".into(),
            )),
            (_, text) => Err(failed(text.trim().to_owned())),
        }
    }

    pub(super) async fn archive_out(
        &self,
        desired: &Desired,
        container: &str,
        path: &str,
        archive: Sender<Bytes>,
    ) -> Result<(), RuntimeError> {
        self.must_own(desired, container).await?;
        let shown = format!("{container}:{path}");
        let options = query::DownloadFromContainerOptionsBuilder::new()
            .path(path)
            .build();
        let mut pieces = std::pin::pin!(self.api.download_from_container(container, Some(options)));
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| RuntimeError::failed("copy", &shown, daemon_words(e)))?;
            // Whoever reads has had enough: it says itself why.
            if archive.send(piece).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The archive must not be compressed: the daemon unpacks such ones with the container's own tools (GHSA-x86f-5xw2-fm2r).
    pub(super) async fn archive_in(
        &self,
        desired: &Desired,
        container: &str,
        dir: &str,
        archive: Receiver<Bytes>,
    ) -> Result<(), RuntimeError> {
        self.must_own(desired, container).await?;
        let shown = format!("{container}:{dir}");
        let options = query::UploadToContainerOptionsBuilder::new()
            .path(dir)
            .build();
        let pieces = futures_util::stream::unfold(archive, |mut archive| async {
            Some((archive.recv().await?, archive))
        });
        self.api
            .upload_to_container(container, Some(options), bollard::body_stream(pieces))
            .await
            .map_err(|e| RuntimeError::failed("copy to", &shown, daemon_words(e)))
    }

    pub(super) async fn must_own(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<(), RuntimeError> {
        match self.own_container(desired, container).await? {
            Some(_) => Ok(()),
            None => Err(RuntimeError::failed("find", container, "no such container")),
        }
    }
}

/// What the daemon said, without the client's words around it.
fn daemon_words(error: bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message,
        other => other.to_string(),
    }
}

/// The dialler's report, one answer an address asked; an address it said nothing of has failed with all it did say.
fn parse_dials(addresses: &[String], text: &str) -> Vec<Dial> {
    let fault_of = |address: &String| {
        for line in text.lines() {
            let (verdict, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (dialled, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            match verdict {
                "ok" if dialled == address => return None,
                "fail" if dialled == address => return Some(reason.to_string()),
                _ => {}
            }
        }
        Some(format!(
            "the dialler gave no answer; it said: {}",
            text.trim()
        ))
    };
    addresses
        .iter()
        .map(|address| Dial {
            address: address.clone(),
            fault: fault_of(address),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_asked_gets_an_answer() {
        let asked = ["a:1", "b:2", "c:3"].map(String::from);
        let dials = parse_dials(&asked, "ok a:1\nfail b:2 connection refused\n");
        let faults: Vec<_> = dials.iter().map(|d| d.fault.as_deref()).collect();
        assert_eq!(faults[..2], [None, Some("connection refused")]);
        assert!(faults[2].unwrap().contains("no answer"));
    }
}
