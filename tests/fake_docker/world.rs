//! What a daemon keeps and how it answers: containers, networks, volumes and images in memory, by the rules of moby 20.10
//! (`daemon/` and `api/server/router/`), and of 29 where the two differ. It runs nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Which daemon to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// 20.10: two networks may have one name.
    V20,
    /// 29: a name is a network's own.
    V29,
}

/// An answer: status and body. `None` is an empty body.
pub type Answer = (u16, Option<Value>);

/// A request as the daemon understands it.
pub struct Request<'a> {
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    pub query: BTreeMap<String, String>,
    pub body: &'a [u8],
}

#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub name: String,
    /// The body that it was created with.
    pub spec: Value,
    pub status: String,
    pub exit_code: i64,
    pub started: u64,
    /// Set at the first start, as moby does: a later start looks for this very network.
    pub network_id: String,
    /// Uploaded files, by path.
    pub files: BTreeMap<String, String>,
    pub volumes: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub id: String,
    pub name: String,
    pub created: u64,
    pub labels: Value,
}

#[derive(Clone, Debug)]
pub struct Volume {
    pub name: String,
    pub created: u64,
    pub labels: Value,
}

#[derive(Clone, Debug)]
pub struct World {
    pub release: Release,
    pub containers: Vec<Container>,
    pub networks: Vec<Network>,
    pub volumes: Vec<Volume>,
    /// Labels by tag.
    pub images: BTreeMap<String, Value>,
    /// Brokers of ours that name servers tell clients not to send to.
    pub closed: BTreeSet<String>,
    clock: u64,
    /// How often each name was given, so that an id is the same in every run.
    given: BTreeMap<String, u32>,
}

impl Container {
    pub fn labels(&self) -> &Value {
        &self.spec["Labels"]
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()[key].as_str()
    }

    pub fn runs(&self) -> bool {
        matches!(self.status.as_str(), "running" | "paused")
    }

    /// Address and port on the host of everything that it publishes.
    pub fn published(&self) -> Vec<(String, u16)> {
        let bindings = self.spec["HostConfig"]["PortBindings"].as_object();
        bindings
            .into_iter()
            .flat_map(|ports| ports.values())
            .flat_map(|to| to.as_array().into_iter().flatten())
            .filter_map(|to| {
                let port = to["HostPort"].as_str()?.parse().ok()?;
                Some((to["HostIp"].as_str()?.to_owned(), port))
            })
            .collect()
    }

    fn network_mode(&self) -> &str {
        self.spec["HostConfig"]["NetworkMode"]
            .as_str()
            .unwrap_or("bridge")
    }

    fn inspect(&self) -> Value {
        json!({
            "Id": self.id,
            "Name": format!("/{}", self.name),
            "RestartCount": 0,
            "Config": {"Labels": self.labels(), "Image": self.spec["Image"]},
            "State": {
                "Status": self.status,
                "Running": self.runs(),
                "Paused": self.status == "paused",
                "Restarting": false,
                "OOMKilled": false,
                "Dead": false,
                "Pid": 0,
                "ExitCode": self.exit_code,
                "StartedAt": time(self.started),
            },
            "HostConfig": {"PortBindings": self.spec["HostConfig"]["PortBindings"]},
            "NetworkSettings": {
                "Networks": {self.network_mode(): {"NetworkID": self.network_id}},
            },
        })
    }

    fn summary(&self) -> Value {
        let ports: Vec<Value> = self
            .published()
            .into_iter()
            .filter(|_| self.runs())
            .map(|(ip, port)| json!({"IP": ip, "PrivatePort": port, "PublicPort": port, "Type": "tcp"}))
            .collect();
        json!({
            "Id": self.id,
            "Names": [format!("/{}", self.name)],
            "Image": self.spec["Image"],
            "Labels": self.labels(),
            "State": self.status,
            "Ports": ports,
        })
    }
}

impl World {
    pub fn new(release: Release) -> World {
        World {
            release,
            containers: Vec::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
            images: BTreeMap::new(),
            closed: BTreeSet::new(),
            clock: 0,
            given: BTreeMap::new(),
        }
    }

