// Writes what the Java classes of an Apache RocketMQ release write, for tests/golden.rs to compare with; with a second
// argument it reads back what ours wrote and fails where Java does not understand it.
//   java -cp '<dir of the release's jars>/*' Golden.java <this dir> [<dir of ours>]
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import org.apache.rocketmq.common.*;
import org.apache.rocketmq.common.message.*;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.remoting.protocol.*;
import org.apache.rocketmq.remoting.protocol.admin.*;
import org.apache.rocketmq.remoting.protocol.body.*;
import org.apache.rocketmq.remoting.protocol.header.*;
import org.apache.rocketmq.remoting.protocol.heartbeat.*;
import org.apache.rocketmq.remoting.protocol.route.*;
import org.apache.rocketmq.remoting.protocol.subscription.*;
import org.apache.rocketmq.remoting.protocol.filter.FilterAPI;

public class Golden {
    static Path dir;

    static void put(String name, byte[] bytes) throws Exception {
        Files.write(dir.resolve(name), bytes);
    }

    static byte[] frame(RemotingCommand command) {
        ByteBuffer buffer = command.encode();
        byte[] out = new byte[buffer.remaining()];
        buffer.get(out);
        return out;
    }

    static RemotingCommand send(SerializeType type) {
        SendMessageRequestHeaderV2 header = new SendMessageRequestHeaderV2();
        header.setA("P");
        header.setB("TopicTest");
        header.setC("TBW102");
        header.setD(4);
        header.setE(2);
        header.setF(0);
        header.setG(1700000000123L);
        header.setH(7);
        header.setI("KEYS\u0001k\"1\u0002UNIQ_KEY\u00017F00\u0002WAIT\u0001true\u0002TAGS\u0001标签😀\u0002");
        header.setJ(0);
        header.setK(false);
        header.setL(16);
        header.setM(false);
        header.setBrokerName("broker-a");
        RemotingCommand command = RemotingCommand.createRequestCommand(RequestCode.SEND_MESSAGE_V2, header);
        command.setSerializeTypeCurrentRPC(type);
        command.setOpaque(77);
        command.setBody("hello".getBytes(StandardCharsets.UTF_8));
        return command;
    }

    static RemotingCommand pull(SerializeType type) {
        PullMessageRequestHeader header = new PullMessageRequestHeader();
        header.setConsumerGroup("G");
        header.setTopic("TopicTest");
        header.setQueueId(1);
        header.setQueueOffset(17L);
        header.setMaxMsgNums(32);
        header.setSysFlag(3);
        header.setCommitOffset(12L);
        header.setSuspendTimeoutMillis(15000L);
        header.setSubscription("TagA || TagB");
        header.setSubVersion(1700000000000L);
        header.setMaxMsgBytes(Integer.MAX_VALUE);
        header.setExpressionType("TAG");
        RemotingCommand command = RemotingCommand.createRequestCommand(RequestCode.PULL_MESSAGE, header);
        command.setSerializeTypeCurrentRPC(type);
        command.setOpaque(78);
        return command;
    }

    static DataVersion version() {
        DataVersion version = new DataVersion();
        version.setCounter(new java.util.concurrent.atomic.AtomicLong(3));
        version.setTimestamp(1700000000123L);
        return version;
    }

    static MessageQueue queue(int id) {
        return new MessageQueue("TopicTest", "broker-a", id);
    }

    static BrokerData broker() {
        HashMap<Long, String> addrs = new HashMap<>();
        addrs.put(0L, "10.0.0.1:10911");
        addrs.put(1L, "10.0.0.2:11911");
        return new BrokerData("C", "broker-a", addrs);
    }

    static TopicConfig topic() {
        TopicConfig topic = new TopicConfig("TopicTest", 8, 4, 6);
        topic.setAttributes(new HashMap<>(Map.of("message.type", "FIFO")));
        return topic;
    }

