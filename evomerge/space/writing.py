"""Search spaces as YAML that people edit: short entries on one line, comments above."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evomerge.checkpoints import locate_models
from evomerge.documents import read_yaml
from evomerge.errors import SpaceError
from evomerge.space.genome import native_space

__all__ = ["convert_genome"]

_WIDTH = 100
_INDENT = "  "
_SHORT_KEYS = frozenset(
    {"search", "choice", "filter", "metric", "normalize", "optimizer", "batch_size"}
)


class _Dumper(yaml.SafeDumper):
    """Writes expressions, filter entries, tasks and lists of scalars on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value where it stands."""
        del data
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        """Choose the style of a mapping by its keys."""
        flow = bool(mapping) and (not _SHORT_KEYS.isdisjoint(mapping) or _is_entry(mapping))
        return super().represent_mapping(tag, mapping, flow_style=flow or flow_style)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        """Choose the style of a list by what it holds."""
        flow = not any(isinstance(item, dict | list) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flow or flow_style)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists below their key."""
        del indentless
        super().increase_indent(flow, False)


def convert_genome(path: Path, folder: Path | None = None) -> tuple[str, tuple[str, ...]]:
    """Return the search space that stands for a file of mergekit-evolve.

    Args:
        path: The file.
        folder: Where the space will stand; the file's own folder if not given. In another one, the
            models' paths are those that the working directory needs.

    Returns:
        The space as YAML with comments, and what of the file has no effect.

    Raises:
        SpaceError: if it is no such file, or breaks one of its rules.
        CheckpointError: if layers are to be counted and the first model is not at hand.
    """
    data, origin = read_yaml(path, SpaceError)
    if not isinstance(data, dict) or "genome" not in data:
        raise SpaceError(f"{path}: {_why_not(data)}")
    converted = native_space(data, origin)
    space = dict(converted.data)
    if folder is not None and folder.resolve() != path.parent.resolve():
        space["recipe"] = locate_models(space["recipe"], path.parent)
    head = (f"{path.name} of mergekit-evolve, as a search space of evomerge.",)
    return _space_yaml(space, converted.comments, head), converted.notes


def _why_not(data: Any) -> str:
    if isinstance(data, dict) and "recipe" in data:
        return "this is a search space already; there is nothing to convert"
    return "a file of mergekit-evolve has the keys 'genome' and 'tasks', and this has no 'genome'"


def _space_yaml(
    data: Mapping[str, Any], comments: Mapping[str, Sequence[str]], head: Sequence[str] = ()
) -> str:
    """Return a space as YAML text.

    Args:
        data: The space as plain data.
        comments: Section -> lines above it.
        head: Lines at the top.
    """
    parts = [_comment(head)] if head else []
    for section, content in data.items():
        if isinstance(content, str):
            body = f" {content}\n"
        else:
            text = yaml.dump(
                content,
                Dumper=_Dumper,
                sort_keys=False,
                allow_unicode=True,
                default_flow_style=False,
                width=_WIDTH - len(_INDENT),
            )
            body = "\n" + textwrap.indent(text, _INDENT)
        parts.append(f"{_comment(comments.get(section, ()))}{section}:{body}")
    return "\n".join(parts)


def _comment(lines: Sequence[str]) -> str:
    wrapped = (part for line in lines for part in textwrap.wrap(line, _WIDTH - 2))
    return "".join(f"# {line}\n" for line in wrapped)


def _is_entry(mapping: Any) -> bool:
    """Tell whether a mapping is the last entry of a list of filters."""
    return set(mapping) == {"value"}
