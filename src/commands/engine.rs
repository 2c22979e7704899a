//! `rmqctl engine …`: what runs inside a node. The only file that imports the engine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use broker_engine::config::{self, BrokerConfig, Known, NamesrvConfig, Properties};
use broker_engine::console::ConsoleOptions;
use broker_engine::run::{NodeArgs, run_broker, run_console, run_namesrv};
use rocketmq_protocol::json;
use rocketmq_protocol::partition::Order;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Exit};
use crate::probe::{self, Health};
use crate::runtime::process;
use crate::spec::{self, Verdict};
use crate::topology::Role;
use crate::{lease, memory};

/// What a node whose lease has lapsed gets to stop in order. Nothing that it would write is kept, so it is not much.
const ORDERLY_STOP: Duration = Duration::from_secs(3);

/// The engine; `up` runs it
#[derive(Debug, clap::Args)]
pub struct Engine {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// A name server
    Namesrv(File),
    /// A broker, master or slave as its file says
    Broker(File),
    /// The web console
    Console(Console),
    /// Whether the node of this container answers; with --dial, whether addresses are reached from here
    Health(HealthArgs),
    /// Gives the node that listens here an order about a peer
    Order {
        /// Where it listens
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// The order, as JSON
        #[arg(value_parser = parse_order)]
        order: Order,
    },
    /// Starts the node of a directory, and starts it again when it ends
    Supervise {
        /// The node's directory
        dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct File {
    /// Properties file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    life: Life,
}

#[derive(Debug, clap::Args)]
struct Life {
    /// Unix seconds at which the node ends by itself, or sooner, when the holder of its standard input is gone
    #[arg(long, value_name = "UNIXSECONDS")]
    until: Option<u64>,
}

impl From<File> for NodeArgs {
    fn from(file: File) -> Self {
        NodeArgs {
            config: Some(file.config),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Console {
    /// Name servers, several by `;`
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ';', required = true)]
    namesrv: Vec<String>,
    /// Address to listen on
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A host name, besides addresses and localhost, that browsers may call it by
    #[arg(long = "allow-host", value_name = "HOST")]
    hosts: Vec<String>,
    #[command(flatten)]
    life: Life,
}

#[derive(Debug, clap::Args)]
struct HealthArgs {
    /// An address to dial; the report has a line for each
    #[arg(long, value_name = "HOST:PORT")]
    dial: Vec<String>,
}

/// Exit code of what SIGKILL ended; a node that crashes on SIGQUIT leaves the same.
const CRASHED: i32 = 128 + 9;

/// On SIGQUIT the node leaves at once, as if it were killed: nothing is flushed, closed or said. For `rmqctl chaos kill`
/// where only the daemon can signal it, whose SIGKILL would not test the restart policy.
fn crash_on_quit() -> Result<(), Error> {
    let mut quit = signal(SignalKind::quit()).map_err(|reason| {
        Error::new("RMQ-E001", Exit::Failed, "cannot listen for signals").detail(reason.to_string())
    })?;
    tokio::spawn(async move {
        quit.recv().await;
        std::process::exit(CRASHED);
    });
    Ok(())
}

/// `engine`
pub async fn run(args: Engine) -> Result<u8, Error> {
    if matches!(
        args.part,
        Part::Namesrv(_) | Part::Broker(_) | Part::Console(_)
    ) {
        crash_on_quit()?;
        tokio::spawn(memory::give_back());
    }
    let life = match &args.part {
        Part::Namesrv(file) | Part::Broker(file) => file.life.until,
        Part::Console(console) => console.life.until,
        Part::Health(_) | Part::Order { .. } | Part::Supervise { .. } => None,
    };
    if let Some(until) = life {
        tokio::spawn(end_with_lease(until));
    }
    match args.part {
        Part::Namesrv(file) => ended(run_namesrv(file.into()).await),
        Part::Broker(file) => ended(run_broker(file.into()).await),
        Part::Console(args) => {
            let options = ConsoleOptions {
                listen: args.listen,
                namesrv: args.namesrv,
                hosts: args.hosts,
            };
            ended(run_console(options).await)
        }
        Part::Health(args) if args.dial.is_empty() => {
            let what = Health::of_process_1().map_err(unhealthy)?;
            probe::health(&what).await.map_err(unhealthy)?;
            Ok(0)
        }
        Part::Health(args) => {
            dial(&args.dial).await;
            Ok(0)
        }
        Part::Order { address, order } => {
            probe::order(&address, &order).await.map_err(|why| {
                Error::new("RMQ-E202", Exit::Failed, "the order was not taken").detail(why)
            })?;
            Ok(0)
        }
        Part::Supervise { dir } => {
            process::supervise(&dir).await?;
            Ok(0)
        }
    }
}

fn parse_order(text: &str) -> Result<Order, String> {
    json::from_slice(text.as_bytes()).map_err(|e| e.to_string())
}

/// Stops this node, as SIGTERM does, when its lease lapses.
async fn end_with_lease(until: u64) {
    let why = lease::lapse(until).await;
    anstream::eprintln!("{why}: stopping");
    let me = rustix::process::getpid();
    // Process 1 of a container gets a signal only while it listens; what does not stop in order ends all the same.
    if let Err(reason) = rustix::process::kill_process(me, rustix::process::Signal::TERM) {
        anstream::eprintln!("the node could not be told to stop: {reason}");
    }
    tokio::time::sleep(ORDERLY_STOP).await;
    std::process::exit(Exit::Failed as i32);
}

fn ended<E: std::error::Error>(result: Result<(), E>) -> Result<u8, Error> {
    result.map(|()| 0).map_err(|reason| {
        let mut error = Error::new("RMQ-E200", Exit::Failed, reason.to_string());
        let mut cause = reason.source();
        while let Some(source) = cause {
            error = error.detail(source.to_string());
            cause = source.source();
        }
        error
    })
}

fn unhealthy(why: String) -> Error {
    Error::new("RMQ-E201", Exit::Failed, "the node is not healthy").detail(why)
}

/// Prints `ok ADDRESS` or `fail ADDRESS REASON` for each, in the order asked; they are resolved and dialled all together.
/// Names are resolved by the engine: a static binary has no others.
async fn dial(addresses: &[String]) {
    let lines = addresses.iter().map(|address| async move {
        let fault = match broker_engine::net::resolve(address).await {
            Err(reason) => Some(reason.to_string()),
            Ok(resolved) => probe::dial(&resolved.to_string()).await,
        };
        match fault {
            None => format!("ok {address}"),
            Some(fault) => format!("fail {address} {fault}"),
        }
    });
    for line in futures_util::future::join_all(lines).await {
        anstream::println!("{line}");
    }
}

/// What the engine says of a broker property.
pub fn lint(key: &str, value: &str) -> Verdict {
    judge::<BrokerConfig>(key, value)
}

/// What the engine says of a property of a node of this role.
pub fn lint_of(role: Role, key: &str, value: &str) -> Verdict {
    match role {
        Role::Namesrv => judge::<NamesrvConfig>(key, value),
        _ => judge::<BrokerConfig>(key, value),
    }
}

fn judge<C: Properties>(key: &str, value: &str) -> Verdict {
    match config::known::<C>(key) {
        Known::Unknown(near) => Verdict::Unknown(near.map(str::to_owned)),
        Known::WithoutEffect => Verdict::NoEffect,
        Known::Property(_) => match C::default().set(key, value) {
            Some(Err(allowed)) => Verdict::Wrong(format!("it is \"{value}\"; allowed: {allowed}")),
            _ => Verdict::Good,
        },
    }
}

/// All properties of a node of this role, with default, allowed values and whether a running node takes a new value.
pub fn rows(role: Role) -> Vec<config::Property> {
    match role {
        Role::Namesrv => NamesrvConfig::rows(),
        _ => BrokerConfig::rows(),
    }
}

/// Names that this engine accepts without effect.
pub fn without_effect(role: Role) -> &'static [&'static str] {
    match role {
        Role::Namesrv => NamesrvConfig::without_effect(),
        _ => BrokerConfig::without_effect(),
    }
}

/// Every property as a node with this file's text would have it, defaults too, each in the form in which a running node says
/// it. Lines that the engine would not take are left out.
pub fn effective(role: Role, file: &spec::Properties) -> spec::Properties {
    match role {
        Role::Namesrv => values::<NamesrvConfig>(file).0,
        _ => values::<BrokerConfig>(file).0,
    }
}

/// The rule between properties that a file with these values breaks.
pub fn broken_rule(role: Role, file: &spec::Properties) -> Option<String> {
    match role {
        Role::Namesrv => values::<NamesrvConfig>(file).1,
        _ => values::<BrokerConfig>(file).1,
    }
}

fn values<C: Properties>(file: &spec::Properties) -> (spec::Properties, Option<String>) {
    let mut config = C::default();
    for (key, value) in file {
        // A key or a value that is none changes nothing; whoever wants to hear of it asks `lint_of`.
        let _ = config.set(key, value.trim());
    }
    let texts = config.texts().into_iter();
    let all = texts.map(|(key, value)| (key.to_owned(), value)).collect();
    (all, config.check().err())
}

/// Whether the engine would start with this file's text; `path` names it.
pub fn check_file(role: Role, path: &str, text: &str) -> Result<(), Error> {
    let checked = match role {
        Role::Namesrv => config::parse::<NamesrvConfig>(path, text.as_bytes()).map(drop),
        _ => config::parse::<BrokerConfig>(path, text.as_bytes()).map(drop),
    };
    checked.map_err(|reason| Error::new("RMQ-E103", Exit::Spec, reason.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_judged_by_the_engines_own_rows() {
        assert_eq!(lint("fileReservedTime", "72"), Verdict::Good);
        assert_eq!(
            lint("brokerRolle", "x"),
            Verdict::Unknown(Some("brokerRole".into()))
        );
        assert_eq!(
            lint("brokerRole", "SYSC_MASTER"),
            Verdict::Wrong(
                "it is \"SYSC_MASTER\"; allowed: ASYNC_MASTER, SYNC_MASTER, SLAVE".into()
            )
        );
    }

    #[test]
    fn every_example_is_a_cluster_that_could_be_raised() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clusters");
        let mut seen = 0;
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let file = crate::spec::yaml::load(&path, &dir).unwrap();
            let spec = crate::spec::resolve(
                "x",
                None,
                Some(&file),
                &Default::default(),
                dir.clone(),
                lint,
            )
            .unwrap();
            let all = crate::topology::desired(&spec, &crate::topology::Site::Network).unwrap();
            for node in &all.nodes {
                if let Some((name, text)) = &node.file {
                    check_file(node.role, name, text).unwrap();
                }
            }
            seen += 1;
        }
        assert!(seen >= 3, "{seen} examples");
    }
}
