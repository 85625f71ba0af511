"""What goes with the weights: the tokenizer's files, its chat template, the generation config."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from evomerge.checkpoints import Checkpoint, tokenizer_files
from evomerge.checkpoints.tokenizer import CHAT_TEMPLATE_FILES
from evomerge.engine.chat_templates import chat_template
from evomerge.engine.vocabulary import Vocabulary
from evomerge.errors import CheckpointError

__all__ = ["TokenizerPlan", "plan_tokenizer"]

_KEPT = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""Files beside a tokenizer that do not depend on its tokens."""

Opened = tuple[tuple[str, Checkpoint], ...]


@dataclass(frozen=True)
class TokenizerPlan:
    """The merged model's tokenizer.

    Attributes:
        donor: Name of the model that it comes from.
        folder: That model's folder.
        files: What is copied from there.
        documents: File names and contents that are written; they win over files of the same name.
    """

    donor: str
    folder: Path
    files: tuple[Path, ...]
    documents: Mapping[str, Mapping[str, Any] | str]

    def place(self, folder: Path) -> Path:
        """Return a folder with the tokenizer: the donor's if that is right, else `folder`, filled.

        Raises:
            CheckpointError: if it cannot be written.
        """
        if not self.documents:
            return self.folder
        try:
            for file in self.files:
                copy = shutil.copytree if file.is_dir() else shutil.copyfile
                copy(file, folder / file.name)
            for name, content in self.documents.items():
                text = content if isinstance(content, str) else json.dumps(content)
                (folder / name).write_text(text, encoding="utf-8")
        except OSError as exc:
            raise CheckpointError(f"{folder}: the tokenizer cannot be written: {exc}") from exc
        return folder


@lru_cache(maxsize=16)
def plan_tokenizer(
    vocabulary: Vocabulary | None, template: str | None, donor: str, checkpoints: Opened
) -> TokenizerPlan:
    """Plan the merged model's tokenizer.

    Args:
        vocabulary: The merged model's tokens, if the recipe says which ones.
        template: The recipe's `chat_template`.
        donor: Name of the model whose config is taken; without a vocabulary its tokenizer is
            taken too, or that of the first model that has one.
        checkpoints: Names and checkpoints of all models.

    Raises:
        RecipeError: if there is no such chat template.
    """
    named = dict(checkpoints)
    if vocabulary is not None:
        donor = vocabulary.donor
    else:
        order = (donor, *(name for name in named if name != donor))
        donor = next((name for name in order if tokenizer_files(named[name].path)), donor)
    folder = named[donor].path
    files = tokenizer_files(folder)
    documents: dict[str, Mapping[str, Any] | str] = {}
    if vocabulary is not None and vocabulary.documents:
        documents |= vocabulary.documents
        templates = folder / "additional_chat_templates"
        kept = (*_KEPT, *CHAT_TEMPLATE_FILES, templates.name)
        files = tuple(file for file in files if file.name in kept)
    text = chat_template(template, checkpoints)
    if text is not None:
        documents[CHAT_TEMPLATE_FILES[0]] = text
        files = tuple(file for file in files if file.name not in CHAT_TEMPLATE_FILES)
    return TokenizerPlan(donor, folder, files, documents)
