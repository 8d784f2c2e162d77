"""The best checkpoint of a run by its criterion, and stopping early when nothing becomes better."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState

from mmtune.durable import written_beside
from mmtune.errors import CheckpointError
from mmtune.processes import rank
from mmtune.run_folder import is_complete, write_json
from mmtune.schema import TrainConfig
from mmtune.schema_evaluation import TRAINING_METRICS, criterion
from mmtune.training.ranks import agreed, from_rank_0

log = logging.getLogger(__name__)
BEST_FILE = "best.json"


def best_checkpoint(config: TrainConfig, state: TrainerState) -> Path | None:
    """Return the folder of the best checkpoint by the criterion; None without one, or before the first evaluation."""
    if criterion(config) is None or state.best_global_step is None:
        return None
    return Path(config.output_dir) / f"checkpoint-{state.best_global_step}"


def best_values(config: TrainConfig, state: TrainerState) -> dict[str, Any] | None:
    """Return what `best.json` says now; None where there is no best."""
    folder = best_checkpoint(config, state)
    if folder is None:
        return None
    values = {"metric": criterion(config), "value": state.best_metric, "step": state.best_global_step}
    return values | {"checkpoint": folder.name}


def write_best(folder: Path, values: dict[str, Any] | None) -> int | None:
    """Write `best.json` into a run folder, or delete it where there is no best; return the step of the best."""
    path = folder / BEST_FILE
    if values is None:
        path.unlink(missing_ok=True)
        return None
    with written_beside(path) as beside:
        write_json(beside, values)
    return values["step"]


class EarlyStopping(EarlyStoppingCallback):
    """Ends a training after `early_stopping_patience` evaluations in a row that were no better than the best before.

    The Trainer's own callback, which keeps its count over a resume and says why it ends the training.
    """

    def __init__(self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0):
        super().__init__(early_stopping_patience, early_stopping_threshold)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Go on counting where the checkpoint stopped; a run that had ended there stays ended, and says so."""
        states: Any = state.stateful_callbacks
        kept = states.get(type(self).__name__)
        if isinstance(kept, dict):
            self.early_stopping_patience_counter = kept["attributes"]["early_stopping_patience_counter"]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True
            log.warning(
                "this run had stopped early at step %d, after %d evaluations that were no better: it stays so, unless "
                "train.early_stopping_patience is raised",
                state.global_step, self.early_stopping_patience_counter,
            )  # fmt: skip

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, metrics: Any = None, **_: Any) -> None:
        """Count, and stop when it is enough."""
        super().on_evaluate(args, state, control, metrics)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            name = args.metric_for_best_model
            shown = name.removeprefix("eval_")
            log.info(
                "stopped early at step %d: %s was %.4g, and %.4g at best; no better for %d evaluations",
                state.global_step, shown if shown in TRAINING_METRICS else name, metrics[name], state.best_metric,
                self.early_stopping_patience_counter,
            )  # fmt: skip


class BestCheckpoint(TrainerCallback):
    """Checks at the start of a resumed run that the best checkpoint is still there, and writes `best.json` anew.

    Where it is gone and its weights are not wanted at the end, the best is chosen among those to come.

    Args:
        config: of the run.
    """

    def __init__(self, config: TrainConfig):
        self.config = config

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Check and write.

        Raises:
            CheckpointError: the weights to load at the end are gone.
        """
        best = best_checkpoint(self.config, state)
        if best is not None and not from_rank_0(partial(is_complete, best)):
            message = f"is the best checkpoint of this run by {criterion(self.config)}, and it is gone."
            if self.config.load_best_model_at_end:
                mend = "Restore it, or go on without it: train.load_best_model_at_end=false."
                with agreed():
                    raise CheckpointError(best, f"{message} {mend}")
            log.warning("%s: %s From here on the best is chosen anew", best, message)
            state.best_metric = state.best_global_step = None
        if rank() == 0:
            write_best(Path(self.config.output_dir), best_values(self.config, state))


def best_callbacks(config: TrainConfig) -> list[TrainerCallback]:
    """Return what a run with a criterion does about it; nothing for one without."""
    if criterion(config) is None:
        return []
    patience, threshold = config.early_stopping_patience, config.early_stopping_threshold
    stopping = [] if patience is None else [EarlyStopping(patience, threshold)]
    return [BestCheckpoint(config), *stopping]
