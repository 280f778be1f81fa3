import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.auth.DigestAuthenticationProvider;

/**
 * The Java client against one server or ensemble: `ClientChecks HOSTS` prints "ok NAME" for each check that holds,
 * "failed NAME" and a stack trace for those that do not.
 */
public class ClientChecks {
    private static final int WAIT_SECONDS = 30;
    private final String hosts;
    private final String root = "/java-" + ProcessHandle.current().pid();
    private final ZooKeeper zk;

    private interface Check {
        void run() throws Exception;
    }

    private interface Call {
        void run() throws KeeperException, InterruptedException;
    }

    /** Collects events in the order in which they come. */
    private static class Events implements Watcher {
        final BlockingQueue<WatchedEvent> seen = new LinkedBlockingQueue<>();

        public void process(WatchedEvent event) {
            if (event.getType() != EventType.None) {
                seen.add(event);
            }
        }

        void expect(EventType type, String path) throws InterruptedException {
            WatchedEvent event = seen.poll(WAIT_SECONDS, TimeUnit.SECONDS);
            check(event != null, "no event, expected " + type + " " + path);
            check(event.getType() == type && event.getPath().equals(path), "expected " + type + " " + path + ", got " + event);
        }
    }

    public static void main(String[] arguments) throws Exception {
        ClientChecks checks = new ClientChecks(arguments[0]);
        checks.runAll();
        System.exit(0);
    }

