"""The winner on disk."""

from evomerge.export.card import ScoreRow, model_card
from evomerge.export.merging import ByteProgress, export_run, merge_recipe
from evomerge.export.scores import card_note, card_rows

__all__ = [
    "ByteProgress",
    "ScoreRow",
    "card_note",
    "card_rows",
    "export_run",
    "merge_recipe",
    "model_card",
]
