"""The schema of a recipe: mergekit's YAML, key for key."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from evomerge.documents import Document, Place

__all__ = [
    "InputModel",
    "ModelName",
    "Module",
    "Recipe",
    "Slice",
    "Source",
    "TokenRow",
    "TokenSettings",
    "TokenizerSettings",
    "model_name",
]

_PATH_KEYS = ("path", "revision")
_LAYER_RANGE = "layer_range"


def _none_as_empty(value: Any) -> Any:
    return {} if value is None else value


def _plain_dtype(value: Any) -> Any:
    return value.removeprefix("torch.") if isinstance(value, str) else value


def model_name(value: Any) -> Any:
    """Return mergekit's long form of a model (`{model: {path, revision}, lora: …}`) as a name.

    What has another form is returned as it is.
    """
    if not isinstance(value, Mapping) or "model" not in value:
        return value
    parts = [value["model"], *([value["lora"]] if value.get("lora") is not None else [])]
    names = [_path_name(part) for part in parts]
    known = value.keys() <= {"model", "lora", "override_architecture"}
    if not known or value.get("override_architecture") is not None or None in names:
        return value
    return "+".join(str(name) for name in names)


def _path_name(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping) or not value.keys() <= set(_PATH_KEYS):
        return None
    path, revision = (value.get(key) for key in _PATH_KEYS)
    if not isinstance(path, str):
        return None
    return path if revision is None else f"{path}@{revision}"


ModelName = Annotated[str, BeforeValidator(model_name)]
"""A path or hub name, `name@revision`, `model+adapter`."""

Parameters = Annotated[dict[str, Any], BeforeValidator(_none_as_empty)]
"""Values by parameter name; a value is a number, a gradient (list), or a list of filters."""

DtypeName = Annotated[str, BeforeValidator(_plain_dtype)]
"""A type as torch spells it, with or without `torch.`."""


class InputModel(Document):
    """One entry of `models`: a whole checkpoint and its own parameters."""

    model: ModelName
    parameters: Parameters = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _check_whole(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and _LAYER_RANGE in data:
            raise ValueError(
                f"{_LAYER_RANGE} belongs to the sources of slices, and models are merged whole; "
                "leave it out, or write 'slices'"
            )
        return data


class Source(Document):
    """One source of a slice: some layers of a checkpoint and its own parameters.

    Attributes:
        model: Path or hub name of the checkpoint.
        layer_range: First layer and the one after the last; all layers if not given.
        parameters: Values for this model only.
    """

    model: ModelName
    layer_range: tuple[int, int] | None = None
    parameters: Parameters = Field(default_factory=dict)


class Slice(Document):
    """Consecutive layers of the merged model and the sources they are made from."""

    sources: tuple[Source, ...] = Field(min_length=1)
    base_model: ModelName | None = None
    parameters: Parameters = Field(default_factory=dict)


class Module(Document):
    """A part of a model, by the prefix of its tensors' names; `default` is all that is left."""

    models: tuple[InputModel, ...] | None = Field(default=None, min_length=1)
    slices: tuple[Slice, ...] | None = Field(default=None, min_length=1)
    parameters: Parameters = Field(default_factory=dict)


class TokenRow(Document):
    """Where the embedding of a token comes from.

    Attributes:
        kind: `model_token` for the row of a token of a model, `zero` for zeros.
        model: The model; not for `zero`.
        token: The token there; the same as here if neither it nor `token_id` is given.
        token_id: Or its id there.
    """

    kind: Literal["model_token", "zero"] = "model_token"
    model: ModelName | None = None
    token: str | None = None
    token_id: int | None = Field(default=None, ge=0)


def _token_row(value: Any) -> Any:
    value = model_name(value)
    return {"model": value} if isinstance(value, str) else value


def _show_token_row(row: TokenRow) -> str | dict[str, Any]:
    """Return the short form, which mergekit wants where the token is the same."""
    if row.kind == "model_token" and row.token is None and row.token_id is None and row.model:
        return row.model
    return {"kind": row.kind, **row.model_dump(exclude_none=True, exclude={"kind"})}


