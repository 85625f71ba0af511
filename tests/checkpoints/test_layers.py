"""Layers found from names and config, for any architecture."""

from typing import Any

import pytest

from evomerge.checkpoints import LayerStack, is_embedding, is_head, num_layers_key
from evomerge.checkpoints.layers import find_layers


def names(*prefixes: str, count: int) -> list[tuple[str, int]]:
    return [(f"{prefix}.{i}.w", 10) for prefix in prefixes for i in range(count)]


@pytest.mark.parametrize(
    ("tensors", "config", "wanted"),
    [
        (names("model.layers", count=3), {"num_hidden_layers": 3}, ("model.layers", 3)),
        (names("transformer.h", count=2), {"n_layer": 2}, ("transformer.h", 2)),
        (names("backbone.layers", count=2), {}, ("backbone.layers", 2)),
        # an extra layer for multi-token prediction
        (names("model.layers", count=4), {"num_hidden_layers": 3}, ("model.layers", 3)),
        # as many experts as layers
        (
            [(f"model.layers.{i}.mlp.experts.{j}.w", 1) for i in range(2) for j in range(2)],
            {"num_hidden_layers": 2},
            ("model.layers", 2),
        ),
        # two towers of the same depth, the larger one for pictures
        (
            [*names("model.language_model.layers", count=2), *names("vision.blocks", count=2) * 9],
            {"text_config": {"num_hidden_layers": 2}, "num_hidden_layers": 7},
            ("model.language_model.layers", 2),
        ),
        ([("embed.weight", 5)], {"num_hidden_layers": 3}, ("", 0)),
        (names("model.layers", count=2), {"num_hidden_layers": 3}, ("", 0)),
    ],
)
def test_find_layers(
    tensors: list[tuple[str, int]], config: dict[str, Any], wanted: tuple[str, int]
) -> None:
    assert find_layers(tensors, config) == LayerStack(*wanted)


def test_split_and_join() -> None:
    stack = LayerStack("model.layers", 3)
    assert stack.split("model.layers.2.mlp.experts.1.up.weight") == (2, "mlp.experts.1.up.weight")
    assert stack.join(5, "mlp.w") == "model.layers.5.mlp.w"
    for name in (
        "model.layers_norm.0.w",
        "model.norm.weight",
        "model.layers.x.w",
        "model.layers.1",
    ):
        assert stack.split(name) is None
    assert LayerStack("", 0).split("a.0.b") is None


def test_number_of_layers_of_the_language_tower() -> None:
    config = {"num_hidden_layers": 1, "text_config": {"n_layers": 2}}
    assert num_layers_key(config) == ("text_config", "n_layers")
    assert num_layers_key({"x": 1}) is None


@pytest.mark.parametrize(
    "name", ["lm_head.weight", "embed_out.weight", "output.weight", "head.bias"]
)
def test_heads(name: str) -> None:
    assert is_head(name)
    assert not is_embedding(name)


@pytest.mark.parametrize(
    "name", ["encoder.layers.0.self_attn.output.weight", "cls.predictions.bias", "head.norm.weight"]
)
def test_what_is_no_head(name: str) -> None:
    assert not is_head(name)


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "gpt_neox.embed_in.weight",
        "transformer.wte.weight",
        "shared.weight",
    ],
)
def test_embeddings(name: str) -> None:
    assert is_embedding(name)
    assert not is_head(name)
