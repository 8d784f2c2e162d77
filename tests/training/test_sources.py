"""Training from every kind of source gives the weights that training from the JSON file gives."""

import base64
import csv
import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_workspace import models, workspace

from mmtune.cli import main
from mmtune.training.callbacks import read_log

__all__ = ["models", "workspace"]


def captions():
    return json.loads(Path("captions.json").read_text())


def image_bytes(record):
    return Path(record["image"]).read_bytes()


def as_webdataset():
    """Two shards: the image beside a JSON file with the dialogue."""
    webdataset = pytest.importorskip("webdataset")
    records = captions()
    for shard, part in enumerate((records[:6], records[6:])):
        with webdataset.TarWriter(f"train-{shard:06}.tar") as writer:
            for number, record in enumerate(part):
                talk = json.dumps({"conversations": record["conversations"]}).encode()
                writer.write({"__key__": f"{shard}-{number:04}", "png": image_bytes(record), "json": talk})
    return "train-{000000..000001}.tar"


def as_parquet():
    """Images inside the file, as the hub's data sets have them."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{**record, "image": {"bytes": image_bytes(record), "path": record["image"]}} for record in captions()]
    parquet.write_table(arrow.Table.from_pylist(rows), "train.parquet")
    return "train.parquet"


def as_saved_dataset():
    datasets = pytest.importorskip("datasets")
    rows = [{**record, "image": {"bytes": image_bytes(record), "path": None}} for record in captions()]
    datasets.Dataset.from_list(rows).save_to_disk("saved")
    return "saved"


def as_messages_with_data_uris():
    with Path("train.jsonl").open("w") as file:
        for record in captions():
            url = "data:image/png;base64," + base64.b64encode(image_bytes(record)).decode()
            question, answer = (turn["value"] for turn in record["conversations"])
            image, text = {"type": "image_url", "image_url": {"url": url}}, question.removeprefix("<image>")
            content = [image, {"type": "text", "text": text}]
            talk = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": talk}) + "\n")
    return "train.jsonl"


def as_table():
    with Path("train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "question", "answer"])
        for record in captions():
            writer.writerow([record["image"], *(turn["value"] for turn in record["conversations"])])
    return "train.csv"


SOURCES = (as_webdataset, as_parquet, as_saved_dataset, as_messages_with_data_uris, as_table)


def train(path, name):
    assert main(["pretrain", "pretrain.yaml", f"data.train.0.path={path}", f"train.output_dir=runs/{name}"]) == 0
    return load_file(f"runs/{name}/projector.safetensors")


@pytest.mark.parametrize("make", SOURCES)
def test_every_source_trains_as_the_json_file_does(workspace, make):
    expected = train("captions.json", "json")
    found = train(make(), "other")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_webdataset_config_trains_and_its_run_answers(workspace, capsys):
    """With images read at random from the shards by worker processes, packed, shuffled, for two epochs."""
    shards = as_webdataset()
    changes = ["data.pack_to_max_length=true", "train.dataloader_num_workers=2", "train.per_device_train_batch_size=1"]
    assert main(["pretrain", "pretrain.yaml", f"data.train.0.path={shards}", *changes]) == 0
    facts = json.loads(Path("runs/pretrain/data.json").read_text())
    assert (facts["num_records"], facts["num_samples"], facts["skipped"]) == (10, 10, [])
    assert main(["chat", "runs/pretrain", "--image", "0.png", "--prompt", "What colour?", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.strip()


def test_a_shard_that_is_cut_off_is_listed(workspace, capsys):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for record in captions()[:3]:
            for name, data in (("png", image_bytes(record)), ("txt", b"A colour.")):
                member = tarfile.TarInfo(f"{record['image'].partition('.')[0]}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    Path("cut.tar").write_bytes(buffer.getvalue()[:3000])
    assert main(["pretrain", "pretrain.yaml", "data.train.0.path=cut.tar"]) == 2
    assert "cut.tar" in capsys.readouterr().err.splitlines()[-1]


def test_documents_are_trained_whole_and_packed(workspace):
    """Incremental pretraining: every token of every document is predicted once, whatever its length."""
    texts = ["A short text.", "Words and words. " * 60, "x" * 700]
    Path("texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    changes = ["model.vision=null", "model.projector=null", "model.init_from=null", "data.train.0.path=texts.jsonl"]
    assert main(["sft", "finetune.yaml", *changes, "data.pack_to_max_length=true", "data.max_length=200"]) == 0
    facts = json.loads(Path("runs/finetune/data.json").read_text())
    assert facts["num_records"] == 3
    assert facts["num_supervised_tokens"] == sum(len(text) + 1 for text in texts), "each byte and each EOS"
    losses = [entry["loss"] for entry in read_log(Path("runs/finetune/log.jsonl"))]
    assert max(losses) < 6
