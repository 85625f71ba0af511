"""Trains the playground: a base and three experts, small enough to merge and score in seconds.

The base has seen three skills a little; each expert was fine-tuned from the base until it masters
its own skill and has lost much of the other two. The checkpoints are ordinary Hugging Face ones
(Llama architecture, bfloat16 safetensors, a fast tokenizer of single characters), and the task
data that scores them with lm-eval is written beside the task files.
"""

import argparse
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
MODELS_FOLDER = ROOT / "search_spaces" / "playground"
DATA_FOLDER = ROOT / "tasks" / "playground"

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARACTERS = "\n =+0123456789" + LETTERS
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>", "<unk>")
MAX_TOKENS = 24
"""Length of the longest training sequence: ``<s>sort abcdefg=abcdefg</s>``, and one to spare."""

NUM_TEST_ITEMS = 1500
DATA_SEED = 20240229
"""The task data is the same whatever ``--seed`` says: it is what the models were kept from."""


# Skills: each draws a (prompt, answer) pair.


def draw_addition(rng: np.random.Generator) -> tuple[str, str]:
    """Draw two numbers below 50 and their sum, all with two digits."""
    a, b = rng.integers(0, 50, size=2).tolist()
    return f"{a:02}+{b:02}=", f"{a + b:02}"


def draw_word(rng: np.random.Generator) -> str:
    """Draw four to seven letters."""
    return "".join(LETTERS[i] for i in rng.integers(0, 26, size=rng.integers(4, 8)))


def draw_reversal(rng: np.random.Generator) -> tuple[str, str]:
    """Draw a word and the word read backwards."""
    word = draw_word(rng)
    return f"rev {word}=", word[::-1]


def draw_sorting(rng: np.random.Generator) -> tuple[str, str]:
    """Draw a word and its letters in alphabetical order."""
    word = draw_word(rng)
    return f"sort {word}=", "".join(sorted(word))


SKILLS: Mapping[str, Callable[[np.random.Generator], tuple[str, str]]] = {
    "add": draw_addition,
    "reverse": draw_reversal,
    "sort": draw_sorting,
}


def is_easy(prompt: str) -> bool:
    """Say whether this is the easy part of its skill: no carry, or four or five letters."""
    if "+" in prompt:
        return int(prompt[1]) + int(prompt[4]) < 10
    return len(prompt.split()[1]) <= len("abcde=")


# Task data.


def near_miss(answer: str, rng: np.random.Generator) -> str:
    """Return a sorted word with one likely mistake: two neighbours swapped or one letter off."""
    letters = list(answer)
    i = int(rng.integers(0, len(letters) - 1))
    if rng.random() < 0.5:
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
        return "".join(letters)
    other = LETTERS.index(letters[i]) + (1 if rng.random() < 0.5 else -1)
    letters[i] = LETTERS[other % 26]
    return "".join(letters)


def make_test_items(skill: str) -> list[dict[str, object]]:
    """Draw the test items of a skill; no prompt occurs twice.

    Returns:
        For sorting ``{"prompt", "choices", "answer"}`` with the index of the right choice, else
        ``{"prompt", "answer"}``.
    """
    rng = np.random.default_rng([DATA_SEED, list(SKILLS).index(skill)])
    items: dict[str, dict[str, object]] = {}
    while len(items) < NUM_TEST_ITEMS:
        prompt, answer = SKILLS[skill](rng)
        if prompt in items:
            continue
        if skill != "sort":
            items[prompt] = {"prompt": prompt, "answer": answer}
            continue
        wrong: list[str] = []
        while len(wrong) < 3:
            choice = near_miss(answer, rng)
            if choice != answer and choice not in wrong:
                wrong.append(choice)
        gold = int(rng.integers(0, 4))
        items[prompt] = {
            "prompt": prompt,
            "choices": [*wrong[:gold], answer, *wrong[gold:]],
            "answer": gold,
        }
    return list(items.values())


