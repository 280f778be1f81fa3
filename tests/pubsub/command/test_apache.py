"""`zoolog coord check`, `zoolog coord import`, `zoolog coord export`."""

import json
from pathlib import Path

import pytest

from pubsub.command.main import run
from tests.coord.apache.files import LOG, SNAPSHOT, golden_directory

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return golden_directory(tmp_path / "apache", "snapshot.0", LOG)


def test_an_import_says_what_it_took_over(source: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(["coord", "import", str(source), "--to", str(tmp_path / "ours")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("26 nodes (2 ephemeral), 2 sessions, zxid 0x100000028, epoch 1, digest ")
    assert second.endswith("snapshot.0 and 40 transactions, 37 digests compared")


def test_there_and_back_is_the_same_state(source: Path, tmp_path: Path, capsys: Capture) -> None:
    ours, back = str(tmp_path / "ours"), str(tmp_path / "back")
    assert run(["coord", "import", str(source), "--to", ours, "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    assert run(["coord", "export", ours, "--to", back]) == 0
    out = capsys.readouterr().out
    assert "26 nodes, 2 sessions (0 that ZooKeeper cannot take up), zxid 0x100000028" in out
    assert run(["coord", "import", back, "--dry-run", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    for fact in ("digest", "nodes", "sessions", "ephemerals", "zxid", "epoch"):
        assert again[fact] == there[fact]
    assert run(["coord", "export", ours, "--to", back]) == 1
    assert "version-2 exists" in capsys.readouterr().err


def test_a_torn_end_is_noted_and_damage_is_refused(source: Path, capsys: Capture) -> None:
    path = source / "version-2" / LOG
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[:-3])
    assert run(["coord", "import", str(source), "--dry-run"]) == 0
    assert "note: " in capsys.readouterr().err
    path.write_bytes(whole[:9000] + b"!" + whole[9001:])
    assert run(["coord", "import", str(source), "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"zoolog: {path} at ")
    assert len(error.splitlines()) == 1


def test_an_older_snapshot_can_be_named(tmp_path: Path, capsys: Capture) -> None:
    source = golden_directory(tmp_path / "apache", "snapshot.0", LOG, SNAPSHOT)
    older = str(source / "version-2" / "snapshot.0")
    assert run(["coord", "import", str(source), "--dry-run", "--json", "--snapshot", older]) == 0
    assert json.loads(capsys.readouterr().out)["transactions"] == 40
    assert run(["coord", "import", str(source), "--dry-run", "--snapshot", str(tmp_path)]) == 1
    assert "is no snapshot in" in capsys.readouterr().err


def test_an_import_needs_a_target(source: Path, capsys: Capture) -> None:
    assert run(["coord", "import", str(source)]) == 2
    assert "--to DATADIR is missing" in capsys.readouterr().err


def test_check_names_every_kind_of_key(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "zoo.cfg"
    path.write_text(f"dataDir={tmp_path}\npreAllocSize=1\nx=1\nticktime=1\nserver.1=a:1:2\n")
    assert run(["coord", "check", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "unknown: ticktime (did you mean tickTime?)",
        "unknown: x",
        "without effect: preAllocSize",
        "warning: server.1 is ignored: one server runs standalone",
        f"ok: standalone, dataDir {tmp_path}",
    ]
    path.write_text(f"dataDir={tmp_path}\nssl.keyStore.type=JKS\n")
    assert run(["coord", "check", str(path)]) == 2
    error = capsys.readouterr().err
    assert "ssl.keyStore.type must be" in error
    assert error.endswith("(see `zoolog coord keys`)\n")


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("dataDir={0}/zoo.cfg", "dataDir: {0}/zoo.cfg is not a directory"),
        (
            "dataDir={0}\nclientPort=7\nmetricsProvider.className=PrometheusMetricsProvider\n"
            "metricsProvider.httpPort=7",
            "clientPort and metricsProvider.httpPort have the same port 7",
        ),
    ],
)
def test_check_refuses_what_no_server_could_start_with(
    tmp_path: Path, capsys: Capture, lines: str, text: str
) -> None:
    path = tmp_path / "zoo.cfg"
    path.write_text(lines.format(tmp_path))
    for verb in ("check", "serve"):
        assert run(["coord", verb, str(path)]) != 0
        assert text.format(tmp_path) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_all_keys_are_told_without_the_repository(capsys: Capture) -> None:
    assert run(["coord", "keys"]) == 0
    assert "| `tickTime` | 3000 |" in capsys.readouterr().out
