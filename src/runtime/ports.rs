//! Who holds a TCP port of this host: tried by binding, named by reading /proc.

use std::net::{IpAddr, SocketAddr, TcpListener};

/// Who holds `port` on `bind`, in words for a person; `None` when it is free.
///
/// Binding is the only sure test (it sees every user's sockets and other network namespaces' proxies alike); /proc then names
/// the process where this user may look into it.
pub fn holder(bind: IpAddr, port: u16) -> Option<String> {
    match TcpListener::bind(SocketAddr::new(bind, port)) {
        Ok(_) => None,
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Some(
            process_listening_on(port).unwrap_or_else(|| "a process of another user".to_string()),
        ),
        // Not ours to bind (a low port, a foreign address): the runtime's own attempt will say so if it is so for it too.
        Err(_) => None,
    }
}

/// `java (pid 4711)`: the process that listens on `port`, if /proc shows it to us.
fn process_listening_on(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| listening_inodes(&text, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(fds) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for fd in fds.flatten() {
            let Ok(target) = std::fs::read_link(fd.path()) else {
                continue;
            };
            if inodes.iter().any(|i| target.as_os_str() == i.as_str()) {
                let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
                return Some(format!("process {} (pid {pid})", name.trim()));
            }
        }
    }
    None
}

/// Inodes of the sockets that listen on `port` in the text of `/proc/net/tcp` or `tcp6`.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, hex) = fields.get(1)?.rsplit_once(':')?;
            let listens = *fields.get(3)? == LISTEN && u16::from_str_radix(hex, 16).ok()? == port;
            listens.then(|| fields.get(9)?.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_the_process_that_holds_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = holder("127.0.0.1".parse().unwrap(), port).unwrap();
        assert!(
            holder.contains(&format!("pid {}", std::process::id())),
            "{holder}"
        );
        drop(listener);
    }

    #[test]
    fn only_listening_sockets_of_that_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2A9F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:2A9F 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 0100007F:2AA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
";
        assert_eq!(listening_inodes(table, 10911), [111]);
    }
}
