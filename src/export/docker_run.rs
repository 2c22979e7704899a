//! A shell script of `docker` command lines, for those who want to see what runs, or have nothing but `docker`.

use std::fmt::Write as _;

use super::{Source, conf_files, conf_path, cores, file_name, store_path};
use crate::error::Error;
use crate::spec::quoted;
use crate::topology::Node;

const HEAD: &str = include_str!("../../templates/export/docker-run.head");

/// Where the properties files are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Conf {
    /// In `conf/` beside the script.
    Beside,
    /// In the script, which writes them.
    Inline,
}

/// The script.
pub fn text(source: Source<'_>, conf: Conf) -> Result<String, Error> {
    let desired = source.desired;
    let network = super::network(desired)?;
    let mut text = super::head(source, HEAD)?;
    text += match conf {
        Conf::Beside => "conf=$(cd \"$(dirname \"$0\")\" && pwd)/conf\n\n",
        Conf::Inline => "conf=$PWD/conf\nmkdir -p \"$conf\"\n",
    };
    if conf == Conf::Inline {
        for (node, file) in conf_files(desired)? {
            // Quoted, so that the shell reads nothing in it; no properties file has a line `END-OF-FILE`.
            write_line(
                &mut text,
                &format!("cat >\"$conf\"/{} <<'END-OF-FILE'", quoted(file_name(node))),
            );
            text += &file;
            text += "END-OF-FILE\n";
        }
        text += "chmod 644 \"$conf\"/*\n\n";
    }
    write_line(
        &mut text,
        &format!(
            "docker network create --driver bridge --subnet {} --gateway {} {}",
            network.text,
            network.gateway,
            quoted(&desired.network)
        ),
    );
    for volume in super::volumes(desired) {
        write_line(
            &mut text,
            &format!("docker volume create {}", quoted(volume)),
        );
    }
    for node in &desired.nodes {
        text += "\n";
        write_line(&mut text, &run(source, node));
    }
    Ok(text)
}

fn write_line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes all that is written");
}

/// One node's line, broken where a reader looks for the next option.
fn run(source: Source<'_>, node: &Node) -> String {
    let desired = source.desired;
    let mut parts = vec![
        format!(
            "docker run -d --name {} --hostname {}",
            quoted(&node.container),
            quoted(&node.name)
        ),
        format!("--restart {}", super::restart(node)),
    ];
    let aliases: String = std::iter::once(&node.name)
        .chain(&node.aliases)
        .map(|alias| format!(" --network-alias {}", quoted(alias)))
        .collect();
    parts.push(format!("--network {}{aliases}", quoted(&desired.network)));
    let ports: Vec<String> = node
        .ports
        .iter()
        .filter_map(|port| {
            Some(format!(
                "-p {}:{}:{}",
                desired.bind, port.host?, port.container
            ))
        })
        .collect();
    if !ports.is_empty() {
        parts.push(ports.join(" "));
    }
    parts.push(
        "--read-only --cap-drop ALL --security-opt no-new-privileges:true --pids-limit 1024"
            .to_owned(),
    );
    parts.push(format!(
        "--stop-timeout {} --log-driver json-file --log-opt max-size=10m --log-opt max-file=3",
        desired.stop_timeout.as_secs()
    ));
    if let Some(bytes) = node.memory {
        parts.push(format!("--memory {bytes} --memory-swap {bytes}"));
    }
    parts.extend(node.nano_cpus.map(|nano| format!("--cpus {}", cores(nano))));
    parts.extend(
        node.env
            .iter()
            .map(|(key, value)| format!("-e {}", quoted(&format!("{key}={value}")))),
    );
    parts.extend(
        desired
            .labels
            .iter()
            .map(|(key, value)| format!("--label {}", quoted(&format!("{key}={value}")))),
    );
    if node.file.is_some() {
        parts.push(format!(
            "-v \"$conf\"/{}:{}:ro",
            quoted(file_name(node)),
            quoted(&conf_path(node))
        ));
    }
    parts.extend(
        node.volume
            .as_ref()
            .map(|volume| format!("-v {}:{}", quoted(volume), quoted(&store_path(node)))),
    );
    parts.extend(node.tmpfs.map(|bytes| {
        format!(
            "--tmpfs {}:{}",
            store_path(node),
            super::memory_options(bytes)
        )
    }));
    let command: Vec<String> = node.command.iter().map(|word| quoted(word)).collect();
    parts.push(format!("{} {}", quoted(source.engine), command.join(" ")));
    parts.join(" \\\n    ")
}
