//! `env`: what a program needs to find the cluster, for a shell to evaluate.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::Session;
use crate::error::{Error, Exit};
use crate::spec::unknown_name;
use crate::topology::{Desired, Site};
use crate::ui::Structured;

const EXAMPLES: &str = "\
Examples:
  eval \"$(rmqctl env)\"
  rmqctl env --shell github                          in a GitHub workflow: for the steps that follow
  rmqctl env --shell dotenv --view network > .env    for docker run --env-file .env --network rmqnetwork
  rmqctl env --rename NAMESRV_ADDR=ROCKETMQ_NAME_SERVER
  rmqctl env -o json";

/// Print the variables that lead a program to the cluster: eval "$(rmqctl env)"
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Env {
    /// Whose syntax
    #[arg(long, value_name = "SHELL", default_value = "auto")]
    shell: Shell,
    /// Addresses as seen from here, or from a container in the cluster's network
    #[arg(long, value_name = "VIEW", default_value = "host")]
    view: View,
    /// Give the value of a variable under another name too: NAMESRV_ADDR=ROCKETMQ_NAME_SERVER
    #[arg(long = "rename", value_name = "A=B")]
    renames: Vec<Rename>,
    /// The variables as one object instead
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "shell")]
    output: Option<Structured>,
}

impl Env {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Some(Structured::Json)
    }
}

/// `A=B`: what A holds is wanted under the name B too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    from: String,
    to: String,
}

impl std::str::FromStr for Rename {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        match typed.split_once('=') {
            Some((from, to)) if is_name(from) && is_name(to) => Ok(Self {
                from: from.to_owned(),
                to: to.to_owned(),
            }),
            _ => Err(format!(
                "`{typed}` is not two names of variables, as NAMESRV_ADDR=ROCKETMQ_NAME_SERVER"
            )),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    /// From $SHELL
    Auto,
    /// And sh, zsh
    Bash,
    Fish,
    Pwsh,
    /// KEY=VALUE lines, as docker --env-file reads them
    Dotenv,
    /// Appended to the file $GITHUB_ENV names, for the steps that follow; printed where it names none
    Github,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum View {
    Host,
    Network,
}

/// `env`
pub async fn env(args: Env, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let in_network = args.view == View::Network && cluster.desired.site == Site::Network;
    let shell = match args.shell {
        Shell::Auto if std::env::var("SHELL").is_ok_and(|shell| shell.ends_with("/fish")) => {
            Shell::Fish
        }
        Shell::Auto => Shell::Bash,
        chosen => chosen,
    };
    let all = with_renames(variables(&cluster.desired, in_network), &args.renames)?;
    if let Some(format) = args.output {
        let all: BTreeMap<String, String> = all.into_iter().collect();
        session.ui.value(&all, format.into());
        return Ok(0);
    }
    let text: String = all.iter().map(|(k, v)| line(shell, k, v)).collect();
    match std::env::var_os("GITHUB_ENV").filter(|path| !path.is_empty()) {
        Some(path) if shell == Shell::Github => {
            append(Path::new(&path), &text)?;
            let names: Vec<String> = all.into_iter().map(|(key, _)| key).collect();
            session.ui.note(&format!(
                "{} are set for the steps that follow.",
                names.join(", ")
            ));
        }
        _ => session.ui.out(&text),
    }
    Ok(0)
}

/// The variables, and those that are wanted under a second name.
pub fn with_renames(
    mut all: Vec<(String, String)>,
    renames: &[Rename],
) -> Result<Vec<(String, String)>, Error> {
    for rename in renames {
        let found = all.iter().find(|(key, _)| *key == rename.from);
        let Some((_, value)) = found else {
            let keys = all.iter().map(|(key, _)| key.as_str());
            return Err(unknown_name("variable", &rename.from, keys));
        };
        all.push((rename.to.clone(), value.clone()));
    }
    Ok(all)
}

/// What leads a program to the cluster, from this host or from inside its network.
pub fn variables(desired: &Desired, in_network: bool) -> Vec<(String, String)> {
    let inside = |purpose: &str| -> Vec<String> {
        let port =
            |n: &crate::topology::Node| Some(format!("{}:{}", n.name, n.port(purpose)?.container));
        desired.nodes.iter().filter_map(port).collect()
    };
    let namesrv = if in_network {
        inside("namesrv")
    } else {
        desired.namesrv_addrs()
    };
    let console = if in_network {
        inside("console").pop().map(|addr| format!("http://{addr}"))
    } else {
        desired.console_url()
    };
    let mut all = vec![("NAMESRV_ADDR".to_owned(), namesrv.join(";"))];
    all.extend(console.map(|url| ("RMQ_CONSOLE_URL".to_owned(), url)));
    if in_network {
        all.push(("RMQ_NETWORK".to_owned(), desired.network.clone()));
    }
    all
}

fn append(path: &Path, text: &str) -> Result<(), Error> {
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|reason| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot write {}", path.display()),
        )
        .detail(reason.to_string())
        .hint("GITHUB_ENV names the file that the runner reads; unset it to have the lines printed")
    })
}

fn line(shell: Shell, key: &str, value: &str) -> String {
    match shell {
        // The `;` between name servers ends a command unless it is quoted. Values are host names, ports and URLs: no quotes.
        Shell::Auto | Shell::Bash => format!("export {key}='{value}'\n"),
        Shell::Fish => format!("set -gx {key} '{value}'\n"),
        Shell::Pwsh => format!("$env:{key} = '{value}'\n"),
        Shell::Dotenv | Shell::Github => format!("{key}={value}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ClusterSpec, Profile};
    use crate::topology::desired;

    #[test]
    fn each_shell_and_each_view_gets_its_own_lines() {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/x".into());
        spec.namesrvs = 2;
        let all = desired(&spec, &Site::Network).unwrap();
        let text = |shell, inside| -> String {
            variables(&all, inside)
                .iter()
                .map(|(k, v)| line(shell, k, v))
                .collect()
        };
        assert_eq!(
            text(Shell::Bash, false),
            "export NAMESRV_ADDR='127.0.0.1:9876;127.0.0.1:9877'\nexport RMQ_CONSOLE_URL='http://127.0.0.1:8181'\n"
        );
        assert_eq!(
            text(Shell::Dotenv, true),
            "NAMESRV_ADDR=rmqnamesrv:9876;rmqnamesrv2:9876\nRMQ_CONSOLE_URL=http://rmqconsole:8080\nRMQ_NETWORK=rmqnetwork\n"
        );
    }
}
