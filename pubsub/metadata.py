"""Topic and subscription records in the coordination service; every change a compare-and-set.

A change whose answer was lost is neither done nor failed (P14): it is settled by reading again, here, so
callers see either success or `ConflictError`. The epoch node beside a record gets one change for each of the
record's epochs, so its version is always epoch - 1: that is what an owner's other writes check (P10).
"""

from typing import Final

import trio

import coord
from pubsub.core.errors import TopicExistsError
from pubsub.core.names import HUBS_PATH, ROOT_PATH, TOPICS_PATH, TopicName, parse_topic
from pubsub.core.record import TopicRecord, decode_record, encode_record
from pubsub.core.subscription import SubscriptionRecord, decode_subscription, encode_subscription

RETRY_DELAY_S: Final = 0.05
LISTING_TASKS_MAX: Final = 32


class ConflictError(Exception):
    """Somebody else changed the record: read it again and decide again."""


class TopicStore:
    """The records of one coordination service."""

    def __init__(self, zk: coord.Client) -> None:
        self._zk = zk

    async def prepare(self) -> None:
        """Creates the fixed nodes."""
        for path in (ROOT_PATH, HUBS_PATH, TOPICS_PATH):
            await self._ensure(path)

    async def names(self) -> list[TopicName]:
        """All topics."""
        return [parse_topic(name) for name in await list_topics(self._zk)]

    # -- topic records
    # ---------------------------------------------------------------------------------------------

    async def read(self, name: TopicName) -> tuple[TopicRecord, int] | None:
        """The record and its version; None when there is none.

        Raises:
            RecordError: it is damaged.
        """
        while True:
            try:
                data, stat = await self._zk.get(name.path)
            except coord.NoNodeError:
                return None
            except (coord.ConnectionLossError, coord.NotConnectedError):
                await trio.sleep(RETRY_DELAY_S)
                continue
            return decode_record(data or b"", name.path), stat.version

    async def create(self, name: TopicName, record: TopicRecord) -> int:
        """Writes the first record of a topic, of epoch 1, and the nodes beside it; returns its version.

        Raises:
            ConflictError: the topic exists.
        """
        assert record.epoch == 1, f"a new record of epoch {record.epoch}"
        lost = False
        while True:
            try:
                await self._zk.multi(
                    [
                        coord.Create(name.path, encode_record(record)),
                        coord.Create(name.epoch_path, b"1"),
                        coord.Create(name.subscriptions_path, b""),
                    ]
                )
                return 0
            except coord.NoNodeError:
                await self._ensure_parents(name.path)
            except coord.NodeExistsError as error:
                if lost and (stored := await self.read(name)) is not None and stored[0].landed(record):
                    return stored[1]
                raise ConflictError(f"{name} exists") from error
            except (coord.ConnectionLossError, coord.NotConnectedError):
                lost = True
                await trio.sleep(RETRY_DELAY_S)

    async def claim(self, name: TopicName, record: TopicRecord, version: int) -> int:
        """Writes a record with a new owner and epoch, and the epoch node with it; returns the new version.

        Raises:
            ConflictError: the record is not at `version` any more.
        """
        return await self._write(name, record, version, with_epoch=True)

    async def write(self, name: TopicName, record: TopicRecord, version: int) -> int:
        """Writes a record of the same epoch; returns and raises as `claim`."""
        return await self._write(name, record, version, with_epoch=False)

    async def _write(self, name: TopicName, record: TopicRecord, version: int, *, with_epoch: bool) -> int:
        data = encode_record(record)
        lost = False
        while True:
            try:
                if not with_epoch:
                    return (await self._zk.set(name.path, data, version)).version
                epoch = str(record.epoch).encode()
                await self._zk.multi(
                    [
                        coord.SetData(name.path, data, version),
                        coord.SetData(name.epoch_path, epoch, record.epoch - 2),
                    ]
                )
                return version + 1
            except (coord.BadVersionError, coord.NoNodeError) as error:
                # The conflict may be with our own write, whose answer was lost (P14).
                if lost and (stored := await self.read(name)) is not None and stored[0].landed(record):
                    return stored[1]
                raise ConflictError(f"{name} changed") from error
            except (coord.ConnectionLossError, coord.NotConnectedError):
                lost = True
                await trio.sleep(RETRY_DELAY_S)

    async def remove(self, name: TopicName, version: int) -> None:
        """Removes a deleted topic's record and all nodes below it.

        Raises:
            ConflictError: somebody else changed or removed it.
        """
        while True:
            try:
                below = await self._children(name.subscriptions_path)
                await self._zk.multi(
                    [
                        *(coord.Delete(name.subscription_path(child)) for child in below),
                        coord.Delete(name.subscriptions_path),
                        coord.Delete(name.epoch_path),
                        coord.Delete(name.path, version),
                    ]
                )
                return
            except (coord.BadVersionError, coord.NoNodeError) as error:
                raise ConflictError(f"{name} changed") from error
            except coord.NotEmptyError:
                continue
            except (coord.ConnectionLossError, coord.NotConnectedError):
                await trio.sleep(RETRY_DELAY_S)

    # -- subscriptions
    # -----------------------------------------------------------------------------------------------

    async def subscriptions(self, name: TopicName) -> dict[str, SubscriptionRecord]:
        """All subscriptions of a topic.

        Raises:
            RecordError: one of them is damaged.
        """
        found: dict[str, SubscriptionRecord] = {}

        async def fetch(child: str) -> None:
            path = name.subscription_path(child)
            while True:
                try:
                    data, _ = await self._zk.get(path)
                except coord.NoNodeError:
                    return
                except (coord.ConnectionLossError, coord.NotConnectedError):
                    await trio.sleep(RETRY_DELAY_S)
                    continue
                found[child] = decode_subscription(data or b"", path)
                return

        children = await self._children(name.subscriptions_path)
        for start in range(0, len(children), LISTING_TASKS_MAX):
            async with trio.open_nursery() as nursery:
                for child in children[start : start + LISTING_TASKS_MAX]:
                    nursery.start_soon(fetch, child)
        return found

    async def add_subscription(
        self, name: TopicName, epoch: int, subscription: str, record: SubscriptionRecord
    ) -> None:
        """Creates a subscription's node, as the owner of `epoch` (P10).

        Raises:
            ConflictError: not the owner any more, or the node exists.
        """
        path = name.subscription_path(subscription)
        lost = False
        while True:
            try:
                await self._zk.multi(
                    [
                        coord.Check(name.epoch_path, epoch - 1),
                        coord.Create(path, encode_subscription(record)),
                    ]
                )
                return
            except coord.NodeExistsError as error:
                if lost:
                    data, _ = await self._zk.get(path)
                    if decode_subscription(data or b"", path).incarnation == record.incarnation:
                        return
                raise ConflictError(f"{path} exists") from error
            except (coord.BadVersionError, coord.NoNodeError) as error:
                raise ConflictError(f"{name} has another owner") from error
            except (coord.ConnectionLossError, coord.NotConnectedError):
                lost = True
                await trio.sleep(RETRY_DELAY_S)

    async def remove_subscription(self, name: TopicName, epoch: int, subscription: str) -> None:
        """Removes a subscription's node, as the owner of `epoch`; one that is gone counts as removed.

        Raises:
            ConflictError: not the owner any more.
        """
        path = name.subscription_path(subscription)
        while True:
            try:
                await self._zk.multi([coord.Check(name.epoch_path, epoch - 1), coord.Delete(path)])
                return
            except coord.BadVersionError as error:
                raise ConflictError(f"{name} has another owner") from error
            except coord.NoNodeError as error:
                if await self._zk.exists(name.epoch_path) is None:
                    raise ConflictError(f"{name} is gone") from error
                return
            except (coord.ConnectionLossError, coord.NotConnectedError):
                await trio.sleep(RETRY_DELAY_S)

    # -- paths
    # -------------------------------------------------------------------------------------------------------

    async def _children(self, path: str) -> list[str]:
        while True:
            try:
                return await self._zk.get_children(path)
            except coord.NoNodeError:
                return []
            except (coord.ConnectionLossError, coord.NotConnectedError):
                await trio.sleep(RETRY_DELAY_S)

    async def _ensure_parents(self, path: str) -> None:
        parts = path.split("/")
        for end in range(2, len(parts)):
            await self._ensure("/".join(parts[:end]))

    async def _ensure(self, path: str) -> None:
        while True:
            try:
                await self._zk.create(path)
            except coord.NodeExistsError:
                return
            except (coord.ConnectionLossError, coord.NotConnectedError):
                await trio.sleep(RETRY_DELAY_S)
                continue
            return


