#!/usr/bin/env bash
# replication between engines: an Apache slave follows our master, our slave an Apache master
# needs: peers rmqctl rmqload
# beside: export
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
runtime=process cluster=rmqj offset=11400
namesrv=127.0.0.1:$((9876 + offset)) master1=127.0.0.1:$((10911 + offset))
java_namesrv=127.0.0.1:$((9876 + offset + 50)) java_port=$((10911 + offset + 50)) slave_port=$((10911 + offset + 80))
slave=
stop_all() { [ -z "$slave" ] || { kill "$slave" && wait "$slave"; } 2>/dev/null; apache wipe; }
owns_cluster stop_all
slave_conf() { # NAMESRV STORE
    printf '%s\n' brokerClusterName=DefaultCluster brokerName=broker-a brokerId=1 brokerRole=SLAVE "namesrvAddr=$1" \
        bindAddress=127.0.0.1 brokerIP1=127.0.0.1 brokerIP2=127.0.0.1 "listenPort=$slave_port" "haListenPort=$((slave_port + 1))" \
        "storePathRootDir=$2" "storePathCommitLog=$2/commitlog" slaveReadEnable=true "mappedFileSizeCommitLog=$3"
}
answers() { # its log says why it does not, when it does not
    (exec 3<>"/dev/tcp/127.0.0.1/$slave_port") 2>/dev/null
}
on_the_slave() { load verify --addr "127.0.0.1:$slave_port" --topic "$1" --acked "$2" --settle-ms 500; }

ours_comes_up() { up --masters 1 --slaves 0 --no-console; produce before 5000 "$work/before.log"; }
check ours_comes_up ours_comes_up
[ "$last" = 0 ] || exit 1
segment=$(sed -n 's/^mappedFileSizeCommitLog *= *//p' "$work/conf/broker-a-master.properties")
mkdir -p "$work/java-slave"; slave_conf "$namesrv" "$work/java-slave/store" "$segment" >"$work/java-slave/broker.conf"
ROCKETMQ_HOME=$work/java-slave java -Xms256m -Xmx512m -XX:+UseSerialGC -Duser.home="$work/java-slave" -Drmq.logback.configurationFile=rmq.broker.logback.xml \
    -cp "$apache_lib/*" org.apache.rocketmq.broker.BrokerStartup -c "$work/java-slave/broker.conf" >"$log/peers.java-slave.log" 2>&1 </dev/null &
slave=$!
an_apache_slave_follows_our_master() {
    within 60 answers || { tail -5 "$log/peers.java-slave.log"; return 1; }
    python3 tests/peers/probe.py synced "$namesrv" 90 1
    produce after 5000 "$work/after.log"
    # An Apache slave copies topics every 60 s.
    within 100 on_the_slave before "$work/before.log"
    within 100 on_the_slave after "$work/after.log"
}
check an_apache_slave_follows_our_master an_apache_slave_follows_our_master
kill "$slave" 2>/dev/null && wait "$slave" 2>/dev/null || true; slave=
wipe_cluster

apache_comes_up() {
    apache up --masters 1 --namesrv-port "${java_namesrv##*:}" --base-port "$java_port" --heap 512m --set "mappedFileSizeCommitLog=$segment"
    lenient=1 namesrv=$java_namesrv produce before 5000 "$work/jbefore.log"
}
check apache_comes_up apache_comes_up
[ "$last" = 0 ] || exit 1
mkdir -p "$work/our-slave"; slave_conf "$java_namesrv" "$work/our-slave/store" "$segment" >"$work/our-slave/broker.properties"
"$RMQCTL" engine broker -c "$work/our-slave/broker.properties" >"$log/peers.our-slave.log" 2>&1 </dev/null &
slave=$!
our_slave_follows_an_apache_master() {
    within 30 answers || { tail -5 "$log/peers.our-slave.log"; return 1; }
    python3 tests/peers/probe.py synced "$java_namesrv" 60 1
    lenient=1 namesrv=$java_namesrv produce after 5000 "$work/jafter.log"
    within 60 on_the_slave before "$work/jbefore.log"
    within 60 on_the_slave after "$work/jafter.log"
}
check our_slave_follows_an_apache_master our_slave_follows_an_apache_master
[ "$failed" = 0 ]
