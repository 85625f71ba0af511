"""A tokenizer's chat templates: one by its name, and whether there is a usual one."""

from collections.abc import Mapping
from typing import Any

from evomerge.errors import EvaluationError, nearest

__all__ = ["check_usual_template", "named_template"]


def named_template(tokenizer: Any, name: str) -> str:
    """Return the text of a template.

    transformers would take a name that it does not know for a template's text, and ask every
    question by that one word.

    Args:
        tokenizer: A transformers tokenizer.
        name: The template's name.

    Raises:
        EvaluationError: if there is no such template.
    """
    templates = tokenizer.chat_template
    if not isinstance(templates, Mapping):
        has = "one chat template, without a name" if templates else "no chat template"
        raise EvaluationError(
            f"apply_chat_template: {name!r} is a template's name, and the tokenizer has {has}; "
            f"set apply_chat_template: {'true' if templates else 'false'}"
        )
    if name not in templates:
        raise EvaluationError(
            f"apply_chat_template: the tokenizer has no template {name!r}; "
            f"{nearest(name, sorted(templates))}"
        )
    return str(templates[name])


def check_usual_template(tokenizer: Any) -> None:
    """Check that a tokenizer has a chat template to use where no name is given.

    Raises:
        EvaluationError: saying what it has and what to do.
    """
    templates = tokenizer.chat_template
    if not templates:
        raise EvaluationError(
            "apply_chat_template: true needs a chat template, and the tokenizer has none; set it "
            "to false, or give the recipe a chat_template"
        )
    if isinstance(templates, Mapping) and "default" not in templates:
        raise EvaluationError(
            "apply_chat_template: true takes the template 'default', and the tokenizer has "
            f"{', '.join(sorted(templates))}; set apply_chat_template to one of these names"
        )
