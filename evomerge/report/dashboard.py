"""The Optuna dashboard, behind one function."""

from evomerge.errors import PrerequisiteError
from evomerge.report.readable_storage import ReadableStorage
from evomerge.search import Study

__all__ = ["serve_dashboard"]


def serve_dashboard(study: Study, *, host: str, port: int) -> None:
    """Serve the dashboard until it is interrupted.

    Args:
        study: What is shown, with the other studies of its storage.
        host: Address to listen on.
        port: Port to listen on.

    Raises:
        PrerequisiteError: if optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import run_server
    except ImportError as error:
        raise PrerequisiteError(
            "the dashboard is an extra: pip install 'evomerge[dashboard]'"
        ) from error
    run_server(ReadableStorage(study), host=host, port=port)
