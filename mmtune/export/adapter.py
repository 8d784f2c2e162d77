"""`adapter`: the adapter alone, as PEFT loads it on its base model."""

from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import PeftModel

from mmtune.errors import CheckpointError, ConfigError
from mmtune.export.chat_format import plain_tokenizer
from mmtune.export.merged import chat_ids, write_llama
from mmtune.export.parity import Parity, Probe, compare_text
from mmtune.export.source import Source
from mmtune.models.adapter_start import without_start
from mmtune.models.hub import is_hub_name
from mmtune.models.internlm2 import MODEL_TYPE
from mmtune.models.json_files import read_json
from mmtune.models.language import load_llm
from mmtune.models.methods import kind_of
from mmtune.models.quantized import keep_4bit_weights
from mmtune.models.weights import ADAPTER_FOLDER, read_tensors, write_tensors
from mmtune.run_folder import write_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
BASE_FOLDER = "base_llama"


def check(source: Source) -> None:
    """Refuse runs without an adapter, and a dtype, which adapters keep.

    Raises:
        MMTuneError: see above.
    """
    require_adapter(source)
    if source.dtype != source.parts.model.base_llm.dtype:
        raise ConfigError("--dtype", "an adapter keeps the dtype that it was trained in. Leave it out.")


def require_adapter(source: Source) -> PeftModel:
    """Return the language model inside its adapter.

    Raises:
        CheckpointError: the run has none.
    """
    llm = source.parts.model.llm
    if not isinstance(llm, PeftModel):
        kind = kind_of(source.config.model.adapter)
        held = f"kind: {kind} trains the model itself" if kind else f"model.llm.tune: {source.config.model.llm.tune}"
        message = f"holds no adapter of PEFT ({held}). Take --format merged."
        raise CheckpointError(source.folder, message)
    if len(llm.peft_config) > 1:
        message = f"its adapter is stacked on {len(llm.peft_config) - 1} others, and this format holds one."
        mend = "Take --format merged, or make them one: mmtune merge"
        raise CheckpointError(source.folder, f"{message} {mend} {source.folder} -o FOLDER.")
    return llm


def write(source: Source, folder: Path) -> None:
    """Write weights, config, tokenizer and a README; for InternLM2 also the base in the layout that PEFT can load."""
    base = _base_for_peft(source, folder)
    config = read_json(source.folder / ADAPTER_FOLDER / CONFIG_FILE)
    weights = read_tensors(source.folder / ADAPTER_FOLDER / WEIGHTS_FILE)
    if source.parts.model.adapter_start is not None:
        weights, changes = without_start(source.parts.model.llm, source.parts.model.adapter_start)
        config |= changes
    write_json(folder / CONFIG_FILE, config | {"base_model_name_or_path": base, "inference_mode": True})
    write_tensors(folder / WEIGHTS_FILE, weights)
    plain_tokenizer(source.parts).save_pretrained(folder)
    (folder / "README.md").write_text(_readme(source, base), encoding="utf-8")


def _base_for_peft(source: Source, folder: Path) -> str:
    """Return the name or path of a base model that transformers loads without remote code."""
    name = source.config.model.llm.name_or_path
    if read_json(source.llm_folder / "config.json").get("model_type") == MODEL_TYPE:
        llm = load_llm(str(source.llm_folder), dtype=source.dtype, device=torch.device("cpu"))
        write_llama(llm, source.parts, folder / BASE_FOLDER)
        return str((folder / BASE_FOLDER).resolve())
    return name if is_hub_name(name) and not Path(name).is_dir() else str(source.llm_folder.resolve())


def _readme(source: Source, base: str) -> str:
    quantized = f" in {source.config.model.llm.quantization}, as it was trained" if source.is_quantized else ""
    text = f"""# An adapter for {source.config.model.llm.name_or_path}

Load it with PEFT alone, on its base model{quantized}:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

llm = AutoModelForCausalLM.from_pretrained({base!r})
llm = PeftModel.from_pretrained(llm, "THIS FOLDER")
```

The tokenizer in this folder has the chat template that the adapter was trained with.
"""
    if base.endswith(BASE_FOLDER):
        text += f"""
`{BASE_FOLDER}/` is the base model in the layout of Llama: the same weights, exactly, with the names that the adapter
has. On InternLM2's own layout, which fuses query, key and value, this adapter does not fit. Where the folder moves,
change `base_model_name_or_path` in `{CONFIG_FILE}`.
"""
    return text


def read_back(source: Source, folder: Path, probes: list[Probe]) -> Parity:
    """Ask the export with transformers and PEFT alone."""
    base = read_json(folder / CONFIG_FILE)["base_model_name_or_path"]
    options: dict[str, Any] = {"dtype": source.dtype}
    if source.is_quantized:
        options |= {"quantization_config": source.parts.model.config.quantization_config}
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(base, **options)
    if source.is_quantized:
        keep_4bit_weights(loaded)
    llm = PeftModel.from_pretrained(loaded, str(folder)).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    reader = f"peft {peft.__version__}"
    return compare_text(folder, probes, llm, lambda probe: chat_ids(tokenizer, probe.question), reader, source.dtype)
