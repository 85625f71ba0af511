"""Which tokens the merged model has, and from which rows each input's embedding is built.

A token is matched by its text. A model that lacks a token gets, for this row, the base model's
row if the base has the token, else the average of the rows of the models that have it, else zeros.
"""

import copy
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from evomerge.checkpoints import Checkpoint, is_embedding, is_head
from evomerge.checkpoints.fast_tokenizer import FastTokenizer, read_fast_tokenizer
from evomerge.engine.rows import RowMap, RowPlan, with_rows
from evomerge.errors import CheckpointError, RecipeError, nearest
from evomerge.recipe import TokenSettings

__all__ = ["Vocabulary", "VocabularyRequest", "find_vocabulary", "is_token_tensor"]

_OTHER_ROWS = re.compile(
    r"position|pos_emb|token_type|(^|\.)wpe\.|per_layer|visi|visual|image|audio"
)
# Of heads that are more than a matrix: Bert's, ModernBert's, Bart's.
_HEAD_PARTS = re.compile(
    r"(^|\.)(predictions|pred_layer|lm_head|generator_lm_head|decoder)\.((decoder|proj)\.)?"
    r"(weight|bias)$|(^|\.)final_logits_bias$"
)
_TOKEN_IDS = re.compile(r"token_ids?$|token_index$|suppress_tokens$")
_TEXT_CONFIGS = ("text_config", "language_config", "llm_config", "text_model_config", "decoder")

Opened = tuple[tuple[str, Checkpoint], ...]


def is_token_tensor(name: str, checkpoint: Checkpoint) -> bool:
    """Tell whether a tensor of a model has one row for each token."""
    info = checkpoint.tensors.get(name)
    if info is None or not info.shape or _OTHER_ROWS.search(name):
        return False
    named = is_embedding(name) or is_head(name) or _HEAD_PARTS.search(name) is not None
    return named and info.shape == with_rows(info.shape, checkpoint.num_token_rows or 0)


