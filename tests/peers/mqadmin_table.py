#!/usr/bin/env python3
"""Every mqadmin subcommand on two clusters, one of Apache's brokers and one of ours, as a Markdown table.

    tests/peers/cluster.sh up --masters 2 --slaves 2 --store /tmp/java --namesrv-port 19876 --base-port 21911 --wait-sync \\
        --set traceTopicEnable=true --set slaveReadEnable=true
    rmqctl --name ours up --runtime process --masters 2 --slaves 2 --port-offset 20000 --set traceTopicEnable=true
    tests/peers/mqadmin_table.py --java 127.0.0.1:19876 --ours 127.0.0.1:29876 >tests/peers/mqadmin-table.md

Both clusters, fresh ones, are given the same data first: topics, a group that reads and stays, a group that read and left, messages with
keys. Both need two masters and two slaves, named broker-a and broker-b in DefaultCluster. Each command is run once on each
cluster, with what it prints (and the files it writes) compared after addresses, times and ids have been given names. A
difference is explained beside the command, in CASES below. The exit code is 1 when one is not, when one that was explained is
gone, or when the tool has a subcommand that is not in CASES. `--only WORD` runs only the commands whose line contains WORD;
`--keep DIR` keeps what both printed.

Needs a JDK 17 to 23 and what install.sh puts in place; the commands run in one JVM for each cluster (MqadminDriver.java).
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
HOME = pathlib.Path(os.environ.get("RMQ_PEER_HOME", pathlib.Path.home() / ".cache/rmq-peers/apache"))

# In MqaOrders: eight queues of three messages.
MESSAGES = 24


class Case:
    """One command line. {n} is the name server, {a} {b} the masters of broker-a and broker-b, {sa} a slave, {id} and {oid}
    the unique and the offset id of a message, {dir} a directory of files, {out} one whose files are part of the output."""

    def __init__(self, line, why="", ms=25_000, sub=(), keys=False):
        self.line = line
        # Why Java and we differ. Empty: we must not.
        self.why = why
        self.ms = ms
        # More to normalise: (pattern, replacement).
        self.sub = sub
        # Compare the names before ':' or '=' in each line, and not the values.
        self.keys = keys

    @property
    def command(self):
        return self.line.split()[0]


TRANSACTIONS = (
    "Java 5.5 has two topics more, for transactions in RocksDB; our check of transactions notes its offsets from the start, "
    "Java's with the first one"
)
PROPERTIES = "Java lists all it knows, ours what has an effect; the others are accepted in a file, with a warning"
MORE = "one figure more: the version as a number"
NO_POP_STORE = "it empties the RocksDB form of POP into the log's; there is no such form here: code 3"
NO_LITE = "lite topics are not offered: code 3"
NO_ROCKSDB = "RocksDB stores are not offered: code 3"
NO_COLD = "cold data flow control is not offered: code 3"
NO_ACL = "users and ACL are not offered yet: code 3"
NO_STATIC = "static topics are not offered: code 3"

# The retry topic's queues are given out with the second rebalance: there or not yet, by chance.
RETRY = ((r"^%RETRY%.*\n", ""),)
# Which broker is asked first is the order of a route.
ANY_BROKER = ((r"BROKER: broker-[ab]:0", "BROKER: A_MASTER"),)

CASES = [
    # First, since rates are those of the last minute.
    Case("statsAll -n {n}", TRANSACTIONS),
    Case("statsAll -n {n} -a -t MqaOrders"),
    Case("clusterList -n {n}"),
    Case("clusterList -n {n} -m"),
    Case("clusterList -n {n} -c DefaultCluster"),
    Case("brokerStatus -n {n} -b {a}", MORE, keys=True),
    Case("brokerStatus -n {n} -c DefaultCluster", MORE, keys=True),
    Case("brokerStatus -n {n} -c NoSuchCluster"),
    # Topics
    Case("updateTopic -n {n} -c DefaultCluster -t MqaNew -r 4 -w 4"),
    Case("updateTopic -n {n} -b {a} -t MqaFifo -a +message.type=FIFO"),
    Case("updateTopic -n {n} -c DefaultCluster -t MqaOrdered -o true"),
    Case("updateTopic -n {n} -b {a} -t TBW102"),
    Case("updateTopic -n {n} -b {a} -t bad*name"),
    Case("updateTopic -n {n} -b {a} -t MqaBad -a +no.such=1"),
    Case("updateTopic -n {n} -b {sa} -t MqaOnSlave", "Java's slave takes it until it copies its master's table; ours refuses"),
    Case("updateTopicList -n {n} -c DefaultCluster -f {dir}/topics.json"),
    Case("updateTopicPerm -n {n} -t MqaNew -b {a} -p 2"),
    Case("updateTopicPerm -n {n} -t MqaNew -c DefaultCluster -p 4"),
    Case("updateTopicPerm -n {n} -t NoSuchTopic -c DefaultCluster -p 6"),
    Case("topicList -n {n}", TRANSACTIONS),
    Case("topicList -n {n} -c", TRANSACTIONS),
    Case("topicRoute -n {n} -t MqaOrders"),
    Case("topicRoute -n {n} -t MqaOrders -l"),
    Case("topicRoute -n {n} -t NoSuchTopic"),
    Case("topicStatus -n {n} -t MqaOrders"),
    Case("topicStatus -n {n} -t NoSuchTopic"),
    Case("topicClusterList -n {n} -t MqaOrders"),
    Case("updateOrderConf -n {n} -t MqaOrders -m put -v broker-a:4;broker-b:4"),
    Case("updateOrderConf -n {n} -t MqaOrders -m get"),
    Case("updateOrderConf -n {n} -t NoSuchTopic -m get"),
    Case("allocateMQ -n {n} -t MqaOrders -i 10.0.0.1,10.0.0.2", "the order of brokers in a route differs, and with it who is given what"),
    # Groups
    Case("updateSubGroup -n {n} -c DefaultCluster -g MqaNewGroup"),
    Case("updateSubGroup -n {n} -b {a} -g MqaNewGroup -r 3 -o true --attributes +x=y", "the same refusal; Java's remark tells a place in its source too"),
    Case("updateSubGroup -n {n} -b {a} -g bad*group"),
    Case("updateSubGroupList -n {n} -c DefaultCluster -f {dir}/groups.json"),
    Case("getConsumerConfig -n {n} -g MqaReader"),
    Case("getConsumerConfig -n {n} -g NoSuchGroup"),
    Case("setConsumeMode -n {n} -c DefaultCluster -t MqaOrders -g MqaOffline -m POP -q 8"),
    Case("setConsumeMode -n {n} -c DefaultCluster -t MqaOrders -g MqaOffline -m PULL"),
    Case("consumerProgress -n {n}"),
    Case("consumerProgress -n {n} -g MqaReader", sub=RETRY),
    Case("consumerProgress -n {n} -g MqaReader -s true", sub=RETRY),
    Case("consumerProgress -n {n} -g MqaOffline -t MqaOrders"),
    Case("consumerProgress -n {n} -g NoSuchGroup"),
    Case("consumerConnection -n {n} -g MqaReader"),
    Case("consumerConnection -n {n} -g MqaReader -b {a}"),
    Case("consumerConnection -n {n} -g MqaOffline", sub=ANY_BROKER),
    Case("consumerStatus -n {n} -g MqaReader"),
    Case("consumerStatus -n {n} -g MqaReader -i {client} -s", sub=RETRY),
    Case("consumerStatus -n {n} -g MqaReader -i nobody@here"),
    Case("consumerStatus -n {n} -g MqaOffline", sub=ANY_BROKER),
    Case("producerConnection -n {n} -g MqaProducer -t MqaProduced"),
    Case("producerConnection -n {n} -g NoSuchGroup -t MqaOrders", sub=ANY_BROKER),
    Case("producer -n {n} -b {a}"),
    Case("brokerConsumeStats -n {n} -b {a}"),
    Case("brokerConsumeStats -n {n} -b {a} -l 1 -o true"),
    # Messages
    Case("queryMsgById -n {n} -t MqaOrders -i {id}"),
    Case("queryMsgById -n {n} -t MqaOrders -i {oid}"),
    Case("queryMsgById -n {n} -t MqaOrders -i {id} -g MqaReader -d {client}"),
    Case("queryMsgById -n {n} -t MqaOrders -i {id} -g MqaOffline -d nobody@here"),
    Case("queryMsgById -n {n} -t MqaOrders -i 7F0000010000000000000000000000AA"),
    Case("queryMsgByKey -n {n} -t MqaOrders -k key-3"),
    Case("queryMsgByKey -n {n} -t MqaOrders -k no-such-key"),
    Case("queryMsgByUniqueKey -n {n} -t MqaOrders -i {id}"),
    Case("queryMsgByUniqueKey -n {n} -t MqaOrders -i {id} -a"),
    Case("queryMsgByUniqueKey -n {n} -t MqaOrders -i {id} -g MqaReader -d {client}"),
    Case("queryMsgByOffset -n {n} -t MqaOrders -b broker-a -i 0 -o 1"),
    Case("queryMsgByOffset -n {n} -t MqaOrders -b broker-a -i 0 -o 999"),
    Case("sendMessage -n {n} -t MqaTraced -b broker-a -i 0 -p traced -k traced-key -m true"),
    Case("queryMsgTraceById -n {n} -i {traced}"),
    Case("sendMessage -n {n} -t MqaNew -p refused"),
    Case("sendMessage -n {n} -t MqaProduced -b broker-b -i 1 -p hello -k k1 -c TagA"),
    Case("printMsg -n {n} -t MqaOrders -d true"),
    Case("printMsg -n {n} -t MqaOrders -s TagB -d true"),
    Case("printMsgByQueue -n {n} -t MqaOrders -a broker-b -i 2 -p true -d true -f true"),
    Case("consumeMessage -n {n} -t MqaOrders -b broker-a -i 1 -o 0 -c 2"),
    Case("consumeMessage -n {n} -t MqaOrders -c 24"),
    Case("queryCq -n {n} -t MqaOrders -q 0 -i 0 -c 2 -b {a} -g MqaReader"),
    Case("queryCq -n {n} -t MqaOrders -q 99 -i 0 -c 2 -b {a}"),
    Case("sendMsgStatus -n {n} -b broker-a -s 64 -c 3"),
    Case("checkMsgSendRT -n {n} -t MqaProduced -a 5 -s 64"),
    Case("clusterRT -n {n} -a 2 -s 64 -i 60", ms=12_000),
    # Offsets
    Case("resetOffsetByTime -n {n} -g MqaOffline -t MqaOrders -s 0"),
    Case("resetOffsetByTime -n {n} -g MqaOffline -t MqaOrders -s now"),
    Case("resetOffsetByTime -n {n} -g MqaOffline -t MqaOrders -s -1 -b {a} -q 1 -o 1"),
    Case("resetOffsetByTime -n {n} -g NoSuchGroup -t MqaOrders -s now"),
    Case("resetOffsetByTime -n {n} -g MqaOffline -t NoSuchTopic -s now"),
    Case("skipAccumulatedMessage -n {n} -g MqaOffline -t MqaOrders"),
    Case("consumerProgress -n {n} -g MqaOffline"),
    Case("cloneGroupOffset -n {n} -s MqaReader -d MqaCloned -t MqaOrders -o true", sub=ANY_BROKER),
    Case("consumerProgress -n {n} -g MqaCloned"),
    # Properties
    Case("getBrokerConfig -n {n} -b {a}", PROPERTIES, keys=True),
    Case("getBrokerConfig -n {n} -c DefaultCluster", PROPERTIES, keys=True),
    Case("updateBrokerConfig -n {n} -b {a} -k maxMessageSize -v 2097152"),
    Case("updateBrokerConfig -n {n} -c DefaultCluster -k maxMessageSize -v 4194304"),
    Case("updateBrokerConfig -n {n} -b {a} -k noSuchKey -v 1", "Java takes any name; ours refuses one that is no property, or not one for a running node"),
    Case("updateBrokerConfig -n {n} -b {a} -k brokerConfigPath -v /tmp/x", "the same code; our remark names the property"),
    Case("getNamesrvConfig -n {n}", PROPERTIES, keys=True),
    Case("updateNamesrvConfig -n {n} -k orderMessageEnable -v true"),
    Case("updateNamesrvConfig -n {n} -k configStorePath -v /tmp/x", "the same code; our remark names the property"),
    Case("updateKvConfig -n {n} -s MqaSpace -k a -v 1"),
    Case("deleteKvConfig -n {n} -s MqaSpace -k a"),
    Case("wipeWritePerm -n {n} -b broker-b"),
    Case("addWritePerm -n {n} -b broker-b"),
    Case("wipeWritePerm -n {n} -b no-such-broker"),
    # Store and replication
    Case("cleanExpiredCQ -n {n} -b {a}"),
    Case("cleanExpiredCQ -n {n} -c DefaultCluster"),
    Case("cleanUnusedTopic -n {n} -b {a}"),
    Case("cleanUnusedTopic -n {n} -c DefaultCluster"),
    Case("deleteExpiredCommitLog -n {n} -b {a}"),
    Case("deleteExpiredCommitLog -n {n} -c DefaultCluster"),
    Case("haStatus -n {n} -b {a}"),
    Case("haStatus -n {n} -b {sa}"),
    Case("haStatus -n {n} -c DefaultCluster"),
    Case("resetMasterFlushOffset -n {n} -b {sa} -o 0", "our slave keeps no flush position of its master: code 3"),
    Case("getBrokerEpoch -n {n} -b broker-a"),
    Case("getBrokerEpoch -n {n} -c DefaultCluster"),
    Case("exportMetadata -n {n} -c DefaultCluster -f {out}"),
    Case("exportMetadata -n {n} -b {a} -t -f {out}"),
    Case("exportMetadata -n {n} -b {a} -g -f {out}"),
    Case("exportConfigs -n {n} -c DefaultCluster -f {out}"),
    Case("exportMetrics -n {n} -c DefaultCluster -f {out}"),
    Case("startMonitoring -n {n}", ms=6_000),
    # The controller: neither cluster has one, so these ask a name server.
    Case("getControllerMetaData -a {n}"),
    Case("getControllerConfig -a {n}"),
    Case("updateControllerConfig -a {n} -k scanNotActiveBrokerInterval -v 5000"),
    Case("getSyncStateSet -n {n} -a {n} -b broker-a"),
    Case("getSyncStateSet -n {n} -a {n} -c DefaultCluster"),
    Case("electMaster -n {n} -a {n} -b 1 -bn broker-a -c DefaultCluster"),
    Case("cleanBrokerMetadata -n {n} -a {n} -bn broker-a -c DefaultCluster -b 2"),
    # A container: neither cluster has one, so these ask a broker.
    Case("addBroker -n {n} -c {a} -b {dir}/broker.conf"),
    Case("removeBroker -n {n} -c {a} -b DefaultCluster:broker-a:0"),
    # Users and ACL
    Case("createUser -n {n} -b {a} -u mqa -p 12345678 -t Normal", NO_ACL),
    Case("createUser -n {n} -c DefaultCluster -u mqa2 -p 12345678", NO_ACL),
    Case("updateUser -n {n} -b {a} -u mqa -p 87654321", NO_ACL),
    Case("getUser -n {n} -b {a} -u mqa", NO_ACL),
    Case("listUser -n {n} -b {a}", NO_ACL),
    Case("copyUser -n {n} -f {a} -t {b} -u mqa", NO_ACL),
    Case("createAcl -n {n} -b {a} -s User:mqa -r Topic:MqaOrders -a Pub,Sub -d Allow", NO_ACL),
    Case("updateAcl -n {n} -b {a} -s User:mqa -r Topic:MqaOrders -a Pub -d Allow", NO_ACL),
    Case("getAcl -n {n} -b {a} -s User:mqa", NO_ACL),
    Case("listAcl -n {n} -b {a}", NO_ACL),
    Case("copyAcl -n {n} -f {a} -t {b} -s User:mqa", NO_ACL),
    Case("deleteAcl -n {n} -b {a} -s User:mqa", NO_ACL),
    Case("deleteUser -n {n} -b {a} -u mqa", NO_ACL),
    # What the dashboard asks and mqadmin does not: methods of the client that both have in common.
    Case("api examineTopicConfig {a} MqaOrders"),
    Case("api examineTopicConfig {a} NoSuchTopic"),
    Case("api examineSubscriptionGroupConfig {a} MqaReader"),
    Case("api examineSubscriptionGroupConfig {a} NoSuchGroup"),
    Case("api getUserTopicConfig {a} true 5000"),
    Case("api getUserSubscriptionGroup {a} 5000"),
    Case("api queryTopicConsumeByWho MqaOrders"),
    Case("api queryTopicsByConsumer MqaReader"),
    Case("api queryTopicsByConsumer NoSuchGroup"),
    Case("api querySubscription MqaReader MqaOrders"),
    Case("api querySubscription MqaOffline MqaOrders"),
    Case("api queryConsumeTimeSpan MqaOrders MqaReader"),
    Case("api queryConsumeTimeSpan NoSuchTopic MqaReader"),
    Case("api getConsumeStatus MqaOrders MqaReader {client}"),
    Case("api getConsumeStatus MqaOrders MqaOffline nobody@here", "Java's remark is the failure of its own code"),
    Case("api getConsumerRunningInfo MqaReader {client} false"),
    Case("api examineConsumeStats {a} MqaReader MqaOrders 5000"),
    Case("api fetchConsumeStatsInBroker {a} false 5000", TRANSACTIONS),
    Case("api cloneGroupOffset MqaReader MqaCloned MqaOrders true"),
    Case("api resetOffsetByQueueId {a} MqaCloned MqaOrders 0 2"),
    Case("api resetOffsetNew MqaCloned MqaOrders 0"),
    Case("api resetOffsetByTimestampOld MqaCloned MqaOrders -1 true"),
    Case("api updateConsumeOffset {a} MqaCloned MqaOrders/broker-a/0 1"),
    Case("api updateAndGetGroupReadForbidden {a} MqaCloned MqaOrders false"),
    Case("api updateAndGetGroupReadForbidden {a} MqaCloned MqaOrders null"),
    Case("api viewBrokerStatsData {a} TOPIC_PUT_NUMS MqaOrders"),
    Case("api viewBrokerStatsData {a} TOPIC_PUT_SIZE MqaOrders"),
    Case("api viewBrokerStatsData {a} GROUP_GET_NUMS MqaOrders@MqaReader"),
    Case("api viewBrokerStatsData {a} GROUP_GET_SIZE MqaOrders@MqaReader"),
    Case("api viewBrokerStatsData {a} BROKER_PUT_NUMS DefaultCluster"),
    Case("api viewBrokerStatsData {a} BROKER_GET_NUMS DefaultCluster"),
    Case("api viewBrokerStatsData {a} SNDBCK_PUT_NUMS MqaOrders@MqaReader"),
    Case("api viewBrokerStatsData {a} GROUP_GET_LATENCY 0@MqaOrders@MqaReader", "how long pulls take is not kept by queue and group: code 1"),
    Case("api viewBrokerStatsData {a} NO_SUCH_STATS x"),
    Case("api searchOffset MqaOrders/broker-a/0 0"),
    Case("api searchLowerBoundaryOffset MqaOrders/broker-a/0 4000000000000"),
    Case("api searchUpperBoundaryOffset MqaOrders/broker-a/0 4000000000000"),
    Case("api maxOffset MqaOrders/broker-a/0"),
    Case("api minOffset MqaOrders/broker-a/0"),
    Case("api earliestMsgStoreTime MqaOrders/broker-a/0"),
    Case("api maxOffset MqaOrders/broker-a/99"),
    Case("api fetchTopicsByCLuster DefaultCluster", TRANSACTIONS),
    Case("api getClusterList MqaOrders"),
    Case("api getTopicClusterList MqaOrders"),
    Case("api examineBrokerClusterInfo"),
    Case("api putKVConfig MqaSpace k v"),
    Case("api getKVConfig MqaSpace k"),
    Case("api getKVConfig MqaSpace nothing"),
    Case("api getKVListByNamespace MqaSpace"),
    Case("api getKVListByNamespace NoSuchSpace"),
    Case("api createOrUpdateOrderConf MqaProduced broker-a:4 false"),
    Case("api deleteKvConfig MqaSpace k"),
    # What only some builds or settings of the Java broker offer
    Case("getColdDataFlowCtrInfo -n {n} -b {a}", NO_COLD),
    Case("updateColdDataFlowCtrGroupConfig -n {n} -b {a} -g MqaReader -v 1048576", NO_COLD),
    Case("removeColdDataFlowCtrGroupConfig -n {n} -b {a} -g MqaReader", NO_COLD),
    Case("setCommitLogReadAheadMode -n {n} -b {a} -m 0", "our log is not mapped into memory, so there is no mode to set: code 3"),
    Case("switchTimerEngine -n {n} -b {a} -e F", "there is one timer engine, the wheel: code 3"),
    Case("exportPopRecord -n {n} -b {a} -d true", NO_POP_STORE),
    Case("checkRocksdbCqWriteProgress -n {n} -c DefaultCluster -t MqaOrders", NO_ROCKSDB),
    Case("rocksDBConfigToJson -n {n} -b {a} -t topics"),
    Case("getBrokerLiteInfo -n {n} -b {a}", NO_LITE),
    Case("getParentTopicInfo -n {n} -p MqaOrders"),
    Case("getLiteTopicInfo -n {n} -p MqaOrders -l lite1"),
    Case("getLiteClientInfo -n {n} -p MqaOrders -g MqaReader -c {client}"),
    Case("getLiteGroupInfo -n {n} -p MqaOrders -g MqaReader"),
    Case("triggerLiteDispatch -n {n} -p MqaOrders -g MqaReader"),
    # Local files: no broker is asked.
    Case("rocksDBConfigToJson -p {dir}/none -t topics"),
    Case("exportMetadataInRocksDB -p {dir}/none -t topics"),
    Case("dumpCompactionLog -f {dir}/none"),
    # A static topic makes Java's own topic tables unreadable for the export commands, so these come late.
    Case("updateStaticTopic -n {n} -c DefaultCluster -t MqaStatic -qn 4", NO_STATIC),
    Case("remappingStaticTopic -n {n} -c DefaultCluster -t MqaStatic", NO_STATIC),
    # Last, what takes the data away
    Case("updateOrderConf -n {n} -t MqaOrders -m delete"),
    Case("updateOrderConf -n {n} -t MqaOrders -m get"),
    Case("deleteSubGroup -n {n} -b {a} -g MqaNewGroup"),
    Case("deleteSubGroup -n {n} -c DefaultCluster -g MqaOffline -r true"),
    Case("deleteSubGroup -n {n} -c DefaultCluster -g NoSuchGroup"),
    Case("deleteTopic -n {n} -c DefaultCluster -t MqaNew"),
    Case("deleteTopic -n {n} -c DefaultCluster -t NoSuchTopic"),
    Case("deleteTopic -n {n} -c DefaultCluster -t TBW102"),
    Case("topicRoute -n {n} -t MqaNew"),
]

# In both clusters before the first case.
TOPICS = ["MqaOrders", "MqaProduced", "MqaTraced"]
LEFT_OVER = ["MqaNew", "MqaFifo", "MqaOrdered", "MqaOnSlave", "MqaListed1", "MqaListed2", "MqaStatic"]
GROUPS = ["MqaReader", "MqaOffline", "MqaNewGroup", "MqaListed1", "MqaListed2", "MqaCloned"]


class Side:
    """One cluster, and the JVM that speaks to it."""

    def __init__(self, name, namesrv, keep):
        self.name = name
        self.keep = keep
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="mqadmin-table-"))
        self.out = self.dir / "out"
        self.values = {"n": namesrv, "dir": self.dir, "out": self.out, "client": "127.0.0.1@mqa"}
        self.names = {namesrv: "NAMESRV"}
        self.results = []
        self.error = None
        command = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.security.manager=allow"]
        command += [f"-Duser.home={HOME}/tools", "-Drmq.logback.configurationFile=rmq.tools.logback.xml"]
        command += [f"-Djava.io.tmpdir={self.dir}", "-cp", f"{HOME}/lib/*", str(HERE / "MqadminDriver.java")]
        self.log = open(self.dir / "driver.log", "wb")
        # consumerStatus writes what it learns into the working directory.
        self.jvm = subprocess.Popen(
            command,
            cwd=self.dir,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "ROCKETMQ_HOME": os.environ.get("ROCKETMQ_HOME", str(HOME))},
        )

    def job(self, *words):
        self.jvm.stdin.write(("\t".join(map(str, words)) + "\n").encode())
        self.jvm.stdin.flush()
        head = self.jvm.stdout.readline().split()
        if len(head) != 2:
            raise RuntimeError(f"the JVM for {self.name} ended at {words}; see {self.log.name}")
        return head[1].decode(), self.jvm.stdout.read(int(head[0])).decode(errors="replace")

    def mqadmin(self, line, ms=25_000):
        words = shlex.split(line.format(**self.values))
        if words[0] == "api":
            return self.job("api", self.values["n"], *words[1:])
        return self.job("run", ms, *words)

    def must(self, wanted, state_and_text):
        state, text = state_and_text
        if state != "end" or wanted not in text:
            raise RuntimeError(f"{self.name}: no {wanted!r} in what was printed ({state}):\n{text}")
        return text

    def prepare(self):
        listed = self.must("broker-a", self.mqadmin("clusterList -n {n}"))
        for name, number, addr in re.findall(r"^\S+\s+(broker-[ab])\s+(\d+)\s+(\S+:\d+)", listed, re.M):
            host, port = addr.rsplit(":", 1)
            key = ("" if number == "0" else "s") + name[-1]
            self.values[key] = addr
            for shift, what in ((0, ""), (1, "/HA"), (-2, "/FAST")):
                self.names[f"{host}:{int(port) + shift}"] = f"{name}:{number}{what}"
        missing = [key for key in ("a", "b", "sa", "sb") if key not in self.values]
        if missing:
            raise RuntimeError(f"{self.name}: two masters and two slaves are needed, {missing} are not in\n{listed}")
        for topic in TOPICS + LEFT_OVER:
            self.mqadmin(f"deleteTopic -n {{n}} -c DefaultCluster -t {topic}")
        for group in GROUPS:
            self.mqadmin(f"deleteSubGroup -n {{n}} -c DefaultCluster -g {group} -r true")
        for topic in TOPICS:
            self.must("success", self.mqadmin(f"updateTopic -n {{n}} -c DefaultCluster -t {topic} -r 4 -w 4"))
        for group in ("MqaReader", "MqaOffline", "MqaCloned"):
            self.must("success", self.mqadmin(f"updateSubGroup -n {{n}} -c DefaultCluster -g {group}"))
        (self.dir / "topics.json").write_text(json.dumps([{"topicName": f"MqaListed{i}", "readQueueNums": 2} for i in (1, 2)]))
        (self.dir / "groups.json").write_text(json.dumps([{"groupName": f"MqaListed{i}", "retryMaxTimes": 2} for i in (1, 2)]))
        (self.dir / "broker.conf").write_text("brokerName=broker-c\n")
        filled = self.must("uniqueId=", self.job("fill", self.values["n"], "MqaOrders"))
        ids = dict(line.split("=", 1) for line in filled.splitlines() if "=" in line)
        self.values |= {"id": ids["uniqueId"], "oid": ids["offsetId"], "traced": "none"}
        self.must("", self.job("read", self.values["n"], "MqaOffline", "MqaOrders", MESSAGES, "false"))
        self.must("", self.job("read", self.values["n"], "MqaReader", "MqaOrders", MESSAGES, "true"))

    def run(self, cases):
        try:
            self.prepare()
            for number, case in enumerate(cases):
                shutil.rmtree(self.out, ignore_errors=True)
                self.out.mkdir()
                begin = time.monotonic()
                state, text = self.mqadmin(case.line, case.ms)
                took = time.monotonic() - begin
                for file in sorted(path for path in self.out.rglob("*") if path.is_file()):
                    text += f"\nfile {file.relative_to(self.out)}\n{file.read_text()}\n"
                traced = re.search(r"\b([0-9A-F]{32,})\b", text)
                if "MqaTraced" in case.line and traced:
                    self.values["traced"] = traced[1]
                if self.keep:
                    (self.keep / f"{number:03}-{case.command}.{self.name}.txt").write_text(f"{case.line}\n{state}\n{text}")
                self.results.append(Result(case, state, text, self))
                print(f"{self.name}: {number + 1}/{len(cases)} {case.line}: {took:.1f} s", file=sys.stderr)
        except Exception as error:  # reported by main, which joins this thread
            self.error = error
        finally:
            self.jvm.stdin.close()
            self.jvm.wait(30)
            self.log.close()


# What differs between any two runs, in order.
ALWAYS = [
    (r"^\s+at .*\n|^\s+\.\.\. \d+ (more|common frames omitted)\n", ""),
    (r"\b[0-9A-F]{32,}\b", "ID"),
    (r"\d{4}-\d\d-\d\d[ #T]\d\d:\d\d:\d\d([:,.]\d{3})?", "TIME"),
    (r"\b1[5-9]\d{11}\b", "MS"),
    (r"\b(\d+\.){3}\d+:\d+\b", "ADDR"),
    # Rates and ratios; nothing else has a point in it.
    (r"(?<![\w.])\d+\.\d+(E-?\d+)?(?![\w.])", "F"),
    (r"mqadmin-table-\w+", "DIR"),
    (r"#\d{10,}\b", "#NANOS"),
    (r"@[0-9a-f]{6,}\b|\$\$Lambda\S+", "@HASH"),
    (r"#Consumer jstack#(\n.*)*", "#Consumer jstack#"),
]


class Result:
    """What one command did on one side."""

    def __init__(self, case, state, text, side):
        self.case = case
        for addr in sorted(side.names, key=len, reverse=True):
            text = text.replace(addr, side.names[addr])
        for pattern, name in (*case.sub, *ALWAYS):
            text = re.sub(pattern, name, text, flags=re.M)
        self.state = state
        self.lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        # The order of lines is that of a Java hash table in many answers.
        self.sorted = sorted(self.lines)

    def figures(self):
        """The lines with numbers left out, each once."""
        return {re.sub(r"-?\d+(\.\d+)?(E-?\d+)?%?", "#", line) for line in self.lines}

    def fields(self):
        return {match[1] for line in self.lines if (match := re.match(r'(?:broker-[ab]:\d )?"?([\w.]+)"?\s*[:=]', line))}

    def outcome(self):
        text = "\n".join(self.lines)
        code = re.search(r"CODE: (\d+) *DESC: *(.*)", text)
        thrown = re.search(r"\b([A-Z]\w*(?:Exception|Error))\b:? ?(.*)", text)
        if code:
            said = f"code {code[1]}: {code[2]}"
        elif thrown:
            said = f"{thrown[1]}: {thrown[2]}"
        elif self.state.startswith("exit"):
            said = f"{self.state}: {self.lines[0] if self.lines else ''}"
        elif not self.lines:
            said = "ok, prints nothing"
        else:
            said = f"ok, {len(self.lines)} line{'s' * (len(self.lines) != 1)}: {self.lines[0]}"
        if self.state == "limit":
            said += " (runs until it is ended)"
        return said if len(said) <= 120 else said[:117] + "..."


FIGURES = "same, but for figures"


def figures(java, ours):
    """The first line whose figures differ, from a little before the first of them on."""
    for one, other in zip(java.sorted, ours.sorted):
        if one != other:
            begin = max(0, len(os.path.commonprefix([one, other])) - 25)
            return f"`{one[begin : begin + 60]}`, ours `{other[begin : begin + 60]}`"
    return "more lines of the same kind"


def compare(java, ours):
    """"same", or how they differ."""
    if (java.state, java.sorted) == (ours.state, ours.sorted):
        return "same"
    if java.state != ours.state:
        return f"ends as {ours.state} for {java.state}"
    if java.case.keys:
        absent, more = java.fields() - ours.fields(), ours.fields() - java.fields()
        parts = [f"{len(names)} {what}: {', '.join(sorted(names))}" for names, what in ((absent, "not in ours"), (more, "only in ours")) if names]
        return "; ".join(parts) or "same, but for values"
    absent, more = java.figures() - ours.figures(), ours.figures() - java.figures()
    if not absent and not more:
        return FIGURES
    return f"{len(absent)} lines not in ours, {len(more)} only in ours"


def cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")


def table(cases, java, ours):
    """Prints the table; returns what is wrong."""
    wrong = []
    rows = []
    counts = {}
    for case, theirs, our in zip(cases, java.results, ours.results):
        found = compare(theirs, our)
        same = found.startswith("same")
        if not same and not case.why:
            wrong.append(f"{case.line}: {found}, which nothing explains")
        if same and case.why:
            wrong.append(f"{case.line}: {found}, but an explanation stands beside it")
        word = found if same else ("differs" if case.why else "DIFFERS")
        counts[word] = counts.get(word, 0) + 1
        note = figures(theirs, our) if found == FIGURES else "" if same else (case.why or found)
        line = re.sub(r" -n \{n\}", "", case.line)
        rows.append(f"| `{cell(line)}` | {cell(theirs.outcome())} | {'the same' if found == 'same' or theirs.outcome() == our.outcome() else cell(our.outcome())} | {word} | {cell(note)} |")
    print("# Every mqadmin subcommand, on Apache's brokers and on ours\n")
    print(f"Made {datetime.date.today()} by `tests/peers/mqadmin_table.py`, whose head says how. Java: Apache RocketMQ 5.5.0, mqadmin 5.5.0.\n")
    print(f"{len({case.command for case in cases} - {'api'})} subcommands, {len(cases)} command lines: " + ", ".join(f"{count} {word}" for word, count in sorted(counts.items())) + ".\n")
    print("`{a}` and `{b}` are the masters of broker-a and broker-b, `{sa}` a slave, `{n}` the name server, `{id}` and `{oid}` a message's ids.\n")
    print("| command | Java | ours | | explanation |\n|---|---|---|---|---|")
    print("\n".join(rows))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--java", required=True, metavar="HOST:PORT", help="the name server of Apache's cluster")
    parser.add_argument("--ours", required=True, metavar="HOST:PORT", help="the name server of ours")
    parser.add_argument("--only", default="", metavar="WORD", help="only command lines that contain this")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="write what every command printed there")
    args = parser.parse_args()
    subprocess.run([HERE / "install.sh", "-q"], check=True, stdout=sys.stderr)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    cases = [case for case in CASES if args.only in case.line]
    sides = [Side("java", args.java, args.keep), Side("ours", args.ours, args.keep)]
    offered = {line.split()[0] for line in sides[0].job("run", 20_000)[1].splitlines() if line.startswith("   ")}
    threads = [threading.Thread(target=side.run, args=(cases,)) for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [str(side.error) for side in sides if side.error]
    if failed:
        sys.exit("\n".join(failed))
    wrong = table(cases, *sides)
    if not args.only:
        wrong += [f"{name}: no case runs this subcommand" for name in sorted(offered - {case.command for case in CASES})]
    for side in sides:
        shutil.rmtree(side.dir)
    print(*wrong, sep="\n", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
