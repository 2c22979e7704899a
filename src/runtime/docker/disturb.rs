//! Kills, pauses and isolation of containers on purpose.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::errors::Error;
use bollard::models as api;
use bollard::query_parameters as query;
use futures_util::StreamExt;
use rustix::process::Signal;

use super::super::pid::Process;
use super::super::{Disturbance, RuntimeError};
use super::Docker;
use super::node::endpoint;
use crate::topology::Desired;

impl Docker {
    pub(super) async fn disturb_node(
        &self,
        desired: &Desired,
        container: &str,
        how: Disturbance,
    ) -> Result<(), RuntimeError> {
        let failed = |e: Error| RuntimeError::failed(how.word(), container, e);
        let state = self
            .own_container(desired, container)
            .await?
            .ok_or_else(|| RuntimeError::failed(how.word(), container, "no such container"))?;
        let (runs, paused) = (state.running == Some(true), state.paused == Some(true));
        let idle = || RuntimeError::failed(how.word(), container, "it does not run");
        match how {
            Disturbance::Crash if !runs => Err(idle()),
            Disturbance::Crash => {
                if paused {
                    self.api
                        .unpause_container(container)
                        .await
                        .map_err(failed)?;
                }
                self.crash(container).await
            }
            Disturbance::Kill if !runs && state.restarting != Some(true) => Ok(()),
            // The daemon takes a SIGKILL that it is asked for as the user's wish, and starts the container no more.
            Disturbance::Kill => self.signal(container, "SIGKILL").await.map_err(failed),
            Disturbance::Pause if paused => Ok(()),
            Disturbance::Pause if !runs => Err(idle()),
            Disturbance::Pause => self.api.pause_container(container).await.map_err(failed),
            Disturbance::Unpause if paused => {
                self.api.unpause_container(container).await.map_err(failed)
            }
            Disturbance::Unpause => Ok(()),
            Disturbance::Isolate | Disturbance::Rejoin => {
                let joined = self.is_joined(desired, container).await?;
                match how {
                    Disturbance::Isolate if joined => self.leave(desired, container).await,
                    Disturbance::Rejoin if !joined => self.join(desired, container).await,
                    _ => Ok(()),
                }
            }
        }
    }

    /// Ends the engine as a crash does, so that the restart policy acts. Where its process can be seen from here and we may
    /// signal it, it is killed behind the daemon's back. Elsewhere (a virtual machine, another user) it is asked to leave at
    /// once by SIGQUIT: a signal other than SIGKILL and the container's stop signal is not taken as the user's wish.
    async fn crash(&self, container: &str) -> Result<(), RuntimeError> {
        let failed = |reason: String| RuntimeError::failed("kill", container, reason);
        let seen = self.pid_seen_from_here(container).await;
        let handle = seen.and_then(Process::of).and_then(Process::open);
        // Asked again: the handle is known to be of the container only if its pid was not used anew since.
        let handle = match self.pid_seen_from_here(container).await == seen {
            true => handle,
            false => None,
        };
        let killed = handle
            .as_ref()
            .is_some_and(|handle| handle.signal(Signal::KILL).is_ok());
        if !killed {
            let asked = self.signal(container, "SIGQUIT").await;
            asked.map_err(|e| failed(e.to_string()))?;
        }
        match handle {
            Some(handle) => handle.ended().await.map_err(|e| failed(e.to_string())),
            None => Ok(()),
        }
    }

    /// Watches first and looks then, so that no start is missed in between.
    pub(super) async fn await_start(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<bool, RuntimeError> {
        let failed = |e: Error| RuntimeError::failed("watch", container, e);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = now.unwrap_or_default().as_secs().to_string();
        let filters = HashMap::from([
            ("container", vec![container]),
            ("event", vec!["start", "destroy"]),
        ]);
        let options = query::EventsOptionsBuilder::new()
            .since(&since)
            .filters(&filters)
            .build();
        let mut events = std::pin::pin!(self.api.events(Some(options)));
        loop {
            match self.own_container(desired, container).await? {
                None => return Ok(false),
                Some(state) if state.running == Some(true) => return Ok(true),
                Some(_) => {}
            }
            match events.next().await {
                Some(event) => event.map(drop).map_err(failed)?,
                None => return Ok(false),
            }
        }
    }

    async fn signal(&self, container: &str, signal: &str) -> Result<(), Error> {
        let options = query::KillContainerOptionsBuilder::new()
            .signal(signal)
            .build();
        self.api.kill_container(container, Some(options)).await
    }

    async fn is_joined(&self, desired: &Desired, container: &str) -> Result<bool, RuntimeError> {
        let inspect = self
            .inspect(container)
            .await
            .map_err(|e| RuntimeError::failed("inspect", container, e))?;
        let networks = inspect.and_then(|i| i.network_settings?.networks);
        Ok(networks.is_some_and(|networks| networks.contains_key(&desired.network)))
    }

    /// Off the network. Its published ports go too: they are the endpoint's.
    async fn leave(&self, desired: &Desired, container: &str) -> Result<(), RuntimeError> {
        let request = api::NetworkDisconnectRequest {
            container: container.into(),
            force: Some(false),
        };
        self.api
            .disconnect_network(&desired.network, request)
            .await
            .map_err(|e| RuntimeError::failed("isolate", container, e))
    }

    /// Back on the network, by the same names.
    async fn join(&self, desired: &Desired, container: &str) -> Result<(), RuntimeError> {
        let node = desired.nodes.iter().find(|n| n.container == container);
        let request = api::NetworkConnectRequest {
            container: container.into(),
            endpoint_config: node.map(endpoint),
        };
        self.api
            .connect_network(&desired.network, request)
            .await
            .map_err(|e| RuntimeError::failed("rejoin", container, e))
    }
}