@dataclass(frozen=True, slots=True)
class VocabularyRequest:
    """What a recipe says about the tokens of the merged model.

    Attributes:
        source: `union`, or the name of the model whose tokenizer is taken.
        tokens: Where the rows of some tokens come from.
        multiple: What the number of rows is a multiple of.
        donor: Name of the base, or of the first model.
        merged: Names of all models that are merged.
    """

    source: str
    tokens: tuple[tuple[str, TokenSettings], ...]
    multiple: int | None
    donor: str
    merged: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of the merged model.

    Attributes:
        tokens: Their ids.
        size: Number of embedding rows.
        donor: Name of the model whose tokenizer is taken.
        documents: Tokenizer files that differ from the donor's; empty if its files are right.
        ids: For each model its tokens that have a row.
        spoken: For each model all of its tokenizer's tokens.
        settings: The tokenizer's settings.
        rules: What the recipe says about some tokens.
    """

    tokens: Mapping[str, int]
    size: int
    donor: str
    documents: Mapping[str, Mapping[str, Any]]
    ids: Mapping[str, Mapping[str, int]]
    spoken: Mapping[str, Mapping[str, int]]
    settings: Mapping[str, Any]
    rules: tuple[tuple[str, TokenSettings], ...]

    def row_maps(
        self,
        inputs: Sequence[tuple[str, str]],
        base: str | None,
        rule_tensors: Mapping[str, str],
        rows: Mapping[str, int],
    ) -> tuple[RowMap | None, ...] | None:
        """Return how the inputs of an embedding or head are rearranged.

        Args:
            inputs: Model and tensor name of each input.
            base: Name of the base model, if there is one.
            rule_tensors: For each model that the recipe's rules name, its tensor.
            rows: Numbers of rows of all these models.

        Returns:
            One map an input, None for an input that is right as it is; None if all of them are.
        """
        models = tuple(dict.fromkeys(model for model, _ in inputs))
        tensors = dict(inputs) | {m: t for m, t in rule_tensors.items() if m not in models}
        order = (*models, *(model for model in tensors if model not in models))
        plans = _row_plans(
            self, models, base if base in models else None, order, tuple(rows[m] for m in order)
        )
        sources = tuple((model, tensors[model]) for model in order)
        maps: list[RowMap | None] = []
        for model, name in inputs:
            plan = plans[models.index(model)]
            if plan is None:
                maps.append(None)
                continue
            # An input may have a tensor of its own under the same model (a slice twice in one).
            own = tuple((m, name if m == model else t) for m, t in sources)
            digest = hashlib.sha256(f"{plan[1]}\0{own}".encode()).hexdigest()
            maps.append(RowMap(plan[0], own, digest))
        return tuple(maps) if any(found is not None for found in maps) else None

    def follow(
        self, config: Mapping[str, Any], model: str, *, sized: bool = True
    ) -> dict[str, Any]:
        """Return a model's config or generation config for these tokens.

        The number of rows and the ids of special tokens follow. A special token that is no more
        is the tokenizer's own one, or none.

        Args:
            config: The config.
            model: Whose it is.
            sized: Whether the number of rows stands in it.
        """
        result = copy.deepcopy(dict(config))
        if sized:
            self._resize(result)
        old = self.spoken[model]
        if any(self.tokens.get(token) != i for token, i in old.items()):
            texts = {i: token for token, i in old.items()}
            _follow_ids(result, texts, self.tokens, self.settings)
        return result

    def _resize(self, config: dict[str, Any]) -> None:
        inner = [config[key] for key in _TEXT_CONFIGS if isinstance(config.get(key), dict)]
        having = [part for part in (config, *inner) if "vocab_size" in part]
        for part in having or inner[:1] or [config]:
            part["vocab_size"] = self.size


def _follow_ids(
    part: dict[str, Any],
    texts: Mapping[int, str],
    tokens: Mapping[str, int],
    settings: Mapping[str, Any],
) -> None:
    for key, value in part.items():
        if isinstance(value, dict):
            _follow_ids(value, texts, tokens, settings)
        elif _TOKEN_IDS.search(key) and isinstance(value, int | list) and value is not True:
            wanted = value if isinstance(value, list) else [value]
            if not all(isinstance(i, int) for i in wanted) or texts.keys().isdisjoint(wanted):
                continue
            kept = [text for i in wanted if (text := texts.get(i)) is not None and text in tokens]
            found = [tokens[text] for text in kept]
            if not found:
                named = settings.get(key.removesuffix("_id"))
                text = named.get("content") if isinstance(named, dict) else named
                found = [tokens[text]] if isinstance(text, str) and text in tokens else []
            part[key] = found if isinstance(value, list) else next(iter(found), None)


@lru_cache(maxsize=16)
def find_vocabulary(request: VocabularyRequest, checkpoints: Opened) -> Vocabulary:
    """Find the tokens of the merged model.

    Args:
        request: What the recipe says.
        checkpoints: Names and checkpoints of all of the recipe's models.

    Raises:
        RecipeError: if a rule names a token that its model does not have.
        CheckpointError: if a tokenizer is missing or cannot be read.
    """
    named = dict(checkpoints)
    union = request.source == "union"
    donor = request.donor if union else request.source
    tokenizers = _read_tokenizers(request, donor, named)
    rows = {name: named[name].num_token_rows or 0 for name in (*request.merged, *tokenizers)}
    ids: dict[str, Mapping[str, int]] = {
        name: _with_rows(tokenizer.vocab, rows[name]) for name, tokenizer in tokenizers.items()
    }
    own = tokenizers[donor]
    # The donor of a union keeps all its tokens: another model may have the rows that it lacks.
    cut = not union and donor in request.merged
    vocab = dict(ids[donor] if cut else own.vocab)
    following = max(vocab.values(), default=-1) + 1
    others = [name for name in request.merged if name != donor] if union else []
    new = [token for name in others for token in ids[name]]
    for token in (*new, *(token for token, _ in request.tokens)):
        if token not in vocab:
            vocab[token] = following
            following += 1
    _check_rules(request, ids, rows)
    speakers = [name for name, _ in checkpoints if name != donor]
    changed = vocab != own.vocab
    documents = own.with_vocab(vocab, [tokenizers[name] for name in speakers]) if changed else {}
    multiple = request.multiple or 1
    return Vocabulary(
        tokens=vocab,
        size=-(-following // multiple) * multiple,
        donor=donor,
        documents=documents,
        ids=ids,
        spoken={name: tokenizer.vocab for name, tokenizer in tokenizers.items()},
        settings=own.settings,
        rules=request.tokens,
    )


def _read_tokenizers(
    request: VocabularyRequest, donor: str, checkpoints: Mapping[str, Checkpoint]
) -> dict[str, FastTokenizer]:
    """Read all tokenizers; a model without one is taken to have the donor's if its rows fit."""
    found = {name: read_fast_tokenizer(opened.path) for name, opened in checkpoints.items()}
    own = found[donor]
    if own is None:
        raise CheckpointError(
            f"{donor}: there is no tokenizer to take the tokens from (tokenizer.json); add its "
            "files, or choose another model with tokenizer: {source: MODEL}"
        )
    rows = checkpoints[donor].num_token_rows
    for name in request.merged:
        own_rows = checkpoints[name].num_token_rows
        if found[name] is None and own_rows != rows:
            raise CheckpointError(
                f"{name}: it has no tokenizer that tells which tokens its {own_rows} embedding "
                f"rows stand for ({donor} has {rows}); add its tokenizer.json"
            )
    return {name: tokenizer or own for name, tokenizer in found.items()}


