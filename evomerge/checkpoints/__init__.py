"""Checkpoints on disk: found, read without loading weights, and written atomically."""

from evomerge.checkpoints.checkpoint import Checkpoint
from evomerge.checkpoints.finding import locate, locate_models, model_places, open_checkpoint
from evomerge.checkpoints.header import TensorInfo
from evomerge.checkpoints.layers import LayerStack, is_embedding, is_head, num_layers_key
from evomerge.checkpoints.tokenizer import TOKENIZER_FILES, tokenizer_files
from evomerge.checkpoints.writing import ShardedWriter, TensorSpec, write_checkpoint

__all__ = [
    "TOKENIZER_FILES",
    "Checkpoint",
    "LayerStack",
    "ShardedWriter",
    "TensorInfo",
    "TensorSpec",
    "is_embedding",
    "is_head",
    "locate",
    "locate_models",
    "model_places",
    "num_layers_key",
    "open_checkpoint",
    "tokenizer_files",
    "write_checkpoint",
]
