"""TLS between the servers of an ensemble (`sslQuorum`), with certificates made for the test."""

from pathlib import Path

import pytest
import trio
import trustme

import coord
from coord.server.config import ConfigError
from coord.server.config.ensemble import EnsembleConfig
from coord.server.peer_tls import make_peer_contexts
from tests.coord.ensemble import Ensemble, member_lines


def store(path: Path, authority: trustme.CA, *names: str) -> Path:
    """A PEM file with a key and its certificate."""
    authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, object]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "trust.pem")
    return {
        "sslQuorum": "true",
        "ssl__quorum__keyStore__location": store(tmp_path / "key.pem", authority, "127.0.0.1"),
        "ssl__quorum__trustStore__location": tmp_path / "trust.pem",
        "snapCount": "2",
    }


async def test_an_ensemble_speaks_tls(tmp_path: Path, nursery: trio.Nursery, keys: dict[str, object]) -> None:
    """Links of either direction, large batches, and a snapshot for a server whose disk was replaced."""
    ensemble = Ensemble(tmp_path, nursery, member_lines(3, observers=1), **keys)
    await ensemble.start(1, 2, 3)
    async with coord.connect(f"127.0.0.1:{ensemble.port(1)}") as client:
        for number in range(40):
            await client.create(f"/n{number}", bytes([number]) * 300_000)
        await ensemble.start(4)
        async with coord.connect(f"127.0.0.1:{ensemble.port(4)}") as late:
            await late.sync("/")
            assert (await late.get("/n7"))[0] == bytes([7]) * 300_000
            await late.create("/by-4", b"")
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_a_server_of_another_authority_stays_outside(
    tmp_path: Path, nursery: trio.Nursery, keys: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """It knows the secret and is refused all the same; nothing of its words is read."""
    ensemble = Ensemble(tmp_path, nursery, member_lines(3), **keys)
    await ensemble.start(1, 2)
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "other-trust.pem")
    ensemble.keys = keys | {
        "ssl__quorum__keyStore__location": store(tmp_path / "other.pem", other, "127.0.0.1"),
        "ssl__quorum__trustStore__location": tmp_path / "other-trust.pem",
    }
    await ensemble.start(3, wait=False)
    text = ""
    with trio.fail_after(60):
        while text.count("no TLS with the other server") < 2 or "a peer cannot be reached" not in text:
            await trio.sleep(0.01)
            text += capsys.readouterr().err
    assert not ensemble.modes.get(3)
    await ensemble.stop()
    assert ensemble.failures == {}


def test_stores_must_be_named_and_readable(tmp_path: Path) -> None:
    assert make_peer_contexts(EnsembleConfig()) is None
    with pytest.raises(ConfigError, match=r"needs ssl\.quorum\.keyStore\.location"):
        make_peer_contexts(EnsembleConfig(peer_tls=True))
    gone = str(tmp_path / "gone.pem")
    with pytest.raises(ConfigError, match="gone"):
        make_peer_contexts(EnsembleConfig(peer_tls=True, peer_key_store=gone, peer_trust_store=gone))
