"""The Optuna dashboard, behind one function."""

from evomerge.errors import PrerequisiteError
from evomerge.search import open_storage

__all__ = ["serve_dashboard"]


def serve_dashboard(storage_url: str, *, host: str, port: int) -> None:
    """Serve the dashboard until it is interrupted.

    Raises:
        PrerequisiteError: if optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import run_server
    except ImportError as error:
        raise PrerequisiteError(
            "the dashboard is an extra: pip install 'evomerge[dashboard]'"
        ) from error
    run_server(open_storage(storage_url), host=host, port=port)
