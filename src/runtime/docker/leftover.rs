//! What clusters left on the daemon: found by our labels, removed one at a time.

use std::collections::HashMap;

use bollard::query_parameters as query;

use super::super::time::unix_seconds;
use super::{Docker, cluster_of, found};
use crate::runtime::{Leftover, LeftoverKind, RuntimeError, label};

impl Docker {
    pub(super) async fn find_leftovers(&self) -> Result<Vec<Leftover>, RuntimeError> {
        let failed = |what: &'static str| {
            move |e: bollard::errors::Error| RuntimeError::failed("list", what, e)
        };
        let ours = HashMap::from([("label", vec![label::CLUSTER])]);
        let engines = HashMap::from([("label", vec![label::ENGINE_SHA256])]);
        let all = query::ListContainersOptionsBuilder::new().all(true).build();
        let networks = query::ListNetworksOptionsBuilder::new()
            .filters(&ours)
            .build();
        let volumes = query::ListVolumesOptionsBuilder::new()
            .filters(&ours)
            .build();
        let images = query::ListImagesOptionsBuilder::new()
            .filters(&engines)
            .build();
        let (containers, networks, volumes, images) = tokio::join!(
            self.containers(all),
            self.api.list_networks(Some(networks)),
            self.api.list_volumes(Some(volumes)),
            self.api.list_images(Some(images)),
        );
        let containers = containers.map_err(failed("containers"))?;
        let networks = networks.map_err(failed("networks"))?;
        let volumes = volumes.map_err(failed("volumes"))?.volumes;
        let images = images.map_err(failed("images"))?;

        let has_nodes = |cluster: &str| {
            containers
                .iter()
                .any(|c| cluster_of(&c.labels).is_some_and(|of| of == cluster))
        };
        let mut left = Vec::new();
        let mut alive = Vec::new();
        for network in networks {
            let cluster = cluster_of(&network.labels).cloned();
            let (Some(cluster), Some(name)) = (cluster, network.name) else {
                continue;
            };
            if has_nodes(&cluster) {
                alive.push(cluster);
                continue;
            }
            left.push(Leftover {
                kind: LeftoverKind::Network,
                name,
                created_at: network.created.as_deref().and_then(unix_seconds),
                cluster: Some(cluster),
                has_messages: false,
            });
        }
        for volume in volumes.unwrap_or_default() {
            let mounted = containers.iter().any(|c| {
                let mut mounts = c.mounts.iter().flatten();
                mounts.any(|m| m.name.as_ref() == Some(&volume.name))
            });
            let Some(cluster) = volume.labels.get(label::CLUSTER).cloned() else {
                continue;
            };
            // A cluster that stands finds its volumes again, whichever node is missing.
            if mounted || has_nodes(&cluster) || alive.contains(&cluster) {
                continue;
            }
            let kind = volume.labels.get(label::VOLUME_KIND).map(String::as_str);
            left.push(Leftover {
                kind: LeftoverKind::Volume,
                created_at: volume.created_at.as_deref().and_then(unix_seconds),
                has_messages: kind == Some("store"),
                cluster: Some(cluster),
                name: volume.name,
            });
        }
        let own = match self.engine().await {
            Ok(engine) => Some(engine.tag()),
            // What cannot be an image has none here.
            Err(RuntimeError::Image { .. }) => None,
            Err(e) => return Err(e),
        };
        for image in images {
            let used = containers
                .iter()
                .any(|c| c.image_id.as_ref() == Some(&image.id));
            let created_at = self.loaded_at(&image.id).await;
            for tag in image.repo_tags {
                let runs = containers.iter().any(|c| c.image.as_ref() == Some(&tag));
                if used || runs || own.as_ref() == Some(&tag) {
                    continue;
                }
                left.push(Leftover {
                    kind: LeftoverKind::Engine,
                    name: tag,
                    cluster: None,
                    created_at,
                    has_messages: false,
                });
            }
        }
        Ok(left)
    }

    /// When an engine's image was loaded here; it says nothing of its making, so that equal content is an equal image. `None` of one
    /// that another program loaded.
    async fn loaded_at(&self, image: &str) -> Option<u64> {
        let image = self.api.inspect_image(image).await.ok()?;
        let tagged = image.metadata?.last_tag_time?;
        unix_seconds(&tagged)
    }

    /// Removes one of these; the daemon refuses what has come into use meanwhile.
    pub(super) async fn discard_leftover(&self, left: &Leftover) -> Result<(), RuntimeError> {
        let name = &left.name;
        let failed = |e| RuntimeError::failed(&format!("remove {}", left.kind.word()), name, e);
        match left.kind {
            LeftoverKind::Network => found(self.api.remove_network(name).await).map(drop),
            LeftoverKind::Volume => found(
                self.api
                    .remove_volume(name, None::<query::RemoveVolumeOptions>)
                    .await,
            )
            .map(drop),
            LeftoverKind::Engine => found(
                self.api
                    .remove_image(name, None::<query::RemoveImageOptions>, None)
                    .await,
            )
            .map(drop),
        }
        .map_err(failed)
    }
}
