"""kazoo's `command` reads four-letter words with one `recv(8192)` (specification 16.1, 22.9 K94)."""

import re

import pytest

from tests.coord_servers import CoordServers, ask
from tests.interop.conftest import SYNC_LIMIT, MakeClient

pytestmark = pytest.mark.interop


def test_kazoo_asks_words_and_reads_the_version(standalone: CoordServers, make_client: MakeClient) -> None:
    client = make_client(standalone.hosts)
    assert client.command(b"ruok") == "imok"
    assert client.command(b"isro") == "rw"
    assert client.server_version() == (3, 9, 5)
    assert re.search(r"^\s*Mode: standalone$", client.command(b"stat"), re.MULTILINE)
    assert f"sid=0x{client.client_id[0]:x},lop=" in client.command(b"cons")
    assert f"\t0x{client.client_id[0]:x}\n" in client.command(b"dump")


def test_members_of_an_ensemble_tell_their_part_16_7_16_9(ensemble: CoordServers) -> None:
    leader, follower = ensemble.leader(), ensemble.followers()[0]
    text = ask(follower.port, "conf")
    assert re.search(
        rf"^serverId=\d\ninitLimit=20\nsyncLimit={SYNC_LIMIT}\nelectionAlg=3\nelectionPort=\d+\nquorumPort=\d+\n"
        r"peerType=0\nmembership: \nserver\.1=",
        text,
        re.MULTILINE,
    )
    assert not text.endswith("\n")
    assert "\nSession Sets (" in ask(leader.port, "dump")
    assert "\nGlobal Sessions(" in ask(follower.port, "dump")
    assert "zk_peer_state\tleading - broadcast\n" in ask(leader.port, "mntr")
    assert "zk_peer_state\tfollowing - broadcast\n" in ask(follower.port, "mntr")
