"""The schema of a training config, and how a file and overrides become one. No torch import: `--help` stays instant."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmtune.errors import ConfigError
from mmtune.lookup import nearest

Tune = Literal["frozen", "adapter", "full"]


@dataclass
class LLMConfig:
    """The language model."""

    name_or_path: str = MISSING  # a transformers folder, a .gguf file, a hub name or an embedded model
    chat_template: str = MISSING  # a key of mmtune.data.template.TEMPLATES
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: bfloat16 where a GPU has it, else float32
    quantization: Literal["nf4"] | None = None  # 4-bit base weights (QLoRA)
    double_quantization: bool = True  # quantize the constants of the quantization too
    tune: Tune = "frozen"
    learning_rate: float | None = None  # None: train.learning_rate
    weight_decay: float | None = None  # None: train.weight_decay


@dataclass
class VisionConfig:
    """The vision encoder. `feature_layer`, `image_size` and `grid` are for the sources that take them."""

    source: str = MISSING  # a key of mmtune.models.vision.VISION_ENCODERS
    name: str = MISSING  # a folder, or a name that the source knows
    feature_layer: int | None = None  # CLIP: index of hidden_states, -2 by default
    image_size: int | None = None  # efficientnet: pixels a side
    grid: int | None = None  # efficientnet: an image becomes grid x grid tokens
    tune: Literal["frozen", "full"] = "frozen"
    learning_rate: float | None = None
    weight_decay: float | None = None


@dataclass
class ProjectorConfig:
    """The projector between vision encoder and language model."""

    kind: str = "mlp2x_gelu"  # a key of mmtune.models.projector.PROJECTORS
    standardize: bool = False  # bring the features to mean 0, deviation 1 by statistics of the training images
    match_embeddings: bool = False  # start with outputs of the size that text embeddings have
    tune: Literal["frozen", "full"] = "full"
    learning_rate: float | None = None
    weight_decay: float | None = None


@dataclass
class ModelConfig:
    """The parts of the model and where their weights start."""

    llm: LLMConfig = field(default_factory=LLMConfig)
    vision: VisionConfig | None = None  # null: text only
    projector: ProjectorConfig | None = None
    adapter: dict[str, Any] | None = None  # `kind` and PEFT's own keys of that kind
    init_from: str | None = None  # a run folder whose projector (and adapter) this run starts from


@dataclass
class DataSource:
    """One data file."""

    path: str = MISSING
    format: str | None = None  # a key of mmtune.data.formats.FORMATS; None detects it record by record
    image_folder: str | None = None  # None: the folder of the data file


@dataclass
class DataConfig:
    """What is trained on."""

    train: list[DataSource] = field(default_factory=list)
    max_length: int = 2048  # tokens of a sample, image tokens included
    on_bad_record: Literal["error", "skip"] = "error"  # skip: leave it out and list it in data.json
    group_by_length: bool = False  # batches of about equal length: less padding


@dataclass
class TrainConfig:
    """The training run, in the words of Hugging Face's TrainingArguments."""

    output_dir: str = MISSING
    per_device_train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    num_train_epochs: float = 1.0
    max_steps: int = -1  # > 0: overrides num_train_epochs
    learning_rate: float = 2e-4
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.03
    optim: str = "adamw_torch"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = False
    logging_steps: int = 1
    save_steps: int = 500  # 0: only at the end
    save_total_limit: int | None = 2
    dataloader_num_workers: int = 0
    seed: int = 42
    device: Literal["auto", "cpu"] = "auto"  # auto: a GPU where there is one


