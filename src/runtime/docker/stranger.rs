//! Containers that were made by hand: looked at, renamed, and their stores copied into volumes of ours.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models as api;
use bollard::query_parameters as query;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::super::stranger::{Glance, Mount, Stranger};
use super::super::{RuntimeError, label};
use super::{Docker, found, holder_words};
use crate::archive::{self, FromChannel, PIECES_WAITING_MAX, ToChannel};
use crate::plan::{CopyStore, ForeignMove, Moving, StoreCopy};
use crate::topology::{CONTAINER_UID, Desired};

/// Inspects at once.
const PARALLEL: usize = 8;
/// Of an archive that is glanced at, so much is read.
const GLANCE_MAX: usize = 1 << 20;
/// Links in a path that are followed.
const LINKS_MAX: usize = 8;
/// The daemon answers an upload when it has all of it, and stores are large.
const COPY_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

impl Docker {
    pub(super) async fn find_strangers(&self) -> Result<Vec<Stranger>, RuntimeError> {
        let failed = |e: Error| RuntimeError::failed("list", "containers", e);
        let all = query::ListContainersOptionsBuilder::new().all(true).build();
        let listed = self.containers(all).await.map_err(failed)?;
        let ids: Vec<String> = listed
            .into_iter()
            .filter(|c| super::cluster_of(&c.labels).is_none())
            .filter_map(|c| c.id)
            .collect();
        let looks = futures_util::stream::iter(ids)
            .map(|id| async move { self.stranger(&id).await })
            .buffer_unordered(PARALLEL);
        let looks: Vec<Result<Option<Stranger>, RuntimeError>> = looks.collect().await;
        let mut all = Vec::new();
        for look in looks {
            all.extend(look?);
        }
        all.sort_by(|a, b| a.container.cmp(&b.container));
        Ok(all)
    }

    async fn stranger(&self, id: &str) -> Result<Option<Stranger>, RuntimeError> {
        let inspect = self.inspect(id).await;
        let Some(seen) = inspect.map_err(|e| RuntimeError::failed("inspect", id, e))? else {
            return Ok(None);
        };
        let mut stranger = stranger_of(seen);
        if stranger.runs {
            // Whoever cannot list processes still has the command that it was made with.
            let options = query::TopOptionsBuilder::new()
                .ps_args("-eo pid,args")
                .build();
            let top = self.api.top_processes(id, Some(options)).await;
            let rows = top.ok().and_then(|top| top.processes).unwrap_or_default();
            stranger.processes = rows
                .into_iter()
                .filter_map(|row| row.into_iter().next_back())
                .collect();
        }
        Ok(Some(stranger))
    }

