//! The flags that say what a cluster shall be: the same for `up`, `plan` and `config render`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use super::storage::absolute;
use super::typed::parse_set;
use super::{
    Draft, Engine, Ephemeral, Mode, Profile, Storage, TopicSpec, parse_duration, parse_image,
    parse_memory, yaml,
};
use crate::error::Error;

/// What the cluster shall be. Without --file, what is not given stays as it is in a running cluster.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct SpecFlags {
    /// Cluster file; `-` reads standard input. File and flags together are then the whole cluster
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Engine of brokers and name servers: bundled, or Apache's image as apache or apache:TAG (Docker only)
    #[arg(long, value_name = "ENGINE", value_parser = Engine::parse)]
    pub engine: Option<Engine>,
    /// Image of rmqctl's engine for all nodes, in place of the one made from this program: a reference, or bundled (Docker only)
    #[arg(long, value_name = "REF", value_parser = parse_image)]
    pub image: Option<String>,
    /// Master brokers (1 in a new cluster)
    #[arg(long, value_name = "N")]
    pub masters: Option<u32>,
    /// Slave brokers in all, dealt round-robin to the masters (1 in a new cluster)
    #[arg(long, value_name = "N")]
    pub slaves: Option<u32>,
    /// Slave brokers of each master
    #[arg(long, value_name = "N", conflicts_with = "slaves")]
    pub slaves_per_master: Option<u32>,
    /// Name servers (1 in a new cluster)
    #[arg(long, value_name = "N")]
    pub namesrvs: Option<u32>,
    /// Without the web console
    #[arg(long, overrides_with = "console")]
    pub no_console: bool,
    /// With the web console, where it was left out before
    #[arg(long)]
    pub console: bool,
    /// sync: a send is acknowledged when a slave has it too (SYNC_MASTER with inSyncReplicas=2)
    #[arg(long, value_name = "MODE")]
    pub replication: Option<Mode>,
    /// sync: a send is acknowledged when it is on disk (SYNC_FLUSH)
    #[arg(long, value_name = "MODE")]
    pub flush: Option<Mode>,
    /// Set of defaults: dev has small files, ci is dev without a console, prod has RocketMQ's 1 GiB segments
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<Profile>,
    /// Host or address that clients outside the network are told; another than this machine's loopback binds all interfaces
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Address of this host that ports are published on (127.0.0.1)
    #[arg(long, value_name = "IP")]
    pub bind: Option<IpAddr>,
    /// Added to every published port
    #[arg(long, value_name = "N")]
    pub port_offset: Option<u16>,
    /// Subnet of the network, as 172.28.0.0/16; Docker picks one otherwise
    #[arg(long, value_name = "CIDR")]
    pub subnet: Option<String>,
    /// Memory limit of each node: 512m, 1g
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// CPU limit of each node, in cores: 1.5
    #[arg(long, value_name = "CORES")]
    pub cpus: Option<f64>,
    /// A broker property, of all brokers or of one: fileReservedTime=72, fileReservedTime=72@rmqmaster1, …@broker-a, …@broker-a:1.
    /// An empty value takes it back
    #[arg(long = "set", value_name = "KEY=VALUE[@NODE]")]
    pub sets: Vec<String>,
    /// A topic that the cluster shall have, made once it is ready: orders, orders:16 (queues a broker), orders:16@broker-a
    #[arg(long = "topic", value_name = "NAME[:QUEUES][@BROKER]", value_parser = TopicSpec::parse)]
    pub topics: Vec<TopicSpec>,
    /// Directory of the generated properties files, for you to read and edit (./rmq/conf)
    #[arg(long, value_name = "DIR")]
    pub conf_dir: Option<PathBuf>,
    /// Time zone of the nodes, whose hours deleteWhen counts: Asia/Shanghai (in a new cluster: this host's)
    #[arg(long, value_name = "ZONE", value_parser = super::zone::parse)]
    pub tz: Option<String>,
    /// Keep each node's store in a directory of its own below PATH on the host, in place of a volume
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,
    /// Time that a node gets to stop before it is killed
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub stop_timeout: Option<Duration>,
    /// When the cluster ends by itself; commands that raise such ones say it.
    #[arg(skip)]
    pub ephemeral: Option<Ephemeral>,
    /// What the file says, once it was read: standard input is there only once.
    #[arg(skip)]
    pub loaded: OnceLock<Draft>,
}

impl SpecFlags {
    /// What the flags say. `cwd` makes `--conf-dir` and `--data-dir` absolute.
    pub fn draft(&self, cwd: &Path) -> Result<Draft, Error> {
        let mut draft = Draft {
            origin: "the command line".to_owned(),
            engine: self.engine.clone(),
            engine_image: self.image.clone(),
            profile: self.profile,
            namesrvs: self.namesrvs,
            masters: self.masters,
            slaves: self.slaves,
            slaves_per_master: self.slaves_per_master,
            console: match (self.no_console, self.console) {
                (true, _) => Some(false),
                (_, true) => Some(true),
                _ => None,
            },
            replication: self.replication,
            flush: self.flush,
            subnet: self.subnet.clone(),
            bind: self.bind,
            advertise: self.advertise.clone(),
            port_offset: self.port_offset,
            memory: self.memory,
            cpus: self.cpus,
            stop_timeout: self.stop_timeout,
            topics: self.topics.clone(),
            conf_dir: self.conf_dir.as_ref().map(|dir| cwd.join(dir)),
            tz: self.tz.clone(),
            storage: self.data_dir.as_ref().map(|dir| Storage::Host {
                path: absolute(cwd, dir),
            }),
            ephemeral: self.ephemeral,
            ..Draft::default()
        };
        for set in &self.sets {
            parse_set(&mut draft, set)?;
        }
        Ok(draft)
    }

    /// What `--file` says, if it is given.
    pub fn file_draft(&self, cwd: &Path) -> Result<Option<Draft>, Error> {
        let Some(path) = &self.file else {
            return Ok(None);
        };
        if let Some(loaded) = self.loaded.get() {
            return Ok(Some(loaded.clone()));
        }
        let draft = yaml::load(path, cwd)?;
        Ok(Some(self.loaded.get_or_init(|| draft).clone()))
    }
}
