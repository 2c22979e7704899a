use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::spec::{ClusterSpec, Profile, Storage, yaml};
use crate::topology::{Site, desired};

const IMAGE: &str = "rmqctl/engine:0.0.0-00000000";

fn spec() -> ClusterSpec {
    let mut spec = ClusterSpec::defaults("ci42", Profile::Dev, "/x".into());
    (spec.masters, spec.slaves) = (2, 3);
    spec.memory = Some(256 << 20);
    spec.cpus = Some(0.5);
    spec.env.insert("ODD".into(), "a $b 'c'".into());
    spec
}

fn cluster() -> Desired {
    desired(&spec(), &Site::Network).unwrap()
}

fn written(form: &Form) -> Vec<File> {
    let desired = cluster();
    let source = Source {
        desired: &desired,
        engine: IMAGE,
    };
    files(source, form).unwrap()
}

fn read(text: &str) -> Value {
    yaml::value(text).unwrap()
}

fn kubernetes() -> Vec<Value> {
    let form = Form::Kubernetes(Claim {
        namespace: "mq".into(),
        storage: "20Gi".into(),
    });
    let text = &written(&form)[0].text;
    text.split("\n---\n").skip(1).map(read).collect()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects
        .iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn every_main_file_begins_with_the_mark_and_leaves_no_placeholder() {
    for form in [
        Form::Compose,
        Form::Stack,
        Form::DockerRun,
        Form::Kubernetes(Claim {
            namespace: "mq".into(),
            storage: "1Gi".into(),
        }),
    ] {
        let main = &written(&form)[0];
        assert_eq!(main.name, form.file());
        assert!(main.text.starts_with(MARK), "{}", main.text);
        let head: Vec<&str> = main
            .text
            .lines()
            .take_while(|l| l.starts_with('#'))
            .collect();
        assert!(!head.join("\n").contains("${"), "{head:?}");
    }
}

#[test]
fn a_compose_service_is_the_container_that_up_makes() {
    let all = written(&Form::Compose);
    let file = read(&all[0].text);
    let desired = cluster();
    for node in &desired.nodes {
        let service = &file["services"][&node.name];
        assert_eq!(service["container_name"], node.container);
        assert_eq!(service["image"], IMAGE);
        assert_eq!(service["mem_limit"], 256 << 20);
        assert_eq!(service["cpus"], "0.5");
        assert_eq!(service["restart"], "always");
        assert_eq!(service["environment"][0], "ODD=a $$b 'c'");
        let ports: Vec<&str> = service["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_str().unwrap())
            .collect();
        let wanted: Vec<String> = node
            .ports
            .iter()
            .filter_map(|p| Some(format!("127.0.0.1:{}:{}", p.host?, p.container)))
            .collect();
        assert_eq!(ports, wanted);
        // Each file it mounts stands beside it.
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let source = mount.as_str().unwrap().split(':').next().unwrap();
            match source.strip_prefix("./") {
                Some(name) => assert!(all.iter().any(|f| f.name == name), "{name}"),
                None => assert_eq!(file["volumes"][source]["name"], source),
            }
        }
    }
    assert_eq!(file["networks"]["rocketmq"]["name"], "ci42-rmqnetwork");
    let namesrv = all.iter().find(|f| f.name.ends_with("namesrv.properties"));
    let subnet = file["networks"]["rocketmq"]["ipam"]["config"][0]["subnet"].as_str();
    assert!(
        namesrv
            .unwrap()
            .text
            .contains(&format!("internalSubnet={}\n", subnet.unwrap()))
    );
}

#[test]
fn a_text_alone_holds_the_properties_themselves() {
    let desired = cluster();
    let source = Source {
        desired: &desired,
        engine: IMAGE,
    };
    let file = read(&alone(source, &Form::Compose).unwrap());
    let master = &file["services"]["rmqmaster1"];
    let name = master["configs"][0]["source"].as_str().unwrap();
    let content = file["configs"][name]["content"].as_str().unwrap();
    assert!(content.contains("\nbrokerName=broker-a\n"), "{content}");
    let script = alone(source, &Form::DockerRun).unwrap();
    assert!(script.contains("<<'END-OF-FILE'\n") && script.contains("\nbrokerName=broker-b\n"));
    assert_eq!(alone(source, &Form::Stack).unwrap_err().id, "RMQ-E160");
}

#[test]
fn a_stack_publishes_ports_on_the_machine_itself_and_names_configs_by_content() {
    let file = read(&written(&Form::Stack)[0].text);
    let master = &file["services"]["rmqmaster1"];
    assert!(master.get("container_name").is_none());
    for port in master["ports"].as_array().unwrap() {
        assert_eq!(port["mode"], "host");
        assert_eq!(port["target"], port["published"]);
    }
    assert_eq!(file["networks"]["rocketmq"]["driver"], "overlay");
    let config = master["configs"][0]["source"].as_str().unwrap();
    let name = file["configs"][config]["name"].as_str().unwrap();
    assert!(
        name.starts_with("ci42-rmqmaster1-") && name.len() <= 64,
        "{name}"
    );
}

#[test]
fn a_script_has_one_run_a_node_and_quotes_what_a_shell_would_read() {
    let text = &written(&Form::DockerRun)[0].text;
    let runs = text.matches("\ndocker run -d --name ci42-rmq").count();
    assert_eq!(runs, cluster().nodes.len());
    assert!(text.contains(r"-e 'ODD=a $b '\''c'\'''"), "{text}");
    assert!(text.contains("-p 127.0.0.1:10911:10911 -p 127.0.0.1:10909:10909 \\"));
}

#[test]
fn a_broker_in_kubernetes_registers_its_pods_name() {
    let objects = kubernetes();
    let set = find(&objects, "StatefulSet", "broker-a");
    assert_eq!(set["spec"]["replicas"], 3);
    assert_eq!(set["spec"]["serviceName"], "broker-a");
    let files = &find(&objects, "ConfigMap", "broker-a")["data"];
    for id in 0..3 {
        let text = files[format!("broker-a-{id}.properties")].as_str().unwrap();
        let values = properties::read(text).unwrap();
        let host = format!("broker-a-{id}.broker-a.mq.svc");
        assert_eq!((&values["brokerIP1"], &values["brokerIP2"]), (&host, &host));
        assert_eq!(values["brokerId"], id.to_string());
        assert_eq!(values["listenPort"], "10911");
        assert_eq!(values["namesrvAddr"], "rmqnamesrv:9876");
        assert!(!values.contains_key("brokerInternalAddr"));
    }
    // Slave 1 of broker-a is rmqslave1, slave 2 of it rmqslave3: their Services lead to the pods of those ids.
    let pod = &find(&objects, "Service", "rmqslave3")["spec"]["selector"];
    assert_eq!(pod["statefulset.kubernetes.io/pod-name"], "broker-a-2");
}

#[test]
fn what_kubernetes_would_refuse_is_refused() {
    let desired = cluster();
    let source = Source {
        desired: &desired,
        engine: IMAGE,
    };
    for (namespace, storage) in [
        ("My_MQ", "1Gi"),
        ("mq", "much"),
        ("-mq", "1Gi"),
        ("mq", "0Gi"),
    ] {
        let form = Form::Kubernetes(Claim {
            namespace: namespace.into(),
            storage: storage.into(),
        });
        assert_eq!(files(source, &form).unwrap_err().id, "RMQ-E161");
    }
}

/// The part of Kubernetes' schema that these manifests use: a path with `*` for every element of a list or map, and what stands
/// there. `?` marks what may be missing. A path that is not here is not allowed, so that a misspelt field is seen; the stage
/// `export` asks Kubernetes' own schemas.
const SCHEMA: &str = "
    Namespace
    ConfigMap data:map data.*:text
    PersistentVolumeClaim spec:map spec.accessModes:list spec.accessModes.*:text spec.resources:map spec.resources.requests:map
        spec.resources.requests.storage:text
    Service spec:map spec.clusterIP?:text spec.publishNotReadyAddresses?:bool spec.selector:map spec.selector.*:text spec.ports:list
        spec.ports.*:map spec.ports.*.name:text spec.ports.*.port:number spec.ports.*.protocol:text spec.ports.*.targetPort:text
    Deployment spec:map spec.replicas:number spec.strategy:map spec.strategy.type:text spec.selector:map spec.selector.matchLabels:map
        spec.selector.matchLabels.*:text POD
    StatefulSet spec:map spec.replicas:number spec.serviceName:text spec.podManagementPolicy:text spec.selector:map
        spec.selector.matchLabels:map spec.selector.matchLabels.*:text spec.volumeClaimTemplates:list spec.volumeClaimTemplates.*:map
        spec.volumeClaimTemplates.*.metadata:map spec.volumeClaimTemplates.*.metadata.name:text spec.volumeClaimTemplates.*.spec:map
        spec.volumeClaimTemplates.*.spec.accessModes:list spec.volumeClaimTemplates.*.spec.accessModes.*:text
        spec.volumeClaimTemplates.*.spec.resources:map spec.volumeClaimTemplates.*.spec.resources.requests:map
        spec.volumeClaimTemplates.*.spec.resources.requests.storage:text POD
";
const POD: &str = "metadata:map metadata.labels:map metadata.labels.*:text spec:map spec.terminationGracePeriodSeconds:number
    spec.automountServiceAccountToken:bool spec.enableServiceLinks:bool spec.securityContext:map spec.securityContext.runAsNonRoot:bool
    spec.securityContext.runAsUser:number spec.securityContext.runAsGroup:number spec.securityContext.fsGroup:number
    spec.securityContext.seccompProfile:map spec.securityContext.seccompProfile.type:text spec.affinity?:any spec.volumes:list
    spec.volumes.*:map spec.volumes.*.name:text spec.volumes.*.configMap?:map spec.volumes.*.configMap.name?:text
    spec.volumes.*.persistentVolumeClaim?:map spec.volumes.*.persistentVolumeClaim.claimName?:text spec.containers:list
    spec.containers.*:map spec.containers.*.name:text spec.containers.*.image:text spec.containers.*.imagePullPolicy:text
    spec.containers.*.args:list spec.containers.*.args.*:text spec.containers.*.env:list spec.containers.*.env.*:map
    spec.containers.*.env.*.name:text spec.containers.*.env.*.value?:text spec.containers.*.env.*.valueFrom?:any
    spec.containers.*.ports:list spec.containers.*.ports.*:map spec.containers.*.ports.*.name:text
    spec.containers.*.ports.*.containerPort:number spec.containers.*.ports.*.protocol:text spec.containers.*.resources:map
    spec.containers.*.resources.limits:map spec.containers.*.resources.limits.*?:text spec.containers.*.volumeMounts:list
    spec.containers.*.volumeMounts.*:map spec.containers.*.volumeMounts.*.name:text spec.containers.*.volumeMounts.*.mountPath:text
    spec.containers.*.volumeMounts.*.readOnly?:bool spec.containers.*.readinessProbe:any spec.containers.*.livenessProbe:any
    spec.containers.*.securityContext:map spec.containers.*.securityContext.allowPrivilegeEscalation:bool
    spec.containers.*.securityContext.readOnlyRootFilesystem:bool spec.containers.*.securityContext.capabilities:map
    spec.containers.*.securityContext.capabilities.drop:list spec.containers.*.securityContext.capabilities.drop.*:text";

fn rules(kind: &str) -> BTreeMap<String, (String, bool)> {
    let mut found = BTreeMap::new();
    let mut current = "";
    for word in SCHEMA.split_whitespace() {
        if word.starts_with(char::is_uppercase) && word != "POD" {
            current = word;
            found.extend((word == kind).then(|| (String::new(), ("map".to_owned(), false))));
        } else if current == kind {
            let (words, prefix) = match word {
                "POD" => (POD, "spec.template."),
                word => (word, ""),
            };
            if word == "POD" {
                found.insert("spec.template".into(), ("map".into(), false));
            }
            for rule in words.split_whitespace() {
                let (path, form) = rule.split_once(':').unwrap();
                let bare = path.strip_suffix('?').unwrap_or(path);
                found.insert(
                    format!("{prefix}{bare}"),
                    (form.to_owned(), path.ends_with('?')),
                );
            }
        }
    }
    assert!(!found.is_empty(), "Kubernetes' {kind} has no rules here");
    found
}

/// Every breach of the rules below `value`.
fn breaches(
    path: &str,
    value: &Value,
    rules: &BTreeMap<String, (String, bool)>,
    found: &mut Vec<String>,
) {
    let Some((form, _)) = rules.get(path) else {
        return found.push(format!("{path}: no such field"));
    };
    let fits = match form.as_str() {
        "map" => value.is_object(),
        "list" => value.is_array(),
        "text" => value.is_string(),
        "number" => value.is_u64(),
        "bool" => value.is_boolean(),
        _ => return,
    };
    if !fits {
        return found.push(format!("{path}: not a {form}: {value}"));
    }
    let below = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match value {
        Value::Array(items) => items
            .iter()
            .for_each(|item| breaches(&below("*"), item, rules, found)),
        Value::Object(fields) => {
            for (key, item) in fields {
                let own = below(key);
                let path = if rules.contains_key(&own) {
                    own
                } else {
                    below("*")
                };
                breaches(&path, item, rules, found);
            }
            let direct = rules.iter().filter_map(|(rule, (_, optional))| {
                let key = match path {
                    "" => Some(rule.as_str()),
                    path => rule.strip_prefix(path)?.strip_prefix('.'),
                }?;
                (!optional && !key.is_empty() && !key.contains('.') && key != "*").then_some(key)
            });
            found.extend(
                direct
                    .filter(|key| !fields.contains_key(*key))
                    .map(|key| format!("{}: missing", below(key))),
            );
        }
        _ => {}
    }
}

fn checked(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let kind = object["kind"].as_str().unwrap();
    let version = match kind {
        "Deployment" | "StatefulSet" => "apps/v1",
        _ => "v1",
    };
    if object["apiVersion"] != version {
        found.push(format!("apiVersion: {}", object["apiVersion"]));
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(is_name) {
        found.push(format!("metadata.name: `{name}`"));
    }
    let mut body = object.clone();
    for key in ["apiVersion", "kind", "metadata"] {
        body.as_object_mut().unwrap().remove(key);
    }
    breaches("", &body, &rules(kind), &mut found);
    found
}

#[test]
fn kubernetes_objects_have_the_fields_of_their_kind_and_no_others() {
    for object in kubernetes() {
        assert_eq!(checked(&object), Vec::<String>::new(), "{object}");
    }
}

#[test]
fn the_check_of_kubernetes_objects_sees_what_is_missing_misspelt_or_of_another_type() {
    let objects = kubernetes();
    let set = find(&objects, "StatefulSet", "broker-a");
    let broken = |path: &str, to: Option<Value>| {
        let mut broken = set.clone();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = broken.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match to {
            Some(value) => parent.insert(key.into(), value),
            None => parent.remove(key),
        };
        checked(&broken)
    };
    assert_eq!(
        broken("/spec/serviceName", None),
        ["spec.serviceName: missing"]
    );
    assert_eq!(
        broken("/spec/replicas", Some("3".into())),
        ["spec.replicas: not a number: \"3\""]
    );
    assert_eq!(
        broken(
            "/spec/template/spec/containers/0/imagePolicy",
            Some("x".into())
        ),
        ["spec.template.spec.containers.*.*: no such field"]
    );
}

#[test]
fn every_selector_finds_the_pods_that_are_meant() {
    let objects = kubernetes();
    let pods: Vec<&Value> = objects
        .iter()
        .filter_map(|o| o.pointer("/spec/template/metadata/labels"))
        .collect();
    for object in &objects {
        let selector = object.pointer("/spec/selector/matchLabels").or_else(|| {
            object
                .pointer("/spec/selector")
                .filter(|_| object["kind"] == "Service")
        });
        let Some(selector) = selector.and_then(Value::as_object) else {
            continue;
        };
        if selector.contains_key("statefulset.kubernetes.io/pod-name") {
            continue;
        }
        let matching = pods
            .iter()
            .filter(|labels| selector.iter().all(|(key, value)| labels[key] == *value));
        assert_eq!(matching.count(), 1, "{object}");
    }
}

/// The texts of a cluster whose stores lie here.
fn stored(storage: Storage, form: &Form) -> String {
    let mut spec = spec();
    spec.memory = None;
    spec.storage = storage;
    let desired = desired(&spec, &Site::Network).unwrap();
    let source = Source {
        desired: &desired,
        engine: IMAGE,
    };
    files(source, form).unwrap().remove(0).text
}

fn claim() -> Form {
    Form::Kubernetes(Claim {
        namespace: "mq".into(),
        storage: "20Gi".into(),
    })
}

#[test]
fn stores_in_directories_are_bound_in_every_form_and_the_user_is_told_whose_they_are() {
    let host = || Storage::Host {
        path: "/srv/rmq".into(),
    };
    let dir = "/srv/rmq/ci42-rmqmaster1";
    let command = format!("sudo install -d -o 3000 -g 3000 /srv/rmq/ci42-rmqnamesrv {dir}");
    for form in [Form::Compose, Form::Stack, Form::DockerRun, claim()] {
        let text = stored(host(), &form);
        assert!(text.contains(&command), "{text}");
    }
    let bound = format!("{dir}:/var/lib/rmq/store");
    let compose = read(&stored(host(), &Form::Compose));
    assert_eq!(compose["services"]["rmqmaster1"]["volumes"][1], bound);
    assert_eq!(compose["volumes"], serde_json::json!({}));
    let stack = read(&stored(host(), &Form::Stack));
    assert_eq!(stack["services"]["rmqmaster1"]["volumes"][0], bound);
    let script = stored(host(), &Form::DockerRun);
    assert!(script.contains(&format!("-v {bound}")) && !script.contains("volume create"));
    let objects: Vec<Value> = stored(host(), &claim())
        .split("\n---\n")
        .skip(1)
        .map(read)
        .collect();
    let pod = &find(&objects, "StatefulSet", "broker-a")["spec"];
    assert!(pod.get("volumeClaimTemplates").is_none());
    let pod = &pod["template"]["spec"];
    assert_eq!(pod["volumes"][1]["hostPath"]["path"], "/srv/rmq");
    assert_eq!(
        pod["containers"][0]["volumeMounts"][1]["subPathExpr"],
        "$(POD_NAME)"
    );
}

#[test]
fn stores_in_memory_have_their_size_in_every_form_and_masters_stay_down() {
    let memory = || Storage::Tmpfs {
        size: Some(256 << 20),
    };
    let compose = read(&stored(memory(), &Form::Compose));
    let master = &compose["services"]["rmqmaster1"];
    assert_eq!(
        master["tmpfs"][0],
        "/var/lib/rmq/memory:size=268435456,mode=0750,uid=3000,gid=3000"
    );
    assert_eq!(master["restart"], "no");
    assert_eq!(compose["services"]["rmqslave1"]["restart"], "always");
    let stack = read(&stored(memory(), &Form::Stack));
    let mount = &stack["services"]["rmqmaster1"]["volumes"][0];
    assert_eq!(
        (&mount["type"], &mount["tmpfs"]["size"]),
        (&"tmpfs".into(), &268_435_456.into())
    );
    let script = stored(memory(), &Form::DockerRun);
    assert!(
        script.contains("--tmpfs /var/lib/rmq/memory:size=268435456,mode=0750,uid=3000,gid=3000")
    );
    let objects: Vec<Value> = stored(memory(), &claim())
        .split("\n---\n")
        .skip(1)
        .map(read)
        .collect();
    let pod = &find(&objects, "StatefulSet", "broker-a")["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][1]["emptyDir"]["medium"], "Memory");
    assert!(!objects.iter().any(|o| o["kind"] == "PersistentVolumeClaim"));
}
