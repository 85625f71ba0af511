"""The commands and code of README.md, run as they stand there."""

import re
import shlex
import subprocess
import sys

from tests.conftest import ENVIRONMENT, ROOT, succeed

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_commands_of_the_readme_run(quickstart, workspace):
    assert quickstart
    commands = [
        shlex.split(line, comments=True)[1:]
        for block in blocks("bash")
        for line in block.splitlines()
        if line.startswith("evomerge ")
    ]
    assert [command[0] for command in commands] == [
        *("check", "run", "export", "eval", "merge", "items", "methods")
    ]
    for command in commands:
        succeed(*command, cwd=workspace)
    assert (workspace / "merged" / "README.md").is_file()


def test_the_python_of_the_readme_runs(quickstart, workspace):
    assert quickstart
    (code,) = blocks("python")
    assert len(code.strip().splitlines()) <= 10
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=workspace,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "trial" in done.stdout or "default" in done.stdout


def test_the_space_of_the_readme_is_valid(tmp_path):
    import yaml

    from evomerge.space import parse_space

    (text,) = blocks("yaml")
    assert len(parse_space(yaml.safe_load(text)).dimensions) == 7


def test_the_spaces_of_the_reference_page_are_valid():
    import yaml

    from evomerge.space import parse_space

    page = (ROOT / "docs" / "search-spaces.md").read_text()
    texts = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    spaces = [parse_space(yaml.safe_load(text)) for text in texts]
    assert [len(space.dimensions) for space in spaces] == [7, 5, 3, 3]


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_setting_is_on_the_reference_page():
    from evomerge.evaluation.settings import EvaluationSettings, TaskSettings
    from evomerge.space import SearchSettings

    page = (ROOT / "docs" / "search-spaces.md").read_text()
    for settings in (SearchSettings, EvaluationSettings, TaskSettings):
        for name in settings.model_fields:
            assert f"`{name}`" in page, name


def test_the_scripts_are_what_ci_and_readme_name():
    run = (ROOT / ".ci" / "run").read_text()
    for name in ("test.sh", "test_vllm.sh"):
        assert f"scripts/{name}" in run
    for name in ("quickstart.sh", "test.sh", "test_vllm.sh"):
        assert f"scripts/{name}" in README
