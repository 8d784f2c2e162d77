"""Text alone is the same code: what holds for runs that see holds with `vision: null`, for dialogues and documents."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from training_workspace import fit, run_answers

from mmtune.build import build_parts, load_run
from mmtune.build_data import build_dataset, build_reader, packed
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.conversation import IGNORE_INDEX
from mmtune.data.collate import collate
from mmtune.training.callbacks import read_log

SEPARATE = ("data.pack_to_max_length=false", "model.adapter.lora_dropout=0.0")
TUNED = {
    "lora": (),
    "qlora": ("model.llm.quantization=nf4",),
    "full": ("model.llm.tune=full", "model.adapter=null", "train.learning_rate=1e-3"),
    "partial": ("model.llm.tune={top_layers: 1}", "model.adapter=null"),
    "base": ("model.llm.chat_template=vicuna",),
}


@pytest.fixture
def text(workspace, models):
    """Dialogues of several turns, some with a system message or with an answer that is not trained, and documents."""
    rng = random.Random(1)
    records = []
    for number in range(12):
        turns = [{"role": "system", "content": f"Be {number}."}] if number % 3 == 0 else []
        for turn in range(1 + number % 3):
            answer = {"role": "assistant", "content": "It. " * rng.randint(1, 6)}
            turns += [{"role": "user", "content": f"Say {turn}"}, answer]
        if number % 3 == 2:
            turns[-3]["loss"] = False
        records.append({"messages": turns})
    Path("talk.json").write_text(json.dumps(records))
    texts = ["The cat sat on the mat. " * rng.randint(1, 9) for _ in range(8)]
    Path("books.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    adapter = {"kind": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
    write = {
        "model": {
            "llm": {"name_or_path": str(models / "llm"), "chat_template": "chatml", "dtype": "float32"},
            "adapter": adapter,
        },
        "data": {"train": [{"path": "talk.json"}, {"path": "books.jsonl"}], "max_length": 128},
        "train": {
            "output_dir": "runs/sft",
            "gradient_accumulation_steps": 1,
            "learning_rate": 5e-3,
            "max_steps": 6,
            "save_steps": 0,
            "device": "cpu",
        },
    }
    Path("sft.yaml").write_text(yaml.safe_dump(write))
    return workspace


def train(name, *changes, verb="sft"):
    assert main([verb, f"{verb}.yaml", f"train.output_dir=runs/{name}", *changes]) == 0
    return Path("runs", name)


def weights(folder):
    files = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("adapter/*.safetensors"))]
    return {f"{path.name}:{key}": value for path in files for key, value in load_file(path).items()}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if tolerance:
            torch.testing.assert_close(found[name], value, **tolerance)
        else:
            assert torch.equal(found[name], value), name


def test_a_run_packs_unless_told_otherwise(text):
    assert load_config("sft.yaml", [], "sft").data.pack_to_max_length
    facts = json.loads((train("sft") / "data.json").read_text())
    assert facts["num_records"] == 20


@pytest.mark.parametrize("template", ["chatml", "vicuna"])
def test_packed_equals_separate_in_loss_and_gradients(text, template):
    config = load_config("sft.yaml", [f"model.llm.chat_template={template}", *SEPARATE[1:]], "sft")
    parts = build_parts(config.model, torch.device("cpu"))
    for name, parameter in parts.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    samples, _ = build_dataset(config, build_reader(config.model))
    packs = packed(config, samples)
    assert len(packs) < len(samples)
    found = []
    for rows in (samples, packs):
        batches = [collate([rows[number]]) for number in range(len(rows))]
        total = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in batches)
        parts.model.zero_grad()
        loss = torch.stack([parts.model(**batch, num_items_in_batch=total)["loss"] for batch in batches]).sum()
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in parts.model.named_parameters() if p.grad is not None}
        found.append((total, float(loss.detach()), gradients))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    assert_same(found[1][2], found[0][2], rtol=1e-3, atol=1e-6)


def test_accumulation_2x1_equals_1x2(text):
    runs = [
        train(
            f"{size}x{steps}",
            f"train.per_device_train_batch_size={size}",
            f"train.gradient_accumulation_steps={steps}",
            *SEPARATE,
        )
        for size, steps in ((2, 1), (1, 2))
    ]
    assert_same(*map(weights, runs), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("change", ["train.dataloader_num_workers=2", "train.gradient_checkpointing=true"])
def test_workers_and_checkpointing_change_nothing(text, change):
    exact = "model.adapter.lora_dropout=0.0"
    close = {"rtol": 1e-4, "atol": 1e-6} if "checkpointing" in change else {}
    assert_same(weights(train("other", exact, change)), weights(train("usual", exact)), **close)


def test_prepared_data_from_the_cache_trains_the_same(text, monkeypatch):
    monkeypatch.setenv("MMTUNE_CACHE", str(text / "cache"))
    first = weights(train("first"))
    stores = sorted((text / "cache" / "data").iterdir())
    assert len(stores) == 2
    times = [path.stat().st_mtime_ns for path in stores]
    assert_same(weights(train("second")), first)
    assert [path.stat().st_mtime_ns for path in sorted((text / "cache" / "data").iterdir())] == times


@pytest.mark.parametrize("tuned", TUNED)
def test_only_what_is_meant_to_train_changes(text, tuned, tmp_path):
    config = load_config("sft.yaml", [*TUNED[tuned], f"train.output_dir={tmp_path / 'fit'}"], "sft")
    torch.manual_seed(0)
    parts = build_parts(config.model, torch.device("cpu"))
    samples, _ = build_dataset(config, build_reader(config.model))
    before = {name: value.clone() for name, value in parts.model.state_dict().items()}
    fit(parts, config, packed(config, samples))
    changed = {name for name, value in parts.model.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name, value in parts.model.named_parameters() if value.requires_grad}
    assert changed == trained
    assert {
        "full": len(trained) == len(list(parts.model.named_parameters())),
        "partial": bool(trained) and all("layers.1." in name or "lm_head" not in name for name in trained),
    }.get(tuned, all("lora_" in name for name in trained))


@pytest.mark.parametrize("tuned", TUNED)
def test_a_checkpoint_goes_on_bit_for_bit_and_answers(text, tuned):
    changes = (*TUNED[tuned], "train.save_steps=3", "train.save_total_limit=null")
    straight = train("straight", *changes)
    Path("runs/again").mkdir()
    (straight / "checkpoint-3").rename("runs/again/checkpoint-3")
    assert_same(weights(train("again", *changes, "--resume")), weights(straight))
    assert run_answers_of_text(straight)


def run_answers_of_text(folder):
    return run_answers(folder) if load_run(folder).transform else main(["chat", str(folder), "--prompt", "Hi"]) == 0


def test_documents_longer_than_max_length_lose_no_token(text):
    book = "".join(chr(97 + number % 26) for number in range(1000))
    Path("books.jsonl").write_text(json.dumps({"text": book}) + "\n" + json.dumps({"text": "short"}) + "\n")
    only = "data.train=[{path: books.jsonl, format: text}]"
    for packs in ("true", "false"):
        config = load_config("sft.yaml", [only, "data.max_length=48", f"data.pack_to_max_length={packs}"], "sft")
        reader = build_reader(config.model)
        samples, report = build_dataset(config, reader)
        rows = packed(config, samples) if packs == "true" else samples
        predicted = [token for number in range(len(rows)) for token in rows[number]["labels"].tolist() if token >= 0]
        expected = [
            token
            for line in (book, "short")
            for token in (*reader.tokenizer.encode(line, add_special_tokens=False), reader.tokenizer.eos_token_id)
        ]
        assert sorted(predicted) == sorted(expected), "each token is predicted once; of BOS nothing predicts"
        assert not report.problems
        assert max(len(rows[number]["input_ids"]) for number in range(len(rows))) <= 48


DOMAIN = ["zip zap zop zup. ", "zup zop zap zip. "]
GENERAL = ["The cat sat on the mat. ", "A dog ran to the tree. "]


def test_pretraining_on_a_domain_lowers_its_perplexity_and_tells_that_of_general_text(text, capsys):
    rng = random.Random(0)
    for name, words, count in (("domain", DOMAIN, 24), ("held_domain", DOMAIN, 6), ("general", GENERAL, 6)):
        lines = [json.dumps({"text": "".join(rng.choice(words) for _ in range(8))}) for _ in range(count)]
        Path(f"{name}.jsonl").write_text("\n".join(lines))
    folder = train(
        "domain",
        "data.train=[{path: domain.jsonl}]",
        "data.validation=[{path: held_domain.jsonl}, {path: general.jsonl}]",
        "train.eval_on_start=true",
        "train.eval_steps=0",
        "train.max_steps=25",
        *TUNED["full"],
        "train.learning_rate=1e-2",
    )
    first, last = (entry for entry in read_log(folder / "log.jsonl") if "eval_loss" in entry)
    assert (first["step"], last["step"]) == (0, 25)
    assert last["eval_held_domain_perplexity"] < first["eval_held_domain_perplexity"] / 5
    for entry in (first, last):
        for name in ("held_domain", "general"):
            assert entry[f"eval_{name}_perplexity"] == pytest.approx(math.exp(entry[f"eval_{name}_loss"]))
    shown = [line for line in capsys.readouterr().err.splitlines() if "eval_general_perplexity" in line]
    assert len(shown) == 2


def test_a_resumed_run_is_not_measured_at_its_start_again(text):
    changes = ("data.validation=[{path: books.jsonl}]", "train.eval_on_start=true", "train.save_steps=3")
    straight = train("straight", *changes, "train.save_total_limit=null")
    Path("runs/again").mkdir()
    (straight / "checkpoint-3").rename("runs/again/checkpoint-3")
    (straight / "log.jsonl").rename("runs/again/log.jsonl")
    again = train("again", *changes, "--resume")
    assert [entry["step"] for entry in read_log(again / "log.jsonl") if "eval_loss" in entry] == [0, 3, 6]


@pytest.fixture
def seeing(text):
    """A run that sees, to go on from."""
    train("pretrain", "train.max_steps=2", "train.save_steps=0", verb="pretrain")
    return train("finetune", "train.max_steps=2", "train.save_steps=0", verb="finetune")


def test_a_run_that_sees_goes_on_with_text_and_keeps_its_projector(seeing):
    goes_on = ("model.init_from=runs/finetune", "data.train=[{path: talk.json}]", "train.weight_decay=0.1")
    assert main(["sft", "finetune.yaml", "train.output_dir=runs/on", *goes_on, "train.max_steps=4"]) == 0
    before, after = (load_file(Path(folder, "projector.safetensors")) for folder in (seeing, "runs/on"))
    assert_same(after, before)
    adapters = [load_file(Path(folder, "adapter/adapter_model.safetensors")) for folder in (seeing, "runs/on")]
    assert any(not torch.equal(adapters[1][name], value) for name, value in adapters[0].items())
    assert main(["chat", "runs/on", "--image", "0.png", "--prompt", "What colour?", "--max-new-tokens", "4"]) == 0
    assert run_answers("runs/on")


@pytest.mark.parametrize("how", ["init_from", "stack_on"])
def test_an_adapter_of_text_is_where_a_finetune_starts(text, how):
    """It trains further with a new projector, or lies frozen below the new adapter with a projector that is there."""
    adapter = load_file(train("words") / "adapter/adapter_model.safetensors")
    still = ("train.max_steps=1", "train.learning_rate=1e-30", "train.save_steps=0")
    train("pretrain", "train.max_steps=1", "train.save_steps=0", verb="pretrain")
    start = {
        "init_from": ("model.init_from=runs/words",),
        "stack_on": ("model.init_from=runs/pretrain", "model.stack_on=[runs/words]"),
    }[how]
    folder = train("finetune", *start, *still, verb="finetune")
    kept = folder / ("adapter" if how == "init_from" else "stacked/0") / "adapter_model.safetensors"
    assert_same(load_file(kept), adapter)
    assert run_answers(folder)
