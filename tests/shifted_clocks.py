"""Servers whose wall clocks can be shifted while they run; the monotonic clock goes on, as it does when
somebody sets a machine's clock. (libfaketime would shift the ends of timed waits too, and make Python wait.)
"""

import os
import struct
from pathlib import Path

import pytest

from tests.coord_servers import CoordServer, CoordServers
from tests.shared_library import compile_library

SOURCE = r"""
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *shift_seconds;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_SHIFT_FILE"), O_RDONLY);
    void *mapped = mmap(0, sizeof *shift_seconds, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) abort();
    shift_seconds = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && clock == CLOCK_REALTIME && shift_seconds) now->tv_sec += *shift_seconds;
    return status;
}
"""
"""Preloaded into a server: it asks for the time by clock_gettime."""


def build_library(directory: Path) -> Path:
    """Skips the test where there is no C compiler."""
    source = directory / "shift.c"
    source.write_text(SOURCE)
    library = compile_library(source, directory)
    if library is None:
        pytest.skip("shifting a server's clock needs a C compiler")
    return library


class ShiftedServer(CoordServer):
    def __init__(self, directory: Path, sid: int, client_port: int, extra: str, library: Path) -> None:
        super().__init__(directory, sid, client_port, extra)
        self.library = library
        self.shift_path = directory / f"{sid}.shift"
        self.shift_path.write_bytes(bytes(8))

    def shift(self, seconds: int) -> None:
        """From now on the server's wall clock differs by so much from the machine's."""
        with open(self.shift_path, "r+b") as file:
            os.pwrite(file.fileno(), struct.pack("=q", seconds), 0)

    def command(self) -> list[str]:
        preload = [f"LD_PRELOAD={self.library}", f"CLOCK_SHIFT_FILE={self.shift_path}"]
        return ["env", *preload, *super().command()]


class ShiftedServers(CoordServers):
    def __init__(self, directory: Path, *, tick_ms: int, extra: str) -> None:
        self.library = build_library(directory)
        self.by_port: dict[int, ShiftedServer] = {}
        super().__init__(directory, 3, tick_ms=tick_ms, extra=extra)

    def make(self, directory: Path, sid: int, port: int, text: str) -> CoordServer:
        server = self.by_port[port] = ShiftedServer(directory, sid, port, text, self.library)
        return server
