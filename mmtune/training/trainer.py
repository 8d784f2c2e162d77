"""A small subclass of Hugging Face's Trainer: what is saved, in which order samples come, which rate each part has.

The loop, accumulation, clipping, schedules and engines are the Trainer's own.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback

from mmtune.data.dataset import PackedDataset, SampleDataset
from mmtune.data.stream import StreamDataset
from mmtune.models.adalora import is_adalora, set_state, state_of
from mmtune.models.precision import choose_dtype
from mmtune.models.vlm import VisionLanguageModel
from mmtune.models.weights import load_weights
from mmtune.processes import rank
from mmtune.schema import Config
from mmtune.schema_evaluation import TRAINING_METRICS, criterion, evaluates
from mmtune.training.arguments import training_arguments
from mmtune.training.best import best_callbacks, best_checkpoint, best_values, write_best
from mmtune.training.callbacks import SUMMARY_KEY, shorten_history
from mmtune.training.checkpointing import checkpointed_share
from mmtune.training.checkpoints import CheckpointWriter
from mmtune.training.evaluation import Evaluation, training_means
from mmtune.training.faults import FiniteSteps
from mmtune.training.meter import BACKWARD, DATA, OTHER, SAVING, StepMeter, num_images
from mmtune.training.optimizers import make_optimizer
from mmtune.training.parameter_groups import parameter_groups
from mmtune.training.ranks import gathered, highest, wait_for_all
from mmtune.training.rows import Collator
from mmtune.training.sharding import copy_weights, engine_of, shard, whole_weights
from mmtune.training.state import (
    load_optimizer,
    load_random_state,
    load_scaler,
    load_values,
    random_state,
    save_optimizer,
    save_random_state,
    save_scaler,
    save_values,
)
from mmtune.training.steps import own_batch_sampler, places_of_step
from mmtune.training.stream import stream_loader
from mmtune.training.undisturbed import undisturbed
from mmtune.training.unfreezing import GradualUnfreezing, RankAllocation
from mmtune.training.workers import worker_options

log = logging.getLogger(__name__)
ADALORA = "adalora"


class Flow(TrainerCallback):
    """Keeps the intervals of this config where the checkpoint had others, and ends a line of the log at each save."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the intervals: the Trainer takes those that a checkpoint was written with."""
        state.compute_steps(args, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log where a checkpoint is written: a loss that is summed up over a resume would be half a loss."""
        if control.should_save:
            control.should_log = True


class RunTrainer(Trainer):
    """Trains a `VisionLanguageModel` and writes run folders.

    Args:
        model: with its frozen parts frozen.
        config: of the run.
        dataset: samples, packs of them, or a stream.
        collator: makes a batch of them.
        write_run: writes all files of a run but state and manifest into a folder.
        meter: told what steps train on and where their parts end.
        writer: of the checkpoints.
        callbacks: progress, logs.
        evaluation: measures the model on held-out samples; None where there are none.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        config: Config,
        dataset: SampleDataset | PackedDataset | StreamDataset,
        collator: Collator,
        write_run: Callable[[Path], None],
        meter: StepMeter,
        writer: CheckpointWriter,
        callbacks: list[TrainerCallback],
        evaluation: Evaluation | None = None,
    ):
        self.evaluation = evaluation
        self.run_config, self.write_run, self.vlm, self.rows, self.meter = config, write_run, model, dataset, meter
        self.writer = writer
        self.batch_sizes: list[tuple[int, int]] = []
        self.last_saved_step: int | None = None
        places = partial(places_of_step, config, dataset)
        self.finite = FiniteSteps(model, config.train.max_nonfinite_steps, places, writer)
        model.neftune_noise_alpha = config.train.neftune_noise_alpha or 0.0
        model.label_smoothing_factor = config.train.label_smoothing_factor
        model.checkpointed_share = highest(checkpointed_share(config, model, dataset))
        self.unfreezing = GradualUnfreezing(model, config)
        super().__init__(
            model=model,
            args=training_arguments(
                config.train,
                model.device,
                choose_dtype(config.model.llm.dtype, model.device),
                skips_on_resume=not isinstance(dataset, StreamDataset),
                has_checkpointing=model.checkpointed_share > 0,
                has_evaluation=evaluates(config),
                has_idle_weights=bool(self.unfreezing.schedules),
            ),
            data_collator=collator,
            train_dataset=dataset,
            eval_dataset=dataset if evaluates(config) else None,  # one is asked for; `evaluate` knows what it measures
            callbacks=[
                meter,
                self.finite,
                self.unfreezing,
                RankAllocation(model),
                *best_callbacks(config.train),
                *callbacks,
                Flow(),
            ],
        )
        self.finite.has_scaler = self.accelerator.scaler is not None or (self.is_deepspeed_enabled and self.args.fp16)
        self.engine = engine_of(self)
        model.runs_alike = self.engine is not None
        model.is_split = self.engine is not None and self.engine.splits_weights
        model.reads_features = config.data.cache_vision_features
        self.remove_callback(PrinterCallback)  # added by the Trainer wherever its own bar is off
        # The Trainer has set `use_cache` of the language model's config; generation needs it on.
        model.config.use_cache = True

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of the batches that `BatchSampler` composes, or of those of a stream as they come."""
        if isinstance(self.rows, StreamDataset):
            return stream_loader(self.run_config, self.rows, self.args, self.data_collator)
        loader = DataLoader(
            self.rows,
            batch_sampler=own_batch_sampler(self.run_config, self.rows),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
            **worker_options(self.run_config.train),
        )
        # The batches are this process's own already: accelerate would deal them out once more, and repeat some.
        return prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=self.accelerator.device_placement,
            non_blocking=self.accelerator.non_blocking,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Return the batches of a step and their supervised tokens; the wait for them is timed."""
        if self.control.should_training_stop:  # a resumed run that had stopped early
            return [], None
        self.meter.watch.lap(OTHER)
        batches, num_supervised_tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.meter.watch.lap(DATA)
        if batches:
            self.meter.count(batches)
            self.batch_sizes = [(batch["input_ids"].numel(), num_images(batch)) for batch in batches]
        return batches, num_supervised_tokens

    def training_step(self, *given: Any, **named: Any) -> torch.Tensor:
        """Run a forward and a backward pass; the time since the forward pass is the backward's."""
        self.writer.check()
        loss = super().training_step(*given, **named)
        self.finite.losses.append(loss)
        self.meter.watch.lap(BACKWARD)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        self.finite.norm = super()._get_grad_norm(model, grad_norm)
        return self.finite.norm

    @property
    def batch_under_way(self) -> tuple[int, int]:
        """Tokens and images of the batch that is computed now; zeros before the first."""
        number = min(len(self.finite.losses), len(self.batch_sizes) - 1)
        return self.batch_sizes[number] if self.batch_sizes else (0, 0)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the speed of the steps, for trackers too; leave out the run's own `train_loss`: evaluations have one."""
        speed: dict[str, float] = {}
        if "loss" in logs:
            speed = self.meter.read_for_log()
            self._tr_loss.zero_()  # the Trainer subtracts the sum from itself: a NaN would stay for all later steps
        elif SUMMARY_KEY in logs:
            logs = {name: value for name, value in logs.items() if name != "train_loss"}
        super().log(logs | speed, start_time)
        history = self.state.log_history
        history[-1] = {key: value for key, value in history[-1].items() if key not in speed}
        shorten_history(history, evaluates=self.args.eval_strategy != "no")

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        """Measure the model on the held-out samples and log it, with the means of training since the last time.

        Returns:
            All that may be the criterion, each with `eval_` in front, where the Trainer looks for it.
        """
        figures: dict[str, float] = {}
        with self.meter.aside(), undisturbed(self.vlm):
            if self.evaluation is not None:
                figures = self.evaluation.measure(self.vlm, self._prepare_inputs)
        means = training_means(self.state.log_history)
        logged = figures | {name: means[name] for name in ("train_loss",) if name in means}
        if logged:
            log.info("step %d: %s", self.state.global_step, "  ".join(f"{k} {v:.4g}" for k, v in logged.items()))
            self.log(dict(logged))
        metrics = figures | {f"eval_{name}": means.get(name, float("nan")) for name in TRAINING_METRICS}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Save whenever there is a new best, whatever `save_steps` says."""
        is_new_best = super()._determine_best_metric(metrics, trial)
        self.control.should_save = self.control.should_save or is_new_best
        if is_new_best:
            self.state.best_global_step = self.state.global_step
        return is_new_best

    def load_best(self) -> dict[str, Any]:
        """Load the best weights where the config asks, say which weights the model has, and return that as facts."""
        train, best = self.run_config.train, best_checkpoint(self.run_config.train, self.state)
        metric = criterion(train)
        if best is None or metric is None:
            if metric is not None:
                log.warning("no evaluation had a %s that is a number: there is no best checkpoint", metric)
            return {}
        held = "the last weights"
        if train.load_best_model_at_end:
            if self.engine is None and rank() == 0:  # which writes them; of an engine's, see `write_final`
                load_weights(self.vlm, best)
            held = "its weights"
        value, step = self.state.best_metric, self.state.best_global_step
        log.info("best %s: %.4g at step %d (%s); the run folder holds %s", metric, value, step, best, held)
        weights_of = step if train.load_best_model_at_end else self.state.global_step
        return {"best": {"metric": metric, "value": value, "step": step}, "weights_of_step": weights_of}

    def write_final(self, folder: Path) -> None:
        """Write the files of the run at its end; where an engine has split the weights, the best are copied."""
        self.write_run(folder)
        best = best_checkpoint(self.run_config.train, self.state)
        if self.engine is not None and self.run_config.train.load_best_model_at_end and best is not None:
            copy_weights(best, folder)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Give each part its own learning rate and weight decay; norms and biases have none."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.vlm))
            self.optimizer = make_optimizer(self.args, self.vlm, parameter_groups(self.run_config, self.vlm, decayed))
        return self.optimizer

    def whole_weights(self) -> AbstractContextManager[None]:
        """Let the weights that files hold be whole on the first process, where an engine has split them."""
        return nullcontext() if self.engine is None else whole_weights(self.vlm, self.engine.gather)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the files of a run; the Trainer would gather all weights at once where an engine has split them."""
        self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with self.unfreezing.all_open(), self.whole_weights():
            if rank() == 0:
                self.write_run(Path(output_dir or self.run_config.train.output_dir))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.writer.work_folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.state.global_step == self.last_saved_step:
            return  # the Trainer saves the last step twice
        self.last_saved_step = self.state.global_step
        best = best_values(self.run_config.train, self.state)
        with ExitStack() as stack:
            if rank() == 0:
                note_best = partial(write_best, self.writer.folder, best)
                stack.enter_context(self.writer.writing(self.state.global_step, note_best))
            super()._save_checkpoint(model, trial)
        wait_for_all()
        self.meter.watch.lap(SAVING)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """Wrap model and optimizer; an engine gets whole weights to split, and then the state of its optimizer."""
        if self.engine is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        checkpoint = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        if checkpoint is not None:
            load_weights(self.vlm, checkpoint)
        if self.run_config.train.fsdp:
            shard(self.vlm)
            self.is_distributed_loading_by_transformers = True  # the Trainer leaves a model alone that is split already
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if checkpoint is not None:
            self.engine.load(self, checkpoint)
        return prepared

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Add up gradients of a batch before the last of its step, without those of other processes."""
        model: Any = self.vlm
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.vlm, Path(resume_from_checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.engine is not None:
            self.engine.save(self, Path(output_dir))
            return
        if rank():
            return
        assert self.optimizer is not None
        save_optimizer(Path(output_dir), self.optimizer.state_dict(), self.lr_scheduler)
        if is_adalora(self.vlm.llm):
            save_values(Path(output_dir), ADALORA, *state_of(self.vlm.llm))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)
            if is_adalora(self.vlm.llm):
                set_state(self.vlm.llm, *load_values(Path(checkpoint), ADALORA))

    def _save_scaler(self, output_dir: str) -> None:
        if self.accelerator.scaler is not None and rank() == 0:
            save_scaler(Path(output_dir), self.accelerator.scaler)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            load_scaler(Path(checkpoint), self.accelerator.scaler)

    def _save_rng_state(self, output_dir: str) -> None:
        states = gathered(random_state())  # written by rank 0 alone, so that a checkpoint is whole or absent
        if rank() == 0:
            for number, state in enumerate(states):
                save_random_state(Path(output_dir), state, number)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_random_state(Path(checkpoint), rank())
