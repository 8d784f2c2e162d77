"""Shapes of the models that the shipped configs name, so that a run can be planned where nothing is downloaded.

What `config.json` of each says, and no weights.
"""

from typing import Any

INTERNLM2_SHAPE: dict[str, Any] = {
    "vocab_size": 92544,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000,
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
"""What `config.json` of InternLM2-chat-1.8B says of its shape."""

SMOLLM2_SHAPE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
"""The shape of SmolLM2-135M-Instruct."""

CLIP_L_336_SHAPE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
"""The shape of CLIP ViT-L/14-336's vision tower."""

LLM_SHAPES: dict[str, dict[str, Any]] = {
    "internlm2-chat-1_8b": {"model_type": "internlm2"} | INTERNLM2_SHAPE,
    "smollm2-135m-instruct": {"model_type": "llama"} | SMOLLM2_SHAPE,
}
"""The last part of a language model's name, in lower case -> its `config.json`."""

VISION_SHAPES: dict[str, dict[str, Any]] = {
    "clip-vit-large-patch14-336": CLIP_L_336_SHAPE,
    "vit-l-14-336-quickgelu": CLIP_L_336_SHAPE,
}
"""The last part of a vision encoder's name, in lower case -> its CLIP vision config."""
