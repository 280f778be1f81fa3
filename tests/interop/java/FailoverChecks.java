import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/**
 * The Java client whose server dies: `FailoverChecks HOSTS` sets watches of all kinds and prints "connected PORT"; it
 * goes on when it reads a line, by which time that server is gone. It prints "ok NAME" for each check that holds.
 */
public class FailoverChecks {
    private static final int WAIT_SECONDS = 40;
    private static final String ROOT = "/failover-" + ProcessHandle.current().pid();

    /** Collects events of nodes in the order in which they come. */
    private static class Events implements Watcher {
        final BlockingQueue<String> seen = new LinkedBlockingQueue<>();

        public void process(WatchedEvent event) {
            if (event.getType() != EventType.None) {
                seen.add(event.getType() + " " + event.getPath());
            }
        }

        void expect(EventType type, String path) throws InterruptedException {
            String wanted = type + " " + path;
            String got = seen.poll(WAIT_SECONDS, TimeUnit.SECONDS);
            check(wanted.equals(got), "expected " + wanted + ", got " + got);
        }
    }

    private interface Call<T> {
        T run() throws KeeperException, InterruptedException;
    }

    public static void main(String[] arguments) throws Exception {
        String hosts = arguments[0];
        Events data = new Events();
        Events children = new Events();
        Events absent = new Events();
        Events unchanged = new Events();
        Events tree = new Events();
        ZooKeeper zk = connect(hosts);
        long session = zk.getSessionId();
        for (String name : new String[] {"", "/a", "/p", "/still", "/tree"}) {
            zk.create(ROOT + name, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        }
        zk.create(ROOT + "/mine", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        zk.getData(ROOT + "/a", data, null);
        zk.getChildren(ROOT + "/p", children);
        zk.exists(ROOT + "/absent", absent);
        zk.getData(ROOT + "/still", unchanged, null);
        zk.addWatch(ROOT + "/tree", tree, AddWatchMode.PERSISTENT_RECURSIVE);
        String port = portOf(zk);
        System.out.println("connected " + port);
        new BufferedReader(new InputStreamReader(System.in)).readLine();

        String others = String.join(",", Arrays.stream(hosts.split(",")).filter(host -> !host.endsWith(":" + port)).toList());
        ZooKeeper other = connect(others);
        patiently(() -> other.setData(ROOT + "/a", new byte[1], 0));
        patiently(() -> other.create(ROOT + "/p/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        patiently(() -> other.create(ROOT + "/absent", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        data.expect(EventType.NodeDataChanged, ROOT + "/a");
        children.expect(EventType.NodeChildrenChanged, ROOT + "/p");
        absent.expect(EventType.NodeCreated, ROOT + "/absent");
        System.out.println("ok watches catch up");
        check(patiently(() -> zk.exists(ROOT + "/mine", false)).getEphemeralOwner() == session, "owner");
        check(zk.getSessionId() == session && !portOf(zk).equals(port), "the session has moved");
        System.out.println("ok session and ephemeral go on");
        patiently(() -> other.setData(ROOT + "/still", new byte[1], 0));
        unchanged.expect(EventType.NodeDataChanged, ROOT + "/still");
        patiently(() -> other.create(ROOT + "/tree/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        tree.expect(EventType.NodeCreated, ROOT + "/tree/x");
        for (Events one : new Events[] {data, children, absent, unchanged, tree}) {
            check(one.seen.isEmpty(), "more than was to be told: " + one.seen);
        }
        System.out.println("ok watches go on");
        zk.close();
        other.close();
        System.exit(0);
    }

    private static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    private static ZooKeeper connect(String hosts) throws Exception {
        BlockingQueue<Boolean> connected = new LinkedBlockingQueue<>();
        ZooKeeper client = new ZooKeeper(hosts, 10_000, event -> connected.add(true));
        check(connected.poll(WAIT_SECONDS, TimeUnit.SECONDS) != null, "not connected to " + hosts);
        return client;
    }

    private static String portOf(ZooKeeper client) {
        Matcher found = Pattern.compile("remoteserver:[^ ]*:(\\d+)").matcher(client.toString());
        check(found.find(), "no server in " + client);
        return found.group(1);
    }

    /** A call that is made again while no server is connected; one that was done without our knowing is done. */
    private static <T> T patiently(Call<T> call) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        while (true) {
            try {
                return call.run();
            } catch (KeeperException.ConnectionLossException error) {
                check(System.nanoTime() < end, "no server");
                Thread.sleep(50);
            } catch (KeeperException.NodeExistsException | KeeperException.BadVersionException error) {
                return null;
            }
        }
    }
}
