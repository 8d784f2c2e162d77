import json
import re

import pytest

from mmtune.cli import main

GREEN, RED, BLUE = "32", "31", "34"


@pytest.fixture
def inspect(capsys):
    """Return a function that inspects and returns what was printed."""

    def run(*argv):
        capsys.readouterr()
        assert main(["inspect", *map(str, argv)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def talks(data_file, record):
    seeing = record("<image>\nQ1", "A1", image="1.png")
    return data_file(seeing, *(record(f"Q{number}", f"A{number}") for number in range(2, 6)), draw=False)


def test_json_is_one_object_a_line(inspect, talks, tiny):
    lines = inspect(talks, "--llm", tiny.llm, "--num-image-tokens", 4, "--json").splitlines()
    samples = [json.loads(line) for line in lines]
    assert [sample["line"] for sample in samples] == [1, 2, 3, 4, 5]
    assert all(list(sample) == ["line", "input_ids", "labels", "images"] for sample in samples)
    assert all(len(sample["input_ids"]) == len(sample["labels"]) for sample in samples)
    assert [sample["images"] for sample in samples] == [["1.png"], [], [], [], []]
    assert [sample["input_ids"].count(-200) for sample in samples] == [4, 0, 0, 0, 0]


def test_a_data_file_takes_576_image_tokens_unless_told_otherwise(inspect, talks, tiny):
    sample = json.loads(inspect(talks, "--llm", tiny.llm, "--json", "-n", 1))
    assert sample["input_ids"].count(-200) == 576


def test_a_config_knows_its_image_tokens_template_and_length(inspect, talks, config_file, tiny):
    config = config_file("data.max_length=32")
    samples = [json.loads(line) for line in inspect(config, "--json").splitlines()]
    assert samples[0]["input_ids"].count(-200) == 16
    assert [len(sample["input_ids"]) <= 32 for sample in samples] == [True] * 5
    longer = json.loads(inspect(config, "data.max_length=100", "--json", "-n", 1))
    assert len(longer["input_ids"]) > 32
    assert json.loads(inspect(config, "--max-length", 100, "--json", "-n", 1)) == longer
    other = json.loads(inspect(config, "--template", "internlm2_chat", "--json", "-n", 1))
    assert other["input_ids"][0] == 1


def test_samples_are_printed_as_they_are_trained(inspect, talks, tiny):
    text = inspect(talks, "--llm", tiny.llm, "--num-image-tokens", 4, "-n", 1)
    title, rest = text.split("\n", 1)
    assert re.fullmatch(re.escape(f"{talks}:1: ") + r"\d+ tokens, 3 supervised, 1 image", title)
    expected = "<|im_start|>user\n<image x 4>\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
    assert rest.strip() == expected.strip()


def test_three_samples_are_printed_unless_told_otherwise(inspect, talks, tiny):
    assert inspect(talks, "--llm", tiny.llm).count(" supervised") == 3
    assert inspect(talks, "--llm", tiny.llm, "-n", 4).count(" supervised") == 4


def test_cut_samples_say_so(inspect, talks, tiny):
    text = inspect(talks, "--llm", tiny.llm, "--num-image-tokens", 4, "--max-length", 28, "-n", 1)
    assert "28 tokens, 2 supervised, 1 image, 2 cut off" in text


def test_supervised_tokens_are_green_in_a_terminal(inspect, talks, tiny, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = inspect(talks, "--llm", tiny.llm, "--num-image-tokens", 4, "-n", 1)
    spans = re.findall(r"\x1b\[(\d+)m(.*?)\x1b\[0m", text, re.DOTALL)
    coloured = {code: "".join(span for found, span in spans if found == code) for code in (GREEN, RED, BLUE)}
    assert coloured[GREEN] == "A1<|im_end|>"
    assert coloured[BLUE] == "<image x 4>"
    assert coloured[RED] == "<|im_start|>userQ1<|im_end|><|im_start|>assistant"


def test_brackets_in_the_data_are_printed_as_they_are(inspect, data_file, record, tiny):
    path = data_file(record("[red]What?[/red]", "[bold]A :smile: cat."))
    assert "[red]What?[/red]" in (text := inspect(path, "--llm", tiny.llm))
    assert "[bold]A :smile: cat." in text


def test_the_course_data_with_the_tokenizer_of_internlm2(inspect, fixtures_folder):
    data, llm = fixtures_folder / "course" / "unique_data.json", fixtures_folder / "internlm2-tiny"
    options = ["--llm", llm, "--template", "internlm2_chat", "--num-image-tokens", 576, "--json"]
    samples = [json.loads(line) for line in inspect(data, *options).splitlines()]
    records = json.loads(data.read_text())
    assert len(samples) == len(records) == 6

    from mmtune.models.language import load_tokenizer

    tokenizer = load_tokenizer(str(llm))
    for sample, record in zip(samples, records, strict=True):
        ids, labels = sample["input_ids"], sample["labels"]
        assert ids[:4] == [1, 92543, 1008, 364]
        assert ids[4:580] == [-200] * 576
        assert ids.count(-200) == 576
        assert ids[-2:] == [92542, 364]
        assert labels[-2:] == [92542, -100]
        assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))
        assert sample["images"] == ["test_img/oph.jpg"]
        supervised = tokenizer.decode([label for label in labels if label != -100]).split("<|im_end|>")
        answers = [turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"]
        assert [text.strip() for text in supervised] == [*answers, ""]
