"""Commands of XTuner typed by habit, and verbs with a slip of the finger: one line says the command here."""

from collections.abc import Iterable, Sequence

from mmtune.lookup import nearest

TRAIN = "mmtune pretrain CONFIG, mmtune finetune CONFIG or mmtune sft CONFIG"
SEVERAL = "torchrun --nproc_per_node N -m mmtune finetune"
COMPARE = "mmtune compare RUN --questions FILE"

FORMER_VERBS = {
    "train": TRAIN,
    "dist-train": f"{SEVERAL} CONFIG",
    "list-cfg": "mmtune configs list -p TEXT",
    "copy-cfg": "mmtune configs copy NAME FILE.yaml",
    "log-dataset": "mmtune inspect CONFIG",
    "check-custom-dataset": "mmtune inspect CONFIG; training checks every record before its first step",
    "list-dataset-format": "the formats of data.train.format, in docs/config.md",
    "test": COMPARE,
    "mmbench": "mmtune eval RUN --benchmark mmbench --data FILE.tsv",
    "eval-refcoco": "mmtune eval RUN --benchmark NAME --data FOLDER; RefCOCO is not among them",
    "preprocess": "no need, training reads and encodes the data itself",
    "help": "mmtune --help",
    "version": "mmtune --version",
}
"""XTuner's verbs, `_` written as `-` -> what does it here."""

FORMER_CONVERSIONS = {
    "pth-to-hf": "no need, name the .pth as model.init_from; mmtune export RUN --format xtuner writes such folders",
    "merge": "mmtune export RUN --format merged",
    "split": "no need, models are read in as many shards as they have",
}
"""What XTuner's `convert` does -> what does it here."""

FORMER_CHAT_OPTIONS = (
    "--adapter",
    "--bits",
    "--bot-name",
    "--lagent",
    "--llava",
    "--no-streamer",
    "--offload-folder",
    "--prompt-template",
    "--stop-words",
    "--system-template",
    "--torch-dtype",
    "--visual-encoder",
    "--visual-select-layer",
    "--with-plugins",
)
CHAT = "mmtune chat RUN --image FILE, since a run knows its models and template; XTuner's weights: model.init_from"

FORMER_TRAIN_OPTIONS = {
    "--cfg-options": "section.name=value",
    "--work-dir": "train.output_dir=FOLDER",
    "--seed": "train.seed=NUMBER",
    "--deepspeed": "train.deepspeed=zero1, zero2, zero3 or a file of settings",
    "--launcher": f"none is needed, {SEVERAL} CONFIG",
}
"""Options of XTuner's `train` -> what does it here, behind CONFIG."""

TRAINING_VERBS = ("pretrain", "finetune", "sft")


def answer_for(argv: Sequence[str], verbs: Iterable[str]) -> str | None:
    """Return the line that answers a command of another tool or a mistyped verb; None where the verb is ours.

    Args:
        argv: the words of the command line, without `mmtune`.
        verbs: ours.
    """
    if not argv or argv[0].startswith("-"):
        return None
    verb, rest = argv[0], argv[1:]
    options = {word.partition("=")[0] for word in rest if word.startswith("--")}
    if verb in verbs:
        return _answer_inside(verb, rest, options)
    if verb.lower().replace("_", "-") in FORMER_VERBS:
        return f"{verb}: a verb of XTuner. Here: {_former(verb, rest)}."
    close = nearest(verb, [*verbs, *FORMER_VERBS])
    if not close:
        return f"{verb}: no such verb. Known: {', '.join(verbs)}."
    name = close.split("'")[1]
    return f"{verb}: no such verb.{close}" + ("" if name in verbs else f" Here: {_former(name, rest)}.")


def _former(verb: str, rest: Sequence[str]) -> str:
    name = verb.lower().replace("_", "-")
    old_config = next((word for word in rest if word.endswith(".py")), None)
    if "train" in name and old_config is not None:
        return f"mmtune convert xtuner-config {old_config} -o NEW.yaml, then {TRAIN.replace('CONFIG', 'NEW.yaml')}"
    return FORMER_VERBS[name]


def _answer_inside(verb: str, rest: Sequence[str], options: set[str]) -> str | None:
    """Answer what XTuner's users write behind a verb that both have."""
    action = rest[0].lower().replace("_", "-") if rest else ""
    if verb == "convert" and action in FORMER_CONVERSIONS:
        return f"convert {rest[0]}: of XTuner. Here: {FORMER_CONVERSIONS[action]}."
    former = sorted(options.intersection(FORMER_CHAT_OPTIONS if verb == "chat" else FORMER_TRAIN_OPTIONS))
    if verb == "chat" and former:
        return f"chat {former[0]}: an option of XTuner. Here: {CHAT}."
    if verb in TRAINING_VERBS and former:
        return f"{verb} {former[0]}: an option of XTuner. Here: {FORMER_TRAIN_OPTIONS[former[0]]}."
    return None
