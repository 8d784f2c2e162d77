"""Records with and without images, of very different lengths, and a config over them."""

import json
import random
from pathlib import Path

import pytest
import yaml
from PIL import Image
from training_workspace import COLOURS, models, write_config

__all__ = ["models"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, models):
    """A working directory: 11 records, the third, sixth and so on without an image, for `mixed.yaml`; `text.json`."""
    folder, rng = tmp_path_factory.mktemp("mixed"), random.Random(0)
    records = []
    for number in range(11):
        answer = {"from": "gpt", "value": "It is so. " * rng.randint(1, 6)}
        if number % 3 == 2:
            records.append({"conversations": [{"from": "human", "value": "Hi " * (number + 1)}, answer]})
            continue
        colour = rng.choice(list(COLOURS))
        Image.new("RGB", (36, 32), COLOURS[colour]).save(folder / f"{number}.png")
        talk = [{"from": "human", "value": "<image>\nWhat colour?"}, {"from": "gpt", "value": f"It is {colour}."}]
        talk += [{"from": "human", "value": "Sure?"}, answer]
        records.append({"image": f"{number}.png", "conversations": talk})
    (folder / "mixed.json").write_text(json.dumps(records))
    talks = [
        [{"from": "human", "value": "Say it"}, {"from": "gpt", "value": "So. " * rng.randint(1, 20)}] for _ in range(11)
    ]
    (folder / "text.json").write_text(json.dumps([{"conversations": talk} for talk in talks]))
    (folder / "held.json").write_text(json.dumps(records[:5]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_config(Path("mixed.yaml"), models, "mixed.json", output_dir="run")
        values = yaml.safe_load(Path("mixed.yaml").read_text())
        values["data"]["pack_to_max_length"] = False
        values["model"]["projector"] |= {"tune": "full"}
        values["model"]["adapter"] = {"kind": "lora", "r": 4, "lora_alpha": 8}
        Path("mixed.yaml").write_text(yaml.safe_dump(values))
        yield folder
