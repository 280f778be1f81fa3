"""Permissions and access control lists: spec 6.8, 11.2 to 11.4, 22.6."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.protocol import opcodes as o
from coord.protocol.jute import Reader, encode_buffer, encode_int, encode_text
from coord.protocol.records import OPEN_ACL, Acl, Identity, encode_acl, encode_path_watch
from coord.tree.acl import POLICY_NO_DIGEST, POLICY_SKIP_ACL, POLICY_X509, is_allowed, process_acl
from coord.tree.distinguished_name import is_distinguished_name
from tests.coord.tree.machine import BOB, DIGEST_ID, LOCAL, SUPER, Machine

_ALICE = (*LOCAL, Identity("digest", "alice:x"))


@pytest.fixture
def machine() -> Machine:
    return Machine()


def _stored(machine: Machine, path: str) -> list[Acl]:
    err, body = machine.read(o.GET_ACL, encode_text(path))
    assert err == 0
    reader = Reader(body)
    return [
        Acl(reader.read_int(), reader.read_text() or "", reader.read_text() or "")
        for _ in range(reader.read_count() or 0)
    ]


@pytest.mark.parametrize(
    ("want", "does"),
    [
        (o.PERM_READ, lambda m: m.get("/n")),
        (o.PERM_READ, lambda m: m.read(o.EXISTS, encode_path_watch("/n", False))[0]),
        (o.PERM_READ, lambda m: m.read(o.GET_CHILDREN2, encode_path_watch("/n", False))[0]),
        (o.PERM_READ, lambda m: m.read(o.GET_ALL_CHILDREN_NUMBER, encode_text("/n"))[0]),
        (o.PERM_WRITE, lambda m: m.set("/n")),
        (o.PERM_CREATE, lambda m: m.create("/n/new")),
        (o.PERM_DELETE, lambda m: m.delete("/n/k")),
        (o.PERM_ADMIN, lambda m: m.set_acl("/n", OPEN_ACL)),
    ],
)
def test_11_2_each_operation_needs_its_permission(machine, want, does) -> None:  # type: ignore[no-untyped-def]
    machine.create("/n")
    machine.create("/n/k")
    machine.set_acl("/n", (Acl(o.PERM_ALL & ~want, "world", "anyone"), Acl(31, "ip", "10.0.0.1")))
    assert does(machine) == o.NO_AUTH
    machine.identities = SUPER
    assert does(machine) == 0


def test_11_2_skipacl_passes_everything_but_list_processing(machine: Machine) -> None:
    """Spec 11.3, 22.75."""
    machine.create("/n", acl=(Acl(0, "world", "anyone"),))
    assert machine.set("/n") == o.NO_AUTH
    machine.context.policy = POLICY_SKIP_ACL
    assert machine.set("/n") == 0
    assert machine.create("/m", acl=()) == o.INVALID_ACL
    assert machine.create("/m", acl=(Acl(31, "weird", "x"),)) == o.INVALID_ACL


def test_6_4_without_delete_on_the_parent_a_missing_node_is_no_auth(machine: Machine) -> None:
    machine.create("/p", acl=(Acl(o.PERM_ALL & ~o.PERM_DELETE, "world", "anyone"),))
    assert machine.delete("/p/missing") == o.NO_AUTH


def test_22_73_exists_needs_read_also_on_the_root(machine: Machine) -> None:
    machine.identities = BOB
    machine.set_acl("/", (Acl(31, "auth", ""),))
    machine.identities = LOCAL
    assert machine.read(o.EXISTS, encode_path_watch("/", True)) == (o.NO_AUTH, b"")
    assert machine.create("/x") == o.NO_AUTH


def test_24_a_write_behind_a_setacl_is_judged_by_the_new_list(machine: Machine) -> None:
    machine.create("/n")
    machine.set_acl("/n", (Acl(o.PERM_READ, "world", "anyone"),))
    assert machine.set("/n") == o.NO_AUTH


def test_11_3_auth_expands_to_every_authenticated_identity(machine: Machine) -> None:
    machine.identities = (*BOB, Identity("x509", "CN=bob"))
    machine.create("/n", acl=(Acl(31, "auth", "ignored"),))
    assert _stored(machine, "/n") == [Acl(31, "digest", DIGEST_ID), Acl(31, "x509", "CN=bob")]


def test_22_68_auth_without_credentials_is_invalid(machine: Machine) -> None:
    assert machine.create("/n", acl=(Acl(31, "auth", ""),)) == o.INVALID_ACL


def test_11_3_auth_with_a_null_id_is_as_good(machine: Machine) -> None:
    machine.identities = BOB
    acl = encode_int(1) + encode_int(31) + encode_text("auth") + encode_text(None)
    body = encode_text("/n") + encode_buffer(b"") + acl + encode_int(0)
    assert machine.run(o.CREATE, body)[0] == 0
    assert _stored(machine, "/n") == [Acl(31, "digest", DIGEST_ID)]


def test_22_69_duplicates_collapse_and_order_stays(machine: Machine) -> None:
    one, two = Acl(1, "world", "anyone"), Acl(2, "ip", "1.2.3.4")
    machine.create("/n", acl=(two, one, two, one))
    assert _stored(machine, "/n") == [two, one]


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        *((None, "anyone"), ("world", None), ("digest", None), ("ip", None)),
        *(("world", "foo"), ("super", ""), ("weird", "x"), ("", ""), ("world", "")),
        *(("digest", "u"), ("digest", "u:"), ("digest", ":"), ("digest", "a:b:c")),
        *(("ip", "1.2.3"), ("ip", "1.2.3.4/"), ("ip", "1.2.3.4/33"), ("ip", "localhost"), ("ip", "")),
        *(("ip", "1.2.3.256"), ("ip", "1.2.3.4/-1"), ("ip", "1.2.3.٤"), ("ip", "::1/129"), ("ip", "1::2::3")),
    ],
)
def test_22_68_entries_that_are_not_valid(machine: Machine, scheme: str | None, name: str | None) -> None:
    acl = encode_int(1) + encode_int(31) + encode_text(scheme) + encode_text(name)
    body = encode_text("/n") + encode_buffer(b"") + acl + encode_int(0)
    assert machine.run(o.CREATE, body)[0] == o.INVALID_ACL


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("digest", ":h"),
        ("digest", "u:h"),
        ("ip", "1.2.3.4"),
        ("ip", "1.2.3.4/0"),
        ("ip", "0.0.0.0/32"),
        ("ip", "::"),
        ("ip", "fe80::1/64"),
        ("ip", "1:2:3:4:5:6:7:8"),
    ],
)
def test_11_4_entries_that_are_valid(machine: Machine, scheme: str, name: str) -> None:
    assert machine.create("/n", acl=(Acl(31, scheme, name),)) == 0


def test_22_68_a_null_list_is_invalid(machine: Machine) -> None:
    body = encode_text("/n") + encode_buffer(b"") + encode_int(-1) + encode_int(0)
    assert machine.run(o.CREATE, body)[0] == o.INVALID_ACL


@pytest.mark.parametrize(
    ("entry", "mine", "expected"),
    [
        ("10.0.0.0/8", "10.200.3.4", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("0.0.0.0/0", "8.8.8.8", True),
        ("fe80::/16", "fe80::1", True),
        ("fe80::/16", "fe81::1", False),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("0.0.0.0/0", "::1", False),
    ],
)
def test_22_74_ip_entries_match_by_prefix(entry: str, mine: str, expected: bool) -> None:
    assert is_allowed((Acl(31, "ip", entry),), 1, (Identity("ip", mine),)) is expected


def test_11_2_any_bit_of_the_wanted_suffices() -> None:
    acl = (Acl(o.PERM_ADMIN, "world", "anyone"),)
    assert is_allowed(acl, o.PERM_READ | o.PERM_ADMIN, ())
    assert not is_allowed(acl, o.PERM_READ, ())


def test_22_71_getacl_hides_digests_from_whoever_lacks_admin(machine: Machine) -> None:
    machine.identities = BOB
    machine.create("/n", acl=(Acl(31, "auth", ""), Acl(1, "world", "anyone")))
    assert _stored(machine, "/n")[0] == Acl(31, "digest", DIGEST_ID)
    machine.identities = _ALICE
    assert _stored(machine, "/n") == [Acl(31, "digest", "bob:x"), Acl(1, "world", "anyone")]
    machine.identities = SUPER
    assert _stored(machine, "/n")[0] == Acl(31, "digest", DIGEST_ID)


def test_6_8_getacl_needs_read_or_admin(machine: Machine) -> None:
    machine.create("/n", acl=(Acl(o.PERM_WRITE, "world", "anyone"),))
    assert machine.read(o.GET_ACL, encode_text("/n")) == (o.NO_AUTH, b"")
    machine.create("/m", acl=(Acl(o.PERM_ADMIN, "world", "anyone"),))
    assert _stored(machine, "/m") == [Acl(o.PERM_ADMIN, "world", "anyone")]


def test_9_3_the_list_of_a_node_that_is_gone_is_known_to_its_event(machine: Machine) -> None:
    acl = (Acl(31, "ip", "127.0.0.1"),)
    machine.create("/n", acl=acl)
    machine.delete("/n")
    kind, path, number = machine.context.events[0]
    assert (kind, path) == (o.NODE_DELETED, b"/n")
    assert machine.tree.acl_of(number) == acl
    machine.create("/next")
    assert machine.tree.acls.released == {}


def test_11_4_a_certificate_can_be_named_where_certificates_are_known(machine: Machine) -> None:
    acl = (Acl(31, "x509", "CN=bob"),)
    assert machine.create("/n", acl=acl) == o.INVALID_ACL
    machine.context.policy = POLICY_X509
    assert machine.create("/n", acl=acl) == 0
    machine.identities = (*LOCAL, Identity("x509", "CN=bob"))
    assert machine.get("/n") == 0


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**31), 2**31 - 1),
            st.one_of(st.none(), st.sampled_from(["world", "digest", "ip", "auth", "x"])),
            st.one_of(
                st.none(), st.text(max_size=12), st.sampled_from(["anyone", "1.2.3.4/8", "a:b", "::1/3"])
            ),
        ),
        max_size=4,
    )
)
def test_every_list_is_stored_valid_or_refused(entries: list[tuple[int, str | None, str | None]]) -> None:
    stored = process_acl(entries, BOB)
    if stored is not None:
        assert process_acl([tuple(entry) for entry in stored], ()) == tuple(dict.fromkeys(stored))
        encode_acl(stored)
        is_allowed(stored, 31, BOB)


def test_11_2_an_empty_list_is_open_to_everybody() -> None:
    assert is_allowed((), o.PERM_ADMIN, ())


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        *(
            ("bob", True),
            ("", True),
            ("zk/host", True),
            ("zk/host@REALM", True),
            ("a/b/c", True),
            ("@", True),
        ),
        *(("a@b@c", False), ("a/b/c@R", False), ("a@b/c", False)),
    ],
)
def test_11_4_a_sasl_entry_must_be_a_principal(machine: Machine, name: str, valid: bool) -> None:
    """As Apache ZooKeeper 3.9.5 takes and refuses them."""
    assert machine.create("/n", acl=(Acl(31, "sasl", name),)) == (0 if valid else o.INVALID_ACL)


def test_11_4_the_sasl_user_super_matches_every_sasl_entry() -> None:
    acl = (Acl(31, "sasl", "bob"),)
    assert is_allowed(acl, 1, (Identity("sasl", "bob"),))
    assert is_allowed(acl, 1, (Identity("sasl", "super"),))
    assert not is_allowed(acl, 1, (Identity("sasl", "alice"), Identity("digest", "bob")))


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        *(
            ("CN=bob,O=Acme", True),
            ("cn = bob ; o = Acme", True),
            ("", True),
            ("CN=", True),
            ("CN=a=b", True),
        ),
        *(("1.2.840.113549.1.9.1=#1603612e62", True), ("OID.2.5.4.3=x", True), ('CN="a, b"+OU=c', True)),
        *((r"CN=a\, b", True), (r"CN=\C3\A9", True), ("CN=a#b", True)),
        *(("bob", False), ("=bob", False), ("CN", False), ("CN=a,", False), ("FOO=a", False), ("E=a", False)),
        *(("CN=a<b", False), ('CN=a"b', False), (r"CN=\g", False), ("CN=#04", False), ("CN=#0c0161 ", False)),
        *(("1.40=a", False), ("3.1=a", False), ('CN="a', False), (" ", False)),
    ],
)
def test_11_4_an_x509_entry_must_be_a_distinguished_name(machine: Machine, name: str, valid: bool) -> None:
    """As Java's X500Principal takes and refuses them."""
    machine.context.policy = POLICY_X509
    assert machine.create("/n", acl=(Acl(31, "x509", name),)) == (0 if valid else o.INVALID_ACL)


def test_11_4_without_certificates_no_x509_entry_is_valid(machine: Machine) -> None:
    assert machine.create("/n", acl=(Acl(31, "x509", "CN=bob"),)) == o.INVALID_ACL


def test_11_4_without_the_digest_provider_no_digest_entry_is_valid(machine: Machine) -> None:
    machine.context.policy = POLICY_NO_DIGEST
    assert machine.create("/n", acl=(Acl(31, "digest", "u:h"),)) == o.INVALID_ACL


@given(st.text(alphabet='CN=O,+;"\\#<> 04é.123\n', max_size=30))
def test_any_text_is_a_distinguished_name_or_not(text: str) -> None:
    assert is_distinguished_name(text) in (True, False)


def test_11_3_permissions_are_stored_as_they_came(machine: Machine) -> None:
    entries = (Acl(0x7FFFFFFF, "world", "anyone"), Acl(-1, "ip", "1.2.3.4"), Acl(0, "ip", "1.2.3.4"))
    assert machine.create("/n", acl=entries) == 0
    assert _stored(machine, "/n") == list(entries)
