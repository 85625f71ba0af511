"""docs/from-mergekit-evolve.md: its file and commands run, and its tables name every field."""

import json
import re
import shlex

from typer.main import get_command

from evomerge.cli.main import app
from evomerge.space.genome_schema import Genome, GenomeFile
from tests.conftest import ROOT, links, succeed

PAGE = (ROOT / "docs" / "from-mergekit-evolve.md").read_text()

# As `mergekit-evolve --help` of mergekit 0.1.5 lists them.
FLAGS = [
    "--max-fevals",
    "--vllm",
    "--strategy",
    "--in-memory",
    "--storage-path",
    "--num-gpus",
    "--merge-cuda",
    "--trust-remote-code",
    "--allow-crimes",
    "--random-seed",
    "--batch-size",
    "--sigma0",
    "--wandb",
    "--wandb-project",
    "--wandb-entity",
    "--task-search-path",
    "--i-understand-the-depths-of-the-evils-i-am-unleashing",
    "--save-final-model",
    "--reshard",
    "--timeout",
    "--load-in-8bit",
    "--load-in-4bit",
    "--force-population-size",
]


def table(heading):
    (part,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [line.split(" | ")[0].strip("| ") for line in part.splitlines() if line.startswith("| ")]


def test_the_file_and_the_commands_of_the_page_run(tmp_path):
    folder = links(tmp_path / "work")
    (genome,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    (folder / "genome.yml").write_text(genome)
    lines = [shlex.split(line)[1:] for line in commands.splitlines()]
    assert [line[0] for line in lines] == ["check", "run", "convert", "check"]
    printed = [succeed(*line, cwd=folder).stdout for line in lines]
    assert "8 dimensions" in printed[0]
    assert "8 dimensions" in printed[3]
    result = json.loads((folder / "runs" / "genome" / "result.json").read_text())
    assert result["winner"]["trial"] >= 0


def test_every_field_has_a_row():
    fields = {name.strip("`") for name in table("The genome")}
    assert fields >= set(Genome.model_fields)
    evaluation = " ".join(table("Tasks and evaluation"))
    added = {"genome", "objective", "constraints", "search", "evaluation"}
    for name in set(GenomeFile.model_fields) - added:
        assert name in evaluation


def test_every_flag_has_a_row_and_what_stands_beside_it_exists():
    rows = table("The command line")
    listed = re.findall(r"--\w[\w-]*", " ".join(rows))
    assert sorted(listed) == sorted(FLAGS)
    options = {name for option in get_command(app).commands["run"].params for name in option.opts}
    (part,) = re.findall(r"^## The command line\n(.*?)^## ", PAGE, flags=re.DOTALL | re.MULTILINE)
    for line in part.splitlines():
        if line.startswith("| `--"):
            mine = line.split(" | ", 1)[1]
            assert set(re.findall(r"--[\w-]+", mine)) <= options
