"""Apache's shell prints the same on our server and on Apache's; so does Debian's, where it is installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.coord_servers import CoordServers
from tests.interop.apache import ApacheServers, zookeeper_jars
from tests.interop.conftest import EXTRA
from tests.interop.test_shell_zkcli import SCRIPT, play
from tests.interop.tools import need

pytestmark = pytest.mark.interop
DEBIAN = Path("/usr/share/zookeeper/bin/zkCli.sh")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of an Apache server and of ours."""
    directory = Path(tmp_path_factory.mktemp("shells"))
    with (
        ApacheServers(directory / "apache") as theirs,
        CoordServers(directory / "zoolog", extra=EXTRA) as ours,
    ):
        yield theirs.hosts, ours.hosts


def answers(command: list[str], hosts: str, script: str) -> str:
    """What a shell prints on the server, without its log, the session's events, and the order of lists."""
    lines = play([*command, "-server", hosts], script)
    kept = [
        line for line in lines if not line[:4].isdigit() and "type:None" not in line and line != "WATCHER::"
    ]
    return "\n".join(
        f"[{', '.join(sorted(line[1:-1].split(', ')))}]" if line.startswith("[/") else line for line in kept
    )


def test_apaches_shell_prints_the_same_on_both_servers(pair: tuple[str, str], tmp_path: Path) -> None:
    need("java")
    silent = tmp_path / "logback.xml"
    silent.write_text('<configuration><root level="OFF"/></configuration>\n')
    options = ["-Xmx200m", "-XX:TieredStopAtLevel=1", f"-Dlogback.configurationFile=file:{silent}"]
    shell = ["java", *options, "-cp", f"{zookeeper_jars()}/*", "org.apache.zookeeper.ZooKeeperMain"]
    theirs, ours = (answers(shell, hosts, SCRIPT) for hosts in pair)
    assert ours == theirs
    assert ours.count("\n") > 100


def test_debians_shell_prints_the_same_on_both_servers(pair: tuple[str, str]) -> None:
    need("java")
    if not DEBIAN.exists():
        pytest.skip("zkCli.sh is not installed: apt-get install zookeeper")
    theirs, ours = (answers([str(DEBIAN)], hosts, SCRIPT.replace("/x", "/debian")) for hosts in pair)
    assert ours == theirs
    assert ours.count("\n") > 100
