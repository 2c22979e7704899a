//! Containers as the daemon has them, also where it says words that bollard does not know.
//!
//! bollard's enumerations are closed: one container in a state that was invented later fails the whole answer, the list of all
//! containers too, strangers' among them. Then only the plain fields that rmqctl reads are taken.

use bollard::errors::Error;
use bollard::models as api;
use bollard::query_parameters as query;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Docker, found};

impl Docker {
    /// The container of this name or id, `None` when there is none. A state without a status is one that has no name here.
    pub(super) async fn inspect(
        &self,
        container: &str,
    ) -> Result<Option<api::ContainerInspectResponse>, Error> {
        let options = None::<query::InspectContainerOptions>;
        let answer = self.api.inspect_container(container, options).await;
        found(answer.or_else(|error| reread(error, plain_container)))
    }

    pub(super) async fn containers(
        &self,
        options: query::ListContainersOptions,
    ) -> Result<Vec<api::ContainerSummary>, Error> {
        let answer = self.api.list_containers(Some(options)).await;
        answer.or_else(|error| reread(error, plain_list))
    }
}

/// Reads again what did not parse, made plain; the first error where that does not help.
fn reread<T: DeserializeOwned>(error: Error, plain: fn(&mut Value)) -> Result<T, Error> {
    let Error::JsonDataError { contents, .. } = &error else {
        return Err(error);
    };
    let Ok(mut value) = serde_json::from_str(contents) else {
        return Err(error);
    };
    plain(&mut value);
    serde_json::from_value(value).map_err(|_| error)
}

fn plain_container(container: &mut Value) {
    let fields = [
        "Id",
        "Name",
        "Created",
        "RestartCount",
        "Config",
        "State",
        "NetworkSettings",
        "HostConfig",
    ];
    keep(container, &fields);
    keep(&mut container["HostConfig"], &["PortBindings"]);
    keep(&mut container["Config"], &["Labels", "Image", "Cmd"]);
    let state = &mut container["State"];
    let fields = [
        "Status",
        "Running",
        "Paused",
        "Restarting",
        "OOMKilled",
        "Pid",
        "ExitCode",
        "StartedAt",
        "FinishedAt",
        "Error",
    ];
    keep(state, &fields);
    if serde_json::from_value::<api::ContainerStateStatusEnum>(state["Status"].clone()).is_err() {
        state["Status"] = Value::Null;
    }
    let settings = &mut container["NetworkSettings"];
    keep(settings, &["Networks"]);
    for network in settings["Networks"].as_object_mut().into_iter().flatten() {
        keep(network.1, &["NetworkID"]);
    }
}

fn plain_list(containers: &mut Value) {
    for container in containers.as_array_mut().into_iter().flatten() {
        keep(container, &["Id", "Names", "Image", "Labels", "Ports"]);
        for port in container["Ports"].as_array_mut().into_iter().flatten() {
            keep(port, &["IP", "PrivatePort", "PublicPort"]);
            // bollard wants it to be there.
            port["Type"] = "".into();
        }
    }
}

/// Drops all other fields.
fn keep(object: &mut Value, fields: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        object.retain(|field, _| fields.contains(&field.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_state_that_nobody_knows_yet_spoils_neither_a_container_nor_a_list() {
        let error = |value: &Value| Error::JsonDataError {
            message: "unknown variant `hibernating`".into(),
            contents: value.to_string(),
            column: 1,
        };
        let container = json!({
            "Id": "c1", "Name": "/rmqmaster1", "RestartCount": 2, "Image": "sha256:0", "Platform": {"no": "string"},
            "Config": {"Labels": {"a": "b"}, "Image": "engine"},
            "State": {"Status": "hibernating", "Running": true, "Health": {"Status": "splendid"}, "StartedAt": "x"},
            "NetworkSettings": {"Networks": {"net": {"NetworkID": "n1", "Later": 1}}, "Ports": 7},
        });
        let read: api::ContainerInspectResponse =
            reread(error(&container), plain_container).unwrap();
        let state = read.state.unwrap();
        assert_eq!((state.status, state.running), (None, Some(true)));
        assert_eq!(read.config.unwrap().labels.unwrap()["a"], "b");
        assert_eq!(
            read.network_settings.unwrap().networks.unwrap()["net"].network_id,
            Some("n1".into())
        );
        let list = json!([
            {"Id": "c1", "Names": ["/a"], "Labels": {"a": "b"}, "State": "running", "Image": "i",
             "Ports": [{"IP": "127.0.0.1", "PrivatePort": 1, "PublicPort": 2, "Type": "quic"}]},
            {"Id": "c2", "Names": ["/b"], "State": "hibernating"},
        ]);
        let read: Vec<api::ContainerSummary> = reread(error(&list), plain_list).unwrap();
        let ports = read[0].ports.as_ref().unwrap();
        assert_eq!(
            (ports[0].public_port, read[1].id.as_deref()),
            (Some(2), Some("c2"))
        );
        let cut = Error::JsonDataError {
            message: "cut".into(),
            contents: "[{".into(),
            column: 2,
        };
        assert_eq!(
            reread::<Value>(cut, plain_list).unwrap_err().to_string(),
            "Failed to deserialize JSON: cut",
            "what is no JSON stays an error"
        );
    }
}
