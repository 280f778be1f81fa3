"""The bookie server: ledger requests over coord.rpc, on top of `bookie.storage`.

    await nursery.start(serve, BookieConfig(directory=Path("data"), coord="127.0.0.1:2181"))

One request through these files: `requests` (checked, decided), `bookie.storage.store` (accepted, logged), the
log's thread, `server` (its report), `requests` again (the answer).
"""

from bookie.server.config import BookieConfig
from bookie.server.cookie import IdentityError
from bookie.server.registration import RegistrationError
from bookie.server.server import RunningBookie, serve

__all__ = ["BookieConfig", "IdentityError", "RegistrationError", "RunningBookie", "serve"]
