//! Every error id: what it stands for, why it happens and what helps. `rmqctl explain` prints it; a test holds it and the
//! sources together.

use super::Exit;

/// One id.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `RMQ-E021`.
    pub id: &'static str,
    /// What kind of failure it is.
    pub title: &'static str,
    /// Why it happens.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Exit codes that it may have.
    #[serde(serialize_with = "codes")]
    pub exits: &'static [Exit],
}

fn codes<S: serde::Serializer>(exits: &&[Exit], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(exits.iter().map(|exit| *exit as u8))
}

/// All of them, by number: 0xx while the cluster is worked on, 1xx what was said or is kept, 2xx inside a node,
/// 3xx what is asked of a running cluster.
#[rustfmt::skip]
pub const CATALOGUE: &[Entry] = &[
    Entry { id: "RMQ-E001", title: "the system refused something", exits: &[Exit::Failed],
        cause: "A call of the operating system or of the Docker daemon failed; the lines below the error have its own words.",
        remedy: "Mend what they name (a full disk, a missing permission), then give the same command again: it goes on where it stopped." },
    Entry { id: "RMQ-E002", title: "no Docker daemon", exits: &[Exit::Daemon],
        cause: "Nothing answers at the socket, or this user may not open it.",
        remedy: "Start Docker, or join the group `docker`; --runtime process needs no daemon." },
    Entry { id: "RMQ-E003", title: "the Docker daemon is too old", exits: &[Exit::Daemon],
        cause: "It speaks an API older than 1.41 (Docker 20.10).",
        remedy: "Upgrade Docker, or use --runtime process." },
    Entry { id: "RMQ-E004", title: "the engine's image cannot be made", exits: &[Exit::Failed],
        cause: "The image holds the running binary, which must be a static Linux one of the daemon's architecture.",
        remedy: "Use a release build for that architecture, or build broker-engine/Dockerfile." },
    Entry { id: "RMQ-E005", title: "this runtime cannot do that", exits: &[Exit::Usage],
        cause: "The command needs something that only another runtime has, as a network to cut a node off from.",
        remedy: "Use the other runtime, or a command that the message names." },
    Entry { id: "RMQ-E006", title: "an image is not there", exits: &[Exit::Failed],
        cause: "Apache's engine, or the image that --image names, is not on this daemon, and it could not pull it; its own words are in the message.",
        remedy: "docker pull the image, or docker load it from a file where there is no registry; --engine bundled --image bundled needs none." },
    Entry { id: "RMQ-E007", title: "an image is not one of rmqctl's engine", exits: &[Exit::Spec],
        cause: "--image and engine.image name an image that rmqctl made (rmqctl image load or save, then tagged or pushed); this one lacks its labels, or is for another architecture.",
        remedy: "Make one with rmqctl image save on a machine of the daemon's architecture; an image laid out as Apache's is engine: {kind: apache, image: …}." },
    Entry { id: "RMQ-E014", title: "a name is someone else's", exits: &[Exit::Conflict],
        cause: "A container, network or volume of that name lacks this cluster's labels; it was left alone.",
        remedy: "Remove or rename it, or raise the cluster under another name: rmqctl --name NAME up." },
    Entry { id: "RMQ-E015", title: "the network has another subnet", exits: &[Exit::Conflict],
        cause: "A network's subnet cannot change while it exists.",
        remedy: "rmqctl down, then up with the new subnet; the volumes with the messages stay." },
    Entry { id: "RMQ-E016", title: "a broker's volume is another broker's", exits: &[Exit::Conflict],
        cause: "A slave whose master is gone may hold the only copy of that master's log; it would become another master's slave.",
        remedy: "Bring the master back, or remove the node and its volume if its messages are not wanted." },
    Entry { id: "RMQ-E017", title: "stores would lie elsewhere and begin empty", exits: &[Exit::Conflict],
        cause: "The storage that is asked for is another than that which holds the cluster's messages; nothing moves them by itself.",
        remedy: "Leave storage as it was; or stop the cluster, rmqctl cp each broker's store to its new directory, and give the command again; or rmqctl down --volumes first." },
    Entry { id: "RMQ-E018", title: "a directory cannot hold a store", exits: &[Exit::Conflict],
        cause: "The directory of a node below --data-dir is another user's, read-only, full, or holds something else; the engine could not write it.",
        remedy: "Give the command that the message shows (chown or install -d), or name another directory." },
    Entry { id: "RMQ-E019", title: "a store in memory would be lost", exits: &[Exit::Conflict],
        cause: "With storage tmpfs a node's messages go when it stops; slaves that hold more than their master cannot follow it afterwards.",
        remedy: "rmqctl down, then up, when the messages are not wanted; or raise the cluster with volumes." },
    Entry { id: "RMQ-E021", title: "a host port is taken", exits: &[Exit::Conflict],
        cause: "Another program or container listens on a port that a node must publish; the message says who, where it can.",
        remedy: "Stop it, or move the whole cluster: rmqctl up --port-offset 100." },
    Entry { id: "RMQ-E022", title: "an engine is too old for the stores", exits: &[Exit::Conflict],
        cause: "Nodes run an engine that writes files which the engine of the named image cannot open.",
        remedy: "Name an image that is as new, or raise a new cluster with the old one." },
    Entry { id: "RMQ-E023", title: "an adoption has not ended", exits: &[Exit::Conflict],
        cause: "rmqctl adopt was killed while it copied the store of a container made by hand; the messages are in that container.",
        remedy: "rmqctl adopt --all goes on; rmqctl adopt --all --undo puts the old containers back." },
    Entry { id: "RMQ-E024", title: "two stores for one node", exits: &[Exit::Conflict],
        cause: "A container to be adopted has a store, and the volume of its node is there already with another.",
        remedy: "Remove the volume that is not wanted, or adopt into a cluster of another name: rmqctl --name NAME adopt." },
    Entry { id: "RMQ-E025", title: "a container cannot become that node", exits: &[Exit::Conflict],
        cause: "Its broker's name or id is not the node's, its store is not found or not of a kind that the engine reads, or it is no RocketMQ node.",
        remedy: "The message says which, and what to say: CONTAINER=NODE, --rename, --store NODE=PATH." },
    Entry { id: "RMQ-E026", title: "nothing of that name to adopt", exits: &[Exit::Usage],
        cause: "No container of that name was made by hand, or its name does not say which node it is.",
        remedy: "rmqctl adopt --all --dry-run shows those there are; CONTAINER=NODE names the node." },
    Entry { id: "RMQ-E031", title: "brokers cannot be reached where clients are sent", exits: &[Exit::NotReady],
        cause: "An address that the name server hands out was dialled and did not answer.",
        remedy: "Check --advertise and firewalls; rmqctl logs shows what the node says." },
    Entry { id: "RMQ-E041", title: "not ready in time", exits: &[Exit::NotReady],
        cause: "Nodes run, but are not registered or in sync yet; the message names each with its reason.",
        remedy: "Give it longer (--timeout 3m, rmqctl wait), or see why with rmqctl status and rmqctl logs." },
    Entry { id: "RMQ-E042", title: "a node ended while it was waited for", exits: &[Exit::NotReady],
        cause: "Its last log lines are in the message: a wrong property, a port taken meanwhile, a damaged store.",
        remedy: "Mend what they say, then give the same command again." },
    Entry { id: "RMQ-E043", title: "a topic has no route in time", exits: &[Exit::NotReady],
        cause: "No master that may be written to has registered the topic with every name server.",
        remedy: "Make the topic, or send to it once; rmqctl wait --topic TOPIC waits again." },
    Entry { id: "RMQ-E045", title: "no message comes back through a master", exits: &[Exit::NotReady],
        cause: "--wait-for roundtrip sent a message to the topic that each broker has under its own name, and pulled it again.",
        remedy: "See why with rmqctl logs; a send that waits for slaves needs one in sync." },
    Entry { id: "RMQ-E046", title: "topics of the spec could not be made", exits: &[Exit::NotReady],
        cause: "The cluster is up, and a master did not take a topic that cluster.yaml or --topic names.",
        remedy: "Give the same command again: it makes those that are missing." },
    Entry { id: "RMQ-E050", title: "partly done", exits: &[Exit::Partial],
        cause: "One step failed; what was done before stays, what was to come was not begun.",
        remedy: "Give the same command again: it goes on from what there is. The message also names the command that takes it back." },
    Entry { id: "RMQ-E051", title: "stopped by a signal", exits: &[Exit::Interrupted, Exit::Terminated],
        cause: "Ctrl-C or SIGTERM; calls in flight were finished, nothing new was begun.",
        remedy: "Give the same command again: it goes on from what there is." },
    Entry { id: "RMQ-E060", title: "messages that nobody reads would be lost", exits: &[Exit::Conflict],
        cause: "The node to be removed holds messages of topics that no group reads; waiting would not change that.",
        remedy: "Read them with a group or delete the topic, then scale again." },
    Entry { id: "RMQ-E061", title: "a node is not drained in time", exits: &[Exit::Degraded],
        cause: "Groups have not read what the node holds, or its slave has not got it; the message has the numbers.",
        remedy: "Let the groups read on, and give it longer: --timeout 10m." },
    Entry { id: "RMQ-E062", title: "this node cannot be removed", exits: &[Exit::Usage],
        cause: "scale rm takes one broker, the last of its kind, so that no other node changes its name or port.",
        remedy: "rmqctl scale --masters N --slaves N takes several at once." },
    Entry { id: "RMQ-E063", title: "brokers could not be opened for sends again", exits: &[Exit::Failed],
        cause: "They were closed to be drained, and did not answer when that was taken back.",
        remedy: "rmqctl up opens them again." },
    Entry { id: "RMQ-E064", title: "scale to what", exits: &[Exit::Usage],
        cause: "Neither counts nor a node were given.",
        remedy: "rmqctl scale --masters 3 --slaves 3, or rmqctl scale rm NODE." },
    Entry { id: "RMQ-E070", title: "a cluster of that name is to stay", exits: &[Exit::Conflict],
        cause: "up --rm and run make clusters that end with all their messages; one of this name stands, or left messages.",
        remedy: "Use another name, or take the old one away first: rmqctl down --volumes." },
    Entry { id: "RMQ-E071", title: "no free port offset", exits: &[Exit::Conflict],
        cause: "Every offset that was tried is held by other programs, or by other rmqctl that raise clusters right now.",
        remedy: "End clusters that are no longer used (rmqctl ls, rmqctl prune), or say --port-offset N." },
    Entry { id: "RMQ-E072", title: "the command of a run cannot be run", exits: &[Exit::Failed],
        cause: "The program after -- is not there or not executable, or could not be waited for.",
        remedy: "Check its name and PATH; the exit code is 127 or 126, as a shell's." },
    Entry { id: "RMQ-E073", title: "a run's cluster is there already", exits: &[Exit::Conflict],
        cause: "rmqctl run makes a cluster of its own, and one of the name that was given stands; nothing was changed.",
        remedy: "Leave --name away and unset RMQCTL_NAME, or take the old one away with rmqctl down." },
    Entry { id: "RMQ-E074", title: "nobody is there to be asked", exits: &[Exit::Usage],
        cause: "The command asks before it removes things, and its input is no terminal; nothing was removed.",
        remedy: "Say it beforehand: --yes." },
    Entry { id: "RMQ-E075", title: "a stopped node would be gone", exits: &[Exit::Conflict],
        cause: "The cluster was raised with --rm, and Docker removes a node of it that stops, with its messages.",
        remedy: "Take the whole cluster away with rmqctl down, or raise one without --rm." },
    Entry { id: "RMQ-E082", title: "one node is wanted", exits: &[Exit::Usage],
        cause: "The command works on one node, and what was typed names several, as a group does.",
        remedy: "Name one of them, as broker-a:0." },
    Entry { id: "RMQ-E083", title: "nothing to copy between", exits: &[Exit::Usage],
        cause: "cp copies between this host and one node, and just one side may name a node.",
        remedy: "rmqctl cp rmqmaster1:PATH . or rmqctl cp FILE rmqmaster1:PATH." },
    Entry { id: "RMQ-E084", title: "a file cannot be copied", exits: &[Exit::Failed],
        cause: "It is not there, may not be read or written, or the node does not exist.",
        remedy: "Check the path; in a container only /etc/rmq and the store may be written." },
    Entry { id: "RMQ-E085", title: "a report cannot be written", exits: &[Exit::Failed],
        cause: "The directory of rmqctl dump is not empty, its file is there already, or the disk refuses.",
        remedy: "Name a new directory, or a file that ends with .tar.gz; nothing is overwritten." },
    Entry { id: "RMQ-E086", title: "nothing to cut between", exits: &[Exit::Usage],
        cause: "chaos partition A B cuts nodes off from each other, and both names mean the same node.",
        remedy: "Name two that differ, as broker-a:1 broker-a:0, or one node to take it off the network." },
    Entry { id: "RMQ-E101", title: "the cluster file cannot be read", exits: &[Exit::Spec],
        cause: "It is not there, may not be read, or is larger than 1 MiB.",
        remedy: "rmqctl init writes a starter cluster.yaml." },
    Entry { id: "RMQ-E102", title: "the cluster file says something wrong", exits: &[Exit::Spec],
        cause: "An unknown key, or a value that its key does not take; the message shows the line.",
        remedy: "Take the suggested key or value; rmqctl schema has all of them, and editors check against it." },
    Entry { id: "RMQ-E103", title: "a property is wrong", exits: &[Exit::Spec],
        cause: "The engine does not know it, does not take its value, or the topology decides it.",
        remedy: "Take the suggested one; rmqctl config lint shows every such line of a file at once." },
    Entry { id: "RMQ-E104", title: "the cluster asked for cannot be", exits: &[Exit::Spec, Exit::Usage],
        cause: "A count, name, address or limit is outside what is possible, or two of them contradict each other.",
        remedy: "Change the one that the message names." },
    Entry { id: "RMQ-E105", title: "ports do not fit", exits: &[Exit::Spec],
        cause: "Two nodes would have the same port, or one would be above 65535.",
        remedy: "Fewer brokers, a smaller --port-offset, or other nodes.NODE.ports.main in cluster.yaml." },
    Entry { id: "RMQ-E106", title: "the kept spec cannot be read", exits: &[Exit::Spec],
        cause: "The cluster was raised by another version of rmqctl.",
        remedy: "rmqctl up -f cluster.yaml writes it anew." },
    Entry { id: "RMQ-E107", title: "Apache's engine cannot run there", exits: &[Exit::Spec],
        cause: "Apache's images need Docker, and know nothing of clusters that end by themselves.",
        remedy: "--runtime docker without --rm, or --engine bundled." },
    Entry { id: "RMQ-E108", title: "stores cannot lie there", exits: &[Exit::Spec],
        cause: "Plain processes have no tmpfs, and a data directory must not hold rmqctl's own files or the generated ones.",
        remedy: "Take another directory, as --data-dir ./rmq/data, or --runtime docker." },
    Entry { id: "RMQ-E110", title: "there is no such cluster", exits: &[Exit::Failed],
        cause: "No cluster of this name was raised in this runtime.",
        remedy: "rmqctl ls names those there are; --name and --runtime choose." },
    Entry { id: "RMQ-E111", title: "there is nothing of that name", exits: &[Exit::Spec],
        cause: "A node, broker or other name was typed that does not exist; the message lists those that do.",
        remedy: "Take the suggested one." },
    Entry { id: "RMQ-E120", title: "the cluster cannot be locked", exits: &[Exit::Failed],
        cause: "The lock file below $XDG_RUNTIME_DIR cannot be made.",
        remedy: "Make that directory writable, or set XDG_RUNTIME_DIR." },
    Entry { id: "RMQ-E130", title: "a file cannot be read or written", exits: &[Exit::Failed],
        cause: "The directory is missing or not yours, the disk is full, or the file is there already.",
        remedy: "Name another place: --conf-dir DIR, or the command's own argument." },
    Entry { id: "RMQ-E140", title: "there is nothing to lint", exits: &[Exit::Spec],
        cause: "No file was named and the directory of the cluster's properties files has none.",
        remedy: "rmqctl config lint FILE, or rmqctl config render writes the files first." },
    Entry { id: "RMQ-E141", title: "pull would overwrite an edited file", exits: &[Exit::Conflict],
        cause: "The directory has a file of that name with other values; nothing was written.",
        remedy: "Pull into another directory, or say --force." },
    Entry { id: "RMQ-E142", title: "a running node did not take its new values", exits: &[Exit::Partial],
        cause: "The file has them, but the node could not be told over the wire or says something else.",
        remedy: "rmqctl restart NODE applies the file; rmqctl config diff shows what differs." },
    Entry { id: "RMQ-E143", title: "the files have errors", exits: &[Exit::Spec],
        cause: "Files to be pushed were checked first, and at least one would not work; nothing was changed.",
        remedy: "Mend the lines that are listed, then push again." },
    Entry { id: "RMQ-E160", title: "a stack cannot be one text", exits: &[Exit::Usage],
        cause: "docker stack deploy reads the properties files, as configs, from beside the stack's file.",
        remedy: "Name a directory: rmqctl export stack DIR." },
    Entry { id: "RMQ-E161", title: "a word that Kubernetes refuses", exits: &[Exit::Usage],
        cause: "A namespace is small letters, digits and `-`; a size is a number with a unit such as Gi.",
        remedy: "rmqctl export k8s --namespace rocketmq --storage 20Gi." },
    Entry { id: "RMQ-E162", title: "a file is not of rmqctl export", exits: &[Exit::Conflict],
        cause: "A file of that name stands in the directory, and does not begin as an export does: it may be yours.",
        remedy: "Name another directory, or overwrite it with --force." },
    Entry { id: "RMQ-E163", title: "an image is in use", exits: &[Exit::Conflict],
        cause: "Containers, running or not, were made from it.",
        remedy: "rmqctl down removes a cluster's containers; then the image may go." },
    Entry { id: "RMQ-E164", title: "exports run the bundled engine", exits: &[Exit::Spec],
        cause: "Fresh volumes of Apache's image belong to root, which only `up` mends.",
        remedy: "--engine bundled, or raise the cluster with rmqctl up." },
    Entry { id: "RMQ-E200", title: "the engine ended", exits: &[Exit::Failed],
        cause: "A node's own process could not start or go on; the message is its last word.",
        remedy: "Mend what it names; rmqctl restart starts it again." },
    Entry { id: "RMQ-E201", title: "a node is not healthy", exits: &[Exit::Failed],
        cause: "The node did not answer its own health check in time.",
        remedy: "rmqctl status and rmqctl logs NODE say more." },
    Entry { id: "RMQ-E202", title: "a node did not take an order", exits: &[Exit::Failed],
        cause: "chaos partition tells a node which peer to drop; it does not answer, or the request came from another machine.",
        remedy: "rmqctl why NODE says whether it runs; only rmqctl exec, or a program beside the node, may give the order." },
    Entry { id: "RMQ-E301", title: "a node gave no answer", exits: &[Exit::Failed],
        cause: "Its address was dialled and refused, timed out, or closed the connection.",
        remedy: "rmqctl status and rmqctl logs NODE say why." },
    Entry { id: "RMQ-E302", title: "a node refused a request", exits: &[Exit::Failed],
        cause: "It answered with an error code of RocketMQ's; the message has its name and its words.",
        remedy: "Mend what they name; SYSTEM_BUSY passes by itself." },
    Entry { id: "RMQ-E303", title: "a node's answer cannot be read", exits: &[Exit::Failed],
        cause: "What listens there is no RocketMQ node, or one of a version that answers in another form.",
        remedy: "Check the address, and the engine's version with rmqctl status." },
    Entry { id: "RMQ-E310", title: "there is no such topic", exits: &[Exit::Failed],
        cause: "No master has registered a topic of this name.",
        remedy: "rmqctl topic list names them; rmqctl topic create makes one." },
    Entry { id: "RMQ-E311", title: "this cannot be a topic", exits: &[Exit::Usage],
        cause: "A name is too long or has characters that RocketMQ does not take.",
        remedy: "Letters, digits, and any of % | - _ are taken." },
    Entry { id: "RMQ-E312", title: "no master to make the topic on", exits: &[Exit::Failed],
        cause: "No master is registered with the name server.",
        remedy: "rmqctl status shows why." },
    Entry { id: "RMQ-E313", title: "the topic is RocketMQ's own", exits: &[Exit::Usage],
        cause: "Brokers need it for their own work; it was left alone.",
        remedy: "Name a topic of your own." },
    Entry { id: "RMQ-E320", title: "there is no such group", exits: &[Exit::Failed],
        cause: "No broker knows a consumer group of this name.",
        remedy: "rmqctl group list names them." },
    Entry { id: "RMQ-E321", title: "the group has no offset", exits: &[Exit::Usage],
        cause: "It has consumed nothing yet, so there is nothing to move.",
        remedy: "Say which topic: --topic TOPIC." },
    Entry { id: "RMQ-E330", title: "standard input cannot be the body", exits: &[Exit::Usage],
        cause: "It could not be read, or holds more than a message may.",
        remedy: "Give a smaller body, or raise maxMessageSize with rmqctl config set." },
    Entry { id: "RMQ-E331", title: "no broker takes messages of the topic", exits: &[Exit::Failed],
        cause: "Its masters are away, or it may not be written to.",
        remedy: "rmqctl topic describe TOPIC and rmqctl status say which." },
    Entry { id: "RMQ-E332", title: "the topic has no such queue", exits: &[Exit::Usage],
        cause: "The queue named is not one of those that can be written.",
        remedy: "Take one that the message lists, or none." },
    Entry { id: "RMQ-E333", title: "a filter names no tag", exits: &[Exit::Usage],
        cause: "It is empty between its separators.",
        remedy: "Write it as 'paid || sent'." },
    Entry { id: "RMQ-E334", title: "no broker lets the topic be read", exits: &[Exit::Failed],
        cause: "Its brokers are away, or it may not be read from.",
        remedy: "rmqctl topic describe TOPIC and rmqctl status say which." },
    Entry { id: "RMQ-E335", title: "no such message", exits: &[Exit::Failed],
        cause: "No message of this id or key is stored; what was deleted for its age is not found.",
        remedy: "Check the id; --topic %DLQ%GROUP looks among the dead letters of a group." },
    Entry { id: "RMQ-E340", title: "no master to verify", exits: &[Exit::Degraded],
        cause: "No master is registered with the name server.",
        remedy: "rmqctl status shows why." },
    Entry { id: "RMQ-E341", title: "no master has a slave", exits: &[Exit::Usage],
        cause: "A failover needs a slave to read from while its master is away.",
        remedy: "rmqctl up --slaves 1 adds one." },
    Entry { id: "RMQ-E342", title: "the cluster took no message before the failover", exits: &[Exit::Degraded],
        cause: "Sends failed while every node was still there, so nothing was killed.",
        remedy: "rmqctl status shows why." },
    Entry { id: "RMQ-E350", title: "no master to load", exits: &[Exit::Failed],
        cause: "No master is registered with the name server.",
        remedy: "rmqctl status shows why." },
    Entry { id: "RMQ-E351", title: "the load broke off", exits: &[Exit::Failed],
        cause: "A connection to a broker was lost while it was under load.",
        remedy: "rmqctl logs and rmqctl status say what became of the broker." },
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;

    /// Ids that the sources give to errors, each with the exit codes that stand beside it and where. Unit tests, which stand
    /// last in a file, are left out.
    fn used() -> BTreeMap<String, BTreeSet<(String, String)>> {
        fn walk(dir: &Path, found: &mut BTreeMap<String, BTreeSet<(String, String)>>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.display().to_string();
                if path.is_dir() {
                    walk(&path, found);
                } else if name.ends_with(".rs") && !name.ends_with("catalogue.rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                    for (at, _) in text.match_indices("\"RMQ-E") {
                        let id = text[at + 1..].split('"').next().unwrap().to_owned();
                        if !id[5..].chars().all(|c| c.is_ascii_digit()) {
                            continue;
                        }
                        let near: String = text[at..].chars().take(60).collect();
                        let exit = near.split("Exit::").nth(1).map_or(String::new(), |rest| {
                            rest.chars().take_while(|c| c.is_alphanumeric()).collect()
                        });
                        found.entry(id).or_default().insert((exit, name.clone()));
                    }
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        found
    }

    #[test]
    fn every_id_of_the_sources_is_explained_and_stands_for_one_kind() {
        let mut faults = Vec::new();
        for (id, uses) in used() {
            let Some(entry) = CATALOGUE.iter().find(|entry| entry.id == id) else {
                faults.push(format!("{id} ({uses:?}) has no entry in the catalogue"));
                continue;
            };
            let known: Vec<String> = entry.exits.iter().map(|exit| format!("{exit:?}")).collect();
            for (exit, place) in uses {
                if !exit.is_empty() && !known.contains(&exit) {
                    faults.push(format!(
                        "{id} is Exit::{exit} in {place}, and {known:?} in the catalogue: another kind needs another id"
                    ));
                }
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn the_catalogue_has_no_id_twice_none_unused_and_is_in_order() {
        let ids: Vec<&str> = CATALOGUE.iter().map(|entry| entry.id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        let used = used();
        let unused: Vec<&&str> = ids.iter().filter(|id| !used.contains_key(**id)).collect();
        assert!(unused.is_empty(), "no source uses {unused:?}");
        let titles: BTreeSet<&str> = CATALOGUE.iter().map(|entry| entry.title).collect();
        assert_eq!(titles.len(), ids.len(), "two ids with one title");
    }
}