@dataclass
class Config:
    """A training run: the model, the data, the training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


VERB_DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {
        "model": {"llm": {"tune": "frozen"}, "projector": {"tune": "full"}},
        "train": {"learning_rate": 1e-3, "per_device_train_batch_size": 32},
    },
    "finetune": {
        "model": {
            "llm": {"tune": "adapter"},
            "projector": {"tune": "full"},
            "adapter": {"kind": "lora", "r": 64, "lora_alpha": 128, "lora_dropout": 0.05},
        },
    },
    "sft": {
        "model": {
            "llm": {"tune": "adapter"},
            "adapter": {"kind": "lora", "r": 64, "lora_alpha": 16, "lora_dropout": 0.1},
        },
        "train": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16},
    },
}
"""What each verb sets before the file is read. Everything else the three verbs share."""

OTHER_WORDS = {
    "accumulative_counts": "train.gradient_accumulation_steps",
    "batch_size": "train.per_device_train_batch_size",
    "betas": "train.adam_beta1 and train.adam_beta2",
    "data_path": "data.train[0].path",
    "llm_name_or_path": "model.llm.name_or_path",
    "lr": "train.learning_rate",
    "max_epochs": "train.num_train_epochs",
    "max_norm": "train.max_grad_norm",
    "optim_type": "train.optim",
    "pretrained_pth": "model.init_from",
    "prompt_template": "model.llm.chat_template",
    "visual_encoder_name_or_path": "model.vision.name",
    "warmup_steps": "train.warmup_ratio",
    "work_dir": "train.output_dir",
}
"""Words of other tools -> ours."""


def load_config(path: Path | str, overrides: list[str] | None = None, verb: str = "finetune") -> Config:
    """Read a config file, apply overrides and check every key and value.

    Args:
        path: a YAML file.
        overrides: `section.name=value` texts, as typed on the command line.
        verb: whose defaults apply: a key of `VERB_DEFAULTS`.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value has the wrong type or is missing.
    """
    given = read_yaml(path)
    apply_overrides(given, overrides or [])
    return config_from_values(given, str(path), verb)


def config_from_values(given: dict[str, Any], place: str, verb: str = "finetune") -> Config:
    """Return the checked config of plain values; `place` is where they came from."""
    check_keys(given, Config, place)
    defaults = _defaults_for(verb, given)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), defaults, given)
        missing = sorted(OmegaConf.missing_keys(merged))
        config = None if missing else OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise _value_error(error, place) from None
    if missing:
        raise ConfigError(place, f"'{missing[0]}' is not set. Set it in the file or as {missing[0]}=VALUE.")
    assert isinstance(config, Config)
    _check_values(config, verb, place)
    return config


def to_values(config: Config) -> dict[str, Any]:
    """Return the config as plain values, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """Return the resolved config as YAML; the file alone reproduces the run."""
    return OmegaConf.to_yaml(OmegaConf.create(to_values(config)))


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file as plain values, `${...}` resolved.

    Raises:
        ConfigError: it is missing, no YAML, or not a mapping of keys.
    """
    import yaml

    path = Path(path)
    try:
        loaded = OmegaConf.load(path)
        values = OmegaConf.to_container(loaded, resolve=True)
    except FileNotFoundError:
        message = f"no such file (resolved to {path.resolve()}). `mmtune configs list` names the shipped ones."
        raise ConfigError(path, message) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"cannot be read: {error}. Name a YAML file.") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}", f"broken YAML: {error.problem}. Mend the line.") from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(path, f"broken YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(values, dict):
        raise ConfigError(path, "a config is a mapping of sections such as model:, data: and train:.")
    return values  # type: ignore[return-value]


def apply_overrides(values: dict[str, Any], overrides: list[str]) -> None:
    """Set `a.b.0.c=value` texts in plain values; the value is read as YAML.

    Raises:
        ConfigError: a text is no `key=value`, or leads through something that is no section.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"command line: {text}", "an override is section.name=value, such as train.learning_rate=1e-4.")
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]  # type: ignore[index,call-overload]
            _set(values, key, parsed)
        except (LookupError, ValueError, TypeError, OmegaConfBaseException):
            message = "this key leads through a value that has no sections. Mend the key."
            raise ConfigError(f"command line: {key}", message) from None


def _set(values: Any, key: str, value: Any) -> None:
    *parents, last = key.replace("[", ".").replace("]", "").split(".")
    for name in parents:
        if isinstance(values, list):
            values = values[int(name)]
        else:
            if values.get(name) is None:
                values[name] = {}
            values = values[name]
    if isinstance(values, list):
        values[int(last)] = value
    elif isinstance(values, dict):
        values[last] = value
    else:
        raise TypeError(key)


