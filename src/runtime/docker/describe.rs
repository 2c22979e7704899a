//! All that the daemon knows of one container, and of itself.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models as api;
use bollard::query_parameters as query;
use futures_util::StreamExt;

use super::super::describe::{About, Description, Disk, Event, Health, Mount, Network};
use super::super::time::unix_seconds;
use super::super::{RuntimeError, label};
use super::Docker;
use super::observe::node_state;
use crate::plan::state_text;
use crate::topology::Desired;

/// Outputs of failed health checks that are shown; the daemon keeps five.
const FAILURES_MAX: usize = 3;

impl Docker {
    pub(super) async fn describe_node(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<Option<Description>, RuntimeError> {
        if self.own_container(desired, container).await?.is_none() {
            return Ok(None);
        }
        let inspect = self.inspect(container).await;
        let Some(inspect) = inspect.map_err(|e| RuntimeError::failed("inspect", container, e))?
        else {
            return Ok(None);
        };
        let created_at = inspect.created.as_deref().and_then(unix_seconds);
        let id = inspect.id.clone().unwrap_or_default();
        let events = self.events_of(&id, created_at.unwrap_or_default()).await?;
        Ok(Some(description(inspect, created_at, events)))
    }

    /// What happened to a container, as far back as the daemon remembers (some hundred events of all containers).
    async fn events_of(&self, id: &str, since: u64) -> Result<Vec<Event>, RuntimeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let (since, until) = (
            since.to_string(),
            now.unwrap_or_default().as_secs().to_string(),
        );
        let filters = HashMap::from([("type", vec!["container"]), ("container", vec![id])]);
        let options = query::EventsOptionsBuilder::new()
            .since(&since)
            .until(&until)
            .filters(&filters)
            .build();
        let mut stream = std::pin::pin!(self.api.events(Some(options)));
        let mut events = Vec::new();
        while let Some(event) = stream.next().await {
            events.extend(event_words(
                event.map_err(|e| RuntimeError::failed("ask for events of", id, e))?,
            ));
        }
        Ok(events)
    }

    pub(super) async fn about_daemon(&self) -> Result<About, RuntimeError> {
        let failed = |e: bollard::errors::Error| RuntimeError::failed("ask", "the daemon", e);
        let (version, info) = tokio::join!(self.api.version(), self.api.info());
        let (version, info) = (version.map_err(failed)?, info.map_err(failed)?);
        let root = info.docker_root_dir.unwrap_or_default();
        let details = [
            ("api", version.api_version),
            ("os", info.operating_system),
            ("kernel", info.kernel_version),
            ("architecture", info.architecture),
            ("storage driver", info.driver),
            ("cgroup", info.cgroup_version.map(|v| format!("v{v}"))),
            ("root", Some(root.clone())),
        ];
        Ok(About {
            version: format!("Docker {}", version.version.unwrap_or_default()),
            details: details
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect(),
            disk: self.local.then(|| Disk::of(&root)).flatten(),
            clock: info.system_time.as_deref().and_then(unix_seconds),
        })
    }
}

fn description(
    inspect: api::ContainerInspectResponse,
    created_at: Option<u64>,
    events: Vec<Event>,
) -> Description {
    let state = inspect.state.unwrap_or_default();
    let config = inspect.config.unwrap_or_default();
    let host = inspect.host_config.unwrap_or_default();
    let labels: BTreeMap<String, String> = config.labels.unwrap_or_default().into_iter().collect();
    let limit = |value: Option<i64>| value.filter(|v| *v > 0);
    let networks = inspect
        .network_settings
        .and_then(|n| n.networks)
        .unwrap_or_default();
    let text = |value: Option<String>| value.filter(|text| !text.is_empty());
    let mut mounts: Vec<Mount> = inspect
        .mounts
        .unwrap_or_default()
        .into_iter()
        .map(|mount| Mount {
            target: mount.destination.unwrap_or_default(),
            source: mount.name.or(mount.source).unwrap_or_default(),
            read_only: mount.rw == Some(false),
        })
        .collect();
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    let time = |text: &Option<String>| text.as_deref().and_then(unix_seconds);
    let runs = state.running == Some(true);
    Description {
        state: state_text(&node_state(&state)),
        id: inspect.id.unwrap_or_default(),
        image: config.image,
        created_by: labels.get(label::CREATED_BY).cloned(),
        created_at,
        started_at: time(&state.started_at).filter(|_| runs),
        finished_at: time(&state.finished_at),
        restarts: inspect
            .restart_count
            .and_then(|n| n.try_into().ok())
            .unwrap_or_default(),
        // While it runs the daemon says 0; how it ended before stands in the events.
        exit_code: match runs {
            true => last_code(&events),
            false => state
                .exit_code
                .filter(|_| time(&state.finished_at).is_some()),
        },
        oom_killed: state.oom_killed.unwrap_or_default(),
        error: text(state.error),
        health: state.health.and_then(health),
        memory_limit: limit(host.memory).and_then(|bytes| bytes.try_into().ok()),
        nano_cpus: limit(host.nano_cpus),
        restart_policy: host
            .restart_policy
            .and_then(|policy| policy.name)
            .map_or("no".into(), |name| name.to_string()),
        mounts,
        networks: networks
            .into_iter()
            .map(|(name, end)| Network {
                name,
                address: text(end.ip_address),
                gateway: text(end.gateway),
                aliases: end.aliases.unwrap_or_default(),
            })
            .collect(),
        command: config.cmd.unwrap_or_default(),
        env: config
            .env
            .unwrap_or_default()
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        labels,
        events,
    }
}