    static RegisterBrokerBody register() {
        RegisterBrokerBody body = new RegisterBrokerBody();
        TopicConfigAndMappingSerializeWrapper wrapper = new TopicConfigAndMappingSerializeWrapper();
        wrapper.setDataVersion(version());
        wrapper.setMappingDataVersion(version());
        wrapper.setTopicConfigTable(new ConcurrentHashMap<>(Map.of("TopicTest", topic())));
        body.setTopicConfigSerializeWrapper(wrapper);
        return body;
    }

    static HeartbeatData heartbeat() throws Exception {
        HeartbeatData data = new HeartbeatData();
        data.setClientID("10.0.0.9@7#1");
        ConsumerData consumer = new ConsumerData();
        consumer.setGroupName("G");
        consumer.setConsumeType(ConsumeType.CONSUME_PASSIVELY);
        consumer.setMessageModel(MessageModel.CLUSTERING);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        SubscriptionData subscription = FilterAPI.buildSubscriptionData("TopicTest", "TagA || 标签");
        subscription.setSubVersion(1700000000000L);
        consumer.getSubscriptionDataSet().add(subscription);
        data.getConsumerDataSet().add(consumer);
        ProducerData producer = new ProducerData();
        producer.setGroupName("P");
        data.getProducerDataSet().add(producer);
        return data;
    }


    public static void main(String[] args) throws Exception {
        dir = Paths.get(args[0]);
        put("send.json.frame", frame(send(SerializeType.JSON)));
        put("send.binary.frame", frame(send(SerializeType.ROCKETMQ)));
        put("pull.json.frame", frame(pull(SerializeType.JSON)));
        put("pull.binary.frame", frame(pull(SerializeType.ROCKETMQ)));
        put("heartbeat.json", heartbeat().encode());
        put("register.json", register().encode(false));
        put("register.deflated", register().encode(true));
        TopicRouteData route = new TopicRouteData();
        route.setBrokerDatas(new ArrayList<>(List.of(broker())));
        QueueData queueData = new QueueData();
        queueData.setBrokerName("broker-a");
        queueData.setReadQueueNums(8);
        queueData.setWriteQueueNums(4);
        queueData.setPerm(6);
        route.setQueueDatas(new ArrayList<>(List.of(queueData)));
        route.setFilterServerTable(new HashMap<>());
        put("route.json", route.encode());
        ClusterInfo cluster = new ClusterInfo();
        cluster.setBrokerAddrTable(new HashMap<>(Map.of("broker-a", broker())));
        cluster.setClusterAddrTable(new HashMap<>(Map.of("C", new HashSet<>(Set.of("broker-a")))));
        put("cluster.json", cluster.encode());
        ConsumeStats consume = new ConsumeStats();
        OffsetWrapper offset = new OffsetWrapper();
        offset.setBrokerOffset(9);
        offset.setConsumerOffset(4);
        offset.setPullOffset(6);
        offset.setLastTimestamp(1700000000000L);
        consume.getOffsetTable().put(queue(0), offset);
        consume.setConsumeTps(1.5);
        put("consume-stats.json", consume.encode());
        TopicStatsTable stats = new TopicStatsTable();
        TopicOffset ends = new TopicOffset();
        ends.setMinOffset(1);
        ends.setMaxOffset(9);
        ends.setLastUpdateTimestamp(1700000000000L);
        stats.getOffsetTable().put(queue(0), ends);
        put("topic-stats.json", stats.encode());
        ResetOffsetBody reset = new ResetOffsetBody();
        reset.setOffsetTable(new HashMap<>(Map.of(queue(2), 17L)));
        put("reset-offset.json", reset.encode());
        SubscriptionGroupWrapper groups = new SubscriptionGroupWrapper();
        groups.setDataVersion(version());
        SubscriptionGroupConfig group = new SubscriptionGroupConfig();
        group.setGroupName("G");
        groups.setSubscriptionGroupTable(new ConcurrentHashMap<>(Map.of("G", group)));
        put("groups.json", groups.encode());
        LockBatchRequestBody lock = new LockBatchRequestBody();
        lock.setClientId("10.0.0.9@7#1");
        lock.setConsumerGroup("G");
        lock.getMqSet().add(queue(0));
        put("lock.json", lock.encode());
        HARuntimeInfo ha = new HARuntimeInfo();
        ha.setMaster(true);
        ha.setInSyncSlaveNums(1);
        HARuntimeInfo.HAConnectionRuntimeInfo slave = new HARuntimeInfo.HAConnectionRuntimeInfo();
        slave.setAddr("10.0.0.3:5");
        slave.setInSync(true);
        ha.getHaConnectionInfo().add(slave);
        put("ha.json", ha.encode());
        ConsumerConnection connection = new ConsumerConnection();
        Connection client = new Connection();
        client.setClientId("10.0.0.9@7#1");
        client.setClientAddr("10.0.0.9:5");
        client.setLanguage(LanguageCode.GO);
        client.setVersion(479);
        connection.getConnectionSet().add(client);
        connection.setConsumeType(ConsumeType.CONSUME_PASSIVELY);
        connection.setMessageModel(MessageModel.CLUSTERING);
        connection.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        connection.getSubscriptionTable().put("TopicTest", heartbeat().getConsumerDataSet().iterator().next().getSubscriptionDataSet().iterator().next());
        put("consumer-connection.json", connection.encode());
        List<Message> batch = new ArrayList<>();
        for (String text : List.of("one", "")) {
            Message message = new Message("TopicTest", "TagA", text.getBytes(StandardCharsets.UTF_8));
            message.setFlag(3);
            batch.add(message);
        }
        put("batch.body", MessageDecoder.encodeMessages(batch));
        put("record.v1", record("TopicTest", "10.0.0.9", "10.0.0.1"));
        put("record.v1-ipv6", record("TopicTest", "fe80::9", "fe80::1"));
        put("message-id.txt", MessageDecoder.createMessageId(new InetSocketAddress("10.0.0.1", 10911), 66051L).getBytes());
        if (args.length > 1) {
            readBack(Paths.get(args[1]));
        }
    }

