"""Checkpoints on disk: found, read without loading weights, and written atomically."""

from evomerge.checkpoints.adapters import AdaptedCheckpoint
from evomerge.checkpoints.checkpoint import Checkpoint
from evomerge.checkpoints.finding import (
    locate,
    locate_models,
    model_places,
    open_adapter,
    open_checkpoint,
    split_adapter,
)
from evomerge.checkpoints.header import TensorInfo
from evomerge.checkpoints.identity import content_identity
from evomerge.checkpoints.layers import (
    LayerStack,
    find_layers,
    is_embedding,
    is_head,
    is_head_weight,
    num_layers_key,
    text_section,
)
from evomerge.checkpoints.parts import (
    DEFAULT_PART,
    PartCheckpoint,
    missing_part,
    require_parts,
    split_parts,
)
from evomerge.checkpoints.tokenizer import TOKENIZER_FILES, tokenizer_files
from evomerge.checkpoints.towers import TowerCheckpoint, fit_towers
from evomerge.checkpoints.writing import ShardedWriter, TensorSpec, write_checkpoint

__all__ = [
    "DEFAULT_PART",
    "TOKENIZER_FILES",
    "AdaptedCheckpoint",
    "Checkpoint",
    "LayerStack",
    "PartCheckpoint",
    "ShardedWriter",
    "TensorInfo",
    "TensorSpec",
    "TowerCheckpoint",
    "content_identity",
    "find_layers",
    "fit_towers",
    "is_embedding",
    "is_head",
    "is_head_weight",
    "locate",
    "locate_models",
    "missing_part",
    "model_places",
    "num_layers_key",
    "open_adapter",
    "open_checkpoint",
    "require_parts",
    "split_adapter",
    "split_parts",
    "text_section",
    "tokenizer_files",
    "write_checkpoint",
]
