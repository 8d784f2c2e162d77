"""From our `train:` section to Hugging Face's TrainingArguments, in this file alone."""

import torch
from transformers import TrainingArguments

from mmtune.errors import ConfigError
from mmtune.models.precision import require_trainable
from mmtune.schema import TrainConfig
from mmtune.schema_evaluation import criterion, is_greater_better, steps_between_evaluations
from mmtune.training.optimizers import optim_args_text, optimizer_name, require_optimizer, require_schedule
from mmtune.training.trackers import require_trackers
from mmtune.training.zero import meet_on_cpu, require_filled, require_splittable, zero_settings

ALL_LINEAR = "all-linear"
NEVER = 1 << 40
"""A number of steps that no run has: the Trainer then evaluates at the end alone."""


class PlacedTrainingArguments(TrainingArguments):
    """TrainingArguments for a model that is already where it belongs (a quantized one cannot be moved)."""

    @property
    def place_model_on_device(self) -> bool:
        """False: `build_parts` has placed it."""
        return False


def training_arguments(
    config: TrainConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    skips_on_resume: bool = True,
    has_checkpointing: bool = False,
    has_evaluation: bool = False,
    has_idle_weights: bool = False,
) -> TrainingArguments:
    """Return the Trainer's arguments for a run.

    Rotation of checkpoints, progress and logs are our own, so the Trainer's are off.

    Args:
        config: the section `train`.
        device: where the model is.
        dtype: that the language model computes in; see `mmtune.models.precision`.
        skips_on_resume: pass over the batches that were trained before; not for a stream, which would be read for it.
        has_checkpointing: compute blocks again in the backward pass.
        has_evaluation: the run is measured while it trains. The best weights are loaded by us, not by the Trainer.
        has_idle_weights: some that train have no gradient in some steps; several processes then look which.

    Raises:
        ConfigError: the Trainer refuses a value, such as the name of an optimizer or a schedule, or the device cannot
            train in the dtype.
    """
    require_trainable(dtype, device, config.pure_bf16)
    require_trackers(config.report_to)
    optim, metric = optimizer_name(config.optim), criterion(config)
    require_schedule(config.lr_scheduler_type, config.lr_scheduler_kwargs)
    size = config.per_device_train_batch_size
    size = 1 if size == "auto" else size  # before it is chosen, when the other values are tried alone
    require_splittable(config, dtype)
    settings = zero_settings(config, dtype)
    if settings is not None and device.type == "cpu":
        meet_on_cpu()
    try:
        arguments = PlacedTrainingArguments(
            output_dir=config.output_dir,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            num_train_epochs=config.num_train_epochs,
            max_steps=config.max_steps,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.lr_scheduler_type,
            lr_scheduler_kwargs=config.lr_scheduler_kwargs,
            warmup_steps=config.warmup_ratio,  # below 1 it is a share of all steps
            optim=optim,
            optim_args=optim_args_text(optim, config.optim_args),
            optim_target_modules=_target_modules(config.optim_target_modules),
            adam_beta1=config.adam_beta1,
            adam_beta2=config.adam_beta2,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            activation_checkpointing=has_checkpointing,
            logging_steps=config.logging_steps,
            logging_nan_inf_filter=False,
            save_strategy="steps" if config.save_steps > 0 else "no",  # `RunTrainer` saves a new best
            save_steps=max(config.save_steps, 1),
            eval_strategy="steps" if has_evaluation else "no",
            eval_steps=steps_between_evaluations(config) or NEVER,
            eval_on_start=config.eval_on_start and has_evaluation,
            per_device_eval_batch_size=config.per_device_eval_batch_size or size,
            metric_for_best_model=metric and f"eval_{metric.removeprefix('eval_')}",
            greater_is_better=is_greater_better(config),
            bf16=dtype == torch.bfloat16,
            fp16=dtype == torch.float16,
            seed=config.seed,
            dataloader_num_workers=config.dataloader_num_workers,
            ignore_data_skip=not skips_on_resume,
            dataloader_pin_memory=device.type == "cuda",
            use_cpu=device.type == "cpu",
            deepspeed=settings,
            remove_unused_columns=False,
            average_tokens_across_devices=True,  # the loss is per supervised token of all processes
            ddp_find_unused_parameters=has_idle_weights,
            ddp_broadcast_buffers=False,  # no buffer changes in training
            label_names=["labels"],
            report_to="none",  # trackers.py adds them, with our config and where a resumed run goes on
            disable_tqdm=True,
        )
    except (ValueError, KeyError, ImportError) as error:
        raise ConfigError("train", f"the Trainer refuses this: {str(error).splitlines()[0][:300]}") from None
    require_optimizer(arguments)
    if settings is not None:
        require_filled(config, arguments)
    return arguments


def _target_modules(names: list[str] | None) -> list[str] | str | None:
    """The Trainer knows `all-linear` as a text alone."""
    return ALL_LINEAR if names == [ALL_LINEAR] else names
