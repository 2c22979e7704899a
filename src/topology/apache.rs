//! What differs in a node that runs Apache's engine: its command line, its heap, and the address its broker registers.

use super::{Node, Role};

/// A JVM needs a limit to size its heap by; without one it would take RocketMQ's 8 GiB.
const MEMORY: u64 = 1 << 30;

/// Starts the official script as its image's own command would, in a shell that waits for it.
///
/// The scripts start `java` as a child, and the shell that is process 1 neither passes SIGTERM on nor ends by it: `docker stop` would
/// wait its time out and kill the broker, which then recovers its store at each start. So this shell passes it on to every `java`
/// and waits on. `$0` is the script's name, `$1` the properties file.
const SHELL: &str = "trap 'stopping=1; for p in /proc/[0-9]*; do read -r c <$p/comm && [ \"$c\" = java ] && kill ${p#/proc/}; done' TERM INT; \
    sh \"$0\" -c \"$1\" & child=$!; wait $child; code=$?; \
    [ -z \"$stopping\" ] || { wait $child; code=$?; }; \
    [ \"$code\" != 143 ] || [ -z \"$stopping\" ] || code=0; exit $code";

/// Makes of a node for the bundled engine one for Apache's image.
pub fn convert(node: &mut Node, image: &str) {
    let script = match node.role {
        Role::Namesrv => "mqnamesrv",
        Role::Master | Role::Slave => "mqbroker",
        // The console is ours; it speaks to either engine.
        Role::Console => return,
    };
    let file = node
        .conf_path
        .as_ref()
        .map_or_else(String::new, |path| path.display().to_string());
    node.image = Some(image.to_owned());
    node.engine_image = None;
    node.command = ["sh", "-c", SHELL, script, &file]
        .map(str::to_owned)
        .to_vec();
    let memory = *node.memory.get_or_insert(MEMORY);
    // What the user says comes last, and the last of two equal options counts.
    let said = node.env.remove("JAVA_OPT_EXT").unwrap_or_default();
    let options = format!("{} {said}", java_options(node.role, memory));
    node.env
        .insert("JAVA_OPT_EXT".to_owned(), options.trim_end().to_owned());
}

/// Half of the limit is heap, a quarter may be direct buffers (the network's); the rest is for the JVM itself and, in its control
/// group, the mapped files of the store.
fn java_options(role: Role, memory: u64) -> String {
    let mib = |bytes: u64| format!("{}m", (bytes >> 20).max(1));
    let heap = mib(memory / 2);
    let mut options = format!(
        "-Xms{heap} -Xmx{heap} -XX:MaxDirectMemorySize={} -XX:-AlwaysPreTouch",
        mib(memory / 4)
    );
    if role == Role::Namesrv {
        // Its script asks for a young generation of 2 GiB and 128 MiB of metaspace.
        options += &format!(" -Xmn{} -XX:MetaspaceSize=32m", mib(memory / 4));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ClusterSpec, Engine, Profile};
    use crate::topology::{Desired, Site, desired};

    fn cluster(change: impl Fn(&mut ClusterSpec)) -> Desired {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/x".into());
        spec.engine = Engine::parse("apache:5.4.0").unwrap();
        change(&mut spec);
        desired(&spec, &Site::Network).unwrap()
    }

    fn values(node: &Node) -> crate::spec::Properties {
        crate::properties::read(&node.file.as_ref().unwrap().1).unwrap()
    }

    #[test]
    fn nodes_run_the_official_scripts_with_a_heap_of_half_their_memory_and_the_console_is_ours() {
        let all = cluster(|spec| spec.memory = Some(2 << 30));
        let master = &all.nodes[1];
        assert_eq!(master.image.as_deref(), Some("apache/rocketmq:5.4.0"));
        assert_eq!(
            master.command[3..],
            ["mqbroker", "/etc/rmq/broker-a-master.properties"]
        );
        assert_eq!(
            master.env["JAVA_OPT_EXT"],
            "-Xms1024m -Xmx1024m -XX:MaxDirectMemorySize=512m -XX:-AlwaysPreTouch"
        );
        assert_eq!(all.nodes[0].command[3], "mqnamesrv");
        let console = all.nodes.last().unwrap();
        assert_eq!((console.role, &console.image), (Role::Console, &None));
        assert_eq!(cluster(|_| {}).nodes[1].memory, Some(1 << 30));
    }

    #[test]
    fn what_the_user_says_of_the_jvm_comes_last() {
        let all = cluster(|spec| {
            spec.env.insert("JAVA_OPT_EXT".into(), "-Xmx99m".into());
        });
        assert!(all.nodes[1].env["JAVA_OPT_EXT"].ends_with(" -XX:-AlwaysPreTouch -Xmx99m"));
    }

    #[test]
    fn a_broker_registers_the_one_address_that_the_host_and_the_network_reach() {
        let all = cluster(|spec| spec.subnet = Some("172.28.0.0/16".into()));
        assert_eq!(all.advertise, "172.28.0.1");
        assert_eq!(all.gateway, Some([172, 28, 0, 1].into()));
        let slave = values(&all.nodes[2]);
        assert_eq!(slave["brokerIP1"], "172.28.0.1");
        assert_eq!(slave["brokerIP2"], "rmqslave1");
        assert_eq!(slave["storePathCommitLog"], "/var/lib/rmq/store/commitlog");
        assert!(!slave.contains_key("brokerInternalAddr"));

        let all = cluster(|spec| spec.advertise = "10.0.0.5".into());
        assert_eq!(
            (all.advertise.as_str(), all.gateway, all.subnet),
            ("10.0.0.5", None, None)
        );
    }

    #[test]
    fn processes_cannot_run_apaches_images() {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/x".into());
        spec.engine = Engine::parse("apache").unwrap();
        let site = Site::Loopback { dir: "/d".into() };
        assert_eq!(desired(&spec, &site).unwrap_err().id, "RMQ-E107");
    }
}
