/* The C binding (libzookeeper-mt) against one server or ensemble: `checks HOSTS` prints "ok NAME" for each check
 * that holds, "failed NAME" and the line for those that do not.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            printf("line %d: %s\n", __LINE__, #condition);                                     \
            longjmp(failed, 1);                                                                \
        }                                                                                      \
    } while (0)
#define WAIT_SECONDS 15

static jmp_buf failed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int session_state;
static int event_count, event_type[64];
static char event_path[64][128];
static int completions, completion_rc;

static char root[64];

static const char *at(const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, 256, "%s%s", root, name);
    return path;
}

static void on_session(zhandle_t *zh, int type, int state, const char *path, void *context) {
    pthread_mutex_lock(&lock);
    if (type == ZOO_SESSION_EVENT)
        session_state = state;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_event(zhandle_t *zh, int type, int state, const char *path, void *context) {
    if (type == ZOO_SESSION_EVENT)
        return;
    pthread_mutex_lock(&lock);
    event_type[event_count % 64] = type;
    snprintf(event_path[event_count++ % 64], 128, "%s", path);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_void(int rc, const void *data) {
    pthread_mutex_lock(&lock);
    completions++;
    completion_rc = rc;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_string(int rc, const char *value, const void *data) { on_void(rc, data); }

/* Waits until *counter is at least `wanted`. */
static int wait_for(int *counter, int wanted) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_SECONDS;
    pthread_mutex_lock(&lock);
    int failed = 0;
    while (*counter < wanted && !failed)
        failed = pthread_cond_timedwait(&changed, &lock, &until);
    pthread_mutex_unlock(&lock);
    return !failed;
}

static zhandle_t *connect_to(const char *hosts, const clientid_t *id) {
    session_state = 0;
    zhandle_t *zh = zookeeper_init(hosts, on_session, 10000, id, NULL, 0);
    CHECK(zh != NULL);
    CHECK(wait_for(&session_state, ZOO_CONNECTED_STATE));
    return zh;
}

