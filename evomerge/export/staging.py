"""Running a merge in several stages: each result on disk for as long as later stages need it."""

import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge.checkpoints import (
    Checkpoint,
    fit_towers,
    locate_models,
    open_adapter,
    open_checkpoint,
    split_adapter,
)
from evomerge.checkpoints.writing import check_free
from evomerge.engine import merge_to_disk
from evomerge.errors import CheckpointError, EvomergeError, nearest
from evomerge.export.card import ScoreRow, model_card
from evomerge.recipe import Recipe, Stage, parse_recipe

__all__ = ["ByteProgress", "MergeSettings", "StageStart", "locate_stages", "merge_stages"]

ByteProgress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

StageStart = Callable[[int, int, str], None]
"""Called with a stage's number from 1, the number of stages, and the stage's name."""

_RESULT = "the result"


@dataclass(frozen=True)
class MergeSettings:
    """What all stages of a merge share.

    Attributes:
        seed: Seed of the random merge methods.
        device: Where to compute.
        shard_bytes: Largest size of a weights file.
        progress: Who watches the bytes of each stage.
    """

    seed: int
    device: str
    shard_bytes: float
    progress: ByteProgress | None


def locate_stages(stages: Sequence[Stage], folder: Path) -> tuple[Stage, ...]:
    """Return stages whose model names are what the working directory needs.

    Args:
        stages: Stages; the names of these go before paths.
        folder: The folder of the file that they came from.
    """
    named = _names(stages) if len(stages) > 1 else ()
    located = []
    for stage in stages:
        data = locate_models(stage.recipe.to_dict(), folder, named)
        located.append(replace(stage, recipe=parse_recipe(data, stage.origin)))
    return tuple(located)


def merge_stages(
    stages: Sequence[Stage],
    out: Path,
    settings: MergeSettings,
    *,
    rows: Sequence[ScoreRow] = (),
    note: str = "",
    on_stage: StageStart | None = None,
) -> None:
    """Merge one stage after the other; only what no other stage uses is left at the end.

    What other stages use is merged to a temporary folder beside `out` and removed as soon as
    nothing needs it any more. A single result appears at `out`, several appear together as folders
    below it.

    Args:
        stages: Stages in the order in which they run.
        out: New or empty directory.
        settings: What they share.
        rows: Measured scores for the cards.
        note: How the recipes were found, for the cards.
        on_stage: Told before each stage.

    Raises:
        EvomergeError: with nothing left behind.
    """
    check_free(out)
    opened = _open_models(stages)
    out = out.absolute()
    beside = out.with_name(f"{out.name}.stages-{secrets.token_hex(4)}")
    beside.mkdir(parents=True)
    several = sum(stage.is_result for stage in stages) > 1
    folders: dict[str, Path] = {}
    try:
        for i, stage in enumerate(stages):
            if on_stage is not None:
                on_stage(i + 1, len(stages), stage.name or _RESULT)
            goal = beside / "stages" / str(i)
            if stage.is_result:
                goal = beside / "results" / str(stage.name) if several else out
            before = _before(stages, stage)
            card = model_card(
                stage.recipe,
                seed=settings.seed,
                title=goal.name,
                rows=rows,
                note=note,
                before=before,
            )
            text = "---\n".join(each.to_yaml() for each in (*before, stage.recipe))
            _merge(stage, _checkpoints(stage, opened, folders), goal, settings, (card, text))
            if stage.name is not None:
                folders[stage.name] = goal
            _remove_unneeded(folders, stages[i + 1 :], beside / "stages")
        if several:
            check_free(out)
            (beside / "results").replace(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _merge(
    stage: Stage,
    checkpoints: Mapping[str, Checkpoint],
    goal: Path,
    settings: MergeSettings,
    texts: tuple[str, str],
) -> None:
    card, text = texts
    try:
        merge_to_disk(
            stage.recipe,
            goal,
            seed=settings.seed,
            shard_bytes=settings.shard_bytes,
            progress=settings.progress,
            model_card=card,
            recipe_text=text,
            checkpoints=checkpoints,
            device=settings.device,
        )
    except EvomergeError as exc:
        raise type(exc)(f"{stage.origin.where()}: {exc}") from exc


def _checkpoints(
    stage: Stage, opened: Mapping[str, Checkpoint], folders: Mapping[str, Path]
) -> dict[str, Checkpoint]:
    return fit_towers(
        {
            name: opened[name] if name in opened else open_checkpoint(name, folders)
            for name in stage.recipe.model_names()
        }
    )


def _names(stages: Sequence[Stage]) -> tuple[str, ...]:
    return tuple(stage.name for stage in stages if stage.name is not None)


def _open_models(stages: Sequence[Stage]) -> dict[str, Checkpoint]:
    """Open every model that is no stage's result, before hours are spent on the first stages.

    Raises:
        CheckpointError: naming the recipe.
    """
    named = _names(stages)
    opened: dict[str, Checkpoint] = {}
    for stage in stages:
        for model in stage.recipe.model_names():
            if model in opened or model in named:
                continue
            pair = split_adapter(model, known=named)
            try:
                if pair is not None and pair[0] in named:
                    open_adapter(pair[1])
                else:
                    opened[model] = open_checkpoint(model)
            except CheckpointError as exc:
                own = f" of the recipe {stage.name!r}" if stage.name else ""
                stages_are = (
                    f"\nno recipe of the file has this name either; {nearest(model, named)}"
                )
                raise CheckpointError(
                    f"{stage.origin.where()}: a model{own} cannot be opened: {exc}"
                    + ("" if "+" in model else stages_are)
                ) from exc
    return opened


def _before(stages: Sequence[Stage], stage: Stage) -> tuple[Recipe, ...]:
    """Return the recipes that a stage builds on, in the order of their run."""
    needed = set(stage.needs)
    found = []
    for other in reversed(stages):
        if other.name in needed:
            needed.update(other.needs)
            found.append(other.recipe)
    return tuple(reversed(found))


def _remove_unneeded(folders: Mapping[str, Path], later: Sequence[Stage], inside: Path) -> None:
    """Remove the results inside the temporary folder that no later stage uses."""
    needed = {name for stage in later for name in stage.needs}
    for name, folder in folders.items():
        if folder.parent == inside and name not in needed:
            shutil.rmtree(folder, ignore_errors=True)