/// The exit code of the last end among events.
fn last_code(events: &[Event]) -> Option<i64> {
    let last = events.iter().rev().find_map(|e| e.what.strip_prefix(ENDED));
    last?.parse().ok()
}

const ENDED: &str = "ended with exit code ";

fn health(health: api::Health) -> Option<Health> {
    let status = health.status?.to_string();
    if status == "none" || status.is_empty() {
        return None;
    }
    let failed = health
        .log
        .unwrap_or_default()
        .into_iter()
        .filter_map(|check| {
            let output = check.output.unwrap_or_default();
            (check.exit_code != Some(0)).then(|| output.trim().to_owned())
        });
    let mut failures: Vec<String> = failed.collect();
    failures.drain(..failures.len().saturating_sub(FAILURES_MAX));
    Some(Health {
        status,
        failing_streak: health
            .failing_streak
            .and_then(|n| n.try_into().ok())
            .unwrap_or_default(),
        failures,
    })
}

/// An event in words; `None` for what says nothing of the node's fate, as the health checks' own processes.
fn event_words(event: api::EventMessage) -> Option<Event> {
    let action = event.action?;
    let attributes = event.actor.and_then(|a| a.attributes).unwrap_or_default();
    let what = match action.as_str() {
        "create" => "created".to_owned(),
        "start" => "started".to_owned(),
        "die" => format!("{ENDED}{}", attributes.get("exitCode")?),
        "kill" => format!("was sent signal {}", attributes.get("signal")?),
        "oom" => "ran out of memory".to_owned(),
        "pause" => "paused".to_owned(),
        "unpause" => "unpaused".to_owned(),
        "stop" => "stopped".to_owned(),
        "restart" => "restarted".to_owned(),
        "health_status: unhealthy" => "became unhealthy".to_owned(),
        "health_status: healthy" => "became healthy".to_owned(),
        _ => return None,
    };
    Some(Event {
        at: event.time?.try_into().ok()?,
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, attributes: &[(&str, &str)]) -> api::EventMessage {
        let pairs = attributes
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()));
        api::EventMessage {
            action: Some(action.into()),
            time: Some(7),
            actor: Some(api::EventActor {
                attributes: Some(pairs.collect()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn events_are_told_in_words_and_health_checks_own_processes_are_not() {
        let events: Vec<Event> = [
            event("start", &[]),
            event("exec_start: /rmqctl engine health", &[]),
            event("kill", &[("signal", "9")]),
            event("die", &[("exitCode", "137")]),
        ]
        .into_iter()
        .filter_map(event_words)
        .collect();
        let words: Vec<&str> = events.iter().map(|e| e.what.as_str()).collect();
        assert_eq!(
            words,
            ["started", "was sent signal 9", "ended with exit code 137"]
        );
        assert_eq!(last_code(&events), Some(137));
    }

    #[test]
    fn a_running_containers_last_code_is_of_its_end_before() {
        let inspect = |running| api::ContainerInspectResponse {
            state: Some(api::ContainerState {
                status: Some(api::ContainerStateStatusEnum::RUNNING),
                running: Some(running),
                exit_code: Some(0),
                finished_at: Some("2026-11-22T21:58:03Z".into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let events = || vec![event_words(event("die", &[("exitCode", "139")])).unwrap()];
        let described = description(inspect(true), None, events());
        assert_eq!(
            (described.exit_code, described.state.as_str()),
            (Some(139), "running")
        );
        assert_eq!(
            description(inspect(false), None, events()).exit_code,
            Some(0)
        );
    }
}