def write_test_items(folder: Path) -> None:
    """Write ``add.jsonl``, ``reverse.jsonl`` and ``sort.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    for skill in SKILLS:
        lines = [json.dumps(item) + "\n" for item in make_test_items(skill)]
        (folder / f"{skill}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


# Training.


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training.

    Attributes:
        mixture: How often each skill is drawn, relative to the others.
        num_steps: Optimizer steps of ``BATCH_SIZE`` sequences.
        horizon: Steps after which the cosine would bring the learning rate to 0. A phase that
            stops before it leaves the model half trained.
        learning_rate: The highest rate, reached after a warm-up of 5 % of the horizon.
    """

    mixture: Mapping[str, float]
    num_steps: int
    horizon: int
    learning_rate: float


BATCH_SIZE = 64

CHECKPOINTS: Mapping[str, tuple[Phase, ...]] = {
    # The easy parts first, then a little of everything: a base that has seen each skill's way, but
    # not enough of it. Experts of a base without the second phase cannot be merged.
    "base": (
        Phase(
            mixture={"easy add": 3, "easy reverse": 2, "easy sort": 1},
            num_steps=600,
            horizon=600,
            learning_rate=5e-3,
        ),
        Phase(
            mixture={"add": 3, "reverse": 2, "sort": 1},
            num_steps=140,
            horizon=300,
            learning_rate=1e-3,
        ),
    ),
    # Short and gentle: experts that drift too far cannot be merged either.
    "add": (Phase(mixture={"add": 1}, num_steps=150, horizon=150, learning_rate=8e-4),),
    "reverse": (Phase(mixture={"reverse": 1}, num_steps=150, horizon=150, learning_rate=8e-4),),
    "sort": (Phase(mixture={"sort": 1}, num_steps=150, horizon=150, learning_rate=5e-4),),
}


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Build the tokenizer: one token a character, ``<s>`` put in front as Llama's does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *CHARACTERS))}
    bos, eos, pad, unk = SPECIAL_TOKENS
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=unk))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A $B",
        special_tokens=[(bos, vocabulary[bos])],
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        unk_token=unk,
        clean_up_tokenization_spaces=False,
        model_max_length=128,
    )


