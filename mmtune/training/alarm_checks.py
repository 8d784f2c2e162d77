"""What is odd about the figures that a run logs: checks of losses, gradient norms, rates and times.

Each check takes a `History` and returns what is wrong, its cause and the mend, or None. A false alarm is worse than
none: limits stand far from what healthy runs show, and each says where from. What needs the weights themselves is
`alarms.py`.
"""

import statistics
from collections.abc import Callable
from itertools import islice

from mmtune.training.history import RECENT, SHORT, History, before_last, mean_of_last, median_of_last

NEAR_ZERO = 0.01
"""A loss of 0.01 gives the right token 99 %: text that is not known by heart has 0.5 and more."""
CHANCE = 0.97
"""Share of ln(vocabulary), the loss of guessing. Runs whose base weights or template were wrong stood at 1.0 and above
(LLaVA's issue 256 began at 10.375 = ln 32000; issue 878 stayed between 10 and 13)."""
HIGHEST_SHARE = {"pretrain": 0.45, "finetune": 0.30, "sft": 0.40}
"""Share of ln(vocabulary) that the loss is below after warm-up and `SETTLED` logs; with 92,544 tokens 5.1, 3.4, 4.6.
Published runs of stage 1 go from about 5 to 2.0 to 2.5 (LLaVA's issues 62 and 439, MiniGPT-4's issue 167), those of
stage 2 from 1.9 to 3.8 down to 1.0 to 1.9 (LLaVA's issue 399, MiniGPT-4's issue 167), text of chats to 0.8 (XTuner's
issue 658); text in another language than the model's starts higher."""
SETTLED = 100
FLAT_LOGS, FLAT_SHARE = 200, 0.98
"""A new projector's loss falls most in its first 200 steps; one that fell by less than 2 % learns nothing."""
RISE_FACTOR, RISE_LEAST = 1.3, 0.5
SPIKE_SHARE, SPIKE_LEAST = 0.5, 1.0
"""The median of ten logs this far above that of the fifty before, and above each of them: a batch may be anywhere."""
CLIPPED_FACTOR, CLIPPED_LOGS = 10.0, 100
"""Norms a little above the limit are usual under Adam; ten times it at each of 100 logs is another matter."""
EXPLODED_FACTOR = 100.0
WAIT_SHARE, WAIT_SECONDS = 0.3, 120.0
"""A third of the time is worth a worker process; below two minutes the start of the loader counts for too much."""
PADDING_SHARE, PADDING_LOGS = 0.4, 50
RATE_LOGS = 10


def no_supervised_tokens(history: History) -> str | None:
    """Steps without a token that has a label."""
    if history.supervised != 0:
        return None
    return (
        "no supervised tokens in the steps since the last log: nothing is learned from them. "
        "`mmtune inspect CONFIG` shows which tokens have labels; raise data.max_length where answers are cut off."
    )


def loss_near_zero(history: History) -> str | None:
    """Answers that are known before they are given."""
    if len(history.losses) < 20 or max(islice(reversed(history.losses), 20)) >= NEAR_ZERO:
        return None
    return (
        f"the loss was below {NEAR_ZERO} at the last 20 logs: the answers stand in the prompts, or the model knows "
        "them by heart. Look at samples with `mmtune inspect CONFIG`, or train less on so few of them."
    )


def loss_of_chance(history: History) -> str | None:
    """A model that guesses."""
    limit = CHANCE * history.chance_loss
    if not history.is_settled(20) or median_of_last(history.losses, 10) < limit:
        return None
    return (
        f"the loss is that of guessing (ln of the vocabulary is {history.chance_loss:.2f}): base weights, tokenizer "
        "and chat template may not belong together. Ask the base model with `mmtune chat`, and check "
        "model.llm.chat_template with `mmtune inspect CONFIG`."
    )


def loss_too_high(history: History) -> str | None:
    """A loss above all that healthy runs of the stage have after their start."""
    limit = HIGHEST_SHARE[history.verb] * history.chance_loss
    if not history.is_settled(SETTLED) or loss_of_chance(history):
        return None
    mean = mean_of_last(history.losses, RECENT)
    if mean < limit:
        return None
    return (
        f"the loss is {mean:.2f} after {history.step} steps; {history.verb} is below {limit:.1f} by then. "
        "Check the learning rates, that model.init_from is of this language model, and the language of the data."
    )


