"""Every snippet of docs/client.md and docs/recipes.md runs as it stands, against a real server."""

import re
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

import coord
from tests.coord_servers import ROOT, CoordServers

PAGE = "".join((ROOT / "docs" / name).read_text() for name in ("client.md", "recipes.md"))
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
HOLD_S = 60.0


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with CoordServers(Path(tmp_path_factory.mktemp("page"))) as servers:
        yield servers.hosts


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0][:60])
async def test_a_snippet_runs_and_leaves_nothing_behind(hosts: str, snippet: str) -> None:
    names: dict[str, Callable[[str], Awaitable[None]]] = {}
    exec(f"async def run(hosts):\n{textwrap.indent(snippet, '    ')}", {"coord": coord, "trio": trio}, names)
    with trio.fail_after(HOLD_S):
        await names["run"](hosts)
        async with coord.connect(hosts) as zk:
            assert await zk.get_children("/") == ["zookeeper"]


def test_the_pages_have_their_snippets() -> None:
    assert len(SNIPPETS) >= 14
    assert PAGE.count("```python") == len(SNIPPETS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`coord\.([A-Za-z_]+)[`(]", PAGE))))
def test_what_the_page_names_exists(name: str) -> None:
    assert hasattr(coord, name)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`zk\.([a-z_]+)", PAGE))))
def test_the_calls_that_the_page_names_exist(name: str) -> None:
    assert hasattr(coord.Client, name)
