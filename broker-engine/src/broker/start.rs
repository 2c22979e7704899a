//! A broker's life: open the store and the tables, serve, stop in order.

use super::dispatch::Port;
use super::pull::Waiters;
use super::registration::{self, Registration};
use super::replicas::{self, Replicas};
use super::schedule::Schedule;
use super::unique_key::UniqueKeys;
use super::{
    Broker, admin, assignment, clients, filter, groups, locks, offsets, pop, pull, schedule, send,
    stats, timer, topics, transaction,
};
use crate::clock::{self, Zone};
use crate::config::{BrokerConfig, FlushDiskType, Live};
use crate::log::{Log, LogOptions};
use crate::net::{self, Limits, Partitions};
use rocketmq_protocol::topic;
use rocketmq_store::table::TableError;
use rocketmq_store::{StoreError, Writer};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Batches that may wait for the log; each is the sends of one round over a thread's connections.
const LOG_QUEUE: usize = 1024;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StartError {
    #[error("opening the store in {path}: {source}")]
    Store { path: String, source: StoreError },
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("listening on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("bindAddress is {0:?}, which is no IP address")]
    BindAddress(String),
}

/// A serving broker. [`RunningBroker::stop`] ends it in order; dropping it does not.
#[derive(Debug)]
pub struct RunningBroker {
    /// What its handlers share.
    pub broker: Arc<Broker>,
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Where clients that use the VIP port reach it.
    pub fast_address: SocketAddr,
    /// Set first: background work ends, waiting pulls are answered.
    stop_work: watch::Sender<bool>,
    /// Set when the log has stopped: connections drain and close.
    stop_serving: watch::Sender<bool>,
    work: JoinSet<()>,
    servers: Vec<JoinHandle<()>>,
    failure: oneshot::Receiver<StoreError>,
}

/// Opens the store and the tables of `config` and serves on its ports. Port 0 asks the system for one (tests).
pub async fn start(config: BrokerConfig) -> Result<RunningBroker, StartError> {
    let bind: IpAddr = (config.bind_address.parse())
        .map_err(|_| StartError::BindAddress(config.bind_address.clone()))?;
    let options = config.store_options();
    let root = options.root.clone();
    let in_store = |source| StartError::Store {
        path: root.display().to_string(),
        source,
    };
    // Bound before the store is opened: a taken port leaves no trace there. Who connects meanwhile waits for recovery.
    let main = listen(bind, config.listen_port).await?;
    let fast_port = config.listen_port.saturating_sub(2);
    let fast = listen(bind, fast_port).await?;
    // A slave serves no slaves. Port 0 is a test's, which asks for any port here as well.
    let ha = match (config.is_slave(), config.listen_port) {
        (true, _) => None,
        (false, 0) => Some(listen(bind, config.ha_listen_port).await?),
        (false, _) => Some(listen(bind, config.ha_port()).await?),
    };
    let address = main.local_addr().map_err(|source| StartError::Listen {
        address: SocketAddr::new(bind, config.listen_port),
        source,
    })?;
    let fast_address = fast.local_addr().map_err(|source| StartError::Listen {
        address: SocketAddr::new(bind, fast_port),
        source,
    })?;

    let opened = tokio::task::spawn_blocking(move || Writer::open(options, clock::now_ms()))
        .await
        .expect("opening a store does not panic")
        .map_err(in_store)?;
    tracing::info!("{}: {}", root.display(), opened.recovery);

    let dir = root.join("config");
    let store_host = SocketAddr::new(own_ip(&config).await, address.port());
    let config = Arc::new(Live::new(config));
    let (failed, failure) = oneshot::channel();
    let waiters = Arc::new(Waiters::default());
    // The log calls back into the broker, which needs the log to be made.
    let link: Arc<OnceLock<Weak<Broker>>> = Arc::default();
    let log = Log::start(
        opened.writer,
        log_options(
            &config.get(),
            Arc::clone(&waiters),
            Arc::clone(&link),
            failed,
        ),
    );
    let broker = Broker::open(config, &dir, log, opened.reader, store_host, waiters)?;
    link.set(Arc::downgrade(&broker))
        .expect("the link is set once, here");

    let (stop_work, work_stops) = watch::channel(false);
    let (stop_serving, serving_stops) = watch::channel(false);
    let mut work = JoinSet::new();
    work.spawn(pull::run_deadlines(Arc::clone(&broker), work_stops.clone()));
    if !broker.is_slave() {
        work.spawn(pop::run_waiting(Arc::clone(&broker), work_stops.clone()));
        work.spawn(schedule::run(Arc::clone(&broker), work_stops.clone()));
        if broker.config.get().timer_wheel_enable {
            work.spawn(timer::run(
                Arc::clone(&broker),
                Arc::from(root.as_path()),
                work_stops.clone(),
            ));
            work.spawn(pop::run_revive(Arc::clone(&broker), work_stops.clone()));
        }
        work.spawn(transaction::run_ops(
            Arc::clone(&broker),
            work_stops.clone(),
        ));
        work.spawn(transaction::run_checks(
            Arc::clone(&broker),
            work_stops.clone(),
        ));
    }
    work.spawn(registration::run(Arc::clone(&broker), work_stops.clone()));
    if broker.is_slave() {
        replicas::follow(&broker, &mut work, &work_stops);
    }
    work.spawn(write_made(Arc::clone(&broker), work_stops.clone()));
    work.spawn(housekeep(Arc::clone(&broker), work_stops));
    let limits = Limits {
        idle: Duration::from_secs(u64::from(
            broker.config.get().server_channel_max_idle_time_seconds,
        )),
        ..Limits::default()
    };
    let mut servers = vec![
        tokio::spawn(net::serve(
            main,
            Arc::new(Port::main(Arc::clone(&broker))),
            limits.clone(),
            serving_stops.clone(),
        )),
        tokio::spawn(net::serve(
            fast,
            Arc::new(Port::fast(Arc::clone(&broker))),
            limits,
            serving_stops.clone(),
        )),
    ];
    if let Some(ha) = ha {
        // Slaves are fed until the log has stopped: what it still stores may wait for them.
        servers.push(tokio::spawn(replicas::serve_slaves(
            &broker,
            ha,
            serving_stops,
        )));
    }
    Ok(RunningBroker {
        broker,
        address,
        fast_address,
        stop_work,
        stop_serving,
        work,
        servers,
        failure,
    })
}

async fn listen(bind: IpAddr, port: u16) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(bind, port);
    net::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })
}

