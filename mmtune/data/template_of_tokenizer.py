"""A `ChatTemplate` from the Jinja chat template that a tokenizer brings: it is rendered, taken apart and checked.

Short dialogues of made-up words are rendered; the text between the words are the pieces. Other dialogues then must
come out letter by letter as the tokenizer renders them. Of the Jinja text itself only the forms of dates are read.
"""

import json
import re
from dataclasses import replace
from datetime import date
from itertools import zip_longest
from typing import Any

from jinja2.exceptions import TemplateError

from mmtune.data.template import MARK, TEMPLATES, ChatTemplate
from mmtune.errors import ConfigError

PLACE = "model.llm.chat_template"
DATE = date(2024, 7, 26)
"""The day that templates with a date write, so that all days train alike; Llama 3.1's own where it is told none."""

Turns = list[tuple[str, str]]
SYSTEM, QUESTIONS, ANSWERS = "Zebrawood", ("Quillwort", "Quagmire", "Quixotry"), ("Axolotl", "Abalone", "Aardwolf")


class _Untakeable(Exception):
    """The template does not fall into pieces; the reason, as a clause."""


def template_of_tokenizer(tokenizer: Any) -> ChatTemplate:
    """Return the tokenizer's own chat template in pieces.

    What its dialogues hold up to the end of the last answer is the same to the letter, as are its prompts; what it
    may write behind the last answer is not. A default system prompt becomes `opening`. A template that gives a
    system message no fixed place has `system=None`. `{% generation %}` tags do not matter: an answer is supervised
    with its first closing token.

    Args:
        tokenizer: of transformers.

    Raises:
        ConfigError: it has no chat template, or one that is not made of fixed pieces around what is said.
    """
    fitting = ", ".join(fitting_names(tokenizer))
    if not tokenizer.chat_template:
        raise ConfigError(PLACE, f"this tokenizer has no chat template of its own. Name one: {fitting}.")
    try:
        template = _pieces(tokenizer)
        _check(template, tokenizer, has_system=False)
    except _Untakeable as error:
        reason = f"the tokenizer's own chat template cannot be taken apart: {error}."
        raise ConfigError(PLACE, f"{reason} Name one that is nearest: {fitting}.") from None
    try:
        _check(template, tokenizer, has_system=template.system is not None)
    except _Untakeable:
        return replace(template, system=None, user_after_system=None)
    return template


def fitting_names(tokenizer: Any) -> list[str]:
    """Return the names of `TEMPLATES` whose stop tokens the tokenizer has."""
    vocabulary = tokenizer.get_added_vocab()
    fitting = [name for name, template in TEMPLATES.items() if all(stop in vocabulary for stop in template.stop)]
    return [*fitting, "plain"]


def _render(tokenizer: Any, turns: Turns, is_prompt: bool) -> str:
    messages = [{"role": role, "content": text} for role, text in turns]
    try:
        return tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=is_prompt,
            chat_template=_of_one_day(tokenizer.get_chat_template()),
            date_string=DATE.strftime("%d %b %Y"),
        )
    except (TemplateError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0][:150].rstrip(".")
        raise _Untakeable(f"it refuses {_in_words(turns)} ({reason})") from None


def _of_one_day(jinja: str) -> str:
    """Put a macro before a template that asks for today's date, which answers with `DATE`."""
    asked = re.findall(r"""strftime_now\(\s*(["'])(.*?)\1""", jinja)
    if not asked:
        return jinja
    days = json.dumps({form: DATE.strftime(form) for _, form in asked})
    return f"{{%- macro strftime_now(form) -%}}{{{{- {days}[form] -}}}}{{%- endmacro -%}}{jinja}"


def _in_words(turns: Turns) -> str:
    num_answers = sum(role == "assistant" for role, _ in turns)
    kind = f"a dialogue of {num_answers} answer{'' if num_answers == 1 else 's'}"
    if turns[-1][0] == "user":
        kind = f"a prompt behind {num_answers} answer{'' if num_answers == 1 else 's'}"
    return f"{kind} with a system message" if turns[0][0] == "system" else kind


def _dialogue(num_answers: int, *, has_system: bool = False, is_prompt: bool = False) -> Turns:
    turns: Turns = [("system", SYSTEM)] if has_system else []
    for question, answer in list(zip(QUESTIONS, ANSWERS, strict=True))[:num_answers]:
        turns += [("user", question), ("assistant", answer)]
    return [*turns, ("user", "Whatnot")] if is_prompt else turns


