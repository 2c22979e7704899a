//! The engine's images on a daemon: what is there, which are in use, and their removal. Only images with the engine's label.

use std::collections::HashMap;

use bollard::query_parameters as query;
use futures_util::StreamExt;

use super::super::{EngineImageAbout, RuntimeError, label};
use super::{Docker, found};

/// One engine image.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineImage {
    /// `rmqctl/engine:0.1.0-1a2b3c4d`.
    pub tag: String,
    #[allow(missing_docs)]
    pub id: String,
    /// Version of the `rmqctl` that it was made from.
    pub version: Option<String>,
    /// Content hash of the engine in it.
    pub sha256: String,
    /// Unix seconds; an image that rmqctl made says 0, since equal content shall be an equal image.
    pub created: i64,
    #[allow(missing_docs)]
    pub bytes: i64,
    /// It is the running rmqctl's own.
    pub current: bool,
    /// Containers that were made from it, running or not.
    pub containers: Vec<String>,
}

impl Docker {
    /// All engine images here, the running rmqctl's first.
    pub async fn engine_images(&self) -> Result<Vec<EngineImage>, RuntimeError> {
        let filters = HashMap::from([("label", vec![label::ENGINE_SHA256])]);
        let images = query::ListImagesOptionsBuilder::new()
            .filters(&filters)
            .build();
        let containers = query::ListContainersOptionsBuilder::new().all(true).build();
        let (images, containers) = tokio::join!(
            self.api.list_images(Some(images)),
            self.api.list_containers(Some(containers)),
        );
        let failed = |e| RuntimeError::failed("list", "images", e);
        let (images, containers) = (images.map_err(failed)?, containers.map_err(failed)?);
        let own = match self.engine().await {
            Ok(engine) => Some(engine.tag()),
            // Listing needs no image of one's own.
            Err(RuntimeError::Image { .. }) => None,
            Err(e) => return Err(e),
        };
        let mut all = Vec::new();
        for image in images {
            let users: Vec<String> = containers
                .iter()
                .filter(|c| c.image_id.as_ref() == Some(&image.id))
                .filter_map(|c| c.names.as_ref()?.first())
                .map(|name| name.trim_start_matches('/').to_owned())
                .collect();
            for tag in image.repo_tags {
                all.push(EngineImage {
                    current: own.as_ref() == Some(&tag),
                    tag,
                    id: image.id.clone(),
                    version: image.labels.get(label::VERSION).cloned(),
                    sha256: image
                        .labels
                        .get(label::ENGINE_SHA256)
                        .cloned()
                        .unwrap_or_default(),
                    created: image.created,
                    bytes: image.size,
                    containers: users.clone(),
                });
            }
        }
        all.sort_by_key(|image| (!image.current, image.tag.clone()));
        Ok(all)
    }

    /// Puts the running binary's image into the daemon, and says its tag.
    pub async fn load_engine(&self) -> Result<String, RuntimeError> {
        self.ensure_image().await?;
        Ok(self.engine().await?.tag())
    }

    /// What an engine image says of itself, by its labels: ids differ between image stores.
    pub(super) async fn engine_about(&self, image: &str) -> Result<EngineImageAbout, RuntimeError> {
        let there = found(self.api.inspect_image(image).await)
            .map_err(|e| RuntimeError::failed("inspect image", image, e))?;
        let there = there.ok_or_else(|| RuntimeError::NoImage {
            image: image.to_owned(),
            reason: "it is not on this daemon".to_owned(),
        })?;
        let not = |reason: String| RuntimeError::NotEngine {
            image: image.to_owned(),
            reason,
        };
        let mut labels = there.config.and_then(|c| c.labels).unwrap_or_default();
        let (Some(sha256), Some(version)) = (
            labels.remove(label::ENGINE_SHA256),
            labels.remove(label::VERSION),
        ) else {
            return Err(not(format!(
                "it has no labels {} and {}",
                label::ENGINE_SHA256,
                label::VERSION
            )));
        };
        if let Some(arch) = there.architecture.filter(|arch| *arch != self.arch) {
            return Err(not(format!(
                "it is for {arch}, the daemon runs {}",
                self.arch
            )));
        }
        let format = labels.get(label::STORE_FORMAT);
        Ok(EngineImageAbout {
            version,
            sha256,
            store_format: format.and_then(|f| f.parse().ok()).unwrap_or(1),
        })
    }

    /// The image of a cluster whose engine was named, when it is there.
    pub(super) async fn present_named(
        &self,
        image: &str,
    ) -> Result<Option<EngineImageAbout>, RuntimeError> {
        match self.engine_about(image).await {
            Ok(about) => Ok(Some(about)),
            // Looking is no fault: making a node of it is, and says so then.
            Err(RuntimeError::NoImage { .. } | RuntimeError::NotEngine { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Pulls an image unless it is there. `tell` hears how far it is.
    pub(super) async fn pull(
        &self,
        image: &str,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), RuntimeError> {
        let there = found(self.api.inspect_image(image).await)
            .map_err(|e| RuntimeError::failed("inspect image", image, e))?;
        if there.is_some() {
            return Ok(());
        }
        let options = query::CreateImageOptionsBuilder::new()
            .from_image(image)
            .build();
        let mut answers = std::pin::pin!(self.api.create_image(Some(options), None, None));
        let mut layers: HashMap<String, (i64, i64)> = HashMap::new();
        let mut refusal = String::from("the daemon took the pull but does not show the image");
        tell("pulling");
        while let Some(answer) = answers.next().await {
            let answer = match answer {
                Ok(answer) => answer,
                // The image is asked for below: bollard may end a good stream with a false decoding error.
                Err(e) => {
                    refusal = e.to_string();
                    continue;
                }
            };
            let sizes = answer
                .progress_detail
                .and_then(|p| Some((p.current?, p.total?)));
            if let (Some(layer), Some(sizes)) = (answer.id, sizes) {
                layers.insert(layer, sizes);
                let (done, of) = layers
                    .values()
                    .fold((0, 0), |(a, b), (done, of)| (a + done, b + of));
                tell(&format!("pulling  {} of {} MiB", done >> 20, of >> 20));
            }
        }
        let there = found(self.api.inspect_image(image).await)
            .map_err(|e| RuntimeError::failed("inspect image", image, e))?;
        match there {
            Some(_) => Ok(()),
            None => Err(RuntimeError::NoImage {
                image: image.to_owned(),
                reason: refusal,
            }),
        }
    }

    /// Takes the tag away, and the image with its last one. The daemon refuses while a container needs it.
    pub async fn remove_engine(&self, tag: &str) -> Result<(), RuntimeError> {
        let removed = self
            .api
            .remove_image(tag, None::<query::RemoveImageOptions>, None)
            .await;
        found(removed)
            .map(drop)
            .map_err(|e| RuntimeError::failed("remove image", tag, e))
    }
}
