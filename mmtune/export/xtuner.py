"""`xtuner`: adapter and projector in the folders that XTuner's LLaVA loaders read (also VLMEvalKit's)."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionModel

from mmtune.errors import CheckpointError
from mmtune.export import adapter, merged
from mmtune.export.adapter import CONFIG_FILE, WEIGHTS_FILE
from mmtune.export.source import Source, plain_projector, require_vision, trained_tower
from mmtune.export.xtuner_lora import adapter_config, fused_loras, loras_of
from mmtune.export.xtuner_reader import read_back
from mmtune.models.internlm2 import MODEL_TYPE
from mmtune.models.json_files import read_json
from mmtune.models.vision_towers import tower_folder
from mmtune.models.weights import ADAPTER_FOLDER, write_tensors
from mmtune.run_folder import write_json

__all__ = ["check", "read_back", "write"]

CODE_FILE = Path(__file__).parent / "remote_code" / "modeling_projector.py"
PLAIN_LORA = {"use_dora": False, "bias": "none", "modules_to_save": None, "fan_in_fan_out": False}


def check(source: Source) -> None:
    """Refuse what XTuner's layout cannot hold.

    Raises:
        CheckpointError: no CLIP tower, or an adapter that is no plain LoRA on linear layers.
    """
    require_vision(source, "xtuner")
    vision = source.config.model.vision
    assert vision is not None
    if vision.source != "transformers":
        message = f"its encoder is of source {vision.source}, and XTuner loads CLIP folders of transformers alone."
        raise CheckpointError(source.folder, f"{message} Take --format hf-llava.")
    source.base = "original"  # the adapter stays apart, on the base as it is released
    if source.config.model.adapter is None:
        return
    adapter.check(source)
    config = read_json(source.folder / ADAPTER_FOLDER / CONFIG_FILE)
    got = {key: config.get(key) for key in ("peft_type", *PLAIN_LORA)}
    if got != {"peft_type": "LORA"} | PLAIN_LORA:
        wrong = ", ".join(f"{key}: {value}" for key, value in got.items() if PLAIN_LORA.get(key, "LORA") != value)
        message = f"its adapter is no plain LoRA ({wrong}), and XTuner's layout holds that alone."
        raise CheckpointError(source.folder, f"{message} Take --format adapter or merged.")
    if source.parts.model.adapter_start is not None:
        message = "its adapter started from the weights, which XTuner's layout does not keep."
        raise CheckpointError(source.folder, f"{message} Take --format adapter or merged.")
    loras = loras_of(adapter.require_adapter(source))
    num_blocks = source.parts.model.config.num_hidden_layers
    kinds = [name.rsplit(".", 1)[-1] for name in loras if ".layers." in name]
    if any(kinds.count(kind) != num_blocks for kind in kinds):
        message = "its adapter is on some blocks alone, and XTuner names layers by kind."
        raise CheckpointError(source.folder, f"{message} Take --format adapter or merged.")


def write(source: Source, folder: Path) -> None:
    """Write `projector/` and, where they were trained, `llm_adapter/` or `llm/`, and `visual_encoder/`."""
    model = source.config.model
    if model.vision is not None and model.vision.tune != "frozen":
        _write_vision(source, folder / "visual_encoder")
    _write_projector(source, folder / "projector")
    if model.adapter is not None:
        _write_adapter(source, folder / "llm_adapter")
    elif model.llm.tune != "frozen":
        source.layout = "internlm2" if is_internlm2(source) else "llama"
        (folder / "llm").mkdir()
        merged.write(source, folder / "llm")


def is_internlm2(source: Source) -> bool:
    """Whether the base has InternLM2's own names, which XTuner's adapters then have too."""
    return read_json(source.llm_folder / "config.json").get("model_type") == MODEL_TYPE


def _write_adapter(source: Source, folder: Path) -> None:
    folder.mkdir()
    llm = adapter.require_adapter(source)
    loras = loras_of(llm)
    if is_internlm2(source):
        loras = fused_loras(loras, source.parts.model.config)
    dropout = read_json(source.folder / ADAPTER_FOLDER / CONFIG_FILE)["lora_dropout"]
    write_json(folder / CONFIG_FILE, adapter_config(loras, source.config.model.llm.name_or_path, dropout))
    tensors = {f"base_model.model.{name}.lora_A.weight": lora.a for name, lora in loras.items()}
    tensors |= {f"base_model.model.{name}.lora_B.weight": lora.b for name, lora in loras.items()}
    write_tensors(folder / WEIGHTS_FILE, tensors)


def _write_projector(source: Source, folder: Path) -> None:
    """Write XTuner's ProjectorModel with the code that AutoModel needs to load it."""
    folder.mkdir()
    layers = plain_projector(source)
    code = CODE_FILE.stem
    values = {
        "architectures": ["ProjectorModel"],
        "auto_map": {"AutoConfig": f"{code}.ProjectorConfig", "AutoModel": f"{code}.ProjectorModel"},
        "bias": True,
        "depth": len(layers),
        "hidden_act": "gelu",
        "llm_hidden_size": layers[0][0].shape[0],
        "model_type": "projector",
        "torch_dtype": str(source.dtype).removeprefix("torch."),
        "visual_hidden_size": layers[0][0].shape[1],
    }
    write_json(folder / "config.json", values)
    shutil.copyfile(CODE_FILE, folder / CODE_FILE.name)
    tensors: dict[str, torch.Tensor] = {}
    for number, (weight, bias) in enumerate(layers):
        tensors |= {f"model.{2 * number}.weight": weight, f"model.{2 * number}.bias": bias}
    from safetensors.torch import save_file

    converted = {name: value.to(source.dtype) for name, value in tensors.items()}
    save_file(converted, folder / "model.safetensors", {"format": "pt"})


def _write_vision(source: Source, folder: Path) -> None:
    """Write the whole tower, an adapter merged; the blocks after the selected one are as they were."""
    config = source.config.model.vision
    assert config is not None
    base = tower_folder(config.name, source.config.model.hub)
    tower: Any = CLIPVisionModel.from_pretrained(base, local_files_only=True)
    trained = trained_tower(require_vision(source, "xtuner"))
    tower.load_state_dict(tower.state_dict() | trained.state_dict())
    tower.to(source.dtype).save_pretrained(folder)
    preprocessor = base / "preprocessor_config.json"
    if preprocessor.is_file():
        shutil.copyfile(preprocessor, folder / preprocessor.name)
