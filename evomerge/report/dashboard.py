"""The Optuna dashboard, behind one function."""

from collections.abc import Sequence

from evomerge.errors import PrerequisiteError
from evomerge.report.readable_storage import ReadableStorage
from evomerge.search import open_storage
from evomerge.space import Dimension

__all__ = ["serve_dashboard"]


def serve_dashboard(
    storage_url: str, dimensions: Sequence[Dimension], *, host: str, port: int
) -> None:
    """Serve the dashboard until it is interrupted.

    Args:
        storage_url: Where the study is.
        dimensions: The searched values of its run.
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
    storage = ReadableStorage(open_storage(storage_url, create=False), dimensions)
    run_server(storage, host=host, port=port)
