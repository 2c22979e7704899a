//! What a broker or name server made by hand has: its properties, who it is, and where its store lies.

use super::choose::Chosen;
use super::launch::Kind;
use crate::error::{Error, Exit};
use crate::plan::StoreCopy;
use crate::properties;
use crate::runtime::Runtime;
use crate::spec::Properties;
use crate::topology::Role;

/// A broker as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OldBroker {
    /// What its file says.
    pub said: Properties,
    pub name: String,
    pub id: u64,
    /// What its container is called in Docker's networks; nobody outside reaches it there.
    pub addresses: Vec<String>,
    /// Port inside its container.
    pub port: u16,
    /// Where its file is in its container, for messages.
    pub file: Option<String>,
    /// Bytes of its files of the commit log and of consume queues, where it has some.
    pub log_file: Option<u64>,
    pub queue_file: Option<u64>,
    pub copies: Vec<StoreCopy>,
}

/// Properties that say where things lie; the node's volume holds them all.
pub fn is_place(key: &str) -> bool {
    key.starts_with("storePath")
        || matches!(
            key,
            "storeCheckpoint" | "abortFile" | "rocketmqHome" | "kvConfigPath" | "configStorePath"
        )
}

/// RocketMQ's own stores lie below the home of its user.
const HOMES: [&str; 3] = ["/home/rocketmq", "/root", ""];

/// Reads one broker. `store` is where its store is, when somebody said so; an empty one is none.
pub async fn broker(
    chosen: &Chosen<'_>,
    store: Option<&str>,
    runtime: &dyn Runtime,
) -> Result<OldBroker, Error> {
    let said = file_of(chosen, runtime).await?;
    let number = |key: &str| said.get(key).and_then(|v| v.trim().parse::<u64>().ok());
    let by_default = match (chosen.launch.is_ours, chosen.stranger.hostname.as_str()) {
        (true, _) => "broker-a",
        (false, "") => "DEFAULT_BROKER",
        // Java takes the name of its host.
        (false, host) => host,
    };
    let mut old = OldBroker {
        name: said
            .get("brokerName")
            .map_or(by_default, |n| n.trim())
            .to_owned(),
        id: number("brokerId").unwrap_or(0),
        port: number("listenPort")
            .and_then(|p| p.try_into().ok())
            .unwrap_or(10911),
        file: chosen.launch.file.clone(),
        addresses: chosen.stranger.addresses.clone(),
        said,
        ..OldBroker::default()
    };
    if store == Some("") {
        return Ok(old);
    }
    let place = find_store(chosen, &old.said, store, runtime).await?;
    old.log_file = place.log_file;
    if let Some(queues) = glance(runtime, chosen, &format!("{}/consumequeue", place.root)).await? {
        old.queue_file = queues.first().map(|(_, size)| *size);
    }
    old.copies = place.copies();
    Ok(old)
}

/// The file that a name server keeps: order topics and the like.
pub async fn namesrv(chosen: &Chosen<'_>, runtime: &dyn Runtime) -> Result<Vec<StoreCopy>, Error> {
    let said = file_of(chosen, runtime).await?;
    let homes = homes(chosen, runtime).await?;
    let places = said.get("kvConfigPath").cloned().into_iter().chain(
        homes
            .into_iter()
            .map(|home| format!("{home}/namesrv/kvConfig.json")),
    );
    for place in places {
        if glance(runtime, chosen, &place)
            .await?
            .is_some_and(|files| !files.is_empty())
        {
            return Ok(vec![StoreCopy {
                from: place,
                to: "kvConfig.json".to_owned(),
                is_file: true,
                without: Vec::new(),
            }]);
        }
    }
    Ok(Vec::new())
}