    /// The state as text, without ids and times: two worlds that read the same are the same to a person.
    pub fn text(&self) -> String {
        let mut lines = BTreeSet::new();
        for c in &self.containers {
            let labels = labels_text(c.labels());
            let volumes = c.volumes.iter().filter(|v| !is_hash(v));
            let volumes: Vec<_> = volumes.map(String::as_str).collect();
            lines.insert(format!(
                "container {} {} of {} in {} [{labels}] volumes {volumes:?} files {:?}",
                c.name,
                c.status,
                c.spec["Image"],
                c.network_mode(),
                c.files
            ));
        }
        for n in &self.networks {
            lines.insert(format!("network {} [{}]", n.name, labels_text(&n.labels)));
        }
        for v in &self.volumes {
            let name = if is_hash(&v.name) {
                "(anonymous)"
            } else {
                &v.name
            };
            lines.insert(format!("volume {name} [{}]", labels_text(&v.labels)));
        }
        for broker in &self.closed {
            lines.insert(format!("{broker} is closed to sends"));
        }
        // Sets swallow doubles, and a double is what is looked for.
        let (c, n, v) = (
            self.containers.len(),
            self.networks.len(),
            self.volumes.len(),
        );
        lines.insert(format!("{c} containers, {n} networks, {v} volumes"));
        lines.into_iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }

