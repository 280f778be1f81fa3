/* The closed loop of `pubsub.command.load.coord.Load`, for `bench.closed_loop`: each connection keeps its requests
 * under way, taken in turn from a ring of encoded ones. Of every reply the length and the error code are looked at. */

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    INPUT_BYTES = 1 << 20, /* more than any reply */
    REPLY_BYTES_MIN = 20,
    EVENTS_MAX = 64,
    MICROSECONDS = 1 << 20 /* of the histogram; the last one is all that took longer */
};

struct connection {
    int fd;
    uint32_t first, owed; /* requests not sent yet: the first one in the ring, and how many */
    uint64_t offset;      /* bytes of `first` that are sent already */
    int awaits_room;
    uint8_t *input;
    size_t filled;
    double *asked_at; /* of the requests under way, round and round */
    uint32_t oldest, under_way;
};

struct load {
    uint64_t completed, refused, lost;
    uint32_t histogram[MICROSECONDS];
    int epoll;
    uint32_t count, alive, outstanding, ring_count;
    const uint8_t *ring;
    const uint64_t *starts; /* of each request, continued by `outstanding` more from the beginning, and the end */
    struct connection *connections;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static uint32_t number_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
}

static void lose(struct load *load, struct connection *connection)
{
    load->lost += connection->under_way;
    connection->under_way = connection->owed = 0;
    epoll_ctl(load->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
    load->alive--;
}

static void await_room(struct load *load, struct connection *connection, int awaits)
{
    if (connection->awaits_room == awaits)
        return;
    struct epoll_event event = {.events = EPOLLIN | (awaits ? EPOLLOUT : 0), .data.ptr = connection};
    epoll_ctl(load->epoll, EPOLL_CTL_MOD, connection->fd, &event);
    connection->awaits_room = awaits;
}

static void flush(struct load *load, struct connection *connection)
{
    while (connection->owed) {
        uint32_t count = connection->owed < load->outstanding ? connection->owed : load->outstanding;
        uint64_t begin = load->starts[connection->first] + connection->offset;
        uint64_t end = load->starts[connection->first + count];
        ssize_t sent = send(connection->fd, load->ring + begin, end - begin, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN || errno == EINTR)
                await_room(load, connection, 1);
            else
                lose(load, connection);
            return;
        }
        uint64_t reached = begin + (uint64_t)sent;
        while (connection->owed && load->starts[connection->first + 1] <= reached) {
            connection->first++;
            connection->owed--;
        }
        connection->offset = reached - load->starts[connection->first];
        connection->first %= load->ring_count;
    }
    await_room(load, connection, 0);
}

static void ask(struct load *load, struct connection *connection, uint32_t count, double at)
{
    for (uint32_t i = 0; i < count; i++)
        connection->asked_at[(connection->oldest + connection->under_way++) % load->outstanding] = at;
    connection->owed += count;
    flush(load, connection);
}

static void receive(struct load *load, struct connection *connection)
{
    ssize_t got = recv(connection->fd, connection->input + connection->filled, INPUT_BYTES - connection->filled, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        lose(load, connection);
        return;
    }
    connection->filled += (size_t)got;
    double at = now();
    uint32_t count = 0;
    size_t offset = 0;
    while (connection->filled - offset >= REPLY_BYTES_MIN && count < connection->under_way) {
        const uint8_t *reply = connection->input + offset;
        size_t size = 4 + (size_t)number_at(reply);
        if (connection->filled - offset < size)
            break;
        if (number_at(reply + 16))
            load->refused++;
        else
            load->completed++;
        double took = (at - connection->asked_at[(connection->oldest + count) % load->outstanding]) * 1e6;
        load->histogram[took < MICROSECONDS ? (uint32_t)took : MICROSECONDS - 1]++;
        offset += size;
        count++;
    }
    connection->filled -= offset;
    memmove(connection->input, connection->input + offset, connection->filled);
    connection->oldest = (connection->oldest + count) % load->outstanding;
    connection->under_way -= count;
    if (count)
        ask(load, connection, count, at);
}

struct load *load_new(const int *fds, const uint32_t *firsts, uint32_t count, const uint8_t *ring, const uint64_t *starts,
                      uint32_t ring_count, uint32_t outstanding)
{
    struct load *load = calloc(1, sizeof *load);
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    load->count = load->alive = count;
    load->outstanding = outstanding;
    load->ring = ring;
    load->starts = starts;
    load->ring_count = ring_count;
    load->connections = calloc(count, sizeof *load->connections);
    for (uint32_t i = 0; i < count; i++) {
        struct connection *connection = &load->connections[i];
        connection->fd = fds[i];
        connection->first = firsts[i];
        connection->input = malloc(INPUT_BYTES);
        connection->asked_at = calloc(outstanding, sizeof(double));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->fd, &event);
    }
    return load;
}

void load_start(struct load *load)
{
    double at = now();
    for (uint32_t i = 0; i < load->count; i++)
        ask(load, &load->connections[i], load->outstanding, at);
}

/* Returns how many connections are left. */
uint32_t load_run(struct load *load, double seconds)
{
    double deadline = now() + seconds, left;
    struct epoll_event events[EVENTS_MAX];
    while (load->alive && (left = deadline - now()) > 0) {
        int count = epoll_wait(load->epoll, events, EVENTS_MAX, (int)(left * 1000) + 1);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                flush(load, connection);
            if (events[i].events & ~EPOLLOUT && connection->under_way)
                receive(load, connection);
        }
    }
    return load->alive;
}

/* completed, refused, lost. */
const uint64_t *load_counts(const struct load *load)
{
    return &load->completed;
}

const uint32_t load_histogram_count = MICROSECONDS;

const uint32_t *load_histogram(const struct load *load)
{
    return load->histogram;
}

void load_reset(struct load *load)
{
    load->completed = load->refused = load->lost = 0;
    memset(load->histogram, 0, sizeof load->histogram);
}

void load_free(struct load *load)
{
    for (uint32_t i = 0; i < load->count; i++) {
        free(load->connections[i].input);
        free(load->connections[i].asked_at);
    }
    close(load->epoll);
    free(load->connections);
    free(load);
}
