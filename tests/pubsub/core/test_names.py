"""Topic and subscription names (spec 2.16, P7, P8)."""

import pytest

from pubsub.core.errors import TopicNameError
from pubsub.core.names import check_subscription, parse_topic


def test_a_short_name_means_the_default_namespace() -> None:
    name = parse_topic("orders")
    assert (name.tenant, name.namespace, name.topic, str(name)) == ("public", "default", "orders", "orders")
    assert parse_topic("public/default/orders") == name


def test_p8_paths_put_the_namespace_first_and_then_hash_buckets() -> None:
    path = parse_topic("acme/eu/orders").path
    root, tenant, namespace, high, low, topic = path.rsplit("/", 5)
    assert (root, tenant, namespace, topic) == ("/pubsub/topics", "acme", "eu", "orders")
    assert len(high) == len(low) == 2


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "empty"),
        ("a/b", "2 parts"),
        ("a/b/c/d", "4 parts"),
        ("a//c", "empty"),
        ("x" * 201, "201 characters"),
        ("spaced out", "ASCII"),
        ("größe", "ASCII"),
        ("new\nline", "ASCII"),
        ("trailing\n", "ASCII"),
        ("zero\x00", "ASCII"),
        (".", "not a name"),
        ("a/../c", "not a name"),
        ("__hub", "reserved"),
    ],
)
def test_names_that_are_not_allowed_say_why(text: str, rule: str) -> None:
    with pytest.raises(TopicNameError, match=rule):
        parse_topic(text)


def test_subscription_names_follow_the_same_rules() -> None:
    assert check_subscription("billing-2.eu_west") == "billing-2.eu_west"
    for text in ("", "a/b", "__dedup", "a b"):
        with pytest.raises(TopicNameError):
            check_subscription(text)
