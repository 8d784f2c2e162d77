"""`gguf`: language model, vision encoder and projector for llama.cpp, with a Modelfile for Ollama."""

import importlib.util
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from mmtune.data.encode import control_ids
from mmtune.data.template import ChatTemplate
from mmtune.errors import ModelError
from mmtune.export.chat_format import text_template
from mmtune.export.gguf_reader import read_back
from mmtune.export.gguf_tensors import llm_tensors, vision_tensors
from mmtune.export.gguf_vocabulary import gguf_vocabulary
from mmtune.export.source import Source, merged_llm, plain_projector, plain_tower, require_vision
from mmtune.models.internlm2 import num_heads

log = logging.getLogger(__name__)
__all__ = ["check", "read_back", "write"]

LLM_FILE, VISION_FILE, OLLAMA_FILE = "model.gguf", "mmproj.gguf", "Modelfile"
ROPE_TYPES = ("default", "linear", "dynamic")  # dynamic stretches beyond the context length alone
ACTIVATIONS = {"quick_gelu": {}, "gelu": {"clip.use_gelu": True}, "silu": {"clip.use_silu": True}}


def check(source: Source) -> None:
    """Refuse what llama.cpp cannot hold.

    Raises:
        MMTuneError: no gguf package, another architecture than Llama's, or a vision part that is not LLaVA's.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("--format", "gguf needs the gguf package. Run: pip install 'mmtune[gguf]'")
    place, config = str(source.folder), source.parts.model.config
    if config.model_type != "llama":
        message = f"its language model is a '{config.model_type}'; this export writes Llama and InternLM2 models."
        raise ModelError(place, f"{message} Take --format hf-llava or merged.")
    kind = config.rope_parameters["rope_type"]
    if kind not in ROPE_TYPES:
        raise ModelError(place, f"its rope type '{kind}' is not one of {', '.join(ROPE_TYPES)}. Take --format merged.")
    gguf_vocabulary(source.parts.tokenizer, config.vocab_size, place)
    if source.parts.model.vision is None:
        return
    tower = require_vision(source, "gguf").base_tower
    if len(plain_projector(source)) != 2:
        raise ModelError(place, "its projector is linear; llama.cpp has mlp2x_gelu alone. Take --format hf-llava.")
    if tower.config.hidden_act not in ACTIVATIONS:
        message = f"its vision tower has the activation '{tower.config.hidden_act}', not {', '.join(ACTIVATIONS)}."
        raise ModelError(place, f"{message} Take --format hf-llava.")


def write(source: Source, folder: Path) -> None:
    """Write `model.gguf`, `Modelfile` and, for a model that sees, `mmproj.gguf`."""
    if source.parts.model.vision is not None:
        _write_vision(source, folder / VISION_FILE)
    _write_llm(source, folder / LLM_FILE)
    files = [LLM_FILE] + [VISION_FILE] * (source.parts.model.vision is not None)
    eos = source.parts.tokenizer.eos_token
    (folder / OLLAMA_FILE).write_text(modelfile(files, source.parts.template, eos), encoding="utf-8")


def _write_llm(source: Source, path: Path) -> None:
    import gguf

    llm: Any = merged_llm(source.parts, source.dtype)
    config = llm.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_name(source.folder.resolve().name)
    writer.add_file_type(_file_type(source.dtype))
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
    _add_tokenizer(writer, source)
    tensors = llm_tensors(llm.state_dict(), *num_heads(config), config.tie_word_embeddings)
    _add_tensors(writer, tensors, source.dtype)


def _add_tokenizer(writer: Any, source: Source) -> None:
    parts = source.parts
    tokenizer, template = parts.tokenizer, parts.template
    vocabulary = gguf_vocabulary(tokenizer, parts.model.config.vocab_size, str(source.folder))
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama" or not vocabulary.merges:  # transformers reads one of the two
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    elif vocabulary.model == "gpt2":
        log.warning("%s: its tokenizer has no merges; llama.cpp asks for some and will not load it", source.folder)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for text in template.stop:
        (stop,) = control_ids(text, tokenizer)
        writer.add_eot_token_id(stop)  # llama.cpp ends an answer at EOS and at EOT
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(template.bos and tokenizer.bos_token_id is not None)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(text_template(template, tokenizer.bos_token))


def _write_vision(source: Source, path: Path) -> None:
    import gguf

    tower: Any = plain_tower(require_vision(source, "gguf"), torch.float32)
    config, transform = tower.config, source.parts.transform
    assert transform is not None
    layers = plain_projector(source)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_name(source.folder.resolve().name)
    writer.add_file_type(_file_type(source.dtype))
    writer.add_clip_has_vision_encoder(True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_clip_projector_type("mlp")
    writer.add_uint32("clip.vision.image_size", config.image_size)
    writer.add_vision_patch_size(config.patch_size)
    writer.add_vision_embedding_length(config.hidden_size)
    writer.add_vision_feed_forward_length(config.intermediate_size)
    writer.add_vision_projection_dim(layers[-1][0].shape[0])
    writer.add_vision_head_count(config.num_attention_heads)
    writer.add_vision_attention_layernorm_eps(config.layer_norm_eps)
    writer.add_vision_block_count(config.num_hidden_layers)
    writer.add_array("clip.vision.feature_layer", [config.num_hidden_layers])  # after the last block, no post-LN
    writer.add_array("clip.vision.image_mean", list(transform.mean))
    writer.add_array("clip.vision.image_std", list(transform.std))
    for key, value in ACTIVATIONS[config.hidden_act].items():
        writer.add_bool(key, value)
    _add_tensors(writer, vision_tensors(tower.state_dict(), layers), source.dtype)


def _file_type(dtype: torch.dtype) -> int:
    import gguf

    kinds = gguf.LlamaFileType
    known = {torch.float32: kinds.ALL_F32, torch.float16: kinds.MOSTLY_F16, torch.bfloat16: kinds.MOSTLY_BF16}
    return known[dtype]


def _add_tensors(writer: Any, tensors: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype) -> None:
    """Write the file: matrices in a dtype; vectors, which llama.cpp adds and scales with, in fp32."""
    import gguf

    for name, tensor in tensors:
        values = tensor.detach().cpu().float().contiguous()
        if values.ndim == 1 or name.startswith(("v.position_embd", "v.class_embd")):
            writer.add_tensor(name, values.numpy())
        elif dtype == torch.bfloat16:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(name, gguf.quants.quantize(values.numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values.to(dtype).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def modelfile(files: list[str], template: ChatTemplate, eos: str) -> str:
    """Return Ollama's description of a model: its files, the chat template and the stop texts.

    Args:
        files: of the model, in the folder of the Modelfile.
        template: of the run.
        eos: the tokenizer's EOS token.
    """
    has_one_form = template.system is not None and not template.opening and template.user_after_system is None
    text = _turn_of_ollama(template) if has_one_form else _dialogue_of_ollama(template)
    lines = [f"FROM ./{name}" for name in files]
    lines.append(f'TEMPLATE """{text}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in dict.fromkeys((*template.stop, eos)) if stop.strip()]
    return "\n".join([*lines, "PARAMETER temperature 0", ""])


