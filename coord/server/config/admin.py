"""Keys of the HTTP admin server, metrics and four-letter words."""

from dataclasses import dataclass
from typing import Final

from coord.server.config.keys import count, key

SLOW_REQUEST_MS_DEFAULT: Final = 1000


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The operators' side."""

    slow_request_ms: int = key(
        "slowRequest.thresholdMs",
        count,
        SLOW_REQUEST_MS_DEFAULT,
        "a request that is answered later is named in the server's log, in ms; 0 names none",
    )
