package conformance.remoting;

import conformance.harness.Env;
import conformance.harness.Until;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.acl.common.AclClientRPCHook;
import org.apache.rocketmq.acl.common.SessionCredentials;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.RPCHook;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.junit.jupiter.api.AfterEach;

/** Clients, topics and groups of one case; whatever it opened is closed after it. */
abstract class RemotingCase {
    static {
        // A queue that comes up late (a retry topic) is taken at the next round; not 20 s later here.
        System.setProperty("rocketmq.client.rebalance.waitInterval", "2000");
    }

    private static final AtomicInteger INSTANCE = new AtomicInteger();
    private static DefaultMQAdminExt admin;
    private static DefaultMQProducer producer;
    private static DefaultMQPullConsumer reader;
    private final Deque<Runnable> closing = new ArrayDeque<>();

    static RPCHook hook() {
        return Env.acl() ? new AclClientRPCHook(new SessionCredentials(Env.ACCESS_KEY, Env.SECRET_KEY)) : null;
    }

    static <T extends ClientConfig> T setup(T client) {
        client.setNamesrvAddr(Env.NAMESRV);
        client.setInstanceName("c" + INSTANCE.incrementAndGet());
        client.setVipChannelEnabled(false);
        // A consumer whose heartbeat lost a race with its own rebalance waits for the next one; not for the usual 30 s here.
        client.setHeartbeatBrokerInterval(2000);
        // The retry topic is made by a consumer's first heartbeat, after the client asked for its route.
        client.setPollNameServerInterval(3000);
        client.setPersistConsumerOffsetInterval(1000);
        return client;
    }

    static synchronized DefaultMQAdminExt admin() throws Exception {
        if (admin == null) {
            DefaultMQAdminExt a = setup(new DefaultMQAdminExt(hook(), 8000));
            a.setAdminExtGroup("admin_" + Env.RUN);
            a.start();
            admin = a;
        }
        return admin;
    }

    /** One producer for all plain sending. */
    static synchronized DefaultMQProducer producer() throws Exception {
        if (producer == null) {
            DefaultMQProducer p = setup(new PatientProducer(Env.name("plain"), hook()));
            p.setSendMsgTimeout(10000);
            p.start();
            producer = p;
        }
        return producer;
    }

    /** One pull consumer for all plain reading. */
    static synchronized DefaultMQPullConsumer reader() throws Exception {
        if (reader == null) {
            DefaultMQPullConsumer c = setup(new DefaultMQPullConsumer(Env.name("reader"), hook()));
            c.start();
            reader = c;
        }
        return reader;
    }

    @AfterEach
    void closeAll() {
        while (!closing.isEmpty()) {
            try {
                closing.pop().run();
            } catch (RuntimeException e) {
                System.err.println("closing: " + e);
            }
        }
    }

    void onClose(Runnable r) {
        closing.push(r);
    }

    DefaultMQProducer newProducer(String group) throws Exception {
        DefaultMQProducer p = setup(new DefaultMQProducer(group, hook()));
        p.setSendMsgTimeout(10000);
        onClose(p::shutdown);
        return p;
    }

    /** Not started. */
    DefaultMQPushConsumer newConsumer(String group) {
        DefaultMQPushConsumer c = setup(new DefaultMQPushConsumer(group, hook(), new org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely()));
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.setConsumeThreadMin(4);
        c.setConsumeThreadMax(4);
        onClose(c::shutdown);
        return c;
    }

    DefaultMQPushConsumer consume(String group, String topic, String tags, Sink sink) throws Exception {
        DefaultMQPushConsumer c = newConsumer(group);
        c.subscribe(topic, tags);
        c.registerMessageListener(sink.concurrently());
        c.start();
        return c;
    }

    DefaultLitePullConsumer newLite(String group) {
        DefaultLitePullConsumer c = setup(new DefaultLitePullConsumer(group, hook()));
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        // A queue with nothing new keeps a thread for as long as its pull is held: with fewer threads than queues, the first
        // queues to run dry starve the others for 20 s.
        c.setPullThreadNums(8);
        onClose(c::shutdown);
        return c;
    }

    /** brokerName to master address, in order of name. */
    static TreeMap<String, String> masters() throws Exception {
        TreeMap<String, String> m = new TreeMap<>();
        Until.value("cluster info", 20, () -> admin().examineBrokerClusterInfo()).getBrokerAddrTable().forEach((name, data) -> {
            String a = data.getBrokerAddrs().get(0L);
            if (a != null) {
                m.put(name, a);
            }
        });
        if (m.isEmpty()) {
            throw new AssertionError("no master is registered at " + Env.NAMESRV);
        }
        return m;
    }

    static String oneMaster() throws Exception {
        return masters().firstEntry().getValue();
    }

    static String clusterName() throws Exception {
        return admin().examineBrokerClusterInfo().getClusterAddrTable().keySet().iterator().next();
    }