    /// Only what carries this label, or only what does not.
    pub fn part(&self, cluster: &str, ours: bool) -> World {
        let keep = |labels: &Value| (labels["io.rmqctl.cluster"] == cluster) == ours;
        let mut part = self.clone();
        part.containers.retain(|c| keep(c.labels()));
        part.networks.retain(|n| keep(&n.labels));
        part.volumes.retain(|v| keep(&v.labels));
        if !ours {
            part.closed.clear();
        }
        part
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn id(&mut self, name: &str) -> String {
        let times = self.given.entry(name.to_owned()).or_default();
        *times += 1;
        let hash = Sha256::digest(format!("{name}#{times}"));
        hash.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// Answers a request; a stream of events, an exec and a log are the server's own.
    pub fn answer(&mut self, request: &Request) -> Answer {
        let parts: Vec<&str> = request.path.split('/').filter(|p| !p.is_empty()).collect();
        let body = || serde_json::from_slice::<Value>(request.body).unwrap_or(Value::Null);
        match (request.method, parts.as_slice()) {
            ("GET", ["version"]) => (200, Some(self.version())),
            ("GET", ["containers", "json"]) => (200, Some(self.list_containers(request))),
            ("POST", ["containers", "create"]) => self.create_container(request, body()),
            (method, ["containers", name, rest @ ..]) => {
                self.container(method, name, rest, request)
            }
            ("GET", ["networks"]) => (200, Some(self.list_networks(request))),
            ("POST", ["networks", "create"]) => self.create_network(&body()),
            ("DELETE", ["networks", name]) => self.remove_network(name),
            ("GET", ["volumes"]) => (200, Some(self.list_volumes(request))),
            ("POST", ["volumes", "create"]) => self.create_volume(&body()),
            (method, ["volumes", name]) => self.volume(method, name),
            ("GET", ["images", image @ .., "json"]) => {
                let tag = image.join("/");
                match self.images.get(&tag) {
                    Some(labels) => (200, Some(json!({"Id": tag, "Config": {"Labels": labels}}))),
                    None => refused(404, format!("No such image: {tag}")),
                }
            }
            // One that was run has ended well: its output is what tells.
            ("GET", ["exec", id, "json"]) => (
                200,
                Some(json!({"ID": id, "Running": false, "ExitCode": 0})),
            ),
            ("POST", ["images", "load"]) => self.load_image(request),
            ("POST", ["images", image @ .., "tag"]) => {
                let tag = image.join("/");
                match self.images.contains_key(&tag) {
                    true => (201, None),
                    false => refused(404, format!("No such image: {tag}")),
                }
            }
            _ => refused(
                404,
                format!("page not found: {} {}", request.method, request.path),
            ),
        }
    }

    fn version(&self) -> Value {
        let (version, api) = match self.release {
            Release::V20 => ("20.10.24", "1.41"),
            Release::V29 => ("29.0.1", "1.52"),
        };
        let arch = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        json!({"Version": version, "ApiVersion": api, "Os": "linux", "Arch": arch})
    }

    fn list_containers(&self, request: &Request) -> Value {
        let all = request.query.contains_key("all");
        let filters = Filters::of(request);
        let listed = self.containers.iter();
        listed
            .filter(|c| (all || c.runs()) && filters.labels_match(c.labels()))
            .map(Container::summary)
            .collect()
    }

    fn create_container(&mut self, request: &Request, spec: Value) -> Answer {
        let name = request.query.get("name").cloned().unwrap_or_default();
        let image = spec["Image"].as_str().unwrap_or_default();
        if !self.images.contains_key(image) {
            return refused(404, format!("No such image: {image}"));
        }
        if let Some(other) = self.containers.iter().find(|c| c.name == name) {
            return refused(
                409,
                format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \"{}\".",
                    other.id
                ),
            );
        }
        let id = self.id(&name);
        let mut volumes = Vec::new();
        for mount in spec["HostConfig"]["Mounts"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let source = mount["Source"]
                .as_str()
                .filter(|s| !s.is_empty())
                .map(str::to_owned);
            let volume = source.unwrap_or_else(|| self.id(&format!("{name}:{}", mount["Target"])));
            let labels = json!({"Name": volume, "Labels": mount["VolumeOptions"]["Labels"]});
            self.create_volume(&labels);
            volumes.push(volume);
        }
        self.containers.push(Container {
            id: id.clone(),
            name,
            spec,
            status: "created".into(),
            exit_code: 0,
            started: 0,
            network_id: String::new(),
            files: BTreeMap::new(),
            volumes,
        });
        (201, Some(json!({"Id": id, "Warnings": []})))
    }

    /// A running container that nobody of us made.
    pub fn create_stranger(&mut self, name: &str, labels: Value) {
        let id = self.id(name);
        self.containers.push(Container {
            id,
            name: name.into(),
            spec: json!({"Image": "redis:7", "Labels": labels}),
            status: "running".into(),
            exit_code: 0,
            started: 1,
            network_id: String::new(),
            files: BTreeMap::new(),
            volumes: Vec::new(),
        });
    }

    fn container(&mut self, method: &str, name: &str, rest: &[&str], request: &Request) -> Answer {
        let Some(at) = self
            .containers
            .iter()
            .position(|c| c.name == name || c.id == name)
        else {
            return refused(404, format!("No such container: {name}"));
        };
        match (method, rest) {
            ("GET", ["json"]) => (200, Some(self.containers[at].inspect())),
            ("GET", ["stats"]) => (
                200,
                Some(json!({"memory_stats": {"usage": 1 << 20, "stats": {"anon": 1 << 20}}})),
            ),
            ("POST", ["start"]) => self.start(at),
            ("POST", ["stop"]) => self.stop(at, "exited", 0),
            ("POST", ["kill"]) => self.stop(at, "exited", 137),
            ("POST", ["pause"]) => self.stop(at, "paused", 0),
            ("POST", ["unpause"]) => {
                self.containers[at].status = "running".into();
                (204, None)
            }
            ("PUT", ["archive"]) => self.upload(at, request),
            ("DELETE", []) => self.remove_container(at, request),
            _ => refused(404, format!("page not found: {method} {name} {rest:?}")),
        }
    }

    fn start(&mut self, at: usize) -> Answer {
        let container = &self.containers[at];
        if container.runs() {
            return (304, None);
        }
        let wanted = match container.network_id.as_str() {
            "" => container.network_mode(),
            id => id,
        };
        let named: Vec<&Network> = self
            .networks
            .iter()
            .filter(|n| n.name == wanted || n.id == wanted)
            .collect();
        let network = match named.as_slice() {
            [] => return refused(404, format!("network {wanted} not found")),
            [one] => one.id.clone(),
            many => {
                return refused(
                    400,
                    format!(
                        "network {wanted} is ambiguous ({} matches found on name)",
                        many.len()
                    ),
                );
            }
        };
        let ports = container.published();
        let others = self.containers.iter().filter(|c| c.runs());
        if let Some((_, port)) = others
            .flat_map(Container::published)
            .find(|p| ports.contains(p))
        {
            return refused(
                500,
                format!(
                    "driver failed programming external connectivity: Bind for 127.0.0.1:{port} failed: port is already allocated"
                ),
            );
        }
        let started = self.tick();
        let container = &mut self.containers[at];
        container.network_id = network;
        container.status = "running".into();
        container.started = started;
        (204, None)
    }

    fn stop(&mut self, at: usize, status: &str, exit_code: i64) -> Answer {
        let container = &mut self.containers[at];
        if !container.runs() {
            return (304, None);
        }
        container.status = status.into();
        container.exit_code = exit_code;
        (204, None)
    }

    fn remove_container(&mut self, at: usize, request: &Request) -> Answer {
        let is = |key: &str| request.query.get(key).is_some_and(|v| v == "true");
        if self.containers[at].runs() && !is("force") {
            return refused(409, "You cannot remove a running container. Stop the container before attempting removal or force remove".into());
        }
        let gone = self.containers.remove(at);
        if is("v") {
            self.volumes
                .retain(|v| !is_hash(&v.name) || !gone.volumes.contains(&v.name));
        }
        (204, None)
    }

    fn upload(&mut self, at: usize, request: &Request) -> Answer {
        let Some(dir) = request.query.get("path") else {
            return refused(400, "path cannot be empty".into());
        };
        // Compressed archives are unpacked with the container's own tools (GHSA-x86f-5xw2-fm2r).
        if !is_tar(request.body) {
            return refused(
                400,
                "this daemon takes uncompressed tar archives only".into(),
            );
        }
        let mut archive = tar::Archive::new(request.body);
        for entry in archive.entries().expect("it begins as a tar") {
            let Ok(mut entry) = entry else {
                return refused(500, "unexpected EOF".into());
            };
            let path = format!("{dir}/{}", entry.path().expect("a path in UTF-8").display());
            let Ok(text) = std::io::read_to_string(&mut entry) else {
                return refused(500, "unexpected EOF".into());
            };
            self.containers[at].files.insert(path, text);
        }
        (200, None)
    }

    /// The file of a container that a download asks for, as a tar.
    pub fn download(&self, name: &str, path: &str) -> Option<Vec<u8>> {
        let container = self
            .containers
            .iter()
            .find(|c| c.name == name || c.id == name)?;
        let text = container.files.get(path)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let mut archive = tar::Builder::new(Vec::new());
        let name = path.rsplit('/').next()?;
        archive
            .append_data(&mut header, name, text.as_bytes())
            .ok()?;
        archive.into_inner().ok()
    }

    fn list_networks(&self, request: &Request) -> Value {
        let filters = Filters::of(request);
        let listed = self.networks.iter();
        listed
            .filter(|n| filters.labels_match(&n.labels) && filters.name_matches(&n.name))
            .map(|n| {
                json!({
                    "Id": n.id, "Name": n.name, "Created": time(n.created), "Driver": "bridge", "Labels": n.labels,
                    "IPAM": {"Config": [{"Subnet": "172.28.0.0/16", "Gateway": "172.28.0.1"}]},
                })
            })
            .collect()
    }

    pub fn create_network(&mut self, spec: &Value) -> Answer {
        let name = spec["Name"].as_str().unwrap_or_default().to_owned();
        let taken = self.networks.iter().any(|n| n.name == name);
        if taken && self.release == Release::V29 {
            return refused(409, format!("network with name {name} already exists"));
        }
        let network = Network {
            id: self.id(&format!("network {name}")),
            created: self.tick(),
            labels: spec["Labels"].clone(),
            name,
        };
        let answer = json!({"Id": network.id, "Warning": ""});
        self.networks.push(network);
        (201, Some(answer))
    }

    fn remove_network(&mut self, name: &str) -> Answer {
        let named: Vec<String> = self
            .networks
            .iter()
            .filter(|n| n.name == name || n.id == name)
            .map(|n| n.id.clone())
            .collect();
        let id = match named.as_slice() {
            [] => return refused(404, format!("network {name} not found")),
            [one] => one,
            _ => return refused(400, format!("network {name} is ambiguous")),
        };
        if self
            .containers
            .iter()
            .any(|c| c.runs() && c.network_id == *id)
        {
            return refused(
                403,
                format!(
                    "error while removing network: network {name} id {id} has active endpoints"
                ),
            );
        }
        self.networks.retain(|n| n.id != *id);
        (204, None)
    }

    fn list_volumes(&self, request: &Request) -> Value {
        let filters = Filters::of(request);
        let listed = self
            .volumes
            .iter()
            .filter(|v| filters.labels_match(&v.labels));
        json!({"Volumes": listed.map(Volume::json).collect::<Value>(), "Warnings": null})
    }

    /// One that stands already is the answer, with its own labels.
    pub fn create_volume(&mut self, spec: &Value) -> Answer {
        let name = spec["Name"].as_str().unwrap_or_default();
        if !self.volumes.iter().any(|v| v.name == name) {
            let created = self.tick();
            self.volumes.push(Volume {
                name: name.into(),
                created,
                labels: spec["Labels"].clone(),
            });
        }
        let volume = self.volumes.iter().find(|v| v.name == name);
        (201, volume.map(Volume::json))
    }

    fn volume(&mut self, method: &str, name: &str) -> Answer {
        let Some(at) = self.volumes.iter().position(|v| v.name == name) else {
            return refused(404, format!("get {name}: no such volume"));
        };
        match method {
            "GET" => (200, Some(self.volumes[at].json())),
            "DELETE"
                if self
                    .containers
                    .iter()
                    .any(|c| c.volumes.iter().any(|v| v == name)) =>
            {
                refused(409, format!("remove {name}: volume is in use"))
            }
            "DELETE" => {
                self.volumes.remove(at);
                (204, None)
            }
            _ => refused(405, "method not allowed".into()),
        }
    }

    fn load_image(&mut self, request: &Request) -> Answer {
        if !is_tar(request.body) {
            return refused(400, "an image is an uncompressed tar".into());
        }
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(request.body);
        for entry in archive.entries().expect("a slice can be read") {
            let Ok(mut entry) = entry else {
                return refused(500, "archive/tar: invalid tar header".into());
            };
            let name = entry.path().expect("a path in UTF-8").display().to_string();
            if name.ends_with(".json") {
                let text = std::io::read_to_string(&mut entry).unwrap_or_default();
                files.insert(
                    name,
                    serde_json::from_str::<Value>(&text).unwrap_or_default(),
                );
            }
        }
        let Some(image) = files.get("manifest.json").map(|m| m[0].clone()) else {
            return refused(500, "no manifest.json".into());
        };
        let config = image["Config"].as_str().and_then(|name| files.get(name));
        let labels = config
            .map(|c| c["config"]["Labels"].clone())
            .unwrap_or_default();
        for tag in image["RepoTags"].as_array().into_iter().flatten() {
            self.images
                .insert(tag.as_str().unwrap_or_default().into(), labels.clone());
        }
        (200, Some(json!({"stream": "Loaded image\n"})))
    }
}

impl Volume {
    fn json(&self) -> Value {
        json!({
            "Name": self.name, "Driver": "local", "Mountpoint": "/x", "Scope": "local", "Options": {},
            "CreatedAt": time(self.created), "Labels": self.labels,
        })
    }
}

/// `?filters=` of a list.
struct Filters(Value);

impl Filters {
    fn of(request: &Request) -> Filters {
        let text = request.query.get("filters");
        Filters(
            text.and_then(|t| serde_json::from_str(t).ok())
                .unwrap_or_default(),
        )
    }

