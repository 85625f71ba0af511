"""What two checkpoints must have in common to give the same answers."""

import hashlib
import json
from pathlib import Path

from evomerge.checkpoints.checkpoint import Checkpoint
from evomerge.checkpoints.tokenizer import tokenizer_files

__all__ = ["content_identity"]


def content_identity(checkpoint: Checkpoint) -> str:
    """Return a hash of what decides a model's answers: tensors, configs and tokenizer files.

    :meth:`Checkpoint.fingerprint` knows the tensors alone: random methods draw by it, and a new
    chat template must not change a merge.
    """
    digest = hashlib.sha256(checkpoint.fingerprint().encode())
    for config in (checkpoint.config, checkpoint.generation_config):
        content = None if config is None else dict(config)
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
    for file in _files(checkpoint.path):
        digest.update(file.relative_to(checkpoint.path).as_posix().encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    found = []
    for path in tokenizer_files(folder):
        found += sorted(path.glob("*")) if path.is_dir() else [path]
    return [file for file in found if file.is_file()]
