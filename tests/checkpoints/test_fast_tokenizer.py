"""Tokenizers of every kind with the tokens of another one, as transformers loads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from evomerge.checkpoints.fast_tokenizer import FastTokenizer, read_fast_tokenizer
from evomerge.errors import CheckpointError

FIRST = ["the quick brown fox jumps over the lazy dog and the cat sleeps", "hello world again"] * 5
SECOND = ["numbers and tensors are multiplied quickly by the machine", "zebra quartz jumping"] * 5
SPECIAL = ["<s>", "</s>", "<unk>"]
UNKNOWN: dict[str, Any] = {"unk_token": "<unk>"}


def train(kind: str, texts: list[str], folder: Path, added: str, **settings: Any) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model: Any
    trainer: Any
    if kind == "BPE":
        model, trainer = (
            models.BPE(),
            trainers.BpeTrainer(
                vocab_size=340,
                special_tokens=SPECIAL,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
    elif kind == "Unigram":
        model, trainer = (
            models.Unigram(),
            trainers.UnigramTrainer(
                vocab_size=80, special_tokens=SPECIAL, show_progress=False, **UNKNOWN
            ),
        )
    else:
        model, trainer = (
            models.WordPiece(**UNKNOWN),
            trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL, show_progress=False),
        )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = {
        "BPE": (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
        "Unigram": (pre_tokenizers.Metaspace(), decoders.Metaspace()),
        "WordPiece": (pre_tokenizers.Whitespace(), decoders.WordPiece()),
    }[kind]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([added])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    known = {"tokenizer_class": "PreTrainedTokenizerFast", **UNKNOWN, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(known))
    return folder


def read(folder: Path) -> FastTokenizer:
    found = read_fast_tokenizer(folder)
    assert found is not None
    return found


def load(documents: dict[str, Any], folder: Path) -> Any:
    from transformers import AutoTokenizer

    folder.mkdir()
    for name, content in documents.items():
        (folder / name).write_text(json.dumps(content))
    auto: Any = AutoTokenizer
    return auto.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordPiece"])
def test_the_tokens_of_two(kind: str, tmp_path: Path) -> None:
    a = read(train(kind, FIRST, tmp_path / "a", "<|a|>"))
    b = read(train(kind, SECOND, tmp_path / "b", "<|b|>"))
    vocab = dict(a.vocab)
    for token in b.vocab:
        vocab.setdefault(token, len(vocab))
    vocab["<new>"] = len(vocab)
    tokenizer = load(a.with_vocab(vocab, [b]), tmp_path / "out")
    assert tokenizer.get_vocab() == vocab
    assert len(tokenizer) == len(vocab)
    for text in (*FIRST[:2], *SECOND[:2], "zebra <|a|> fox <|b|> the <new> dog"):
        ids = tokenizer.encode(text)
        assert vocab["<unk>"] not in ids
        assert tokenizer.decode(ids) == text
    assert {vocab["<|a|>"], vocab["<|b|>"]} <= set(tokenizer.all_special_ids) | {
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    new = {token for token in vocab if token not in a.vocab}
    assert new & set(tokenizer.tokenize(SECOND[0]))
    if kind == "BPE":
        old = load({"tokenizer.json": a.definition, "tokenizer_config.json": {}}, tmp_path / "old")
        assert tokenizer.tokenize(FIRST[0]) == old.tokenize(FIRST[0])


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordPiece"])
def test_fewer_tokens(kind: str, tmp_path: Path) -> None:
    settings = {
        "pad_token": "<|a|>",
        "eos_token": {"content": "</s>", "__type": "AddedToken"},
        "extra_special_tokens": ["<|a|>", "<s>"],
    }
    a = read(train(kind, FIRST, tmp_path / "a", "<|a|>", **settings))
    vocab = {token: i for token, i in a.vocab.items() if i < len(a.vocab) - 9}
    tokenizer = load(a.with_vocab(vocab, []), tmp_path / "out")
    assert tokenizer.get_vocab() == vocab
    assert tokenizer.pad_token is None
    assert tokenizer.eos_token_id == 1


def test_special_tokens_that_only_the_settings_name_are_tokens(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    named = {"pad_token": "[PAD]", "bos_token": "<s>"}
    folder = train("BPE", FIRST, tmp_path / "a", "<|a|>", **named)
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "</s>"}}')
    known = read(folder).vocab
    auto: Any = AutoTokenizer
    assert auto.from_pretrained(folder).get_vocab() == known
    assert known["[PAD]"] == max(known.values()) == len(known) - 1
    tokenizer = load(read(folder).with_vocab({**known, "<x>": len(known)}, []), tmp_path / "out")
    assert tokenizer.pad_token_id == known["[PAD]"]
    assert tokenizer.eos_token_id == known["</s>"]


def test_a_tokenizer_without_tokenizer_json_is_converted(tmp_path: Path) -> None:
    folder = train("BPE", FIRST, tmp_path / "a", "<|a|>")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(merge) for merge in model["merges"]]
    (slow / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    settings = {"tokenizer_class": "GPT2Tokenizer"}
    settings |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")
    (slow / "tokenizer_config.json").write_text(json.dumps(settings))
    (slow / "config.json").write_text('{"model_type": "gpt2"}')
    assert read(slow).vocab == model["vocab"]


def test_none_and_damaged(tmp_path: Path) -> None:
    assert read_fast_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(CheckpointError, match="tokenizer.json: no tokenizer: "):
        read_fast_tokenizer(tmp_path)
    odd = FastTokenizer({"model": {"type": "Odd"}}, {}, {"a": 0})
    with pytest.raises(CheckpointError, match="the kind 'Odd'"):
        odd.with_vocab({"a": 0, "b": 1}, [])
