"""The schema of a training config: every key, its type and default, and what each verb sets.

Plain dataclasses. What values may be is `schema_check.py`; reading files is `config.py`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING


@dataclass
class LLMConfig:
    """The language model."""

    name_or_path: str = MISSING  # a transformers folder, a .gguf file, a hub name or an embedded model
    chat_template: str = MISSING  # a key of mmtune.data.template.TEMPLATES, or tokenizer: the tokenizer's own
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # see docs/precision.md
    quantization: Literal["nf4", "int8"] | None = None  # 4-bit (QLoRA) or 8-bit (LLM.int8) base weights
    double_quantization: bool = True  # nf4: quantize the constants of the quantization too
    attn_implementation: str = "auto"  # auto: by sample in training; or transformers' eager, sdpa, flash_attention_2
    tune: Any = "frozen"  # frozen, adapter, full, {top_layers: N}, or a list of parameter names with *; see methods.md
    learning_rate: float | None = None  # None: train.learning_rate
    weight_decay: float | None = None  # None: train.weight_decay


@dataclass
class VisionConfig:
    """The vision encoder. A key is for the sources that take it: the others refuse it."""

    source: str = MISSING  # a key of mmtune.models.vision.VISION_ENCODERS
    name: str = MISSING  # a folder, a hub name such as owner/model, or a name that the source knows
    pretrained: str | None = None  # open_clip: a tag such as openai, or a weights file
    feature_layer: int | None = None  # transformers and open_clip: index of hidden_states, -2 by default
    image_size: int | None = None  # efficientnet and DINOv2: pixels a side
    grid: int | None = None  # efficientnet: an image becomes grid x grid tokens
    tune: Any = "frozen"  # as model.llm.tune
    adapter: dict[str, Any] | None = None  # with `tune: adapter`: `kind` and PEFT's own keys of that kind
    learning_rate: float | None = None
    weight_decay: float | None = None


@dataclass
class ProjectorConfig:
    """The projector between vision encoder and language model."""

    kind: str = "mlp2x_gelu"  # a key of mmtune.models.projector.PROJECTORS
    standardize: bool = False  # bring the features to mean 0, deviation 1 by statistics of the training images
    warm_start_epochs: int = 0  # fit to the captions' words before training, without the LLM; see models/warm_start.py
    initial_scale: float | None = (
        None  # start with outputs this many times as large as text embeddings; null: as they are
    )
    tune: Literal["frozen", "full"] = "full"
    learning_rate: float | None = None
    weight_decay: float | None = None


@dataclass
class ModelConfig:
    """The parts of the model and where their weights start."""

    llm: LLMConfig = field(default_factory=LLMConfig)
    vision: VisionConfig | None = None  # null: text only
    projector: ProjectorConfig | None = None
    adapter: dict[str, Any] | None = None  # `kind`, a key of mmtune.models.methods.METHODS, and PEFT's own keys of it
    stack_on: list[str] = field(default_factory=list)  # runs whose LLM adapters stay frozen below the new one
    init_from: str | None = None  # a run folder, or weights of XTuner, whose parts this run starts from
    hub: Literal["huggingface", "modelscope"] = "huggingface"  # where a hub name such as owner/model is looked up


@dataclass
class DataSource:
    """One data source. An epoch draws its samples by the same seed whatever the number of workers and devices."""

    path: str = MISSING  # a file, folder, pattern or hub:owner/name; path#N draws N samples
    format: str | None = None  # a key of mmtune.data.formats.FORMATS; None detects it record by record
    image_folder: str | None = None  # None: the folder of the data file; no image outside it is opened
    follow_links: bool = False  # open images that links inside image_folder lead out of it to
    columns: dict[str, str] | None = None  # our key -> the source's, such as {question: Q, answer: A}
    prompt: str | None = None  # what is asked of captions; null: the image alone
    system: str | None = None  # system message of dialogues that have none; chat with the run starts with it too
    split: str | None = None  # of a datasets folder or hub name; null: train
    stream: bool = False  # read while training, never as a whole; resume is approximate
    limit: int | None = None  # at most this many samples, drawn once
    repeat: float = 1.0  # how often an epoch visits each sample; 0.5 draws half of them
    weight: float | None = None  # share of the epoch relative to the other sources' weights; all have one, or none


@dataclass
class DataConfig:
    """What is trained on."""

    train: list[DataSource] = field(default_factory=list)
    max_length: int = 2048  # tokens of a sample, image tokens included
    on_bad_record: Literal["error", "skip"] = "error"  # skip: leave it out and list it in data.json
    check_images: Literal["decode", "header", "none"] = "decode"  # before training; none: only that the files are there
    group_by_length: bool = False  # batches of about equal length, with or without images: less padding
    pack_to_max_length: bool = False  # whole samples together in rows of max_length, each blind to the others; sft: on
    padding_free: bool = True  # the samples of a batch in one row, each blind to the others; false pads them
    max_tokens_per_batch: int | None = None  # padding included; replaces train.per_device_train_batch_size
    shuffle_buffer: int = 1000  # samples of a stream that are shuffled together
    cache_vision_features: bool = False  # run a frozen encoder once for each image and keep its features on disk
    validation: list[DataSource] = field(default_factory=list)  # data that is measured and never trained
    validation_fraction: float | None = None  # share of data.train that is held out instead, whole images at a time


@dataclass
class TrainConfig:
    """The training run, in the words of Hugging Face's TrainingArguments."""

    output_dir: str = MISSING
    per_device_train_batch_size: int | Literal["auto"] = 16  # auto: the largest that divides global_batch_size and fits
    gradient_accumulation_steps: int = 1
    global_batch_size: int | None = None  # samples of an optimizer step: the accumulation follows from it
    num_train_epochs: float = 1.0
    max_steps: int = -1  # > 0: overrides num_train_epochs
    learning_rate: float = 2e-4
    lr_scheduler_type: str = "cosine"
    lr_scheduler_kwargs: dict[str, Any] | None = None  # keys of the schedule, such as {min_lr_rate: 0.1}
    warmup_ratio: float = 0.03
    optim: str = "adamw_torch_fused"
    optim_args: dict[str, Any] | None = None  # keys of the optimizer itself, such as {rank: 128} of GaLore
    optim_target_modules: list[str] | None = None  # layers of GaLore and APOLLO by parts of names, or [all-linear]
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    neftune_noise_alpha: float | None = None  # noise on text embeddings while training (NEFTune), such as 5
    label_smoothing_factor: float = 0.0  # share of the target that is spread evenly over the vocabulary
    pure_bf16: bool = False  # keep trained weights in bfloat16 too; false: in float32, see docs/precision.md
    gradient_checkpointing: bool | Literal["auto"] = False  # blocks are computed again; auto: as few as memory asks for
    gradient_checkpointing_fraction: float = 1.0  # share of the blocks that are computed again, from the first
    fused_lora: bool = True  # LoRA and its frozen layer in one step
    use_liger_kernel: bool = False  # Liger's kernels for norms, rotary embeddings and MLPs; CUDA, extra `liger`
    recompute_activations: bool = True  # gated MLPs compute their activation again instead of keeping it
    logging_steps: int = 1
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=list)  # see docs/watching.md
    run_name: str | None = None  # by which trackers show the run; null: its folder's name and the time
    project: str = "mmtune"  # of trackers, to which the run belongs
    alarms: Literal["warn", "error", "none"] = "warn"  # what is odd about a run is said once, or ends it
    save_steps: int = 500  # 0: only at the end
    save_total_limit: int | None = 2
    max_nonfinite_steps: int = 2  # steps in a row whose loss or gradient is not finite; they change no weight
    dataloader_num_workers: int = 0  # processes that open images; any number gives the same batches
    dataloader_prefetch_factor: int = 2  # batches that each of them prepares ahead
    eval_steps: int | None = None  # steps between two evaluations; null: save_steps; 0: only at the end
    eval_on_start: bool = False  # measure the held-out data before the first step, too
    per_device_eval_batch_size: int | None = None  # samples measured together; null: per_device_train_batch_size
    metric_for_best_model: str | None = None  # such as eval_loss; its best checkpoint is kept; see docs/validation.md
    greater_is_better: bool | None = None  # null: true for accuracies alone
    load_best_model_at_end: bool = False  # the run folder holds the best weights instead of the last ones
    early_stopping_patience: int | None = None  # stop after this many evaluations without a better metric
    early_stopping_threshold: float = 0.0  # what counts as better differs by more than this
    sequence_parallel_size: int = 1  # 1 alone: a sample is on one device, see docs/distributed.md
    deepspeed: str | None = None  # zero1, zero2, zero3, zero2_offload, zero3_offload or a JSON file; see sharding.md
    fsdp: bool = False  # split weights, gradients and optimizer over processes by torch's FSDP2
    seed: int = 42
    device: Literal["auto", "cpu", "mps"] = "auto"  # auto: a CUDA GPU where there is one; mps: the GPU of a Mac


@dataclass
class SampleConfig:
    """Questions that are answered while training, for `samples.md`. Each is asked about each image."""

    every_steps: int = 500  # optimizer steps from answers to answers; also at the start and at the end; 0: only then
    questions: list[Any] = field(default_factory=list)  # texts, or {question: ..., image: PATH, list of PATHs or null}
    images: list[str] = field(default_factory=list)  # local files
    max_new_tokens: int = 64  # of an answer
    system: str | None = None  # a system message before each question


@dataclass
class Config:
    """A training run: the model, the data, the training, and what is asked meanwhile."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig | None = None  # null: nothing is asked


def trained_system(config: Config) -> str | None:
    """Return the system message that the sources of a run gave its dialogues; None where they gave several, or none."""
    given = {source.system or None for source in config.data.train}
    return given.pop() if len(given) == 1 else None


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
            "projector": {"tune": "frozen"},  # of a run that goes on with text: nothing, weight decay neither, moves it
            "adapter": {"kind": "lora", "r": 64, "lora_alpha": 16, "lora_dropout": 0.1},
        },
        "data": {"pack_to_max_length": True},
        "train": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16},
    },
}
"""What each verb sets before the file is read. Everything else the three verbs share."""