    private ClientChecks(String hosts) throws Exception {
        this.hosts = hosts;
        zk = connect(hosts);
        zk.create(root, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    private void runAll() throws Exception {
        run("nodes", this::nodes);
        run("modes", this::modes);
        run("ttl", this::ttl);
        run("standard watches", this::standardWatches);
        run("persistent watches", this::persistentWatches);
        run("removed watches", this::removedWatches);
        run("multi", this::multi);
        run("multi read", this::multiRead);
        run("access control lists", this::lists);
        run("super user", this::superUser);
        run("who am i", this::whoAmI);
        run("ephemerals", this::ephemerals);
        run("pipeline", this::pipeline);
        run("chroot", this::chroot);
        run("session taken up again", this::sessionTakenUpAgain);
        run("closed session", this::closedSession);
        run("configuration", this::configuration);
        run("read-only client", this::readOnlyClient);
        run("large data", this::largeData);
        zk.close();
    }

    private static void run(String name, Check check) {
        try {
            check.run();
            System.out.println("ok " + name);
        } catch (Exception | AssertionError error) {
            System.out.println("failed " + name);
            error.printStackTrace(System.out);
        }
    }

    static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    private static void refused(Code code, Call call) throws InterruptedException {
        try {
            call.run();
        } catch (KeeperException error) {
            check(error.code() == code, "expected " + code + ", got " + error.code());
            return;
        }
        throw new AssertionError("expected " + code + ", got success");
    }

    private static ZooKeeper connect(String hosts) throws Exception {
        return connect(hosts, false, 0, null);
    }

    private static ZooKeeper connect(String hosts, boolean readOnly, long session, byte[] password) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        Watcher watcher = event -> {
            if (event.getState() == Watcher.Event.KeeperState.SyncConnected) {
                connected.countDown();
            }
        };
        ZooKeeper client = session == 0
            ? new ZooKeeper(hosts, 10_000, watcher, readOnly)
            : new ZooKeeper(hosts, 10_000, watcher, session, password, readOnly);
        check(connected.await(WAIT_SECONDS, TimeUnit.SECONDS), "not connected to " + hosts);
        return client;
    }

    /** What others have done until now is seen by what follows, at whichever server of an ensemble. */
    private void catchUp() throws InterruptedException {
        CountDownLatch synced = new CountDownLatch(1);
        zk.sync(root, (rc, path, context) -> synced.countDown(), null);
        check(synced.await(WAIT_SECONDS, TimeUnit.SECONDS), "sync");
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private String make(String name) throws KeeperException, InterruptedException {
        return zk.create(root + name, bytes("0"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    private void nodes() throws Exception {
        String path = make("/a");
        Stat stat = new Stat();
        check(Arrays.equals(zk.getData(path, false, stat), bytes("0")), "data");
        check(stat.getVersion() == 0 && stat.getCzxid() == stat.getMzxid() && stat.getDataLength() == 1, "stat");
        Stat changed = zk.setData(path, bytes("12"), 0);
        check(changed.getVersion() == 1 && changed.getMzxid() > changed.getCzxid(), "stat of a change");
        refused(Code.BADVERSION, () -> zk.setData(path, bytes("3"), 0));
        refused(Code.NODEEXISTS, () -> make("/a"));
        refused(Code.NONODE, () -> make("/b/c"));
        refused(Code.NOTEMPTY, () -> zk.delete(root, -1));
        refused(Code.BADARGUMENTS, () -> zk.delete("/zookeeper", -1));
        Stat created = new Stat();
        zk.create(root + "/null", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, created);
        check(zk.getData(root + "/null", false, null) == null && created.getDataLength() == 0, "null data");
        zk.setData(root + "/null", new byte[0], -1);
        check(zk.getData(root + "/null", false, null).length == 0, "empty data");
        zk.delete(root + "/null", 1);
        check(zk.exists(root + "/null", false) == null, "deleted");
        check(zk.getChildren(root, false, stat).equals(List.of("a")) && stat.getCversion() == 3, "children");
        check(zk.getAllChildrenNumber(root) == 1, "all children");
        catchUp();
    }

    private void modes() throws Exception {
        String parent = make("/modes");
        Stat stat = new Stat();
        for (int number = 0; number < 3; number++) {
            String path = zk.create(parent + "/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL);
            check(path.equals(String.format("%s/s-%010d", parent, number)), path);
        }
        zk.create(parent + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL, stat);
        check(stat.getEphemeralOwner() == zk.getSessionId(), "owner");
        refused(Code.NOCHILDRENFOREPHEMERALS, () -> make("/modes/e/c"));
        zk.create(parent + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER, stat);
        check(stat.getEphemeralOwner() == 0, "owner of a container");
        check(zk.create(parent + "/c/es-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL).endsWith("es-0000000000"), "name");
    }

    private void ttl() throws Exception {
        Stat stat = new Stat();
        zk.create(root + "/ttl", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, stat, 3_600_000);
        check(stat.getEphemeralOwner() == 0, "owner");
        String path = zk.create(root + "/ttl-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, stat, 3_600_000);
        check(path.length() == root.length() + 15, path);
    }

    private void standardWatches() throws Exception {
        String path = root + "/w";
        Events events = new Events();
        check(zk.exists(path, events) == null, "absent");
        make("/w");
        events.expect(EventType.NodeCreated, path);
        zk.getData(path, events, null);
        zk.setData(path, bytes("1"), -1);
        zk.setData(path, bytes("2"), -1);
        events.expect(EventType.NodeDataChanged, path);
        zk.getChildren(path, events);
        make("/w/c");
        events.expect(EventType.NodeChildrenChanged, path);
        zk.getData(path + "/c", events, null);
        zk.getChildren(path + "/c", events);
        zk.delete(path + "/c", -1);
        events.expect(EventType.NodeDeleted, path + "/c");
        check(events.seen.isEmpty(), "one event only, got " + events.seen);
    }

    private void persistentWatches() throws Exception {
        Events flat = new Events();
        Events deep = new Events();
        zk.addWatch(root + "/pw", flat, AddWatchMode.PERSISTENT);
        zk.addWatch(root + "/pw", deep, AddWatchMode.PERSISTENT_RECURSIVE);
        for (int round = 0; round < 2; round++) {
            make("/pw");
            make("/pw/c");
            zk.setData(root + "/pw/c", bytes("1"), -1);
            zk.delete(root + "/pw/c", -1);
            zk.delete(root + "/pw", -1);
            flat.expect(EventType.NodeCreated, root + "/pw");
            flat.expect(EventType.NodeChildrenChanged, root + "/pw");
            flat.expect(EventType.NodeChildrenChanged, root + "/pw");
            flat.expect(EventType.NodeDeleted, root + "/pw");
            deep.expect(EventType.NodeCreated, root + "/pw");
            deep.expect(EventType.NodeCreated, root + "/pw/c");
            deep.expect(EventType.NodeDataChanged, root + "/pw/c");
            deep.expect(EventType.NodeDeleted, root + "/pw/c");
            deep.expect(EventType.NodeDeleted, root + "/pw");
        }
    }

    private void removedWatches() throws Exception {
        String path = make("/rw");
        Events data = new Events();
        Events children = new Events();
        zk.getData(path, data, null);
        zk.getChildren(path, children);
        zk.removeWatches(path, data, Watcher.WatcherType.Data, false);
        data.expect(EventType.DataWatchRemoved, path);
        refused(Code.NOWATCHER, () -> zk.removeWatches(path, data, Watcher.WatcherType.Data, false));
        zk.setData(path, bytes("1"), -1);
        make("/rw/c");
        children.expect(EventType.NodeChildrenChanged, path);
        check(data.seen.isEmpty(), "a removed watch fired");
        Events persistent = new Events();
        zk.addWatch(path, persistent, AddWatchMode.PERSISTENT_RECURSIVE);
        zk.removeAllWatches(path, Watcher.WatcherType.Any, false);
        persistent.expect(EventType.PersistentWatchRemoved, path);
    }

    private void multi() throws Exception {
        String path = root + "/m";
        List<OpResult> results = zk.multi(List.of(
            Op.create(path, bytes("1"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.create(path + "/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL),
            Op.create(path + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
            Op.setData(path, bytes("2"), 0),
            Op.check(path, 1),
            Op.delete(path + "/c", -1)));
        check(results.size() == 6, "results");
        check(((OpResult.CreateResult) results.get(1)).getPath().equals(path + "/s-0000000000"), "name");
        check(((OpResult.CreateResult) results.get(2)).getStat() != null, "a container's stat");
        check(((OpResult.SetDataResult) results.get(3)).getStat().getVersion() == 1, "version");
        try {
            zk.multi(List.of(Op.delete(path + "/s-0000000000", -1), Op.check(path, 7), Op.delete(path, -1)));
            throw new AssertionError("a failing multi succeeded");
        } catch (KeeperException.BadVersionException error) {
            List<Integer> codes = new ArrayList<>();
            error.getResults().forEach(result -> codes.add(((OpResult.ErrorResult) result).getErr()));
            check(codes.equals(List.of(0, Code.BADVERSION.intValue(), Code.RUNTIMEINCONSISTENCY.intValue())), "codes " + codes);
        }
        check(zk.exists(path + "/s-0000000000", false) != null, "rolled back");
        check(zk.transaction().check(path, 1).delete(path + "/s-0000000000", -1).delete(path, -1).commit().size() == 3, "transaction");
        check(zk.multi(List.of()).isEmpty(), "empty multi");
    }

    private void multiRead() throws Exception {
        List<OpResult> results = zk.multi(List.of(Op.getData(root + "/a"), Op.getChildren(root + "/none"), Op.getChildren(root + "/a")));
        check(Arrays.equals(((OpResult.GetDataResult) results.get(0)).getData(), bytes("12")), "data");
        check(((OpResult.ErrorResult) results.get(1)).getErr() == Code.NONODE.intValue(), "error");
        check(((OpResult.GetChildrenResult) results.get(2)).getChildren().isEmpty(), "children");
    }

    private void lists() throws Exception {
        ZooKeeper user = connect(hosts);
        user.addAuthInfo("digest", bytes("user:secret"));
        Id own = new Id("digest", DigestAuthenticationProvider.generateDigest("user:secret"));
        String path = user.create(root + "/mine", bytes("x"), Arrays.asList(new ACL(Perms.ALL, own)), CreateMode.PERSISTENT);
        catchUp();
        refused(Code.NOAUTH, () -> zk.getData(path, false, null));
        refused(Code.NOAUTH, () -> zk.exists(path, false));
        refused(Code.NOAUTH, () -> zk.setACL(path, Ids.OPEN_ACL_UNSAFE, -1));
        if (System.getProperty("java.security.auth.login.config") == null) {
            refused(Code.INVALIDACL, () -> zk.create(root + "/none", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
        } else {
            zk.create(root + "/logged-in", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            check(zk.getACL(root + "/logged-in", null).get(0).getId().getScheme().equals("sasl"), "not known by SASL");
        }
        List<ACL> open = new ArrayList<>(user.getACL(path, null));
        open.add(new ACL(Perms.READ, Ids.ANYONE_ID_UNSAFE));
        refused(Code.BADVERSION, () -> user.setACL(path, open, 7));
        check(user.setACL(path, open, 0).getAversion() == 1, "aversion");
        Stat stat = new Stat();
        catchUp();
        List<ACL> masked = zk.getACL(path, stat);
        check(masked.get(0).getId().getId().equals("user:x") && masked.size() == 2, "masked " + masked);
        String local = zk.create(root + "/local", null, Arrays.asList(new ACL(Perms.ALL, new Id("ip", "127.0.0.0/8"))), CreateMode.PERSISTENT);
        zk.setData(local, bytes("1"), -1);
        user.close();
    }

    private void superUser() throws Exception {
        ZooKeeper user = connect(hosts);
        user.addAuthInfo("digest", bytes("super:test"));
        check(!user.getACL(root + "/mine", null).get(0).getId().getId().endsWith(":x"), "the super user sees digests");
        user.setData(root + "/mine", bytes("by super"), -1);
        user.close();
    }

    private void whoAmI() throws Exception {
        HashSet<String> schemes = new HashSet<>();
        ZooKeeper user = connect(hosts);
        user.addAuthInfo("digest", bytes("user:secret"));
        user.whoAmI().forEach(info -> schemes.add(info.getAuthScheme() + " " + info.getUser()));
        check(schemes.contains("digest user") && schemes.contains("ip 127.0.0.1"), schemes.toString());
        user.close();
    }

    private void ephemerals() throws Exception {
        ZooKeeper user = connect(hosts);
        for (String name : List.of("/ep-a", "/ep-b", "/other")) {
            user.create(root + name, null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        }
        check(new HashSet<>(user.getEphemerals(root + "/ep")).equals(new HashSet<>(List.of(root + "/ep-a", root + "/ep-b"))), "ephemerals");
        check(user.getEphemerals().size() == 3, "all ephemerals");
        user.close();
        catchUp();
        check(zk.exists(root + "/ep-a", false) == null, "gone with its session");
    }

    private void pipeline() throws Exception {
        String parent = make("/p");
        int count = 1000;
        CountDownLatch answered = new CountDownLatch(2 * count);
        List<Integer> codes = java.util.Collections.synchronizedList(new ArrayList<>());
        for (int number = 0; number < count; number++) {
            zk.create(parent + "/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL, (rc, path, context, name) -> {
                codes.add(rc);
                answered.countDown();
            }, null);
            zk.setData(parent, bytes("" + number), number, (rc, path, context, stat) -> {
                codes.add(rc);
                answered.countDown();
            }, null);
        }
        check(answered.await(WAIT_SECONDS, TimeUnit.SECONDS), "unanswered: " + answered.getCount());
        check(codes.stream().allMatch(rc -> rc == 0), "codes");
        check(zk.getChildren(parent, false).size() == count, "children");
    }

    private void chroot() throws Exception {
        make("/ch");
        ZooKeeper inside = connect(hosts + root + "/ch");
        Events events = new Events();
        check(inside.create("/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT).equals("/x"), "path");
        inside.getData("/x", events, null);
        zk.setData(root + "/ch/x", bytes("1"), -1);
        events.expect(EventType.NodeDataChanged, "/x");
        inside.close();
    }

    private void sessionTakenUpAgain() throws Exception {
        ZooKeeper first = connect(hosts);
        first.create(root + "/held", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        ZooKeeper second = connect(hosts, false, first.getSessionId(), first.getSessionPasswd());
        check(second.getSessionId() == first.getSessionId(), "the same session");
        // Both clients want the session now, and each cuts the other's connection.
        Stat stat = null;
        for (int tries = 0; stat == null && tries < 100; tries++) {
            try {
                stat = second.exists(root + "/held", false);
            } catch (KeeperException.ConnectionLossException error) {
                Thread.sleep(20);
            }
        }
        check(stat != null && stat.getEphemeralOwner() == first.getSessionId(), "owner");
        // Where the first has cut it off once more, the second's closing is lost: then the first's ends the session.
        second.close();
        first.close();
        catchUp();
        check(zk.exists(root + "/held", false) == null, "gone");
    }

    private void closedSession() throws Exception {
        ZooKeeper ended = connect(hosts);
        long session = ended.getSessionId();
        byte[] password = ended.getSessionPasswd();
        ended.close();
        CountDownLatch expired = new CountDownLatch(1);
        ZooKeeper late = new ZooKeeper(hosts, 10_000, event -> {
            if (event.getState() == Watcher.Event.KeeperState.Expired) {
                expired.countDown();
            }
        }, session, password);
        check(expired.await(WAIT_SECONDS, TimeUnit.SECONDS), "a session that has ended is expired");
        late.close();
    }

    private void configuration() throws Exception {
        zk.getConfig(false, new Stat());
    }

    private void readOnlyClient() throws Exception {
        ZooKeeper client = connect(hosts, true, 0, null);
        client.create(root + "/ro", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        client.close();
    }

    private void largeData() throws Exception {
        byte[] data = new byte[512 * 1024];
        Arrays.fill(data, (byte) 7);
        zk.create(root + "/large", data, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        check(Arrays.equals(zk.getData(root + "/large", false, null), data), "data");
    }
}
