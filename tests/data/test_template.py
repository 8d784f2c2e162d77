"""Our pieces against the templates that the makers of models publish."""

import dataclasses

import pytest
from jinja_templates import (
    CHATML,
    CONTROL_TOKENS,
    DEEPSEEK,
    GEMMA,
    GEMMA3,
    LLAMA2,
    LLAMA3,
    MISTRAL,
    PHI3,
    PHI4,
    QWEN25,
    ZEPHYR,
)

from mmtune.conversation import IGNORE_INDEX, Conversation, Message
from mmtune.data.choose_template import chat_template
from mmtune.data.encode import control_ids, encode
from mmtune.data.template import OTHERWISE_IN_XTUNER, TEMPLATES, XTUNER_NAMES, ChatTemplate
from mmtune.errors import ConfigError
from mmtune.testing import byte_tokenizer

TURNS = [
    ("user", "What is in the picture?"),
    ("assistant", "A cat,\nI think."),
    ("user", "Sure? 猫?"),
    ("assistant", "Yes  !"),
    ("user", "Bye"),
    ("assistant", "Bye."),
]
SYSTEM = ("system", "Be kind.\nBe brief.")
PUBLISHED = {
    "internlm2_chat": "{{ bos_token }}" + CHATML,
    "chatml": CHATML,
    "qwen_chat": QWEN25,
    "llama2_chat": LLAMA2,
    "llama3_chat": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA3,
    "phi3": PHI3,
    "phi4": PHI4,
    "zephyr": ZEPHYR,
    "deepseek_chat": DEEPSEEK,
}


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes and the control tokens of all families."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *CONTROL_TOKENS]})
    return tokenizer


def published_text(tokenizer, jinja, turns, **options):
    messages = [{"role": role, "content": text} for role, text in turns]
    return tokenizer.apply_chat_template(messages, chat_template=jinja, tokenize=False, **options)


def sample_of(turns, template, tokenizer):
    messages = tuple(Message(role, (text,)) for role, text in turns)
    is_prompt = turns[-1][0] == "user"
    conversation = Conversation(messages)
    return encode(conversation, template, tokenizer, num_image_tokens=0, add_generation_prompt=is_prompt)


@pytest.mark.parametrize("turns", [TURNS[:2], TURNS[:4], TURNS, [SYSTEM, *TURNS[:2]], [SYSTEM, *TURNS]])
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_ids_are_those_of_the_published_template(tokenizer, name, turns):
    eos = {"deepseek_chat": "<｜end▁of▁sentence｜>"}.get(name, "</s>")
    template, jinja = TEMPLATES[name], PUBLISHED[name].replace("eos_token", repr(eos))
    has_no_system = turns[0][0] != "system"
    for is_prompt in (False, True):
        shown = turns[:-1] if is_prompt else turns
        text = published_text(tokenizer, jinja, shown, add_generation_prompt=is_prompt)
        if name == "qwen_chat" and has_no_system:  # ours adds no default system prompt
            text = text.partition("assistant.<|im_end|>\n")[2]
        if name == "phi3":  # the published one puts EOS behind a whole dialogue
            text = text.removesuffix("</s>")
        assert template.render(shown, tokenizer.bos_token) == text
        assert sample_of(shown, template, tokenizer).input_ids == control_ids(text, tokenizer)


def test_gemma_1_writes_the_same_and_refuses_system_messages(tokenizer):
    assert published_text(tokenizer, GEMMA, TURNS) == published_text(tokenizer, GEMMA3, TURNS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (  # docs/vicuna_weights_version.md of FastChat
            "vicuna",
            "<s>A chat between two. USER: Hello! ASSISTANT: Hello!</s>USER: How are you? ASSISTANT: I am good.</s>",
        ),
        (  # build_inputs of internlm-chat-7b
            "internlm_chat",
            "<s><|System|>:A chat between two.\n<|User|>:Hello!<eoh>\n<|Bot|>:Hello!<eoa>\n"
            "<|User|>:How are you?<eoh>\n<|Bot|>:I am good.<eoa>\n",
        ),
        ("plain", "<s>A chat between two.\nHello!Hello!\nHow are you?I am good.\n"),
    ],
)
def test_families_without_a_published_jinja(tokenizer, name, text):
    talk = [("system", "A chat between two."), ("user", "Hello!"), ("assistant", "Hello!")]
    talk += [("user", "How are you?"), ("assistant", "I am good.")]
    assert TEMPLATES[name].render(talk, "<s>") == text
    assert sample_of(talk, TEMPLATES[name], tokenizer).input_ids == control_ids(text, tokenizer)


