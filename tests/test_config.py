import dataclasses
import json
from typing import get_type_hints

import pytest
import yaml

from mmtune.config import apply_overrides, config_from_values, load_config, to_values, to_yaml
from mmtune.errors import ConfigError
from mmtune.other_words import OTHER_WORDS, WORDS_WITHOUT_KEY
from mmtune.schema import VERB_DEFAULTS, Config

TEXT = {
    "model": {"llm": {"name_or_path": "llm", "chat_template": "chatml"}},
    "data": {"train": [{"path": "data.json"}]},
    "train": {"output_dir": "run"},
}
SEEING = ["model.vision.source=transformers", "model.vision.name=clip", "model.projector.kind=linear"]


@pytest.fixture
def load(desk):
    """Return a function from overrides and a verb to the config of a small file."""

    def load(*overrides, verb="sft"):
        (desk / "config.yaml").write_text(yaml.safe_dump(TEXT))
        return load_config("config.yaml", list(overrides), verb)

    return load


def error_of(function, *args, **options):
    with pytest.raises(ConfigError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_verb_sets_defaults(load):
    sft = load()
    assert (sft.model.llm.tune, sft.model.vision, sft.model.projector) == ("adapter", None, None)
    assert sft.model.adapter == VERB_DEFAULTS["sft"]["model"]["adapter"]
    assert (sft.train.per_device_train_batch_size, sft.train.gradient_accumulation_steps) == (1, 16)
    assert sft.data.pack_to_max_length
    pretrain = load(*SEEING, verb="pretrain")
    assert (pretrain.model.llm.tune, pretrain.model.projector.tune, pretrain.model.adapter) == ("frozen", "full", None)
    assert (pretrain.train.learning_rate, pretrain.train.per_device_train_batch_size) == (1e-3, 32)
    finetune = load(*SEEING, "model.init_from=runs/pretrain", verb="finetune")
    assert finetune.model.adapter == {"kind": "lora", "r": 64, "lora_alpha": 128, "lora_dropout": 0.05}
    assert (finetune.train.learning_rate, finetune.train.per_device_train_batch_size) == (2e-4, 16)


@pytest.mark.parametrize(
    "changes",
    [
        ("data.pack_to_max_length=false",),
        ("data.group_by_length=true",),
        ("data.max_tokens_per_batch=4096",),
        ("data.train.0.stream=true", "train.max_steps=5"),
        ("model.adapter={kind: prefix_tuning, num_virtual_tokens: 4}",),
    ],
    ids=lambda changes: changes[0],
)
def test_sft_packs_unless_the_file_asks_for_what_does_not_go_with_it(load, changes):
    assert not load(*changes).data.pack_to_max_length


def test_the_file_and_the_command_line_win_over_the_defaults_of_the_verb(load):
    config = load(*SEEING, "train.learning_rate=3e-5", "model.projector.tune=frozen", verb="pretrain")
    assert (config.train.learning_rate, config.model.projector.tune) == (3e-5, "frozen")
    assert VERB_DEFAULTS["pretrain"]["train"]["learning_rate"] == 1e-3


def test_an_adapter_without_a_kind_changes_keys_of_the_default_one(load):
    assert load("model.adapter.r=8").model.adapter == {"kind": "lora", "r": 8, "lora_alpha": 16, "lora_dropout": 0.1}


def test_an_adapter_with_a_kind_stands_alone(load):
    assert load("model.adapter={kind: ia3}").model.adapter == {"kind": "ia3"}
    assert load("model.adapter={kind: lora, r: 2}").model.adapter == {"kind": "lora", "r": 2}


@pytest.mark.parametrize("tune", ["full", "frozen"])
def test_a_model_without_an_adapter_gets_none(load, tune):
    assert load(f"model.llm.tune={tune}").model.adapter is None
    assert load(f"model.llm.tune={tune}", "model.adapter=null").model.adapter is None


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("train.seed=7", lambda config: config.train.seed, 7),
        ("train.learning_rate=1e-4", lambda config: config.train.learning_rate, 1e-4),
        ("train.learning_rate=1", lambda config: config.train.learning_rate, 1.0),
        ("train.gradient_checkpointing=true", lambda config: config.train.gradient_checkpointing, True),
        ("train.save_total_limit=null", lambda config: config.train.save_total_limit, None),
        ("train.output_dir=a=b", lambda config: config.train.output_dir, "a=b"),
        ("train.output_dir='2024'", lambda config: config.train.output_dir, "2024"),
        ("model.llm.quantization=nf4", lambda config: config.model.llm.quantization, "nf4"),
        ("data.train[0].image_folder=img", lambda config: config.data.train[0].image_folder, "img"),
        ("data.train.0.format=llava", lambda config: config.data.train[0].format, "llava"),
        ("data.train=[{path: a},{path: b}]", lambda config: [s.path for s in config.data.train], ["a", "b"]),
        ("model.adapter.kind=[q, v]", lambda config: config.model.adapter["kind"], ["q", "v"]),
        ("model.llm.name_or_path=${train.output_dir}", lambda config: config.model.llm.name_or_path, "run"),
    ],
)
def test_an_override_applies_with_its_type(load, override, read, value):
    before, after = read(load()), read(load(override))
    assert after == value != before or (value is None and before is not None)
    assert type(after) is type(value)


