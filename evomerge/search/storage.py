"""Where studies are kept: any Optuna storage, by its URL."""

import sqlite3
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from evomerge.errors import StudyError

__all__ = ["open_storage"]

optuna.logging.set_verbosity(optuna.logging.WARNING)

_SQLITE = "sqlite:///"


def open_storage(url: str, *, create: bool = True) -> BaseStorage:
    """Open an Optuna storage.

    Args:
        url: A SQLAlchemy URL (``sqlite:///…``, ``postgresql://…``) or the path of a journal file
            that ends in ``.log``.
        create: Make its file or its tables where there are none.

    Raises:
        StudyError: if it cannot be opened, or is not there and may not be made.
    """
    try:
        storage = _open(url) if create or _is_there(url) else None
    except Exception as error:
        # SQLAlchemy, its drivers and Optuna raise errors of a dozen unrelated classes here.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StudyError(
            f"--storage {_without_password(url)}: cannot be opened: {first}; give a SQLAlchemy URL "
            "such as sqlite:///runs/study.db or postgresql://user@host/name"
        ) from error
    if storage is None:
        raise StudyError(
            f"{_without_password(url)}: there is no study here; 'evomerge run' begins one, and "
            "run.json in the run directory says where it was kept"
        )
    return storage


def _open(url: str) -> BaseStorage:
    if _is_journal(url):
        return JournalStorage(JournalFileBackend(url))
    if url.startswith(_SQLITE):
        path = url.removeprefix(_SQLITE)
        return RDBStorage(url, engine_kwargs={"creator": lambda: _connect_sqlite(path)})
    return RDBStorage(url)


def _is_journal(url: str) -> bool:
    return "://" not in url and url.endswith(".log")


def _is_there(url: str) -> bool:
    """Return whether a storage holds a study, without making or changing anything."""
    if _is_journal(url):
        return Path(url).is_file()
    import sqlalchemy

    address = sqlalchemy.make_url(url)
    if address.get_backend_name() == "sqlite":
        # To connect would make the file.
        return address.database is not None and Path(address.database).is_file()
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


def _without_password(url: str) -> str:
    scheme, found, rest = url.partition("://")
    if not found or "@" not in rest:
        return url
    return f"{scheme}://…@{rest.rsplit('@', 1)[1]}"
