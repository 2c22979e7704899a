//! Which containers are meant, and which nodes they become: by their names.

use super::launch::{Launch, launch};
use crate::error::{Error, Exit, nearest};
use crate::plan::{Phase, adopt};
use crate::runtime::stranger::Stranger;
use crate::topology::Role;

/// A container that is to become a node.
#[derive(Clone, Debug)]
pub struct Chosen<'a> {
    /// The node's name: `rmqmaster1`.
    pub node: String,
    pub role: Role,
    /// Its number: 1 of `rmqmaster1`.
    pub number: u32,
    /// What the container is called when nobody adopts it.
    pub old: String,
    pub phase: Phase,
    pub stranger: &'a Stranger,
    pub launch: Launch,
}

/// A container as somebody typed it: `rmqmaster1`, or `rmqbroker=rmqmaster1`.
struct Typed<'a> {
    container: &'a str,
    node: Option<&'a str>,
}

/// Role and number of a node's name.
fn node_name(name: &str) -> Option<(Role, u32)> {
    match name {
        "rmqnamesrv" => return Some((Role::Namesrv, 1)),
        "rmqconsole" => return Some((Role::Console, 1)),
        _ => {}
    }
    [Role::Namesrv, Role::Master, Role::Slave]
        .into_iter()
        .find_map(|role| {
            let number = role.number_of(name).filter(|n| *n >= 1)?;
            let is_plain = !name.ends_with(&format!("0{number}"));
            (is_plain && (role, number) != (Role::Namesrv, 1)).then_some((role, number))
        })
}

/// The node that a container's name means: its own, or that of an old recipe.
fn node_of(container: &str, prefix: &str) -> Option<String> {
    let bare = container.strip_prefix(prefix)?;
    match bare {
        "rmqserver" => Some("rmqnamesrv".to_owned()),
        "rmqbroker" => Some("rmqmaster1".to_owned()),
        bare => node_name(bare).map(|_| bare.to_owned()),
    }
}

/// What a container was called before anybody adopted it, and how far that has come.
fn origin(stranger: &Stranger) -> (&str, Phase) {
    let name = stranger.container.as_str();
    if let Some((old, _)) = adopt::of_aside(name) {
        (old, Phase::Aside)
    } else if let Some(old) = adopt::of_kept(name) {
        (old, Phase::Kept)
    } else {
        (name, Phase::InUse)
    }
}

/// Those that were typed, or all whose names are nodes' of this cluster and that look like RocketMQ. `prefix` is that of the cluster's
/// containers.
pub fn choose<'a>(
    typed: &[String],
    all: bool,
    prefix: &str,
    strangers: &'a [Stranger],
) -> Result<Vec<Chosen<'a>>, Error> {
    let mut chosen: Vec<Chosen<'a>> = Vec::new();
    if all {
        for stranger in strangers {
            let (old, phase) = origin(stranger);
            let aside = adopt::of_aside(&stranger.container)
                .and_then(|(_, container)| container.strip_prefix(prefix).map(str::to_owned));
            let Some(node) = aside.or_else(|| node_of(old, prefix)) else {
                continue;
            };
            let launch = launch(stranger);
            if launch.kind.is_some() {
                chosen.extend(made(node, old, phase, stranger, launch));
            }
        }
    }
    for word in typed {
        let typed = match word.split_once('=') {
            Some((container, node)) => Typed {
                container,
                node: Some(node),
            },
            None => Typed {
                container: word,
                node: None,
            },
        };
        let one = named(&typed, prefix, strangers)?;
        if chosen.iter().all(|c| c.old != one.old) {
            chosen.push(one);
        }
    }
    settle_doubles(&chosen)?;
    chosen.sort_by_key(|c| (c.role, c.number));
    Ok(chosen)
}

fn made<'a>(
    node: String,
    old: &str,
    phase: Phase,
    stranger: &'a Stranger,
    launch: Launch,
) -> Option<Chosen<'a>> {
    let (role, number) = node_name(&node)?;
    Some(Chosen {
        node,
        role,
        number,
        old: old.to_owned(),
        phase,
        stranger,
        launch,
    })
}

fn named<'a>(
    typed: &Typed<'_>,
    prefix: &str,
    strangers: &'a [Stranger],
) -> Result<Chosen<'a>, Error> {
    let wanted = [
        typed.container.to_owned(),
        format!("{prefix}{}", typed.container),
        format!("{prefix}rmq{}", typed.container),
    ];
    // In use before set aside before kept: what somebody made again counts.
    let found = wanted
        .iter()
        .flat_map(|name| strangers.iter().filter(move |s| origin(s).0 == name))
        .min_by_key(|s| match origin(s).1 {
            Phase::InUse => 0,
            Phase::Aside => 1,
            Phase::Kept => 2,
        });
    let Some(stranger) = found else {
        return Err(nothing(typed.container, prefix, strangers));
    };
    let (old, phase) = origin(stranger);
    let full = |node: &str| match node.starts_with("rmq") {
        true => node.to_owned(),
        false => format!("rmq{node}"),
    };
    let node = match typed.node {
        Some(node) => Some(full(node)),
        None => node_of(old, prefix).or_else(|| node_of(old, "")),
    };
    let made = node.and_then(|node| made(node, old, phase, stranger, launch(stranger)));
    made.ok_or_else(|| {
        Error::new(
            "RMQ-E026",
            Exit::Usage,
            format!("which node is {} to become?", typed.container),
        )
        .detail("nodes are rmqnamesrv, rmqmaster1, rmqslave1, rmqconsole and so on")
        .hint(format!("rmqctl adopt {}=rmqmaster1", typed.container))
    })
}

