"""Which task files define a name, by their text alone: lm-eval's index keeps one file a name."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

__all__ = ["NAME", "defining_files", "own_tasks", "runs_code"]

NAME = re.compile(r"""^["']?task["']?:[ \t]*["']?([^\s"'\[#]+)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)
GROUP = re.compile(
    r"""^["']?group["']?:[ \t]*["']?([^\s"'\[#]+)["']?[ \t]*(?:#.*)?$""", re.MULTILINE
)
LISTED = re.compile(r"""^(?:["']?(?:group|tag)["']?:|[ \t]*-[ \t])(.*)$""", re.MULTILINE)
WORD = re.compile(r"""[^\s"'\[\],#]+""")
INCLUDE = re.compile(r"""^["']?include["']?:[ \t]*["']?([^\s"'#]+)""", re.MULTILINE)
UNSAFE = re.compile(
    r"""^["']?unsafe_code["']?:[ \t]*(?:true|yes|on)\b""", re.MULTILINE | re.IGNORECASE
)
IGNORED = ("__pycache__", ".ipynb_checkpoints")


def defining_files(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the files that define each task and group in some folders."""
    found: dict[str, list[Path]] = {}
    paths = {path.resolve() for folder in folders for path in folder.glob("**/*.yaml")}
    for path in sorted(paths):
        if path.is_file() and not set(IGNORED).intersection(path.parts):
            for name in _names(path):
                found.setdefault(name, []).append(path)
    return found


def _names(path: Path) -> set[str]:
    """Return what a file defines; a name may stand in a file that it includes."""
    text = _read(path)
    names = GROUP.findall(text) or NAME.findall(text)
    for included in () if names else _included(path, text):
        names = names or sorted(_names(included))
    return set(names)


@cache
def own_tasks() -> tuple[dict[str, Path], frozenset[str]]:
    """Return lm-eval's own tasks with their files, and words among which are groups and tags."""
    import lm_eval.tasks

    files: dict[str, Path] = {}
    mentioned: set[str] = set()
    folder = Path(lm_eval.tasks.__file__).parent
    for path in sorted(folder.glob("**/*"), key=Path.as_posix):
        if path.suffix not in ("", ".yaml", ".yml") or not path.is_file():
            continue
        text = _read(path)
        if path.suffix == ".yaml":
            for name in NAME.findall(text):
                files.setdefault(name, path)
        # Templates that tasks include have other suffixes, and tags of their own.
        mentioned.update(*map(WORD.findall, LISTED.findall(text)))
    return files, frozenset(mentioned - set(files))


def runs_code(path: Path) -> bool:
    """Return whether a task file, or one that it includes, says that it runs generated code."""
    text = _read(path)
    return bool(UNSAFE.search(text)) or any(map(runs_code, _included(path, text)))


def _included(path: Path, text: str) -> list[Path]:
    places = (path.parent / name for name in INCLUDE.findall(text))
    return [place for place in places if place.is_file()]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
