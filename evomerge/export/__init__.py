"""The winner on disk."""

from evomerge.export.card import ScoreRow, model_card
from evomerge.export.front import export_front
from evomerge.export.merging import export_run, merge_recipe
from evomerge.export.scores import card_note, card_rows
from evomerge.export.staging import ByteProgress, StageStart

__all__ = [
    "ByteProgress",
    "ScoreRow",
    "StageStart",
    "card_note",
    "card_rows",
    "export_front",
    "export_run",
    "merge_recipe",
    "model_card",
]
