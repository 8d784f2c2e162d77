"""The main path of `pretrain`, `finetune` and `sft`: from a config to a complete run folder."""

import logging
import time
from contextlib import ExitStack
from pathlib import Path

from transformers import TrainerCallback, set_seed

from mmtune.build import Parts, base_models
from mmtune.build_data import build_reader
from mmtune.config import fitting_verb, to_values
from mmtune.logs import TextLog
from mmtune.models.device import choose_device
from mmtune.models.precision import choose_dtype
from mmtune.models.weights import save_weights
from mmtune.processes import num_processes, rank
from mmtune.run_folder import TEXT_LOG_FILE, write_manifest, write_settings
from mmtune.schema import Config
from mmtune.schema_evaluation import evaluates
from mmtune.training.alarms import Alarms
from mmtune.training.arguments import training_arguments
from mmtune.training.callbacks import RunLog
from mmtune.training.checkpointing import states_of
from mmtune.training.checkpoints import CheckpointWriter
from mmtune.training.data import load_data
from mmtune.training.disk import try_to_save
from mmtune.training.evaluation import Evaluation
from mmtune.training.faults import faults_named
from mmtune.training.interruption import Interruption
from mmtune.training.machines import log_unshared, require_same_checkpoint
from mmtune.training.memory_fault import memory_fault
from mmtune.training.meter import StepMeter
from mmtune.training.model import model_to_train
from mmtune.training.output_folder import begin_writing, clear_folder, is_done, make_folder
from mmtune.training.plan import Plan
from mmtune.training.progress_bar import ProgressBar
from mmtune.training.ranks import agreed, first_on_each_machine, from_rank_0, join, log_processes, wait_for_all
from mmtune.training.resume import ResumePoint, point_to_resume
from mmtune.training.run_lock import run_lock
from mmtune.training.run_plan import plan_of_run, with_settled_split, write_plan
from mmtune.training.samples import require_samples, sample_callbacks
from mmtune.training.start_table import start_table
from mmtune.training.steps import num_saves, total_steps
from mmtune.training.trackers import tracker_callbacks
from mmtune.training.trainer import RunTrainer

log = logging.getLogger(__name__)


def train(
    config: Config, verb: str | None = None, *, resume: bool | str | Path = False, overwrite: bool = False
) -> Path:
    """Train what the config says and return the complete run folder.

    Args:
        config: from `load_config`.
        verb: `pretrain`, `finetune` or `sft`; recorded with the run. None takes the one that fits.
        resume: True continues from the newest complete checkpoint, a path from that one.
        overwrite: delete what the output folder holds.

    Raises:
        MMTuneError: config, data, base model or checkpoint are wrong, or training cannot go on; the message holds
            place and mend.
        Interrupted: a signal ended it; a checkpoint of its last step is there.
        EndedElsewhere: another process of several ended it, and says why.
    """
    folder, verb = Path(config.train.output_dir), verb or fitting_verb(to_values(config))
    join(config.train.device)
    text_log = TextLog(folder / TEXT_LOG_FILE)
    with ExitStack() as held:

        def begin() -> tuple[bool, ResumePoint | None]:
            if not overwrite and is_done(folder, config, resume=bool(resume)):
                return True, None
            make_folder(folder)
            held.enter_context(run_lock(folder))
            held.enter_context(text_log)
            point = point_to_resume(folder, config, resume)
            clear_folder(folder, resume=bool(resume), overwrite=overwrite)
            return False, point

        is_complete, point = from_rank_0(begin)
        if is_complete:
            log.info("%s is complete and has this config: nothing to do", folder)
        else:
            _train(folder, config, verb, point, text_log)
    return folder


