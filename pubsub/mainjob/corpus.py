"""The main job's input: every `.py` file of Python's standard library, its tests left out (about 10 MB)."""

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

#: Folders below the standard library that are not the library itself.
LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Corpus:
    """The input once as files and once as lines; either way the same bytes run together.

    Attributes:
        files: contents in order of their paths.
        lines: every line of every file, its newline kept.
        sha256: of all bytes run together.
    """

    files: list[bytes]
    lines: list[bytes]
    sha256: str

    @property
    def byte_count(self) -> int:
        return sum(map(len, self.files))


def load_corpus(root: Path | None = None) -> Corpus:
    """Reads the library of the running Python, or every `.py` file below `root`."""
    folder = root or Path(sysconfig.get_path("stdlib"))
    paths = sorted(
        path
        for path in folder.rglob("*.py")
        if not LEFT_OUT.intersection(path.relative_to(folder).parts) and path.is_file()
    )
    files = [data for data in (path.read_bytes() for path in paths) if data]
    lines = [line for data in files for line in data.splitlines(keepends=True)]
    return Corpus(files, lines, hashlib.sha256(b"".join(files)).hexdigest())
