"""Tokenizer files of a checkpoint, read without transformers."""

import json
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError

__all__ = ["CHAT_TEMPLATE_FILES", "TOKENIZER_FILES", "read_json", "read_vocab", "tokenizer_files"]

CHAT_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    *CHAT_TEMPLATE_FILES,
)
"""The files that make up a tokenizer or processor, as transformers names them."""

_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: if the file cannot be read or holds something else.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise CheckpointError(f"{file}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise CheckpointError(f"{file}: not valid JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise CheckpointError(f"{file}: a JSON object is expected, got {type(data).__name__}")
    return data


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return the tokenizer files in a folder; none if there is no vocabulary among them."""
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        return ()
    named = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    templates = folder / "additional_chat_templates"
    return (*named, *sorted(folder.glob("*.tiktoken")), *([templates] * templates.is_dir()))


def read_vocab(folder: Path) -> dict[str, int] | None:
    """Return the vocabulary with added tokens, or None if no file tells it."""
    if (folder / "tokenizer.json").is_file():
        data = read_json(folder / "tokenizer.json")
        vocab = data.get("model", {}).get("vocab")
        if isinstance(vocab, list):  # Unigram: a list of [token, score]
            vocab = {entry[0]: i for i, entry in enumerate(vocab)}
        if not isinstance(vocab, dict):
            return None
        added = {token["content"]: token["id"] for token in data.get("added_tokens") or ()}
        return {**vocab, **added}
    if (folder / "vocab.json").is_file():
        added_file = folder / "added_tokens.json"
        added = read_json(added_file) if added_file.is_file() else {}
        return {**read_json(folder / "vocab.json"), **added}
    return None
