"""Member lines and the membership as a whole: specification 19.1, 19.2, 19.7, 19.9."""

from pathlib import Path

import pytest

from coord.server.config import ConfigError, parse_config
from coord.server.config.ensemble import EnsembleConfig
from coord.server.config.members import LinkAddress, PeerAddress, parse_members
from coord.server.config.membership import read_membership, role_warnings
from coord.server.config.quorums import QuorumGroups, parse_quorum_groups

THREE = (("1", "a:1:2"), ("2", "b:1:2"), ("3", "c:1:2"))


def member(text: str) -> PeerAddress:
    (peer,) = parse_members([("1", text)])
    return peer


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a:1:2", "a:1:2:participant"),
        ("a:1:2:observer", "a:1:2:observer"),
        ("a:1:2:OBSERVER", "a:1:2:observer"),
        ("a:1:2;2181", "a:1:2:participant;0.0.0.0:2181"),
        ("a:1:2:participant;10.0.0.1:2181", "a:1:2:participant;10.0.0.1:2181"),
        ("[::1]:1:2;[::1]:2181", "[0:0:0:0:0:0:0:1]:1:2:participant;[0:0:0:0:0:0:0:1]:2181"),
        ("[2001:db8::A]:1:2", "[2001:db8:0:0:0:0:0:a]:1:2:participant"),
        ("a:1:2;2181;2281", "a:1:2:participant;0.0.0.0:2181;0.0.0.0:2281"),
        ("a:1:2|b:3:4:observer;5", "a:1:2|b:3:4:observer;0.0.0.0:5"),
    ],
)
def test_each_form_of_a_member_has_its_canonical_text(text: str, canonical: str) -> None:
    """19.1, 19.2."""
    peer = member(text)
    assert peer.text() == canonical
    assert member(canonical).text() == canonical


def test_a_member_may_have_several_addresses() -> None:
    peer = member("a:1:2|[::1]:3:4;2181")
    assert peer.addresses == (LinkAddress("a", 1, 2), LinkAddress("::1", 3, 4))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a", "must be host"),
        ("a:1", "must be host"),
        (":1:2", "host is missing"),
        ("a:x:2", "quorum port must be a port, got 'x'"),
        ("a:1:0", "election port"),
        ("a:1:2:king", "unknown role 'king'"),
        ("a:1:2;x", "client port must be a port"),
        ("a:1:2;1;x", "secure client port"),
        ("a:1:2;1;2;3", "at most two"),
        ("[::1:1:2", r"expected \[address\]"),
        ("a:1:2:observer|b:1:2", "must be host"),
    ],
)
def test_a_member_line_that_cannot_be_used_is_named(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=rf"server\.1.*{part}"):
        member(text)


def test_groups_hold_each_participant_exactly_once() -> None:
    """19.7, 19.9."""
    assert parse_quorum_groups([("1", "1:2"), ("2", "3")], [("3", "5")], [1, 2, 3]) == QuorumGroups(
        ((1, frozenset({1, 2})), (2, frozenset({3}))), ((1, 1), (2, 1), (3, 5))
    )
    assert parse_quorum_groups([], [], [1, 2, 3]) is None
    with pytest.raises(ConfigError, match="server 3 is in no group"):
        parse_quorum_groups([("1", "1:2")], [], [1, 2, 3])
    with pytest.raises(ConfigError, match=r"server 2 is in group\.1 and in group\.2"):
        parse_quorum_groups([("1", "1:2"), ("2", "2:3")], [], [1, 2, 3])
    with pytest.raises(ConfigError, match=r"weight\.1 must be a number, got 'x'"):
        parse_quorum_groups([("1", "1")], [("1", "x")], [1])


def test_a_single_member_runs_standalone_unless_told_otherwise() -> None:
    """19.8, 19.9."""
    alone = read_membership(EnsembleConfig(members=(("1", "a:1:2"),)))
    assert alone.servers == ()
    assert "server.1 is ignored" in alone.warnings[0]
    one = read_membership(EnsembleConfig(members=(("1", "a:1:2"),), standalone_enabled=False))
    assert [peer.sid for peer in one.servers] == [1]


