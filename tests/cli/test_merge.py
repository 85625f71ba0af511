"""`evomerge merge`: sizes, devices and what a person sees."""

import io
import re
import sys

import pytest
import typer
from rich.console import Console

from evomerge.cli.byte_progress import byte_progress
from evomerge.cli.merge import parse_size
from tests.conftest import ROOT, evomerge, succeed

MODELS = ROOT / "search_spaces" / "playground"
RECIPE = f"""\
merge_method: linear
models:
  - {{model: {MODELS}/add, parameters: {{weight: 0.5}}}}
  - {{model: {MODELS}/sort, parameters: {{weight: 0.5}}}}
"""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("500MB", 5 * 10**8),
        ("1.5g", 15 * 10**8),
        ("2GiB", 2 << 30),
        ("1 KiB", 1 << 10),
        ("3T", 3 * 10**12),
        ("1TiB", 1 << 40),
        ("1MiB", 1 << 20),
        ("4096", 4096),
        ("10B", 10),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "5XB", "-5GB", "5GBs", "0", "0.0001KB", "5iB", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(typer.BadParameter, match="5GB"):
        parse_size(text)


def test_a_merge_in_shards(tmp_path):
    (tmp_path / "recipe.yml").write_text(RECIPE)
    done = succeed("merge", tmp_path / "recipe.yml", tmp_path / "out", "--shard-size", "200KB")
    assert done.stdout == f"wrote {tmp_path / 'out'}\n"
    assert done.stderr == ""  # no bar without a terminal
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert all(file.stat().st_size < 210_000 for file in shards)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "toaster"), "device 'toaster' is not there"),
        (("--shard-size", "much"), "'much' is no size"),
    ],
)
def test_bad_options(tmp_path, options, message):
    (tmp_path / "recipe.yml").write_text(RECIPE)
    done = evomerge("merge", tmp_path / "recipe.yml", tmp_path / "out", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_merging_imports_nothing_that_only_a_search_needs(tmp_path):
    (tmp_path / "recipe.yml").write_text(RECIPE)
    code = (
        "import sys\n"
        "from evomerge.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'transformers', 'optuna', 'ray', 'lm_eval', 'cma', 'plotly', 'pandas', 'scipy',\n"
        "         'pyarrow', 'datasets', 'sqlalchemy', 'huggingface_hub', 'torch._dynamo'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    import subprocess

    from tests.conftest import ENVIRONMENT

    arguments = ("merge", str(tmp_path / "recipe.yml"), str(tmp_path / "out"))
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=ENVIRONMENT)


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_and_says_bytes_rate_and_time(width):
    terminal = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    with byte_progress("merging", terminal) as bar:
        bar.stage(2, 3, "a-stage-with-a-very-long-name-indeed")
        bar._progress.get_time = iter(range(10**6)).__next__
        for step in range(6):
            bar(step * 1_234_567_890, 13_500_000_000)
    shown = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", terminal.file.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", shown) if line.strip()]
    assert all(len(line) <= width for line in lines)
    assert re.search(
        r"merging 2/3 a-stage-with-a-very-lon… ━.* 6\.2/13\.5 GB [\d.]+ GB/s \d\d:\d\d left",
        lines[-1],
    )


def test_without_a_terminal_there_are_only_stages():
    pipe = Console(width=80, file=io.StringIO())
    with byte_progress("merging", pipe) as bar:
        bar(10, 100)
        bar.stage(1, 2, "first [of] two")
        bar(100, 100)
    assert pipe.file.getvalue() == "stage 1 of 2: first [of] two\n"