    pub(super) async fn glance_at(
        &self,
        container: &str,
        path: &str,
    ) -> Result<Option<Glance>, RuntimeError> {
        let failed =
            |reason: String| RuntimeError::failed("read", &format!("{container}:{path}"), reason);
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let Some(head) = self.head_of(container, &path).await? else {
                return Ok(None);
            };
            match archive::glance(&head).map_err(|e| failed(e.to_string()))? {
                archive::Glanced::Files { files, first } => {
                    return Ok(Some(Glance { files, text: first }));
                }
                archive::Glanced::Link(target) => {
                    let parent = Path::new(&path).parent().unwrap_or(Path::new("/"));
                    path = parent.join(target).display().to_string();
                }
            }
        }
        Err(failed("too many links in its path".into()))
    }

    /// The first piece of the archive of a path.
    async fn head_of(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>, RuntimeError> {
        let options = query::DownloadFromContainerOptionsBuilder::new()
            .path(path)
            .build();
        let mut pieces = std::pin::pin!(self.api.download_from_container(container, Some(options)));
        let mut head = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = found(piece);
            let shown = || format!("{container}:{path}");
            match piece.map_err(|e| RuntimeError::failed("read", &shown(), e))? {
                Some(piece) => head.extend_from_slice(&piece),
                None => return Ok(None),
            }
            if head.len() >= GLANCE_MAX {
                break;
            }
        }
        Ok(Some(head))
    }

    /// State of a container that is nobody's of rmqctl; one of ours is an error.
    async fn foreign(
        &self,
        name: &str,
    ) -> Result<Option<api::ContainerInspectResponse>, RuntimeError> {
        let inspect = self.inspect(name).await;
        let Some(seen) = inspect.map_err(|e| RuntimeError::failed("inspect", name, e))? else {
            return Ok(None);
        };
        let labels = seen.config.as_ref().and_then(|c| c.labels.clone());
        if labels
            .as_ref()
            .is_some_and(|l| l.contains_key(label::CLUSTER))
        {
            return Err(RuntimeError::NotOurs {
                object: format!("container {name}"),
                cluster: "nobody's".into(),
                holder: holder_words(&labels),
            });
        }
        Ok(Some(seen))
    }

    pub(super) async fn move_foreign(
        &self,
        desired: &Desired,
        moved: &ForeignMove,
    ) -> Result<(), RuntimeError> {
        for from in &moved.from {
            let Some(seen) = self.foreign(from).await? else {
                continue;
            };
            if moved.how == Moving::Stop {
                self.rest_foreign(desired, from, &seen).await?;
            }
            if *from != moved.to {
                let options = query::RenameContainerOptionsBuilder::new()
                    .name(&moved.to)
                    .build();
                let renamed = self.api.rename_container(from, options).await;
                renamed.map_err(|e| RuntimeError::failed("rename", from, e))?;
            }
            if moved.how == Moving::Start {
                let start = self
                    .api
                    .start_container(&moved.to, None::<query::StartContainerOptions>);
                return start
                    .await
                    .map_err(|e| RuntimeError::failed("start", &moved.to, e));
            }
            return Ok(());
        }
        // Renamed before the answer was lost, or by an earlier run.
        match self.foreign(&moved.to).await? {
            Some(_) => Ok(()),
            None => Err(RuntimeError::failed(
                "rename",
                moved.from.first().map_or("", String::as_str),
                "no such container",
            )),
        }
    }

    /// Stops it as its user would. One that is always started again would come back with the daemon, and take its ports.
    async fn rest_foreign(
        &self,
        desired: &Desired,
        name: &str,
        seen: &api::ContainerInspectResponse,
    ) -> Result<(), RuntimeError> {
        let policy = seen
            .host_config
            .as_ref()
            .and_then(|h| h.restart_policy.as_ref());
        if policy.and_then(|p| p.name) == Some(api::RestartPolicyNameEnum::ALWAYS) {
            let body = api::ContainerUpdateBody {
                restart_policy: Some(api::RestartPolicy {
                    name: Some(api::RestartPolicyNameEnum::UNLESS_STOPPED),
                    maximum_retry_count: None,
                }),
                ..Default::default()
            };
            let updated = self.api.update_container(name, body).await;
            updated.map_err(|e| RuntimeError::failed("update", name, e))?;
        }
        let failed = |e: Error| RuntimeError::failed("stop", name, e);
        if seen.state.as_ref().and_then(|s| s.paused) == Some(true) {
            self.api.unpause_container(name).await.map_err(failed)?;
        }
        if seen.state.as_ref().and_then(|s| s.running) != Some(true) {
            return Ok(());
        }
        let seconds = super::node::whole_seconds(desired.stop_timeout);
        let options = query::StopContainerOptionsBuilder::new().t(seconds).build();
        let patient = desired.stop_timeout + Duration::from_secs(30);
        let api = self.api.clone().with_timeout(patient);
        // The stop comes first, so that the daemon takes the end for what was asked for and starts nothing again.
        let (stopped, ()) =
            tokio::join!(api.stop_container(name, Some(options)), self.end_java(name));
        stopped.map_err(failed)
    }

    /// Apache's scripts start `java` as a child of shells that pass no signal on: a stop alone waits its time out and kills it, and the store is
    /// then recovered as after a crash. Where there is no shell, there is no such script.
    async fn end_java(&self, name: &str) {
        const END: &str = "for p in /proc/[0-9]*; do read -r c <$p/comm && [ \"$c\" = java ] && kill ${p#/proc/}; done";
        let command = ["sh", "-c", END].map(str::to_owned);
        let (send, mut said) = mpsc::channel(1);
        let run = async {
            let send = send;
            self.run_in(name, &command, None, &send).await
        };
        let listen = async { while said.recv().await.is_some() {} };
        if let (Err(error), ()) = tokio::join!(run, listen) {
            tracing::debug!(container = name, %error, "no shell ended java in it");
        }
    }

    pub(super) async fn remove_foreign(&self, name: &str) -> Result<(), RuntimeError> {
        if self.foreign(name).await?.is_none() {
            return Ok(());
        }
        // `v` takes volumes that have no name; those with one, and host directories, stay.
        let options = query::RemoveContainerOptionsBuilder::new().v(true).build();
        let removed = self.api.remove_container(name, Some(options)).await;
        found(removed)
            .map(drop)
            .map_err(|e| RuntimeError::failed("remove", name, e))
    }

    pub(super) async fn copy_store(
        &self,
        desired: &Desired,
        copy: &CopyStore,
    ) -> Result<(), RuntimeError> {
        let carrier = &copy.carrier;
        self.remove_node(desired, &carrier.container).await?;
        self.create_node(desired, carrier).await?;
        for part in &copy.copies {
            self.copy_part(copy, part).await?;
        }
        self.remove_node(desired, &carrier.container).await
    }

    async fn copy_part(&self, copy: &CopyStore, part: &StoreCopy) -> Result<(), RuntimeError> {
        let shown = format!("{}:{}", copy.from, part.from);
        let failed = |reason: String| RuntimeError::failed("copy", &shown, reason);
        let (downloaded, archive) = mpsc::channel(PIECES_WAITING_MAX);
        let (rehomed, upload) = mpsc::channel(PIECES_WAITING_MAX);
        // The dot has the daemon follow a link that the directory may be, and names what is in it without it.
        let path = match part.is_file {
            true => part.from.clone(),
            false => format!("{}/.", part.from),
        };
        let fetch = async {
            let downloaded = downloaded;
            let options = query::DownloadFromContainerOptionsBuilder::new()
                .path(&path)
                .build();
            let mut pieces =
                std::pin::pin!(self.api.download_from_container(&copy.from, Some(options)));
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|e| failed(e.to_string()))?;
                if downloaded.send(piece).await.is_err() {
                    break;
                }
            }
            Ok::<(), RuntimeError>(())
        };
        let wanted = part.clone();
        let rehome = tokio::task::spawn_blocking(move || {
            archive::rehome(
                FromChannel::new(archive),
                &archive::Rehome {
                    below: Path::new(&wanted.to),
                    is_file: wanted.is_file,
                    without: &wanted.without,
                    owner: CONTAINER_UID,
                },
                ToChannel::new(rehomed),
            )
        });
        let store = copy.carrier.store_path.clone().unwrap_or_default();
        let options = query::UploadToContainerOptionsBuilder::new()
            .path(&store.to_string_lossy())
            .build();
        let pieces =
            futures_util::stream::unfold(upload, |mut upload: mpsc::Receiver<Bytes>| async {
                Some((upload.recv().await?, upload))
            });
        let api = self.api.clone().with_timeout(COPY_TIMEOUT);
        let put = api.upload_to_container(
            &copy.carrier.container,
            Some(options),
            bollard::body_stream(pieces),
        );
        let (fetched, rehomed, put) = tokio::join!(fetch, rehome, put);
        // The first side that failed tore the others' ends: it has the reason.
        fetched?;
        let summary = rehomed
            .map_err(|e| failed(e.to_string()))?
            .map_err(|e| match &put {
                Err(refused) if e.kind() == std::io::ErrorKind::BrokenPipe => {
                    failed(refused.to_string())
                }
                _ => failed(e.to_string()),
            })?;
        put.map_err(|e| failed(e.to_string()))?;
        if !summary.skipped.is_empty() {
            return Err(failed(format!(
                "{} things in it are no plain files and would be lost: {}",
                summary.skipped.len(),
                summary.skipped.join(", ")
            )));
        }
        tracing::debug!(from = %shown, files = summary.files, bytes = summary.bytes, "copied");
        Ok(())
    }
}