/// Keys and values of the container's properties file; none where it has no file.
async fn file_of(chosen: &Chosen<'_>, runtime: &dyn Runtime) -> Result<Properties, Error> {
    let Some(path) = &chosen.launch.file else {
        return Ok(Properties::new());
    };
    let container = &chosen.stranger.container;
    let bad = |why: String| {
        Error::new(
            "RMQ-E025",
            Exit::Conflict,
            format!("the properties of {container} cannot be read"),
        )
        .detail(format!("{container}:{path}: {why}"))
        .detail("nothing was changed")
    };
    let seen = runtime.glance(container, path).await?;
    let text = seen
        .and_then(|seen| seen.text)
        .ok_or_else(|| bad("there is no such file, though its command line names it".to_owned()))?;
    let text = String::from_utf8(text).map_err(|e| bad(e.to_string()))?;
    let mut said = properties::read(&text).map_err(bad)?;
    // RocketMQ trims them, and people leave spaces at the end of lines.
    for value in said.values_mut() {
        *value = value.trim().to_owned();
    }
    said.retain(|_, value| !value.is_empty());
    Ok(said)
}

/// Plain files at a path with their sizes; `None` where nothing is.
async fn glance(
    runtime: &dyn Runtime,
    chosen: &Chosen<'_>,
    path: &str,
) -> Result<Option<Vec<(String, u64)>>, Error> {
    let seen = runtime.glance(&chosen.stranger.container, path).await?;
    Ok(seen.map(|seen| seen.files))
}

/// Homes that the container's user may have, likeliest first.
async fn homes(chosen: &Chosen<'_>, runtime: &dyn Runtime) -> Result<Vec<String>, Error> {
    let mut homes: Vec<String> = chosen.launch.home.iter().cloned().collect();
    homes.extend(chosen.stranger.env.get("HOME").cloned());
    let users = runtime
        .glance(&chosen.stranger.container, "/etc/passwd")
        .await?;
    let users = users.and_then(|seen| seen.text).unwrap_or_default();
    homes.extend(home_of(
        &chosen.stranger.user,
        &String::from_utf8_lossy(&users),
    ));
    homes.extend(HOMES.map(str::to_owned));
    let mut seen = Vec::new();
    homes.retain(|home| {
        let home = home.trim_end_matches('/').to_owned();
        let is_new = !seen.contains(&home);
        seen.push(home);
        is_new
    });
    Ok(homes
        .iter()
        .map(|h| h.trim_end_matches('/').to_owned())
        .collect())
}

/// A user's home as `/etc/passwd` has it; `user` is a name or a number, with a group or without.
fn home_of(user: &str, passwd: &str) -> Option<String> {
    let user = user
        .split(':')
        .next()
        .filter(|u| !u.is_empty())
        .unwrap_or("0");
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_it = fields.first() == Some(&user) || fields.get(2) == Some(&user);
        fields
            .get(5)
            .filter(|home| is_it && !home.is_empty())
            .map(|home| (*home).to_owned())
    })
}

/// Where a store lies.
struct Found {
    root: String,
    /// The commit log, where it is not in the root.
    apart: Option<String>,
    log_file: Option<u64>,
}

impl Found {
    fn copies(&self) -> Vec<StoreCopy> {
        let mut copies = vec![StoreCopy {
            from: self.root.clone(),
            to: String::new(),
            is_file: false,
            without: self.apart.iter().map(|_| "commitlog".to_owned()).collect(),
        }];
        copies.extend(self.apart.iter().map(|from| StoreCopy {
            from: from.clone(),
            to: "commitlog".to_owned(),
            is_file: false,
            without: Vec::new(),
        }));
        copies
    }
}

