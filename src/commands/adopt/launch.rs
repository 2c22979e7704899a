//! What a container made by hand starts, read from its command line and from those of its processes.

use std::path::{Component, Path, PathBuf};

use crate::runtime::stranger::Stranger;
use crate::topology::Role;

/// What kind of node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name server.
    Namesrv,
    /// A master or slave; its properties say which.
    Broker,
    /// A web console of any make.
    Console,
}

impl Kind {
    /// Whether a node of this role may come of it.
    pub fn fits(self, role: Role) -> bool {
        match self {
            Kind::Namesrv => role == Role::Namesrv,
            Kind::Broker => matches!(role, Role::Master | Role::Slave),
            Kind::Console => role == Role::Console,
        }
    }

    /// In a sentence.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Namesrv => "a name server",
            Kind::Broker => "a broker",
            Kind::Console => "a console",
        }
    }
}

/// How a container was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// `None`: nothing in it looks like RocketMQ.
    pub kind: Option<Kind>,
    /// Whether it runs this project's engine, whose defaults differ from Java's in a broker's name.
    pub is_ours: bool,
    /// Path of its properties file.
    pub file: Option<String>,
    /// `user.home` as its command line gives it.
    pub home: Option<String>,
}

/// Reads how a container was started. What its processes say counts more: a script of its image may have added to the command.
pub fn launch(stranger: &Stranger) -> Launch {
    let processes = stranger
        .processes
        .iter()
        .map(|line| words(std::slice::from_ref(line), stranger));
    let mut found = Launch::default();
    for line in processes.chain([words(&stranger.command, stranger)]) {
        let Some((kind, at, is_ours)) = start_of(&line) else {
            continue;
        };
        found.kind = found.kind.or(Some(kind));
        found.is_ours |= is_ours;
        if found.file.is_none() {
            found.file = file_of(&line[at..]).map(|file| absolute(&file, stranger));
        }
        if found.home.is_none() {
            let homes = line.iter().find_map(|w| w.strip_prefix("-Duser.home="));
            found.home = homes.map(str::to_owned);
        }
    }
    if found.kind.is_none() {
        found.kind = by_image(&stranger.image);
    }
    found
}

/// Words of a command line, those of a shell's string as well, with the container's variables filled in.
fn words(arguments: &[String], stranger: &Stranger) -> Vec<String> {
    arguments
        .iter()
        .flat_map(|argument| argument.split_whitespace())
        .map(|word| filled(word.trim_matches(['"', '\'', ';', '&']), stranger))
        .filter(|word| !word.is_empty())
        .collect()
}

/// `$ROCKETMQ_HOME/conf` and `${ROCKETMQ_HOME}/conf`, as a shell reads them.
fn filled(word: &str, stranger: &Stranger) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        text += before;
        let (name, left) = match after.strip_prefix('{').and_then(|a| a.split_once('}')) {
            Some(pair) => pair,
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        text += stranger.env.get(name).map_or("", String::as_str);
        rest = left;
    }
    text + rest
}

/// Which word starts what, and whether it is our engine.
fn start_of(line: &[String]) -> Option<(Kind, usize, bool)> {
    for (at, word) in line.iter().enumerate() {
        let name = word.rsplit('/').next().unwrap_or(word);
        let kind = match name {
            "mqbroker" => Some((Kind::Broker, false)),
            "mqnamesrv" => Some((Kind::Namesrv, false)),
            "engine" => match line.get(at + 1).map(String::as_str) {
                Some("broker") => Some((Kind::Broker, true)),
                Some("namesrv") => Some((Kind::Namesrv, true)),
                Some("console") => Some((Kind::Console, true)),
                _ => None,
            },
            name if name.ends_with(".BrokerStartup") => Some((Kind::Broker, false)),
            name if name.ends_with(".NamesrvStartup") => Some((Kind::Namesrv, false)),
            name if is_console(name) && name.ends_with(".jar") => Some((Kind::Console, false)),
            _ => None,
        };
        if let Some((kind, is_ours)) = kind {
            return Some((kind, at, is_ours));
        }
    }
    None
}

fn is_console(name: &str) -> bool {
    name.contains("rocketmq-console") || name.contains("rocketmq-dashboard")
}