fn stranger_of(seen: api::ContainerInspectResponse) -> Stranger {
    let config = seen.config.unwrap_or_default();
    let host = seen.host_config.unwrap_or_default();
    let positive = |n: Option<i64>| n.filter(|n| *n > 0);
    let command = config.entrypoint.into_iter().flatten();
    let bindings = host.port_bindings.unwrap_or_default();
    let mut ports: Vec<(u16, String, u16)> = bindings
        .into_iter()
        .filter_map(|(inside, to)| Some((inside.split('/').next()?.parse().ok()?, to?)))
        .flat_map(|(inside, to): (u16, Vec<api::PortBinding>)| {
            to.into_iter().filter_map(move |to| {
                let port = to.host_port?.parse().ok()?;
                Some((inside, to.host_ip.unwrap_or_default(), port))
            })
        })
        .collect();
    ports.sort();
    let networks = seen.network_settings.and_then(|n| n.networks);
    let addresses = networks
        .into_iter()
        .flatten()
        .flat_map(|(_, endpoint)| {
            let fixed = endpoint.ipam_config.and_then(|ipam| ipam.ipv4_address);
            [endpoint.ip_address, fixed]
        })
        .flatten()
        .filter(|address| !address.is_empty())
        .collect();
    let links = host.links.unwrap_or_default();
    Stranger {
        container: seen
            .name
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned(),
        image: config.image.unwrap_or_default(),
        runs: seen.state.and_then(|s| s.running) == Some(true),
        command: command.chain(config.cmd.into_iter().flatten()).collect(),
        processes: Vec::new(),
        env: config
            .env
            .into_iter()
            .flatten()
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                Some((key.to_owned(), value.to_owned()))
            })
            .collect::<BTreeMap<_, _>>(),
        hostname: config.hostname.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        mounts: seen
            .mounts
            .into_iter()
            .flatten()
            .filter_map(mount_of)
            .collect(),
        ports,
        addresses,
        // `/rmqnamesrv:/rmqmaster1/namesrv`
        links: links
            .iter()
            .filter_map(|link| {
                let (to, alias) = link.split_once(':')?;
                let alias = alias.rsplit('/').next()?;
                Some((to.trim_start_matches('/').to_owned(), alias.to_owned()))
            })
            .collect(),
        memory: positive(host.memory).and_then(|n| n.try_into().ok()),
        nano_cpus: positive(host.nano_cpus),
    }
}