/// Finds the store: where somebody said, where its properties say, or below its user's home, as RocketMQ does. The commit log may lie
/// elsewhere: brokers before 5 keep it below the home even if the rest is moved.
async fn find_store(
    chosen: &Chosen<'_>,
    said: &Properties,
    told: Option<&str>,
    runtime: &dyn Runtime,
) -> Result<Found, Error> {
    let plain = |path: &String| path.trim_end_matches('/').to_owned();
    let explicit = told
        .map(str::to_owned)
        .or_else(|| said.get("storePathRootDir").cloned());
    let below_homes: Vec<String> = homes(chosen, runtime)
        .await?
        .into_iter()
        .map(|home| format!("{home}/store"))
        .collect();
    let roots: Vec<String> = match &explicit {
        Some(root) => vec![plain(root)],
        None => below_homes.clone(),
    };
    let log_said = said.get("storePathCommitLog").map(plain);
    if let Some(several) = log_said.as_ref().filter(|log| log.contains([',', ':'])) {
        return Err(cannot(
            chosen,
            format!("its commit log is in several directories ({several})"),
        )
        .hint("move it into one directory with the Java broker first"));
    }
    for root in &roots {
        if glance(runtime, chosen, root).await?.is_none() {
            continue;
        }
        let inside = format!("{root}/commitlog");
        let logs: Vec<String> = match (&log_said, told) {
            (Some(log), None) => vec![log.clone()],
            _ => std::iter::once(inside.clone())
                .chain(below_homes.iter().map(|store| format!("{store}/commitlog")))
                .collect(),
        };
        for log in logs {
            let files = glance(runtime, chosen, &log).await?.unwrap_or_default();
            // Twenty digits, the offset that the file begins at.
            let is_log = |name: &str| {
                let name = name.rsplit('/').next().unwrap_or(name);
                name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit())
            };
            if let Some((_, size)) = files.iter().find(|(name, _)| is_log(name)) {
                return Ok(Found {
                    root: root.clone(),
                    apart: (log != inside).then_some(log),
                    log_file: Some(*size),
                });
            }
        }
        // One that took no message yet has the places for them.
        let mut begun = false;
        for place in ["config", "commitlog", "checkpoint"] {
            begun |= glance(runtime, chosen, &format!("{root}/{place}"))
                .await?
                .is_some();
        }
        if begun {
            return Ok(Found {
                root: root.clone(),
                apart: None,
                log_file: None,
            });
        }
    }
    let looked: Vec<String> = roots.iter().chain(&log_said).cloned().collect();
    let node = &chosen.node;
    Err(cannot(
        chosen,
        format!("no store was found in it; looked at {}", looked.join(", ")),
    )
    .hint(format!("--store {node}=/path/in/the/container"))
    .hint(format!("--store {node}=   where it may begin empty")))
}

/// An error of a container that cannot become its node.
pub fn cannot(chosen: &Chosen<'_>, why: String) -> Error {
    Error::new(
        "RMQ-E025",
        Exit::Conflict,
        format!(
            "{} cannot become {}",
            chosen.stranger.container, chosen.node
        ),
    )
    .detail(why)
    .detail("nothing was changed")
}

/// Refuses a container that is not of the node's kind.
pub fn check_kind(chosen: &Chosen<'_>) -> Result<Kind, Error> {
    let role = match chosen.role {
        Role::Namesrv => Kind::Namesrv,
        Role::Master | Role::Slave => Kind::Broker,
        Role::Console => Kind::Console,
    };
    match chosen.launch.kind {
        Some(kind) if kind.fits(chosen.role) => Ok(kind),
        // Whoever names the node knows what it is.
        None if chosen.old != chosen.node => Ok(role),
        Some(kind) => Err(
            cannot(chosen, format!("it is {}", kind.word())).hint(format!(
                "rmqctl adopt {}=NODE   with a node of that kind",
                chosen.old
            )),
        ),
        None => Err(cannot(
            chosen,
            format!(
                "its image {} and its command `{}` do not look like RocketMQ",
                chosen.stranger.image,
                chosen.stranger.command.join(" ")
            ),
        )
        .hint("docker rename it, if the node is to have its name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_home_is_found_by_name_or_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nrocketmq:x:3000:3000::/home/rocketmq:/bin/sh\n";
        assert_eq!(
            home_of("rocketmq", passwd).as_deref(),
            Some("/home/rocketmq")
        );
        assert_eq!(
            home_of("3000:3000", passwd).as_deref(),
            Some("/home/rocketmq")
        );
        assert_eq!(home_of("", passwd).as_deref(), Some("/root"));
        assert_eq!(home_of("7", passwd), None);
    }

    #[test]
    fn a_commit_log_that_lies_apart_is_copied_into_its_place() {
        let found = Found {
            root: "/data".into(),
            apart: Some("/log".into()),
            log_file: None,
        };
        let copies = found.copies();
        assert_eq!(
            (copies[0].from.as_str(), copies[0].to.as_str()),
            ("/data", "")
        );
        assert_eq!(copies[0].without, ["commitlog"]);
        assert_eq!(
            (copies[1].from.as_str(), copies[1].to.as_str()),
            ("/log", "commitlog")
        );
    }
}