def loss_flat(history: History) -> str | None:
    """A new projector that learns nothing."""
    if not history.starts_anew or not history.is_settled(FLAT_LOGS):
        return None
    first, last = statistics.fmean(history.first_losses), mean_of_last(history.losses, RECENT)
    if last < FLAT_SHARE * first:
        return None
    return (
        f"the loss has not fallen ({first:.2f} at first, {last:.2f} after {history.step} steps): the projector learns "
        "nothing. Raise model.projector.learning_rate, and check that images and captions belong together."
    )


def loss_rises(history: History) -> str | None:
    """A run that gets worse."""
    if len(history.losses) < 3 * RECENT:
        return None
    middle = median_of_last(history.losses, RECENT)
    if middle < RISE_FACTOR * history.best_median + RISE_LEAST:
        return None
    return (
        f"the loss has risen from {history.best_median:.2f} to {middle:.2f} (medians of {RECENT} logs): the run "
        "gets worse. Lower train.learning_rate and continue from an earlier checkpoint."
    )


def loss_spike(history: History) -> str | None:
    """A jump that lasts longer than a batch."""
    base = before_last(history.losses)
    if not base:
        return None
    middle, now = statistics.median(base), median_of_last(history.losses, SHORT)
    if now < max(*base, middle + SPIKE_LEAST, middle * (1 + SPIKE_SHARE)):
        return None
    return (
        f"the loss jumped from {middle:.2f} to {now:.2f} within {SHORT} logs. If it does not come down again, lower "
        "train.learning_rate or train.max_grad_norm, and look for odd records with `mmtune data stats CONFIG`."
    )


def gradients_clipped(history: History) -> str | None:
    """A clipping limit that every step runs into by far."""
    limit = CLIPPED_FACTOR * history.max_grad_norm
    if not limit or len(history.norms) < CLIPPED_LOGS or not history.is_settled(CLIPPED_LOGS):
        return None
    least = min(islice(reversed(history.norms), CLIPPED_LOGS))
    if least < limit:
        return None
    return (
        f"gradients had a norm of {least:.3g} or more at each of {CLIPPED_LOGS} logs and are always clipped to "
        f"{history.max_grad_norm:g}. Lower train.learning_rate, or raise train.max_grad_norm if the loss falls."
    )


def gradients_explode(history: History) -> str | None:
    """Norms far above what they were."""
    base = before_last(history.norms)
    if not base:
        return None
    middle, now = statistics.median(base), median_of_last(history.norms, SHORT)
    if now < EXPLODED_FACTOR * middle or now < max(history.max_grad_norm, 1.0):
        return None
    return (
        f"the norm of gradients went from {middle:.3g} to {now:.3g} within {SHORT} logs: training diverges. "
        "Lower train.learning_rate and continue from an earlier checkpoint."
    )


def rate_of_zero(history: History) -> str | None:
    """A schedule that ends before the run."""
    if history.idle_logs < RATE_LOGS:
        return None
    return (
        f"the learning rate was 0 at the last {RATE_LOGS} logs and steps are left: nothing trains. "
        "Check train.lr_scheduler_type and its train.lr_scheduler_kwargs."
    )


def data_wait(history: History) -> str | None:
    """A device that has nothing to do."""
    if history.seconds < WAIT_SECONDS or history.wait_seconds < WAIT_SHARE * history.seconds:
        return None
    share = 100 * history.wait_seconds / history.seconds
    return (
        f"{share:.0f} % of the time is spent waiting for data. Raise train.dataloader_num_workers (now "
        f"{history.num_workers}), or set data.cache_vision_features where the encoder is frozen."
    )


def much_padding(history: History) -> str | None:
    """Slots that hold nothing."""
    if len(history.padding) < PADDING_LOGS or statistics.fmean(history.padding) < PADDING_SHARE:
        return None
    share = 100 * statistics.fmean(history.padding)
    mend = "data.group_by_length" if history.padding_free else "data.padding_free, or data.group_by_length"
    return f"{share:.0f} % of all token slots are padding. Set {mend}; data.pack_to_max_length fills rows as well."


CHECKS: dict[str, Callable[[History], str | None]] = {
    "no_supervised_tokens": no_supervised_tokens,
    "loss_near_zero": loss_near_zero,
    "loss_of_chance": loss_of_chance,
    "loss_too_high": loss_too_high,
    "loss_flat": loss_flat,
    "loss_rises": loss_rises,
    "loss_spike": loss_spike,
    "gradients_clipped": gradients_clipped,
    "gradients_explode": gradients_explode,
    "rate_of_zero": rate_of_zero,
    "data_wait": data_wait,
    "much_padding": much_padding,
}
"""Name of an alarm -> its check, made at each log."""
