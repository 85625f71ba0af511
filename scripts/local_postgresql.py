"""A PostgreSQL server of one's own: in a temporary folder, on loopback, gone at the end."""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["find_binaries", "local_postgresql"]

_USER = "evomerge"
_DEBIAN = Path("/usr/lib/postgresql")


def find_binaries() -> Path | None:
    """Return the folder of ``initdb`` and ``pg_ctl``, or None where there is no server.

    Debian's package keeps them out of the path, a folder a version.
    """
    versions = sorted(_DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    for folder in (*folders, *versions):
        if all((folder / name).is_file() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    return None


@contextlib.contextmanager
def local_postgresql() -> Iterator[str]:
    """Start a server and give the URL of a database that only this process knows the password of.

    The server never runs as root, which it refuses: then it is the system's user ``postgres`` or
    ``nobody``.

    Raises:
        RuntimeError: if there is no server, or it does not start.
    """
    binaries = find_binaries()
    if binaries is None:
        raise RuntimeError("no PostgreSQL server: apt-get install postgresql")
    owner = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="evomerge-postgresql-"))
    try:
        secret, data, log = folder / "password", folder / "data", folder / "log"
        secret.write_text(password := secrets.token_hex(16))
        secret.chmod(0o600)
        if owner is not None:
            for path in (folder, secret):
                shutil.chown(path, owner)

        def call(name: str, *arguments: str | Path) -> None:
            command = [str(binaries / name), *map(str, arguments)]
            done = subprocess.run(
                command, user=owner, cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode:
                said = (done.stderr or done.stdout).strip()
                raise RuntimeError(f"{name} failed: {said}")

        auth = ("--username", _USER, "--pwfile", secret, "--auth", "scram-sha-256")
        call("initdb", "--pgdata", data, *auth, "--encoding", "UTF8", "--no-locale", "--no-sync")
        port = _free_port()
        options = f"-h 127.0.0.1 -p {port} -c unix_socket_directories=''"
        call("pg_ctl", "start", "--pgdata", data, "--log", log, "--wait", "--options", options)
        try:
            yield f"postgresql://{_USER}:{password}@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "stop", "--pgdata", data, "--mode", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> str | None:
    """Return the user that the server runs as, or None for the one who asks."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
