//! `env`: what a program needs to find the cluster, for a shell to evaluate.

use super::Session;
use crate::error::Error;
use crate::topology::{Desired, Site};

/// Print the variables that lead a program to the cluster: eval "$(rmqctl env)"
#[derive(Debug, clap::Args)]
pub struct Env {
    /// Whose syntax
    #[arg(long, value_name = "SHELL", default_value = "auto")]
    shell: Shell,
    /// Addresses as seen from here, or from a container in the cluster's network
    #[arg(long, value_name = "VIEW", default_value = "host")]
    view: View,
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
    /// Appended to $GITHUB_ENV: rmqctl env --shell github >> "$GITHUB_ENV"
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
    for (key, value) in variables(&cluster.desired, in_network) {
        session.ui.out(&line(shell, key, &value));
    }
    Ok(0)
}

fn variables(desired: &Desired, in_network: bool) -> Vec<(&'static str, String)> {
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
    let mut all = vec![("NAMESRV_ADDR", namesrv.join(";"))];
    all.extend(console.map(|url| ("RMQ_CONSOLE_URL", url)));
    if in_network {
        all.push(("RMQ_NETWORK", desired.network.clone()));
    }
    all
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
