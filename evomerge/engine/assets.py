"""What goes with the weights: tokenizer and chat template."""

from collections import Counter
from functools import lru_cache
from pathlib import Path

from evomerge.checkpoints import Checkpoint, tokenizer_files
from evomerge.errors import CheckpointError, RecipeError

__all__ = ["chat_template", "check_tokenizers", "tokenizer_donor"]

_CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\n"
)
_TEMPLATES = {"chatml": _CHATML}

Opened = tuple[tuple[str, Checkpoint], ...]


@lru_cache(maxsize=64)
def check_tokenizers(wanted: str | None, checkpoints: Opened) -> None:
    """Refuse what needs embeddings to be rearranged.

    A recipe that names no tokenizer merges rows as they stand; one that does relies on the ids.

    Raises:
        CheckpointError: if the vocabularies differ.
    """
    if wanted is None:
        return
    first: tuple[str, dict[str, int]] | None = None
    for name, checkpoint in checkpoints:
        vocab = checkpoint.tokenizer_vocab()
        if vocab is None:
            continue
        if first is None:
            first = name, vocab
        elif vocab != first[1]:
            differing = sum(first[1].get(token) != i for token, i in vocab.items())
            differing += sum(token not in vocab for token in first[1])
            raise CheckpointError(
                f"the tokenizers of {first[0]} ({len(first[1])} tokens) and {name} ({len(vocab)}) "
                f"differ in {differing} tokens; merging different vocabularies is not supported "
                "yet: give models with one tokenizer, or leave out the tokenizer's source to merge "
                "the embedding rows as they stand"
            )


def tokenizer_donor(wanted: str | None, config_donor: str, checkpoints: Opened) -> str:
    """Return the name of the model whose tokenizer files are copied.

    It is the wanted model, else the donor of the config, or the first model that has a tokenizer
    if that one has none.
    """
    named = dict(checkpoints)
    first = wanted if wanted not in (None, "base", "union") else config_donor
    order = [str(first), *(name for name in named if name != first)]
    return next((name for name in order if _has_tokenizer(named[name])), str(first))


@lru_cache(maxsize=64)
def _has_tokenizer(checkpoint: Checkpoint) -> bool:
    return bool(tokenizer_files(checkpoint.path))


def chat_template(wanted: str | None, checkpoints: Opened) -> str | None:
    """Return the text of the wanted chat template; None leaves the tokenizer's own.

    Args:
        wanted: A known name, the path of a Jinja file, the text of a template, or `auto` for the
            one that most models have.
        checkpoints: The models.

    Raises:
        RecipeError: if it is none of these.
    """
    if wanted is None:
        return None
    if wanted == "auto":
        files = (checkpoint.path / "chat_template.jinja" for _, checkpoint in checkpoints)
        texts = Counter(file.read_text(encoding="utf-8") for file in files if file.is_file())
        return texts.most_common(1)[0][0] if texts else None
    if wanted in _TEMPLATES:
        return _TEMPLATES[wanted]
    if "{%" in wanted or "{{" in wanted:
        return wanted
    if wanted.endswith((".jinja", ".j2")) and Path(wanted).is_file():
        return Path(wanted).read_text(encoding="utf-8")
    raise RecipeError(
        f"chat_template: {wanted!r} is no known template ({', '.join(_TEMPLATES)}), no Jinja file "
        "and no template text"
    )
