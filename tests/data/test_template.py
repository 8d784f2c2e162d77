import dataclasses

import pytest

from mmtune.data.template import TEMPLATES, ChatTemplate


def render(template, system, question, answer):
    parts = template.system.format(text=system) if system else ""
    return parts + template.user.format(text=question) + answer + template.answer_end + template.separator


CHATML = (
    "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
)


@pytest.mark.parametrize(
    ("name", "text", "bos"),
    [("internlm2_chat", CHATML, True), ("chatml", CHATML, False), ("plain", "Be kind.\nHiHello.\n", True)],
)
def test_pieces_make_the_literal_dialogue(name, text, bos):
    template = TEMPLATES[name]
    assert render(template, "Be kind.", "Hi", "Hello.") == text
    assert template.bos is bos
    assert template.stop == (template.answer_end,)


def test_no_system_message_is_ever_added():
    for template in TEMPLATES.values():
        assert "system" not in render(template, None, "Hi", "Hello.")


@pytest.mark.parametrize("field", ["system", "user"])
@pytest.mark.parametrize("piece", ["no mark", "{text}{text}"])
def test_a_piece_holds_one_mark(field, piece):
    pieces = dataclasses.asdict(TEMPLATES["chatml"]) | {field: piece}
    with pytest.raises(AssertionError):
        ChatTemplate(**pieces)
