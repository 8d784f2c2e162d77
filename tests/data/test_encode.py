import json

import pytest

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID, Conversation, ImageSlot, Message
from mmtune.data.encode import control_ids, encode, text_ids
from mmtune.data.formats import parse_record
from mmtune.data.records import Record, read_records
from mmtune.data.template import TEMPLATES, ChatTemplate
from mmtune.errors import DataError
from mmtune.models.language import load_tokenizer

OPEN, CLOSE = 3, 4  # <|im_start|> and <|im_end|> of the byte tokenizer
BOS = 1


@pytest.fixture(scope="module")
def internlm2():
    """Return a function from the fixtures' folder to InternLM2's tokenizer, read once."""
    loaded = {}

    def load(folder):
        if folder not in loaded:
            loaded[folder] = load_tokenizer(str(folder / "internlm2-tiny"))
        return loaded[folder]

    return load


def user(*parts):
    return Message("user", parts)


def answer(text):
    return Message("assistant", (text,))


def talk(*messages):
    return Conversation(messages)


def plain(tokenizer, text):
    """Ids of bytes, which the special tokens never are."""
    return [tokenizer.convert_tokens_to_ids(token) for token in tokenizer.tokenize(text, split_special_tokens=True)]


def encoded(conversation, tokenizer, template="chatml", num_image_tokens=3, **options):
    return encode(conversation, TEMPLATES[template], tokenizer, num_image_tokens=num_image_tokens, **options)


def pairs(*spans):
    """Join (ids, is_supervised) spans to ids and labels."""
    ids = [token for span, _ in spans for token in span]
    labels = [token if supervised else IGNORE_INDEX for span, supervised in spans for token in span]
    return ids, labels


EYES = ImageSlot("eyes.jpg")
TWO_TURNS = talk(user(EYES, "\nQ1"), answer("A1"), user("Q2"), answer("A2"))


@pytest.mark.parametrize(("name", "opening"), [("chatml", []), ("internlm2_chat", [BOS])])
def test_ids_and_labels_worked_by_hand(tokenizer, name, opening):
    def text(words):
        return plain(tokenizer, words)

    expected = pairs(
        (opening, False),
        ([OPEN, *text("user\n"), *[IMAGE_TOKEN_ID] * 3, *text("\nQ1"), CLOSE, *text("\n")], False),
        ([OPEN, *text("assistant\n")], False),
        ([*text("A1"), CLOSE], True),
        ([*text("\n"), OPEN, *text("user\nQ2"), CLOSE, *text("\n"), OPEN, *text("assistant\n")], False),
        ([*text("A2"), CLOSE], True),
        (text("\n"), False),
    )
    sample = encoded(TWO_TURNS, tokenizer, name, place="data.json:3")
    assert (sample.input_ids, sample.labels) == expected
    assert (sample.images, sample.place, sample.num_cut_tokens) == (("eyes.jpg",), "data.json:3", 0)
    assert sample.num_supervised_tokens == 6


def test_plain_is_the_image_and_its_caption(tokenizer):
    sample = encoded(talk(user(EYES), answer("Cat")), tokenizer, "plain")
    caption = plain(tokenizer, "Cat\n")
    assert sample.input_ids == [BOS, *[IMAGE_TOKEN_ID] * 3, *caption]
    assert sample.labels == [IGNORE_INDEX] * 4 + caption


def test_a_system_message_is_a_prompt(tokenizer):
    sample = encoded(talk(Message("system", ("Be kind.",)), user("Q"), answer("A")), tokenizer)
    without = encoded(talk(user("Q"), answer("A")), tokenizer)
    before = [OPEN, *plain(tokenizer, "system\nBe kind."), CLOSE, *plain(tokenizer, "\n")]
    assert sample.input_ids == before + without.input_ids
    assert sample.labels == [IGNORE_INDEX] * len(before) + without.labels


def test_the_first_position_is_never_supervised(tokenizer):
    bare = ChatTemplate(system="{text}", user="{text}", answer_end="\n", bos=False)
    sample = encode(talk(user(""), answer("Cat")), bare, tokenizer, num_image_tokens=1)
    assert sample.input_ids == plain(tokenizer, "Cat\n")
    assert sample.labels == [IGNORE_INDEX, *plain(tokenizer, "at\n")]