def test_the_last_override_wins(load):
    assert load("train.seed=1", "train.seed=2").train.seed == 2


def test_overrides_make_sections_and_leave_the_rest():
    values = {"train": {"seed": 1}, "model": None}
    apply_overrides(values, ["model.llm.tune=full", "train.max_steps=5"])
    assert values == {"train": {"seed": 1, "max_steps": 5}, "model": {"llm": {"tune": "full"}}}


def test_interpolations_of_the_file_are_resolved(desk):
    text = json.dumps(TEXT | {"train": {"output_dir": "runs/${model.llm.chat_template}"}})
    (desk / "config.yaml").write_text(text)
    assert load_config("config.yaml", [], "sft").train.output_dir == "runs/chatml"


@pytest.mark.parametrize(
    ("verb", "overrides"),
    [
        ("sft", []),
        ("sft", ["model.llm.tune=full", "train.save_total_limit=null"]),
        ("pretrain", [*SEEING, "model.vision.feature_layer=-2", "train.learning_rate=1.5e-5"]),
        (
            "finetune",
            [*SEEING, "model.init_from=runs/a", "model.adapter={kind: lora, target_modules: [q_proj, v_proj]}"],
        ),
        ("finetune", [*SEEING, "model.init_from='1'", "model.llm.tune=frozen", "train.output_dir='null'"]),
    ],
)
def test_a_written_config_loads_as_itself(load, desk, verb, overrides):
    config = load(*overrides, verb=verb)
    (desk / "resolved.yaml").write_text(to_yaml(config))
    assert load_config("resolved.yaml", [], verb) == config
    assert config_from_values(json.loads(json.dumps(to_values(config))), "values", verb) == config


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("trian.seed=1", "trian"),
        ("model.llm.nme=x", "model.llm.nme"),
        ("model.projector.knd=x", "model.projector.knd"),
        ("data.train[0].pth=x", "data.train[0].pth"),
    ],
)
def test_unknown_keys_are_found_at_every_depth(load, override, name):
    assert f"config.yaml: unknown key '{name}'." in error_of(load, override)


def test_a_section_that_is_given_as_null_is_as_if_it_were_absent(load):
    assert load("model.adapter.r=8", "model.vision=null", "model.projector=null").model.vision is None
    assert "'data' must be a section" in error_of(load, "data=null")


@pytest.mark.parametrize("word", sorted(OTHER_WORDS))
def test_words_of_other_tools_lead_to_ours(load, word):
    message = error_of(load, f"{word}=1")
    for ours in OTHER_WORDS[word].split(" and "):
        assert ours in message
        schema = Config
        for name in ours.replace("[0]", "").split("."):
            hints = get_type_hints(schema)
            assert name in hints, f"{ours} is no key"
            schema = next(
                (
                    part
                    for part in [hints[name], *getattr(hints[name], "__args__", [])]
                    if dataclasses.is_dataclass(part)
                ),
                None,
            )


@pytest.mark.parametrize("word", sorted(WORDS_WITHOUT_KEY))
def test_words_that_have_no_key_here_are_answered_with_what_does_it(load, word):
    assert error_of(load, f"{word}=1") == f"config.yaml: unknown key '{word}'. {WORDS_WITHOUT_KEY[word]}"


