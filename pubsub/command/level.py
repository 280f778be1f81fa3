"""`zoolog coord feature-level N`: raises what an ensemble may use, once all its servers know it."""

import click
import trio

import coord
from pubsub.command.options import coord_option

CHECKPOINT_SECONDS_MAX = 300.0
ASK_AGAIN_SECONDS = 0.2


@click.command("feature-level")
@click.argument("level", type=click.IntRange(1))
@coord_option
@click.option(
    "--auth", metavar="USER:PASSWORD", required=True, help="A user who may write /zookeeper/config."
)
def raise_feature_level(level: int, hosts: str, auth: str) -> None:
    """Let the ensemble use what releases of feature level LEVEL and later know.

    All members must run such a release and be synchronized. A checkpoint is made first. There is no way down:
    an older release does not start on the state any more.
    """
    try:
        trio.run(_raise, hosts, auth, level, strict_exception_groups=True)
    except* coord.NewConfigNoQuorumError:
        raise click.ClickException(
            f"not all members are synchronized and know feature level {level}"
        ) from None
    except* coord.BadArgumentsError:
        raise click.ClickException(f"the ensemble is at a higher feature level than {level}") from None
    except* coord.NoAuthError:
        raise click.ClickException("this user may not write /zookeeper/config") from None
    except* trio.TooSlowError:
        raise click.ClickException(
            f"no checkpoint in {CHECKPOINT_SECONDS_MAX:.0f} s; look at dataDir"
        ) from None
    click.echo(f"feature level {level}")


async def _raise(hosts: str, auth: str, level: int) -> None:
    async with coord.connect(hosts, auth=[("digest", auth)]) as client:
        with trio.fail_after(CHECKPOINT_SECONDS_MAX):
            while True:
                try:
                    await client.reconfig(members=[f"feature.level={level}"])
                    return
                except coord.ReconfigInProgressError:  # the checkpoint is being made
                    await trio.sleep(ASK_AGAIN_SECONDS)
