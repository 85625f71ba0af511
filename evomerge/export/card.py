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
    recipe: Recipe, *, seed: int, title: str, rows: Sequence[ScoreRow] = (), note: str = ""
) -> str:
    """Return a README.md for a merged model.

    Args:
        recipe: What was merged.
        seed: Seed of the random merge methods.
        title: Heading.
        rows: Measured scores; all rows have the columns of the first.
        note: A sentence or more about how the recipe was found.
    """
    models = recipe.model_names()
    front: dict[str, Any] = {
        "library_name": "transformers",
        "tags": ["merge", "evomerge"],
    }
    hub = [name for name in models if not Path(name).exists() and name.count("/") == 1]
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
        recipe.to_yaml().strip(),
        "```",
        "",
        f"Made again with `evomerge merge recipe.yml OUT --seed {seed}`.",
        "",
    ]
    return "\n".join(lines)


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