    /** A new topic with this many queues on every master. */
    static String topic(String what, int queues) throws Exception {
        return topic(what, queues, masters().values());
    }

    /** A new topic with this many queues on one master only. */
    static String topicOnOne(String what, int queues) throws Exception {
        return topic(what, queues, List.of(oneMaster()));
    }

    static String topic(String what, int queues, java.util.Collection<String> addrs) throws Exception {
        String t = Env.name(what);
        for (String addr : addrs) {
            Until.holds("create " + t, 40, () -> {
                admin().createAndUpdateTopicConfig(addr, new TopicConfig(t, queues, queues, 6));
                return true;
            });
        }
        Until.holds("the route of " + t, 40, () -> admin().examineTopicRouteInfo(t).getQueueDatas().size() == addrs.size());
        return t;
    }

    /**
     * Changes a topic on one master and waits for its route. A name server ignores what comes with a data version it already
     * has, so a change that meets another may never reach the route: then it is made again.
     */
    static void change(TopicConfig c) throws Exception {
        for (int i = 0;; i++) {
            admin().createAndUpdateTopicConfig(oneMaster(), c);
            try {
                Until.holds("the route of " + c.getTopicName() + " shows the change", 5, () -> {
                    var q = admin().examineTopicRouteInfo(c.getTopicName()).getQueueDatas().get(0);
                    return q.getPerm() == c.getPerm() && q.getWriteQueueNums() == c.getWriteQueueNums() && q.getReadQueueNums() == c.getReadQueueNums();
                });
                return;
            } catch (AssertionError e) {
                if (i == 8) {
                    throw e;
                }
            }
        }
    }

    static String group(String what) throws Exception {
        return group(what, false);
    }

    static String group(String what, boolean orderly) throws Exception {
        String g = Env.name(what);
        for (String addr : masters().values()) {
            Until.holds("create " + g, 40, () -> {
                Compat.createGroup(admin(), addr, g, orderly, 16);
                return true;
            });
        }
        return g;
    }

    static String brokerConfig(String key) throws Exception {
        Properties p = admin().getBrokerConfig(oneMaster());
        return p.getProperty(key);
    }

    static Message msg(String topic, String tags, String keys, String body) {
        return new Message(topic, tags, keys, body.getBytes(StandardCharsets.UTF_8));
    }

    static Message msg(String topic, String body) {
        return msg(topic, "", "", body);
    }

    static List<String> numbered(String prefix, int n) {
        return IntStream.range(0, n).mapToObj(i -> prefix + i).collect(Collectors.toList());
    }

    /** Sends the bodies one after the other; the client spreads them over the queues. */
    static List<SendResult> send(String topic, List<String> bodies) throws Exception {
        List<SendResult> rs = new ArrayList<>();
        for (String b : bodies) {
            rs.add(producer().send(msg(topic, b)));
        }
        return rs;
    }

    static List<MessageQueue> queues(String topic) throws Exception {
        List<MessageQueue> qs = new ArrayList<>(Until.value("queues of " + topic, 20, () -> producer().fetchPublishMessageQueues(topic)));
        Collections.sort(qs);
        return qs;
    }

    /** Reads everything that is now in the queues of a topic, without a group. */
    static List<MessageExt> readAll(String topic) throws Exception {
        List<MessageExt> out = new ArrayList<>();
        for (MessageQueue q : reader().fetchSubscribeMessageQueues(topic)) {
            long next = reader().minOffset(q);
            long end = reader().maxOffset(q);
            while (next < end) {
                var r = reader().pull(q, "*", next, 32);
                if (r.getMsgFoundList() != null) {
                    out.addAll(r.getMsgFoundList());
                }
                if (r.getNextBeginOffset() <= next) {
                    break;
                }
                next = r.getNextBeginOffset();
            }
        }
        return out;
    }

    /** Waits for n messages: queues are filled behind the log, so a sent message may not be readable at once. */
    static List<MessageExt> readAll(String topic, int n) throws Exception {
        try {
            Until.holds("readable", 10, () -> readAll(topic).size() >= n);
        } catch (AssertionError e) {
            throw new AssertionError(readAll(topic).size() + " of " + n + " messages can be read from " + topic);
        }
        List<MessageExt> got = readAll(topic);
        if (got.size() != n) {
            throw new AssertionError(topic + " has " + got.size() + " messages, not " + n);
        }
        return got;
    }

    static String body(MessageExt m) {
        return new String(m.getBody(), StandardCharsets.UTF_8);
    }

    static byte[] random(int n, long seed) {
        byte[] b = new byte[n];
        new Random(seed).nextBytes(b);
        return b;
    }

    static Set<MessageQueue> assigned(DefaultMQPushConsumer c) {
        return new HashSet<>(c.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet()
            .stream().filter(q -> !q.getTopic().startsWith("%RETRY%")).toList());
    }
}
