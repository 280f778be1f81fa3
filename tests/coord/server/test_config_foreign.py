"""ZooKeeper's keys that are no keys here, and keys that are nobody's (specification 19.9)."""

from pathlib import Path

import pytest

from coord.server.config import ConfigError, parse_config
from coord.server.config.foreign import REFUSED, WITHOUT_EFFECT, is_foreign
from coord.server.config.reading import is_declared


def test_zookeepers_tuning_is_told_from_keys_that_are_nobodys() -> None:
    config = parse_config({"dataDir": "/d", "zookeeper.preAllocSize": "64M", "zzz": "1", "forceSync": "no"})
    assert config.unknown_keys == ("zzz",)
    assert config.keys_without_effect == ("forceSync", "preAllocSize")


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("requireKerberosConfig", "true", "DIGEST-MD5"),
        ("portUnification", "true", "stop all servers"),
        ("ssl.quorum.keyStore.password", "secret", "without a password"),
        ("oraclePath", "/x", "run three servers"),
    ],
)
def test_what_cannot_be_honoured_safely_is_refused_with_what_to_do(name: str, value: str, part: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value} cannot be honoured: .*{part}"):
        parse_config({"dataDir": "/d", name: value})


def test_a_refused_key_that_asks_for_nothing_is_harmless() -> None:
    config = parse_config({"dataDir": "/d", "portUnification": "FALSE"})
    assert config.keys_without_effect == ("portUnification",)


def test_zookeepers_own_providers_are_known_by_their_class() -> None:
    package = "org.apache.zookeeper.server.auth."
    config = parse_config(
        {
            "dataDir": "/d",
            "authProvider.1": package + "SASLAuthenticationProvider",
            "zookeeper.authProvider.x509": package + "X509AuthenticationProvider",
        }
    )
    assert config.security.providers == (("1", "sasl"), ("x509", "x509"))
    with pytest.raises(
        ConfigError, match=r"authProvider\.1 must be one of ZooKeeper's own .*'com\.acme\.Ours'"
    ):
        parse_config({"dataDir": "/d", "authProvider.1": "com.acme.Ours"})


def test_no_key_is_both_without_effect_and_refused() -> None:
    assert set(WITHOUT_EFFECT) & set(REFUSED) == set()


def zookeepers_keys() -> list[str]:
    """Every key and property that the server of 3.9.5 reads, and the names of its administrator's guide."""
    return Path(__file__).with_name("zookeeper_keys.txt").read_text().split()


def test_every_key_that_zookeeper_reads_is_known() -> None:
    """It works here, has no effect, or is refused; none is taken for a mistake in typing."""
    names = zookeepers_keys()
    assert len(names) > 250
    assert [name for name in names if not is_declared(name) and not is_foreign(name)] == []


def test_the_key_of_a_principal_is_not_taken_for_a_member() -> None:
    with pytest.raises(ConfigError, match=r"server\.principal=zk cannot be honoured: Kerberos"):
        parse_config({"dataDir": "/d", "server.principal": "zk"})


def test_a_declared_key_is_not_foreign() -> None:
    assert [name for name in WITHOUT_EFFECT if is_declared(name)] == []
    assert [name for name in REFUSED if is_declared(name)] == []
    assert is_foreign("preAllocSize")
    assert not any(is_foreign(name) for name in ("dataDir", "server.1", "tickTime"))
