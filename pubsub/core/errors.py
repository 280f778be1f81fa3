"""Every error of topics, its number on the wire, and whether the operation happened.

`retry` says what the client library does with an error by itself: such errors never reach the application.
What the application sees is the rest, and each says for certain that nothing happened unless `happened` is
None.
"""

from typing import ClassVar


class PubsubError(Exception):
    """A topic operation failed.

    Attributes:
        code: number on the wire.
        retry: the same request may succeed later or at another hub.
        happened: False when the operation certainly had no effect, None when that is unknown.
    """

    code: ClassVar[int] = 0
    retry: ClassVar[bool] = False
    happened: ClassVar[bool | None] = False


class NotOwnerError(PubsubError):
    """This hub does not own the topic. The text is "ADDRESS EPOCH" of the owner, empty when unknown."""

    code = 1
    retry = True


class OwnerBusyError(PubsubError):
    """A take-over is under way or the hub is giving the topic up; ask again shortly."""

    code = 2
    retry = True


class StorageUnavailableError(PubsubError):
    """Not enough bookies for an ack quorum."""

    code = 3
    retry = True


class ServiceDownError(PubsubError):
    """The hub has lost its session with the coordination service and decides nothing about ownership."""

    code = 4
    retry = True


class UnknownTopicError(PubsubError):
    """The topic does not exist."""

    code = 5


class TopicNameError(PubsubError, ValueError):
    """A name that topics or subscriptions cannot have; the text says which rule it breaks."""

    code = 6


class TopicExistsError(PubsubError):
    """A topic of this name exists."""

    code = 7


class NotSubscribedError(PubsubError):
    """The topic has no subscription of this name."""

    code = 8


class SubscriptionBusyError(PubsubError):
    """Another connection is being served by this subscription."""

    code = 9


class ForcedClosedError(PubsubError):
    """Another connection took the subscription over. Final: asking again would steal it back."""

    code = 10


class MessageTooLargeError(PubsubError):
    """A message, or a key, exceeds its limit."""

    code = 11


class CorruptBatchError(PubsubError):
    """Bytes that are not a batch: wrong magic, checksum or sizes."""

    code = 12


class OutOfOrderError(PubsubError):
    """A batch does not follow its predecessor, or overlaps stored ones only in part."""

    code = 13


class InvalidRequestError(PubsubError):
    """The request contradicts itself or the state of its connection."""

    code = 14


class UncertainError(PubsubError):
    """The connection broke before the answer: the operation may or may not have happened."""

    code = 15
    retry = True
    happened = None


class StalePublisherError(PubsubError):
    """An earlier batch of this publisher channel was refused, so this one is too: open the channel again."""

    code = 16
    retry = True


class UnsupportedBatchError(PubsubError):
    """A batch of a newer format, or packed by a codec that this version does not have."""

    code = 17


class SubscriptionsExistError(PubsubError):
    """The topic has subscriptions, so it is only deleted by force."""

    code = 18


class RecordError(PubsubError):
    """A stored record (topic, subscription, cursor) is damaged or newer than this program; the text says
    where.
    """

    code = 19


_BY_CODE: dict[int, type[PubsubError]] = {
    error.code: error
    for error in (
        NotOwnerError,
        OwnerBusyError,
        StorageUnavailableError,
        ServiceDownError,
        UnknownTopicError,
        TopicNameError,
        TopicExistsError,
        NotSubscribedError,
        SubscriptionBusyError,
        ForcedClosedError,
        MessageTooLargeError,
        CorruptBatchError,
        OutOfOrderError,
        InvalidRequestError,
        UncertainError,
        StalePublisherError,
        UnsupportedBatchError,
        SubscriptionsExistError,
        RecordError,
    )
}


def error_from_code(code: int, text: str) -> PubsubError:
    """The error a peer named by number; an unknown number becomes a plain PubsubError that shows it."""
    kind = _BY_CODE.get(code)
    return PubsubError(f"error {code}: {text}") if kind is None else kind(text)