async def list_topics(zk: coord.Client) -> list[str]:
    """The names of all topics, sorted; walks the buckets with bounded concurrency."""
    paths = [TOPICS_PATH]
    for _ in range(5):
        below: list[str] = []

        async def list_one(path: str, below: list[str] = below) -> None:
            try:
                below.extend(f"{path}/{child}" for child in await zk.get_children(path))
            except coord.NoNodeError:
                pass

        for start in range(0, len(paths), LISTING_TASKS_MAX):
            async with trio.open_nursery() as nursery:
                for path in paths[start : start + LISTING_TASKS_MAX]:
                    nursery.start_soon(list_one, path)
        paths = below
    names = []
    for path in paths:
        tenant, namespace, _, _, topic = path.removeprefix(TOPICS_PATH + "/").split("/")
        names.append(str(parse_topic(f"{tenant}/{namespace}/{topic}")))
    return sorted(names)


async def create_topic(
    zk: coord.Client, name: TopicName, topic_id: bytes, now_ms: int, properties: dict[str, str]
) -> None:
    """Creates a topic without an owner; the first hub that is asked for it acquires it.

    Raises:
        TopicExistsError: it exists.
    """
    record = TopicRecord(topic_id, epoch=1, created_ms=now_ms, properties=properties)
    try:
        await TopicStore(zk).create(name, record)
    except ConflictError as error:
        raise TopicExistsError(f"topic {name} exists") from error
