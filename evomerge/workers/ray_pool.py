"""Workers as Ray actors: one process a device, replaced when it dies."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evomerge.errors import EvaluationError, EvomergeError, PrerequisiteError
from evomerge.workers.assignment import Assignment, Failed, Outcome, Sloped, WorkerInfo, WorkerSpec
from evomerge.workers.pool import PoolInfo

__all__ = ["RayPool"]

_ATTEMPTS = 3
_log = logging.getLogger(__name__)


class _Actor:
    """The actor's class: a worker whose start gives a message in the place of a traceback."""

    def __init__(self, spec: WorkerSpec, cores: int, directory: str) -> None:
        import dataclasses

        import torch

        # Relative paths mean what they mean to the driver, on every node that has its folder.
        if Path(directory).is_dir():
            os.chdir(directory)

        # Ray sets OMP_NUM_THREADS to the actor's share; torch has read it when it was imported.
        torch.set_num_threads(max(cores, 1))
        self._spec = dataclasses.replace(spec, max_threads=max(cores, 1))
        self._worker: Any = None

    def start(self) -> WorkerInfo | str:
        from evomerge.workers.worker import Worker

        try:
            self._worker = Worker(self._spec)
        except EvomergeError as error:
            return str(error)
        info: WorkerInfo = self._worker.info
        return info

    def evaluate(self, assignment: Assignment) -> Outcome | Sloped:
        outcome: Outcome | Sloped = self._worker.evaluate(assignment)
        return outcome


