"""A tiny random Llama with a character tokenizer, and one task of each output type."""

import json
import os
import random
from pathlib import Path

import pytest
import yaml

# Read when the library is imported, so it cannot wait for a fixture.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SYMBOLS = list("0123456789" + LETTERS + " +=>?:,.")


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *SYMBOLS, "\n"]
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **special,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    fast.save_pretrained(folder)


def make_checkpoint(folder: Path, seed: int, steps: int = 0, **overrides: object) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "initializer_range": 0.1,
            **overrides,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    make_tokenizer(folder)
    if steps:
        learn(model, folder, steps)
    model.save_pretrained(folder)
    return folder


def learn(model, folder: Path, steps: int) -> None:
    """Teach a model to answer half of the items: a score of 0 would prove little."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [f"{row['text']}>{row['answer']}</s>" for row in documents(1500, seed=9)]
    batch = tokenizer(rows, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        rows = slice(step * 50 % 1500, step * 50 % 1500 + 50)
        loss = model(
            input_ids=batch["input_ids"][rows],
            attention_mask=batch["attention_mask"][rows],
            labels=labels[rows],
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint_a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("a"), seed=1, steps=60)


@pytest.fixture(scope="session")
def checkpoint_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("b"), seed=2, steps=40)


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def documents(count: int, seed: int) -> list[dict]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 6)))
        choices = rng.sample([*LETTERS[:10], "ab", "ba", "abc"], 4)
        rows.append(
            {"text": word, "answer": word[-1:], "choices": choices, "gold": rng.randrange(4)}
        )
    return rows


def task(name: str, data: str, **keys: object) -> dict:
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data, "train": "data/shots.jsonl"}},
        "test_split": "test",
        "doc_to_text": "{{text}}>",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        **keys,
    }


def metric(name: str, aggregation: str = "mean", *, higher: bool = True) -> dict:
    return {"metric": name, "aggregation": aggregation, "higher_is_better": higher}


def make_tasks(folder: Path) -> Path:
    """Write one local task of each output type, with its data."""
    data = folder / "data"
    data.mkdir(parents=True)
    write_jsonl(data / "test.jsonl", documents(60, seed=0))
    write_jsonl(data / "other.jsonl", documents(60, seed=1))
    write_jsonl(data / "shots.jsonl", documents(20, seed=2))
    (folder / "results.py").write_text(
        "def bits(doc, results):\n"
        "    nats = -results[0] / len(doc['text'])\n"
        "    return {'nats': nats, 'pair': (results[0], 3), 'half': {'nats': nats}, 'local': 1}\n"
        "def best_half(kept):\n"
        "    nats = sorted(each['nats'] for each in kept)[: len(kept) // 2]\n"
        "    return sum(nats) / len(nats)\n"
        "def make():\n"
        "    def inner(kept):\n"
        "        return 1.0\n"
        "    return inner\n"
        "local = make()\n",
        encoding="utf-8",
    )
    generation = {"until": ["\n"], "max_gen_toks": 4, "do_sample": False}
    regex = {"function": "regex", "regex_pattern": "([a-s])"}
    first = {"function": "take_first"}
    tasks = [
        task(
            "gen",
            "data/test.jsonl",
            output_type="generate_until",
            generation_kwargs=generation,
            metric_list=[metric("exact_match"), metric("chrf", "chrf")],
        ),
        task(
            "yes_no",
            "data/other.jsonl",
            output_type="multiple_choice",
            doc_to_choice=["a", "b"],
            doc_to_target="{{gold % 2}}",
            metric_list=[
                metric("acc"),
                metric("f1", "f1"),
                metric("mcc", "matthews_corrcoef"),
                metric("brier_score", "brier_score", higher=False),
            ],
        ),
        task(
            "text",
            "data/test.jsonl",
            output_type="loglikelihood_rolling",
            doc_to_text="",
            doc_to_target="{{text}} {{answer}}",
            metric_list=[
                metric("word_perplexity", "weighted_perplexity", higher=False),
                metric("byte_perplexity", "weighted_perplexity", higher=False),
                metric("bits_per_byte", "bits_per_byte", higher=False),
            ],
        ),
        task(
            "gen_filters",
            "data/other.jsonl",
            output_type="generate_until",
            generation_kwargs=generation,
            training_split="train",
            metric_list=[metric("exact_match")],
            filter_list=[
                {"name": "strict", "filter": [first]},
                {"name": "letter", "filter": [regex, first]},
            ],
        ),
        task(
            "choice",
            "data/test.jsonl",
            output_type="multiple_choice",
            doc_to_choice="choices",
            doc_to_target="gold",
            training_split="train",
            metric_list=[metric("acc"), metric("acc_norm")],
        ),
        task(
            "last_word",
            "data/other.jsonl",
            output_type="loglikelihood",
            training_split="train",
            tag="playground_tag",
            metric_list=[metric("acc"), metric("perplexity", "perplexity", higher=False)],
        ),
    ]
    for entry in tasks:
        path = folder / f"{entry['task']}.yaml"
        path.write_text(yaml.safe_dump(entry, sort_keys=False), encoding="utf-8")
    rolling = task(
        "rolling",
        "data/other.jsonl",
        output_type="loglikelihood_rolling",
        training_split="train",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[metric("nats", higher=False), metric("pair", "weighted_perplexity")],
    )
    for name, function in (("half", "best_half"), ("local", "local")):
        rolling["metric_list"].append(metric(name, f"!function results.{function}", higher=False))
    text = yaml.safe_dump(rolling, sort_keys=False) + "process_results: !function results.bits\n"
    text = text.replace("'!function", "!function").replace("best_half'", "best_half")
    text = text.replace("results.local'", "results.local")
    (folder / "rolling.yaml").write_text(text, encoding="utf-8")
    unsafe = task("runs_code", "data/test.jsonl", output_type="generate_until", unsafe_code=True)
    (folder / "runs_code.yaml").write_text(yaml.safe_dump(unsafe), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def task_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tasks(tmp_path_factory.mktemp("space") / "tasks")
