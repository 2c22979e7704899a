//! Kubernetes manifests: a StatefulSet for each broker group, a Service for each broker, a Deployment for each name server and
//! the console. Every broker registers its pod's DNS name, which all pods reach; nothing is published outside.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Claim, Map, Source, conf_path, file_name, store_path};
use crate::error::{Error, Exit};
use crate::properties::with_value;
use crate::spec::yaml;
use crate::topology::{CONTAINER_BINARY, CONTAINER_UID, Node, Role};

const HEAD: &str = include_str!("../../templates/export/k8s.head");

/// Each pod has an address of its own, so each broker has RocketMQ's ports.
const MAIN: u16 = 10911;
const PORTS: [(&str, u16); 3] = [("main", MAIN), ("vip", MAIN - 2), ("ha", MAIN + 1)];
/// Kubernetes' ports have names of at most 15 letters, which probes and Services refer to.
const NAMESRV_PORT: (&str, u16) = ("namesrv", 9876);
const CONSOLE_PORT: (&str, u16) = ("console", 8080);

/// One object; its fields in the order that people write them.
#[derive(Serialize)]
struct Object {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    metadata: Value,
    #[serde(flatten)]
    body: Map<Value>,
}

/// All objects, as one stream of documents.
pub fn text(source: Source<'_>, claim: &Claim) -> Result<String, Error> {
    check(claim)?;
    let desired = source.desired;
    let maker = Maker { source, claim };
    let mut objects = vec![maker.namespace()];
    for node in desired.nodes.iter().filter(|n| n.role == Role::Namesrv) {
        objects.extend(maker.namesrv(node));
    }
    for master in desired.nodes.iter().filter(|n| n.role == Role::Master) {
        objects.extend(maker.group(master));
    }
    for node in desired.nodes.iter().filter(|n| n.role == Role::Console) {
        objects.extend(maker.console(node));
    }
    let head = super::head(source, HEAD)?.replace("${namespace}", &claim.namespace);
    let documents = objects
        .iter()
        .map(|object| format!("---\n{}", yaml::to_string(object)));
    Ok(documents.fold(head, |text, document| text + &document))
}

fn check(claim: &Claim) -> Result<(), Error> {
    let name = &claim.namespace;
    let is_label = !name.is_empty()
        && name.len() <= 63
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !is_label {
        return Err(Error::new(
            "RMQ-E161",
            Exit::Usage,
            format!("`{name}` cannot be the name of a Kubernetes namespace"),
        )
        .detail("small letters, digits and `-`, 63 at most")
        .hint("--namespace rocketmq"));
    }
    let digits = claim
        .storage
        .trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = &claim.storage[digits.len()..];
    let is_size = digits.parse::<u64>().is_ok_and(|size| size > 0)
        && matches!(unit, "" | "k" | "M" | "G" | "T" | "Ki" | "Mi" | "Gi" | "Ti");
    if !is_size {
        return Err(Error::new(
            "RMQ-E161",
            Exit::Usage,
            format!("`{}` is not a size that Kubernetes reads", claim.storage),
        )
        .hint("--storage 20Gi"));
    }
    Ok(())
}

struct Maker<'a> {
    source: Source<'a>,
    claim: &'a Claim,
}