def _cut(text: str, turns: Turns) -> list[str]:
    """Return what stands before, between and behind the texts of the turns."""
    pieces = []
    for _, said in turns:
        before, found, text = text.partition(said)
        if not found or said in text:
            raise _Untakeable(f"it does not show what is said in {_in_words(turns)} once and in order")
        pieces.append(before)
    return [*pieces, text]


def _pieces(tokenizer: Any) -> ChatTemplate:
    prompt, dialogue = _dialogue(0, is_prompt=True), _dialogue(2)
    _, user_end = _cut(_render(tokenizer, prompt, True), prompt)
    first, answer_start, between, _, tail = _cut(_render(tokenizer, dialogue, False), dialogue)
    controls = _controls(tokenizer)
    closing = controls.search(tail)
    if closing is None or not between.startswith(tail[: closing.end()]):
        raise _Untakeable("no token closes its answers, so a model would not learn to stop")
    if not answer_start.startswith(user_end) or answer_start[len(user_end) :].strip():
        raise _Untakeable("its prompts do not end where its answers begin")
    separator, user_start = _split_between(first, between[closing.end() :], tail[closing.end() :], controls)
    opening = first.removesuffix(user_start)
    system, user_after_system = _system_pieces(tokenizer, user_start, user_end)
    bos = tokenizer.bos_token
    has_bos = bool(bos) and bos not in user_start and opening.startswith(bos)
    has_bos = has_bos and (system is None or system.startswith(bos))
    if has_bos:
        opening, system = opening.removeprefix(bos), system and system.removeprefix(bos)
    return ChatTemplate(
        system=system,
        user=user_start + MARK + user_end,
        answer_end=tail[: closing.end()],
        separator=separator,
        answer_start=answer_start[len(user_end) :],
        opening=opening,
        user_after_system=user_after_system,
        bos=has_bos,
        stop=(closing[0],),
    )


def _controls(tokenizer: Any) -> re.Pattern[str]:
    """Return what finds the tokenizer's control tokens; some vocabularies add runs of spaces too."""
    tokens = [token for token in tokenizer.get_added_vocab() if token.strip(" \u2581\t\r\n")]
    if not tokens:
        raise _Untakeable("the tokenizer has no control tokens")
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))


def _split_between(first: str, rest: str, tail: str, controls: re.Pattern[str]) -> tuple[str, str]:
    """Split what stands between a closed answer and the next question into separator and start of a user turn.

    The start is what the first question has before it too. White space that also follows the last answer belongs to
    the separator.

    Args:
        first: before the first question.
        rest: between the answer's closing token and the next question.
        tail: behind the last answer's closing token.
        controls: finds control tokens, none of which is cut through.
    """
    units = re.compile(f"{controls.pattern}|.", re.DOTALL)
    ours, theirs = units.findall(rest), units.findall(first)
    shared = 0
    while shared < min(len(ours), len(theirs)) and ours[-1 - shared] == theirs[-1 - shared]:
        shared += 1
    start = "".join(ours[len(ours) - shared :])
    separator = rest.removesuffix(start) if start else rest
    if not separator:
        space = start[: len(start) - len(start.lstrip())]
        separator = space if tail.startswith(space) else ""
        start = start.removeprefix(separator)
    return separator, start


def _system_pieces(tokenizer: Any, user_start: str, user_end: str) -> tuple[str | None, str | None]:
    """Return the piece around a system message, and that around the user turn behind it where it differs."""
    dialogue = _dialogue(2, has_system=True)
    try:
        before, after, *_ = _cut(_render(tokenizer, dialogue, False), dialogue)
    except _Untakeable:
        return None, None
    if after.endswith(user_start):
        return before + MARK + after.removesuffix(user_start), None
    return before + MARK + after, MARK + user_end


def _check(template: ChatTemplate, tokenizer: Any, *, has_system: bool) -> None:
    """Raise unless the pieces make what the tokenizer renders."""
    bos = tokenizer.bos_token or ""
    for num_answers in (1, 2, 3, 0):
        for is_prompt in (False, True):
            turns = _dialogue(num_answers, has_system=has_system, is_prompt=is_prompt)
            if not num_answers and not is_prompt:
                continue
            ours, theirs = template.render(turns, bos), _render(tokenizer, turns, is_prompt)
            if not is_prompt:  # nothing is learned from what stands behind the last answer
                ours = ours.removesuffix(template.separator)
                theirs = theirs[: len(ours)]
            if ours != theirs:
                raise _Untakeable(f"{_in_words(turns)} has {_difference(ours, theirs)}")


def _difference(ours: str, theirs: str) -> str:
    at = next(at for at, (our, their) in enumerate(zip_longest(ours, theirs)) if our != their)
    return f"{theirs[at : at + 30]!r} where other dialogues have {ours[at : at + 30]!r}"
