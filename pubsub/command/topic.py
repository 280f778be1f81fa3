"""`zoolog topic`, `zoolog publish` and `zoolog subscribe`: topics from the shell."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

import click
import trio

import bookie
import pubsub
from pubsub.command.arrivals import Lines
from pubsub.command.options import ClientGroup, coord_option, json_option, print_facts
from pubsub.command.progress import Progress


def _run(hosts: str, action: Any) -> Any:
    async def call() -> Any:
        async with pubsub.connect(hosts) as bus:
            return await action(bus)

    return trio.run(call, strict_exception_groups=True)


def _check(rule: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str], str]:
    """A name that is not allowed is wrong usage, told before anything is connected to."""

    def check(ctx: click.Context, param: click.Parameter, value: str) -> str:
        try:
            rule(value)
        except pubsub.PubsubError as error:
            raise click.BadParameter(str(error), ctx, param) from error
        return value

    return check


topic_argument = click.argument("topic", callback=_check(pubsub.parse_topic))


@click.group("topic", cls=ClientGroup)
@coord_option
@click.pass_context
def topic_command(ctx: click.Context, hosts: str) -> None:
    """Create, list, describe and delete topics."""
    ctx.obj = hosts


@topic_command.command("create")
@topic_argument
@click.pass_obj
def create(hosts: str, topic: str) -> None:
    """Create a topic; publishing and subscribing create it too."""
    _run(hosts, lambda bus: bus.create_topic(topic))


@topic_command.command("list")
@json_option
@click.pass_obj
def list_topics(hosts: str, as_json: bool) -> None:
    """Print the names of all topics."""
    names = _run(hosts, lambda bus: bus.list_topics())
    if names or as_json:
        print_facts(names, as_json, "\n".join(names))


@topic_command.command("info")
@topic_argument
@json_option
@click.pass_obj
def info(hosts: str, topic: str, as_json: bool) -> None:
    """Print a topic's owner, last message, ledgers and subscriptions."""
    facts = dataclasses.asdict(_run(hosts, lambda bus: bus.topic_info(topic)))
    rows = [f"{name:12} {value}" for name, value in facts.items() if not isinstance(value, list | tuple)]
    for name, values in facts.items():
        if isinstance(values, list | tuple):
            rows += [f"{name:12} " + ", ".join(f"{key} {v}" for key, v in value.items()) for value in values]
    print_facts(facts, as_json, "\n".join(rows))


@topic_command.command("delete")
@topic_argument
@click.option("--force", is_flag=True, help="Also with subscriptions.")
@click.pass_obj
def delete(hosts: str, topic: str, force: bool) -> None:
    """Delete a topic and its messages."""
    _run(hosts, lambda bus: bus.delete_topic(topic, force=force))


@click.command("publish")
@topic_argument
@click.argument("file", type=click.File("rb"), default="-")
@coord_option
def publish_command(topic: str, file: BinaryIO, hosts: str) -> None:
    """Publish each line of FILE or standard input as it comes; done when all messages are acknowledged."""

    async def action(bus: pubsub.Bus) -> None:
        with Progress("messages published") as progress:
            arriving = Lines(file, bookie.ENTRY_BYTES_MAX)
            while lines := await arriving.take():
                await bus.publish_many(topic, lines)
                progress.add(len(lines))

    _run(hosts, action)


@click.command("subscribe")
@topic_argument
@click.option(
    "--id",
    "subscription",
    required=True,
    metavar="NAME",
    callback=_check(pubsub.check_subscription),
    help="The subscription's name.",
)
@click.option(
    "--from",
    "start",
    type=click.Choice(["latest", "earliest"]),
    default="latest",
    show_default=True,
    help="Where a subscription that does not exist yet begins.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
@coord_option
def subscribe_command(
    topic: str, subscription: str, start: Literal["latest", "earliest"], count: int | None, hosts: str
) -> None:
    """Print messages, one a line; each is consumed after it was written to standard output."""

    async def action(bus: pubsub.Bus) -> None:
        left = count
        async with bus.subscribe(topic, subscription, from_=start) as messages:
            async for batch in messages.batches():
                payloads = batch.payloads if left is None else batch.payloads[:left]
                sys.stdout.buffer.write(b"".join(payload + b"\n" for payload in payloads))
                sys.stdout.buffer.flush()
                await messages.consume(batch.first + len(payloads) - 1)
                if left is not None:
                    left -= len(payloads)
                    if left == 0:
                        return

    _run(hosts, action)