fn mount_of(mount: api::MountPoint) -> Option<Mount> {
    let source = match (mount.name, mount.source) {
        (Some(name), _) if !name.is_empty() => format!("volume {name}"),
        (_, Some(path)) => format!("host directory {path}"),
        _ => return None,
    };
    Some(Mount {
        source,
        target: mount.destination?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_links_ports_and_mounts_are_read() {
        let json = serde_json::json!({
            "Name": "/rmqmaster1",
            "Config": {
                "Image": "apache/rocketmq:5.3.2", "Entrypoint": ["sh"], "Cmd": ["mqbroker", "-n", "namesrv:9876"],
                "Env": ["NAMESRV_ADDR=namesrv:9876", "ODD"], "Hostname": "3f2a", "User": "rocketmq", "WorkingDir": "/bin",
            },
            "State": {"Running": true},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.3"}}},
            "HostConfig": {
                "PortBindings": {"10911/tcp": [{"HostIp": "", "HostPort": "10921"}], "10909/tcp": null},
                "Links": ["/rmqnamesrv:/rmqmaster1/namesrv"], "Memory": 0, "NanoCpus": 500_000_000,
            },
            "Mounts": [
                {"Type": "bind", "Source": "/srv/rmq", "Destination": "/home/rocketmq/store"},
                {"Type": "volume", "Name": "logs", "Source": "/x", "Destination": "/logs"},
            ],
        });
        let stranger = stranger_of(serde_json::from_value(json).unwrap());
        assert_eq!(stranger.command, ["sh", "mqbroker", "-n", "namesrv:9876"]);
        assert_eq!(stranger.ports, [(10911, String::new(), 10921)]);
        assert_eq!(stranger.links, [("rmqnamesrv".into(), "namesrv".into())]);
        assert_eq!(
            (stranger.memory, stranger.nano_cpus),
            (None, Some(500_000_000))
        );
        assert_eq!(stranger.addresses, ["172.17.0.3"]);
        assert_eq!(stranger.env.len(), 1);
        let sources: Vec<&str> = stranger.mounts.iter().map(|m| m.source.as_str()).collect();
        assert_eq!(sources, ["host directory /srv/rmq", "volume logs"]);
    }
}
