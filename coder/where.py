"""Where things of this installation are: the data directory, and the database.

Apart from `service.py`, so that a command of the command line does not load all that a service is made of.
"""

from __future__ import annotations

from pathlib import Path

from coder.config import Settings
from coder.errors import Unavailable
from coder.postgres.embedded import read_dsn


def data_dir(settings: Settings) -> Path:
    return settings.data_dir.expanduser().resolve()


def database_url(settings: Settings) -> str:
    """Where the database is: the configured one, or the embedded one that runs on the data directory.

    Raises:
        Unavailable: none is configured, and none runs.
    """
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    found = read_dsn(data_dir(settings))
    if found is None:
        raise Unavailable("No database is running; start coder with `bin/up`, or set CODER_DATABASE_URL.")
    return found
