"""The HTTP API: FastAPI on the door. Nothing here knows how the database is spoken to."""