def _turn_of_ollama(template: ChatTemplate) -> str:
    """Return the template of one round, which Ollama repeats."""
    system, user = (f"{{{{ .{name} }}}}".join(template.around(role, "assistant"))
                    for role, name in (("system", "System"), ("user", "Prompt")))  # fmt: skip
    text = f"{{{{ if .System }}}}{system}{{{{ end }}}}{{{{ if .Prompt }}}}{user}{{{{ end }}}}{{{{ .Response }}}}"
    return f"{text}{template.answer_end}{template.separator}"


def _dialogue_of_ollama(template: ChatTemplate) -> str:
    """Return the template of all messages, for formats whose first turn depends on a system message."""

    def turn(role: str, previous: str | None) -> str:
        return "{{ $m.Content }}".join(template.around(role, previous))

    cases = {
        'eq $m.Role "assistant"': turn("assistant", "user"),
        'eq $m.Role "system"': "" if template.system is None else turn("system", None),
        "eq $i 0": turn("user", None),
        'and (eq $i 1) (eq (index $.Messages 0).Role "system")': turn("user", "system"),
    }
    text = "{{ else ".join(f"if {case} }}}}{text}" for case, text in cases.items())
    text += f"{{{{ else }}}}{turn('user', 'assistant')}{{{{ end }}}}"
    return f"{{{{ range $i, $m := .Messages }}}}{{{{ {text}{{{{ end }}}}"
