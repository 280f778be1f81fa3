"""Why the store refuses or cannot answer; the code is what the client gets to see (spec 15.1)."""

from bookie.ledger.wire import Code


class RefusedError(Exception):
    """A request that was not carried out and has changed nothing (R-B12)."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class StoreDamagedError(Exception):
    """The data directory cannot be served from: an operator must decide. Nothing was changed."""
