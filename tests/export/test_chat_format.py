"""The chat templates that exports carry render what training encodes, for every family."""

from dataclasses import replace

import pytest
from jinja2.exceptions import TemplateError

from mmtune.data.template import TEMPLATES, ChatTemplate
from mmtune.export.chat_format import image_template, text_template
from mmtune.export.gguf import modelfile

TALK = [("user", 'Say "BOS" {{ x }}'), ("assistant", "OPENING"), ("user", "Q2"), ("assistant", "A2"), ("user", "Q3")]
CASES = TEMPLATES | {
    "opening": replace(TEMPLATES["chatml"], opening="<|im_start|>system\nUSER_BEFORE\n<|im_end|>\n"),
    "no system": replace(TEMPLATES["gemma"], system=None, user_after_system=None),
}


def rendered(tokenizer, jinja, turns):
    messages = [{"role": role, "content": text} for role, text in turns]
    return tokenizer.apply_chat_template(messages, chat_template=jinja, tokenize=False)


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("write", [text_template, image_template])
def test_the_jinja_of_an_export_is_the_template(tokenizer, name, write):
    template = CASES[name]
    jinja = write(template, "<s>")
    ruled = [("system", "Be kind.\n"), *TALK]
    for end in (1, 2, 3, 5):
        assert rendered(tokenizer, jinja, TALK[:end]) == template.render(TALK[:end], "<s>")
    if template.system is None:
        with pytest.raises(TemplateError, match="takes no system message"):
            rendered(tokenizer, jinja, ruled)
    else:
        for end in (2, 3, 4, 6):
            assert rendered(tokenizer, jinja, ruled[:end]) == template.render(ruled[:end], "<s>")


def test_a_modelfile_of_a_format_whose_first_turn_is_special():
    template = ChatTemplate(
        system="<sys>{text}",
        user="<user>{text}<bot>",
        user_after_system="{text}<bot>",
        answer_end="</s>",
        opening="<o>",
    )
    assert modelfile(["model.gguf"], template, "</s>") == (
        'FROM ./model.gguf\nTEMPLATE """{{ range $i, $m := .Messages }}'
        '{{ if eq $m.Role "assistant" }}{{ $m.Content }}</s>'
        '{{ else if eq $m.Role "system" }}<sys>{{ $m.Content }}'
        "{{ else if eq $i 0 }}<o><user>{{ $m.Content }}<bot>"
        '{{ else if and (eq $i 1) (eq (index $.Messages 0).Role "system") }}{{ $m.Content }}<bot>'
        '{{ else }}<user>{{ $m.Content }}<bot>{{ end }}{{ end }}"""\n'
        'PARAMETER stop "</s>"\nPARAMETER temperature 0\n'
    )