def _train(folder: Path, config: Config, verb: str, point: ResumePoint | None, text_log: TextLog) -> None:
    checkpoint, first_step = (point.folder, point.step) if point else (None, 0)
    device = choose_device(config.train.device)
    dtype = choose_dtype(config.model.llm.dtype, device)
    log_unshared(folder)
    if checkpoint is not None:
        require_same_checkpoint(checkpoint)
    with agreed():
        # A value that the Trainer refuses is said before a model loads.
        training_arguments(config.train, device, dtype, has_evaluation=evaluates(config))
        require_samples(config)
        reader = build_reader(config.model)
    given, config = config, from_rank_0(lambda: with_settled_split(config, reader, checkpoint))
    log_processes(device)
    data = first_on_each_machine(lambda: load_data(config, reader, folder, first_step))
    if point is not None:
        with agreed():
            point.check_data(data.samples)
        point.log_notes()

    set_seed(config.train.seed)
    ready = first_on_each_machine(lambda: model_to_train(config, device, reader, data, checkpoint))
    parts, models = ready.parts, base_models(config.model)

    def write_run(target: Path) -> None:
        write_settings(target, given, verb, models, data.facts())
        write_plan(target, config, plan)
        save_weights(parts.model, target)
        parts.save_readers(target)

    meter = StepMeter(parts.model, parts.transform.image_size if parts.transform else None)
    interruption = Interruption()
    writer = CheckpointWriter(folder, config.train.save_total_limit, num_processes())
    with agreed(), writer.errors_named():
        if rank() == 0:
            begin_writing(folder, point)
        run_log, bar, callbacks = _watchers(config, verb, parts, meter, first_step, interruption)
        if rank() == 0:  # who looks at the run meanwhile reads them
            write_settings(folder, given, verb, models, data.facts())
    text_log.open()
    evaluation = Evaluation(config, data.held_out, ready.collator) if data.held_out is not None else None
    trainer = RunTrainer(
        parts.model, config, data.rows, ready.collator, write_run, meter, writer, callbacks, evaluation
    )
    set_seed(config.train.seed + rank())  # ranks start from the same weights and draw their own dropout
    log.info("%s", start_table(config, parts.model))
    plan = plan_of_run(config, parts.model, data.rows, ready.collator)
    saves = num_saves(config, first_step, total_steps(config, data.rows))
    from_rank_0(lambda: try_to_save(writer, write_run, states_of(config, parts.model), saves))
    try:
        _fit(trainer, checkpoint, plan, interruption)
    finally:
        bar.close()
        run_log.close()
        writer.close()
    data.log_trained()
    with trainer.whole_weights():
        best = trainer.load_best()
        seconds = round(run_log.seconds_before + time.monotonic() - run_log.started, 1)

        def finish() -> None:
            with writer.errors_named():
                trainer.write_final(folder)
                write_manifest(folder, steps=trainer.state.global_step, train_seconds=seconds, **best)

        from_rank_0(finish)
    log.info("%d steps in %.0f s; the run is in %s", trainer.state.global_step, seconds, folder)


def _watchers(
    config: Config, verb: str, parts: Parts, meter: StepMeter, first_step: int, interruption: Interruption
) -> tuple[RunLog, ProgressBar, list[TrainerCallback]]:
    """Return the log, the progress line, and all that watches a run, these two included."""
    folder = Path(config.train.output_dir)
    trackers = tracker_callbacks(config, folder, first_step)
    run_log, bar = RunLog(folder, meter, first_step, verb), ProgressBar(verb, meter)
    callbacks = [*trackers, *sample_callbacks(config, parts, meter, first_step, interruption), run_log, bar]
    if config.train.alarms != "none" and rank() == 0:
        callbacks.append(Alarms(config, verb, parts.model, meter, run_log))
    return run_log, bar, callbacks


def _fit(trainer: RunTrainer, checkpoint: Path | None, plan: Plan | None, interruption: Interruption) -> None:
    """Train to the end, or until a signal or a fault says otherwise."""
    writer = trainer.writer
    trainer.add_callback(interruption)
    trainer.args.eval_on_start &= checkpoint is None  # a run that goes on was measured when it began

    def out_of_memory() -> str:
        step, batch = trainer.state.global_step + 1, trainer.batch_under_way
        return memory_fault(trainer.run_config, trainer.rows, plan, step, batch)

    with interruption, writer.errors_named(), faults_named(writer, trainer.args.dataloader_num_workers, out_of_memory):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        writer.wait()
        wait_for_all()  # until the last checkpoint is in its place
    interruption.raise_if_received(writer.newest(), trainer.state.global_step >= trainer.state.max_steps)
