"""The model card: what was merged, with which recipe, and what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.recipe import Recipe
from evomerge.version import __version__

__all__ = ["ScoreRow", "model_card"]


@dataclass(frozen=True)
class ScoreRow:
    """One line of the card's table.

    Attributes:
        name: What was scored.
        scores: Column -> (value, standard error, items).
    """

    name: str
    scores: Mapping[str, tuple[float, float, int]]


def model_card(
    recipe: Recipe,
    *,
    seed: int,
    title: str,
    rows: Sequence[ScoreRow] = (),
    note: str = "",
    before: Sequence[Recipe] = (),
) -> str:
    """Return a README.md for a merged model.

    Args:
        recipe: What was merged.
        seed: Seed of the random merge methods.
        title: Heading.
        rows: Measured scores; all rows have the columns of the first.
        note: A sentence or more about how the recipe was found.
        before: The recipes of the stages whose results this one uses, in the order of their run.
    """
    recipes = (*before, recipe)
    models = _models(recipes)
    front: dict[str, Any] = {
        "library_name": "transformers",
        "tags": ["merge", "evomerge"],
    }
    hub = _repositories(models)
    if hub:
        front["base_model"] = hub
        front["base_model_relation"] = "merge"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {title}",
        "",
        f"A merge of {len(models)} checkpoints, made with evomerge {__version__}.",
        "",
        *[f"* `{name}`" for name in models],
        "",
    ]
    if note:
        lines += [note, ""]
    if rows:
        lines += ["## Scores", "", *_table(rows), ""]
    lines += [
        "## Recipe",
        "",
        "```yaml",
        "---\n".join(each.to_yaml() for each in recipes).strip(),
        "```",
        "",
        f"Made again with `evomerge merge recipe.yml OUT --seed {seed}`.",
        "",
    ]
    return "\n".join(lines)


def _models(recipes: Sequence[Recipe]) -> list[str]:
    """Return the models that recipes start from: all but each other's results."""
    stages = [recipe.name for recipe in recipes[:-1]]
    names = [name for recipe in recipes for name in recipe.model_names()]
    parts = (name.partition("+")[2] if name.partition("+")[0] in stages else name for name in names)
    return list(dict.fromkeys(part for part in parts if part))


def _repositories(models: Sequence[str]) -> list[str]:
    """Return the hub's names among models and their adapters, without revisions."""
    parts = [part for name in models if not Path(name).exists() for part in name.split("+")]
    names = [part.partition("@")[0] for part in parts if not Path(part).exists()]
    return list(dict.fromkeys(name for name in names if name.count("/") == 1))


def _table(rows: Sequence[ScoreRow]) -> list[str]:
    columns = list(rows[0].scores)
    lines = [
        "| model | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for row in rows:
        cells = []
        for column in columns:
            score = row.scores.get(column)
            cells.append(
                f"{score[0]:.3f} ± {score[1]:.3f} ({score[2]} items)" if score else "not scored"
            )
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return [*lines, "", "Mean ± standard error."]
