"""The vLLM backend: one engine whose weights are replaced between candidates."""

import contextlib
import dataclasses
import gc
import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.errors import EvaluationError, EvomergeError, PrerequisiteError, nearest
from evomerge.evaluation.lm_eval_generation import check_gen_kwargs
from evomerge.evaluation.lm_eval_requests import quiet
from evomerge.evaluation.settings import EvaluationSettings

if TYPE_CHECKING:
    import torch

__all__ = ["VllmModel", "check_vllm"]

_ENVIRONMENT = {
    # Requests reach an engine in this process in the same batches each time, so the same candidate
    # has the same bits each time. With "1" vLLM runs in a process of its own.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def check_vllm(settings: EvaluationSettings, device: str) -> None:
    """Check what can be checked before an engine starts.

    Args:
        settings: Whose options vLLM gets.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        PrerequisiteError: if vLLM is not installed, or is built for another device.
        EvaluationError: if vLLM has no option of a name, for its engine or for generation.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if find_spec("vllm") is None:
        raise PrerequisiteError(
            "evaluation.backend: vllm needs vLLM, which is not installed; "
            "pip install 'evomerge[vllm]', or set backend: hf"
        )
    with _silence():
        from vllm import EngineArgs
        from vllm.platforms import current_platform
    kind, _, index = device.partition(":")
    if index:
        raise PrerequisiteError(
            f"--device {device}: vLLM takes the first GPUs that it sees; choose them with "
            f"CUDA_VISIBLE_DEVICES={index} and --device {kind}"
        )
    if kind != current_platform.device_type:
        raise PrerequisiteError(
            f"--device {device}: the installed vLLM runs on {current_platform.device_type!r}; "
            "use that device, or install vLLM's build for this one"
        )
    known = [field.name for field in dataclasses.fields(EngineArgs)]
    if unknown := [name for name in settings.vllm if name not in known]:
        raise EvaluationError(
            f"evaluation.vllm: vLLM's engine has no option {unknown[0]!r}; "
            f"{nearest(unknown[0], known)}"
        )
    check_gen_kwargs(settings)


class VllmModel:
    """A vLLM engine with lm-eval around it.

    Args:
        folder: The model's config, tokenizer and weights; no longer needed once this has returned.
        settings: Engine options and maximal length.
        dtype: What the engine computes in.
        extension: Import path of the class that vLLM mixes into its workers.

    Attributes:
        lm: The engine for lm-eval.
        broken: Whether something went wrong in a way that may have left requests or half-loaded
            weights behind; such an engine must be closed.
        dirty: Whether numbers that are not finite may be in the engine's caches.

    Raises:
        EvaluationError: if the engine does not start.
    """

    def __init__(
        self, folder: Path, *, settings: EvaluationSettings, dtype: "torch.dtype", extension: str
    ) -> None:
        with _silence():
            from evomerge.evaluation.lm_eval_vllm import ResidentVLLM

        self.broken = False
        self.dirty = False
        options: dict[str, Any] = {"use_tqdm_on_load": False, **settings.vllm}
        options.setdefault("max_model_len", settings.max_length)
        try:
            with _silence():
                self.lm = ResidentVLLM(
                    pretrained=str(folder),
                    dtype=str(dtype).removeprefix("torch."),
                    seed=0,
                    sampling_seed=int(settings.lm_eval.get("torch_random_seed", 0)),
                    chat_template=settings.chat_template,
                    worker_extension_cls=extension,
                    **settings.model_args,
                    **options,
                )
        except Exception as exc:
            _release()
            raise EvaluationError(_why(exc)) from exc

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of the extension in every worker of the engine.

        Args:
            method: Its name.
            arguments: Plain data.

        Returns:
            What each worker returned.
        """
        try:
            results: list[Any] = self.lm.engine.collective_rpc(method, args=arguments)
        except BaseException:
            self.broken = True
            raise
        return results

    def forget(self) -> None:
        """Forget what was computed with other weights.

        Raises:
            EvaluationError: if requests are left in the engine.
        """
        if not self.lm.engine.reset_prefix_cache():
            self.broken = True
            raise EvaluationError("vLLM still works on requests of the previous candidate")

    def shrink_batch(self) -> bool:
        """Return False: vLLM makes its batches itself."""
        return False

    @contextlib.contextmanager
    def scoring(self) -> Iterator[None]:
        """Ask the engine inside.

        Raises:
            EvaluationError: if a token was chosen from logits that are not finite.
        """
        try:
            yield
        except EvomergeError:
            self.dirty = True
            raise
        except BaseException:
            self.broken = True
            raise

    def close(self) -> None:
        """Stop the engine and free its memory."""
        self.broken = True
        engine = self.lm.engine.llm_engine.engine_core
        del self.lm
        with contextlib.suppress(Exception):  # a dead engine cannot be stopped again
            engine.shutdown()
        del engine
        _release()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep vLLM's notes and warnings about itself and torch from the user."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _release() -> None:
    """Free what an engine of this process held, so that another one can start."""
    from vllm.distributed import cleanup_dist_env_and_memory

    gc.collect()
    with _silence(), contextlib.suppress(Exception):
        cleanup_dist_env_and_memory()


def _why(exc: BaseException) -> str:
    text = " ".join(str(exc).split())
    return (
        f"vLLM did not start: {type(exc).__name__}: {text[:600]} (evaluation.vllm holds the "
        "engine's options; VLLM_LOGGING_LEVEL=INFO shows more)"
    )