PARAMETERS = [
    ("data_path", "data.train[0].path=mine.json", lambda config: config.data.train[0].path, "mine.json"),
    ("max_length", "data.max_length=1024", lambda config: config.data.max_length, 1024),
    ("pack_to_max_length", "data.pack_to_max_length=true", lambda config: config.data.pack_to_max_length, True),
    (
        "accumulative_counts",
        "train.gradient_accumulation_steps=4",
        lambda config: config.train.gradient_accumulation_steps,
        4,
    ),
    ("sequence_parallel_size", "train.sequence_parallel_size=1", lambda config: config.train.sequence_parallel_size, 1),
    (
        "batch_size",
        "train.per_device_train_batch_size=3",
        lambda config: config.train.per_device_train_batch_size,
        3,
    ),
    ("dataloader_num_workers", "train.dataloader_num_workers=2", lambda config: config.train.dataloader_num_workers, 2),
    ("max_epochs", "train.num_train_epochs=2", lambda config: config.train.num_train_epochs, 2.0),
    ("optim_type", "train.optim=paged_adamw_32bit", lambda config: config.train.optim, "paged_adamw_32bit"),
    ("lr", "train.learning_rate=3e-4", lambda config: config.train.learning_rate, 3e-4),
    ("betas", "train.adam_beta2=0.95", lambda config: (config.train.adam_beta1, config.train.adam_beta2), (0.9, 0.95)),
    ("weight_decay", "train.weight_decay=0.1", lambda config: config.train.weight_decay, 0.1),
    ("max_norm", "train.max_grad_norm=0.5", lambda config: config.train.max_grad_norm, 0.5),
    ("warmup_ratio", "train.warmup_ratio=0.1", lambda config: config.train.warmup_ratio, 0.1),
    ("save_steps", "train.save_steps=50", lambda config: config.train.save_steps, 50),
    ("save_total_limit", "train.save_total_limit=5", lambda config: config.train.save_total_limit, 5),
    ("prompt_template", "model.llm.chat_template=plain", lambda config: config.model.llm.chat_template, "plain"),
]


@pytest.mark.parametrize(("theirs", "override", "read", "value"), PARAMETERS, ids=[row[0] for row in PARAMETERS])
def test_each_parameter_that_people_know_is_set_by_our_name_and_answered_by_theirs(load, theirs, override, read, value):
    assert read(load(override)) == value
    message = error_of(load, f"{theirs}=1")
    assert message.startswith(f"config.yaml: unknown key '{theirs}'. Here it is called ")
    assert override.partition("=")[0] in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "train.sequence_parallel_size=2",
            "'train.sequence_parallel_size' can only be 1 (got 2): what spreads a sample over devices lets packed",
        ),
    ],
)
def test_what_is_not_there_yet_is_said(load, override, words):
    assert words in error_of(load, override)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["data.pack_to_max_length=true", "data.group_by_length=true"],
            "'data.group_by_length' and 'data.pack_to_max_length' do not go together: packs are full.",
        ),
        (
            ["data.max_tokens_per_batch=100"],
            "'data.max_tokens_per_batch' must hold a sample of data.max_length=2048 (got 100).",
        ),
        (["data.train.0.repeat=0"], "'data.train[0].repeat' must be greater than 0 (got 0.0)."),
        (["data.cache_vision_features=true"], "needs a frozen vision encoder (there is no model.vision)"),
        (["data.train=[{path: a.json, weight: 1}, {path: b.json}]"], "sources with a weight and without"),
    ],
)
def test_settings_of_the_data_that_do_not_go_together(load, overrides, words):
    assert words in error_of(load, *overrides)


def test_a_config_in_python_is_answered_with_the_verb_that_converts_it(desk):
    message = error_of(load_config, "old/train.py")
    assert message.startswith("old/train.py: is a Python config. Make a YAML file of it: ")
    assert message.endswith("mmtune convert xtuner-config old/train.py -o train.yaml")


@pytest.mark.parametrize("verb", sorted(VERB_DEFAULTS))
def test_the_defaults_of_a_verb_are_keys_of_the_schema(verb):
    """A misspelled default would be an error only for the user."""
    from mmtune.config import check_keys

    check_keys(VERB_DEFAULTS[verb], Config, f"defaults of {verb}")


def test_numbers_with_an_exponent_are_numbers_in_a_file(desk):
    (desk / "config.yaml").write_text(yaml.safe_dump(TEXT) + "  learning_rate: 2e-4\n")
    assert (desk / "config.yaml").read_text().endswith("output_dir: run\n  learning_rate: 2e-4\n")
    assert load_config("config.yaml", [], "sft").train.learning_rate == 2e-4
