//! Stores in directories of the daemon's host: made before their containers, which are told to run as the directories' owner.

use std::path::Path;

use bollard::models as api;

use super::super::RuntimeError;
use super::super::hostdir::{self, RunsAs};
use super::Docker;
use crate::plan::Observed;
use crate::topology::{CONTAINER_UID, Desired, Node};

/// What of a daemon decides how a directory is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// It runs as an ordinary user, who is root in its containers.
    rootless: bool,
    /// Containers see only what is labelled for them.
    selinux: bool,
}

/// How a node's store directory gets into its container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// `UID:GID` of its process; `None`: as the image says.
    pub user: Option<String>,
    /// The daemon is to label it.
    pub relabel: bool,
}

impl Docker {
    async fn traits(&self) -> Result<Traits, RuntimeError> {
        let ask = || async {
            let info = self.api.info().await;
            let info = info.map_err(|e| RuntimeError::failed("ask", "the daemon", e))?;
            let options = info.security_options.unwrap_or_default();
            let has = |name: &str| {
                let mut all = options.iter();
                all.any(|option| option.split(',').any(|part| part == name))
            };
            Ok(Traits {
                rootless: has("name=rootless"),
                selinux: has("name=selinux"),
            })
        };
        self.traits.get_or_try_init(ask).await.copied()
    }

    /// Another's image has files of its own user; ours runs as anybody.
    async fn runs_as(&self, foreign: bool) -> Result<RunsAs, RuntimeError> {
        if foreign {
            return Ok(RunsAs::User(CONTAINER_UID as u32));
        }
        Ok(match self.traits().await?.rootless {
            true => RunsAs::User(rustix::process::geteuid().as_raw()),
            false => RunsAs::Owner,
        })
    }

    /// Looks at the directories, where the daemon's host is this one.
    pub(super) async fn look_at_data_dirs(
        &self,
        desired: &Desired,
        observed: &mut Observed,
    ) -> Result<(), RuntimeError> {
        if self.local && desired.nodes.iter().any(|node| node.data_dir().is_some()) {
            let runs_as = self.runs_as(desired.foreign_image().is_some()).await?;
            hostdir::look(desired, runs_as, observed);
        }
        Ok(())
    }

    /// Elsewhere it must be there: what it is cannot be seen from here.
    pub(super) async fn make_data_dir(
        &self,
        desired: &Desired,
        dir: &Path,
    ) -> Result<(), RuntimeError> {
        let node = desired.nodes.iter().find(|n| n.data_dir() == Some(dir));
        let Some(node) = node.filter(|_| self.local) else {
            return Ok(());
        };
        let runs_as = self.runs_as(node.image.is_some()).await?;
        hostdir::make(dir, &desired.cluster, &node.name, runs_as)
    }

    /// How the node's directory is mounted; `None` where its store is none.
    pub(super) async fn binding(&self, node: &Node) -> Result<Option<Binding>, RuntimeError> {
        let Some(dir) = node.data_dir() else {
            return Ok(None);
        };
        let traits = self.traits().await?;
        let owner = || {
            let owner = hostdir::owner(dir);
            owner.map_err(|e| RuntimeError::failed("look at", &dir.display().to_string(), e))
        };
        let user = match (self.local, node.image.is_some()) {
            // The image's own: whose the directory is cannot be seen, or is another image's matter.
            (false, _) | (_, true) => None,
            // Its root is the user that the daemon runs as.
            _ if traits.rootless => Some("0:0".to_owned()),
            _ => {
                let (uid, gid) = owner()?;
                Some(format!("{uid}:{gid}"))
            }
        };
        Ok(Some(Binding {
            user,
            relabel: traits.selinux,
        }))
    }

    /// Whether the engine's user must be made the owner of the store's directory: another's image does not do it.
    pub(super) fn gives_store(&self, node: &Node) -> bool {
        node.tmpfs.is_none() && node.image.is_some()
    }
}

/// The mount of a node's store: a volume or a directory. Memory and a directory that is to be labelled are none: only the older forms
/// can say whose it is ([`memory_options`](crate::topology::memory_options)) and that it is to be labelled ([`bind_text`]).
pub fn store_mount(
    node: &Node,
    target: &Path,
    binding: Option<&Binding>,
    labelled: impl Fn(&str) -> api::MountVolumeOptions,
) -> Option<api::Mount> {
    let mount = |typ| api::Mount {
        typ: Some(typ),
        target: Some(target.display().to_string()),
        read_only: Some(false),
        ..Default::default()
    };
    if node.tmpfs.is_some() {
        return None;
    }
    if let Some(dir) = node.data_dir() {
        if binding.is_some_and(|binding| binding.relabel) {
            return None;
        }
        return Some(api::Mount {
            source: Some(dir.display().to_string()),
            ..mount(api::MountType::BIND)
        });
    }
    Some(match &node.volume {
        Some(name) => api::Mount {
            source: Some(name.clone()),
            volume_options: Some(labelled("store")),
            ..mount(api::MountType::VOLUME)
        },
        // A store without a volume's name lasts as long as its container.
        None => api::Mount {
            volume_options: Some(labelled("conf")),
            ..mount(api::MountType::VOLUME)
        },
    })
}

/// `SOURCE:TARGET:z`: the daemon labels the directory, so that containers may see it. Shared, as `rmqctl` and backups see it too.
pub fn bind_text(node: &Node, target: &Path, binding: Option<&Binding>) -> Option<String> {
    let dir = node
        .data_dir()
        .filter(|_| binding.is_some_and(|binding| binding.relabel))?;
    Some(format!("{}:{}:z", dir.display(), target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ClusterSpec, Profile, Storage};
    use crate::topology::{Role, Site, desired};

    fn master(storage: Storage) -> Node {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/conf".into());
        spec.storage = storage;
        let all = desired(&spec, &Site::Network).unwrap();
        all.nodes
            .into_iter()
            .find(|n| n.role == Role::Master)
            .unwrap()
    }

    fn mount(node: &Node, binding: Option<&Binding>) -> Option<api::Mount> {
        store_mount(node, Path::new("/store"), binding, |_| Default::default())
    }

    #[test]
    fn a_directory_is_bound_as_its_owner_and_labelled_where_containers_see_only_what_is() {
        let node = master(Storage::Host {
            path: "/srv/rmq".into(),
        });
        let here = Binding {
            user: Some("1000:1000".into()),
            ..Binding::default()
        };
        let bound = mount(&node, Some(&here)).unwrap();
        assert_eq!(bound.typ, Some(api::MountType::BIND));
        assert_eq!(bound.source.as_deref(), Some("/srv/rmq/rmqmaster1"));
        assert_eq!(bind_text(&node, Path::new("/store"), Some(&here)), None);
        let labelled = Binding {
            relabel: true,
            ..here
        };
        assert_eq!(mount(&node, Some(&labelled)), None);
        assert_eq!(
            bind_text(&node, Path::new("/store"), Some(&labelled)).as_deref(),
            Some("/srv/rmq/rmqmaster1:/store:z")
        );
    }
}