/// The address by which a client can ask this node for a message it stored: the interface toward the name server, which
/// inside a container is the container's, and on one machine the loopback.
async fn own_ip(config: &BrokerConfig) -> IpAddr {
    for namesrv in config.namesrvs() {
        if let Ok(ip) = net::address_toward(&namesrv).await
            && ip.is_ipv4()
        {
            return ip;
        }
    }
    match net::resolve(&config.broker_addr()).await {
        Ok(address) if address.is_ipv4() => address.ip(),
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}

fn log_options(
    config: &BrokerConfig,
    waiters: Arc<Waiters>,
    link: Arc<OnceLock<Weak<Broker>>>,
    failed: oneshot::Sender<StoreError>,
) -> LogOptions {
    let runtime = tokio::runtime::Handle::current();
    LogOptions {
        sync_flush: config.flush_disk_type == FlushDiskType::SyncFlush,
        flush_timeout: config.sync_flush_timeout,
        replica_timeout: config.slave_timeout,
        flush_interval: config.flush_interval_commit_log,
        queue_len: LOG_QUEUE,
        slave: config.is_slave(),
        on_arrivals: Box::new(move |arrivals| {
            let Some(weak) = link.get() else { return };
            waiters.on_arrivals(arrivals, weak, &runtime);
            if let Some(broker) = weak.upgrade() {
                broker.schedule.on_arrivals(arrivals);
                broker.timer.on_arrivals(arrivals);
                broker.pop_arrivals(arrivals);
                if broker.is_slave() {
                    broker.learn_topics(arrivals);
                }
            }
        }),
        on_failure: Box::new(move |error| {
            // Nobody listens when the broker is already stopping: `Log::stop` then returns the error.
            let _ = failed.send(error);
        }),
        delete_when: config
            .delete_hours()
            .expect("checked when the file was read"),
        zone: Zone::of_environment().0,
    }
}

impl Broker {
    fn open(
        live: Arc<Live<BrokerConfig>>,
        dir: &Path,
        log: Log,
        store: rocketmq_store::Reader,
        store_host: SocketAddr,
        waiters: Arc<Waiters>,
    ) -> Result<Arc<Broker>, TableError> {
        let config = live.get();
        let delays = config
            .delay_levels()
            .expect("checked when the file was read");
        let now_ms = clock::now_ms();
        let partitions = Partitions::default();
        let offsets = offsets::Offsets::open(dir)?;
        // A slave's log may be behind the table that it copied.
        if !config.is_slave() {
            let unknown = |topic: &str| topic::is_lmq(topic) && !config.enable_lmq;
            let taken_back = offsets.take_back(|topic, queue_id| match unknown(topic) {
                true => i64::MAX,
                false => store.queue_bounds(topic, queue_id).1,
            });
            if taken_back > 0 {
                tracing::warn!(
                    queues = taken_back,
                    "consumer offsets were ahead of what the log holds, as after a power cut: taken back to the queues' ends"
                );
            }
        }
        Ok(Arc::new(Broker {
            log,
            store,
            topics: topics::Topics::open(dir, &config, config.is_slave())?,
            groups: groups::Groups::open(dir, Arc::clone(&live))?,
            offsets,
            clients: clients::Clients::default(),
            locks: locks::QueueLocks::default(),
            stats: stats::Stats::new(
                &config.broker_cluster_name,
                Zone::of_environment().0,
                now_ms,
            ),
            schedule: Schedule::load(dir.join("delayOffset.json"), delays)?,
            timer: timer::Timer::default(),
            decisions: transaction::Decisions::default(),
            filters: filter::Filters::default(),
            pops: pop::Pops::open(dir, &config)?,
            assignments: assignment::Assignments::open(dir)?,
            registration: Registration::new(&config, partitions.clone()),
            partitions,
            replicas: Replicas::default(),
            desk: admin::Desk::default(),
            expected: send::Expected::default(),
            runtime: tokio::runtime::Handle::current(),
            store_host,
            started_ms: now_ms,
            role: config.broker_role,
            master_online: AtomicBool::new(false),
            waiters,
            unique_keys: UniqueKeys::new(store_host.ip(), std::process::id(), fastrand::u32(..)),
            stamp: send::stamp(&config).into(),
            config: live,
        }))
    }

    /// Writes the tables that change too often to be written at each change.
    fn persist(&self) -> Result<(), TableError> {
        self.write_made()?;
        self.offsets.flush()?;
        self.pops.flush()?;
        self.schedule.persist()
    }

    /// Writes the groups and topics that were made by the way.
    fn write_made(&self) -> Result<(), TableError> {
        self.groups.flush()?;
        self.topics.flush_made()
    }
}

/// Writes what heartbeats made, each second.
async fn write_made(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let stopped = tokio::select! {
            _ = second.tick() => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        if stopped {
            return;
        }
        // A table of very many takes long, and this thread does other work too.
        let of_task = Arc::clone(&broker);
        let written = tokio::task::spawn_blocking(move || of_task.write_made()).await;
        if let Err(error) = written.expect("writing tables does not panic") {
            tracing::error!(%error, "groups or topics that were made by the way were not written; trying again");
        }
    }
}

/// What the tables need from time to time, until the broker stops.
async fn housekeep(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut flush = tokio::time::interval(
        (broker.config.get().flush_consumer_offset_interval).max(Duration::from_millis(100)),
    );
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = second.tick() => {
                broker.stats.sample(clock::now_ms());
                broker.locks.expire(Instant::now());
                broker.clients.expire(Instant::now(), broker.config.get().channel_expired_timeout);
            }
            _ = flush.tick() => {
                if let Err(error) = broker.offsets.flush().and_then(|()| broker.pops.flush()) {
                    tracing::error!(%error, "consumer offsets were not written; trying again");
                }
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Why a broker did not stop cleanly: the next start recovers.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StopError {
    #[error("closing the store: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Table(#[from] TableError),
}

impl RunningBroker {
    /// Resolves when the store has failed: the broker must stop with this reason, and a supervisor start it again.
    pub async fn failed(&mut self) -> StoreError {
        match (&mut self.failure).await {
            Ok(error) => error,
            // The log ended without failing, which only `stop` brings about.
            Err(_) => std::future::pending().await,
        }
    }

    /// Answers what waits, stores what was taken, closes connections, writes the tables.
    pub async fn stop(mut self) -> Result<(), StopError> {
        self.stop_work.send_replace(true);
        while self.work.join_next().await.is_some() {}
        let store = self.broker.log.stop().await;
        self.stop_serving.send_replace(true);
        for server in self.servers {
            if let Err(error) = server.await {
                tracing::error!(%error, "a server task ended badly");
            }
        }
        // Even when the store failed: offsets and delay offsets are files of their own.
        let tables = self.broker.persist();
        store?;
        Ok(tables?)
    }
}