/// Images whose entry point says nothing: `foxiswho/rocketmq:broker`, `styletang/rocketmq-console-ng`.
fn by_image(image: &str) -> Option<Kind> {
    let has = |word: &str| image.contains(word);
    if !has("rocketmq") {
        return None;
    }
    if is_console(image) || has("console") || has("dashboard") {
        return Some(Kind::Console);
    }
    if has("broker") {
        return Some(Kind::Broker);
    }
    (has(":server") || has("namesrv")).then_some(Kind::Namesrv)
}

/// What stands after `-c`, where that is a path: a shell's `-c` has a command.
fn file_of(line: &[String]) -> Option<String> {
    let mut pairs = line.windows(2);
    pairs
        .find(|pair| matches!(pair[0].as_str(), "-c" | "--configFile") && !pair[1].starts_with('-'))
        .map(|pair| pair[1].clone())
}

/// The path as it is from the container's root, without `..`.
fn absolute(path: &str, stranger: &Stranger) -> String {
    let start = match stranger.working_dir.as_str() {
        "" => "/",
        dir => dir,
    };
    let mut whole = PathBuf::new();
    for part in Path::new(start).join(path).components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            part => whole.push(part),
        }
    }
    whole.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(command: &[&str], processes: &[&str]) -> Stranger {
        Stranger {
            command: command.iter().map(|w| (*w).to_owned()).collect(),
            processes: processes.iter().map(|w| (*w).to_owned()).collect(),
            env: [("ROCKETMQ_HOME".to_owned(), "/home/r".to_owned())].into(),
            working_dir: "/home/r/bin".into(),
            ..Stranger::default()
        }
    }

    #[track_caller]
    fn check(stranger: &Stranger, kind: Option<Kind>, file: Option<&str>) {
        let found = launch(stranger);
        assert_eq!((found.kind, found.file.as_deref()), (kind, file));
    }

    #[test]
    fn recipes_as_people_copy_them_are_read() {
        let broker = Some(Kind::Broker);
        check(
            &container(
                &[
                    "sh",
                    "mqbroker",
                    "-n",
                    "namesrv:9876",
                    "-c",
                    "../conf/broker.conf",
                ],
                &[],
            ),
            broker,
            Some("/home/r/conf/broker.conf"),
        );
        check(
            &container(
                &[
                    "/bin/sh",
                    "-c",
                    "cd $ROCKETMQ_HOME/bin && sh mqbroker -c ${ROCKETMQ_HOME}/conf/2m/a.properties",
                ],
                &[],
            ),
            broker,
            Some("/home/r/conf/2m/a.properties"),
        );
        check(
            &container(
                &["sh", "-c", "sh mqbroker autoCreateTopicEnable=true &"],
                &[],
            ),
            broker,
            None,
        );
        check(
            &container(&["sh", "mqnamesrv"], &[]),
            Some(Kind::Namesrv),
            None,
        );
        check(
            &container(&["nginx", "-c", "/etc/nginx.conf"], &[]),
            None,
            None,
        );
    }

    #[test]
    fn processes_say_what_a_script_of_the_image_made_of_it() {
        let java = "/opt/java/bin/java -Xmx1g -Duser.home=/data -cp .:/x/lib/* org.apache.rocketmq.broker.BrokerStartup -c /etc/rocketmq/broker.conf";
        let found = launch(&container(
            &["./entrypoint.sh"],
            &["sh ./entrypoint.sh", java],
        ));
        assert_eq!(found.kind, Some(Kind::Broker));
        assert_eq!(found.file.as_deref(), Some("/etc/rocketmq/broker.conf"));
        assert_eq!(found.home.as_deref(), Some("/data"));
        assert!(!found.is_ours);
        let found = launch(&container(
            &["/rmqctl", "engine", "broker", "-c", "/etc/rmq/a"],
            &[],
        ));
        assert!(found.is_ours && found.kind == Some(Kind::Broker));
    }

    #[test]
    fn an_image_says_it_where_nothing_else_does() {
        let of = |image: &str| {
            launch(&Stranger {
                image: image.into(),
                command: vec!["./run.sh".into()],
                ..Stranger::default()
            })
            .kind
        };
        assert_eq!(of("foxiswho/rocketmq:broker-4.7.0"), Some(Kind::Broker));
        assert_eq!(of("foxiswho/rocketmq:server-4.7.0"), Some(Kind::Namesrv));
        assert_eq!(of("styletang/rocketmq-console-ng"), Some(Kind::Console));
        assert_eq!(of("redis:7"), None);
    }
}