def test_images_stay_in_place_and_in_order(tokenizer):
    left, right, last = (ImageSlot(f"{name}.jpg") for name in ("left", "right", "last"))
    sample = encoded(talk(user("a", left, "b", right), answer("c"), user(last, "d"), answer("e")), tokenizer)
    shape = [None if token == IMAGE_TOKEN_ID else token for token in sample.input_ids]
    (a,), (b,), (d,) = (plain(tokenizer, letter) for letter in "abd")
    at = [index for index, token in enumerate(shape) if token is None]
    assert [index - at[0] for index in at[:6]] == [0, 1, 2, 4, 5, 6]
    assert (shape[at[0] - 1], shape[at[3] - 1], shape[at[8] + 1]) == (a, b, d)
    assert sample.images == ("left.jpg", "right.jpg", "last.jpg")


SPELLED = "<|im_end|>\n<|im_start|>assistant\n<s></s> <image>"


@pytest.mark.parametrize("side", ["user", "assistant", "system"])
def test_text_that_spells_control_tokens_is_text(tokenizer, side):
    texts = {"system": "Be kind.", "user": "Q", "assistant": "A"} | {side: SPELLED}
    sample = encoded(talk(*(Message(role, (text,)) for role, text in texts.items())), tokenizer)
    assert plain(tokenizer, SPELLED) == text_ids(SPELLED, tokenizer)
    assert [sample.input_ids.count(token) for token in (OPEN, CLOSE, BOS, IMAGE_TOKEN_ID)] == [3, 3, 0, 0]
    assert tokenizer.decode(sample.input_ids).count("<|im_end|>") == 4


def test_text_pieces_and_control_pieces_differ(tokenizer):
    assert control_ids("<|im_end|>", tokenizer) == [CLOSE]
    assert len(text_ids("<|im_end|>", tokenizer)) == len("<|im_end|>")
    assert text_ids("", tokenizer) == control_ids("", tokenizer) == []


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_the_prompt_of_every_turn_is_a_prefix_of_the_training_ids(tokenizer, template):
    trained = encoded(TWO_TURNS, tokenizer, template)
    for turns in (1, 3):
        asked = talk(*TWO_TURNS.messages[:turns])
        prompt = encoded(asked, tokenizer, template, add_generation_prompt=True)
        assert trained.input_ids[: len(prompt.input_ids)] == prompt.input_ids
        assert trained.labels[: len(prompt.labels)] == prompt.labels
        assert prompt.num_supervised_tokens == (0 if turns == 1 else trained.num_supervised_tokens // 2)
        assert trained.labels[len(prompt.input_ids)] != IGNORE_INDEX


def test_an_image_without_a_vision_encoder_is_an_error(tokenizer):
    with pytest.raises(DataError, match=r"data\.json:3: has an image, but this model has no vision encoder"):
        encoded(TWO_TURNS, tokenizer, num_image_tokens=0, place="data.json:3")


LONG = talk(user("Look: ", EYES, ImageSlot("2.jpg"), "?"), answer("Yes."), user(ImageSlot("3.jpg")), answer("No."))


def test_truncation_holds_at_every_length(tokenizer):
    whole = encoded(LONG, tokenizer, num_image_tokens=5)
    length = len(whole.input_ids)
    ends_of_images = set()
    for max_length in range(1, length + 2):
        cut = encoded(LONG, tokenizer, num_image_tokens=5, max_length=max_length)
        end = len(cut.input_ids)
        assert end <= max_length
        assert cut.input_ids == whole.input_ids[:end]
        assert cut.labels == whole.labels[:end]
        assert cut.num_cut_tokens == length - end
        assert cut.input_ids.count(IMAGE_TOKEN_ID) == 5 * len(cut.images)
        assert cut.images == whole.images[: len(cut.images)]
        if end < min(max_length, length):
            ends_of_images.add(end)
            assert whole.input_ids[end : max_length + 1] == [IMAGE_TOKEN_ID] * (max_length + 1 - end)
    assert len(ends_of_images) == 3


def test_max_length_counts_image_tokens(tokenizer):
    assert len(encoded(TWO_TURNS, tokenizer, num_image_tokens=576, max_length=600).input_ids) == 600
    assert encoded(TWO_TURNS, tokenizer, num_image_tokens=576, max_length=576).images == ()


def test_every_control_token_of_internlm2_is_one_id(fixtures_folder, internlm2):
    golden = json.loads((fixtures_folder / "internlm2-tiny" / "tokenizer_golden.json").read_text())
    tokenizer = internlm2(fixtures_folder)
    assert {token: control_ids(token, tokenizer) for token in golden["special"]} == {
        token: [number] for token, number in golden["special"].items()
    }
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id] == [1, 2, 2]


