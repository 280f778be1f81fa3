"""What topics and subscriptions may be called, and where their records live in the coordination service.

A full name is `tenant/namespace/topic`; a short one means `public/default/topic`. The parts are ASCII
letters, digits, dot, underscore and hyphen, so they need no escaping as path segments (P7). Topics are spread
over 65 536 buckets, namespace first, so no directory outgrows one reply (P8).

    /pubsub/hubs/hub-NNNNNNNNNN                               one ephemeral per live hub (P11)
    /pubsub/topics/TENANT/NS/HH/HH/TOPIC                      topic record, changed by compare-and-set
    /pubsub/topics/TENANT/NS/HH/HH/TOPIC/epoch                the epoch, checked by an owner's writes (P10)
    /pubsub/topics/TENANT/NS/HH/HH/TOPIC/subscriptions/NAME   subscription record
"""

import re
from dataclasses import dataclass

import google_crc32c

from pubsub.core.errors import TopicNameError

ROOT_PATH = "/pubsub"
HUBS_PATH = "/pubsub/hubs"
TOPICS_PATH = "/pubsub/topics"
HUB_NODE_PREFIX = "/pubsub/hubs/hub-"

DEFAULT_TENANT = "public"
DEFAULT_NAMESPACE = "default"
NAME_PART_LENGTH_MAX = 200
#: Names that begin so belong to hubs (cursors of dedup snapshots and the like).
RESERVED_PREFIX = "__"

_PART = re.compile(r"[A-Za-z0-9._-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TopicName:
    """A checked topic name. `str()` is the shortest form, which is also what users see."""

    tenant: str
    namespace: str
    topic: str

    def __str__(self) -> str:
        if (self.tenant, self.namespace) == (DEFAULT_TENANT, DEFAULT_NAMESPACE):
            return self.topic
        return f"{self.tenant}/{self.namespace}/{self.topic}"

    @property
    def path(self) -> str:
        """Path of the topic record."""
        bucket = google_crc32c.value(self.topic.encode()) & 0xFFFF
        return (
            f"{TOPICS_PATH}/{self.tenant}/{self.namespace}/{bucket >> 8:02x}/{bucket & 0xFF:02x}/{self.topic}"
        )

    @property
    def epoch_path(self) -> str:
        return self.path + "/epoch"

    @property
    def subscriptions_path(self) -> str:
        return self.path + "/subscriptions"

    def subscription_path(self, subscription: str) -> str:
        return f"{self.path}/subscriptions/{subscription}"


def parse_topic(text: str) -> TopicName:
    """Check a topic name.

    Raises:
        TopicNameError: with the rule it breaks.
    """
    parts = text.split("/")
    if len(parts) == 1:
        parts = [DEFAULT_TENANT, DEFAULT_NAMESPACE, *parts]
    if len(parts) != 3:
        raise TopicNameError(
            f"topic name {text!r}: expected TOPIC or TENANT/NAMESPACE/TOPIC, got {len(parts)} parts"
        )
    for part in parts:
        _check_part(part, f"topic name {text!r}")
    return TopicName(*parts)


def check_subscription(text: str) -> str:
    """Check a subscription name and return it.

    Raises:
        TopicNameError: with the rule it breaks.
    """
    _check_part(text, f"subscription name {text!r}")
    return text


def _check_part(part: str, what: str) -> None:
    if not part:
        raise TopicNameError(f"{what}: a part is empty")
    if len(part) > NAME_PART_LENGTH_MAX:
        raise TopicNameError(f"{what}: a part has {len(part)} characters, {NAME_PART_LENGTH_MAX} are allowed")
    if _PART.fullmatch(part) is None:
        raise TopicNameError(f"{what}: only letters, digits, '.', '_' and '-' of ASCII are allowed")
    if part in (".", ".."):
        raise TopicNameError(f"{what}: {part!r} is not a name")
    if part.startswith(RESERVED_PREFIX):
        raise TopicNameError(f"{what}: names that begin with {RESERVED_PREFIX!r} are reserved")
