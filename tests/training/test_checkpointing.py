"""`gradient_checkpointing: auto`: what it measures is what training keeps, and it asks for no more than is needed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.autograd.graph import saved_tensors_hooks
from training_workspace import trainer_of

from mmtune.build import build_parts
from mmtune.build_data import build_dataset, build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.models.fused_lora import fuse_lora
from mmtune.models.gated_mlp import recompute_gated_activations
from mmtune.models.precision import keep_trained_weights_in
from mmtune.testing import write_tiny_llm
from mmtune.training import checkpointing
from mmtune.training.checkpointing import LargestBatch, checkpointed_share, largest_batch, memory_need

CPU = torch.device("cpu")
MID = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8}
LORA = ("model.init_from=null", "train.gradient_checkpointing=auto")
CASES = {
    "lora": LORA,
    "lora in bfloat16": (*LORA, "model.llm.dtype=bfloat16"),
    "lora over nf4": (*LORA, "model.llm.quantization=nf4", "train.fused_lora=false"),
    "lora over int8": (*LORA, "model.llm.quantization=int8"),
    "eager attention": (*LORA, "model.llm.attn_implementation=eager", "data.padding_free=false"),
    "full in bfloat16": (*LORA, "model.llm.dtype=bfloat16", "model.llm.tune=full", "model.adapter=null"),
    "projector alone": (*LORA, "model.llm.tune=frozen", "model.adapter=null"),
    "vision too": (*LORA, "model.vision.tune=full"),
}


@pytest.fixture(scope="session")
def mid_llm(tmp_path_factory):
    return write_tiny_llm(tmp_path_factory.mktemp("mid") / "llm", **MID)


@pytest.fixture
def built(workspace, mid_llm):
    """Return a function that builds a mid-size model as a run does, with its config and data."""

    def build(*changes):
        small = ("train.per_device_train_batch_size=6", "train.max_steps=1", "train.save_steps=0")
        options = [f"model.llm.name_or_path={mid_llm}", *small, *changes]
        config = load_config("finetune.yaml", options, "sft")
        torch.manual_seed(0)
        parts = build_parts(config.model, CPU)
        dataset, _ = build_dataset(config, build_reader(config.model))
        recompute_gated_activations(parts.model.llm)
        if config.train.fused_lora:
            fuse_lora(parts.model)
        keep_trained_weights_in(parts.model, torch.float32)
        return config, parts, dataset

    return build


def traced_bytes(trainer):
    """What autograd holds after the forward pass of the first step that the Trainer makes, each storage once."""
    compute_loss, found = trainer.compute_loss, []
    own = {value.untyped_storage().data_ptr() for value in (*trainer.vlm.parameters(), *trainer.vlm.buffers())}

    def watched(model, batch, **named):
        seen = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        batch["labels"] = batch["input_ids"].clamp_min(0)  # all supervised: as many logits as the estimate allows for
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = compute_loss(model, batch, **named)
        for node in nodes_of(loss):
            if type(node).__name__.startswith("MatMul8bit"):  # it keeps its input where no hook sees it
                pack(node.A)
        found.append(sum(size for pointer, size in seen.items() if pointer not in own))
        return loss

    trainer.compute_loss = watched
    trainer.train()
    return found[0]


def nodes_of(loss):
    stack, found = [loss.grad_fn], {}
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found[node] = True
            stack += [edge for edge, _ in node.next_functions]
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_within_15_percent_of_a_training_step(built, case):
    config, parts, dataset = built(*CASES[case])
    trainer = trainer_of(parts, config, dataset)
    first = next(iter(checkpointing.batch_sampler(config, dataset)))
    lengths = dataset.lengths[first]
    sizes = lengths.tolist() if config.data.padding_free else [int(lengths.max())] * len(first)
    batch = LargestBatch(tuple(sizes), int(dataset.num_images[first].sum()))
    estimate = memory_need(config, parts.model, batch).kept()
    assert traced_bytes(trainer) == pytest.approx(estimate, rel=0.15)


def test_ample_memory_turns_it_off_and_tight_memory_takes_as_few_blocks_as_needed(built):
    config, parts, dataset = built(*LORA)
    need = memory_need(config, parts.model, largest_batch(config, dataset))
    shares = {}
    for number in range(7):
        free = int(need.peak(number) / 0.9) + 1
        shares[number] = checkpointed_share(config, parts.model, dataset, free)
        assert checkpointed_share(config, parts.model, dataset, free - 2) > shares[number] or number == 6
    assert shares == {number: number / 6 for number in range(7)}
    assert checkpointed_share(config, parts.model, dataset, 1 << 40) == 0.0
    assert checkpointed_share(config, parts.model, dataset, 1 << 10) == 1.0


def test_true_and_false_are_obeyed_without_measuring(built, monkeypatch):
    config, parts, dataset = built("train.gradient_checkpointing_fraction=0.5", "model.init_from=null")
    monkeypatch.setattr(checkpointing, "memory_need", None)
    for value, share in ((True, 0.5), (False, 0.0)):
        config.train.gradient_checkpointing = value
        assert checkpointed_share(config, parts.model, dataset) == share


def test_the_largest_batch_is_that_of_the_run(built):
    config, _, dataset = built(*LORA)
    joined, sampler, sizes = largest_batch(config, dataset), checkpointing.batch_sampler(config, dataset), []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        sizes += [int(dataset.lengths[batch].sum()) for batch in sampler]
    assert joined.num_tokens == max(sizes)
    config.data.padding_free = False
    padded = largest_batch(config, dataset)
    assert set(padded.lengths) == {max(padded.lengths)}
    assert padded.num_tokens >= joined.num_tokens


def test_smaller_states_are_counted_smaller(built):
    config, parts, _ = built(*LORA)
    sizes = []
    for config.train.optim in ("adamw", "lion", "sgd"):
        sizes.append(checkpointing.state_bytes(config, parts.model))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 4 * sum(value.numel() for value in parts.model.parameters() if value.requires_grad)


def losses(folder):
    return [json.loads(line)["loss"] for line in Path(folder, "log.jsonl").read_text().splitlines()]


def test_a_run_with_auto_is_the_run_without(workspace, monkeypatch, capsys):
    """Also where memory is tight, and the random numbers of dropout are those of a run that was not measured."""
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0
    assert main(["finetune", "finetune.yaml"]) == 0
    for name, free, share in (("ample", 1 << 40, "0 of 2"), ("tiny", 1 << 10, "2 of 2")):
        monkeypatch.setattr(checkpointing, "free_memory", lambda device, free=free: free)
        options = ["train.gradient_checkpointing=auto", f"train.output_dir=runs/{name}"]
        capsys.readouterr()
        assert main(["finetune", "finetune.yaml", *options]) == 0
        messages = capsys.readouterr().err.splitlines()
        (line,) = [text for text in messages if text.startswith("gradient checkpointing of")]
        assert line.startswith(f"gradient checkpointing of {share} blocks: the largest batch, ")
        assert any("may not be enough" in text for text in messages) == (name == "tiny")
        assert losses(f"runs/{name}") == pytest.approx(losses("runs/finetune"), rel=1e-6)
        ours, plain = (load_file(f"runs/{run}/projector.safetensors") for run in (name, "finetune"))
        for key, value in plain.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-7)
        assert "gradient_checkpointing: auto" in Path(f"runs/{name}/config.yaml").read_text()
