"""Files of mergekit-evolve (`genome:` and `tasks:`) as search spaces.

What a genome means: mergekit's docs/evolve.md, and mergekit 0.1.5 run as it is (the results are in
tests/space/genomes). Where mergekit-evolve searches without bounds and takes absolute values, a
space has ranges; the recipes inside them are the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.checkpoints import locate
from evomerge.documents import Origin, validate
from evomerge.errors import SpaceError
from evomerge.space.blocks import count_layers, num_blocks
from evomerge.space.genome_schema import SPARSE, Genome, GenomeFile, GenomeTask

__all__ = ["Converted", "native_space"]

_LOWER_IS_BETTER = (
    "perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
    "brier_score",
    "ter",
)
"""Metrics of lm-eval 0.4 that are better when lower."""

_PAIR = (
    "mergekit-evolve's rule for slerp: in each block the two models with the largest weights are "
    "merged; the heavier is the base, t = e^w2 / (e^w1 + e^w2)."
)
_ITEMS = (
    "mergekit-evolve scores and chooses on the same items. Here a part of them guides the search "
    "(search_items), and the winner is chosen on the others."
)


@dataclass(frozen=True)
class Converted:
    """A search space that stands for a file of mergekit-evolve.

    Attributes:
        data: The space as plain data.
        notes: What of the file has no effect, and why.
        comments: Section of the space -> lines that say where it came from.
    """

    data: dict[str, Any]
    notes: tuple[str, ...]
    comments: Mapping[str, tuple[str, ...]]


def native_space(
    data: Mapping[str, Any], origin: Origin, count: Callable[[str], int] = count_layers
) -> Converted:
    """Return the search space of a file of mergekit-evolve.

    Args:
        data: The content of the file.
        origin: Where it came from.
        count: Model -> number of its layers; asked for where values are smoothed over layers.

    Raises:
        SpaceError: naming the wrong key.
        CheckpointError: if layers are to be counted and the first model is not at hand.
    """
    file = validate(GenomeFile, dict(data), origin, SpaceError)
    genome = file.genome
    anchors = 0
    if genome.smooth and genome.layer_granularity > 0:
        first = locate(genome.models[0], origin.folder)
        anchors = num_blocks(count(first), genome.layer_granularity)
    space: dict[str, Any] = {"recipe": _recipe(genome, anchors if anchors > 1 else None)}
    if genome.merge_method == "slerp":
        space["select"] = "heaviest_pair"
    space["tasks"] = [_native_task(task) for task in file.tasks]
    for section in ("objective", "constraints", "search"):
        if getattr(file, section) is not None:
            space[section] = getattr(file, section)
    space["evaluation"] = {**_evaluation(file), **(file.evaluation or {})}
    return Converted(space, _notes(file), _comments(file, anchors))


def _recipe(genome: Genome, anchors: int | None) -> dict[str, Any]:
    models: list[dict[str, Any]] = [
        {"model": name, "parameters": _parameters(genome, anchors)} for name in genome.models
    ]
    if genome.base_model is not None and genome.base_model not in genome.models:
        models.append({"model": genome.base_model})
    recipe: dict[str, Any] = {"merge_method": genome.merge_method}
    if genome.base_model is not None:
        recipe["base_model"] = genome.base_model
    if genome.layer_granularity > 0 and not genome.smooth:
        recipe["slices"] = {"every": genome.layer_granularity, "sources": models}
    else:
        recipe["models"] = models
    if genome.merge_method != "slerp":
        recipe["parameters"] = {"normalize": genome.normalized}
    recipe["dtype"] = "bfloat16"
    if genome.tokenizer_source is not None:
        recipe["tokenizer_source"] = genome.tokenizer_source
    return recipe


def _parameters(genome: Genome, anchors: int | None) -> dict[str, Any]:
    found = {"weight": _values(_weight_range(genome), genome.filters or (), anchors)}
    if genome.merge_method in SPARSE:
        found["density"] = _values([0.0, 1.0], genome.filters or (), anchors)
    return found


def _weight_range(genome: Genome) -> list[float]:
    if genome.merge_method == "slerp":
        # Only differences matter: t = 1 / (1 + e^difference), so t goes down to 0.018.
        return [0.0, 4.0]
    high = 1.0 if genome.normalized else 1.5
    return [-high if genome.allow_negative_weights else 0.0, high]


def _values(limits: list[float], filters: list[str] | tuple[str, ...], anchors: int | None) -> Any:
    def expression() -> dict[str, Any]:
        layers = {"layers": anchors} if anchors else {}
        return {"search": list(limits), **layers}

    if not filters:
        return expression()
    entries = [{"filter": name, "value": expression()} for name in filters]
    return [*entries, {"value": expression()}]


def _native_task(task: GenomeTask) -> dict[str, Any]:
    plain = task.model_dump(exclude_none=True, exclude={"smooth"})
    if _is_turned(task):
        plain["weight"] = -plain["weight"]
    return plain


def _is_turned(task: GenomeTask) -> bool:
    """Tell whether a weight below 0 says that lower is better, which a space knows by itself."""
    name = task.metric.partition(",")[0]
    return task.weight is not None and task.weight < 0 and name in _LOWER_IS_BETTER


def _evaluation(file: GenomeFile) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if file.apply_chat_template:
        found["apply_chat_template"] = True
        if file.fewshot_as_multiturn:
            found["fewshot_as_multiturn"] = True
    if file.num_fewshot is not None:
        found["num_fewshot"] = file.num_fewshot
    if file.limit is not None and file.shuffle:
        found["search_items"] = max(file.limit, 2)
    elif file.limit is not None:
        found["limit"] = file.limit
    return found


def _notes(file: GenomeFile) -> tuple[str, ...]:
    notes = []
    if file.random_init:
        notes.append("random_init has no effect: the search starts from the best baseline")
    if file.shuffle and file.limit is None:
        notes.append("shuffle has no effect: the seed chooses the search items anyway")
    if file.genome.merge_method == "slerp" and file.genome.allow_negative_weights:
        notes.append("allow_negative_weights has no effect: slerp reads differences of weights")
    return tuple(notes)


def _comments(file: GenomeFile, anchors: int) -> dict[str, tuple[str, ...]]:
    genome = file.genome
    recipe = []
    if genome.layer_granularity > 0 and not genome.smooth:
        recipe.append(
            f"layer_granularity: each {genome.layer_granularity} layers have values of their own; "
            "embeddings go with the first block, final norm and head with the last."
        )
    if anchors > 1:
        recipe.append(
            f"smooth: {anchors} values, interpolated over the layers; embeddings, final norm and "
            "head have the first."
        )
    if genome.filters:
        recipe.append("filters: the first one that is part of a tensor's name counts.")
    if genome.merge_method != "slerp":
        recipe.append(
            "The ranges are evomerge's: mergekit-evolve has none, and takes absolute values"
            + (" of densities." if genome.allow_negative_weights else ".")
        )
    recipe.append("dtype: mergekit-evolve always writes bfloat16.")
    comments = {"recipe": tuple(recipe)}
    if genome.merge_method == "slerp":
        comments["select"] = (_PAIR,)
    turned = [task.name for task in file.tasks if _is_turned(task)]
    if turned:
        comments["tasks"] = (
            f"{', '.join(turned)}: lower is better, which evomerge knows: no minus in the weight.",
        )
    comments["evaluation"] = (_ITEMS,)
    return comments