class TokenSettings(Document):
    """One entry of `tokens`.

    Attributes:
        source: A model's name, or a `TokenRow`.
        force: Whether models that have the token get this row too.
    """

    source: Annotated[TokenRow, BeforeValidator(_token_row), PlainSerializer(_show_token_row)]
    force: bool = False


class TokenizerSettings(Document):
    """The `tokenizer` key: which tokens the merged model has.

    Attributes:
        source: `base`, a model's name, or `union` (the default) for the tokens of all models.
        tokens: Where the embeddings of some tokens come from; tokens that are new are added.
        pad_to_multiple_of: What the number of embedding rows is a multiple of.
    """

    source: ModelName | None = None
    tokens: dict[str, TokenSettings] | None = None
    pad_to_multiple_of: int | None = Field(default=None, ge=1)


class Recipe(Document):
    """A concrete merge in which every value is a number.

    Attributes:
        merge_method: Name of a row of `evomerge.methods.METHODS`.
        models: Whole models to merge; or `slices`, or `modules`.
        slices: Layer ranges to merge and stack, in the order of the merged model's layers.
        modules: Parts of the merged model by name; each holds `models` or `slices`.
        base_model: The model that task vectors are differences to, or that `t = 0` means.
        parameters: Values for everything that has no own one.
        dtype: Type to which inputs are rounded before merging.
        out_dtype: Type of the written tensors; `dtype` if not given.
        tokenizer_source: `base`, `union` or a model's name.
        tokenizer: The same with more settings.
        chat_template: A template's name, path or text, or `auto`.
        name: A name for people.
    """

    merge_method: str
    base_model: ModelName | None = None
    models: tuple[InputModel, ...] | None = Field(default=None, min_length=1)
    slices: tuple[Slice, ...] | None = Field(default=None, min_length=1)
    modules: dict[str, Module] | None = Field(default=None, min_length=1)
    parameters: Parameters = Field(default_factory=dict)
    dtype: DtypeName | None = None
    out_dtype: DtypeName | None = None
    tokenizer_source: ModelName | None = None
    tokenizer: TokenizerSettings | None = None
    chat_template: str | None = None
    name: str | None = None

    def bodies(self) -> tuple[tuple[Place, Module], ...]:
        """Return what is merged and its place, whichever of the three keys holds it.

        What stands at the top has no parameters of its own here.
        """
        if self.modules is not None:
            return tuple((("modules", name), module) for name, module in self.modules.items())
        body = Module.model_construct(models=self.models, slices=self.slices, parameters={})
        return (((), body),)

    def model_names(self) -> tuple[str, ...]:
        """Return the names of all models, the base included, each once, in order of appearance."""
        names: list[str | None] = [self.base_model]
        for _, body in self.bodies():
            names.extend(entry.model for entry in body.models or ())
            for part in body.slices or ():
                names.append(part.base_model)
                names.extend(source.model for source in part.sources)
        donor = self.tokenizer_name()
        if donor not in ("base", "union"):
            names.append(donor)
        names.extend(entry.source.model for _, entry in self.token_settings())
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def tokenizer_name(self) -> str | None:
        """Return the wanted source of the tokenizer, from either of its two keys."""
        if self.tokenizer is None:
            return self.tokenizer_source
        return self.tokenizer.source or self.tokenizer_source or "union"

    def token_settings(self) -> tuple[tuple[str, TokenSettings], ...]:
        """Return the tokens that the recipe names, and what it says about them."""
        tokens = self.tokenizer.tokens if self.tokenizer is not None else None
        return tuple((tokens or {}).items())

    def parameter_blocks(self) -> Iterator[tuple[Place, Parameters]]:
        """Yield every `parameters` mapping and its place in the document."""
        yield ("parameters",), self.parameters
        for place, module in self.bodies():
            if place:
                yield (*place, "parameters"), module.parameters
            for i, entry in enumerate(module.models or ()):
                yield (*place, "models", i, "parameters"), entry.parameters
            for i, part in enumerate(module.slices or ()):
                yield (*place, "slices", i, "parameters"), part.parameters
                for j, source in enumerate(part.sources):
                    yield (*place, "slices", i, "sources", j, "parameters"), source.parameters

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `parse_recipe` turns into an equal recipe."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def to_yaml(self) -> str:
        """Return the recipe as YAML that mergekit reads too."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return text
