"""Tokenizers as data: the ids they give, and the files of one with other tokens."""

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from evomerge.checkpoints.tokenizer import read_json, tokenizer_files
from evomerge.errors import CheckpointError

__all__ = ["FastTokenizer", "read_fast_tokenizer"]

_DEFINITION = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_SPECIAL_MAP = "special_tokens_map.json"
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""In the order in which transformers adds those that the vocabulary lacks."""
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
_BELOW = 10.0


@dataclass(frozen=True, slots=True)
class FastTokenizer:
    """A tokenizer as transformers loads it.

    Attributes:
        definition: `tokenizer.json`.
        settings: `tokenizer_config.json`, with what `special_tokens_map.json` adds.
        vocab: All tokens and their ids, added and special ones included.
    """

    definition: Mapping[str, Any]
    settings: Mapping[str, Any]
    vocab: Mapping[str, int]

    def added(self) -> dict[str, dict[str, Any]]:
        """Return the entries of added tokens by token."""
        found = {entry["content"]: entry for entry in self.definition.get("added_tokens") or ()}
        for token, flags in _declared(self.settings):
            found.setdefault(token, {"content": token, **_PLAIN, "special": True, **flags})
        return {token: entry for token, entry in found.items() if token in self.vocab}

    def with_vocab(
        self, vocab: Mapping[str, int], others: Sequence["FastTokenizer"]
    ) -> dict[str, Mapping[str, Any]]:
        """Return the files of this tokenizer with another vocabulary.

        BPE cuts text as before; then, where it stays in pieces, new tokens are put together by the
        merges of the tokenizer they come from. Unigram and WordPiece choose among all tokens.
        Tokens that another tokenizer adds beside its vocabulary are added here too.

        Args:
            vocab: Tokens and ids; those of this tokenizer keep their ids or are missing.
            others: Where new tokens come from; the first one that has it counts.

        Returns:
            `tokenizer.json` and `tokenizer_config.json`.

        Raises:
            CheckpointError: if the kind of tokenizer is unknown.
        """
        definition = dict(self.definition)
        entries: dict[str, dict[str, Any]] = {}
        for source in (self, *others):
            for token, entry in source.added().items():
                if token in vocab and (source is self or token not in self.vocab):
                    entries.setdefault(token, entry)
        known = set(self.vocab).union(*(source.vocab for source in others))
        for token in vocab:
            if token not in known:
                entries[token] = {"content": token, **_PLAIN, "special": False}
        definition["added_tokens"] = [
            {"id": vocab[token], **{key: value for key, value in entry.items() if key != "id"}}
            for token, entry in sorted(entries.items(), key=lambda item: vocab[item[0]])
        ]
        model = definition.get("model")
        model = definition["model"] = dict(model) if isinstance(model, dict) else model
        # Ids of added tokens are given by their order unless the model knows the token, so all of
        # them stand in its vocabulary too.
        if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
            kind = model.get("type") if isinstance(model, dict) else model
            raise CheckpointError(
                f"tokens cannot be added to a tokenizer of the kind {kind!r} (BPE, Unigram, "
                "WordPiece and WordLevel are known)"
            )
        if isinstance(model["vocab"], list):
            model["vocab"] = self._scored(vocab, others)
        else:
            model["vocab"] = dict(sorted(vocab.items(), key=lambda item: item[1]))
        if "merges" in model:
            model["merges"] = self._merges(vocab, others)
        return {_DEFINITION: definition, _SETTINGS: self._settings(vocab)}

    def _merges(
        self, vocab: Mapping[str, int], others: Sequence["FastTokenizer"]
    ) -> list[list[str]]:
        """Return this tokenizer's merges and, ranked after them, those that make new tokens."""
        found: dict[tuple[str, str], None] = {}
        for source in (self, *others):
            for left, right, made in _merges(source.definition):
                new = source is self or made not in self.vocab
                if new and left in vocab and right in vocab and made in vocab:
                    found[left, right] = None
        return [list(pair) for pair in found]

    def _scored(
        self, vocab: Mapping[str, int], others: Sequence["FastTokenizer"]
    ) -> list[list[Any]]:
        scores: dict[str, float] = {}
        for source in (self, *others):
            entries = source.definition.get("model", {}).get("vocab")
            for token, score in entries if isinstance(entries, list) else ():
                scores.setdefault(token, score)
        lowest = min(scores.values(), default=0.0) - _BELOW
        by_id = {i: token for token, i in vocab.items()}
        tokens = (by_id.get(i, f"<unused {i}>") for i in range(max(by_id) + 1))
        return [[token, scores.get(token, lowest)] for token in tokens]

    def _settings(self, vocab: Mapping[str, int]) -> dict[str, Any]:
        settings = copy.deepcopy(dict(self.settings))
        for key in _NAMED:
            if _content(settings.get(key)) not in (None, *vocab):
                del settings[key]
        for key in _LISTS:
            tokens = settings.get(key)
            if isinstance(tokens, list):
                settings[key] = [token for token in tokens if _content(token) in vocab]
            elif isinstance(tokens, dict):
                settings[key] = {
                    k: token for k, token in tokens.items() if _content(token) in vocab
                }
        decoder = settings.get("added_tokens_decoder")
        if isinstance(decoder, dict):
            settings["added_tokens_decoder"] = {
                str(vocab[token]): entry
                for entry in decoder.values()
                if (token := _content(entry)) in vocab and token is not None
            }
        return settings


