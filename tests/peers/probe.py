#!/usr/bin/env python3
"""Remoting probe of the reference cluster: waits for its processes, or shows what the name server knows.

    probe.py wait NAMESRV[,NAMESRV...] TIMEOUT NODE...   NODE = name:kind:pid:start:addr, kind namesrv|broker|proxy|port
    probe.py cluster NAMESRV                             one line per registered broker
    probe.py synced NAMESRV TIMEOUT N                    until N slaves are connected to their masters
    probe.py config BROKER KEY                           one property of a broker, as the broker itself reports it
"""
import base64, hashlib, hmac, json, os, re, socket, struct, sys, time

GET_BROKER_CONFIG, GET_BROKER_CLUSTER_INFO, GET_BROKER_HA_STATUS = 26, 106, 907


def exchange(connection, code, ext, body=b""):
    """Head and body of the answer to a request over an open connection."""
    header = json.dumps({"code": code, "language": "OTHER", "version": 477, "opaque": 1, "flag": 0,
                         "serializeTypeCurrentRPC": "JSON", "extFields": {k: str(v) for k, v in ext.items()}}).encode()
    connection.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
        more = connection.recv(65536)
        if not more:
            raise OSError("closed")
        data += more
    head_len = struct.unpack(">I", data[4:8])[0] & 0xFFFFFF
    return json.loads(data[8:8 + head_len]), data[8 + head_len:]


def ask(addr, code, ext=None, timeout=1.0):
    """The body of the answer, as text."""
    host, port = addr.rsplit(":", 1)
    if os.environ.get("RMQ_ACL"):
        user, secret = os.environ["RMQ_ACL"].split(":", 1)
        ext = dict(ext or {}, AccessKey=user)
        signed = "".join(str(ext[k]) for k in sorted(ext)).encode()
        ext["Signature"] = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha1).digest()).decode()
    with socket.create_connection((host, int(port)), timeout) as s:
        s.settimeout(timeout)
        head, body = exchange(s, code, ext or {})
    if head["code"] != 0:
        raise OSError(f"code {head['code']}: {head.get('remark')}")
    return body.decode()


def call(addr, code, ext=None, timeout=1.0):
    body = ask(addr, code, ext, timeout)
    # Broker ids are written as bare numbers, which JSON does not allow as keys.
    return json.loads(re.sub(r"([{,])\s*(\d+)\s*:", r'\1"\2":', body)) if body else None


def brokers(namesrv):
    table = (call(namesrv, GET_BROKER_CLUSTER_INFO) or {}).get("brokerAddrTable") or {}
    return {addr: (name, int(bid)) for name, b in table.items() for bid, addr in b["brokerAddrs"].items()}


def ha(master):
    return call(master, GET_BROKER_HA_STATUS)


def cpu(pid):
    try:
        f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


def wait(namesrvs, timeout, nodes):
    pending, deadline = dict(), time.time() + timeout
    for n in nodes:
        pending[n[0]] = n
    while pending:
        known = None
        for name, kind, pid, start, addr in list(pending.values()):
            ok = False
            try:
                if kind == "namesrv":
                    call(addr, GET_BROKER_CLUSTER_INFO)
                    ok = True
                elif kind == "broker":
                    if known is None:
                        known = [brokers(x) for x in namesrvs]
                    ok = all(addr in k for k in known)
                else:
                    host, port = addr.rsplit(":", 1)
                    socket.create_connection((host, int(port)), 1).close()
                    ok = True
            except (OSError, ValueError):
                ok = False
            if ok:
                now = time.time()
                print(f"  {name:<14} ready in {now - float(start):6.2f} s, {cpu(pid):5.2f} s of CPU  (pid {pid}, {addr})", flush=True)
                del pending[name]
            elif not os.path.exists(f"/proc/{pid}"):
                print(f"  {name:<14} DIED (pid {pid})", flush=True)
                return 1
        if time.time() > deadline:
            print("  timed out waiting for " + ", ".join(pending), flush=True)
            return 1
        time.sleep(0.05)
    return 0


def synced(namesrv, timeout, want):
    begin = time.time()
    while time.time() - begin < timeout:
        try:
            n = sum(len(ha(a).get("haConnectionInfo") or []) for a, (_, bid) in brokers(namesrv).items() if bid == 0)
            if n >= want:
                print(f"  {n} slave(s) replicating after another {time.time() - begin:.2f} s")
                return 0
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    print("  timed out waiting for the slaves to connect")
    return 1


def main(argv):
    if argv[:1] == ["wait"]:
        nodes = []
        for spec in argv[3:]:
            name, kind, pid, start, addr = spec.split(":", 4)
            nodes.append((name, kind, pid, start, addr))
        return wait(argv[1].split(","), float(argv[2]), nodes)
    if argv[:1] == ["synced"]:
        return synced(argv[1], float(argv[2]), int(argv[3]))
    if argv[:1] == ["config"]:
        # Properties, one a line; the last of a key counts.
        values = [line.split("=", 1)[1] for line in ask(argv[1], GET_BROKER_CONFIG).splitlines() if line.split("=", 1)[0].strip() == argv[2]]
        if not values:
            print(f"{argv[1]} reports no property {argv[2]}", file=sys.stderr)
            return 1
        print(values[-1].strip())
        return 0
    if argv[:1] == ["cluster"]:
        for addr, (name, bid) in sorted(brokers(argv[1]).items(), key=lambda x: x[1]):
            line = f"  {name:<14} id {bid}  {addr}"
            if bid == 0:
                try:
                    h = ha(addr)
                    line += "  slaves " + (", ".join(f"{c['addr']} behind {c['diff']} B" for c in h.get("haConnectionInfo") or []) or "none")
                except (OSError, ValueError, KeyError) as e:
                    line += f"  ({e})"
            print(line)
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
