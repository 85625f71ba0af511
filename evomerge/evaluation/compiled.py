"""Compiled forward passes, by ``torch.compile``.

Imports torch and, with the first function called, its compiler; who has no use for them does not
import this module.
"""

import functools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from evomerge.errors import EvaluationError, PrerequisiteError

__all__ = ["check_compiler", "compile_forward", "uncompiled"]

_log = logging.getLogger(__name__)

MOST_KINDS = 32
"""Kinds of calls that may be compiled; others run uncompiled, with a warning of torch.

Every size is a variable, but code is made for each kind of call: log-likelihoods, and the first,
the second and the later steps of a generation, with and without padding, and all of these for one
sequence and for several. torch's own limit of 8 is for programs that compile by accident.
"""

_MOST_LETTERS = 300


def check_compiler(device: str) -> None:
    """Check that code can be compiled for a device, by compiling one line.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …

    Raises:
        PrerequisiteError: saying what is missing.
    """

    def line(x: torch.Tensor) -> torch.Tensor:
        return (x.sin() + 1).sum()

    compiled: Callable[..., torch.Tensor] = torch.compile(line)
    try:
        compiled(torch.ones(8, device=device))
    except Exception as exc:
        needs = "Triton and a C compiler" if device.startswith("cuda") else "a C++ compiler"
        raise PrerequisiteError(
            f"evaluation.compile needs {needs}, and compiling one line for {device!r} failed: "
            f"{_reason(exc)}; install it (another than g++ is named by the variable CXX), or leave "
            "evaluation.compile out"
        ) from exc


def compile_forward(model: "torch.nn.Module") -> None:
    """Let a model's forward passes run compiled from now on.

    Each kind of call is compiled when it first comes, and then serves whatever values the
    parameters have and however long and many the sequences are. Hooks of the model itself run as
    before.

    Args:
        model: A transformers model, built and frozen. Its ``forward`` raises an EvaluationError if
            it cannot be compiled.
    """
    from torch._dynamo import config
    from torch._dynamo.exc import TorchDynamoException

    config.recompile_limit = max(config.recompile_limit, MOST_KINDS)
    _log.info("forward passes are compiled as they come: the first candidate takes longer")
    name = type(model).__name__
    compiled: Callable[..., Any] = torch.compile(model.forward, dynamic=True)

    @functools.wraps(model.forward)
    def forward(*arguments: Any, **options: Any) -> Any:
        try:
            return compiled(*arguments, **options)
        except TorchDynamoException as exc:
            raise EvaluationError(
                f"{name} cannot be compiled: {_reason(exc)}; leave evaluation.compile out"
            ) from exc

    model.forward = forward


def uncompiled() -> AbstractContextManager[None]:
    """Run what is compiled as it was written, inside."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def _reason(exc: Exception) -> str:
    """Return what torch says, without its advice to its own developers."""
    text = " ".join(str(exc).partition("\n\nSet TORCHDYNAMO_VERBOSE")[0].split())
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} …"
