//! `export`: the cluster in other tools' words.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::{Session, up};
use crate::error::{Error, Exit};
use crate::export::{self, Claim, File, Form, MARK, Source};
use crate::properties;
use crate::runtime::image::Engine;
use crate::spec::SpecFlags;
use crate::topology::{self, Site};

/// Write the cluster as a Compose file, a Swarm stack, Kubernetes manifests or docker commands
///
/// Names, ports, properties and limits are those that `up` with the same flags would give; your edits of the properties files are
/// in it. Nothing is started, and no daemon is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl export compose deploy --masters 2 --slaves 2     deploy/docker-compose.yml and deploy/conf/
  rmqctl export compose -                                 one text, for docker compose -f - up -d
  rmqctl export stack swarm                               then: docker stack deploy -c swarm/docker-stack.yml rmq
  rmqctl export k8s - --namespace mq --storage 20Gi       for kubectl apply -f -
  rmqctl export docker-run -
  rmqctl image save engine.tar                            the image that they all run")]
pub struct Export {
    #[command(subcommand)]
    form: FormArgs,
}

#[derive(Debug, clap::Subcommand)]
enum FormArgs {
    /// A Compose file: docker-compose.yml and conf/
    Compose(Target),
    /// A Docker Swarm stack: docker-stack.yml and conf/
    Stack(Target),
    /// Kubernetes manifests: rocketmq.yaml
    K8s {
        #[command(flatten)]
        target: Target,
        /// Namespace of everything; it is made too (the cluster's name)
        #[arg(long, value_name = "NAME")]
        namespace: Option<String>,
        /// Size of each broker's volume
        #[arg(long, value_name = "SIZE", default_value = "10Gi")]
        storage: String,
    },
    /// A shell script of docker commands: docker-run.sh and conf/
    DockerRun(Target),
}

#[derive(Debug, clap::Args)]
struct Target {
    /// Directory to write into; `-` prints one text that needs no file beside it
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Overwrite files of these names that `rmqctl export` did not write
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    spec: SpecFlags,
}

/// `export`
pub async fn export(args: Export, session: &Session<'_>) -> Result<u8, Error> {
    let (target, k8s) = match args.form {
        FormArgs::Compose(target) => (target, Err(Form::Compose)),
        FormArgs::Stack(target) => (target, Err(Form::Stack)),
        FormArgs::DockerRun(target) => (target, Err(Form::DockerRun)),
        FormArgs::K8s {
            target,
            namespace,
            storage,
        } => (target, Ok((namespace, storage))),
    };
    let resolved = up::resolve(&target.spec, session).await?;
    let form = match k8s {
        Ok((namespace, storage)) => Form::Kubernetes(Claim {
            namespace: namespace.unwrap_or_else(|| resolved.spec.name.clone()),
            storage,
        }),
        Err(form) => form,
    };
    if let Some(image) = resolved.spec.engine.image() {
        return Err(Error::new(
            "RMQ-E164",
            Exit::Spec,
            format!("an export runs the bundled engine, not {image}"),
        )
        .detail("the volumes of Apache's image need an owner that it does not set; `up` sets it")
        .hint("--engine bundled"));
    }
    // Wherever this cluster runs now, what is written runs in a network.
    let mut desired = topology::desired(&resolved.spec, &Site::Network)?;
    let edits = properties::reconcile(&mut desired, resolved.previous.as_ref(), true)?;
    up::check_files(&desired, &edits)?;
    let engine = tokio::task::spawn_blocking(Engine::read)
        .await
        .map_err(|reason| {
            Error::new("RMQ-E001", Exit::Failed, "the running binary was not read")
                .detail(reason.to_string())
        })??;
    let named = resolved.spec.engine_image.clone();
    let tag = named.clone().unwrap_or_else(|| engine.tag());
    let source = Source {
        desired: &desired,
        engine: &tag,
    };
    if target.dir == Path::new("-") {
        session.ui.out(&export::alone(source, &form)?);
    } else {
        let dir = session.cwd.join(&target.dir);
        let files = export::files(source, &form)?;
        write_all(&dir, &files, target.force)?;
        for file in &files {
            session
                .ui
                .out(&format!("{}\n", target.dir.join(&file.name).display()));
        }
    }
    for edit in &edits {
        session.ui.note(&format!(
            "your edit of {} ({}) is in it",
            edit.file,
            edit.changes.join(", ")
        ));
    }
    if let (Err(reason), None) = (engine.can_be_image(), named) {
        session.ui.warn(&format!(
            "{tag} cannot be made from this binary ({reason}): write the tag of one that you built into the text"
        ));
    }
    Ok(0)
}

/// Writes the files; the first is the main one, which tells whose the directory is.
fn write_all(dir: &Path, files: &[File], force: bool) -> Result<(), Error> {
    let failed = |path: &Path, reason: std::io::Error| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot write {}", path.display()),
        )
        .detail(reason.to_string())
    };
    if let Some(main) = files.first().map(|file| dir.join(&file.name))
        && !force
        && is_of_another(&main).map_err(|reason| failed(&main, reason))?
    {
        return Err(Error::new(
            "RMQ-E162",
            Exit::Conflict,
            format!("{} was not written by `rmqctl export`", main.display()),
        )
        .detail("nothing was written")
        .hint("another directory: rmqctl export FORM DIR")
        .hint("--force   (overwrites it)"));
    }
    for file in files {
        let path = dir.join(&file.name);
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
            let mut out = std::fs::File::create(&path)?;
            out.write_all(file.text.as_bytes())?;
            // The engine's user in the container reads it, whatever this user's umask is.
            #[cfg(unix)]
            out.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            Ok(())
        };
        write().map_err(|reason| failed(&path, reason))?;
    }
    Ok(())
}

/// Whether a file stands there that does not begin with our mark.
fn is_of_another(path: &Path) -> std::io::Result<bool> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let mut head = Vec::new();
    file.take(MARK.len() as u64).read_to_end(&mut head)?;
    Ok(head != MARK.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_somebody_else_is_not_overwritten_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            [File {
                name: "docker-compose.yml".into(),
                text: text.into(),
            }]
        };
        let path = dir.path().join("docker-compose.yml");
        std::fs::write(&path, "services: {}\n").unwrap();
        let ours = file(&format!("{MARK} compose`\n"));
        let refused = write_all(dir.path(), &ours, false).unwrap_err();
        assert_eq!((refused.id, refused.exit), ("RMQ-E162", Exit::Conflict));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "services: {}\n");
        write_all(dir.path(), &ours, true).unwrap();
        write_all(dir.path(), &file(&format!("{MARK} 2\n")), false).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("2\n"));
    }
}