    static byte[] record(String topic, String born, String store) throws Exception {
        MessageExt message = new MessageExt();
        message.setTopic(topic);
        message.setBody("hello".getBytes(StandardCharsets.UTF_8));
        message.setBodyCRC(UtilAll.crc32(message.getBody()));
        message.setQueueId(3);
        message.setFlag(7);
        message.setQueueOffset(1000);
        message.setCommitLogOffset(4096);
        message.setBornTimestamp(1700000000123L);
        message.setBornHost(new InetSocketAddress(born, 50123));
        message.setStoreTimestamp(1700000000456L);
        message.setStoreHost(new InetSocketAddress(store, 10911));
        if (born.contains(":")) {
            message.setBornHostV6Flag();
            message.setStoreHostAddressV6Flag();
        }
        message.setReconsumeTimes(2);
        message.putUserProperty("TAG_LIKE", "标签");
        return MessageDecoder.encode(message, false);
    }

    static void same(String what, Object want, Object got) {
        if (!Objects.equals(want, got)) {
            throw new AssertionError(what + ": wanted " + want + ", Java read " + got);
        }
        System.out.println("ok " + what);
    }

    static void readBack(Path ours) throws Exception {
        for (String name : List.of("send.json.frame", "send.binary.frame", "pull.json.frame", "pull.binary.frame")) {
            byte[] frame = Files.readAllBytes(ours.resolve(name));
            RemotingCommand command = RemotingCommand.decode(ByteBuffer.wrap(frame, 4, frame.length - 4));
            boolean send = name.startsWith("send");
            RemotingCommand want = send ? send(SerializeType.JSON) : pull(SerializeType.JSON);
            want.makeCustomHeaderToNet();
            same(name, want.getExtFields(), command.getExtFields());
            same(name + " code", want.getCode(), command.getCode());
            same(name + " language", LanguageCode.JAVA, command.getLanguage());
        }
        same("route", Map.of(0L, "10.0.0.1:10911", 1L, "10.0.0.2:11911"),
            RemotingSerializable.decode(Files.readAllBytes(ours.resolve("route.json")), TopicRouteData.class).getBrokerDatas().get(0).getBrokerAddrs());
        same("route in standard JSON", Map.of(0L, "10.0.0.1:10911", 1L, "10.0.0.2:11911"),
            RemotingSerializable.decode(Files.readAllBytes(ours.resolve("route-standard.json")), TopicRouteData.class).getBrokerDatas().get(0).getBrokerAddrs());
        ClusterInfo cluster = RemotingSerializable.decode(Files.readAllBytes(ours.resolve("cluster.json")), ClusterInfo.class);
        same("cluster", Map.of(0L, "10.0.0.1:10911", 1L, "10.0.0.2:11911"), cluster.getBrokerAddrTable().get("broker-a").getBrokerAddrs());
        same("cluster names", Map.of("C", Set.of("broker-a")), cluster.getClusterAddrTable());
        ConsumeStats consume = RemotingSerializable.decode(Files.readAllBytes(ours.resolve("consume-stats.json")), ConsumeStats.class);
        same("consume stats", 4L, consume.getOffsetTable().get(queue(0)).getConsumerOffset());
        TopicStatsTable stats = RemotingSerializable.decode(Files.readAllBytes(ours.resolve("topic-stats.json")), TopicStatsTable.class);
        same("topic stats", 9L, stats.getOffsetTable().get(queue(0)).getMaxOffset());
        ResetOffsetBody reset = RemotingSerializable.decode(Files.readAllBytes(ours.resolve("reset-offset.json")), ResetOffsetBody.class);
        same("reset offset", Map.of(queue(2), 17L), reset.getOffsetTable());
        same("heartbeat", heartbeat().toString(), RemotingSerializable.decode(Files.readAllBytes(ours.resolve("heartbeat.json")), HeartbeatData.class).toString());
        RegisterBrokerBody register = RegisterBrokerBody.decode(Files.readAllBytes(ours.resolve("register.json")), false, MQVersion.Version.V5_3_0);
        same("register", Map.of("TopicTest", topic()), register.getTopicConfigSerializeWrapper().getTopicConfigTable());
        same("register's version", version(), register.getTopicConfigSerializeWrapper().getDataVersion());
        SubscriptionGroupWrapper groups = RemotingSerializable.decode(Files.readAllBytes(ours.resolve("groups.json")), SubscriptionGroupWrapper.class);
        SubscriptionGroupConfig group = new SubscriptionGroupConfig();
        group.setGroupName("G");
        same("groups", Map.of("G", group), groups.getSubscriptionGroupTable());
        same("lock", Set.of(queue(0)), RemotingSerializable.decode(Files.readAllBytes(ours.resolve("lock.json")), LockBatchRequestBody.class).getMqSet());
        same("ha", "10.0.0.3:5", RemotingSerializable.decode(Files.readAllBytes(ours.resolve("ha.json")), HARuntimeInfo.class).getHaConnectionInfo().get(0).getAddr());
        Connection client = RemotingSerializable.decode(Files.readAllBytes(ours.resolve("consumer-connection.json")), ConsumerConnection.class).getConnectionSet().iterator().next();
        same("consumer connection", LanguageCode.GO, client.getLanguage());
        for (String name : List.of("record.v1", "record.v1-ipv6")) {
            MessageExt message = MessageDecoder.decode(ByteBuffer.wrap(Files.readAllBytes(ours.resolve(name))), true, false, false, false, true);
            same(name, "TopicTest hello 标签 1000", message.getTopic() + " " + new String(message.getBody()) + " " + message.getUserProperty("TAG_LIKE") + " " + message.getQueueOffset());
        }
        System.out.println("Java understands all of ours");
    }
}
