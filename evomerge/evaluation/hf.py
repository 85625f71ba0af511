"""The transformers backend: one live model whose parameters are overwritten in place."""

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.errors import EvaluationError
from evomerge.evaluation.dtypes import compute_dtype
from evomerge.evaluation.lm_eval_requests import quiet
from evomerge.evaluation.model import MemoryExhaustedError
from evomerge.evaluation.settings import EvaluationSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from evomerge.evaluation.lm_eval_model import ResidentLM

__all__ = ["LiveModel"]

_log = logging.getLogger(__name__)

CPU_BATCH = 64
GPU_BATCH = 256
SAMPLING_SEED = 0


class LiveModel:
    """A causal language model on one device, frozen, in eval mode, with lm-eval around it.

    It is built from a config alone: its weights are random until ``parameters_by_name`` have been
    overwritten.

    Args:
        config: The merged model's ``config.json`` as a dict.
        tokenizer: Folder of the tokenizer.
        settings: Batch size, dtype, maximal length, and whether forward passes are compiled.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …
        generation_config: The merged model's ``generation_config.json``, if it has one.

    Attributes:
        model: The transformers model.
        lm: The same for lm-eval.
        dtype: What it computes in.

    Raises:
        EvaluationError: if transformers does not know the architecture, or the tokenizer is not
            there or has no chat template of the name asked for.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer: Path | str,
        *,
        settings: EvaluationSettings,
        device: str = "cpu",
        generation_config: Mapping[str, Any] | None = None,
    ) -> None:
        import torch

        self.device = torch.device(device)
        self._named: dict[str, torch.Tensor] | None = None
        self.dtype = compute_dtype(settings.dtype, config, self.device.type)
        self._sampling_seed = int(settings.lm_eval.get("torch_random_seed", SAMPLING_SEED))
        with quiet():
            self.model = _build(config, self.dtype, self.device, generation_config)
            self.lm = _wrap(self.model, Path(tokenizer), settings, self.device)
        self._is_compiled = settings.compile
        if settings.compile:
            from evomerge.evaluation.compiled import compile_forward

            compile_forward(self.model)

    def parameters_by_name(self) -> dict[str, "torch.Tensor"]:
        """Return the live tensors under the names that the checkpoint uses.

        Writing into them in place changes what is scored. Persistent buffers are there too. Tied
        tensors appear under each of their names and share their memory: writing one is enough.

        Raises:
            EvaluationError: if transformers fuses the checkpoint's tensors in a way that leaves no
                view to write to.
        """
        from evomerge.evaluation.live_names import checkpoint_views

        if self._named is None:
            self._named = checkpoint_views(self.model)
        return dict(self._named)

    def check_names(self, names: Collection[str]) -> None:
        """Check that overwriting the tensors of these names leaves none with random values.

        Raises:
            EvaluationError: if a name is not one of the model's, or a tensor is not covered.
        """
        live = self.parameters_by_name()
        if unknown := [name for name in names if name not in live]:
            raise EvaluationError(
                f"{type(self.model).__name__} has no tensor {unknown[0]!r} ({len(unknown)} such "
                "names); the config does not fit the weights"
            )
        covered = {live[name].data_ptr() for name in names}
        if missing := [name for name, tensor in live.items() if tensor.data_ptr() not in covered]:
            raise EvaluationError(
                f"{type(self.model).__name__} needs the tensor {missing[0]!r} ({len(missing)} such "
                "names), which the merge does not give; the config does not fit the weights"
            )

    @property
    def batch_size(self) -> int:
        """Sequences in one forward pass."""
        return int(self.lm.batch_size)

    def shrink_batch(self) -> bool:
        """Halve the batch size for good; return whether that was possible."""
        if self.batch_size == 1:
            return False
        self.lm.batch_size_per_gpu = self.batch_size // 2
        _log.warning(
            "%s ran out of memory: batches of %d from now on", self.device, self.batch_size
        )
        return True

    def uncompiled(self) -> AbstractContextManager[None]:
        """Run forward passes as they are written inside, whatever the settings say."""
        if not self._is_compiled:
            return contextlib.nullcontext()
        from evomerge.evaluation.compiled import uncompiled

        return uncompiled()

    @contextlib.contextmanager
    def scoring(self) -> Iterator[None]:
        """Run forward passes inside: no gradients, a fixed generator, logits watched.

        Raises:
            EvaluationError: if the last logits of a forward pass were not finite.
            MemoryExhaustedError: if the device ran out of memory.
        """
        import torch

        damaged = torch.zeros((), dtype=torch.bool, device=self.device)

        def watch(_module: object, _inputs: object, output: Any) -> None:
            # Greedy decoding turns NaN into a token without a word. No synchronization here.
            damaged.logical_or_(torch.isfinite(output.logits[:, -1, :]).all().logical_not())

        gpus = [self.device] if self.device.type == "cuda" else []
        handle = self.model.register_forward_hook(watch)
        try:
            with torch.inference_mode(), torch.random.fork_rng(devices=gpus):
                torch.manual_seed(self._sampling_seed)
                try:
                    yield
                except torch.OutOfMemoryError as exc:
                    raise MemoryExhaustedError(
                        f"{self.device} ran out of memory with batches of {self.batch_size}; "
                        "set evaluation.max_length, or use a smaller dtype or another device"
                    ) from exc
                except RuntimeError as exc:
                    if bool(damaged):  # sampling refuses NaN probabilities
                        raise _damaged() from exc
                    raise
                if bool(damaged):
                    raise _damaged()
        finally:
            handle.remove()


def _damaged() -> EvaluationError:
    return EvaluationError(
        "the model's logits are NaN or infinite: the candidate's weights overflow or are damaged"
    )


def _build(
    config: Mapping[str, Any],
    dtype: "torch.dtype",
    device: "torch.device",
    generation_config: Mapping[str, Any] | None,
) -> "PreTrainedModel":
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    kind = str(config.get("model_type"))
    auto: Any = AutoModelForCausalLM
    try:
        parsed = type(AutoConfig.for_model(kind)).from_dict(dict(config))
        with torch.random.fork_rng(devices=[]), torch.device(device):
            model: Any = auto.from_config(parsed, dtype=dtype)
    except (ValueError, KeyError, TypeError) as exc:
        raise EvaluationError(
            f"transformers cannot build a causal language model from config.json with model_type "
            f"{kind!r}: {exc}"
        ) from exc
    model.to(device)
    model.requires_grad_(False)
    model.eval()
    if generation_config:
        model.generation_config = GenerationConfig.from_dict(dict(generation_config))
    built: PreTrainedModel = model
    return built


def _wrap(
    model: "PreTrainedModel",
    tokenizer: Path,
    settings: EvaluationSettings,
    device: "torch.device",
) -> "ResidentLM":
    from evomerge.evaluation.lm_eval_model import ResidentLM

    if not tokenizer.is_dir():
        raise EvaluationError(f"{tokenizer}: no such folder; a tokenizer is needed to score")
    batch = settings.batch_size
    if batch == "auto":
        batch = CPU_BATCH if device.type == "cpu" else GPU_BATCH
    try:
        return ResidentLM(
            pretrained=model,
            tokenizer=str(tokenizer),
            batch_size=batch,
            max_length=settings.max_length,
            chat_template=settings.chat_template,
            **settings.model_args,
        )
    except (OSError, ValueError) as exc:
        raise EvaluationError(f"{tokenizer}: the tokenizer cannot be loaded: {exc}") from exc
