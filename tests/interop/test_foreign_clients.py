"""Clients in other languages against our servers, each where its tools are installed.

Their programs stand in `c`, `java`, `go` and `node` beside this file; each prints `ok NAME` or `failed NAME`
for every check. What is fetched and built stays in the cache, by the digest of the sources.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.coord.certificates import Authority
from tests.coord_servers import CoordServers, free_ports
from tests.interop.conftest import EXTRA
from tests.interop.tools import build_or_skip, cached, fetch_jars, fetch_or_skip, need

pytestmark = pytest.mark.interop
HERE = Path(__file__).parent
RUN_SECONDS_MAX = 90.0
CURATOR = "5.9.0"
QUIET = """<configuration><root level="OFF"/></configuration>"""
JAVA = ["java", "-Xmx200m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def sources(folder: str) -> tuple[list[Path], str]:
    """The files of a program, and a name for what is built from them."""
    files = sorted(path for path in (HERE / folder).iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    return files, f"{folder}-{digest}"


def outcomes(command: Sequence[str], directory: Path) -> dict[str, str]:
    """What each check of a program came to; everything printed is in a failing test's report."""
    done = subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS_MAX,
    )
    print(done.stdout)
    assert done.returncode == 0
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    return {name: word for word, _, name in lines if word in ("ok", "failed")}


def check_all(found: dict[str, str], count: int) -> None:
    assert [name for name, outcome in found.items() if outcome != "ok"] == []
    assert len(found) == count


@pytest.fixture(params=["standalone", "ensemble"])
def hosts(request: pytest.FixtureRequest) -> str:
    servers: CoordServers = request.getfixturevalue(request.param)
    return servers.hosts


@pytest.fixture(scope="module")
def c_program() -> Path:
    need("gcc")
    if not Path("/usr/include/zookeeper/zookeeper.h").exists():
        pytest.skip("the C binding is not installed: apt-get install libzookeeper-mt-dev")
    files, name = sources("c")

    def build(folder: Path) -> None:
        sources = map(str, files)
        build_or_skip(["gcc", "-DTHREADED", "-o", "checks", *sources, "-lzookeeper_mt", "-lpthread"], folder)

    return cached(name, build)


@pytest.fixture(scope="module")
def java_command() -> list[str]:
    """The command line up to the class."""
    need("java", "javac")
    jars = fetch_jars(
        f"curator-{CURATOR}",
        [
            f"org.apache.curator:curator-recipes:{CURATOR}",
            "org.apache.zookeeper:zookeeper:3.9.5",
            "ch.qos.logback:logback-classic:1.3.15",
        ],
    )
    files, name = sources("java")

    def build(folder: Path) -> None:
        build_or_skip(["javac", "-nowarn", "-d", ".", "-cp", f"{jars}/*", *map(str, files)], folder)
        (folder / "logback.xml").write_text(QUIET)

    return [*JAVA, "-cp", f"{cached(name, build)}:{jars}/*"]


@pytest.fixture(scope="module")
def go_program() -> Path:
    need("go")
    files, name = sources("go")

    def build(folder: Path) -> None:
        for path in files:
            shutil.copy(path, folder)
        fetch_or_skip(["go", "build", "-o", "checks", "."], folder)

    return cached(name, build)


@pytest.fixture(scope="module")
def node_program() -> Path:
    need("node", "npm")
    files, name = sources("node")

    def build(folder: Path) -> None:
        for path in files:
            shutil.copy(path, folder)
        fetch_or_skip(["npm", "install", "--no-audit", "--no-fund"], folder)

    return cached(name, build)


def test_the_c_binding(c_program: Path, hosts: str, tmp_path: Path) -> None:
    check_all(outcomes([str(c_program / "checks"), hosts], tmp_path), 10)


def test_the_java_client(java_command: list[str], hosts: str, tmp_path: Path) -> None:
    check_all(outcomes([*java_command, "ClientChecks", hosts], tmp_path), 19)


def test_the_java_client_through_tls(java_command: list[str], tmp_path: Path) -> None:
    """Without a certificate of its own; it reads PEM as we do."""
    authority = Authority(tmp_path)
    (port,) = free_ports(1)
    config = (
        f"{EXTRA}secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\nssl.clientAuth=none\n"
        f"ssl.keyStore.location={authority.issue('server')}\n"
    )
    options = [
        "-Dzookeeper.client.secure=true",
        "-Dzookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty",
        f"-Dzookeeper.ssl.trustStore.location={authority.path}",
    ]
    with CoordServers(tmp_path / "servers", extra=config):
        command = [java_command[0], *options, *java_command[1:], "ClientChecks", f"localhost:{port}"]
        check_all(outcomes(command, tmp_path), 19)


def test_the_java_client_logged_in_by_sasl(java_command: list[str], tmp_path: Path) -> None:
    jaas = tmp_path / "jaas.conf"
    module = "org.apache.zookeeper.server.auth.DigestLoginModule"
    jaas.write_text(f'Client {{ {module} required username="wire" password="wirepw"; }};\n')
    # In its FIPS mode, which is the default, this client knows no DIGEST-MD5.
    options = [f"-Djava.security.auth.login.config={jaas}", "-Dzookeeper.fips-mode=false"]
    with CoordServers(tmp_path / "servers", extra=f"{EXTRA}sasl.digest.user.wire=wirepw\n") as servers:
        command = [java_command[0], *options, *java_command[1:], "ClientChecks", servers.hosts]
        check_all(outcomes(command, tmp_path), 19)


@pytest.mark.crash
def test_22_56_the_java_client_whose_server_dies(java_command: list[str], tmp_path: Path) -> None:
    """Its session moves, and setWatches tells what it has missed and sets the rest again, once each."""
    with CoordServers(tmp_path / "servers", 3) as servers:
        program = subprocess.Popen(
            [*java_command, "FailoverChecks", servers.hosts],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert program.stdout is not None
            word, port = program.stdout.readline().split()
            assert word == "connected"
            (dead,) = (server for server in servers.servers if server.port == int(port))
            dead.kill()
            text, _ = program.communicate("go\n", timeout=RUN_SECONDS_MAX)
        finally:
            program.kill()
            program.communicate()
        done = ["ok watches catch up", "ok session and ephemeral go on", "ok watches go on"]
        assert text.splitlines() == done


def test_curator_and_its_recipes(java_command: list[str], hosts: str, tmp_path: Path) -> None:
    check_all(outcomes([*java_command, "CuratorChecks", hosts], tmp_path), 23)


def test_the_go_client(go_program: Path, hosts: str, tmp_path: Path) -> None:
    check_all(outcomes([str(go_program / "checks"), hosts], tmp_path), 9)


def test_the_node_client(node_program: Path, hosts: str, tmp_path: Path) -> None:
    check_all(outcomes(["node", str(node_program / "checks.js"), hosts], tmp_path), 9)
