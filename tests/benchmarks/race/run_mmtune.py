"""Run one job of the race in mmtune, through `mmtune.training.run.train` as the command does.

python tests/benchmarks/race/run_mmtune.py finetune --folder runs/race/work --output mmtune.json
"""

import mmtune.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
import torch
from measure import compare_batches, install_clock, run_arguments, write_result

from mmtune.build_data import build_dataset, build_reader
from mmtune.config import load_config
from mmtune.data.collate import collate
from mmtune.run_folder import DATA_FILE, read_json
from mmtune.training.run import train
from mmtune.training.steps import batch_sampler


def main() -> None:
    """Train, then compare the batches with what the peers are held to."""
    args = run_arguments(__doc__)
    config = load_config(args.folder / f"mmtune_{args.job}.yaml", [], args.job)
    clock = install_clock(args)
    run = train(config, args.job, overwrite=True)
    facts = read_json(run / DATA_FILE)
    expected = compare_batches(_batches(config, args.folder), args.folder, args.job)
    assert facts["num_tokens"] == expected["tokens"]
    assert facts["num_supervised_tokens"] == expected["supervised_tokens"]
    write_result(
        args.output, "mmtune", args.job, clock, settings="fp32, fused AdamW; all else as its defaults are", **expected
    )


def _batches(config, folder):
    """Yield the batches of training, with the peers' id of an image token."""
    reader = build_reader(config.model)
    dataset, _ = build_dataset(config, reader)
    image_id = reader.tokenizer.convert_tokens_to_ids("<empty_output>")
    for rows in batch_sampler(config, dataset):
        batch = collate([dataset[row] for row in rows])
        batch["input_ids"][batch["input_ids"] < 0] = image_id
        positions = torch.arange(batch["input_ids"].shape[1])
        yield batch | {"attention_mask": positions < torch.from_numpy(dataset.lengths[rows])[:, None]}


if __name__ == "__main__":
    main()
