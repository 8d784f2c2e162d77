"""The training sections of an XTuner config: optimizer, schedule, epochs, hooks."""

from typing import Any

from mmtune.convert.sections import Section, shown

OPTIMIZERS = {
    "AdamW": "adamw_torch",
    "SGD": "sgd",
    "Adafactor": "adafactor",
    "AdamW8bit": "adamw_bnb_8bit",
    "PagedAdamW": "paged_adamw_32bit",
    "PagedAdamW32bit": "paged_adamw_32bit",
    "PagedAdamW8bit": "paged_adamw_8bit",
}
"""Classes of torch and bitsandbytes -> names of transformers."""

SCHEDULES = {"CosineAnnealingLR": "cosine", "ConstantLR": "constant_with_warmup"}
SILENT_HOOKS = ("DatasetInfoHook", "ThroughputHook", "VarlenAttnArgsToMessageHubHook")
SILENT_DEFAULT_HOOKS = ("timer", "param_scheduler", "sampler_seed")


def convert_train(top: Section) -> dict[str, Any]:
    """Return the keys of our `train` section that optimizer, schedule, epochs and hooks say."""
    values = _optimizer(top.section("optim_wrapper"))
    loop = top.section("train_cfg")
    epochs, steps = loop.take("max_epochs", (int, float)), loop.take("max_iters", int)
    values |= {"max_steps": steps} if steps is not None else {"num_train_epochs": 1 if epochs is None else epochs}
    loop.drop("type")
    loop.drop_if(by_epoch=steps is None)
    loop.report()
    values |= _schedule(top.sections("param_scheduler"), steps or epochs or 1)
    values |= _default_hooks(top.section("default_hooks"))
    randomness = top.section("randomness")
    seed = randomness.take("seed", int)
    values |= {} if seed is None else {"seed": seed}
    randomness.drop_if(deterministic=False)
    randomness.report()
    return values


def convert_hooks(top: Section) -> dict[str, Any] | None:
    """Return our section `sample` where a hook asks questions; what other hooks do is noted."""
    sample = None
    for hook in top.sections("custom_hooks"):
        kind = hook.name()
        if kind == "EvaluateChatHook":
            sample = _sample(hook) or sample
        elif kind not in SILENT_HOOKS:
            hook.notes.append(f"custom_hooks: {kind or shown(hook.values)}")
    return sample


def _optimizer(wrapper: Section) -> dict[str, Any]:
    optimizer, clip = wrapper.section("optimizer"), wrapper.section("clip_grad")
    kind = optimizer.name()
    values: dict[str, Any] = {"learning_rate": optimizer.take("lr", (int, float), 2e-4)}
    if kind in OPTIMIZERS:
        values["optim"] = OPTIMIZERS[kind]
    else:
        optimizer.notes.append(f"optimizer: {kind or 'not to be found'}; adamw_torch is taken")
    betas = optimizer.take("betas", (list, tuple), (0.9, 0.999))
    if len(betas) == 2 and all(isinstance(beta, int | float) for beta in betas):
        values["adam_beta1"], values["adam_beta2"] = map(float, betas)
    else:
        optimizer.notes.append(f"optimizer.betas: {shown(betas)}")
    values["weight_decay"] = float(optimizer.take("weight_decay", (int, float), 0.01))  # as AdamW's own default
    values["max_grad_norm"] = float(clip.take("max_norm", (int, float), 0))
    values["gradient_accumulation_steps"] = wrapper.take("accumulative_counts", int, 1)
    clip.drop("error_if_nonfinite")
    wrapper.drop("type", "loss_scale", "dtype")
    for section in (optimizer, clip, wrapper):
        section.report()
    return values


def _schedule(schedulers: list[Section], whole: float) -> dict[str, Any]:
    """Return schedule and warmup; `whole` is the length of the training, in XTuner's unit."""
    values: dict[str, Any] = {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.0}
    for scheduler in schedulers:
        kind = scheduler.name()
        end = scheduler.take("end", (int, float))
        if kind == "LinearLR" and end is not None and scheduler is schedulers[0] and len(schedulers) > 1:
            values["warmup_ratio"] = round(end / whole, 6)
            scheduler.drop("start_factor")
        elif kind in SCHEDULES:
            values["lr_scheduler_type"] = SCHEDULES[kind]
            scheduler.drop("factor")
        else:
            scheduler.notes.append(f"{scheduler.path}: {kind or 'a schedule without a name'}; the rate stays constant")
        scheduler.drop("begin", "by_epoch", "convert_to_iter_based", "T_max")
        scheduler.drop_if(eta_min=0, verbose=False)
        scheduler.report()
    return values


def _default_hooks(hooks: Section) -> dict[str, Any]:
    checkpoint, logger = hooks.section("checkpoint"), hooks.section("logger")
    values: dict[str, Any] = {"logging_steps": logger.take("interval", int, 10)}
    steps, kept = checkpoint.take("interval", int, 0), checkpoint.take("max_keep_ckpts", int, -1)
    if checkpoint.take("by_epoch", bool, True) and steps > 0:
        checkpoint.notes.append(f"{checkpoint.path}.by_epoch: checkpoints are counted in steps; one is kept at the end")
        steps = 0
    values |= {"save_steps": max(steps, 0), "save_total_limit": kept if kept > 0 else None}
    checkpoint.drop("type", "save_optimizer")
    logger.drop("type", "log_metric_by_epoch", "ignore_last")
    hooks.drop(*SILENT_DEFAULT_HOOKS)
    for section in (checkpoint, logger, hooks):
        section.report()
    return values


def _sample(hook: Section) -> dict[str, Any] | None:
    """The questions that XTuner asks about each image; none without the images, where these are on the web."""
    steps, questions = hook.take("every_n_iters", int, 0), hook.take("evaluation_inputs", (list, tuple), [])
    images, system = hook.take("evaluation_images", (str, list, tuple), []), hook.take("system", str)
    hook.drop("tokenizer", "image_processor", "prompt_template", "max_new_tokens")
    hook.report()
    images, questions = [images] if isinstance(images, str) else list(images), list(questions)
    remote = [image for image in images if "://" in str(image)]
    if remote:
        message = f"image {shown(remote[0])} is not fetched; save it, name it as sample.images and set sample.questions"
        hook.notes.append(f"EvaluateChatHook: {message}: {shown(questions)}")
        return None
    if not questions or not all(isinstance(text, str) for text in (*questions, *images)):
        hook.notes.append(f"EvaluateChatHook: asks {shown(questions)} about {shown(images)}; set sample.questions")
        return None
    sample = {"every_steps": steps, "questions": questions}
    return sample | ({"images": images} if images else {}) | ({"system": system} if system else {})
