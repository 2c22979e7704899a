//! What a plan must not do to stores: begin empty where a full one lies elsewhere, write where it may not, lose what is in memory.

use std::collections::BTreeMap;

use super::{NodeState, Observed, StoreFault};
use crate::error::{Error, Exit};
use crate::topology::{Desired, Node, Role, volume_words};

/// Directories that nodes which are to run cannot keep their stores in.
pub(super) fn refuse_faults(observed: &Observed, to_run: &[&Node]) -> Result<(), Error> {
    let faults: Vec<&StoreFault> = observed
        .store_faults
        .iter()
        .filter(|fault| to_run.iter().any(|node| node.name == fault.node))
        .collect();
    let Some(first) = faults.first() else {
        return Ok(());
    };
    let mut error = Error::new(
        "RMQ-E018",
        Exit::Conflict,
        format!(
            "{} cannot keep its store in {}",
            first.node,
            first.dir.display()
        ),
    );
    for fault in &faults {
        let (node, dir) = (&fault.node, fault.dir.display());
        error = error.detail(format!("{node}: {dir} {}", fault.why));
    }
    error = error.detail("nothing was changed");
    // One command for all that it mends.
    let mut mends: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (command, path) in faults.iter().filter_map(|fault| fault.mend.as_ref()) {
        let paths = mends.entry(command).or_default();
        let path = crate::topology::quoted_path(path);
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    for (command, paths) in mends {
        error = error.hint(format!("{command} {}", paths.join(" ")));
    }
    Err(error.hint("another directory: --data-dir PATH"))
}

/// Where a node's store lies, in words.
fn place(node: &Node) -> String {
    match (&node.volume, node.tmpfs) {
        (Some(volume), _) => volume_words(volume),
        (None, Some(_)) => "memory".to_owned(),
        (None, None) => "its container".to_owned(),
    }
}

/// A store that would lie elsewhere begins empty there: only where it was empty, or where the messages have been carried to the
/// new place already.
pub(super) fn refuse_other_place(
    desired: &Desired,
    previous: Option<&Desired>,
    observed: &Observed,
) -> Result<(), Error> {
    let mut lost: Vec<(&Node, String)> = Vec::new();
    for node in desired.nodes.iter().filter(|n| n.broker.is_some()) {
        let there = |volume: &String| observed.volumes.contains(volume);
        if node.volume.as_ref().is_some_and(there) || observed.empty.contains(&node.name) {
            continue;
        }
        let stands = observed.nodes.iter().any(|n| n.container == node.container);
        let before = previous.and_then(|p| p.nodes.iter().find(|n| n.name == node.name));
        let own = node.volume_name();
        match before {
            Some(before) if stands => {
                let was = (&before.volume, before.tmpfs.is_some());
                let moves = was != (&node.volume, node.tmpfs.is_some());
                lost.extend(moves.then(|| (node, place(before))));
            }
            // What an earlier cluster of the name left.
            _ if desired.ephemeral.is_none() && there(&own) => {
                lost.push((node, volume_words(&own)));
            }
            _ => {}
        }
    }
    let Some((first, _)) = lost.first() else {
        return Ok(());
    };
    let title = format!(
        "the stores of {} brokers would lie elsewhere, and begin empty",
        lost.len()
    );
    let mut error = Error::new("RMQ-E017", Exit::Conflict, title);
    for (node, before) in &lost {
        error = error.detail(format!("{}: {before} → {}", node.name, place(node)));
    }
    error = error
        .detail("what they hold would be read by nobody; nothing was changed")
        .hint("leave `storage` and --data-dir as they were");
    if let (Some(dir), Some(store)) = (first.data_dir(), &first.store_path) {
        error = error.hint(format!(
            "carry it over: {}, then {} for each broker, then this again",
            desired.suggest("stop"),
            desired.suggest(&format!(
                "cp {}:{} {}",
                first.name,
                store.display(),
                crate::topology::quoted_path(dir)
            ))
        ));
    }
    Err(error.hint(desired.suggest("down --volumes, then this again   gives the messages up")))
}

/// A master whose store is in memory must not stop: what it holds is gone, and its slaves hold more than it and cannot follow it.
pub fn refuse_memory_loss<'a>(
    desired: &Desired,
    to_stop: impl IntoIterator<Item = &'a Node>,
    observed: &Observed,
) -> Result<(), Error> {
    let held: Vec<&Node> = to_stop
        .into_iter()
        .filter(|node| node.role == Role::Master && node.tmpfs.is_some())
        .filter(|node| !observed.empty.contains(&node.name))
        .filter(|node| {
            let mut seen = observed.nodes.iter();
            // One that never ran holds nothing.
            seen.any(|n| n.container == node.container && n.state != NodeState::Exited(None))
        })
        .collect();
    if held.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = held.iter().map(|node| node.name.as_str()).collect();
    Err(Error::new(
        "RMQ-E019",
        Exit::Conflict,
        format!(
            "{} has its store in memory, and would begin empty",
            names.join(", ")
        ),
    )
    .detail("what a master holds in memory goes when it stops, and its slaves, which hold more than it then, cannot follow it")
    .detail("nothing was changed")
    .hint(desired.suggest("down, then up   begins anew, without the messages"))
    .hint("storage: {kind: volume}   (in a new cluster: stores that outlive their nodes)"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at_network, cluster, running};
    use super::super::{Kind, UpOptions, up};
    use super::*;
    use crate::spec::Storage;

    fn at(storage: Storage) -> Desired {
        let mut spec = cluster(1, 1);
        spec.storage = storage;
        at_network(&spec)
    }

    fn host() -> Storage {
        Storage::Host {
            path: "/srv/rmq".into(),
        }
    }

    #[test]
    fn a_cluster_with_messages_is_not_moved_to_another_kind_of_store() {
        let volumes = at(Storage::Volume);
        let seen = running(&volumes);
        for (kind, place) in [
            (host(), "directory /srv/rmq/rmqmaster1"),
            (Storage::Tmpfs { size: None }, "memory"),
        ] {
            let error = up(&at(kind), Some(&volumes), &seen, UpOptions::default()).unwrap_err();
            assert_eq!((error.id, error.exit), ("RMQ-E017", Exit::Conflict));
            let line = format!("rmqmaster1: volume rmqmaster1-store → {place}");
            assert!(error.details.contains(&line), "{error}");
        }
    }

    #[test]
    fn an_empty_cluster_is_moved_and_so_is_one_whose_messages_were_carried_over() {
        let (before, after) = (at(Storage::Volume), at(host()));
        let recreated = |seen: &Observed| {
            let plan = up(&after, Some(&before), seen, UpOptions::default()).unwrap();
            plan.named(Kind::Recreate).len()
        };
        let mut seen = running(&before);
        seen.empty = vec!["rmqmaster1".into(), "rmqslave1".into()];
        assert_eq!(recreated(&seen), 3, "both brokers and the name server");
        seen.empty.clear();
        let carried = ["/srv/rmq/rmqmaster1", "/srv/rmq/rmqslave1"];
        seen.volumes.extend(carried.map(String::from));
        assert_eq!(recreated(&seen), 3);
    }

    #[test]
    fn volumes_that_a_cluster_left_are_not_forgotten_for_a_new_directory() {
        let left = Observed {
            volumes: running(&at(Storage::Volume)).volumes,
            ..Observed::default()
        };
        let error = up(&at(host()), None, &left, UpOptions::default()).unwrap_err();
        assert_eq!(error.id, "RMQ-E017");
        up(&at(Storage::Volume), None, &left, UpOptions::default()).unwrap();
        up(
            &at(host()),
            None,
            &Observed::default(),
            UpOptions::default(),
        )
        .unwrap();
    }

    #[test]
    fn one_command_mends_all_directories_that_want_it() {
        let all = at(host());
        let fault = |node: &str| StoreFault {
            node: node.into(),
            dir: format!("/srv/rmq/{node}").into(),
            why: "is uid 0's".into(),
            mend: Some((
                "sudo chown -R 3000:3000".into(),
                format!("/srv/rmq/{node}").into(),
            )),
        };
        let seen = Observed {
            store_faults: vec![fault("rmqmaster1"), fault("rmqslave1")],
            ..Observed::default()
        };
        let error = up(&all, None, &seen, UpOptions::default()).unwrap_err();
        assert_eq!((error.id, error.exit), ("RMQ-E018", Exit::Conflict));
        assert_eq!(
            error.hints[0],
            "sudo chown -R 3000:3000 /srv/rmq/rmqmaster1 /srv/rmq/rmqslave1"
        );
        // Nodes that run are not troubled.
        let seen = Observed {
            store_faults: seen.store_faults,
            ..running(&all)
        };
        assert!(up(&all, Some(&all), &seen, UpOptions::default()).is_ok());
    }

    #[test]
    fn a_master_in_memory_is_not_stopped_while_it_holds_messages_and_slaves_are() {
        let before = at(Storage::Tmpfs { size: None });
        let mut spec = cluster(1, 1);
        spec.storage = Storage::Tmpfs { size: None };
        spec.properties
            .insert("fileReservedTime".into(), "72".into());
        let after = at_network(&spec);
        let mut seen = running(&before);
        let error = up(&after, Some(&before), &seen, UpOptions::default()).unwrap_err();
        assert_eq!((error.id, error.exit), ("RMQ-E019", Exit::Conflict));
        seen.empty = vec!["rmqmaster1".into()];
        up(&after, Some(&before), &seen, UpOptions::default()).unwrap();
        let nodes = |name: &'static str| before.nodes.iter().filter(move |n| n.name == name);
        let seen = running(&before);
        assert!(refuse_memory_loss(&before, nodes("rmqslave1"), &seen).is_ok());
        assert!(refuse_memory_loss(&before, nodes("rmqmaster1"), &seen).is_err());
    }
}