def test_an_even_number_of_participants_is_worth_a_warning() -> None:
    """19.9."""
    assert "run three" in read_membership(EnsembleConfig(members=THREE[:2])).warnings[0]
    assert read_membership(EnsembleConfig(members=THREE)).warnings == ()
    assert (
        "no more losses than 3"
        in read_membership(EnsembleConfig(members=(*THREE, ("4", "d:1:2")))).warnings[0]
    )


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ((("1", "a:1:2:observer"), ("2", "b:1:2:observer")), "all servers are observers"),
        ((("1", "a:1:2:observer"), ("2", "b:1:2")), "at least two participants"),
        ((("1", "a:1:2"), ("01", "b:1:2")), "twice"),
    ],
)
def test_members_that_make_no_ensemble_are_refused(members: tuple[tuple[str, str], ...], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        read_membership(EnsembleConfig(members=members))


def test_the_role_in_the_member_line_holds() -> None:
    """19.9."""
    mine = member("a:1:2")
    assert role_warnings(EnsembleConfig(), mine) == ()
    assert "which holds" in role_warnings(EnsembleConfig(peer_type="observer"), mine)[0]


def test_the_members_may_stand_in_the_dynamic_file(tmp_path: Path) -> None:
    """19.5: a started ensemble of ZooKeeper's has moved them there."""
    dynamic = tmp_path / "zoo.cfg.dynamic.100000000"
    dynamic.write_text("server.1=a:1:2:participant\nserver.2=b:1:2\nserver.3=c:1:2")
    membership = read_membership(EnsembleConfig(dynamic_file=str(dynamic)))
    assert [peer.host for peer in membership.servers] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "part"), [("version=1", "version does not belong"), ("tickTime=3", "tickTime does not belong")]
)
def test_a_dynamic_file_holds_members_only(tmp_path: Path, text: str, part: str) -> None:
    dynamic = tmp_path / "dynamic"
    dynamic.write_text(text)
    with pytest.raises(ConfigError, match=part):
        read_membership(EnsembleConfig(dynamic_file=str(dynamic)))


def test_members_do_not_stand_in_both_files(tmp_path: Path) -> None:
    config = EnsembleConfig(members=THREE, dynamic_file=str(tmp_path / "dynamic"))
    with pytest.raises(ConfigError, match="belong there"):
        read_membership(config)


def test_a_dynamic_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """19.9."""
    with pytest.raises(ConfigError, match=r"dynamicConfigFile .*gone cannot be read"):
        parse_config({"dataDir": str(tmp_path), "dynamicConfigFile": str(tmp_path / "gone")})


def test_several_addresses_need_the_key_that_allows_them() -> None:
    """19.1."""
    members = (*THREE, ("4", "d:1:2|e:1:2"))
    with pytest.raises(ConfigError, match=r"server\.4 has several addresses, and multiAddress\.enabled"):
        read_membership(EnsembleConfig(members=members))
    assert read_membership(EnsembleConfig(members=members, several_addresses=True)).servers[3].more


@pytest.mark.parametrize(
    ("groups", "weights", "part"),
    [
        ((("1", "1:2:3:9"),), (), "server 9 of group.1 is no participant"),
        ((("1", "1:2:3"),), (("1", "0"), ("2", "0"), ("3", "0")), "none of them could lead"),
    ],
)
def test_groups_that_nobody_could_lead_with_are_refused(
    groups: tuple[tuple[str, str], ...], weights: tuple[tuple[str, str], ...], part: str
) -> None:
    """19.7: disjoint groups covering all participants; weight 0 servers never become leader."""
    with pytest.raises(ConfigError, match=part):
        read_membership(EnsembleConfig(members=THREE, groups=groups, weights=weights))


def test_groups_and_weights_are_part_of_the_canonical_text(tmp_path: Path) -> None:
    """19.2: behind the members."""
    (tmp_path / "myid").write_text("2")
    (tmp_path / "ensemble.secret").write_text("s" * 16)
    lines = {f"server.{sid}": text for sid, text in THREE}
    config = parse_config(
        {"dataDir": str(tmp_path), "initLimit": "5", "syncLimit": "5", "group.1": "3:1", "group.2": "2"}
        | lines
        | {"weight.1": "3"}
    )
    members, _, rest = config.canonical_members().partition("\ngroup.1")
    assert members.count("\n") == 2
    assert f"group.1{rest}" == "group.1=1:3\ngroup.2=2\nweight.1=3\nweight.2=1\nweight.3=1"
