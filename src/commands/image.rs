//! `image`: the engine's image in a daemon or in a file.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{RuntimeName, Session};
use crate::error::{Error, Exit};
use crate::runtime::docker::Docker;
use crate::runtime::image::Engine;
use crate::spec::unknown_name;
use crate::ui::{self, Format};

/// The engine's image: list, load, save, remove
///
/// `up` makes the image by itself, from this very binary. These commands are for other daemons and other tools.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl image save engine.tar     for docker load -i engine.tar on another machine
  rmqctl image load                into the daemon here
  rmqctl image ls -o json
  rmqctl image rm                  all that no container uses, but for the current one")]
pub struct Image {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List the engine images of this daemon
    Ls {
        /// Form of the result
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Format,
    },
    /// Put this binary's image into the daemon
    Load,
    /// Write this binary's image as an archive for `docker load`; no daemon is needed
    Save {
        /// The file; `-` is standard output
        file: PathBuf,
    },
    /// Remove engine images that no container uses
    Rm {
        /// Tags; without one, all unused ones but the current
        tags: Vec<String>,
    },
}

impl Image {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        matches!(
            self.what,
            What::Ls {
                output: Format::Json
            }
        )
    }
}

/// `image`
pub async fn image(args: Image, session: &Session<'_>) -> Result<u8, Error> {
    match args.what {
        What::Ls { output } => ls(output, session).await?,
        What::Load => {
            let tag = open(session).await?.load_engine().await?;
            session.ui.out(&format!("{tag}\n"));
        }
        What::Save { file } => save(&file, session).await?,
        What::Rm { tags } => rm(&tags, session).await?,
    }
    Ok(0)
}

/// Images are a daemon's, also where nodes are processes.
async fn open(session: &Session<'_>) -> Result<Docker, Error> {
    let (host, context) = (&session.global.host, &session.global.context);
    Ok(match session.global.runtime {
        RuntimeName::Podman => Docker::connect_podman(host.as_deref()).await?,
        _ => Docker::connect(host.as_deref(), context.as_deref()).await?,
    })
}

async fn ls(output: Format, session: &Session<'_>) -> Result<(), Error> {
    let images = open(session).await?.engine_images().await?;
    match output {
        Format::Json | Format::Yaml => session.ui.value(&images, output),
        Format::Name => {
            let names: String = images.iter().map(|i| format!("{}\n", i.tag)).collect();
            session.ui.out(&names);
        }
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = images
                .iter()
                .map(|image| {
                    let size = u64::try_from(image.bytes).unwrap_or_default();
                    let used = match image.containers.as_slice() {
                        [] => "-".to_owned(),
                        some => some.join(", "),
                    };
                    let current = if image.current { "this rmqctl" } else { "-" };
                    vec![image.tag.clone(), ui::bytes(size), current.to_owned(), used]
                })
                .collect();
            let header = ["IMAGE", "SIZE", "OF", "USED BY"];
            session.ui.out(&ui::table(&header, &rows, |_, _| None));
        }
    }
    Ok(())
}

async fn save(file: &Path, session: &Session<'_>) -> Result<(), Error> {
    let path = session.cwd.join(file);
    let to_stdout = file == Path::new("-");
    let failed = |reason: std::io::Error| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot write {}", file.display()),
        )
        .detail(reason.to_string())
    };
    let write = {
        let path = path.clone();
        move || -> Result<String, SaveError> {
            let engine = Engine::read().map_err(SaveError::Engine)?;
            engine.can_be_image().map_err(SaveError::Engine)?;
            let mut out: Box<dyn Write> = match to_stdout {
                true => Box::new(std::io::stdout().lock()),
                false => Box::new(std::fs::File::create(&path).map_err(SaveError::File)?),
            };
            for part in engine.archive().map_err(SaveError::Engine)? {
                out.write_all(&part).map_err(SaveError::File)?;
            }
            out.flush().map_err(SaveError::File)?;
            Ok(engine.tag())
        }
    };
    let saved = tokio::task::spawn_blocking(write).await.map_err(|reason| {
        Error::new("RMQ-E001", Exit::Failed, "the image was not written").detail(reason.to_string())
    })?;
    let tag = saved.map_err(|error| match error {
        SaveError::Engine(error) => error.into(),
        SaveError::File(reason) => failed(reason),
    })?;
    session.ui.note(&format!(
        "{tag} is saved.   docker load -i {}",
        file.display()
    ));
    Ok(())
}

enum SaveError {
    Engine(crate::runtime::RuntimeError),
    File(std::io::Error),
}

async fn rm(tags: &[String], session: &Session<'_>) -> Result<(), Error> {
    let docker = open(session).await?;
    let images = docker.engine_images().await?;
    for tag in tags {
        let Some(image) = images.iter().find(|image| image.tag == *tag) else {
            let known = images.iter().map(|image| image.tag.as_str());
            return Err(unknown_name("engine image", tag, known));
        };
        if !image.containers.is_empty() {
            return Err(Error::new(
                "RMQ-E163",
                Exit::Conflict,
                format!("{tag} is in use by {}", image.containers.join(", ")),
            )
            .detail("nothing was removed")
            .hint("rmqctl down   (removes the containers)"));
        }
    }
    let chosen = images.iter().filter(|image| match tags {
        [] => image.containers.is_empty() && !image.current,
        some => some.contains(&image.tag),
    });
    let mut removed = 0;
    for image in chosen {
        docker.remove_engine(&image.tag).await?;
        session.ui.out(&format!("{}\n", image.tag));
        removed += 1;
    }
    if removed == 0 {
        session.ui.note("no image is unused");
    }
    Ok(())
}