static void nodes(zhandle_t *zh) {
    struct Stat stat;
    char buffer[512];
    int length = sizeof buffer;
    CHECK(zoo_create(zh, at("/a"), "one", 3, &ZOO_OPEN_ACL_UNSAFE, 0, buffer, sizeof buffer) == ZOK);
    CHECK(strcmp(buffer, at("/a")) == 0);
    CHECK(zoo_create(zh, at("/a"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZNODEEXISTS);
    CHECK(zoo_create(zh, at("/x/y"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZNONODE);
    CHECK(zoo_get(zh, at("/a"), 0, buffer, &length, &stat) == ZOK);
    CHECK(length == 3 && memcmp(buffer, "one", 3) == 0 && stat.version == 0 && stat.dataLength == 3);
    CHECK(zoo_set2(zh, at("/a"), "second", 6, 0, &stat) == ZOK);
    CHECK(stat.version == 1 && stat.mzxid > stat.czxid && stat.dataLength == 6);
    CHECK(zoo_set(zh, at("/a"), "x", 1, 0) == ZBADVERSION);
    CHECK(zoo_exists(zh, at("/none"), 0, &stat) == ZNONODE);
    CHECK(zoo_create(zh, at("/null"), NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZOK);
    length = sizeof buffer;
    CHECK(zoo_get(zh, at("/null"), 0, buffer, &length, &stat) == ZOK && length == -1);
    CHECK(zoo_delete(zh, at("/null"), -1) == ZOK);
    CHECK(zoo_delete(zh, root, -1) == ZNOTEMPTY);
}

static void modes(zhandle_t *zh) {
    struct Stat stat;
    char path[256];
    struct String_vector names;
    CHECK(zoo_create(zh, at("/modes"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZOK);
    for (int number = 0; number < 3; number++) {
        char wanted[256];
        CHECK(zoo_create(zh, at("/modes/s-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL, path,
                         sizeof path) == ZOK);
        snprintf(wanted, sizeof wanted, "%s/modes/s-%010d", root, number);
        CHECK(strcmp(path, wanted) == 0);
    }
    CHECK(zoo_create2(zh, at("/modes/e"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, path, sizeof path, &stat) ==
          ZOK);
    CHECK(stat.ephemeralOwner == zoo_client_id(zh)->client_id);
    CHECK(zoo_create(zh, at("/modes/e/c"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZNOCHILDRENFOREPHEMERALS);
    CHECK(zoo_create2(zh, at("/modes/c"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, path, sizeof path, &stat) ==
          ZOK);
    CHECK(stat.ephemeralOwner == 0);
    CHECK(zoo_get_children2(zh, at("/modes"), 0, &names, &stat) == ZOK);
    CHECK(names.count == 5 && stat.numChildren == 5 && stat.cversion == 5);
    deallocate_String_vector(&names);
}

static void ttl(zhandle_t *zh) {
    struct Stat stat;
    char path[256];
    CHECK(zoo_create2_ttl(zh, at("/ttl"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 3600000, path,
                          sizeof path, &stat) == ZOK);
    CHECK(stat.ephemeralOwner == 0);
    CHECK(zoo_create_ttl(zh, at("/ttl-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL, 3600000,
                         path, sizeof path) == ZOK);
    CHECK(strlen(path) == strlen(at("/ttl-")) + 10);
}

static void watches(zhandle_t *zh) {
    struct Stat stat;
    struct String_vector names;
    char buffer[16];
    int length = sizeof buffer;
    event_count = 0;
    CHECK(zoo_wexists(zh, at("/w"), on_event, NULL, &stat) == ZNONODE);
    CHECK(zoo_create(zh, at("/w"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZOK);
    CHECK(wait_for(&event_count, 1) && event_type[0] == ZOO_CREATED_EVENT);
    CHECK(strcmp(event_path[0], at("/w")) == 0);
    CHECK(zoo_wget(zh, at("/w"), on_event, NULL, buffer, &length, &stat) == ZOK);
    CHECK(zoo_set(zh, at("/w"), "1", 1, -1) == ZOK);
    CHECK(wait_for(&event_count, 2) && event_type[1] == ZOO_CHANGED_EVENT);
    CHECK(zoo_wget_children(zh, at("/w"), on_event, NULL, &names) == ZOK);
    deallocate_String_vector(&names);
    CHECK(zoo_create(zh, at("/w/c"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZOK);
    CHECK(wait_for(&event_count, 3) && event_type[2] == ZOO_CHILD_EVENT);
    CHECK(zoo_wexists(zh, at("/w/c"), on_event, NULL, &stat) == ZOK);
    CHECK(zoo_delete(zh, at("/w/c"), -1) == ZOK);
    CHECK(wait_for(&event_count, 4) && event_type[3] == ZOO_DELETED_EVENT);
}

static void removed_watches(zhandle_t *zh) {
    struct Stat stat;
    event_count = 0;
    CHECK(zoo_wexists(zh, at("/w"), on_event, NULL, &stat) == ZOK);
    CHECK(zoo_remove_watches(zh, at("/w"), ZWATCHTYPE_DATA, on_event, NULL, 0) == ZOK);
    CHECK(zoo_set(zh, at("/w"), "2", 1, -1) == ZOK);
    for (int number = 0; number < event_count; number++)
        CHECK(event_type[number] != ZOO_CHANGED_EVENT);
    CHECK(zoo_remove_watches(zh, at("/w"), ZWATCHTYPE_DATA, on_event, NULL, 0) == ZNOWATCHER);
}

static void multi(zhandle_t *zh) {
    struct Stat stat;
    char first[256], second[256];
    zoo_op_t ops[4];
    zoo_op_result_t results[4];
    zoo_create_op_init(&ops[0], at("/m"), "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, first, sizeof first);
    zoo_create_op_init(&ops[1], at("/m/s-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, second, sizeof second);
    zoo_set_op_init(&ops[2], at("/m"), "2", 1, 0, &stat);
    zoo_check_op_init(&ops[3], at("/m"), 1);
    CHECK(zoo_multi(zh, 4, ops, results) == ZOK);
    CHECK(strcmp(second, at("/m/s-0000000000")) == 0 && stat.version == 1);
    zoo_delete_op_init(&ops[0], at("/m/s-0000000000"), -1);
    zoo_check_op_init(&ops[1], at("/m"), 7);
    zoo_delete_op_init(&ops[2], at("/m"), -1);
    CHECK(zoo_multi(zh, 3, ops, results) == ZBADVERSION);
    CHECK(results[0].err == 0 && results[1].err == ZBADVERSION && results[2].err == ZRUNTIMEINCONSISTENCY);
    CHECK(zoo_exists(zh, at("/m/s-0000000000"), 0, &stat) == ZOK);
}

static void lists(zhandle_t *zh, const char *hosts) {
    struct ACL_vector acl;
    struct Stat stat;
    completions = 0;
    CHECK(zoo_add_auth(zh, "digest", "user:secret", 11, on_void, NULL) == ZOK);
    CHECK(wait_for(&completions, 1) && completion_rc == ZOK);
    CHECK(zoo_create(zh, at("/mine"), "", 0, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0) == ZOK);
    CHECK(zoo_get_acl(zh, at("/mine"), &acl, &stat) == ZOK);
    CHECK(acl.count == 1 && acl.data[0].perms == ZOO_PERM_ALL && strcmp(acl.data[0].id.scheme, "digest") == 0);
    CHECK(strncmp(acl.data[0].id.id, "user:", 5) == 0);
    deallocate_ACL_vector(&acl);
    zhandle_t *other = connect_to(hosts, NULL);
    char buffer[16];
    int length = sizeof buffer;
    CHECK(zoo_get(other, at("/mine"), 0, buffer, &length, &stat) == ZNOAUTH);
    CHECK(zoo_set_acl(zh, at("/mine"), 0, &ZOO_READ_ACL_UNSAFE) == ZOK);
    CHECK(zoo_set_acl(zh, at("/mine"), 0, &ZOO_READ_ACL_UNSAFE) == ZNOAUTH);
    completions = 0;
    CHECK(zoo_async(other, root, on_string, NULL) == ZOK && wait_for(&completions, 1) && completion_rc == ZOK);
    length = sizeof buffer;
    CHECK(zoo_get(other, at("/mine"), 0, buffer, &length, &stat) == ZOK && stat.aversion == 1);
    CHECK(zookeeper_close(other) == ZOK);
}

static void pipeline(zhandle_t *zh) {
    struct Stat stat;
    completions = 0;
    for (int number = 0; number < 500; number++)
        CHECK(zoo_acreate(zh, at("/p-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, on_string, NULL) == ZOK);
    CHECK(wait_for(&completions, 500) && completion_rc == ZOK);
    CHECK(zoo_exists(zh, root, 0, &stat) == ZOK && stat.numChildren > 500);
}

static void configuration(zhandle_t *zh) {
    struct Stat stat;
    char buffer[4096];
    int length = sizeof buffer;
    CHECK(zoo_getconfig(zh, 0, buffer, &length, &stat) == ZOK);
}

/* Makes an ephemeral, prints the session and is gone without closing it. */
static int hold(const char *hosts, const char *path) {
    zhandle_t *zh = connect_to(hosts, NULL);
    CHECK(zoo_create(zh, path, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0) == ZOK);
    const clientid_t *id = zoo_client_id(zh);
    printf("%lld", (long long)id->client_id);
    for (int byte = 0; byte < 16; byte++)
        printf(" %d", (unsigned char)id->passwd[byte]);
    fflush(stdout);
    _exit(0);
}

static void sessions(zhandle_t *zh, const char *program, const char *hosts) {
    struct Stat stat;
    clientid_t id;
    char command[1024];
    long long number;
    snprintf(command, sizeof command, "'%s' '%s' '%s'", program, hosts, at("/held"));
    FILE *holder = popen(command, "r");
    CHECK(holder != NULL && fscanf(holder, "%lld", &number) == 1);
    id.client_id = number;
    for (int byte = 0; byte < 16; byte++) {
        int value;
        CHECK(fscanf(holder, "%d", &value) == 1);
        id.passwd[byte] = value;
    }
    CHECK(pclose(holder) == 0);
    zhandle_t *second = connect_to(hosts, &id);
    CHECK(zoo_client_id(second)->client_id == id.client_id);
    CHECK(zoo_exists(second, at("/held"), 0, &stat) == ZOK && stat.ephemeralOwner == id.client_id);
    CHECK(zookeeper_close(second) == ZOK);
    completions = 0;
    CHECK(zoo_async(zh, root, on_string, NULL) == ZOK && wait_for(&completions, 1));
    CHECK(zoo_exists(zh, at("/held"), 0, &stat) == ZNONODE);
}

#define RUN(name, call)                                                                        \
    if (!setjmp(failed)) {                                                                     \
        call;                                                                                  \
        printf("ok " name "\n");                                                               \
    } else                                                                                     \
        printf("failed " name "\n")

int main(int argc, char **argv) {
    if (argc < 2 || setjmp(failed)) {
        printf("failed start\n");
        return 1;
    }
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    if (argc == 3)
        return hold(argv[1], argv[2]);
    snprintf(root, sizeof root, "/c-%d", (int)getpid());
    zhandle_t *zh = connect_to(argv[1], NULL);
    CHECK(zoo_create(zh, root, "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZOK);
    RUN("nodes", nodes(zh));
    RUN("modes", modes(zh));
    RUN("ttl", ttl(zh));
    RUN("watches", watches(zh));
    RUN("removed watches", removed_watches(zh));
    RUN("multi", multi(zh));
    RUN("access control lists", lists(zh, argv[1]));
    RUN("pipeline", pipeline(zh));
    RUN("configuration", configuration(zh));
    RUN("sessions", sessions(zh, argv[0], argv[1]));
    return zookeeper_close(zh) != ZOK;
}