def check_keys(given: Any, schema: Any, place: str, prefix: str = "") -> None:
    """Compare the keys of plain values with a dataclass, all the way down.

    Raises:
        ConfigError: a key is unknown; the message holds the nearest one.
    """
    hints = get_type_hints(schema)
    for key, value in given.items():
        if key not in hints:
            raise ConfigError(place, _unknown_key(str(key), prefix, hints))
        inner = _dataclass_in(hints[key])
        if inner is None or value is None:
            continue
        items = value if isinstance(value, list) else [value]
        for number, item in enumerate(items):
            name = f"{prefix}{key}[{number}]." if isinstance(value, list) else f"{prefix}{key}."
            if not isinstance(item, dict):
                keys = ", ".join(get_type_hints(inner))
                raise ConfigError(place, f"'{name[:-1]}' is a section with keys ({keys}), got {item!r}.")
            check_keys(item, inner, place, name)


def _unknown_key(key: str, prefix: str, hints: dict[str, Any]) -> str:
    if key in OTHER_WORDS:
        return f"unknown key '{prefix}{key}'. Here it is called {OTHER_WORDS[key]}."
    close = nearest(key, hints).replace("Did you mean '", f"Did you mean '{prefix}")
    return f"unknown key '{prefix}{key}'.{close}" + ("" if close else f" Known: {', '.join(hints)}.")


def _dataclass_in(hint: Any) -> Any:
    options = [hint, *get_args(hint)]
    return next((option for option in options if get_origin(option) is None and dataclasses.is_dataclass(option)), None)


def _defaults_for(verb: str, given: dict[str, Any]) -> dict[str, Any]:
    """The verb's defaults, less what does not fit what the file sets."""
    import copy

    defaults = copy.deepcopy(VERB_DEFAULTS[verb])
    model = given.get("model") or {}
    adapter = model.get("adapter", {})
    if adapter is None or "kind" in adapter or (model.get("llm") or {}).get("tune", "adapter") != "adapter":
        defaults["model"].pop("adapter", None)
    if model.get("vision") is None and model.get("projector") is None:
        defaults["model"].pop("projector", None)
    return defaults


def _value_error(error: OmegaConfBaseException, place: str) -> ConfigError:
    key = error.full_key or ""
    reason = str(error.msg or error).splitlines()[0].rstrip(".")
    return ConfigError(place, f"'{key}' has a wrong value: {reason}. Mend the value.")


def _check_values(config: Config, verb: str, place: str) -> None:
    """Hold what no type can say."""
    for message in _wrong_values(config, verb):
        raise ConfigError(place, message)


def _wrong_values(config: Config, verb: str) -> Any:
    model, data, train = config.model, config.data, config.train
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "learning_rate"):
        if not getattr(train, key) > 0:
            yield f"'train.{key}' must be greater than 0 (got {getattr(train, key)})."
    if not 0 <= train.warmup_ratio < 1:
        yield f"'train.warmup_ratio' is a share from 0 to 1 (got {train.warmup_ratio})."
    if data.max_length < 2:
        yield f"'data.max_length' must be at least 2 tokens (got {data.max_length})."
    if not data.train:
        yield "'data.train' names no data. Give it as a list: [{path: data/train.json}]."
    if (model.vision is None) != (model.projector is None):
        absent, present = ("vision", "projector") if model.vision is None else ("projector", "vision")
        yield f"'model.{present}' is set but 'model.{absent}' is not. Set both to see images, none for text."
    if (model.llm.tune == "adapter") != (model.adapter is not None):
        yield "'model.adapter' and 'model.llm.tune: adapter' go together. Set both, or none."
    if model.llm.tune == "full" and model.llm.quantization:
        yield f"'model.llm.tune: full' cannot train {model.llm.quantization} weights. Take tune: adapter, or quantization: null."
    if verb == "pretrain" and model.vision is None:
        yield "pretrain needs 'model.vision' and 'model.projector': it trains the projector. `mmtune sft` trains on text."
    if verb == "pretrain" and (model.llm.tune != "frozen"):
        yield f"pretrain trains the projector alone (got model.llm.tune: {model.llm.tune}). `mmtune finetune` trains both."
    if verb == "finetune" and model.init_from is None:
        yield "finetune needs 'model.init_from': the run folder of a pretrain. `mmtune pretrain` makes one."
