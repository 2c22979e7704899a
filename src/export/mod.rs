//! The desired state in other tools' words: a Compose file, a Swarm stack, Kubernetes manifests, `docker` command lines. Pure:
//! what is written comes from the same [`Desired`] that `up` brings about, so names, ports and properties are the same.
//!
//! One file a form. What all forms share is here: which image, which network, which properties files.

mod compose;
mod docker_run;
mod k8s;
mod stack;

use std::net::Ipv4Addr;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::{Error, Exit};
use crate::properties;
use crate::topology::{
    CONTAINER_UID, Desired, Node, Role, Subnet, data_dir, memory_options, quoted_path,
};

/// Whose words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// `docker compose` and `docker-compose`.
    Compose,
    /// `docker stack deploy`.
    Stack,
    /// `kubectl apply`.
    Kubernetes(Claim),
    /// A shell script of `docker` commands.
    DockerRun,
}

/// What Kubernetes must be told beyond the cluster's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Namespace of everything; it is made too.
    pub namespace: String,
    /// Size of each store's volume: `10Gi`.
    pub storage: String,
}

/// One file of an export, its name relative to the export's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct File {
    pub name: String,
    pub text: String,
}

/// What is exported.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The cluster, in a network ([`Site::Network`](crate::topology::Site::Network)).
    pub desired: &'a Desired,
    /// Tag of the engine's image.
    pub engine: &'a str,
}

/// Begins every main file, so that one written by somebody else is not overwritten.
pub const MARK: &str = "# Written by `rmqctl export";

impl Form {
    /// Name of the main file.
    pub fn file(&self) -> &'static str {
        match self {
            Form::Compose => "docker-compose.yml",
            Form::Stack => "docker-stack.yml",
            Form::Kubernetes(_) => "rocketmq.yaml",
            Form::DockerRun => "docker-run.sh",
        }
    }
}

/// All files of a form, the main one first; the properties files stand beside it in `conf/`.
pub fn files(source: Source<'_>, form: &Form) -> Result<Vec<File>, Error> {
    let text = match form {
        Form::Compose => compose::text(source, compose::Conf::Beside)?,
        Form::Stack => stack::text(source)?,
        Form::Kubernetes(claim) => k8s::text(source, claim)?,
        Form::DockerRun => docker_run::text(source, docker_run::Conf::Beside)?,
    };
    let main = File {
        name: form.file().to_owned(),
        text,
    };
    let mut all = vec![main];
    if !matches!(form, Form::Kubernetes(_)) {
        all.extend(conf_files(source.desired)?.into_iter().map(|(node, text)| {
            let name = file_name(node);
            File {
                name: format!("conf/{name}"),
                text,
            }
        }));
    }
    Ok(all)
}

/// A form as one text that needs no file beside it, for a pipe.
pub fn alone(source: Source<'_>, form: &Form) -> Result<String, Error> {
    match form {
        Form::Compose => compose::text(source, compose::Conf::Inline),
        Form::DockerRun => docker_run::text(source, docker_run::Conf::Inline),
        Form::Kubernetes(claim) => k8s::text(source, claim),
        Form::Stack => Err(Error::new(
            "RMQ-E160",
            Exit::Usage,
            "a stack cannot be one text: `docker stack deploy` reads its configs from files beside it",
        )
        .hint("rmqctl export stack DIR")),
    }
}

/// The network that an export makes, so that a name server can tell who asks from inside before anything runs.
fn network(desired: &Desired) -> Result<Subnet, Error> {
    match &desired.subnet {
        Some(subnet) => Subnet::parse(subnet),
        None => Ok(Subnet::of_cluster(&desired.cluster)),
    }
}

/// Nodes that have a properties file, with its text as they get it.
fn conf_files(desired: &Desired) -> Result<Vec<(&Node, String)>, Error> {
    let network = network(desired)?;
    let nodes = desired.nodes.iter().filter_map(|node| {
        let (_, text) = node.file.as_ref()?;
        let text = match node.role {
            Role::Namesrv => {
                let gateway = network.gateway.to_string();
                text.clone() + &properties::split_horizon(&network.text, &gateway)
            }
            _ => text.clone(),
        };
        Some((node, text))
    });
    Ok(nodes.collect())
}

/// Name of a node's properties file. Only nodes with one are asked.
fn file_name(node: &Node) -> &str {
    node.file.as_ref().map_or("", |(name, _)| name)
}

/// Where the node's file is in its container. Only nodes with one are asked.
fn conf_path(node: &Node) -> String {
    node.conf_path
        .as_ref()
        .map_or_else(String::new, |path| path.display().to_string())
}

/// Where the node's store is in its container.
fn store_path(node: &Node) -> String {
    node.store_path
        .as_ref()
        .map_or_else(String::new, |path| path.display().to_string())
}

/// What a form's text begins with.
fn head(source: Source<'_>, template: &str) -> Result<String, Error> {
    let desired = source.desired;
    let network = network(desired)?;
    let console = desired
        .console_url()
        .unwrap_or_else(|| "none: --no-console".to_owned());
    let values = [
        ("${cluster}", desired.cluster.as_str()),
        ("${version}", env!("CARGO_PKG_VERSION")),
        ("${image}", source.engine),
        ("${namesrv}", &desired.namesrv_addrs().join(";")),
        ("${console}", &console),
        ("${network}", &desired.network),
        ("${subnet}", &network.text),
        ("${stores}\n", &stores(desired)),
    ];
    Ok(values
        .iter()
        .fold(template.to_owned(), |text, (key, value)| {
            text.replace(key, value)
        }))
}

/// A line on what the user does about stores that are no volumes; nothing where there are none.
fn stores(desired: &Desired) -> String {
    let dirs: Vec<String> = desired
        .nodes
        .iter()
        .filter_map(|node| Some(quoted_path(node.data_dir()?)))
        .collect();
    if !dirs.is_empty() {
        let uid = CONTAINER_UID;
        return format!(
            "#   the stores     directories, which are the engine's user's:  sudo install -d -o {uid} -g {uid} {}\n",
            dirs.join(" ")
        );
    }
    let in_memory = desired.nodes.iter().any(|node| node.tmpfs.is_some());
    match in_memory {
        true => {
            "#   the stores     in memory: what a node holds is gone when it stops\n".to_owned()
        }
        false => String::new(),
    }
}

/// `restart` of a node: a master in memory that came back empty would be behind its slaves.
fn restart(node: &Node) -> &'static str {
    match node.tmpfs.is_some() && node.role == Role::Master {
        true => "no",
        false => "always",
    }
}

/// Volumes that must be made: those that are no directories.
fn volumes(desired: &Desired) -> impl Iterator<Item = &String> {
    let all = desired.nodes.iter().filter_map(|node| node.volume.as_ref());
    all.filter(|volume| data_dir(volume).is_none())
}

/// `$` as Compose and Stack files have it; a single one would begin a variable.
fn dollars(text: &str) -> String {
    text.replace('$', "$$")
}

fn cores(nano: i64) -> String {
    format!("{}", nano as f64 / 1e9)
}

/// A map that keeps its order, so that a file reads in start order.
struct Map<T>(Vec<(String, T)>);

impl<T> FromIterator<(String, T)> for Map<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(pairs: I) -> Self {
        Map(pairs.into_iter().collect())
    }
}

impl<T: Serialize> Serialize for Map<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// `ipam` of a Compose or Stack network.
#[derive(serde::Serialize)]
struct Ipam {
    config: [Pool; 1],
}

#[derive(serde::Serialize)]
struct Pool {
    subnet: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<Ipv4Addr>,
}

#[cfg(test)]
mod tests;
