import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.NodeCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.TreeCache;
import org.apache.curator.framework.recipes.cache.TreeCacheEvent;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher.Event.EventType;

/**
 * Curator's framework and recipes against one server or ensemble: `CuratorChecks HOSTS` prints "ok NAME" for each
 * check that holds, "failed NAME" and a stack trace for those that do not.
 */
@SuppressWarnings("deprecation")
public class CuratorChecks {
    private static final int WAIT_SECONDS = 30;
    private final String root = "/curator-" + ProcessHandle.current().pid();
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private final CuratorFramework one;
    private final CuratorFramework two;

    private interface Check {
        void run() throws Exception;
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        new CuratorChecks(arguments[0]).runAll();
        System.exit(0);
    }

    private CuratorChecks(String hosts) throws Exception {
        one = start(hosts);
        two = start(hosts);
        one.create().creatingParentsIfNeeded().forPath(root);
    }

    private static CuratorFramework start(String hosts) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(hosts, 15_000, 10_000, new RetryOneTime(200));
        client.start();
        check(client.blockUntilConnected(WAIT_SECONDS, TimeUnit.SECONDS), "not connected");
        return client;
    }

    private void runAll() throws Exception {
        run("framework", this::framework);
        run("protected creates", this::protectedCreates);
        run("transaction", this::transaction);
        run("background", this::background);
        run("CuratorCache", this::curatorCache);
        run("PathChildrenCache", this::pathChildrenCache);
        run("NodeCache", this::nodeCache);
        run("TreeCache", this::treeCache);
        run("PersistentWatcher", this::persistentWatcher);
        run("InterProcessMutex", this::mutex);
        run("InterProcessSemaphoreMutex", this::semaphoreMutex);
        run("InterProcessReadWriteLock", this::readWriteLock);
        run("InterProcessSemaphoreV2", this::semaphore);
        run("InterProcessMultiLock", this::multiLock);
        run("LeaderLatch", this::leaderLatch);
        run("LeaderSelector", this::leaderSelector);
        run("DistributedBarrier", this::barrier);
        run("DistributedDoubleBarrier", this::doubleBarrier);
        run("SharedCount", this::sharedCount);
        run("DistributedAtomicLong", this::atomicLong);
        run("SimpleDistributedQueue", this::queue);
        run("PersistentNode", this::persistentNode);
        run("GroupMember", this::groupMember);
        threads.shutdownNow();
        one.close();
        two.close();
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

    private static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    private static void eventually(String what, Condition condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        while (!condition.holds()) {
            check(System.nanoTime() < end, "waited in vain: " + what);
            Thread.sleep(10);
        }
    }

    /** What the first client has done until now is seen by what the second does, at whichever server. */
    private void catchUp() throws Exception {
        two.sync().forPath(root);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private void framework() throws Exception {
        String path = root + "/f/a/b";
        check(one.create().orSetData().creatingParentContainersIfNeeded().forPath(path, bytes("1")).equals(path), "path");
        one.create().orSetData().forPath(path, bytes("2"));
        catchUp();
        check(new String(two.getData().forPath(path)).equals("2"), "data");
        check(one.setData().withVersion(1).forPath(path, bytes("3")).getVersion() == 2, "version");
        check(one.getChildren().forPath(root + "/f").equals(List.of("a")), "children");
        one.create().withTtl(3_600_000).withMode(CreateMode.PERSISTENT_WITH_TTL).forPath(root + "/f/ttl");
        one.create().withMode(CreateMode.CONTAINER).forPath(root + "/f/container");
        check(one.checkExists().forPath(root + "/none") == null, "absent");
        one.sync().forPath(path);
        one.delete().guaranteed().deletingChildrenIfNeeded().forPath(root + "/f");
        check(one.checkExists().forPath(root + "/f") == null, "deleted");
        one.delete().quietly().forPath(root + "/f");
        check(one.usingNamespace(root.substring(1)).create().forPath("/space").equals("/space"), "namespace");
        one.getConfig().forEnsemble();
    }

    private void protectedCreates() throws Exception {
        String path = one.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath(root + "/p-");
        check(path.matches(root + "/_c_[0-9a-f-]{36}-p-[0-9]{10}"), path);
        catchUp();
        check(two.checkExists().forPath(path).getEphemeralOwner() == one.getZookeeperClient().getZooKeeper().getSessionId(), "owner");
    }

    private void transaction() throws Exception {
        String path = root + "/t";
        List<CuratorTransactionResult> results = one.transaction().forOperations(
            one.transactionOp().create().forPath(path, bytes("1")),
            one.transactionOp().create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath(path + "/s-"),
            one.transactionOp().setData().withVersion(0).forPath(path, bytes("2")),
            one.transactionOp().check().withVersion(1).forPath(path),
            one.transactionOp().delete().forPath(path + "/s-0000000000"));
        check(results.get(1).getResultPath().equals(path + "/s-0000000000"), "name");
        check(results.get(2).getResultStat().getVersion() == 1, "version");
        try {
            one.transaction().forOperations(one.transactionOp().delete().forPath(path), one.transactionOp().check().forPath(root + "/none"));
            throw new AssertionError("a failing transaction succeeded");
        } catch (KeeperException.NoNodeException expected) {
            check(one.checkExists().forPath(path) != null, "rolled back");
        }
    }

    private void background() throws Exception {
        int count = 200;
        CountDownLatch done = new CountDownLatch(count);
        AtomicInteger failed = new AtomicInteger();
        one.create().forPath(root + "/b");
        for (int number = 0; number < count; number++) {
            one.create().inBackground((client, event) -> {
                failed.addAndGet(event.getResultCode());
                done.countDown();
            }).forPath(root + "/b/" + number);
        }
        check(done.await(WAIT_SECONDS, TimeUnit.SECONDS) && failed.get() == 0, "failed " + failed);
    }

    private void curatorCache() throws Exception {
        String path = root + "/cc";
        one.create().creatingParentsIfNeeded().forPath(path + "/a/b", bytes("1"));
        catchUp();
        ConcurrentSkipListMap<String, String> seen = new ConcurrentSkipListMap<>();
        CountDownLatch ready = new CountDownLatch(1);
        try (CuratorCache cache = CuratorCache.build(two, path)) {
            cache.listenable().addListener(new org.apache.curator.framework.recipes.cache.CuratorCacheListener() {
                public synchronized void event(Type type, org.apache.curator.framework.recipes.cache.ChildData old, org.apache.curator.framework.recipes.cache.ChildData now) {
                    if (type == Type.NODE_DELETED) {
                        seen.remove(old.getPath());
                    } else {
                        seen.put(now.getPath(), new String(now.getData()));
                    }
                }

                public void initialized() {
                    ready.countDown();
                }
            });
            cache.start();
            check(ready.await(WAIT_SECONDS, TimeUnit.SECONDS), "not initialized");
            check(cache.size() == 3, "size " + cache.size());
            one.setData().forPath(path + "/a/b", bytes("2"));
            one.create().forPath(path + "/a/b/c", bytes("3"));
            eventually("changes arrive", () -> "2".equals(seen.get(path + "/a/b")) && "3".equals(seen.get(path + "/a/b/c")));
            one.delete().deletingChildrenIfNeeded().forPath(path + "/a");
            eventually("deletions arrive", () -> seen.keySet().equals(Set.of(path)) && cache.size() == 1);
        }
    }

    private void pathChildrenCache() throws Exception {
        String path = root + "/pcc";
        one.create().creatingParentsIfNeeded().forPath(path + "/a", bytes("1"));
        catchUp();
        try (PathChildrenCache cache = new PathChildrenCache(two, path, true)) {
            cache.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
            check(cache.getCurrentData().size() == 1, "initial");
            one.setData().forPath(path + "/a", bytes("2"));
            one.create().forPath(path + "/b");
            eventually("changes arrive", () -> cache.getCurrentData().size() == 2 && new String(cache.getCurrentData(path + "/a").getData()).equals("2"));
            one.delete().forPath(path + "/a");
            eventually("deletion arrives", () -> cache.getCurrentData(path + "/a") == null);
        }
    }

    private void nodeCache() throws Exception {
        String path = root + "/nc";
        try (NodeCache cache = new NodeCache(two, path)) {
            cache.start(true);
            check(cache.getCurrentData() == null, "absent");
            one.create().forPath(path, bytes("1"));
            eventually("creation arrives", () -> cache.getCurrentData() != null);
            one.setData().forPath(path, bytes("2"));
            eventually("change arrives", () -> new String(cache.getCurrentData().getData()).equals("2"));
            one.delete().forPath(path);
            eventually("deletion arrives", () -> cache.getCurrentData() == null);
        }
    }

    private void treeCache() throws Exception {
        String path = root + "/tc";
        one.create().creatingParentsIfNeeded().forPath(path + "/a/b");
        catchUp();
        CountDownLatch ready = new CountDownLatch(1);
        try (TreeCache cache = new TreeCache(two, path)) {
            cache.getListenable().addListener((client, event) -> {
                if (event.getType() == TreeCacheEvent.Type.INITIALIZED) {
                    ready.countDown();
                }
            });
            cache.start();
            check(ready.await(WAIT_SECONDS, TimeUnit.SECONDS), "not initialized");
            check(cache.getCurrentChildren(path).keySet().equals(Set.of("a")), "children");
            one.create().forPath(path + "/a/b/c", bytes("1"));
            eventually("creation arrives", () -> cache.getCurrentData(path + "/a/b/c") != null);
        }
    }

    private void persistentWatcher() throws Exception {
        String path = root + "/pw";
        BlockingQueue<String> seen = new LinkedBlockingQueue<>();
        CountDownLatch set = new CountDownLatch(1);
        try (PersistentWatcher watcher = new PersistentWatcher(two, path, true)) {
            watcher.getListenable().addListener(event -> {
                if (event.getType() != EventType.None) {
                    seen.add(event.getType() + " " + event.getPath());
                }
            });
            watcher.getResetListenable().addListener(set::countDown);
            watcher.start();
            check(set.await(WAIT_SECONDS, TimeUnit.SECONDS), "not set");
            one.create().creatingParentsIfNeeded().forPath(path + "/a");
            one.delete().deletingChildrenIfNeeded().forPath(path);
            for (String wanted : List.of("NodeCreated " + path, "NodeCreated " + path + "/a", "NodeDeleted " + path + "/a", "NodeDeleted " + path)) {
                String got = seen.poll(WAIT_SECONDS, TimeUnit.SECONDS);
                check(wanted.equals(got), "expected " + wanted + ", got " + got);
            }
        }
    }

    private void mutex() throws Exception {
        String path = root + "/mutex";
        AtomicInteger inside = new AtomicInteger();
        List<Future<?>> workers = new ArrayList<>();
        for (CuratorFramework client : List.of(one, two, one, two)) {
            InterProcessMutex mutex = new InterProcessMutex(client, path);
            workers.add(threads.submit(() -> {
                for (int round = 0; round < 5; round++) {
                    check(mutex.acquire(WAIT_SECONDS, TimeUnit.SECONDS), "not acquired");
                    check(mutex.acquire(1, TimeUnit.SECONDS), "not re-entrant");
                    check(inside.incrementAndGet() == 1, "two inside");
                    inside.decrementAndGet();
                    mutex.release();
                    mutex.release();
                }
                return null;
            }));
        }
        for (Future<?> worker : workers) {
            worker.get(2 * WAIT_SECONDS, TimeUnit.SECONDS);
        }
    }

    private void semaphoreMutex() throws Exception {
        InterProcessSemaphoreMutex first = new InterProcessSemaphoreMutex(one, root + "/sm");
        InterProcessSemaphoreMutex second = new InterProcessSemaphoreMutex(two, root + "/sm");
        first.acquire();
        check(!second.acquire(100, TimeUnit.MILLISECONDS), "acquired twice");
        first.release();
        check(second.acquire(WAIT_SECONDS, TimeUnit.SECONDS), "not acquired");
        second.release();
    }

    private void readWriteLock() throws Exception {
        InterProcessReadWriteLock first = new InterProcessReadWriteLock(one, root + "/rw");
        InterProcessReadWriteLock second = new InterProcessReadWriteLock(two, root + "/rw");
        first.readLock().acquire();
        check(second.readLock().acquire(WAIT_SECONDS, TimeUnit.SECONDS), "two readers");
        check(!second.writeLock().acquire(100, TimeUnit.MILLISECONDS), "a writer beside readers");
        first.readLock().release();
        second.readLock().release();
        check(second.writeLock().acquire(WAIT_SECONDS, TimeUnit.SECONDS), "a writer alone");
        check(!first.readLock().acquire(100, TimeUnit.MILLISECONDS), "a reader beside a writer");
        second.writeLock().release();
    }

    private void semaphore() throws Exception {
        InterProcessSemaphoreV2 first = new InterProcessSemaphoreV2(one, root + "/sem", 2);
        InterProcessSemaphoreV2 second = new InterProcessSemaphoreV2(two, root + "/sem", 2);
        Lease a = first.acquire(WAIT_SECONDS, TimeUnit.SECONDS);
        Lease b = second.acquire(WAIT_SECONDS, TimeUnit.SECONDS);
        check(a != null && b != null, "two leases");
        check(first.acquire(100, TimeUnit.MILLISECONDS) == null, "a third lease");
        second.returnLease(b);
        Lease c = first.acquire(WAIT_SECONDS, TimeUnit.SECONDS);
        check(c != null, "a returned lease");
        first.returnAll(List.of(a, c));
    }

    private void multiLock() throws Exception {
        InterProcessMultiLock both = new InterProcessMultiLock(one, List.of(root + "/ml-a", root + "/ml-b"));
        both.acquire();
        InterProcessMutex single = new InterProcessMutex(two, root + "/ml-b");
        check(!single.acquire(100, TimeUnit.MILLISECONDS), "acquired twice");
        both.release();
        check(single.acquire(WAIT_SECONDS, TimeUnit.SECONDS), "not acquired");
        single.release();
    }

    private void leaderLatch() throws Exception {
        LeaderLatch first = new LeaderLatch(one, root + "/latch", "first");
        LeaderLatch second = new LeaderLatch(two, root + "/latch", "second");
        first.start();
        check(first.await(WAIT_SECONDS, TimeUnit.SECONDS), "first does not lead");
        second.start();
        eventually("two participants", () -> second.getParticipants().size() == 2);
        check(!second.hasLeadership() && second.getLeader().getId().equals("first"), "leader");
        first.close();
        check(second.await(WAIT_SECONDS, TimeUnit.SECONDS), "second does not lead");
        second.close();
    }

    private void leaderSelector() throws Exception {
        BlockingQueue<String> led = new LinkedBlockingQueue<>();
        List<LeaderSelector> selectors = new ArrayList<>();
        int number = 0;
        for (CuratorFramework client : List.of(one, two)) {
            String name = "c" + number++;
            LeaderSelector selector = new LeaderSelector(client, root + "/selector", new LeaderSelectorListenerAdapter() {
                public void takeLeadership(CuratorFramework framework) {
                    led.add(name);
                }
            });
            selector.start();
            selectors.add(selector);
        }
        String a = led.poll(WAIT_SECONDS, TimeUnit.SECONDS);
        String b = led.poll(WAIT_SECONDS, TimeUnit.SECONDS);
        check(a != null && b != null && !a.equals(b), "led: " + a + ", " + b);
        selectors.forEach(LeaderSelector::close);
    }

    private void barrier() throws Exception {
        DistributedBarrier barrier = new DistributedBarrier(one, root + "/barrier");
        barrier.setBarrier();
        catchUp();
        DistributedBarrier other = new DistributedBarrier(two, root + "/barrier");
        check(!other.waitOnBarrier(100, TimeUnit.MILLISECONDS), "the barrier is up");
        Future<Boolean> waiting = threads.submit(() -> other.waitOnBarrier(WAIT_SECONDS, TimeUnit.SECONDS));
        barrier.removeBarrier();
        check(waiting.get(), "the barrier is down");
    }

    private void doubleBarrier() throws Exception {
        DistributedDoubleBarrier first = new DistributedDoubleBarrier(one, root + "/double", 2);
        DistributedDoubleBarrier second = new DistributedDoubleBarrier(two, root + "/double", 2);
        Future<Boolean> entered = threads.submit(() -> first.enter(WAIT_SECONDS, TimeUnit.SECONDS));
        check(second.enter(WAIT_SECONDS, TimeUnit.SECONDS) && entered.get(), "both enter");
        Future<Boolean> left = threads.submit(() -> first.leave(WAIT_SECONDS, TimeUnit.SECONDS));
        check(second.leave(WAIT_SECONDS, TimeUnit.SECONDS) && left.get(), "both leave");
    }

    private void sharedCount() throws Exception {
        try (SharedCount first = new SharedCount(one, root + "/count", 3); SharedCount second = new SharedCount(two, root + "/count", 3)) {
            first.start();
            second.start();
            first.setCount(7);
            eventually("the count arrives", () -> second.getCount() == 7);
            check(second.trySetCount(second.getVersionedValue(), 8), "compare and set");
        }
    }

    private void atomicLong() throws Exception {
        List<Future<?>> workers = new ArrayList<>();
        for (CuratorFramework client : List.of(one, two)) {
            DistributedAtomicLong number = new DistributedAtomicLong(client, root + "/long", new org.apache.curator.retry.RetryNTimes(100, 5));
            workers.add(threads.submit(() -> {
                for (int round = 0; round < 20; round++) {
                    check(number.increment().succeeded(), "not incremented");
                }
                return null;
            }));
        }
        for (Future<?> worker : workers) {
            worker.get(WAIT_SECONDS, TimeUnit.SECONDS);
        }
        one.sync().forPath(root);
        check(new DistributedAtomicLong(one, root + "/long", new RetryOneTime(5)).get().postValue() == 40, "sum");
    }

    private void queue() throws Exception {
        SimpleDistributedQueue producer = new SimpleDistributedQueue(one, root + "/queue");
        SimpleDistributedQueue consumer = new SimpleDistributedQueue(two, root + "/queue");
        Future<byte[]> first = threads.submit(() -> consumer.poll(WAIT_SECONDS, TimeUnit.SECONDS));
        producer.offer(bytes("a"));
        check(new String(first.get()).equals("a"), "first");
        producer.offer(bytes("b"));
        producer.offer(bytes("c"));
        check(new String(consumer.take()).equals("b") && new String(consumer.take()).equals("c"), "order");
    }

    private void persistentNode() throws Exception {
        try (PersistentNode node = new PersistentNode(one, CreateMode.EPHEMERAL, false, root + "/pn", bytes("1"))) {
            node.start();
            check(node.waitForInitialCreate(WAIT_SECONDS, TimeUnit.SECONDS), "not created");
            catchUp();
            two.delete().forPath(root + "/pn");
            eventually("created again", () -> two.checkExists().forPath(root + "/pn") != null);
        }
        check(one.checkExists().forPath(root + "/pn") == null, "gone");
    }

    private void groupMember() throws Exception {
        try (GroupMember first = new GroupMember(one, root + "/group", "first", bytes("1")); GroupMember second = new GroupMember(two, root + "/group", "second")) {
            first.start();
            second.start();
            eventually("both see both", () -> first.getCurrentMembers().keySet().equals(Set.of("first", "second")) && second.getCurrentMembers().size() == 2);
        }
    }
}
