//! The engine's entry points, one a kind of node: what `rmqctl engine namesrv|broker|console` runs.
//!
//! Each reads its file, says what is odd in it, serves until SIGTERM or SIGINT (process 1 of a container gets no default
//! handling of either), and ends in order. An error is final: whoever started the process restarts it.

use crate::broker::{self, StartError, StopError};
use crate::clock::Zone;
use crate::config::{self, BrokerConfig, ConfigError, NamesrvConfig, Properties};
use crate::console::{self, ConsoleError, ConsoleOptions};
use crate::{namesrv, net};
use rocketmq_store::StoreError;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// What a name server or a broker is started with.
#[derive(Clone, Debug, Default)]
pub struct NodeArgs {
    /// Its properties file; without one the defaults hold.
    pub config: Option<PathBuf>,
}

/// Why a node did not start or did not go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("bindAddress is {0:?}; allowed: an IP address such as 0.0.0.0 or 127.0.0.1")]
    BindAddress(String),
    #[error(transparent)]
    Listen(std::io::Error),
    #[error("waiting for signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    KvConfig(#[from] namesrv::KvError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the store failed, so this broker stops: {0}")]
    Store(StoreError),
    #[error(transparent)]
    Stop(#[from] StopError),
    #[error(transparent)]
    Console(#[from] ConsoleError),
}

/// Runs a name server until it is told to stop.
pub async fn run_namesrv(args: NodeArgs) -> Result<(), RunError> {
    start_log();
    let stop = stop_signal()?;
    let config: NamesrvConfig = read(&args)?;
    raise_open_files();
    let listen = SocketAddr::new(bind_address(&config.bind_address)?, config.listen_port);
    let listener = net::bind(listen).await.map_err(RunError::Listen)?;
    tracing::info!(%listen, internal_subnet = config.internal_subnet, "name server ready");
    namesrv::serve(listener, config, stop).await?;
    tracing::info!("name server stopped");
    Ok(())
}

/// Runs a broker until it is told to stop or its store fails.
pub async fn run_broker(args: NodeArgs) -> Result<(), RunError> {
    start_log();
    let mut stop = stop_signal()?;
    let config: BrokerConfig = read(&args)?;
    raise_open_files();
    let (name, id, role) = (
        config.broker_name.clone(),
        config.broker_id,
        config.broker_role,
    );
    let mut running = broker::start(config).await?;
    tracing::info!(broker = name, id, ?role, listen = %running.address, vip = %running.fast_address, "broker ready");
    tokio::select! {
        // An error means that its sender is gone, which is a stop too.
        _ = stop.wait_for(|stop| *stop) => {
            running.stop().await?;
            tracing::info!(broker = name, id, "broker stopped");
            Ok(())
        }
        failed = running.failed() => {
            tracing::error!(broker = name, id, error = %failed, "the store failed");
            // Tables and connections are still closed in order; that the log cannot be is known already.
            if let Err(error) = running.stop().await {
                tracing::error!(%error, "stopping after the failure");
            }
            Err(RunError::Store(failed))
        }
    }
}

/// Runs a console until it is told to stop.
pub async fn run_console(options: ConsoleOptions) -> Result<(), RunError> {
    start_log();
    let stop = stop_signal()?;
    tracing::info!(listen = %options.listen, "console ready");
    console::run(options, stop).await?;
    tracing::info!("console stopped");
    Ok(())
}

/// Reads a node's file and logs its warnings.
fn read<C: Properties>(args: &NodeArgs) -> Result<C, ConfigError> {
    let loaded = match &args.config {
        Some(path) => config::load::<C>(path)?,
        None => config::parse::<C>("defaults", b"")?,
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.config)
}

fn bind_address(text: &str) -> Result<IpAddr, RunError> {
    text.parse().map_err(|_| RunError::BindAddress(text.into()))
}

/// Log lines go to standard error; `RMQ_LOG` filters them (`info` without it).
fn start_log() {
    let filter = EnvFilter::try_from_env("RMQ_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A process has one log: a second start (two nodes in one test) keeps the first.
    let (zone, unknown) = Zone::of_environment();
    let started = tracing_subscriber::fmt()
        .with_timer(Stamps(zone.clone()))
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    if started.is_err() {
        return;
    }
    match unknown {
        Some(name) => tracing::warn!(TZ = name, "no such time zone: days and hours are UTC's"),
        None if zone != Zone::default() => tracing::info!(%zone, "days and hours are this zone's"),
        None => {}
    }
}

/// The time before each log line, in the node's zone.
struct Stamps(Zone);

impl FormatTime for Stamps {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        to.write_str(&self.0.stamp(SystemTime::now()))
    }
}

/// Turns true with the first SIGTERM or SIGINT. A second one ends the process at once.
fn stop_signal() -> Result<watch::Receiver<bool>, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        for first in [true, false] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if !first {
                tracing::warn!(signal = name, "second signal: leaving at once");
                std::process::exit(130);
            }
            tracing::info!(signal = name, "stopping");
            // Nobody listens any more when the node is already ending by itself.
            let _ = stop.send(true);
        }
    });
    Ok(stopped)
}

/// Each connection and each open file of the store takes a descriptor; the usual soft limit of 1024 is soon reached.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
