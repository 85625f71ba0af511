"""Where studies are kept: any Optuna storage, by its URL."""

import sqlite3
import weakref
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from evomerge.errors import PrerequisiteError, StudyError

__all__ = ["open_storage", "without_password"]

optuna.logging.set_verbosity(optuna.logging.ERROR)

_SQLITE = "sqlite:///"
_POSTGRESQL = "postgresql://"
_WAY_OUT = "give a SQLAlchemy URL such as sqlite:///runs/study.db or postgresql://user@host/name"


def open_storage(url: str, *, create: bool = True) -> BaseStorage:
    """Open an Optuna storage.

    Args:
        url: A SQLAlchemy URL (``sqlite:///…``, ``postgresql://…``) or the path of a journal file
            that ends in ``.log``. PostgreSQL is spoken to by psycopg unless the URL names another
            driver.
        create: Make its file or its tables where there are none.

    Raises:
        StudyError: if it cannot be opened, or is not there and may not be made.
        PrerequisiteError: if the database's driver is not installed.
    """
    try:
        shown = without_password(url)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        # Not shown: what cannot be taken apart may hold a password anywhere.
        raise StudyError(f"--storage: cannot be read as a URL; {_WAY_OUT}") from error
    if url.startswith(_POSTGRESQL):
        url = f"postgresql+psycopg://{url.removeprefix(_POSTGRESQL)}"
    try:
        storage = _open(url) if create or _is_there(url) else None
    except ImportError as error:
        raise PrerequisiteError(
            f"--storage {shown}: the database's driver is not installed; for PostgreSQL: "
            "pip install 'evomerge[postgresql]'"
        ) from error
    except Exception as error:
        # SQLAlchemy, its drivers and Optuna raise errors of a dozen unrelated classes here.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StudyError(
            f"--storage {shown}: cannot be opened: {first}; {_WAY_OUT}, and PostgreSQL's password "
            "in PGPASSWORD or ~/.pgpass"
        ) from error
    if storage is None:
        raise StudyError(
            f"{shown}: there is no study here; 'evomerge run' begins one, and "
            "run.json in the run directory says where it was kept"
        )
    return storage


def _open(url: str) -> BaseStorage:
    if _is_journal(url):
        return JournalStorage(JournalFileBackend(url))
    options = {}
    if url.startswith(_SQLITE):
        path = url.removeprefix(_SQLITE)
        options["creator"] = lambda: _connect_sqlite(path)
    # Optuna fills in what stands in braces, and a folder's name may have some.
    escaped = url.replace("{", "{{").replace("}", "}}")
    storage = RDBStorage(escaped, engine_kwargs=options)
    if storage.engine.dialect.name == "postgresql":
        sqlalchemy.event.listen(storage.engine, "connect", _ease_postgresql)
        storage.engine.dispose()  # what is connected already was not asked
    # Optuna leaves its connections open.
    weakref.finalize(storage, storage.engine.dispose)
    return storage


def _is_journal(url: str) -> bool:
    return "://" not in url and url.endswith(".log")


def _is_there(url: str) -> bool:
    """Return whether a storage holds a study, without making or changing anything."""
    if _is_journal(url):
        return Path(url).is_file()
    address = sqlalchemy.make_url(url)
    file = address.database if address.get_backend_name() == "sqlite" else None
    if file is not None and not Path(file).is_file():
        return False  # to connect would make it
    engine = sqlalchemy.create_engine(address)
    try:
        return sqlalchemy.inspect(engine).has_table("studies")
    finally:
        engine.dispose()


def _connect_sqlite(path: str) -> sqlite3.Connection:
    """Connect so that a commit survives the death of any process without waiting for the disk.

    With a write-ahead log the file is consistent after a power cut too, which may then cost the
    last few commits; the default would flush the disk twice a commit.
    """
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _ease_postgresql(connection: Any, _record: Any) -> None:
    """Do as with SQLite: a crash of the server may cost the last half second of commits.

    The death of any process that is a client costs nothing.
    """
    cursor = connection.cursor()
    cursor.execute("SET synchronous_commit = off")
    cursor.close()
    connection.commit()


def without_password(url: str) -> str:
    """Return a storage's URL as it may be written down or shown."""
    if "://" not in url:
        return url
    full = sqlalchemy.make_url(url)
    place = (full.host, full.port, full.database, full.query)
    bare = sqlalchemy.URL.create(full.drivername, full.username, None, *place)
    return bare.render_as_string(hide_password=False)
