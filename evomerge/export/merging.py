"""A recipe, or a trial of a run, as a model on disk."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.documents import Origin
from evomerge.engine import merge_to_disk
from evomerge.export.card import ScoreRow, model_card
from evomerge.export.scores import card_note, card_rows
from evomerge.export.staging import (
    ByteProgress,
    MergeSettings,
    StageStart,
    locate_stages,
    merge_stages,
)
from evomerge.recipe import Recipe, load_stages, parse_recipe, without_effect

if TYPE_CHECKING:
    from evomerge.search import TrialRecord

__all__ = ["ByteProgress", "export_run", "merge_recipe"]

_log = logging.getLogger(__name__)


def merge_recipe(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    seed: int = 0,
    rows: Sequence[ScoreRow] = (),
    note: str = "",
    progress: ByteProgress | None = None,
    device: str = "cpu",
    shard_bytes: float = 5e9,
    on_stage: StageStart | None = None,
) -> Path:
    """Merge a recipe to a model directory: weights, config, tokenizer, recipe and model card.

    A file of several recipes is a merge in stages. Of these the one that no other uses is the
    result; several such results go to one folder each, below `out`, by their names.

    Args:
        recipe: A recipe or its file.
        out: New or empty directory.
        seed: Seed of the random merge methods.
        rows: Measured scores for the card.
        note: How the recipe was found, for the card.
        progress: Who watches.
        device: Where to compute: `cpu`, `cuda` or `auto`.
        shard_bytes: Largest size of a weights file.
        on_stage: Told before each stage of a merge in several.

    Returns:
        The directory.

    Raises:
        EvomergeError: with nothing written.
    """
    out = Path(out)
    if not isinstance(recipe, Recipe):
        stages = locate_stages(load_stages(Path(recipe)), Path(recipe).parent)
        if len(stages) > 1:
            settings = MergeSettings(seed, device, shard_bytes, progress)
            merge_stages(stages, out, settings, rows=rows, note=note, on_stage=on_stage)
            return out
        recipe = stages[0].recipe
    for line in without_effect(recipe):
        _log.warning("%s", line)
    card = model_card(recipe, seed=seed, title=out.name, rows=rows, note=note)
    merge_to_disk(
        recipe,
        out,
        seed=seed,
        shard_bytes=shard_bytes,
        progress=progress,
        model_card=card,
        device=device,
    )
    return out


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    trial: int | None = None,
    progress: ByteProgress | None = None,
) -> "TrialRecord":
    """Write a run's winner, or another trial, as a model directory.

    The weights are bit for bit those that the trial was scored with.

    Args:
        run: Run directory.
        out: New or empty directory.
        trial: Trial number; by default the winner.
        progress: Who watches.

    Returns:
        The exported trial.

    Raises:
        EvomergeError: with nothing written.
    """
    from evomerge.search import open_run

    opened = open_run(run)
    record = opened.trial(trial)
    merge_recipe(
        parse_recipe(dict(record.recipe), Origin(f"{run}: trial {record.number}")),
        out,
        seed=opened.seed,
        rows=card_rows(record, opened.study.records.values()),
        note=card_note(opened, record),
        progress=progress,
    )
    return record
