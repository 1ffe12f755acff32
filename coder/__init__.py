"""coder: a PostgreSQL LISTEN/NOTIFY dispatcher for coding agents."""

__version__ = "0.1.0"