def _with_rows(vocab: Mapping[str, int], rows: int) -> Mapping[str, int]:
    """Return the tokens for which there is a row."""
    if max(vocab.values(), default=-1) < rows:
        return vocab
    return {token: i for token, i in vocab.items() if i < rows}


def _check_rules(
    request: VocabularyRequest,
    ids: Mapping[str, Mapping[str, int]],
    rows: Mapping[str, int],
) -> None:
    for token, settings in request.tokens:
        source = settings.source
        if source.model is None:
            continue
        place = f"tokenizer.tokens.{token}.source"
        wanted = source.token or token
        if source.token_id is not None:
            if source.token_id >= rows[source.model]:
                raise RecipeError(
                    f"{place}: {source.model} has {rows[source.model]} embedding rows and none of "
                    f"the id {source.token_id}"
                )
        elif wanted not in ids[source.model]:
            known = nearest(wanted, ids[source.model])
            raise RecipeError(
                f"{place}: {source.model} has no row for the token {wanted!r}; {known}"
            )


@lru_cache(maxsize=64)
def _row_plans(
    vocabulary: Vocabulary,
    models: tuple[str, ...],
    base: str | None,
    order: tuple[str, ...],
    rows: tuple[int, ...],
) -> tuple[tuple[RowPlan, str] | None, ...]:
    """Return the plan of each model and its hash, None where the rows stay as they are.

    Args:
        vocabulary: The merged model's tokens.
        models: The inputs, each model once.
        base: The one that others fall back to.
        order: The models and others that rules name: the sources of the plans.
        rows: Numbers of rows of `order`.
    """
    size = vocabulary.size
    own = torch.full((len(models), size), -1, dtype=torch.int64)
    at = torch.tensor(list(vocabulary.tokens.values()), dtype=torch.int64)
    for k, model in enumerate(models):
        ids = vocabulary.ids[model]
        found = [ids.get(token, -1) for token in vocabulary.tokens]
        own[k, at] = torch.tensor(found, dtype=torch.int64)
        own[k, own[k] >= rows[k]] = -1
    real = torch.zeros(size, dtype=torch.bool)
    real[at] = True
    gaps = (~real[: int(at.max()) + 1]).nonzero().view(-1)
    if len(gaps) and all(vocabulary.ids[model] == vocabulary.tokens for model in models):
        # Ids without a token, of which each model has a row.
        gaps = gaps[gaps < min(rows[: len(models)])]
        own[:, gaps] = gaps
        real[gaps] = True
    has = own >= 0
    count = has.sum(0)
    source = torch.where(count == 1, has.int().argmax(0), torch.where(count > 1, -2, -1))
    if base is not None:
        k = models.index(base)
        source[has[k]] = k
    row = own.gather(0, source.clamp(min=0)[None])[0]
    forced = torch.zeros(size, dtype=torch.bool)
    for token, settings in vocabulary.rules:
        i, wanted = vocabulary.tokens[token], settings.source
        forced[i] = settings.force
        source[i] = -1
        if wanted.model is not None:
            source[i] = order.index(wanted.model)
            known = vocabulary.ids[wanted.model]
            row[i] = known[wanted.token or token] if wanted.token_id is None else wanted.token_id
    filled = (~real).nonzero().view(-1)
    plans: list[tuple[RowPlan, str] | None] = []
    for k in range(len(models)):
        keeps = has[k] & ~forced
        from_source = torch.where(keeps, k, source)
        from_row = torch.where(keeps, own[k], row)
        unmoved = bool((from_source == k).all()) and rows[k] == size
        if unmoved and torch.equal(from_row, torch.arange(size)):
            plans.append(None)
            continue
        averaged = ((from_source == -2) & real).nonzero().view(-1)
        plan = RowPlan(
            size=size,
            taken=dict(_by_source(from_source, from_row, real)),
            averaged=averaged,
            shares={
                j: (places, own[j, averaged[places]])
                for j in range(len(models))
                if len(places := has[j, averaged].nonzero().view(-1))
            },
            filled=filled,
        )
        plans.append((plan, plan.digest()))
    return tuple(plans)


def _by_source(
    source: torch.Tensor, row: torch.Tensor, real: torch.Tensor
) -> Iterator[tuple[int, tuple[torch.Tensor, torch.Tensor]]]:
    for j in sorted(set(source[real].tolist())):
        if j >= 0:
            at = ((source == j) & real).nonzero().view(-1)
            yield j, (at, row[at])
