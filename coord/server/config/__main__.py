"""`python -m coord.server.config docs/configuration.md`: writes the tables of all keys into the page."""

import sys
from pathlib import Path

from coord.server.config.table import page_with_tables

if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(page_with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
