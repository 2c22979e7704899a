import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONWriter;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.security.Permission;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs many mqadmin commands in one JVM, for mqadmin_table.py: a JVM start per command would take most of the time.
 *
 * Each line of stdin is a job, its words divided by tabs; the answer on stdout is a line `LENGTH STATE` and so many bytes:
 * what the job printed. STATE is `end`, `exit:N` when it wanted to end the process, or `limit` when its time was up.
 *
 *   run MS ARGS…          one command line of mqadmin
 *   api NAMESRV METHOD ARGS…   one method of the client that mqadmin and the dashboard have in common; a queue is topic/broker/id
 *   fill NAMESRV TOPIC…   sends the same messages to every queue of each topic; prints name=value of the first one
 *   read NAMESRV GROUP TOPIC COUNT STAY   a consumer that takes COUNT messages; STAY: it stays, with a producer beside it
 *
 * Started with -Djava.security.manager=allow (JDK 17 to 23), which is what keeps a command's System.exit from ending this process.
 */
public final class MqadminDriver {
    private static final PrintStream ANSWERS = System.out;
    private static final PrintStream ERRORS = System.err;
    /** Output by the thread group of the job: what a late thread prints does not reach the next job's answer. */
    private static final Map<ThreadGroup, ByteArrayOutputStream> OUTPUTS = new ConcurrentHashMap<>();
    /** What stays connected until the end of the process. */
    private static final List<Object> STAYING = new ArrayList<>();

    private interface Job {
        void run() throws Exception;
    }

    private static final class Tool extends MQAdminStartup {
        static void run(String[] words) {
            // New commands each time: some keep a client that cannot be started twice.
            SUB_COMMANDS.clear();
            main0(words, null);
        }
    }

    private static final class Exit extends SecurityException {
        final int status;

        Exit(int status) {
            super("exit " + status);
            this.status = status;
        }
    }

    private static final class NoExit extends SecurityManager {
        @Override
        public void checkExit(int status) {
            if (output() != null) {
                throw new Exit(status);
            }
        }

        @Override
        public void checkPermission(Permission permission) {
        }
    }

    private static ByteArrayOutputStream output() {
        for (ThreadGroup group = Thread.currentThread().getThreadGroup(); group != null; group = group.getParent()) {
            ByteArrayOutputStream output = OUTPUTS.get(group);
            if (output != null) {
                return output;
            }
        }
        return null;
    }

    private static PrintStream divided() {
        return new PrintStream(new OutputStream() {
            @Override
            public void write(int b) {
                write(new byte[] {(byte) b}, 0, 1);
            }

            @Override
            public void write(byte[] bytes, int from, int length) {
                ByteArrayOutputStream output = output();
                if (output == null) {
                    ERRORS.write(bytes, from, length);
                } else {
                    output.write(bytes, from, length);
                }
            }
        }, true, StandardCharsets.UTF_8);
    }

