"""The commands and YAML of docs/evaluation.md, run and read as they stand there."""

import re
import shlex

import pytest
import yaml

from evomerge.space import parse_space
from tests.conftest import ROOT, succeed

PAGE = (ROOT / "docs" / "evaluation.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def commands(name):
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(name)]


def test_the_commands_for_items_run(quickstart, workspace):
    assert quickstart
    wanted = [command for command in commands("evomerge") if command[0] == "items"]
    assert len(wanted) == 3
    for command in wanted:
        succeed(*command, cwd=workspace)
    assert (workspace / "items.csv").is_file()


def test_the_other_commands_are_tested_elsewhere():
    """The first by test_vllm_engine.py, the second by test_several_objectives.py."""
    others = [command for command in commands("evomerge") if command[0] != "items"]
    assert others == [
        ["export", "runs/two_objectives", "front", "--trial", "pareto"],
        ["run", "space.yml"],
    ]
    scripts = set(re.findall(r"scripts/(\w+\.\w+)", PAGE))
    named = {"bench_eval.py", "bench_smooth.py", "bench_optimism.py"}  # test_bench_evaluation.py
    assert scripts == named | {"bench_vllm.py", "test_vllm.sh"}


def one_by_one(text):
    """Split a block that shows the same key several times."""
    return [yaml.safe_load(part) for part in re.split(r"\n(?=objective:)", text)]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_yaml_is_valid(text, tmp_path):
    for shown in one_by_one(text):
        names = ("gsm8k", "mbpp", "mmlu", "ifeval", "perplexity")
        recipe = {
            "merge_method": "task_arithmetic",
            "base_model": "models/base",
            "models": [
                {"model": name, "parameters": {"weight": {"search": [0, 1]}}}
                for name in ("models/chat", "models/math")
            ],
        }
        tasks = [{"name": name, "metric": "acc"} for name in names]
        parse_space({"recipe": recipe, "tasks": tasks, **shown})
