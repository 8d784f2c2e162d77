"""What is wrong with the numbers of a training: rates, noise, memory. Beyond what types and bounds say."""

from collections.abc import Iterator

from mmtune.schema import Config


def wrong_training(config: Config) -> Iterator[str]:
    """Yield what is wrong with the section `train`, each as a sentence with the mend."""
    train = config.train
    alpha, smoothing = train.neftune_noise_alpha, train.label_smoothing_factor
    if alpha is not None and not 0 <= alpha < float("inf"):
        yield f"'train.neftune_noise_alpha' must be 0 or more (got {alpha}). The paper takes 5 to 15; null: no noise."
    if not 0 <= smoothing < 1:
        yield f"'train.label_smoothing_factor' must be at least 0 and less than 1 (got {smoothing})."
    is_low_rank = train.optim.startswith(("galore", "apollo"))
    if is_low_rank and not train.optim_target_modules:
        example = "such as [q_proj, v_proj], or [all-linear]"
        yield f"'train.optim: {train.optim}' needs 'train.optim_target_modules': parts of layers' names, {example}."
    if train.optim_target_modules and not is_low_rank:
        yield f"'train.optim_target_modules' is for GaLore and APOLLO (got train.optim: {train.optim}). Leave it out."
