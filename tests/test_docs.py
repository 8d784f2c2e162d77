"""The documents say what the code does: commands, configs, links, keys, files."""

import dataclasses
import re
import runpy
from typing import get_args, get_type_hints

import pytest
import yaml
from readme import DOCUMENTS, READMES, ROOT, blocks_of, commands_of

from mmtune.cli import VERB_NAMES, _parse, main
from mmtune.config import check_keys, config_from_values, load_config
from mmtune.data.makers.scene_turns import GROUPS
from mmtune.other_words import OTHER_WORDS, WORDS_WITHOUT_KEY
from mmtune.recipe_file import RecipeConfig
from mmtune.schema import VERB_DEFAULTS, Config
from mmtune.shipped import find_config, shipped_configs

COMMANDS = [(document, words) for document in DOCUMENTS for words in commands_of(document)]
YAML_BLOCKS = [(document, block) for document in DOCUMENTS for block in blocks_of(document) if block.language == "yaml"]


def name_of(value):
    return " ".join(value) if isinstance(value, list) else getattr(value, "name", "block")


def test_both_readmes_have_the_same_commands_in_the_same_order():
    english, chinese = map(commands_of, READMES)
    assert english == chinese
    assert len(english) > 8


def test_both_readmes_have_the_same_data_and_configs():
    english, chinese = (
        [
            (block.file_name, yaml.safe_load(block.text))
            for block in blocks_of(path)
            if block.language in ("json", "yaml")
        ]
        for path in READMES
    )
    assert english == chinese


def test_the_readmes_show_every_verb():
    verbs = {words[0] for words in commands_of(READMES[0])}
    assert verbs == {*VERB_NAMES} - {"convert"}
    assert "convert" in {words[0] for words in commands_of(ROOT / "docs" / "from_xtuner.md")}
    assert all("(docs/from_xtuner.md)" in readme.read_text(encoding="utf-8") for readme in READMES)


@pytest.mark.parametrize(("document", "words"), COMMANDS, ids=name_of)
def test_a_command_has_no_wrong_option(document, words):
    args = _parse(words)
    assert args.verb == words[0]
    if args.verb in VERB_DEFAULTS and args.config.removesuffix(".yaml").removeprefix("configs/") in shipped_configs():
        load_config(find_config(args.config), args.overrides, args.verb)


@pytest.mark.parametrize(("document", "block"), YAML_BLOCKS, ids=name_of)
def test_a_config_in_a_document_fits_the_schema(document, block):
    values = yaml.safe_load(block.text)
    program, verb, file_name = block.text.splitlines()[0].removeprefix("# ").split()
    assert program == "mmtune"
    assert block.file_name in (None, file_name)
    if "steps" in values:
        assert verb == "run"
        check_keys(values, RecipeConfig, document.name)
    else:
        config_from_values(values, document.name, verb)


KEY = re.compile(r"`((?:model|data|train|sample)\.[a-z_\d.\[\]]*\w)(?=[`=: ]|\.?`)")
FREE = ("model.adapter", "model.vision.adapter", "train.optim_args")
"""Sections with keys of other libraries."""
FILES = (".gguf", ".json", ".jsonl", ".yaml", ".csv", ".xlsx", ".parquet", ".arrow", ".tsv", ".ndjson")


def is_key(path):
    """Whether the schema has a key such as `data.train.0.path`."""
    section = Config
    for word in path.replace("[", ".").replace("]", "").split("."):
        hints = [hint for hint in (section, *get_args(section)) if dataclasses.is_dataclass(hint)]
        if word.isdigit():
            section = next((hint for hint in get_args(section)), None)
        elif not hints or word not in get_type_hints(hints[0]):
            return False
        else:
            section = get_type_hints(hints[0])[word]
    return True


def test_a_key_that_is_none_is_found():
    assert is_key("data.train.0.path")
    assert is_key("train.fsdp")
    assert not is_key("train.fsdp2")
    assert not is_key("data.train.0.paht")
    assert KEY.findall("`train.lr=1` `model.llm.tune: full` `data.train[0].path` `sample.questions`") == [
        "train.lr",
        "model.llm.tune",
        "data.train[0].path",
        "sample.questions",
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_config_key_that_is_named_exists(document):
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for path in KEY.findall(text):
        if not path.endswith(FILES) and not path.startswith(FREE):
            assert is_key(path), f"{document.name} names the key {path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_relative_link_resolves(document):
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (document.parent / target.split("#")[0]).exists(), f"{document.name} links to {target}"


def test_the_readmes_link_to_each_other():
    english, chinese = READMES
    assert f"({chinese.name})" in english.read_text(encoding="utf-8").split("```")[0]
    assert f"({english.name})" in chinese.read_text(encoding="utf-8").split("```")[0]


def test_the_image_in_the_readmes_is_one_that_the_demo_makes():
    first = f"runs/demo/data/images/heldout_{GROUPS[0].replace(' ', '_')}_000.png"
    assert {words[words.index("--image") + 1] for words in commands_of(READMES[0]) if "--image" in words} == {first}


@pytest.mark.parametrize("document", READMES, ids=name_of)
def test_the_readmes_install_what_the_demo_installs(document):
    demo = runpy.run_path(str(ROOT / "demos" / "quick_demo.py"))
    assert f"pip install --no-deps {' '.join(demo['EMBEDDED'])}" in document.read_text(encoding="utf-8")


def test_the_keys_in_docs_are_those_of_the_schema():
    generated = runpy.run_path(str(ROOT / "docs" / "generate_config.py"))["render"]()
    written = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == generated, "docs/config.md is out of date. Run: python docs/generate_config.py"


def test_what_xtuner_users_are_told_is_right():
    """The keys in the right column of the parameters exist, and their words are answered by the same keys."""
    text = (ROOT / "docs" / "from_xtuner.md").read_text(encoding="utf-8").split("## Parameters")[1]
    rows = re.findall(r"^\| (`.*) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) >= 17
    for theirs, ours in rows:
        for word in re.findall(r"`(\w+)`", theirs):
            answer = OTHER_WORDS.get(word) or WORDS_WITHOUT_KEY[word]
            assert any(key.replace(".0.", "[0].") in answer for key in re.findall(r"`([\w. ]+)", ours)), word


def test_the_files_of_a_run_are_documented_and_none_is_a_pickle(config_file, data_file, record, desk):
    data_file(record("<image>", "A cat.", image="1.png"))
    config = config_file(
        "train.save_steps=1", "model.llm.tune=adapter", "model.adapter={kind: lora, r: 2}", "model.vision.tune=full"
    )
    assert main(["sft", config]) == 0
    text = (ROOT / "docs" / "run_folder.md").read_text(encoding="utf-8")
    found = {path.relative_to(desk / "run") for path in (desk / "run").rglob("*") if path.is_file()}
    assert {path.parts[0] for path in found} >= {"checkpoint-1", "adapter", "manifest.json", "vision.safetensors"}
    for path in found:
        assert f"`{path.name}`" in text or f"`{path.parent.name}/{path.name}`" in text, path
        assert path.name == ".lock" or path.suffix in (".safetensors", ".json", ".jsonl", ".yaml", ".png", ".log"), path
