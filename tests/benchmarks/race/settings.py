"""What all tools of the race are given alike. No imports: every environment reads it."""

JOBS = ("pretrain", "finetune")
SEED = 42
BATCH_SIZE = 4
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}
LORA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

_COMMON = {
    "per_device_train_batch_size": BATCH_SIZE,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 1,
    "lr_scheduler_type": "cosine",
    "optim": "adamw_torch_fused",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,  # ms-swift's default is 0.95
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "logging_steps": 1,
    "seed": SEED,
    "dataloader_num_workers": 0,
}
TRAIN = {"pretrain": _COMMON | {"learning_rate": 1e-3}, "finetune": _COMMON | {"learning_rate": 2e-4}}
"""In the words of TrainingArguments, which mmtune and the peers share; gradient checkpointing is off everywhere."""
WARMUP = 0.03
"""Share of the steps; `warmup_steps` takes it in transformers 5, `warmup_ratio` before and in mmtune."""
