import os

import trio

import coord


async def main() -> None:
    async with coord.connect(os.environ.get("ZOOLOG_COORD", "127.0.0.1:2181")) as zk:
        await coord.ensure_path(zk, "/app/workers")
        me = await zk.create("/app/workers/w-", b"here", ephemeral=True, sequential=True)
        print("I am", me, "among", await zk.get_children("/app/workers"))
        async with coord.lead(zk, "/app/leader") as leadership:
            print("I lead; my fencing token is", leadership.token)


trio.run(main)