fn nothing(typed: &str, prefix: &str, strangers: &[Stranger]) -> Error {
    let names: Vec<&str> = strangers
        .iter()
        .map(|s| origin(s).0)
        .filter(|name| node_of(name, prefix).is_some())
        .filter_map(|name| name.strip_prefix(prefix))
        .collect();
    let error = Error::new(
        "RMQ-E026",
        Exit::Usage,
        format!("no container {typed} was made by hand"),
    );
    match (nearest(typed, names.iter().copied()), names.is_empty()) {
        (Some(near), _) => error.hint(format!("did you mean `{near}`?")),
        (None, true) => {
            error.detail("no container here has the name of a node and is not rmqctl's")
        }
        (None, false) => error.detail(format!("there are: {}", names.join(", "))),
    }
}

/// One container a node. Beside one that is in use, what an earlier adoption kept must not lose its name.
fn settle_doubles(chosen: &[Chosen<'_>]) -> Result<(), Error> {
    let current = |c: &Chosen<'_>| c.phase != Phase::Kept;
    for at in 0..chosen.len() {
        let one = &chosen[at];
        let other = chosen[at + 1..].iter().find(|other| other.node == one.node);
        let Some(other) = other else { continue };
        let title = match (current(one), current(other)) {
            (true, true) => format!(
                "{} and {} would both become {}",
                one.stranger.container, other.stranger.container, one.node
            ),
            _ => format!(
                "{} is there from an earlier adoption, and would lose its name",
                adopt::kept_name(&one.old)
            ),
        };
        return Err(Error::new("RMQ-E025", Exit::Conflict, title)
            .detail("nothing was changed")
            .hint("CONTAINER=NODE says which becomes which")
            .hint("docker rm or docker rename the one that is not wanted"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(names: &[&str]) -> Vec<Stranger> {
        names
            .iter()
            .map(|name| Stranger {
                container: (*name).to_owned(),
                command: vec!["mqbroker".into()],
                ..Stranger::default()
            })
            .collect()
    }

    fn shown(chosen: Result<Vec<Chosen<'_>>, Error>) -> Vec<String> {
        let line = |c: &Chosen<'_>| format!("{} {} {:?}", c.old, c.node, c.phase);
        chosen.unwrap().iter().map(line).collect()
    }

    #[test]
    fn all_are_those_with_names_of_this_clusters_nodes() {
        let there = containers(&[
            "rmqslave1",
            "rmqmaster1",
            "rmqmaster",
            "rmqmaster01",
            "x-rmqmaster2",
            "rmqserver",
            "web",
        ]);
        assert_eq!(
            shown(choose(&[], true, "", &there)),
            [
                "rmqserver rmqnamesrv InUse",
                "rmqmaster1 rmqmaster1 InUse",
                "rmqslave1 rmqslave1 InUse"
            ]
        );
        assert_eq!(
            shown(choose(&[], true, "x-", &there)),
            ["x-rmqmaster2 rmqmaster2 InUse"]
        );
    }

    #[test]
    fn one_is_named_with_or_without_its_node_whatever_an_earlier_run_called_it() {
        let there = containers(&[
            "rmqmaster1-adopting",
            "mq-adopting-as-rmqslave1",
            "rmqconsole-before-adopt",
            "old",
        ]);
        let typed = |word: &str| choose(&[word.to_owned()], false, "", &there);
        assert_eq!(shown(typed("master1")), ["rmqmaster1 rmqmaster1 Aside"]);
        assert_eq!(shown(typed("rmqconsole")), ["rmqconsole rmqconsole Kept"]);
        assert_eq!(shown(typed("old=slave2")), ["old rmqslave2 InUse"]);
        assert_eq!(typed("old").unwrap_err().id, "RMQ-E026");
        let error = typed("rmqmastr1").unwrap_err();
        assert!(
            error.to_string().contains("did you mean `rmqmaster1`"),
            "{error}"
        );
        assert_eq!(
            shown(choose(&[], true, "", &there)),
            [
                "rmqmaster1 rmqmaster1 Aside",
                "mq rmqslave1 Aside",
                "rmqconsole rmqconsole Kept"
            ]
        );
    }

    #[test]
    fn two_containers_cannot_become_one_node() {
        let there = containers(&["rmqserver", "rmqnamesrv"]);
        assert_eq!(choose(&[], true, "", &there).unwrap_err().id, "RMQ-E025");
        let there = containers(&["rmqmaster1", "rmqmaster1-before-adopt"]);
        let error = choose(&[], true, "", &there).unwrap_err();
        assert!(error.title.contains("would lose its name"), "{error}");
    }
}
