"""Small libraries in C for tests and benchmarks, compiled where they are needed."""

import shutil
import subprocess
from pathlib import Path


def compile_library(source: Path, directory: Path) -> Path | None:
    """The library, in `directory`; None where there is no C compiler.

    Raises:
        CalledProcessError: the source is wrong; the compiler has said how on standard error.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = directory / f"{source.stem}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-w", "-o", library, source], check=True)
    return library
