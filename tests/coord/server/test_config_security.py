"""Keys of authentication (specification 11, 19.9): what is understood, and what contradicts itself."""

import re
from pathlib import Path

import pytest

from coord.server.config import ConfigError, ServerConfig, parse_config
from coord.server.main import main
from coord.server.policy import policy_word
from coord.tree.acl import POLICY_NO_DIGEST, POLICY_SKIP_ACL, POLICY_X509


def parse(**pairs: str) -> ServerConfig:
    return parse_config({"dataDir": "/d"} | {name.replace("__", "."): value for name, value in pairs.items()})


def failure(pairs: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config({"dataDir": "/d"} | pairs)
    return str(caught.value)


def test_users_come_from_keys_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("# ours\nbob=b=1\nsasl.digest.user.carol = c\\u00e9\nalice=old\n")
    pairs = {
        "zookeeper.sasl.digest.user.alice": "a",
        "sasl.digest.userFile": str(file),
        "SASLAuthenticationProvider.superPassword": "s",
    }
    config = parse_config({"dataDir": "/d"} | pairs)
    assert config.security.sasl_passwords == {"alice": "a", "bob": "b=1", "carol": "cé", "super": "s"}
    assert config.unknown_keys == ()
    assert "alice" not in repr(config.security)


def test_super_users_come_from_one_key_or_many() -> None:
    config = parse(superUser="a", superUser__1="b", zookeeper__superUser__x="c")
    assert config.security.all_super_users == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("pairs", "bits"),
    [
        ({}, 0),
        ({"skipACL": "yes"}, POLICY_SKIP_ACL),
        ({"zookeeper.DigestAuthenticationProvider.enabled": "false"}, POLICY_NO_DIGEST),
        ({"authProvider.1": "org.apache.zookeeper.server.auth.X509AuthenticationProvider"}, POLICY_X509),
        ({"secureClientPort": "0", "ssl.keyStore.location": "k", "ssl.clientAuth": "none"}, POLICY_X509),
    ],
)
def test_what_changes_execution_is_in_the_policy_word(pairs: dict[str, str], bits: int) -> None:
    assert policy_word(parse_config({"dataDir": "/d"} | pairs)) == bits


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ({"enforce.auth.enabled": "true"}, "enforce.auth.schemes must name a scheme"),
        ({"enforce.auth.enabled": "true", "enforce.auth.schemes": "sasl"}, "no client .* 'sasl': .* no SASL"),
        (
            {"enforce.auth.enabled": "true", "enforce.auth.schemes": "x509"},
            "no client .* 'x509': .* TLS port",
        ),
        ({"enforce.auth.enabled": "true", "enforce.auth.schemes": "world"}, "no client .* 'world': expected"),
        ({"enforce.auth.enabled": "true", "enforce.auth.schemes": "digest,kerberos"}, "'kerberos'"),
        (
            {
                "enforce.auth.enabled": "true",
                "enforce.auth.schemes": "digest",
                "DigestAuthenticationProvider.enabled": "false",
            },
            "'digest': .*false",
        ),
        ({"sessionRequireClientSASLAuth": "true"}, "sessionRequireClientSASLAuth: no client .* 'sasl'"),
        (
            {"sessionRequireClientSASLAuth": "true", "allowSaslFailedClients": "true"},
            "contradict each other",
        ),
        ({"sasl.digest.user.bob": ""}, "sasl.digest.user.bob: the password is empty"),
        ({"sasl.digest.userFile": "/nowhere/users"}, "userFile /nowhere/users cannot be read: No such file"),
        ({"DigestAuthenticationProvider.superDigest": "super"}, "superDigest must be user:base64-digest"),
        ({"DigestAuthenticationProvider.digestAlg": "CRC32"}, "digestAlg must be one of MD5"),
        ({"skipACL": "true"}, "skipACL must be yes or no"),
    ],
)
def test_11_6_a_contradiction_is_one_clear_line(pairs: dict[str, str], words: str) -> None:
    text = failure(pairs)
    assert "\n" not in text

    assert re.search(words, text), text


def test_11_6_a_contradiction_ends_the_start_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "zoo.cfg"
    file.write_text(f"dataDir={tmp_path}\nenforce.auth.enabled=true\nenforce.auth.schemes=sasl\n")
    assert main([str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"{file}: enforce.auth.schemes: no client can authenticate")


@pytest.mark.parametrize("secret", ["sasl.digest.user.bob=hush", "ssl.keyStore.password=hush"])
def test_no_secret_is_shown_to_whoever_may_see_the_configuration(secret: str) -> None:
    name, _, value = secret.partition("=")
    config = parse_config({"dataDir": "/d", name: value})
    assert "hush" not in repr(config)
    assert "hush" not in config.shown_text
