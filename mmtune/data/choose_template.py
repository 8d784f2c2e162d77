"""The chat template that a config asks for, by its name or from the tokenizer, checked against the tokenizer."""

from typing import Any

from mmtune.data.encode import control_ids
from mmtune.data.template import TEMPLATES, XTUNER_NAMES, ChatTemplate
from mmtune.data.template_of_tokenizer import PLACE, fitting_names, template_of_tokenizer
from mmtune.errors import ConfigError
from mmtune.lookup import lookup

OF_TOKENIZER = "tokenizer"
"""The name that takes the tokenizer's own chat template."""


def chat_template(name: str, tokenizer: Any) -> ChatTemplate:
    """Return the chat template of a name.

    Args:
        name: a key of `TEMPLATES`, one of `XTUNER_NAMES`, or `tokenizer` for the tokenizer's own.
        tokenizer: of transformers, with its `chat_template`.

    Raises:
        ConfigError: there is no such name, the tokenizer's own cannot be taken apart, or an answer would end with a
            text that is no token of the tokenizer.
    """
    named: dict[str, ChatTemplate | None] = {OF_TOKENIZER: None, **TEMPLATES}
    named |= {theirs: TEMPLATES[ours] for theirs, ours in XTUNER_NAMES.items()}
    template = lookup(named, name, PLACE)
    if template is None:
        return template_of_tokenizer(tokenizer)
    for stop in template.stop:
        if len(control_ids(stop, tokenizer)) != 1:
            fitting = ", ".join(fitting_names(tokenizer))
            reason = f"'{name}' ends answers with {stop!r}, which is no token of this tokenizer."
            raise ConfigError(PLACE, f"{reason} Those whose tokens it has: {fitting}, or {OF_TOKENIZER} for its own.")
    return template
