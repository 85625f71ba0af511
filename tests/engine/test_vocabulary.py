"""Models with different vocabularies: rows by token, the tokenizer, the config."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.checkpoints import Checkpoint, open_checkpoint
from evomerge.engine import Bank, MergePlan, materialize, merge_to_disk, plan_merge
from evomerge.errors import CheckpointError, EvomergeError, RecipeError
from evomerge.recipe import Recipe, parse_recipe
from tests.engine import reference

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BASE, A, VB = "models/llama2_base", "models/llama2_a", "models/llama2_vb"
EXTRA, PADDED, SHORT = (f"models/llama2_vb_{name}" for name in ("extra", "padded", "short"))


def linear(*names: str, **changes: Any) -> Recipe:
    weights = (0.6, 0.4, 0.3)[: len(names)]
    models = [
        {"model": n, "parameters": {"weight": w}} for n, w in zip(names, weights, strict=True)
    ]
    data = {"merge_method": "linear", "base_model": names[0], "models": models, **changes}
    return parse_recipe({key: value for key, value in data.items() if value is not None})


def merged(recipe: Recipe, out: Path) -> tuple[MergePlan, dict[str, torch.Tensor], dict[str, int]]:
    plan = merge_to_disk(recipe, out, seed=3)
    return plan, load_file(out / "model.safetensors"), vocab(out)


def vocab(folder: Path | str) -> dict[str, int]:
    from tokenizers import Tokenizer

    found: dict[str, int] = Tokenizer.from_file(str(Path(folder) / "tokenizer.json")).get_vocab()
    return found


def row(model: str, token: str, name: str = EMBEDDING) -> torch.Tensor:
    return open_checkpoint(model).read(name)[vocab(model)[token]]


def variant(source: str, goal: Path, rows: int | None = None, **config: Any) -> str:
    """Copy a model; cut or lengthen its embedding and head."""
    shutil.copytree(source, goal)
    if rows is not None:
        tensors = load_file(goal / "model.safetensors")
        for name in (EMBEDDING, HEAD):
            more = torch.full((max(rows - len(tensors[name]), 0), 32), 9.0)
            tensors[name] = torch.cat([tensors[name][:rows], more])
        save_file(tensors, goal / "model.safetensors")
        config["vocab_size"] = rows
    data = json.loads((goal / "config.json").read_text())
    (goal / "config.json").write_text(json.dumps({**data, **config}))
    return str(goal)


TOKENIZERS: dict[str, dict[str, Any]] = {
    "union": {"source": "union"},
    "union, padded": {"source": "union", "pad_to_multiple_of": 16},
    "other": {"source": VB},
    "tokens": {
        "source": "base",
        "tokens": {
            "<|im_end|>": {"source": EXTRA},
            "the": {"source": {"kind": "zero"}, "force": True},
            "in": {"source": {"model": VB, "token_id": 4}, "force": True},
        },
    },
}


@pytest.mark.parametrize("base", [BASE, None])
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("method", ["linear", "ties", "slerp", "dare_ties"])
def test_memory_and_disk_give_the_same_bits(
    method: str, kind: str, base: str | None, tmp_path: Path
) -> None:
    if method == "slerp":
        models: list[dict[str, Any]] = [{"model": BASE}, {"model": VB}]
    else:
        own = {"weight": 0.7, "density": 0.5}
        models = [{"model": name, "parameters": own} for name in (VB, EXTRA, A)]
    if base is None and method != "linear":
        base = VB
    data = {
        "merge_method": method,
        "base_model": base,
        "models": models,
        "parameters": {"t": 0.3, "weight": 0.5},
    }
    tokenizer = TOKENIZERS[kind]
    if base is None and kind == "tokens":
        tokenizer = {**tokenizer, "source": A}
    recipe = parse_recipe({**data, "tokenizer": tokenizer, "dtype": "bfloat16"})
    _, written, _ = merged(recipe, tmp_path / "out")
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    bank = Bank(checkpoints, "cpu")
    # Candidates with another vocabulary in the same bank: facts are not mixed up.
    other = parse_recipe({**recipe.to_dict(), "tokenizer": {"source": VB}})
    for wanted in (other, recipe, other, recipe):
        plan = plan_merge(wanted, checkpoints)
        out = {t.name: torch.empty(t.shape, dtype=getattr(torch, t.dtype)) for t in plan.outputs}
        materialize(plan, bank, out, seed=3)
    assert out.keys() == written.keys()
    assert all(torch.equal(out[name], tensor) for name, tensor in written.items())


def test_a_missing_token_gets_the_row_of_the_base_or_the_average(tmp_path: Path) -> None:
    recipe = linear(BASE, VB, EXTRA, tokenizer={"source": "union"}, base_model=None)
    plan, tensors, ids = merged(recipe, tmp_path / "out")
    assert plan.config["vocab_size"] == len(ids) == tensors[HEAD].shape[0] == 124
    weights = torch.tensor([0.6, 0.4, 0.3]) / 1.3
    for name in (EMBEDDING, HEAD):
        qu = (row(VB, "qu", name) + row(EXTRA, "qu", name)) / 2
        wanted = weights[0] * qu
        wanted += weights[1] * row(VB, "qu", name) + weights[2] * row(EXTRA, "qu", name)
        torch.testing.assert_close(tensors[name][ids["qu"]], wanted, rtol=0, atol=1e-6)
        start = row(EXTRA, "<|im_start|>", name)
        torch.testing.assert_close(tensors[name][ids["<|im_start|>"]], start, rtol=0, atol=1e-6)
    with_base = linear(VB, BASE, EXTRA, tokenizer={"source": "union"})
    _, tensors, ids = merged(with_base, tmp_path / "based")
    wanted = weights[0] * row(VB, "qu") + weights[1] * row(VB, "qu") + weights[2] * row(EXTRA, "qu")
    torch.testing.assert_close(tensors[EMBEDDING][ids["qu"]], wanted, rtol=0, atol=1e-6)


def test_tokens_by_name(tmp_path: Path) -> None:
    data = reference.recipe_data("tok_tokens")
    plan, tensors, ids = merged(parse_recipe(data), tmp_path / "out")
    assert plan.config["vocab_size"] == len(ids) == 100
    for name in (EMBEDDING, HEAD):
        rows = {token: tensors[name][i] for token, i in ids.items()}
        assert torch.equal(rows["<|new|>"], torch.zeros(32))
        wanted = {
            "<|im_start|>": row(EXTRA, "<|im_start|>", name),
            # The extra model has this one, so that only the base takes the named row.
            "<|im_end|>": 0.6 * row(BASE, "</s>", name) + 0.4 * row(EXTRA, "<|im_end|>", name),
            "<|id|>": open_checkpoint(EXTRA).read(name)[7],
            "the": row(EXTRA, "the", name),
            "an": 0.6 * row(BASE, "an", name) + 0.4 * row(EXTRA, "an", name),
        }
        for token, expected in wanted.items():
            torch.testing.assert_close(rows[token], expected, rtol=0, atol=1e-6, msg=token)


def test_a_row_of_a_model_that_is_not_merged(tmp_path: Path) -> None:
    tokens = {"qu": {"source": VB}}
    plan, tensors, ids = merged(
        linear(BASE, A, tokenizer={"source": "base", "tokens": tokens}), tmp_path / "out"
    )
    assert ids["qu"] == 96
    assert plan.config["vocab_size"] == 97
    torch.testing.assert_close(tensors[HEAD][96], row(VB, "qu", HEAD), rtol=0, atol=1e-6)


def test_equal_vocabularies_are_not_rearranged(tmp_path: Path) -> None:
    plain = plan_merge(linear(BASE, A), reference.checkpoints(linear(BASE, A)))
    for tokenizer in ({"source": "union"}, {"source": "base"}, {"source": A}, {}):
        recipe = linear(BASE, A, tokenizer=tokenizer)
        plan = plan_merge(recipe, reference.checkpoints(recipe))
        assert all(tensor.rows is None for tensor in plan.outputs)
        assert plan.config == plain.config
        assert plan.tokenizer.documents == {}
    _, tensors, _ = merged(linear(BASE, A), tmp_path / "plain")
    _, others, _ = merged(linear(BASE, A, tokenizer_source="union"), tmp_path / "union")
    assert all(torch.equal(others[name], tensor) for name, tensor in tensors.items())


def test_padded_rows_are_left_out_and_missing_ones_are_the_bases(tmp_path: Path) -> None:
    long, cut = variant(A, tmp_path / "long", 112), variant(A, tmp_path / "cut", 64)
    for i, other in enumerate((long, cut)):
        with pytest.raises(CheckpointError, match=r"\[96, 32\].*\n.*tokenizer|tokenizer.*\n.*96"):
            merged(linear(BASE, other), tmp_path / "refused")
        recipe = linear(BASE, other, tokenizer={"source": "base"})
        plan, tensors, _ = merged(recipe, tmp_path / f"out{i}")
        assert plan.config["vocab_size"] == 96
        assert plan.tokenizer.documents == {}
        torch.testing.assert_close(
            tensors[HEAD][40],
            0.6 * row(BASE, ".", HEAD) + 0.4 * row(A, ".", HEAD),
            rtol=0,
            atol=1e-6,
        )
        last = 0.6 * row(BASE, "<r5>") + 0.4 * row(BASE if other == cut else A, "<r5>")
        torch.testing.assert_close(tensors[EMBEDDING][95], last, rtol=0, atol=1e-6)


def test_tokens_beyond_the_rows_of_the_donor_are_dropped(tmp_path: Path) -> None:
    """Its tokenizer has 82 tokens and its embedding 80 rows."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plan, tensors, ids = merged(
        linear(SHORT, EXTRA, tokenizer={"source": "base"}), tmp_path / "out"
    )
    assert len(ids) == len(tensors[EMBEDDING]) == plan.config["vocab_size"] == 80
    auto: Any = AutoTokenizer
    tokenizer = auto.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == 80
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    model(**tokenizer("the quick <|im_start|>", return_tensors="pt"))
    # Of a union they stay: another model may have the rows.
    _, tensors, ids = merged(linear(SHORT, EXTRA, tokenizer={"source": "union"}), tmp_path / "both")
    start = tensors[HEAD][ids["<|im_start|>"]]
    torch.testing.assert_close(start, row(EXTRA, "<|im_start|>", HEAD), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_the_embedding_that_an_encoder_and_a_decoder_share(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sources = []
    for name, rows in ((BASE, 96), (EXTRA, 82)):
        config = T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=rows)
        sources.append(tmp_path / str(rows))
        T5ForConditionalGeneration(config).save_pretrained(sources[-1])
        shutil.copy(Path(name) / "tokenizer.json", sources[-1])
    recipe = linear(*map(str, sources), tokenizer={"source": "union"})
    plan, tensors, tokens = merged(recipe, tmp_path / "out")
    assert plan.config["vocab_size"] == len(tokens) == len(tensors["shared.weight"]) == 124
    place, name = tokens["the"], "shared.weight"
    wanted = 0.6 * row(str(sources[0]), "the", name) + 0.4 * row(str(sources[1]), "the", name)
    assert torch.allclose(tensors[name][place], wanted, atol=1e-6)
    _, information = T5ForConditionalGeneration.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not information["missing_keys"]
    assert not information["unexpected_keys"]


@pytest.mark.parametrize(
    "name",
    ["final_logits_bias", "cls.predictions.bias", "decoder.bias", "lm_head.decoder.weight"],
)
@pytest.mark.parametrize("tokenizer", ["union", "union, padded", "other"])
def test_the_other_parts_of_a_head(name: str, tokenizer: str, tmp_path: Path) -> None:
    """Bart's bias lies on its side, Bert's is no `lm_head`: each is made like a column here."""
    paths = []
    for source in (BASE, VB):
        path = Path(variant(source, tmp_path / source))
        tensors = load_file(path / "model.safetensors")
        column = tensors[EMBEDDING][:, 0].clone()
        tensors[name] = column[None] if name == "final_logits_bias" else column
        save_file(tensors, path / "model.safetensors")
        paths.append(str(path))
    source = "union" if "union" in tokenizer else paths[1]
    padded = {"pad_to_multiple_of": 64} if "padded" in tokenizer else {}
    recipe = linear(*paths, tokenizer={"source": source, **padded})
    _, tensors, _ = merged(recipe, tmp_path / "out")
    assert torch.equal(tensors[name].view(-1), tensors[EMBEDDING][:, 0])
    assert len(tensors[name].shape) == (2 if name == "final_logits_bias" else 1)


@pytest.mark.parametrize("rest", ["text_decoder", "default"])
def test_head_and_embedding_in_modules_of_their_own(rest: str, tmp_path: Path) -> None:
    whole = linear(BASE, VB, tokenizer={"source": "union"}).to_dict()
    models = whole.pop("models")
    modules = {name: {"models": models} for name in ("embed_tokens", rest)}
    _, tensors, _ = merged(parse_recipe({**whole, "modules": modules}), tmp_path / "modules")
    _, expected, _ = merged(parse_recipe({**whole, "models": models}), tmp_path / "whole")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_tied_embeddings(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tied = "models/tied_base"
    other = tmp_path / "other"
    shutil.copytree(tied, other)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(f"{VB}/{name}", other / name)
    tensors = load_file(other / "model.safetensors")
    tensors[EMBEDDING] = tensors[EMBEDDING][:80] + 1
    save_file(tensors, other / "model.safetensors")
    recipe = linear(tied, str(other), tokenizer={"source": "union"})
    plan, tensors, ids = merged(recipe, tmp_path / "out")
    assert HEAD not in tensors
    assert plan.config["tie_word_embeddings"]
    assert len(tensors[EMBEDDING]) == len(ids) == 122
    model, found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not found["missing_keys"]
    assert model.get_output_embeddings().weight.shape == (122, 32)


def test_the_union_tokenizer_loads_and_cuts_known_text_as_before(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    merged(linear(BASE, VB, EXTRA, tokenizer={"source": "union"}), tmp_path / "out")
    auto: Any = AutoTokenizer
    tokenizer, old = auto.from_pretrained(tmp_path / "out"), auto.from_pretrained(BASE)
    known = vocab(tmp_path / "out")
    assert tokenizer.get_vocab() == known
    assert {token: known[token] for token in old.get_vocab()} == old.get_vocab()
    assert sorted(known.values()) == list(range(124))
    assert tokenizer.tokenize("the rest of it") == old.tokenize("the rest of it")
    text = "the quick fox <|im_start|> know"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert {known["<|im_start|>"], known["qu"], known["kn"]} < set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the quick fox  know"
    assert tokenizer.eos_token_id == known["</s>"] == 1


def test_special_ids_follow_their_tokens(tmp_path: Path) -> None:
    base = variant(BASE, tmp_path / "base", bos_token_id=0, eos_token_id=[1, 2], pad_token_id=90)
    generation = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1, "max_length": 9}
    (Path(base) / "generation_config.json").write_text(json.dumps(generation))
    out = tmp_path / "out"
    plan, _, _ = merged(linear(base, VB, tokenizer={"source": VB}), out)
    config = json.loads((out / "config.json").read_text())
    # `<r0>`, the base's padding, is no token any more: the tokenizer's own one takes its place.
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (
        1,
        [2, 0],
        3,
    )
    assert config["vocab_size"] == 80
    wanted = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": -1, "max_length": 9}
    assert json.loads((out / "generation_config.json").read_text()) == wanted
    assert plan.generation_config == wanted
    same, _, _ = merged(linear(base, VB, tokenizer={"source": "union"}), tmp_path / "union")
    assert same.config["eos_token_id"] == [1, 2]
    assert same.generation_config == generation


def test_the_size_in_a_text_config_follows() -> None:
    recipe = linear(BASE, VB, tokenizer={"source": "union"})
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    nested = Checkpoint(BASE, Path(BASE))
    inner = {key: nested.config[key] for key in ("vocab_size", "num_hidden_layers", "eos_token_id")}
    nested.config = {"model_type": "x", "text_config": inner, "vision_config": {"vocab_size": 7}}
    followed = plan_merge(recipe, {**checkpoints, BASE: nested}).config
    assert followed["text_config"]["vocab_size"] == plan.config["vocab_size"] == 122
    assert "vocab_size" not in followed
    assert followed["vision_config"]["vocab_size"] == 7


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"<pad>": {"source": BASE}}, "tokenizer.tokens.<pad>.source: .*no row for .*'<pad>'"),
        (
            {"x": {"source": {"model": VB, "token": "<pda>"}}},
            "no row for the token '<pda>'; did you mean '<pad>'",
        ),
        ({"x": {"source": {"model": VB, "token_id": 80}}}, "has 80 embedding rows and none of"),
        ({"qqq": {"source": "models/llama_a"}}, "no row for the token 'qqq'"),
    ],
)
def test_a_row_that_is_not_there(tokens: dict[str, Any], message: str, tmp_path: Path) -> None:
    recipe = linear(BASE, VB, tokenizer={"source": "union", "tokens": tokens})
    with pytest.raises(RecipeError, match=message):
        merge_to_disk(recipe, tmp_path / "out", seed=0)


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    plain, other = variant(A, tmp_path / "plain"), variant(VB, tmp_path / "other")
    for folder in (plain, other):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (Path(folder) / name).unlink()
    # With as many rows as the base it is taken for a fine-tune of it.
    recipe = linear(BASE, plain, tokenizer={"source": "base"})
    plan = plan_merge(recipe, {BASE: open_checkpoint(BASE), plain: open_checkpoint(plain)})
    assert all(tensor.rows is None for tensor in plan.outputs)
    with pytest.raises(CheckpointError, match=r"other: it has no tokenizer .* 80 embedding rows"):
        merge_to_disk(linear(BASE, other, tokenizer={}), tmp_path / "out", seed=0)
    with pytest.raises(CheckpointError, match="other: there is no tokenizer to take the tokens"):
        merge_to_disk(linear(other, BASE, tokenizer={}), tmp_path / "out", seed=0)


