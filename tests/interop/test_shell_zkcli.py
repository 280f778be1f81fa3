"""Our shell beside Apache's zkCli 3.9: the same commands, and what scripts read of the answers is equal."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.coord_servers import ROOT, CoordServers
from tests.interop.apache import SUPER_DIGEST, ApacheServers, zookeeper_jars
from tests.interop.tools import need

pytestmark = pytest.mark.interop
END_SECONDS_MAX = 60.0
OURS = "extendedTypesEnabled=true\n"

#: Every command whose output the two have in common.
SCRIPT = """
create /x hello
create /x hello
create -s /x/s- d
create -e /x/e
create -c /x/c
create -t 1000000 /x/t
create -s -t 1000000 /x/st-
create -s -e /x/se-
create /x/acl data world:anyone:cdrwa
create /none/x
create /x/e/child
get /x
get -s /x
get -b /x
get -x /x
set /x/c "a longer text of more than 16 bytes"
get -x /x/c
get /x/e
get /none
set /x v2
set -s /x v3
set -v 77 /x v4
set -b /x aGVsbG8=
get /x
ls /
ls -s /x
ls -R /x
ls /none
stat /x
stat /none
getAcl /x
getAcl -s /x
setAcl /x world:anyone:cdrwa
setAcl -s /x world:anyone:cdrwa
setAcl -v 55 /x world:anyone:cdrwa
setAcl /x/acl digest:bob:fyVmFCwVbTJYrznoSu1koqYEYF0=:cdrwa
get /x/acl
addauth digest bob:secret
get /x/acl
getAcl /x/acl
getAllChildrenNumber /x
getEphemerals
getEphemerals /x
whoami
setquota -n 10 /x/c
setquota -N 20 /x/c
listquota /x/c
listquota /x
setquota -n 1 /x
delquota -n /x/c
listquota /x/c
delquota /x/c
listquota /x/c
ls /zookeeper/quota
get -w /x
set /x v9
sync /
removewatches /nope
printwatches
config
config -c
config -s
sync /x
delete /x/acl
delete -v 9 /x/c
delete /x
deleteall /x
deleteall /zzz
history
close
ls /
quit
""".strip()

#: What differs on purpose: both sides are brought to the same text before they are compared.
NOISE = (
    (r"(?m)^([cm]time = ).*$", r"\1TIME"),
    (r"(?m)^([cmp]Zxid = ).*$", r"\1ZXID"),
    (r"zxid: \d+", "zxid: N"),
    (r"(?m)^version=.*$", "version=V"),
    (r"(?m)^(dataVersion = )-?\d{6,}$", r"\1V"),
    (r"(?m)^(ephemeralOwner = 0x)[1-9a-f][0-9a-f]+", r"\1OWNER"),
    # Greetings, and Java's complaints about the same things in other words.
    (r"(?m)^(Connecting to|Welcome to|JLine support|ZooKeeper CLI version).*\n", ""),
    # States of the session; Java's event thread may print one in the middle of something else.
    (r"(?m)^WATCHER::$", ""),
    (r"(?m)^WatchedEvent state:\w+ type:None.*$", ""),
    (r"(?m)^absolute path is .*\n", ""),
    # Java's does not say for what.
    (r"(?m)^(.* : )/zookeeper/config$", r"\1"),
)


@pytest.fixture(scope="module", params=["zoolog", "apache-3.9"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = Path(tmp_path_factory.mktemp("zkcli"))
    made = CoordServers(directory, extra=OURS) if request.param == "zoolog" else ApacheServers(directory)
    with made as servers:
        yield servers.hosts


def play(command: list[str], script: str) -> list[str]:
    """The lines of both outputs that a script left, sorted: in which order the two streams met is nobody's
    promise."""
    done = subprocess.run(
        command, input=script, capture_output=True, text=True, cwd=ROOT, timeout=END_SECONDS_MAX
    )
    text = done.stdout + done.stderr
    for pattern, plain in NOISE:
        text = re.sub(pattern, plain, text)
    # Java lists the servers of a configuration in hash order.
    text = re.sub(r"(?m)^[0-9a-f]{9,} (.*,.*)$", lambda found: f"V {sorted(found[1].split(','))}", text)
    return sorted(line for line in text.splitlines() if line.strip())


def compare(hosts: str, directory: Path, script: str) -> None:
    """Plays a script in both shells, one after the other."""
    need("java")
    silent = directory / "logback.xml"
    silent.write_text('<configuration><root level="OFF"/></configuration>\n')
    options = ["-Xmx200m", "-XX:TieredStopAtLevel=1", f"-Dlogback.configurationFile=file:{silent}"]
    java = ["java", *options, "-cp", f"{zookeeper_jars()}/*", "org.apache.zookeeper.ZooKeeperMain"]
    mine = [sys.executable, "-m", "pubsub.command", "zk", "--coord", hosts]
    # The first play brings about what each finds.
    play(mine, script)
    theirs, ours = play([*java, "-server", hosts], script), play(mine, script)
    assert "\n".join(ours) == "\n".join(theirs)


def test_both_shells_print_the_same(hosts: str, tmp_path: Path) -> None:
    compare(hosts, tmp_path, SCRIPT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zoolog", "apache-3.9"])
def test_both_shells_print_an_ensemble_s_configuration_the_same(kind: str, tmp_path: Path) -> None:
    extra = f"reconfigEnabled=true\nDigestAuthenticationProvider.superDigest={SUPER_DIGEST}\n"
    made = CoordServers if kind == "zoolog" else ApacheServers
    servers = made(tmp_path / "ensemble", 3, extra=extra)
    # Apache's rewrites its file when it starts.
    static = servers.servers[0].config_path.read_text()
    with servers:
        leaving = servers.followers()[0]
        hosts = next(server.address for server in servers.servers if server is not leaving)
        (member,) = re.findall(rf"^server.{leaving.sid}=.*$", static, re.MULTILINE)
        compare(
            hosts,
            tmp_path,
            f"""config
config -c
reconfig -remove {leaving.sid}
addauth digest super:test
reconfig -remove {leaving.sid}
config -c
reconfig -s -v 1 -remove {leaving.sid}
reconfig -add {member};{leaving.address}
config -s
""",
        )
