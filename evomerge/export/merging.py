"""A recipe, or a trial of a run, as a model on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path

from evomerge.checkpoints import locate_models
from evomerge.documents import Origin
from evomerge.engine import merge_to_disk
from evomerge.export.card import ScoreRow, model_card
from evomerge.export.scores import card_note, card_rows
from evomerge.recipe import Recipe, load_recipe, parse_recipe
from evomerge.search import TrialRecord, open_run

__all__ = ["ByteProgress", "export_run", "merge_recipe"]

ByteProgress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def merge_recipe(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    seed: int = 0,
    rows: Sequence[ScoreRow] = (),
    note: str = "",
    progress: ByteProgress | None = None,
) -> Path:
    """Merge a recipe to a model directory: weights, config, tokenizer, recipe and model card.

    Args:
        recipe: A recipe or its file.
        out: New or empty directory.
        seed: Seed of the random merge methods.
        rows: Measured scores for the card.
        note: How the recipe was found, for the card.
        progress: Who watches.

    Returns:
        The directory.

    Raises:
        EvomergeError: with nothing written.
    """
    out = Path(out)
    if not isinstance(recipe, Recipe):
        path = Path(recipe)
        data = locate_models(load_recipe(path).to_dict(), path.parent)
        recipe = parse_recipe(data, Origin(str(path)))
    card = model_card(recipe, seed=seed, title=out.name, rows=rows, note=note)
    merge_to_disk(recipe, out, seed=seed, progress=progress, model_card=card)
    return out


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    trial: int | None = None,
    progress: ByteProgress | None = None,
) -> TrialRecord:
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
    opened = open_run(run)
    record = opened.trial(trial)
    merge_recipe(
        parse_recipe(dict(record.recipe), Origin(f"{run}: trial {record.number}")),
        out,
        seed=opened.seed,
        rows=card_rows(record, opened.study.records.values()),
        note=card_note(opened.name, record, opened.seed),
        progress=progress,
    )
    return record