def read_fast_tokenizer(folder: Path) -> FastTokenizer | None:
    """Read the tokenizer in a folder; None if there is none.

    Files that only a slow tokenizer has (`tokenizer.model`, `vocab.json`) are converted by
    transformers.

    Raises:
        CheckpointError: if it cannot be read.
    """
    if not tokenizer_files(folder):
        return None
    files = [folder / name for name in (_DEFINITION, _SETTINGS, _SPECIAL_MAP)]
    if not files[0].is_file():
        return _convert(folder, _read_settings(folder))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if file.is_file() else b"")
        digest.update(b"\0")
    return _read(digest.hexdigest(), _Folder(folder))


class _Folder:
    """A folder that a cache does not tell from another one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Folder)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=8)
def _read(digest: str, folder: _Folder) -> FastTokenizer:
    """Read a tokenizer once for all models that have the same one."""
    del digest
    from tokenizers import Tokenizer

    file = folder.path / _DEFINITION
    settings = _read_settings(folder.path)
    definition = read_json(file)
    try:
        vocab = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    except Exception as exc:  # the library raises plain exceptions
        raise CheckpointError(f"{file}: no tokenizer: {exc}") from exc
    return FastTokenizer(definition, settings, _with_declared(vocab, settings))


def _convert(folder: Path, settings: Mapping[str, Any]) -> FastTokenizer:
    from json import loads

    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer
    try:
        loaded = auto.from_pretrained(str(folder), local_files_only=True)
        definition = loads(loaded.backend_tokenizer.to_str())
        vocab = dict(loaded.get_vocab())
    except Exception as exc:  # whatever a converter or a missing package raises
        reason = str(exc).strip().partition("\n")[0]
        raise CheckpointError(
            f"{folder}: its tokenizer has no {_DEFINITION}, and transformers cannot make one: "
            f"{reason}"
        ) from exc
    return FastTokenizer(definition, settings, _with_declared(vocab, settings))


def _read_settings(folder: Path) -> dict[str, Any]:
    """Read `tokenizer_config.json`, and what only `special_tokens_map.json` says."""
    file, older = folder / _SETTINGS, folder / _SPECIAL_MAP
    found = read_json(file) if file.is_file() else {}
    for key, entry in (read_json(older) if older.is_file() else {}).items():
        # Objects there carry no mark of their type, without which transformers refuses them here.
        plain = [_content(token) for token in entry] if isinstance(entry, list) else _content(entry)
        found.setdefault(key, plain)
    return found


def _with_declared(vocab: dict[str, int], settings: Mapping[str, Any]) -> dict[str, int]:
    """Add the special tokens that only the settings name, as transformers does on loading."""
    following = max(vocab.values(), default=-1) + 1
    for token, _ in _declared(settings):
        if token not in vocab:
            vocab[token] = following
            following += 1
    return dict(sorted(vocab.items(), key=lambda item: item[1]))


def _declared(settings: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the added and special tokens that the settings name, with their flags."""
    decoder = settings.get("added_tokens_decoder")
    entries: list[Any] = []
    if isinstance(decoder, dict):
        entries += [decoder[key] for key in sorted(decoder, key=int)]
    entries += [settings.get(key) for key in _NAMED]
    for key in _LISTS:
        tokens = settings.get(key)
        entries += tokens.values() if isinstance(tokens, dict) else tokens or ()
    for entry in entries:
        token = _content(entry)
        if token is not None:
            flags = entry if isinstance(entry, dict) else {}
            yield token, {key: flags[key] for key in (*_PLAIN, "special") if key in flags}


def _content(entry: Any) -> str | None:
    """Return the token of an entry, which is a text or an object with a content."""
    token = entry.get("content") if isinstance(entry, dict) else entry
    return token if isinstance(token, str) else None


def _merges(definition: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the merges of a BPE tokenizer: left and right part, and what they make."""
    model = definition.get("model", {})
    prefix = model.get("continuing_subword_prefix") or ""
    for merge in model.get("merges") or ():
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        yield left, right, left + right.removeprefix(prefix)