    public static void main(String[] ignored) throws Exception {
        System.setSecurityManager(new NoExit());
        System.setOut(divided());
        System.setErr(divided());
        BufferedReader jobs = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = jobs.readLine(); line != null; line = jobs.readLine()) {
            String[] words = line.split("\t", -1);
            String[] rest = Arrays.copyOfRange(words, 2, words.length);
            switch (words[0]) {
                case "run":
                    answer(Long.parseLong(words[1]), () -> Tool.run(rest));
                    break;
                case "api":
                    answer(20_000, () -> api(words[1], rest));
                    break;
                case "fill":
                    answer(60_000, () -> fill(words[1], rest));
                    break;
                case "read":
                    answer(60_000, () -> read(words[1], rest[0], rest[1], Integer.parseInt(rest[2]), Boolean.parseBoolean(rest[3])));
                    break;
                default:
                    throw new IllegalArgumentException("no job is called " + words[0]);
            }
        }
        ANSWERS.flush();
        Runtime.getRuntime().halt(0);
    }

    private static void answer(long limitMs, Job job) throws Exception {
        ThreadGroup group = new ThreadGroup("job");
        ByteArrayOutputStream output = new ByteArrayOutputStream();
        OUTPUTS.put(group, output);
        String[] state = {"limit"};
        Thread thread = new Thread(group, () -> {
            String ended = "end";
            try {
                job.run();
            } catch (Exit exit) {
                ended = "exit:" + exit.status;
            } catch (Throwable thrown) {
                thrown.printStackTrace();
            }
            synchronized (state) {
                state[0] = ended;
            }
        });
        thread.setDaemon(true);
        thread.start();
        thread.join(limitMs);
        byte[] bytes = output.toByteArray();
        synchronized (state) {
            ANSWERS.println(bytes.length + " " + state[0]);
        }
        ANSWERS.write(bytes);
        ANSWERS.flush();
        // Ends what loops until it is interrupted; what it still prints goes to nobody.
        if (thread.isAlive()) {
            group.interrupt();
        }
    }

    private static void api(String namesrv, String[] words) throws Exception {
        DefaultMQAdminExt client = new DefaultMQAdminExt(5000);
        client.setNamesrvAddr(namesrv);
        client.setInstanceName("api-" + System.nanoTime());
        client.start();
        try {
            for (Method method : DefaultMQAdminExt.class.getMethods()) {
                Class<?>[] types = method.getParameterTypes();
                Object[] values = new Object[types.length];
                boolean fits = method.getName().equals(words[0]) && types.length == words.length - 1;
                for (int i = 0; fits && i < types.length; i++) {
                    values[i] = value(types[i], words[i + 1]);
                    fits = values[i] != null || words[i + 1].equals("null");
                }
                if (fits) {
                    Object result = method.invoke(client, values);
                    System.out.println(JSON.toJSONString(result, JSONWriter.Feature.PrettyFormat));
                    return;
                }
            }
            throw new NoSuchMethodException(String.join(" ", words));
        } catch (InvocationTargetException failed) {
            failed.getCause().printStackTrace();
        } finally {
            client.shutdown();
        }
    }

    private static Object value(Class<?> type, String word) {
        if (type == String.class) {
            return word;
        } else if (type == int.class) {
            return Integer.valueOf(word);
        } else if (type == long.class) {
            return Long.valueOf(word);
        } else if (type == boolean.class || type == Boolean.class) {
            return word.equals("null") ? null : Boolean.valueOf(word);
        } else if (type == MessageQueue.class) {
            String[] parts = word.split("/");
            return new MessageQueue(parts[0], parts[1], Integer.parseInt(parts[2]));
        }
        return null;
    }

    /** Three messages to every queue, in the order of broker names and queue ids, so that both clusters hold the same. */
    private static void fill(String namesrv, String[] topics) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("MqaFiller");
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("filler");
        producer.start();
        for (String topic : topics) {
            List<MessageQueue> queues = new ArrayList<>(producer.fetchPublishMessageQueues(topic));
            queues.sort(null);
            int number = 0;
            for (MessageQueue queue : queues) {
                for (int i = 0; i < 3; i++) {
                    byte[] body = ("message " + number).getBytes(StandardCharsets.UTF_8);
                    Message message = new Message(topic, i == 2 ? "TagB" : "TagA", "key-" + number, body);
                    message.putUserProperty("number", Integer.toString(number));
                    SendResult sent = producer.send(message, queue, 10_000);
                    if (number == 0 && topic.equals(topics[0])) {
                        System.out.println("uniqueId=" + sent.getMsgId());
                        System.out.println("offsetId=" + sent.getOffsetMsgId());
                    }
                    number++;
                }
            }
        }
        producer.shutdown();
    }

    private static void read(String namesrv, String group, String topic, int count, boolean stay) throws Exception {
        CountDownLatch left = new CountDownLatch(count);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("mqa");
        consumer.setClientIP("127.0.0.1");
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        // What the last messages' listener has not returned from is not in the offsets that `shutdown` persists.
        consumer.setAwaitTerminationMillisWhenShutdown(10_000);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> left.countDown());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        if (!left.await(50, TimeUnit.SECONDS)) {
            throw new IllegalStateException(group + " got " + (count - left.getCount()) + " of " + count + " messages of " + topic);
        }
        if (!stay) {
            consumer.shutdown();
            return;
        }
        consumer.getDefaultMQPushConsumerImpl().persistConsumerOffset();
        DefaultMQProducer producer = new DefaultMQProducer("MqaProducer");
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("mqa-producer");
        producer.setClientIP("127.0.0.1");
        producer.start();
        // A producer is known to a broker from its first heartbeat there, which follows its first send.
        List<MessageQueue> queues = producer.fetchPublishMessageQueues("MqaProduced");
        for (MessageQueue queue : queues) {
            producer.send(new Message("MqaProduced", "from a producer that stays".getBytes(StandardCharsets.UTF_8)), queue, 10_000);
        }
        producer.getDefaultMQProducerImpl().getMqClientFactory().sendHeartbeatToAllBrokerWithLock();
        STAYING.add(consumer);
        STAYING.add(producer);
    }
}