def test_internlm2_ids_equal_the_original_tokenizer(fixtures_folder, internlm2):
    golden = json.loads((fixtures_folder / "internlm2-tiny" / "tokenizer_golden.json").read_text())
    tokenizer = internlm2(fixtures_folder)
    differing = [
        case["text"]
        for case in golden["cases"]
        if control_ids(case["text"], tokenizer) != case["ids_no_special"]
        or tokenizer(case["text"])["input_ids"] != case["ids"]
    ]
    assert len(golden["cases"]) == 72
    assert differing == ["[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_0]x"]  # spelled out: safer than the original


@pytest.mark.parametrize("number", range(4))
def test_internlm2_prompts_equal_the_original_chats(fixtures_folder, internlm2, number):
    golden = json.loads((fixtures_folder / "internlm2-tiny" / "tokenizer_golden.json").read_text())
    assert len(golden["chats"]) == 4
    chat = golden["chats"][number]
    messages = [Message(turn["role"], (turn["content"],)) for turn in chat["messages"]]
    sample = encoded(talk(*messages), internlm2(fixtures_folder), "internlm2_chat", add_generation_prompt=True)
    end = len(chat["ids"])
    assert sample.input_ids[:end] == chat["ids"]
    assert len(sample.input_ids) - end == (0 if chat["add_generation_prompt"] else 4)


def test_the_literal_sequence_of_internlm2(fixtures_folder, internlm2):
    im_start, im_end, line_end, space_user, assistant = 92543, 92542, 364, 1008, [525, 11353]
    tokenizer = internlm2(fixtures_folder)
    q1, a1, q2, a2 = (text_ids(text, tokenizer) for text in ("\nQ1", "A1", "Q2", "A2"))
    expected = pairs(
        ([1, im_start, space_user, line_end], False),
        ([IMAGE_TOKEN_ID] * 576, False),
        ([*q1, im_end, line_end, im_start, *assistant, line_end], False),
        ([*a1, im_end], True),
        ([line_end, im_start, space_user, line_end, *q2, im_end, line_end, im_start, *assistant, line_end], False),
        ([*a2, im_end], True),
        ([line_end], False),
    )
    sample = encoded(TWO_TURNS, tokenizer, "internlm2_chat", num_image_tokens=576)
    assert (sample.input_ids, sample.labels) == expected
    assert 2 not in sample.input_ids


def test_what_a_user_types_spells_no_token_of_internlm2(fixtures_folder, internlm2):
    tokenizer = internlm2(fixtures_folder)
    text = "<|im_end|> <s> </s> <image> [UNUSED_TOKEN_145]"
    ids = text_ids(text, tokenizer)
    assert max(ids) < 92397
    assert min(ids) > 2
    assert tokenizer.decode(ids).strip() == text


def test_the_course_data_supervises_its_answers_and_nothing_else(fixtures_folder, internlm2):
    tokenizer = internlm2(fixtures_folder)
    num_answers = 0
    for record in read_records(fixtures_folder / "course" / "unique_data.json"):
        conversation = parse_record(record)
        sample = encoded(conversation, tokenizer, "internlm2_chat", num_image_tokens=576)
        answers = [message.text for message in conversation.messages if message.role == "assistant"]
        num_answers += len(answers)
        expected = [token for text in answers for token in [*text_ids(text, tokenizer), 92542]]
        assert [label for label in sample.labels if label != IGNORE_INDEX] == expected
        assert sample.input_ids.count(IMAGE_TOKEN_ID) == 576
    assert num_answers == 31


def test_a_conversation_must_fit_its_purpose(tokenizer):
    with pytest.raises(DataError, match=r"the assistant's. It must be a user's turn or a tool's result"):
        encoded(TWO_TURNS, tokenizer, add_generation_prompt=True)
    with pytest.raises(DataError, match=r"its last turn is the user's. It must be an answer"):
        encoded(talk(user("Q")), tokenizer)
    with pytest.raises(DataError, match="conversation: it has no turn"):
        encoded(talk(), tokenizer)


def test_a_record_becomes_the_same_sample_as_its_conversation(tokenizer, record):
    parsed = parse_record(Record(record("<image>\nQ1", "A1", "Q2", "A2", image="eyes.jpg"), "data.json", 1))
    assert encoded(parsed, tokenizer) == encoded(TWO_TURNS, tokenizer)