class RayPool:
    """Ray actors, one a device.

    On a machine without a GPU the workers share the cores. An actor that dies is replaced and its
    assignment is given out again, up to three times in all; then it is a failed trial.

    Args:
        spec: What every worker loads.
        workers: Number of actors.
        address: A running cluster, or None for one on this machine that ends with the pool.

    Raises:
        EvomergeError: if a worker cannot load its models or tasks, or the cluster is out of reach.
    """

    def __init__(self, spec: WorkerSpec, *, workers: int, address: str | None = None) -> None:
        started = time.perf_counter()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if address is not None:
            _check_reachable(address)
            _use_token(address)
        import ray

        self._ray = ray
        self._spec = spec
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Assignment, int]] = {}
        self._waiting: list[tuple[Assignment, int]] = []
        cores = os.cpu_count() or 1
        self._cores = max(cores // workers, 1)
        self._gpus = float(spec.num_gpus)
        self._connect(address, workers)
        try:
            actors = [self._spawn() for _ in range(workers)]
            infos = [self._started(actor.start.remote()) for actor in actors]
        except BaseException:
            self.close()
            raise
        self._idle = actors
        self.info = PoolInfo.of(workers, infos[0], time.perf_counter() - started)

    def num_free(self) -> int:
        """Return the number of idle actors that no repeated assignment waits for."""
        return max(len(self._idle) - len(self._waiting), 0)

    def num_busy(self) -> int:
        """Return the number of assignments under way."""
        return len(self._busy) + len(self._waiting)

    def submit(self, assignment: Assignment) -> None:
        """Give the assignment to an idle actor."""
        if not self.num_free():
            raise RuntimeError(f"all {self.info.workers} workers are busy: wait first")
        self._start(assignment, attempt=1)

    def wait(self) -> Outcome | Sloped:
        """Return the next outcome; replace actors that died and repeat what they had."""
        while self.num_busy():
            while self._waiting and self._idle:
                assignment, attempt = self._waiting.pop(0)
                self._start(assignment, attempt)
            ready, _ = self._ray.wait(list(self._busy), num_returns=1)
            actor, assignment, attempt = self._busy.pop(ready[0])
            try:
                outcome: Outcome | Sloped = self._ray.get(ready[0])
            except self._ray.exceptions.RayActorError:
                _log.warning("a worker died in trial %d; it is replaced", assignment.number)
                self._replace()
                if attempt < _ATTEMPTS:
                    self._waiting.append((assignment, attempt + 1))
                    continue
                reason = f"the worker process died {_ATTEMPTS} times in this trial"
                return Failed(assignment.number, assignment.split, reason)
            except self._ray.exceptions.RayError as error:
                self._idle.append(actor)
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
                return Failed(assignment.number, assignment.split, reason)
            self._idle.append(actor)
            return outcome
        raise RuntimeError("nothing is under way")

    def close(self) -> None:
        """Stop the actors, and the cluster if it was started here."""
        if self._ray.is_initialized():
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self, address: str | None, workers: int) -> None:
        # Ray takes SIGTERM for itself, and ends with the stack of its C++ part.
        sigterm = signal.getsignal(signal.SIGTERM)
        self._join(address, workers)
        if sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, sigterm)
        gpus = self._ray.cluster_resources().get("GPU", 0.0)
        wanted = workers * self._gpus
        if wanted > gpus:
            self.close()
            raise PrerequisiteError(
                f"{workers} workers on {self._spec.device!r} want {wanted:g} GPUs, the Ray cluster "
                f"has {gpus:g}; use fewer --workers or --device cpu"
            )

    def _join(self, address: str | None, workers: int) -> None:
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address is None:
            # "local": without an address Ray would join a cluster that somebody else started.
            self._ray.init(
                address="local",
                num_cpus=max(workers, os.cpu_count() or 1),
                include_dashboard=False,
                # Only scores travel through the object store.
                object_store_memory=100 * 2**20,
                **quiet,
            )
        else:
            try:
                self._ray.init(address=address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise PrerequisiteError(
                    f"--ray-address {address}: Ray could not join the cluster ({error}); the "
                    "cluster's versions of Python and Ray must be installed here"
                ) from error

    def _spawn(self) -> Any:
        options = {"num_cpus": 1, "num_gpus": self._gpus, "max_restarts": 0}
        return (
            self._ray.remote(_Actor)
            .options(**options)
            .remote(self._spec, self._cores, str(Path.cwd()))
        )

    def _started(self, reference: Any) -> WorkerInfo:
        try:
            info = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise EvaluationError(f"a worker did not start: {lines[-1].strip()}") from error
        if isinstance(info, str):
            raise EvaluationError(info)
        result: WorkerInfo = info
        return result

    def _replace(self) -> None:
        actor = self._spawn()
        self._started(actor.start.remote())
        self._idle.append(actor)

    def _start(self, assignment: Assignment, attempt: int) -> None:
        actor = self._idle.pop(0)
        self._busy[actor.evaluate.remote(assignment)] = (actor, assignment, attempt)


def _check_reachable(address: str) -> None:
    """Raise at once where nothing listens: Ray itself tries for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise PrerequisiteError(
            f"--ray-address {address}: want host:port of the head node (the port of 'ray start "
            "--head --port=6379'), or 'auto' for the cluster that this machine is part of"
        )
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise PrerequisiteError(
            f"--ray-address {address}: nothing answers there ({error}); start a cluster with "
            f"'ray start --head --port={port}', or leave the option out to use this machine"
        ) from error


def _use_token(address: str) -> None:
    """Present this user's token to a cluster that wants one, and only to such.

    `ray start` turns token authentication on by itself, a driver does not (Ray 2.60,
    https://docs.ray.io/en/latest/ray-security/token-auth.html); with a token that the cluster does
    not want, no actor starts. Ray asks for minutes before it gives up, so `ray status` asks first.
    """
    if not _is_refused(address):
        return
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        if not _is_refused(address):
            return
    raise PrerequisiteError(
        f"--ray-address {address}: the cluster wants its token; copy ~/.ray/auth_token from its "
        "head node to this machine, or set RAY_AUTH_TOKEN to its text"
    )


def _is_refused(address: str) -> bool:
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, the user's own address
            command, capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode != 0 and "AuthenticationError" in done.stderr + done.stdout