    fn values(&self, key: &str) -> Vec<&str> {
        let values = self.0[key].as_array().into_iter().flatten();
        values.filter_map(Value::as_str).collect()
    }

    fn labels_match(&self, labels: &Value) -> bool {
        self.values("label")
            .iter()
            .all(|want| match want.split_once('=') {
                Some((key, value)) => labels[key] == value,
                None => labels.get(want).is_some(),
            })
    }

    /// The daemon's match of names is of parts of them.
    fn name_matches(&self, name: &str) -> bool {
        let names = self.values("name");
        names.is_empty() || names.iter().any(|part| name.contains(part))
    }
}

fn refused(status: u16, message: String) -> Answer {
    (status, Some(json!({"message": message})))
}

/// Ids, and names of volumes that nobody named.
fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_tar(body: &[u8]) -> bool {
    body.get(257..262) == Some(b"ustar")
}

fn labels_text(labels: &Value) -> String {
    let all = labels.as_object().into_iter().flatten();
    let mut all: Vec<String> = all.map(|(k, v)| format!("{k}={v}")).collect();
    all.sort();
    all.join(" ")
}

/// The nth second of a day.
fn time(second: u64) -> String {
    match second {
        0 => "0001-01-01T00:00:00Z".into(),
        n => format!(
            "2026-11-25T{:02}:{:02}:{:02}.5Z",
            n / 3600,
            n / 60 % 60,
            n % 60
        ),
    }
}