def make_model(tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    """Build the Llama model with random weights, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


class Sampler:
    """Draws training batches; a test item's prompt is never among them."""

    def __init__(self, mixture: Mapping[str, float], tokenizer: "PreTrainedTokenizerFast") -> None:
        self._sources = tuple(mixture)
        weights = np.array([mixture[skill] for skill in self._sources], dtype=np.float64)
        self._probabilities = weights / weights.sum()
        self._held_out = {item["prompt"] for skill in SKILLS for item in make_test_items(skill)}
        self._vocabulary = tokenizer.get_vocab()

    def batch(
        self, size: int, rng: np.random.Generator
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """Draw ``size`` sequences.

        Returns:
            Token ids, attention mask and labels, each (size, MAX_TOKENS). Only the answer and the
            token that ends it have labels; elsewhere they are -100.
        """
        import torch

        bos, eos, pad = (self._vocabulary[token] for token in SPECIAL_TOKENS[:3])
        ids = np.full((size, MAX_TOKENS), pad)
        labels = np.full((size, MAX_TOKENS), -100)
        for row in range(size):
            prompt, answer = self._draw(rng)
            start = 1 + len(prompt)
            end = start + len(answer) + 1
            text = [self._vocabulary[character] for character in prompt + answer]
            ids[row, :end] = [bos, *text, eos]
            labels[row, start:end] = ids[row, start:end]
        tokens = torch.from_numpy(ids)
        return tokens, (tokens != pad).long(), torch.from_numpy(labels)

    def _draw(self, rng: np.random.Generator) -> tuple[str, str]:
        source = self._sources[rng.choice(len(self._sources), p=self._probabilities)]
        skill = source.removeprefix("easy ")
        while True:
            prompt, answer = SKILLS[skill](rng)
            if prompt not in self._held_out and (skill == source or is_easy(prompt)):
                return prompt, answer


def train(
    name: str, phases: Sequence[Phase], *, start: Path | None, seed: int, progress: "Progress"
) -> "tuple[LlamaForCausalLM, PreTrainedTokenizerFast]":
    """Train one checkpoint on one thread and return it in bfloat16.

    Args:
        name: The checkpoint's name; with ``seed`` it decides all random numbers.
        phases: What is trained on, one phase after the other.
        start: Folder of the checkpoint to start from; None starts from random weights.
        seed: Any integer from 0.
        progress: Where the progress line is shown.
    """
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    stream = list(CHECKPOINTS).index(name)
    torch.manual_seed(seed * len(CHECKPOINTS) + stream)
    rng = np.random.default_rng([seed, stream])

    tokenizer = make_tokenizer()
    if start is None:
        model = make_model(tokenizer)
    else:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    num_steps = sum(phase.num_steps for phase in phases)
    bar = progress.add_task(name, total=num_steps, loss=math.nan)
    for phase in phases:
        sampler = Sampler(phase.mixture, tokenizer)
        for step in range(phase.num_steps):
            for group in optimizer.param_groups:
                group["lr"] = phase.learning_rate * _schedule(step, phase.horizon)
            ids, mask, labels = sampler.batch(BATCH_SIZE, rng)
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            progress.update(bar, advance=1, loss=loss.item())
    return model.to(torch.bfloat16).eval(), tokenizer


def _schedule(step: int, horizon: int) -> float:
    """Return the share of the learning rate: linear over the first 5 %, then a cosine to 0."""
    warm_up = max(1, horizon // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, horizon - warm_up)))


def save(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Write a checkpoint beside ``folder`` and then move it there, replacing what was there."""
    from transformers import GenerationConfig

    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    if folder.exists():
        shutil.rmtree(folder)
    for file in beside.iterdir():
        file.chmod(0o644)
    beside.rename(folder)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Train the playground's base and experts, and write the tasks' data.",
        epilog="example: python scripts/make_playground.py --only add sort --out models/playground",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=MODELS_FOLDER, metavar="DIR", help="checkpoints go to DIR/NAME"
    )
    parser.add_argument(
        "--data", type=Path, default=DATA_FOLDER, metavar="DIR", help="task data goes to DIR"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=tuple(CHECKPOINTS),
        default=tuple(CHECKPOINTS),
        metavar="NAME",
        help="train these only, of base, add, reverse and sort; an expert starts from DIR/base, or "
        "from the base that comes with the repository if there is none",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="train for N steps each, not for the usual number"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the training")
    parser.add_argument(
        "--data-only", action="store_true", help="write the task data, do not train"
    )
    arguments = parser.parse_args()
    if arguments.steps is not None and arguments.steps < 1:
        parser.error(f"argument --steps: must be at least 1, got {arguments.steps}")
    if arguments.seed < 0:
        parser.error(f"argument --seed: must not be negative, got {arguments.seed}")
    return arguments


def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    write_test_items(arguments.data)
    print(f"wrote {NUM_TEST_ITEMS} items a skill to {arguments.data}")
    if arguments.data_only:
        return

    import dataclasses

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns) as progress:
        for name, phases in CHECKPOINTS.items():
            if name not in arguments.only:
                continue
            if arguments.steps is not None:
                phases = [dataclasses.replace(phases[-1], num_steps=arguments.steps)]  # noqa: PLW2901
            start = None
            if name != "base":
                start = arguments.out / "base"
                if not start.exists():
                    start = MODELS_FOLDER / "base"
            model, tokenizer = train(
                name, phases, start=start, seed=arguments.seed, progress=progress
            )
            save(model, tokenizer, arguments.out / name)
    print(f"wrote {', '.join(arguments.only)} to {arguments.out}")


if __name__ == "__main__":
    main()
