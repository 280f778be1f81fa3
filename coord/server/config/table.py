"""The tables of keys in `docs/configuration.md`, made from the declarations.

`python -m coord.server.config docs/configuration.md` brings the page up to date; a test holds it there.
"""

import textwrap
from typing import Final

from coord.server.config.foreign import REFUSED, REFUSED_FAMILIES, WITHOUT_EFFECT
from coord.server.config.keys import Key, keys_of, sections_of
from coord.server.config.reading import known_keys
from coord.server.config.record import ServerConfig

BEGIN: Final = "<!-- keys: made by `python -m coord.server.config docs/configuration.md` -->\n"
END: Final = "<!-- end of keys -->\n"


def key_tables() -> str:
    """A heading and a table for each subject."""
    parts = [_table("The server", ServerConfig)]
    parts += [_table(_heading(record), record) for record in sections_of(ServerConfig).values()]
    return "\n".join([*(part for part in parts if part), _refused(), _without_effect()])


def page_with_tables(page: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{key_tables()}\n{END}{after}"


def _heading(record: type) -> str:
    return (record.__doc__ or record.__name__).splitlines()[0].rstrip(".")


def _table(heading: str, record: type) -> str:
    rows = [_row(one) for one in keys_of(record).values()]
    if not rows:
        return ""
    return "\n".join([f"### {heading}\n", "| key | default | meaning |", "|---|---|---|", *rows, ""])


def _row(one: Key) -> str:
    names = ", ".join(f"`{name}`" for name in (one.name + "*" * one.is_family, *one.aliases))
    return f"| {names} | {one.default} | {one.meaning} |".replace("  ", " ")


def _refused() -> str:
    """ZooKeeper's keys that are an error, unless their value asks for nothing."""
    families = {prefix + "*": refusal for prefix, refusal in REFUSED_FAMILIES.items()}
    rows = [
        f"| `{name}` | {refusal.reason} |"
        for name, refusal in sorted({**REFUSED, **families}.items())
        if name not in known_keys()
    ]
    return "\n".join(["### Refused", "", "| key | why, and what to do |", "|---|---|", *rows, ""])


def _without_effect() -> str:
    """ZooKeeper's keys that a warning names and nothing else happens for."""
    names = sorted(WITHOUT_EFFECT - set(known_keys()), key=str.lower)
    text = ", ".join(f"`{name}`" for name in names)
    return "### Without effect\n\n" + textwrap.fill(text, 120, break_on_hyphens=False) + "\n"
