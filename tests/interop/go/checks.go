// The Go client against one server or ensemble: `checks HOSTS` prints "ok NAME" for each check that holds,
// "failed NAME" and why for those that do not.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

const wait = 15 * time.Second

var (
	root = fmt.Sprintf("/go-%d", os.Getpid())
	open = zk.WorldACL(zk.PermAll)
)

type quiet struct{}

func (quiet) Printf(string, ...interface{}) {}

func connect(hosts string) (*zk.Conn, error) {
	conn, events, err := zk.Connect(strings.Split(hosts, ","), 10*time.Second, zk.WithLogger(quiet{}))
	if err != nil {
		return nil, err
	}
	deadline := time.After(wait)
	for {
		select {
		case event := <-events:
			if event.State == zk.StateHasSession {
				return conn, nil
			}
		case <-deadline:
			conn.Close()
			return nil, errors.New("not connected")
		}
	}
}

func expect(what string, got, want interface{}) {
	if fmt.Sprint(got) != fmt.Sprint(want) {
		panic(fmt.Sprintf("%s: expected %v, got %v", what, want, got))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func expectEvent(events <-chan zk.Event, kind zk.EventType, path string) {
	select {
	case event := <-events:
		expect("event", fmt.Sprint(event.Type, event.Path), fmt.Sprint(kind, path))
	case <-time.After(wait):
		panic(fmt.Sprintf("no event, expected %v %s", kind, path))
	}
}

func nodes(conn *zk.Conn, _ string) {
	path, err := conn.Create(root+"/a", []byte("one"), 0, open)
	must(err)
	expect("path", path, root+"/a")
	data, stat, err := conn.Get(path)
	must(err)
	expect("data", string(data), "one")
	expect("version", stat.Version, 0)
	stat, err = conn.Set(path, []byte("second"), 0)
	must(err)
	expect("version", stat.Version, 1)
	_, err = conn.Set(path, nil, 0)
	expect("old version", err, zk.ErrBadVersion)
	_, err = conn.Create(path, nil, 0, open)
	expect("twice", err, zk.ErrNodeExists)
	_, err = conn.Create(root+"/x/y", nil, 0, open)
	expect("no parent", err, zk.ErrNoNode)
	expect("not empty", conn.Delete(root, -1), zk.ErrNotEmpty)
	exists, _, err := conn.Exists(root + "/none")
	must(err)
	expect("exists", exists, false)
	children, stat, err := conn.Children(root)
	must(err)
	expect("children", fmt.Sprint(children, stat.NumChildren), "[a] 1")
	_, err = conn.Sync(root)
	must(err)
	large := bytes.Repeat([]byte{7}, 512*1024)
	_, err = conn.Set(path, large, -1)
	must(err)
	data, _, err = conn.Get(path)
	must(err)
	expect("large data", bytes.Equal(data, large), true)
}

func modes(conn *zk.Conn, _ string) {
	for number := 0; number < 3; number++ {
		path, err := conn.Create(root+"/modes-", nil, zk.FlagSequence, open)
		must(err)
		expect("name", strings.HasPrefix(path, root+"/modes-00000000"), true)
	}
	path, err := conn.Create(root+"/e", nil, zk.FlagEphemeral, open)
	must(err)
	_, stat, err := conn.Get(path)
	must(err)
	expect("owner", stat.EphemeralOwner, conn.SessionID())
	_, err = conn.Create(root+"/e/c", nil, 0, open)
	expect("child of an ephemeral", err, zk.ErrNoChildrenForEphemerals)
	path, err = conn.CreateProtectedEphemeralSequential(root+"/p-", nil, open)
	must(err)
	expect("protected", strings.Contains(path, "_c_"), true)
	path, err = conn.CreateContainer(root+"/container", nil, zk.FlagContainer, open)
	must(err)
	expect("container", path, root+"/container")
}

func ttl(conn *zk.Conn, _ string) {
	path, err := conn.CreateTTL(root+"/ttl", nil, zk.FlagTTL, open, time.Hour)
	must(err)
	expect("path", path, root+"/ttl")
}

func watches(conn *zk.Conn, _ string) {
	path := root + "/w"
	_, _, events, err := conn.ExistsW(path)
	must(err)
	_, err = conn.Create(path, nil, 0, open)
	must(err)
	expectEvent(events, zk.EventNodeCreated, path)
	_, _, events, err = conn.GetW(path)
	must(err)
	_, err = conn.Set(path, nil, -1)
	must(err)
	expectEvent(events, zk.EventNodeDataChanged, path)
	_, _, events, err = conn.ChildrenW(path)
	must(err)
	_, err = conn.Create(path+"/c", nil, 0, open)
	must(err)
	expectEvent(events, zk.EventNodeChildrenChanged, path)
	_, _, events, err = conn.GetW(path + "/c")
	must(err)
	must(conn.Delete(path+"/c", -1))
	expectEvent(events, zk.EventNodeDeleted, path+"/c")
}

func multi(conn *zk.Conn, _ string) {
	path := root + "/m"
	results, err := conn.Multi(
		&zk.CreateRequest{Path: path, Data: []byte("1"), Acl: open},
		&zk.CreateRequest{Path: path + "/s-", Acl: open, Flags: zk.FlagSequence},
		&zk.SetDataRequest{Path: path, Data: []byte("2"), Version: 0},
		&zk.CheckVersionRequest{Path: path, Version: 1},
	)
	must(err)
	expect("name", results[1].String, path+"/s-0000000000")
	expect("version", results[2].Stat.Version, 1)
	_, err = conn.Multi(
		&zk.DeleteRequest{Path: path + "/s-0000000000", Version: -1},
		&zk.CheckVersionRequest{Path: path, Version: 7},
	)
	expect("refused", err, zk.ErrBadVersion)
	exists, _, err := conn.Exists(path + "/s-0000000000")
	must(err)
	expect("rolled back", exists, true)
}

func lists(conn *zk.Conn, hosts string) {
	user, err := connect(hosts)
	must(err)
	defer user.Close()
	must(user.AddAuth("digest", []byte("user:secret")))
	path, err := user.Create(root+"/mine", nil, 0, zk.DigestACL(zk.PermAll, "user", "secret"))
	must(err)
	_, err = conn.Sync(path)
	must(err)
	_, _, err = conn.Get(path)
	expect("foreign", err, zk.ErrNoAuth)
	acl, stat, err := user.GetACL(path)
	must(err)
	expect("list", fmt.Sprint(acl, stat.Aversion), fmt.Sprint(zk.DigestACL(zk.PermAll, "user", "secret"), 0))
	_, err = user.SetACL(path, zk.WorldACL(zk.PermRead), 0)
	must(err)
	_, err = user.Set(path, nil, -1)
	expect("given away", err, zk.ErrNoAuth)
	_, err = conn.Create(root+"/none", nil, 0, nil)
	expect("empty list", err, zk.ErrInvalidACL)
}

func locks(conn *zk.Conn, hosts string) {
	other, err := connect(hosts)
	must(err)
	defer other.Close()
	inside := 0
	var group sync.WaitGroup
	failures := make(chan interface{}, 4)
	for _, one := range []*zk.Conn{conn, other, conn, other} {
		group.Add(1)
		go func(one *zk.Conn) {
			defer group.Done()
			defer func() {
				if failure := recover(); failure != nil {
					failures <- failure
				}
			}()
			for round := 0; round < 5; round++ {
				lock := zk.NewLock(one, root+"/lock", open)
				must(lock.Lock())
				inside++
				expect("inside", inside, 1)
				inside--
				must(lock.Unlock())
			}
		}(one)
	}
	group.Wait()
	if len(failures) > 0 {
		panic(<-failures)
	}
}

func sessions(conn *zk.Conn, hosts string) {
	other, err := connect(hosts)
	must(err)
	_, err = other.Create(root+"/held", nil, zk.FlagEphemeral, open)
	must(err)
	_, err = conn.Sync(root)
	must(err)
	_, _, events, err := conn.ExistsW(root + "/held")
	must(err)
	other.Close()
	expectEvent(events, zk.EventNodeDeleted, root+"/held")
}

func pipeline(conn *zk.Conn, _ string) {
	_, err := conn.Create(root+"/q", nil, 0, open)
	must(err)
	var group sync.WaitGroup
	for number := 0; number < 300; number++ {
		group.Add(1)
		go func() {
			defer group.Done()
			_, _ = conn.Create(root+"/q/s-", nil, zk.FlagSequence, open)
		}()
	}
	group.Wait()
	names, _, err := conn.Children(root + "/q")
	must(err)
	sort.Strings(names)
	expect("names", fmt.Sprintln(len(names), names[len(names)-1]), "300 s-0000000299\n")
}

func run(name string, check func(*zk.Conn, string), conn *zk.Conn, hosts string) {
	defer func() {
		if failure := recover(); failure != nil {
			fmt.Println("failed", name)
			fmt.Println(failure)
		}
	}()
	check(conn, hosts)
	fmt.Println("ok", name)
}

func main() {
	hosts := os.Args[1]
	conn, err := connect(hosts)
	must(err)
	defer conn.Close()
	_, err = conn.Create(root, nil, 0, open)
	must(err)
	run("nodes", nodes, conn, hosts)
	run("modes", modes, conn, hosts)
	run("ttl", ttl, conn, hosts)
	run("watches", watches, conn, hosts)
	run("multi", multi, conn, hosts)
	run("access control lists", lists, conn, hosts)
	run("locks", locks, conn, hosts)
	run("sessions", sessions, conn, hosts)
	run("pipeline", pipeline, conn, hosts)
}