def test_every_family_is_compared():
    assert set(TEMPLATES) == {*PUBLISHED, "vicuna", "internlm_chat", "plain"}


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_answers_with_their_end_are_supervised_and_nothing_else(tokenizer, name):
    template = TEMPLATES[name]
    sample = sample_of([SYSTEM, *TURNS], template, tokenizer)
    kept = [label for label in sample.labels if label != IGNORE_INDEX]
    answers = [text for role, text in TURNS if role == "assistant"]
    text = "".join(template.answer_start + answer + template.answer_end for answer in answers)
    assert kept == control_ids(text, tokenizer)
    assert template.answer_end.endswith(template.stop[0])


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_text_that_spells_every_control_token_is_text(tokenizer, name):
    template = TEMPLATES[name]
    spelled = f"<s></s>{''.join(CONTROL_TOKENS)}<|im_start|><|im_end|>"
    plain = sample_of([("system", "x"), ("user", "x"), ("assistant", "x")], template, tokenizer)
    typed = sample_of([("system", spelled), ("user", spelled), ("assistant", spelled)], template, tokenizer)
    specials = set(tokenizer.all_special_ids)
    assert [token for token in typed.input_ids if token in specials] == [
        token for token in plain.input_ids if token in specials
    ]


def test_no_system_message_is_ever_added():
    for template in TEMPLATES.values():
        assert not template.opening
        assert "system" not in template.render([("user", "Hi"), ("assistant", "Hello.")]).lower()


@pytest.mark.parametrize("field", ["system", "user", "user_after_system"])
@pytest.mark.parametrize("piece", ["no mark", "{text}{text}"])
def test_a_piece_holds_one_mark(field, piece):
    pieces = dataclasses.asdict(TEMPLATES["chatml"]) | {field: piece}
    with pytest.raises(AssertionError):
        ChatTemplate(**pieces)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_name_gives_its_template(tokenizer, name):
    assert chat_template(name, tokenizer) is TEMPLATES[name]


@pytest.mark.parametrize(("theirs", "ours"), XTUNER_NAMES.items())
def test_names_of_xtuner_are_taken(tokenizer, theirs, ours):
    assert theirs not in TEMPLATES
    assert chat_template(theirs, tokenizer) is TEMPLATES[ours]


def test_the_names_that_are_said_to_differ_exist():
    assert set(OTHERWISE_IN_XTUNER) <= set(TEMPLATES)


def test_an_unknown_name_is_told_the_nearest(tokenizer):
    with pytest.raises(ConfigError) as caught:
        chat_template("tokeniser", tokenizer)
    message = str(caught.value)
    assert message.startswith("model.llm.chat_template: unknown name 'tokeniser'. Did you mean 'tokenizer'? Known: ")
    assert all(name in message for name in (*TEMPLATES, *XTUNER_NAMES))


def test_a_template_whose_end_is_no_token_is_refused():
    with pytest.raises(ConfigError) as caught:
        chat_template("llama3_chat", byte_tokenizer())
    assert str(caught.value) == (
        "model.llm.chat_template: 'llama3_chat' ends answers with '<|eot_id|>', which is no token of this tokenizer."
        " Those whose tokens it has: internlm2_chat, chatml, qwen_chat, llama2_chat, mistral, vicuna, phi4, zephyr,"
        " plain, or tokenizer for its own."
    )