@pytest.mark.parametrize("name", ["alpaca", "chatml", "exaone", "llama3", "mistral"])
def test_known_chat_templates(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    formats = {
        "alpaca": "Be brief\n\n### Instruction:\nHi\n\n### Response:\nHello</s>"
        "\n\n### Instruction:\nMore?\n\n### Response:\n",
        "chatml": "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nMore?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "exaone": "[|system|]Be brief[|endofturn|]\n[|user|]Hi\n[|assistant|]Hello[|endofturn|]\n"
        "[|user|]More?\n[|assistant|]",
        "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nMore?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "mistral": "<s>[INST] Be brief\n\nHi [/INST] Hello</s>[INST] More? [/INST]",
    }
    recipe = linear(BASE, A, tokenizer={"source": "base"}, chat_template=name)
    plan = plan_merge(recipe, reference.checkpoints(recipe))
    auto: Any = AutoTokenizer
    tokenizer = auto.from_pretrained(plan.tokenizer.place(tmp_path))
    texts = (("system", "Be brief"), ("user", "Hi"), ("assistant", "Hello"), ("user", "More?"))
    chat = [{"role": role, "content": text} for role, text in texts]
    shown = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert shown == formats[name]


def test_a_chat_template_from_a_file_or_the_models(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine {{ messages }}")
    base, other = variant(BASE, tmp_path / "base"), variant(A, tmp_path / "other")
    (Path(other) / "chat_template.jinja").unlink()
    settings = json.loads((Path(other) / "tokenizer_config.json").read_text())
    settings["chat_template"] = "theirs {{ messages }}"
    (Path(other) / "tokenizer_config.json").write_text(json.dumps(settings))
    third = variant(other, tmp_path / "third")
    for wanted, text in (
        (str(tmp_path / "mine.txt"), "mine {{ messages }}"),
        ("auto", "theirs {{ messages }}"),
        ("{{ x }}", "{{ x }}"),
    ):
        recipe = linear(base, other, third, chat_template=wanted)
        plan = plan_merge(recipe, {name: open_checkpoint(name) for name in (base, other, third)})
        assert plan.tokenizer.documents == {"chat_template.jinja": text}
        assert "chat_template.jinja" not in {file.name for file in plan.tokenizer.files}
    with pytest.raises(EvomergeError, match="no known template.*did you mean 'chatml'.*mistral"):
        plan_merge(linear(BASE, A, chat_template="chatlm"), reference.checkpoints(linear(BASE, A)))
