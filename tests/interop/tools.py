"""What tests with other people's software need: tools looked up, artefacts fetched once into a cache.

Nothing here fails a test because a tool or the network is missing: it skips, and says what was missing.
The cache is `$ZOOLOG_TEST_CACHE`, by default `~/.cache/zoolog-tests`; a folder in it is complete or absent.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("ZOOLOG_TEST_CACHE") or Path.home() / ".cache" / "zoolog-tests")
FETCH_SECONDS_MAX = 50.0
"""No download or build takes longer; what does is skipped. Two processes of a run may try one after the
other, within the time after which a test counts as hung.
"""
_missing: list[str] = []
"""Why the first download of this run failed; no other is tried then."""


def need(*programs: str) -> None:
    """Skips the test where one of the programs is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def build_or_skip(arguments: Sequence[str], directory: Path) -> None:
    """Runs a compiler; a failure skips the test and quotes it."""
    failure = _failure_of(arguments, directory)
    if failure is not None:
        pytest.skip(failure)


def fetch_or_skip(arguments: Sequence[str], directory: Path) -> None:
    """Runs a program that downloads; a failure skips the test, and all that would need another download."""
    if not _missing:
        failure = _failure_of(arguments, directory)
        if failure is None:
            return
        _missing.append(failure)
    pytest.skip(f"no network, it seems: {_missing[0]}")


def _failure_of(arguments: Sequence[str], directory: Path) -> str | None:
    try:
        done = subprocess.run(
            arguments,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FETCH_SECONDS_MAX,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{arguments[0]}: {error}"
    return f"{arguments[0]}: {' '.join(done.stdout.split())[:200]}" if done.returncode else None


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache; where it is missing `make` fills one, which then gets the name.

    Whoever else wants it meanwhile, in this run or another, waits for it.
    """
    target = CACHE / name
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=CACHE))
        try:
            make(draft)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def fetch_jars(name: str, dependencies: Sequence[str]) -> Path:
    """A folder with the jars of each `group:artifact:version` and all that they need."""
    need("java", "mvn")

    def fetch(folder: Path) -> None:
        lines = [
            "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
                *one.split(":")
            )
            for one in dependencies
        ]
        pom = folder / "pom.xml"
        pom.write_text(
            '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
            "<groupId>zoolog</groupId><artifactId>tests</artifactId><version>1</version>"
            f"<dependencies>{''.join(lines)}</dependencies></project>"
        )
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        fetch_or_skip(["mvn", "-q", "-B", *goal], folder)

    return cached(name, fetch)
