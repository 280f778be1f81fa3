"""The subscription record: a znode below the topic's, written when it is created and when its preferences
change.

A CBOR map with text keys; unknown ones are kept. Positions are not in here: they move too often for the
coordination service (P9) and live in the owner's cursor ledger. `start` is what a reader falls back to.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import cbor2

from pubsub.core.errors import RecordError
from pubsub.core.record import decode_map

SUBSCRIPTION_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class SubscriptionRecord:
    """A durable subscription.

    Attributes:
        incarnation: random; a subscription removed and created again under its old name has another one.
        start: the mark it began with: nothing at or below is ever delivered to it.
    """

    incarnation: int
    start: int
    created_ms: int
    preferences: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)


def encode_subscription(record: SubscriptionRecord) -> bytes:
    return cbor2.dumps(
        {
            **record.unknown,
            "version": SUBSCRIPTION_VERSION,
            "incarnation": record.incarnation,
            "start": record.start,
            "created_ms": record.created_ms,
            "preferences": record.preferences,
        }
    )


def decode_subscription(data: bytes, where: str) -> SubscriptionRecord:
    """Read a znode's data.

    Raises:
        RecordError: not a subscription record, or one of a newer version.
    """
    fields = decode_map(data, where)
    version = fields.pop("version", None)
    if version != SUBSCRIPTION_VERSION:
        raise RecordError(
            f"{where}: expected a subscription record of version {SUBSCRIPTION_VERSION}, got {version!r}"
        )
    numbers = [fields.pop(name, None) for name in ("incarnation", "start", "created_ms")]
    preferences = fields.pop("preferences", {})
    if not all(type(number) is int for number in numbers) or not isinstance(preferences, dict):
        raise RecordError(f"{where}: damaged subscription record: {numbers} {type(preferences).__name__}")
    incarnation, start, created_ms = numbers
    return SubscriptionRecord(incarnation, start, created_ms, preferences, fields)
