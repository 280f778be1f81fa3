"""The table of metrics in `docs/metrics.md`, made from the declarations.

`python -m coord.server.metrictable docs/metrics.md` brings the page up to date; a test holds it there.
"""

import sys
from pathlib import Path
from typing import Final

from coord.server.metricnames import METRICS

BEGIN: Final = "<!-- metrics: made by `python -m coord.server.metrictable docs/metrics.md` -->\n"
END: Final = "<!-- end of metrics -->\n"


def metric_table() -> str:
    rows = [
        f"| `{one.name}` | {one.kind} | {one.meaning}{f' ({one.where} only)' if one.where else ''} |"
        for one in METRICS
    ]
    return "\n".join(["| metric | kind | meaning |", "|---|---|---|", *rows, ""])


def page_with_table(page: str) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{metric_table()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(page_with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
