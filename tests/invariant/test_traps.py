"""The traps that older toolkits fall into with data: one test each, by its name."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prepared_data import NUM_IMAGE_TOKENS, prepare, samples_of

import mmtune.data.images as images
from mmtune.chat.session import ChatSession
from mmtune.cli import main
from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID
from mmtune.data.formats import FORMATS
from mmtune.errors import DataError
from mmtune.training.callbacks import read_log

__all__ = ["prepare"]


def test_trap_first_record_has_no_image(prepare, record, data_file):
    texts = [record("Hi", "Hello.")] * 3
    dataset, _ = prepare(data_file(*texts, record("<image>What?", "A cat.", image="1.png")))
    assert dataset.num_images.tolist() == [0, 0, 0, 1]
    assert dataset[3]["pixel_values"].shape == (1, 3, 16, 16)


def test_trap_first_record_has_no_image_and_later_ones_change_the_loss(workspace):
    def losses(name, colour):
        for number in range(10):
            Image.new("RGB", (32, 32), colour).save(f"{number}.png")
        assert main(["pretrain", "pretrain.yaml", "train.max_steps=2", f"train.output_dir=runs/{name}"]) == 0
        return [entry["loss"] for entry in read_log(Path(f"runs/{name}/log.jsonl"))]

    records = json.loads(Path("captions.json").read_text())
    text = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}
    Path("captions.json").write_text(json.dumps([text, *records]))
    assert losses("red", (255, 0, 0)) != losses("blue", (0, 0, 255))


@pytest.mark.parametrize(
    "turns",
    [("<image> or <image>?", "Both."), ("<image>?", "One.", "And <image>?", "Two.")],
    ids=["one turn", "two turns"],
)
def test_trap_two_images_in_one_turn_or_in_two(prepare, record, data_file, turns):
    dataset, _ = prepare(data_file(record(*turns, image=["a.png", "b.png"])))
    item = dataset[0]
    reds = [round((float(image[0, 8, 8]) + 1) * 127.5) for image in item["pixel_values"]]
    assert reds == [0, 40]
    slots = np.flatnonzero(item["input_ids"].numpy() == IMAGE_TOKEN_ID)
    assert len(slots) == 2 * NUM_IMAGE_TOKENS
    assert slots[NUM_IMAGE_TOKENS] - slots[NUM_IMAGE_TOKENS - 1] > 1, "text stands between the images"


@pytest.mark.parametrize(
    ("question", "image", "words"),
    [
        ("What?", "1.png", "1 image but 0"),
        ("<image>What?", None, "0 images but 1"),
        ("<image>What?", "missing.png", "missing.png is missing"),
        ("<image>What?", "corrupt.png", "corrupt.png"),
    ],
    ids=["image without mark", "mark without image", "missing file", "corrupt file"],
)
def test_trap_image_without_mark_mark_without_image_missing_or_corrupt_file(
    workspace, record, question, image, words, capsys, monkeypatch
):
    """Found by the check, before any model is loaded."""
    import mmtune.training.model as model

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(model, "build_parts", load)
    Image.new("RGB", (32, 32)).save("1.png")
    Path("corrupt.png").write_bytes(Path("1.png").read_bytes()[:60])
    Path("captions.json").write_text(
        json.dumps([record("<image>", "Fine.", image="1.png"), record(question, "A.", image=image)])
    )
    assert main(["pretrain", "pretrain.yaml"]) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert "captions.json:1: " in shown or "captions.json:2: " in shown
    assert words in shown


def test_trap_after_the_data_is_mended_the_same_command_runs(workspace, record, capsys):
    good = Path("captions.json").read_text()
    Path("captions.json").write_text(json.dumps([record("Hi", ""), record("Hi"), record("Hi", "Hello.")]))
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 2
    assert "1 more: runs/pretrain/data_problems.jsonl lists all" in capsys.readouterr().err
    listed = [json.loads(line) for line in Path("runs/pretrain/data_problems.jsonl").read_text().splitlines()]
    assert [list(entry) for entry in listed] == [["file", "line", "reason", "mend"]] * 2
    Path("captions.json").write_text(good)
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0
    assert not Path("runs/pretrain/data_problems.jsonl").exists()


@pytest.mark.parametrize("extra", [{}, {"id": 3}, {"id": "x"}])
def test_trap_id_missing_int_or_duplicate(prepare, record, data_file, extra):
    assert len(prepare(data_file(record("Hi", "Hello.", **extra), record("Hi", "You.", **extra)))[0]) == 2


def test_trap_conversation_for_conversations(prepare, record, data_file):
    talk = record("Hi", "Hello.")
    with pytest.raises(DataError, match="Did you mean 'conversations'"):
        prepare(data_file({"conversation": talk["conversations"]}))


@pytest.mark.parametrize("image", ["1.png", ["1.png"]])
def test_trap_str_or_list_of_images(prepare, record, data_file, image):
    assert prepare(data_file(record("<image>", "A cat.", image=image)))[0].num_images.tolist() == [1]


@pytest.mark.parametrize(
    "roles", ["human human gpt", "gpt human gpt", "human gpt gpt", "human gpt bot", "human gpt human"]
)
def test_trap_consecutive_turns_leading_assistant_unknown_role(prepare, data_file, roles):
    talk = {"conversations": [{"from": role, "value": f"turn {n}"} for n, role in enumerate(roles.split())]}
    good = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes."}]}
    path = data_file(talk, good)
    with pytest.raises(DataError, match=r":1: .*turn"):
        prepare(path)
    dataset, report = prepare(path, on_bad_record="skip")
    assert (len(dataset), len(report.problems)) == (1, 1)


@pytest.mark.parametrize("answer", ["", "  \n"])
def test_trap_empty_answer(prepare, record, data_file, answer):
    with pytest.raises(DataError, match="answer is empty"):
        prepare(data_file(record("Hi", answer)))


def test_trap_truncation(prepare, record, data_file):
    """`max_length` holds with images at full size, never cuts one, and leaves no sample without a label."""
    talk = record("<image>Q", "A1", "Q<image>", "A2" * 20, "Q", "A3", image=["1.png", "2.png"])
    path = data_file(talk, record("Hi", "Yes."))
    for max_length in range(30, 160):
        dataset, report = prepare(path, max_length=max_length, on_bad_record="skip")
        for sample in samples_of(dataset):
            assert len(sample.input_ids) <= max_length
            assert sample.input_ids.count(IMAGE_TOKEN_ID) == NUM_IMAGE_TOKENS * len(sample.images)
            assert sample.num_supervised_tokens
        assert report.num_cut == sum(sample.num_cut_tokens > 0 for sample in samples_of(dataset))
        assert report.num_records == len(dataset) + len(report.problems)


def test_trap_packing_loses_no_token(workspace, capsys):
    counts = []
    for packing in ("false", "true"):
        assert main(["data", "stats", "finetune.yaml", f"data.pack_to_max_length={packing}", "--json"]) == 0
        counts.append(json.loads(capsys.readouterr().out))
    assert counts[0]["num_tokens"] == counts[1]["num_tokens"]
    assert counts[0]["num_rows"] > counts[1]["num_rows"]


def test_trap_loss_over_accumulation_is_weighted_by_supervised_tokens(workspace):
    """Accumulation 4 of one sample each equals one batch of 4, though their answers differ in length."""
    losses = []
    for batch, accumulation in ((4, 1), (1, 4)):
        sizes = [f"train.per_device_train_batch_size={batch}", f"train.gradient_accumulation_steps={accumulation}"]
        assert (
            main(
                [
                    "pretrain",
                    "pretrain.yaml",
                    *sizes,
                    f"train.output_dir=runs/{batch}",
                    "data.train.0.path=dialogues.json",
                ]
            )
            == 0
        )
        losses.append([entry["loss"] for entry in read_log(Path(f"runs/{batch}/log.jsonl"))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_trap_mask_built_from_strings(prepare, record, data_file, tokenizer):
    """Answers that repeat the question or the template are masked by where they stand, not by their text."""
    talk = record("A<|im_end|>", "A<|im_end|>", "user\nA", "<|im_start|>assistant\n", "A", "A")
    sample = prepare(data_file(talk))[0].sample(0)
    supervised = [token for token in sample.labels if token != IGNORE_INDEX]
    assert tokenizer.decode(supervised) == "A<|im_end|><|im_end|><|im_start|>assistant\n<|im_end|>A<|im_end|>"
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert supervised.count(end) == 3, "only the ends of the answers are control tokens"


def test_trap_a_sample_without_supervised_token_is_an_error(prepare, record, data_file):
    with pytest.raises(DataError, match="answer is left within max_length"):
        prepare(data_file(record("q" * 300, "Too late.")))


def test_trap_resume_reads_no_image_again(workspace, monkeypatch):
    opened = []
    open_image = images.open_image

    def counting(source, *rest, **options):
        opened.append(str(source))
        return open_image(source, *rest, **options)

    assert main(["pretrain", "pretrain.yaml", "train.num_train_epochs=1", "train.save_steps=2"]) == 0
    Path("runs/again").mkdir(parents=True)
    Path("runs/pretrain/checkpoint-2").rename("runs/again/checkpoint-2")
    monkeypatch.setattr(images, "open_image", counting)
    changes = ["train.output_dir=runs/again", "train.num_train_epochs=1", "train.save_steps=2"]
    assert main(["pretrain", "pretrain.yaml", *changes, "--resume"]) == 0
    assert len(opened) == 3 * 2, "three of five steps were left, of two images each"


@pytest.mark.parametrize("workers", [0, 2])
def test_trap_an_image_that_breaks_while_a_run_reads_it_is_one_line(workspace, monkeypatch, capsys, workers):
    import mmtune.training.model as model

    build_parts = model.build_parts

    def breaking(*given):
        Path("3.png").write_bytes(b"broken")
        return build_parts(*given)

    monkeypatch.setattr(model, "build_parts", breaking)
    changes = ["model.projector.standardize=false", "model.projector.initial_scale=null"]
    assert main(["pretrain", "pretrain.yaml", f"train.dataloader_num_workers={workers}", *changes]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("mmtune: captions.json:1: ")
    assert "3.png: not an image" in last


def test_trap_training_ids_equal_chat_ids(workspace):
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0
    session = ChatSession.from_run("runs/pretrain")
    session.ask("What colour?", ("0.png",))
    from mmtune.build_data import build_dataset, build_reader
    from mmtune.config import load_config

    config = load_config("pretrain.yaml", [], "pretrain")
    dataset, _ = build_dataset(config, build_reader(config.model))
    sample = dataset.sample(0)
    prompt_length = sample.labels.index(next(label for label in sample.labels if label != IGNORE_INDEX))
    assert session.ids[:prompt_length] == sample.input_ids[:prompt_length]


def test_trap_no_code_in_data_runs(prepare, desk, tmp_path):
    """A record is data: nothing in it is evaluated, imported or unpickled."""
    path = desk / "data.jsonl"
    attack = "__import__('pathlib').Path('owned').touch()"
    talk = [{"from": "human", "value": "{{" + attack + "}}"}, {"from": "gpt", "value": "${" + attack + "}"}]
    path.write_text(json.dumps({"conversations": talk}))
    assert len(prepare(path)[0]) == 1
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(DataError):
        prepare(path)
    assert not (desk / "owned").exists()


def test_trap_nothing_is_fetched_unless_asked(workspace, record, monkeypatch):
    """Training and chat run with sockets disabled; an image named by a URL is an error, not a download."""

    def refused(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0
    assert ChatSession.from_run("runs/pretrain").ask("What?", ("0.png",)) is not None
    Path("captions.json").write_text(json.dumps([record("<image>", "A.", image="http://example.com/1.png")]))
    assert main(["pretrain", "pretrain.yaml", "train.output_dir=runs/url"]) == 2


def test_trap_rows_of_different_types(prepare, record, data_file):
    """Rows whose columns and types differ are read one by one: none takes another's shape."""
    rows = [
        record("Hi", "Hello.", id=1),
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}], "id": "two"},
        {"image": "1.png", "caption": "A cat.", "id": None},
        {"instruction": "Say yes.", "input": "", "output": "Yes."},
    ]
    dataset, report = prepare(data_file(*rows))
    assert len(dataset) == report.num_records == 4
    assert dataset.num_images.tolist() == [0, 0, 1, 0]
    assert {"llava", "messages", "caption", "alpaca"} <= FORMATS.keys()


def test_trap_throughput_counts_expanded_tokens(prepare, record, data_file):
    dataset, _ = prepare(data_file(record("<image>", "A cat.", image="1.png")))
    assert dataset.lengths[0] == len(dataset[0]["input_ids"])
    assert int((dataset[0]["input_ids"] == IMAGE_TOKEN_ID).sum()) == NUM_IMAGE_TOKENS
    assert torch.is_tensor(dataset[0]["input_ids"])
