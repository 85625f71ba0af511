"""Chat templates by name, path or text.

Each text follows the format that the models of its family were published with.
"""

from collections import Counter
from functools import lru_cache
from pathlib import Path

from evomerge.checkpoints import Checkpoint
from evomerge.checkpoints.tokenizer import read_json
from evomerge.errors import RecipeError, nearest

__all__ = ["TEMPLATES", "chat_template"]

_FILE = "chat_template.jinja"

_ALPACA = """\
{% for message in messages %}
{% if not loop.first %}{{ '\\n\\n' }}{% endif %}
{% if message['role'] == 'user' %}{{ '### Instruction:\\n' }}
{% elif message['role'] == 'assistant' %}{{ '### Response:\\n' }}{% endif %}
{{ message['content'] | trim }}
{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '\\n\\n### Response:\\n' }}{% endif %}
"""

_CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\n"
)

_EXAONE = """\
{% if messages and messages[0]['role'] != 'system' %}{{ '[|system|][|endofturn|]\\n' }}{% endif %}
{% for message in messages %}
{{ '[|' + message['role'] + '|]' + message['content'] | trim }}
{% if message['role'] != 'user' %}{{ '[|endofturn|]' }}{% endif %}
{% if not loop.last or message['role'] == 'user' %}{{ '\\n' }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}
"""

_LLAMA3 = """\
{{ bos_token }}
{% for message in messages %}
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{ message['content'] | trim + '<|eot_id|>' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{% endif %}
"""

_MISTRAL = """\
{{ bos_token }}
{% set ns = namespace(system='') %}
{% for message in messages %}
{% if message['role'] == 'system' %}
{% set ns.system = message['content'] | trim + '\\n\\n' %}
{% elif message['role'] == 'user' %}
{{ '[INST] ' + ns.system + message['content'] | trim + ' [/INST]' }}
{% set ns.system = '' %}
{% elif message['role'] == 'assistant' %}
{{ ' ' + message['content'] | trim + eos_token }}
{% else %}
{{ raise_exception('mistral knows the roles system, user and assistant') }}
{% endif %}
{% endfor %}
"""


def _joined(text: str) -> str:
    """Return a template on one line: its line breaks are for readers."""
    return text.replace("\n", "")


TEMPLATES = {
    "alpaca": _joined(_ALPACA),
    "chatml": _CHATML,
    "exaone": _joined(_EXAONE),
    "llama3": _joined(_LLAMA3),
    "mistral": _joined(_MISTRAL),
}
"""The known templates by name."""


@lru_cache(maxsize=16)
def chat_template(
    wanted: str | None, checkpoints: tuple[tuple[str, Checkpoint], ...]
) -> str | None:
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
        texts = Counter(text for _, c in checkpoints if (text := _own_template(c.path)))
        return texts.most_common(1)[0][0] if texts else None
    if wanted in TEMPLATES:
        return TEMPLATES[wanted]
    if "{%" in wanted or "{{" in wanted:
        return wanted
    # A text without Jinja may be longer than a path can be.
    file = Path(wanted[:255]).expanduser()
    if file.is_dir() and (text := _own_template(file)):
        return text
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise RecipeError(f"chat_template: {wanted} cannot be read as text: {exc}") from exc
    raise RecipeError(
        f"chat_template: {wanted!r} is no known template, no file (looked from {Path.cwd()}) and "
        f"no template text; {nearest(wanted, [*TEMPLATES, 'auto'])}"
    )


def _own_template(folder: Path) -> str | None:
    """Return the chat template of a model's tokenizer."""
    if (folder / _FILE).is_file():
        return (folder / _FILE).read_text(encoding="utf-8")
    if not (folder / "tokenizer_config.json").is_file():
        return None
    found = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several templates by name
        named = {entry.get("name"): entry.get("template") for entry in found}
        found = named.get("default")
    return found if isinstance(found, str) else None
