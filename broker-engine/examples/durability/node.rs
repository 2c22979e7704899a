//! Real nodes: `rmqctl engine …` as child processes, each with a directory for its file, its log and its store.

use crate::Outcome;
use broker_engine::config::{self, BrokerConfig};
use broker_engine::net::Client;
use rocketmq_protocol::code::request;
use rocketmq_protocol::{Command, ExtFields};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::Child;

/// Within which a node that was started must answer.
const START: Duration = Duration::from_secs(30);
/// Within which a node that was told to stop must be gone.
const STOP: Duration = Duration::from_secs(30);

/// Which part of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Namesrv,
    Broker,
}

/// A node that is started, killed and started again on the same store.
pub struct Node {
    rmqctl: PathBuf,
    pub dir: PathBuf,
    part: Part,
    pub port: u16,
    child: Option<Child>,
}

impl Node {
    /// Writes the node's file. `properties` go over what every node of these tests has.
    pub fn new(
        rmqctl: &Path,
        dir: &Path,
        part: Part,
        port: u16,
        properties: &[(&str, String)],
    ) -> Outcome<Node> {
        std::fs::create_dir_all(dir)?;
        let mut all: BTreeMap<&str, String> = BTreeMap::new();
        all.insert("bindAddress", "127.0.0.1".into());
        all.insert("listenPort", port.to_string());
        match part {
            Part::Namesrv => {
                all.insert("kvConfigPath", dir.join("kv.json").display().to_string());
            }
            Part::Broker => all.extend(broker_properties(&dir.join("store"))),
        }
        all.extend(properties.iter().cloned());
        let text: String = all.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
        std::fs::write(dir.join("node.properties"), text)?;
        Ok(Node {
            rmqctl: rmqctl.to_owned(),
            dir: dir.to_owned(),
            part,
            port,
            child: None,
        })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// What the broker itself makes of its file.
    pub fn config(&self) -> Outcome<BrokerConfig> {
        let path = self.dir.join("node.properties");
        Ok(config::load::<BrokerConfig>(&path)?.config)
    }

    /// Starts the process and returns; it answers later.
    pub fn spawn(&mut self) -> Outcome<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))?;
        let mut command = tokio::process::Command::new(&self.rmqctl);
        command
            .args(["engine", self.part_name(), "--config"])
            .arg(self.dir.join("node.properties"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    fn part_name(&self) -> &'static str {
        match self.part {
            Part::Namesrv => "namesrv",
            Part::Broker => "broker",
        }
    }

    /// Starts it and waits for its first answer; returns how long that took.
    pub async fn start(&mut self) -> Outcome<Duration> {
        let began = Instant::now();
        self.spawn()?;
        self.answers().await?;
        Ok(began.elapsed())
    }

    /// Waits until it answers a request, or ends.
    pub async fn answers(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + START;
        let client = Client::new();
        loop {
            // A port that is bound already while the store is being recovered answers once that is done.
            let question = match self.part {
                Part::Namesrv => {
                    Command::request(request::GET_BROKER_CLUSTER_INFO, ExtFields::new())
                }
                Part::Broker => {
                    Command::request(request::GET_BROKER_RUNTIME_INFO, ExtFields::new())
                }
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match client.call(&self.address(), question, left).await {
                Ok(_) => return Ok(()),
                Err(error) if left.is_zero() => {
                    return Err(
                        format!("no answer after {START:?}: {error}\n{}", self.tail()).into(),
                    );
                }
                Err(_) => {}
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                return Err(format!("it ended with {status}\n{}", self.tail()).into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// kill -9, and waits until it is gone.
    pub async fn kill(&mut self) -> Outcome<()> {
        if let Some(mut child) = self.child.take() {
            child.start_kill()?;
            child.wait().await?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(&mut self) -> Outcome<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended(STOP).await
    }

    /// SIGSTOP: not another instruction of it is run.
    pub fn pause(&self) -> Outcome<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Outcome<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Outcome<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).ok_or("it does not run")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self, limit: Duration) -> Outcome<ExitStatus> {
        let mut child = self.child.take().ok_or("it was not started")?;
        match tokio::time::timeout(limit, child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.child = Some(child);
                Err(format!("it still runs after {limit:?}\n{}", self.tail()).into())
            }
        }
    }

    /// The log's last lines.
    pub fn tail(&self) -> String {
        let text = std::fs::read(self.dir.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        format!(
            "the end of {}:\n{}",
            self.dir.join("log").display(),
            lines[from..].join("\n")
        )
    }

    /// Whether a line of its log from byte `from` on holds the text.
    pub fn logged(&self, from: u64, text: &str) -> bool {
        let log = std::fs::read(self.dir.join("log")).unwrap_or_default();
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(log.len());
        String::from_utf8_lossy(&log[from..]).contains(text)
    }

    pub fn log_len(&self) -> u64 {
        std::fs::metadata(self.dir.join("log")).map_or(0, |data| data.len())
    }
}

/// Small files, so that every kind of border is crossed often; large transfers, so that checking takes few requests;
/// offsets written as often as the engine does it at all, so that short rounds see the writing.
fn broker_properties(store: &Path) -> Vec<(&'static str, String)> {
    [
        ("storePathRootDir", store.display().to_string()),
        ("brokerIP1", "127.0.0.1".into()),
        ("brokerIP2", "127.0.0.1".into()),
        ("mappedFileSizeCommitLog", (8 << 20).to_string()),
        ("mappedFileSizeConsumeQueue", (20 * 2000).to_string()),
        ("maxHashSlotNum", "20000".into()),
        ("maxIndexNum", "80000".into()),
        ("flushConsumerOffsetInterval", "100".into()),
        ("maxTransferCountOnMessageInMemory", "1024".into()),
        ("maxTransferCountOnMessageInDisk", "1024".into()),
        ("maxTransferBytesOnMessageInMemory", (4 << 20).to_string()),
        ("maxTransferBytesOnMessageInDisk", (4 << 20).to_string()),
        // Nothing is deleted, however full the disk of the machine is.
        ("diskMaxUsedSpaceRatio", "100".into()),
        ("diskSpaceCleanForciblyRatio", "100".into()),
        ("diskSpaceWarningLevelRatio", "100".into()),
        ("slaveReadEnable", "true".into()),
    ]
    .into()
}
