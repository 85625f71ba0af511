"""YAML in, frozen validated data out, and one message that names every wrong place."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from evomerge.errors import EvomergeError, nearest

__all__ = ["Document", "Origin", "Place", "read_documents", "read_yaml", "show_place", "validate"]

Place = tuple[str | int, ...]
"""A path inside a YAML document: ``("recipe", "models", 0, "parameters")``."""


_RULES = {
    "bool_parsing": "true or false is expected",
    "bool_type": "true or false is expected",
    "dict_type": "a mapping is expected",
    "float_parsing": "a number is expected",
    "float_type": "a number is expected",
    "int_from_float": "a whole number is expected",
    "int_parsing": "a whole number is expected",
    "int_type": "a whole number is expected",
    "list_type": "a list is expected",
    "string_type": "a text is expected",
    "too_long": "too many entries",
    "too_short": "at least one entry is expected",
    "tuple_type": "a list is expected",
}
"""What pydantic's kinds of errors say to who writes YAML."""


_MERGE_TAG = "tag:yaml.org,2002:merge"


class Document(BaseModel):
    """Frozen configuration data that knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)


DocumentT = TypeVar("DocumentT", bound=Document)


def show_place(place: Place) -> str:
    """Return a place as people write it: ``recipe.models[0].parameters``."""
    text = ""
    for key in place:
        text += f"[{key}]" if isinstance(key, int) else (f".{key}" if text else str(key))
    return text


@dataclass(frozen=True)
class Origin:
    """Where a document came from, so that a message can name file, line and key.

    Attributes:
        name: The file's path as the user gave it, or ``"<dict>"`` and the like.
        text: The YAML source, or an empty string if there is none.
        prefix: Path of the document inside its file (a recipe inside a space has ``("recipe",)``).
        document: Which of the file's YAML documents it is, from 0.
    """

    name: str = "<dict>"
    text: str = ""
    prefix: Place = ()
    document: int = 0

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the document may refer to."""
        return Path(self.name).parent if self.text else Path()

    def inside(self, *place: str | int) -> "Origin":
        """Return the origin of a part of this document."""
        return replace(self, prefix=(*self.prefix, *place))

    def where(self, *place: str | int) -> str:
        """Return ``file.yml:12: recipe.models[0].weight`` for a place in this document."""
        whole = (*self.prefix, *place)
        line = _line_of(self.text, self.document, whole)
        head = f"{self.name}:{line}" if line else self.name
        return f"{head}: {show_place(whole)}" if whole else head


def _line_of(text: str, document: int, place: Place) -> int | None:
    """Return the 1-based line of the deepest part of ``place`` that a YAML document has."""
    if not text:
        return None
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return None
    node = nodes[document] if document < len(nodes) else None
    line = node.start_mark.line + 1 if node is not None and len(nodes) > 1 else None
    for key in place:
        found = None
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                if key_node.value == str(key):
                    found, line = value_node, key_node.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = node.value[key]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line


def read_yaml(path: Path, error: type[EvomergeError]) -> tuple[Any, Origin]:
    """Read one YAML document.

    Args:
        path: The file.
        error: The class to raise.

    Returns:
        The plain data and its origin.

    Raises:
        EvomergeError: of class ``error`` if the file is missing, not YAML, or holds several
            documents.
    """
    documents = read_documents(path, error)
    if len(documents) > 1:
        raise error(
            f"{path}: one YAML document is expected here, the file holds {len(documents)} (several "
            "recipes in one file are the stages of a merge, which `evomerge merge` runs)"
        )
    return documents[0]


def read_documents(path: Path, error: type[EvomergeError]) -> list[tuple[Any, Origin]]:
    """Read every YAML document of a file; empty ones are left out if there are others.

    Args:
        path: The file.
        error: The class to raise.

    Returns:
        The plain data of each and its origin; at least one.

    Raises:
        EvomergeError: of class ``error`` if the file is missing, not YAML, or has a key twice in
            one mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise error(f"{path}: cannot be read as a text file: {reason}") from exc
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(exc, "problem", None) or str(exc)
        raise error(f"{path}{line}: not valid YAML: {problem}") from exc
    found = [
        (data, Origin(str(path), text, (), i))
        for i, data in enumerate(documents)
        if data is not None
    ]
    return found or [(None, Origin(str(path), text))]


class _Loader(yaml.SafeLoader):
    """Reads plain data in which no mapping has a key twice, of which only the last would count.

    What `<<` brings into a mapping may be there already.
    """

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE_TAG:
                continue
            first = lines.get((key.tag, key.value))
            if first is not None:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice, first in line {first}, and "
                    "only one can count; remove one",
                    problem_mark=key.start_mark,
                )
            lines[key.tag, key.value] = key.start_mark.line + 1
        return node


def validate(
    cls: type[DocumentT], data: Any, origin: Origin, error: type[EvomergeError]
) -> DocumentT:
    """Turn plain data into a document, or raise one message with a line for each wrong place.

    Raises:
        EvomergeError: of class ``error``.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as exc:
        found = exc.errors(include_url=False)
        lines = [_explain(cls, item, origin) for item in found if not _follows(item, found)]
        raise error("\n".join(dict.fromkeys(lines))) from exc


def _follows(item: Any, every: list[Any]) -> bool:
    """Tell whether a list is only too short because entries of it are wrong."""
    place = item["loc"]
    return item["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in every
    )


def _explain(cls: type[BaseModel], item: Any, origin: Origin) -> str:
    place: Place = tuple(item["loc"])
    if item["type"] == "extra_forbidden":
        known = _known_keys(cls, place[:-1])
        rule = f"unknown key {place[-1]!r}"
        return f"{origin.where(*place)}: {rule}; {nearest(str(place[-1]), known)}"
    if item["type"] == "missing" and isinstance(place[-1], int):
        return f"{origin.where(*place[:-1])}: {place[-1] + 1} entries are expected at least"
    if item["type"] == "missing":
        return f"{origin.where(*place[:-1])}: the key {place[-1]!r} is required"
    message = _rule(cls, item["type"], place) or item["msg"].removeprefix("Value error, ")
    got = item.get("input")
    shown = "" if isinstance(got, dict | list) else f", got {got!r}"
    return f"{origin.where(*place)}: {message}{shown}"


def _rule(cls: type[BaseModel], kind: str, place: Place) -> str | None:
    """Return what is expected at a place that holds something of another type."""
    if kind == "model_type":
        return f"a mapping is expected, with the keys {', '.join(_known_keys(cls, place))}"
    return _RULES.get(kind)


def _known_keys(cls: type[BaseModel], place: Place) -> list[str]:
    """Return the keys of the model at ``place`` below ``cls``."""
    current: type[BaseModel] = cls
    for key in place:
        field = current.model_fields.get(str(key)) if isinstance(key, str) else None
        if field is None:
            continue
        inner = _model_in(field.annotation)
        if inner is None:
            return []
        current = inner
    return [field.alias or name for name, field in current.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first pydantic model inside an annotation such as ``list[Model] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if (inner := _model_in(part)) is not None:
            return inner
    return None