impl Maker<'_> {
    fn object(
        &self,
        api_version: &'static str,
        kind: &'static str,
        name: &str,
        component: &str,
        body: Vec<(&str, Value)>,
    ) -> Object {
        let mut labels = json!({
            "app.kubernetes.io/name": "rocketmq",
            "app.kubernetes.io/instance": self.claim.namespace,
            "app.kubernetes.io/component": component,
            "app.kubernetes.io/managed-by": "rmqctl",
        });
        for (key, value) in &self.source.desired.labels {
            labels[key.as_str()] = json!(value);
        }
        Object {
            api_version,
            kind,
            metadata: json!({"name": name, "namespace": self.claim.namespace, "labels": labels}),
            body: body
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        }
    }

    fn namespace(&self) -> Object {
        Object {
            api_version: "v1",
            kind: "Namespace",
            metadata: json!({"name": self.claim.namespace}),
            body: Map(Vec::new()),
        }
    }

    /// What a pod of this component is found by.
    fn selector(&self, component: &str) -> Value {
        json!({"app.kubernetes.io/instance": self.claim.namespace, "app.kubernetes.io/component": component})
    }

    fn service(&self, name: &str, component: &str, ports: &[(&str, u16)], pods: Value) -> Object {
        let ports: Vec<Value> = ports
            .iter()
            .map(|(name, port)| json!({"name": name, "port": port, "targetPort": name, "protocol": "TCP"}))
            .collect();
        let spec = json!({"selector": pods, "ports": ports});
        self.object("v1", "Service", name, component, vec![("spec", spec)])
    }

    /// The name server: its Service is what brokers and clients dial.
    fn namesrv(&self, node: &Node) -> Vec<Object> {
        let name = node.name.as_str();
        let store = format!("{name}-store");
        let files = json!({file_name(node): text_of(node)});
        let own = self.store_of_pod(node);
        let claims = own.is_none();
        let volumes = json!([
            {"name": "conf", "configMap": {"name": name}},
            own.unwrap_or_else(|| json!({"name": "store", "persistentVolumeClaim": {"claimName": store}})),
        ]);
        let args = node.command.clone();
        let pod = self.pod(node, &args, &[NAMESRV_PORT], Some(volumes), name);
        let claim = json!({
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        });
        let mut objects = vec![self.object("v1", "ConfigMap", name, name, vec![("data", files)])];
        if claims {
            objects.push(self.object(
                "v1",
                "PersistentVolumeClaim",
                &store,
                name,
                vec![("spec", claim)],
            ));
        }
        objects.push(self.service(name, name, &[NAMESRV_PORT], self.selector(name)));
        objects.push(self.deployment(name, pod));
        objects
    }

    /// The pod's volume of a store that is not claimed: a directory of its machine, or memory.
    fn store_of_pod(&self, node: &Node) -> Option<Value> {
        if let Some(bytes) = node.tmpfs {
            let memory = json!({"medium": "Memory", "sizeLimit": bytes.to_string()});
            return Some(json!({"name": "store", "emptyDir": memory}));
        }
        // Pods of a group share what makes them, so each finds its own directory by its name (`subPathExpr` below).
        let data = node.data_dir()?.parent()?;
        let place = json!({"path": data.display().to_string(), "type": "DirectoryOrCreate"});
        Some(json!({"name": "store", "hostPath": place}))
    }

    fn console(&self, node: &Node) -> Vec<Object> {
        let name = node.name.as_str();
        let pod = self.pod(node, &node.command, &[CONSOLE_PORT], None, name);
        vec![
            self.service(name, name, &[CONSOLE_PORT], self.selector(name)),
            self.deployment(name, pod),
        ]
    }

    fn deployment(&self, name: &str, pod: Value) -> Object {
        let spec = json!({
            "replicas": 1,
            // Two at once would share a store.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": self.selector(name)},
            "template": pod,
        });
        self.object("apps/v1", "Deployment", name, name, vec![("spec", spec)])
    }

    /// A broker group: pod 0 is the master, pod k the slave with id k. All get one ConfigMap, and each its own file in it.
    fn group(&self, master: &Node) -> Vec<Object> {
        let Some(group) = master.broker.as_ref().map(|b| b.name.as_str()) else {
            return Vec::new();
        };
        let nodes = || {
            let all = self.source.desired.nodes.iter();
            all.filter_map(|n| Some((n, n.broker.as_ref().filter(|b| b.name == group)?.id)))
        };
        let files: serde_json::Map<String, Value> = nodes()
            .map(|(node, id)| {
                let key = format!("{group}-{id}.properties");
                (key, json!(self.broker_file(node, group, id)))
            })
            .collect();
        let mut objects = vec![
            self.object("v1", "ConfigMap", group, group, vec![("data", json!(files))]),
            // Governs the pods' own names; a slave dials its master before that is ready.
            self.object(
                "v1",
                "Service",
                group,
                group,
                vec![(
                    "spec",
                    json!({
                        "clusterIP": "None",
                        "publishNotReadyAddresses": true,
                        "selector": self.selector(group),
                        "ports": [{"name": "main", "port": MAIN, "targetPort": "main", "protocol": "TCP"}],
                    }),
                )],
            ),
        ];
        objects.extend(nodes().map(|(node, id)| {
            let pod = json!({"statefulset.kubernetes.io/pod-name": format!("{group}-{id}")});
            self.service(&node.name, group, &PORTS, pod)
        }));
        // The one difference between the pods' command lines is their own name.
        let path = conf_path(master);
        let args: Vec<String> = master
            .command
            .iter()
            .map(|word| match *word == path {
                true => "/etc/rmq/$(POD_NAME).properties".to_owned(),
                false => word.clone(),
            })
            .collect();
        let own = self.store_of_pod(master);
        let claims = own.is_none();
        let mut volumes = vec![json!({"name": "conf", "configMap": {"name": group}})];
        volumes.extend(own);
        let volumes = json!(volumes);
        let mut pod = self.pod(master, &args, &PORTS, Some(volumes), group);
        pod["spec"]["containers"][0]["env"]
            .as_array_mut()
            .expect("`pod` makes env an array")
            .insert(
                0,
                json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
            );
        // A machine that dies should not take a master and its slave.
        pod["spec"]["affinity"] = json!({"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": 100,
                "podAffinityTerm": {
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": self.selector(group)},
                },
            }],
        }});
        let mut spec = json!({
            "serviceName": group,
            "replicas": nodes().count(),
            // All start together: a slave asks for its master until it is there.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": self.selector(group)},
            "template": pod,
            "volumeClaimTemplates": [{
                "metadata": {"name": "store"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": self.claim.storage}},
                },
            }],
        });
        if !claims && let Some(spec) = spec.as_object_mut() {
            spec.remove("volumeClaimTemplates");
        }
        objects.push(self.object("apps/v1", "StatefulSet", group, group, vec![("spec", spec)]));
        objects
    }

    /// A broker's properties with its pod's addresses and ports.
    fn broker_file(&self, node: &Node, group: &str, id: u64) -> String {
        let host = format!("{group}-{id}.{group}.{}.svc", self.claim.namespace);
        let values = [
            ("listenPort", Some(MAIN.to_string())),
            ("haListenPort", Some((MAIN + 1).to_string())),
            ("brokerIP1", Some(host.clone())),
            ("brokerIP2", Some(host)),
            // All callers are inside.
            ("brokerInternalAddr", None),
        ];
        values
            .into_iter()
            .fold(text_of(node).to_owned(), |text, (key, value)| {
                with_value(&text, key, value.as_deref())
            })
    }

    fn pod(
        &self,
        node: &Node,
        args: &[String],
        ports: &[(&str, u16)],
        volumes: Option<Value>,
        component: &str,
    ) -> Value {
        let mut limits = json!({});
        if let Some(bytes) = node.memory {
            limits["memory"] = json!(bytes.to_string());
        }
        if let Some(nano) = node.nano_cpus {
            limits["cpu"] = json!(format!("{}m", nano.div_euclid(1_000_000)));
        }
        let env: Vec<Value> = node
            .env
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value.replace("$(", "$$(")}))
            .collect();
        let ports: Vec<Value> = ports
            .iter()
            .map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}))
            .collect();
        let mounts = volumes.as_ref().map_or(json!([]), |_| {
            json!([
                {"name": "conf", "mountPath": "/etc/rmq", "readOnly": true},
                store_mount(node),
            ])
        });
        let check = json!({"exec": {"command": [CONTAINER_BINARY, "engine", "health"]}});
        let probe = |first: u32, period: u32, failures: u32| {
            let mut probe = check.clone();
            probe["initialDelaySeconds"] = json!(first);
            probe["periodSeconds"] = json!(period);
            probe["timeoutSeconds"] = json!(5);
            probe["failureThreshold"] = json!(failures);
            probe
        };
        let container = json!({
            "name": node.role.word(),
            "image": self.source.engine,
            "imagePullPolicy": "IfNotPresent",
            "args": args,
            "env": env,
            "ports": ports,
            "resources": {"limits": limits},
            "volumeMounts": mounts,
            "readinessProbe": probe(1, 5, 3),
            "livenessProbe": probe(30, 30, 3),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        });
        json!({
            "metadata": {"labels": self.selector(component)},
            "spec": {
                "terminationGracePeriodSeconds": self.source.desired.stop_timeout.as_secs(),
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": CONTAINER_UID,
                    "runAsGroup": CONTAINER_UID,
                    "fsGroup": CONTAINER_UID,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                "volumes": volumes.unwrap_or(json!([])),
            },
        })
    }
}

/// Where a pod's store is mounted; of a machine's directory, the part that is the node's or, in a group, the pod's.
fn store_mount(node: &Node) -> Value {
    let mut mount = json!({"name": "store", "mountPath": store_path(node)});
    if node.data_dir().is_some() {
        match node.broker {
            Some(_) => mount["subPathExpr"] = json!("$(POD_NAME)"),
            None => mount["subPath"] = json!(node.name),
        }
    }
    mount
}

fn text_of(node: &Node) -> &str {
    node.file.as_ref().map_or("", |(_, text)| text)
}
