"""The secret that the servers of one ensemble share."""

import os
import secrets
from pathlib import Path
from typing import Final

from coord.disk import RealDisk
from coord.server.config.keys import ConfigError

SECRET_BYTES_MIN: Final = 16
SECRET_FILE_NAME: Final = "ensemble.secret"


def read_ensemble_secret(path: str) -> bytes:
    """The secret in a file, without blanks at its ends.

    Raises:
        ConfigError: the file cannot be read, or holds too little.
    """
    try:
        secret = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"ensemble secret {path} cannot be read ({error.strerror or error}): put the same random text of "
            f"at least {SECRET_BYTES_MIN} bytes there on every server of the ensemble"
        ) from error
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"ensemble secret {path} has {len(secret)} bytes, expected at least {SECRET_BYTES_MIN}"
        )
    return secret


def write_ensemble_secret(path: str) -> bytes:
    """Writes a new random secret (64 hexadecimal digits) that only the owner may read; returns the secret.

    Durable when this returns.
    """
    secret = secrets.token_hex(32).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret + b"\n")
        file.flush()
        os.fsync(file.fileno())
    RealDisk().fsync_directory(os.path.dirname(path) or ".")
    return secret
