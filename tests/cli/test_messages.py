"""Mistakes of the user: each ends with code 2 and one line that holds the place, what is wrong and the mend."""

import json
import re
from pathlib import Path

import pytest

from mmtune.cli import VERB_NAMES, main
from mmtune.testing import write_internlm2


@pytest.fixture
def mistake(capsys):
    """Return a function that runs a command and returns the one line of its error."""

    def run(*argv):
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 2
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert [line for line in lines if line.startswith("mmtune: ")] == [lines[-1]]
        assert "Traceback" not in captured.err + captured.out
        return lines[-1].removeprefix("mmtune: ")

    return run


@pytest.fixture
def ready(config_file, data_file, record):
    """A pretrain config that would run, with its data."""
    data_file(record("<image>\nWhat?", "A cat.", image="1.png"))
    return config_file()


# The config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learnin_rate=1", "config.yaml: unknown key 'train.learnin_rate'. Did you mean 'train.learning_rate'?"),
        ("model.vison=null", "config.yaml: unknown key 'model.vison'. Did you mean 'model.vision'?"),
        ("data.train[0].folder=x", "unknown key 'data.train[0].folder'. Did you mean 'data.train[0].image_folder'?"),
        ("train.zzz=1", "unknown key 'train.zzz'. Known: output_dir, per_device_train_batch_size,"),
        ("lr=1e-4", "config.yaml: unknown key 'lr'. Here it is called train.learning_rate."),
        ("train.lr=1e-4", "unknown key 'train.lr'. Here it is called train.learning_rate."),
        ("accumulative_counts=16", "Here it is called train.gradient_accumulation_steps."),
        ("train.seed=soon", "config.yaml: 'train.seed' must be a whole number (got \"soon\")."),
        ("train.learning_rate=fast", "'train.learning_rate' must be a number (got \"fast\")."),
        (
            "train.gradient_checkpointing=maybe",
            "'train.gradient_checkpointing' must be true or false or auto (got \"maybe\").",
        ),
        ("train.output_dir=null", "'train.output_dir' must be a text (got null)."),
        ("train.save_total_limit=x", "'train.save_total_limit' must be a whole number or null (got \"x\")."),
        (
            "model.llm.tune=frozn",
            "'model.llm.tune' must be frozen, adapter, full, {top_layers: N} or a list of parameter names (got frozn).",
        ),
        ("model.llm=tiny", "'model.llm' must be a section with keys such as name_or_path, chat_template"),
        ("model=null", "'model' must be a section with keys such as llm, vision"),
        ("data.train=x.json", "'data.train' must be a list, each entry a section with keys such as path"),
        ("data.train=[x.json]", "'data.train[0]' must be a section with keys such as path, format, image_folder"),
        ("model.adapter=5", "'model.adapter' must be a mapping of keys or null (got 5)."),
        ("train.learning_rate=-1", "'train.learning_rate' must be greater than 0 (got -1.0)."),
        ("train.learning_rate=.nan", "'train.learning_rate' must be greater than 0 (got nan)."),
        ("train.num_train_epochs=.inf", "'train.num_train_epochs' must be greater than 0 (got inf)."),
        ("train.per_device_train_batch_size=0", "must be greater than 0 (got 0)."),
        ("train.seed=-1", "'train.seed' must be 0 or more (got -1)."),
        ("train.warmup_ratio=1.5", "'train.warmup_ratio' is a share of all steps: at least 0, less than 1 (got 1.5)."),
        ("train.adam_beta1=1", "'train.adam_beta1' must be at least 0 and less than 1 (got 1.0)."),
        ("train.max_steps=0", "'train.max_steps' must be 1 or more, or -1 to follow num_train_epochs (got 0)."),
        ("train.output_dir=''", "'train.output_dir' is empty. Name the folder"),
        ("model.projector.learning_rate=0", "'model.projector.learning_rate' must be greater than 0 (got 0.0)."),
        ("data.max_length=1", "'data.max_length' must be at least 2 tokens (got 1)."),
        ("data.train=[]", "'data.train' names no data. Give it as a list: [{path: data/train.json}]."),
        ("model.vision=null", "'model.projector' is set but 'model.vision' is not. Set both to see images"),
        (
            "model.llm.name_or_path=${nope}",
            "'model.llm.name_or_path' has a wrong value: Interpolation key 'nope' not found",
        ),
        (
            "train.seed",
            "command line: train.seed: an override is section.name=value, such as train.learning_rate=1e-4.",
        ),
        ("=3", "command line: =3: an override is section.name=value"),
        ("train.seed=[1", "command line: train.seed: the value '[1' is broken YAML. Close its brackets and quotes."),
        ("train.seed=!!python/tuple x", "command line: train.seed: the value '!!python/tuple x' is broken YAML."),
        ("data.train[3].path=x", "command line: data.train[3].path: the list has no such entry; [0] is the first."),
        ("data.train.path=x", "command line: data.train.path: the list has no such entry"),
        (
            "train.output_dir.x.y=1",
            "command line: train.output_dir.x.y: this key leads through a value that has no keys",
        ),
    ],
)
def test_a_wrong_key_or_value(mistake, ready, override, words):
    assert words in mistake("pretrain", ready, override)


@pytest.mark.parametrize(
    ("verb", "overrides", "words"),
    [
        (
            "finetune",
            [],
            "finetune needs 'model.init_from': the run folder of a pretrain. `mmtune pretrain` makes one.",
        ),
        (
            "pretrain",
            ["model.llm.tune=full"],
            "pretrain trains the projector alone (got model.llm.tune: full). `mmtune finetune`",
        ),
        (
            "pretrain",
            ["model.vision=null", "model.projector=null"],
            "pretrain needs 'model.vision' and 'model.projector'",
        ),
        ("sft", ["model.llm.tune=full", "model.llm.quantization=nf4"], "cannot train nf4 weights. Take tune: adapter"),
        (
            "sft",
            ["model.adapter=null"],
            "'model.adapter' and 'model.llm.tune: adapter' go together. Set both, or none.",
        ),
    ],
)
def test_what_a_verb_needs(mistake, ready, verb, overrides, words):
    assert words in mistake(verb, ready, *overrides)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "model: {llm: {chat_template: chatml}}",
            "x.yaml: 'model.llm.name_or_path' is not set. Set it in the file or as",
        ),
        ("", "x.yaml: 'model.llm.chat_template' is not set."),
        ("a: [1\nb: 2", "x.yaml:2: broken YAML: did not find expected ',' or ']'. Mend the line."),
        ("a:\n\t- b", "x.yaml:2: broken YAML: found character that cannot start any token. Mend the line."),
        ("a: 1\na: 2", "x.yaml:2: broken YAML: found duplicate key a. Mend the line."),
        ("a: !!python/object/apply:os.system [ls]", "x.yaml:1: broken YAML: could not determine a constructor"),
        ("- a\n- b", "x.yaml: a config is a mapping of sections such as model:, data: and train:."),
    ],
)
def test_a_broken_config_file(mistake, desk, text, words):
    Path("x.yaml").write_text(text)
    assert words in mistake("pretrain", "x.yaml")


def test_a_config_that_is_nowhere(mistake, desk):
    message = mistake("pretrain", "demo/pretrian")
    assert message.startswith("demo/pretrian: no such file (resolved to ")
    assert str(desk / "demo/pretrian") in message
    assert message.endswith("Did you mean 'demo/pretrain'? `mmtune configs list` names them.")
    assert "no such file" in mistake("configs", "show", "nope.yaml")


def test_a_config_is_not_copied_over_a_file(mistake, desk):
    Path("mine.yaml").write_text("mine")
    assert "mine.yaml: exists already. Name a new file" in mistake("configs", "copy", "demo/pretrain", "mine.yaml")
    assert Path("mine.yaml").read_text() == "mine"
    assert "no/mine.yaml: cannot be written" in mistake("configs", "copy", "demo/pretrain", "no/mine.yaml")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "the following arguments are required: VERB"),
        ("pretrain", "the following arguments are required: CONFIG"),
        ("configs lst", "invalid choice: 'lst'"),
        ("chat run extra", "unrecognized arguments: extra. See: mmtune chat --help"),
        ("pretrain x.yaml --resum-from y", "unrecognized arguments: --resum-from y. See: mmtune pretrain --help"),
        ("pretrain x.yaml --resume --overwrite", "not allowed with argument --resume"),
        ("chat run --max-new-tokens 0", "--max-new-tokens: must be a whole number, 1 or more (got 0)"),
        ("chat run --temperature -1", "--temperature: must be 0 or more (got -1)"),
        ("chat run --top-p 0", "--top-p: must be above 0 and at most 1 (got 0)"),
        ("chat run --top-k -1", "--top-k: must be a whole number, 0 or more (got -1)"),
        ("chat run --repetition-penalty 0", "--repetition-penalty: must be above 0 (got 0)"),
        ("chat run --prompt Hi --questions q.json", "--questions: not allowed with argument --prompt"),
        ("inspect data.json -n -1", "-n/--num-samples: must be a whole number, 1 or more (got -1)"),
        ("inspect data.json --num-image-tokens x", "--num-image-tokens: must be a whole number, 0 or more (got x)"),
        ("compare run --questions q.json --batch-size 0", "--batch-size: must be a whole number, 1 or more (got 0)"),
        ("compare run", "the following arguments are required: --questions"),
    ],
)
def test_a_wrong_command_line_ends_with_code_2(capsys, command, words):
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"mmtune( \w+)?: error: ", last)
    assert words in last


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("train x.yaml", "train: a verb of XTuner. Here: mmtune pretrain CONFIG, mmtune finetune CONFIG or"),
        ("train old.py", "Here: mmtune convert xtuner-config old.py -o NEW.yaml, then mmtune pretrain NEW.yaml,"),
        ("dist_train old.yaml 8", "torchrun --nproc_per_node N -m mmtune finetune CONFIG."),
        ("list-cfg -p internlm2", "list-cfg: a verb of XTuner. Here: mmtune configs list -p TEXT."),
        ("list_cfg", "list_cfg: a verb of XTuner. Here: mmtune configs list -p TEXT."),
        ("copy-cfg name .", "Here: mmtune configs copy NAME FILE.yaml."),
        ("log-dataset x.py", "Here: mmtune inspect CONFIG."),
        ("check-custom-dataset x.py", "Here: mmtune inspect CONFIG; training checks every record"),
        ("mmbench llm --llava x", "Here: mmtune eval RUN --benchmark mmbench --data FILE.tsv."),
        ("convert pth_to_hf x.py iter_1.pth hf", "convert pth_to_hf: of XTuner. Here: no need, name the .pth as"),
        ("convert merge llm adapter out", "Here: mmtune export RUN --format merged."),
        ("convert split llm out", "convert split: of XTuner. Here: no need, models are read"),
        ("chat llm --llava hf --image 1.png", "chat --llava: an option of XTuner. Here: mmtune chat RUN --image"),
        ("chat llm --prompt-template internlm2_chat", "chat --prompt-template: an option of XTuner."),
        ("finetune x.yaml --work-dir runs", "finetune --work-dir: an option of XTuner. Here: train.output_dir="),
        ("sft x.yaml --cfg-options lr=1", "Here: section.name=value."),
        ("trian x.yaml", "trian: no such verb. Did you mean 'train'? Here: mmtune pretrain CONFIG,"),
        ("pretrian x.yaml", "pretrian: no such verb. Did you mean 'pretrain'?"),
        ("zzz", f"zzz: no such verb. Known: {', '.join(VERB_NAMES)}."),
        ("help", "help: a verb of XTuner. Here: mmtune --help."),
    ],
)
def test_verbs_of_xtuner_and_mistyped_ones_are_answered_in_one_line(mistake, capsys, command, answer):
    assert answer in mistake(*command.split())
    assert capsys.readouterr().out == ""


# The data


def test_a_missing_data_file(mistake, config_file, desk):
    message = mistake("pretrain", config_file("data.train[0].path=nope.json"))
    assert message == f"nope.json: no such file (looked in {desk}). Mend the path."
    message = mistake("pretrain", "config.yaml", "data.train[0].path=config.yaml/x.json", "--overwrite")
    assert message == "config.yaml/x.json: cannot be opened: Not a directory. Mend the path."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "data.json: the file is empty. It needs at least one record."),
        ("[]", "data.json: the array is empty. It needs at least one record."),
        ('{"conversations": 1}\n{"con', "data.json:1: 'conversations' must be a list of turns (got a number)."),
        ('[{"a": 1}]', "data.json:1: no known format (got a). A record has one of: conversations, messages,"),
        ('[{"a": 1}', "data.json:1: the JSON array has no closing ']'. The file is cut off: copy it again."),
        ('{"conversations"\n', "data.json:1: broken JSON: Expecting ':' delimiter at column 17. Mend the line."),
        ("[\n{,}]", "data.json:2: broken JSON in record 1: Expecting property name"),
    ],
)
def test_a_broken_data_file(mistake, ready, text, words):
    Path("data.json").write_text(text)
    assert words in mistake("pretrain", ready)


@pytest.mark.parametrize(
    ("turns", "image", "words"),
    [
        (
            ("<image> or <image>?", "A cat."),
            "1.png",
            "data.json:2: 1 image but 2 '<image>' marks in the question. Each image needs one mark.",
        ),
        (("What?", "A cat."), "1.png", "data.json:2: 1 image but 0 '<image>' marks in the question."),
        (("<image>", ""), "1.png", "data.json:2: turn 2: the answer is empty. Give it a text, or drop the record."),
        (("<image>",), "1.png", "data.json:2: the dialogue needs at least one question and one answer."),
        (("q" * 200, "A cat."), None, "data.json:2: no answer is left within max_length"),
    ],
)
def test_a_wrong_record(mistake, ready, data_file, record, turns, image, words):
    data_file(record("<image>", "A cat.", image="1.png"), record(*turns, image=image))
    assert words in mistake("pretrain", ready)


def test_a_wrong_role(mistake, ready, data_file, record):
    talk = record("<image>", "A cat.", image="1.png")
    talk["conversations"][1]["from"] = "bot"
    data_file(talk)
    assert mistake("pretrain", ready) == (
        "data.json:1: turn 2 has the unknown role 'bot'. Roles are human, gpt and system."
    )


def test_a_missing_image(mistake, ready, desk):
    Path("1.png").unlink()
    message = mistake("pretrain", ready)
    assert (
        message
        == f"data.json:1: image 1.png is missing (resolved to {desk / '1.png'}). Mend the path, or `image_folder`."
    )


def test_an_image_that_is_no_path(mistake, ready, data_file, record):
    data_file(record("<image>", "A cat.", image="data:image/png;base64," + "A" * 5000), draw=False)
    message = mistake("pretrain", ready)
    assert message.startswith("data.json:1: image that the record holds: not an image that Pillow can read.")
    assert len(message) < 600


def test_a_corrupt_image(mistake, ready):
    Path("1.png").write_text("no image")
    message = mistake("pretrain", ready)
    assert message == "data.json:1: image 1.png: not an image that Pillow can read. Replace the file."


def test_an_image_for_a_model_of_text(mistake, ready):
    message = mistake("sft", ready, "model.vision=null", "model.projector=null")
    assert message.startswith("data.json:1: has an image, but this model has no vision encoder. Set model.vision")


# The models


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "model.llm.chat_template=chatlm",
            "model.llm.chat_template: unknown name 'chatlm'. Did you mean 'chatml'? Known: chatml,",
        ),
        (
            "model.vision.source=tranformers",
            "model.vision.source: unknown name 'tranformers'. Did you mean 'transformers'?",
        ),
        ("model.vision.grid=3", "source 'transformers' has no such key. It takes: feature_layer, image_size."),
        ("model.vision.name=nope", "model.vision.name: 'nope' is no folder (resolved to "),
        (
            "model.vision.feature_layer=9",
            "model.vision.feature_layer: 9 is not a layer of this tower of 3 blocks. LLaVA takes -2.",
        ),
        (
            "model.projector.kind=mlp2x_gelo",
            "model.projector.kind: unknown name 'mlp2x_gelo'. Did you mean 'mlp2x_gelu'? Known:",
        ),
        ("train.optim=adam_torch", "train.optim: unknown name 'adam_torch'. Did you mean 'adamw_torch'? Known:"),
        (
            "train.lr_scheduler_type=cosin",
            "train.lr_scheduler_type: unknown name 'cosin'. Did you mean 'cosine'? Known:",
        ),
        ("model.llm.name_or_path=./nope", "model.llm.name_or_path: './nope' is no folder (resolved to "),
        ("model.llm.name_or_path=.", "no tokenizer can be read from this folder"),
    ],
)
def test_a_wrong_part(mistake, ready, override, words):
    assert words in mistake("pretrain", ready, override)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.adapter.rank=8"], "model.adapter.rank: lora has no such key."),
        (["model.adapter.lora_alfa=8"], "model.adapter.lora_alfa: lora has no such key. Did you mean 'lora_alpha'?"),
        (["model.adapter={kind: lorra}"], "model.adapter.kind: unknown name 'lorra'. Did you mean 'lora'?"),
        (["model.adapter.r=0"], "model.adapter: "),
        (
            ["model.adapter.target_modules=[wqkv]"],
            "target_modules: no module is called 'wqkv'. Linear layers: down_proj",
        ),
        (["model.adapter.target_modules=[q_proj, v_prj]"], "no module is called 'v_prj'. Nearest: v_proj"),
        (
            ["model.adapter.r=33"],
            "33 is larger than a matrix's rank can be: 'model.layers.0.self_attn.q_proj' is 32 x 32.",
        ),
        (["model.adapter.target_modules=[embed_tokens]"], "'model.embed_tokens' is an embedding, and images reach"),
        (
            ["model.adapter={kind: dora, use_dora: false}"],
            "model.adapter.use_dora: kind: dora is use_dora: True (got False).",
        ),
        (["model.adapter={kind: lora, init_lora_weights: eva}"], "'eva' needs weights or data that a run folder"),
        (["model.adapter={kind: qlora}"], "'model.adapter.kind: qlora' is LoRA over quantized weights. Set model"),
        (["model.adapter={kind: shadow}"], "'shadow' cannot be used here: its network runs in PEFT's own forward pass"),
        (["model.adapter={kind: hira, ranks: 4}"], "model.adapter.ranks: hira has no such key. Known: "),
        (
            ["model.adapter={kind: poly}"],
            "'poly' cannot be used here: it needs task ids, which image data has not. Take",
        ),
        (
            ["model.adapter={kind: bitfit}"],
            "LlamaForCausalLM has no bias parameters, so BitFit has nothing to train. Take",
        ),
        (["model.adapter={kind: houlsby, target_modules: [fc9]}"], "no layer is called fc9. There are: down_proj"),
        (
            ["model.adapter={kind: houlsby, width: 4}"],
            "model.adapter.width: houlsby has no such key. Known: bottleneck",
        ),
        (["model.adapter={kind: adalora, tinit: 5, tfinal: 9}"], "tinit 5 + tfinal 9 leave none of 1 steps"),
        *(
            ([f"model.adapter={{kind: {kind}}}", f"model.llm.quantization={quantization}"], words)
            for kind, quantization, words in (
                ("pissa", "nf4", "'pissa' starts from dense weights, these are nf4. Take qlora"),
                ("olora", "nf4", "'olora' starts from dense weights, these are nf4. Take qlora"),
                ("dora", "int8", "'dora' cannot be put over int8 weights. Take qlora."),
                ("pissa", "int8", "'pissa' starts from dense weights, these are int8. Take qlora"),
                ("loha", "nf4", "'loha' cannot be put over nf4 weights. Take qlora."),
                ("lokr", "nf4", "'lokr' cannot be put over nf4 weights. Take qlora."),
            )
        ),
        (
            ["model.adapter={kind: prefix_tuning}", "train.gradient_checkpointing=true"],
            "'train.gradient_checkpointing' does not go with prefix_tuning: blocks that are computed again",
        ),
        (
            ["model.adapter={kind: p_tuning_v2}", "data.pack_to_max_length=true"],
            "'data.pack_to_max_length' does not go with p_tuning_v2: its keys and values stand in front of a row",
        ),
        (["model.adapter=null", "model.llm.tune={top_layers: 9}"], "top_layers: 9, but this model has 2 blocks. Set"),
        (
            ["model.adapter=null", "model.llm.tune=['model.layer.0.*']"],
            "no parameter is called 'model.layer.0.*'. Nearest: ",
        ),
        (
            ["model.adapter=null", "model.llm.tune={layers: 2}"],
            "has no key 'layers'. It takes top_layers, unfreeze_every",
        ),
        (["model.adapter=null", "model.llm.tune=[]"], "'model.llm.tune' as a list holds names of parameters (got [])."),
    ],
)
def test_a_wrong_way_of_tuning(mistake, ready, pretrained_run, overrides, words):
    message = mistake("finetune", ready, f"model.init_from={pretrained_run}", "train.output_dir=tuned", *overrides)
    assert words in message


@pytest.fixture
def pretrained_run(ready):
    assert main(["pretrain", ready, "train.output_dir=first"]) == 0
    return "first"


# The folders


def test_an_output_folder_that_is_a_file(mistake, ready):
    Path("run").write_text("")
    assert mistake("pretrain", ready) == "train.output_dir: run is a file. Name a folder."


def test_no_permission_to_write(mistake, ready, desk):
    Path("parent").write_text("")
    message = mistake("pretrain", ready, "train.output_dir=parent/run")
    assert message.startswith(f"train.output_dir: cannot write to {desk / 'parent/run'}: ")
    assert message.endswith("Mend its mode, or name another folder.")
    message = mistake("pretrain", ready, "train.output_dir=/proc/mmtune/run")
    assert message.startswith("train.output_dir: cannot write to /proc/mmtune/run: ")


def test_an_output_folder_with_other_files(mistake, ready):
    Path("run").mkdir()
    Path("run/notes.txt").write_text("mine")
    message = mistake("pretrain", ready)
    assert message.startswith("run: holds files of an incomplete run.")
    assert "--overwrite" in message
    assert Path("run/notes.txt").read_text() == "mine"


def test_a_checkpoint_that_is_none(mistake, ready):
    message = mistake("pretrain", ready, "--resume", "nope")
    assert (
        message
        == f"nope: no such checkpoint (resolved to {Path('nope').resolve()}). --resume alone takes the newest one."
    )


def test_a_projector_of_another_size(mistake, ready, tiny):
    assert main(["pretrain", ready]) == 0
    wide = f"model.llm.name_or_path={tiny.wide_llm}"
    message = mistake("finetune", ready, "model.init_from=run", "train.output_dir=wide", wide, "model.adapter.r=4")
    assert message == (
        "run: its projector maps 16 -> 32, this model needs 16 -> 48. It was trained for another vision encoder or LLM."
    )
    message = mistake("pretrain", ready, "train.seed=1")
    assert message.startswith("run: holds a complete run with another config (train.seed: 42 -> 1).")
    message = mistake("chat", "run", "--prompt", "Hi", "--llm", tiny.wide_llm)
    assert message.startswith(f"run: was trained on another llm than {tiny.wide_llm} (hash ")
    assert message.endswith("Name the right one with --llm.")
    (Path("run") / "projector.safetensors").write_bytes(b"cut off")
    message = mistake("chat", "run", "--prompt", "Hi")
    assert message.startswith("run/projector.safetensors: has 7 bytes, the manifest says ")


def test_a_run_to_start_from_that_is_none(mistake, ready, desk):
    message = mistake("finetune", ready, "model.init_from=nope", "model.adapter.r=4")
    assert message == f"nope: no such folder (resolved to {desk / 'nope'}). Name a run folder."


# The other verbs


def test_chat_with_what_is_no_run(mistake, desk, data_file, record):
    data_file(record("<image>", "x", image="1.png"))
    nope = f"nope: no such folder (resolved to {desk / 'nope'}). Name a run folder."
    assert mistake("chat", "nope") == nope
    Path("runs/demo/finetune").mkdir(parents=True)
    assert mistake("chat", "runs/demo/fintune").endswith("Did you mean 'finetune'? Name a run folder.")
    assert mistake("chat", "nope", "--adapters", "nope") == nope
    assert mistake("merge", "nope", "-o", "merged") == nope
    message = mistake("chat", ".", "--image", "1.png", "--prompt", "Hi")
    assert message.startswith(".: not a complete run: it has no manifest.json. `mmtune pretrain`")


def test_chat_with_a_missing_image(mistake, desk):
    message = mistake("chat", ".", "--image", "nope.png")
    assert message.startswith(f"--image: nope.png: no such image (resolved to {desk / 'nope.png'}).")
    assert "image_folder" not in message


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"question": "What?", "image": "no.png"}, "questions.json:1: image no.png is missing (resolved to "),
        ({"question": ""}, "questions.json:1: a question is an object with a text under 'question'."),
        ({"text": "What?"}, "questions.json:1: a question is an object with a text under 'question'."),
        ({"question": "What?", "answer": "x"}, "unknown key 'answer'. Known: id, image, question, reference"),
        (
            {"question": "What?", "match": "fuzzy"},
            "unknown match 'fuzzy'. Known: exact, contains, ends_with, mentions.",
        ),
        (
            {"question": "What?", "match": ["exact"]},
            "unknown match '['exact']'. Known: exact, contains, ends_with, mentions.",
        ),
        ({"question": "What?", "reference": 5}, "'reference' is a text, a list of texts or null (got 5)."),
        ({"question": "What?"}, "nope: no such folder"),
    ],
)
def test_compare(mistake, desk, question, words):
    Path("questions.json").write_text(json.dumps([question]))
    assert words in mistake("compare", "nope", "--questions", "questions.json")


def test_compare_says_before_it_asks_that_it_cannot_write(mistake, desk):
    Path("questions.json").write_text('[{"question": "What?"}]')
    message = mistake("compare", "x", "--questions", "questions.json", "--output", "questions.json/out")
    assert message == f"--output: cannot write to {desk / 'questions.json/out'}: Not a directory. Name another folder."


def test_compare_needs_a_run_after_base_and_known_controls(mistake, desk):
    Path("questions.json").write_text('[{"question": "What?"}]')
    ask = ["--questions", "questions.json"]
    assert "base: it stands for the language model of the last run" in mistake("compare", "base", *ask)
    assert "unknown control 'blnk'. Known: blank, shuffled." in mistake("compare", "x", *ask, "--controls", "blnk")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["finetun.train.seed=1"], "unknown name 'finetun'. Did you mean 'finetune'? Known: compare, data,"),
        (["seed=1"], "command line: seed=1: an override is STEP.section.name=value. Steps: data,"),
        (["finetune"], "command line: finetune: an override is STEP.section.name=value. Steps: data, pretrain,"),
    ],
)
def test_run_with_an_unknown_step(mistake, desk, overrides, words):
    assert words in mistake("run", "demo", *overrides)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: [{name: a, verb: trian}]", "step a: verb: unknown name 'trian'."),
        ("steps: [{nam: a}]", "x.yaml: unknown key 'steps[0].nam'. Did you mean 'steps[0].name'?"),
        ("stages: []", "x.yaml: unknown key 'stages'."),
        (
            "steps: [{name: a, verb: make-scenes, config: {sed: 1}}]",
            "step a: unknown key 'sed'. Did you mean 'seed'?",
        ),
        ("steps: [{name: a, verb: export, config: {format: gguf}}]", "step a: 'run' is not set. Set it in the file"),
        (
            "steps: [{name: a, verb: compare, config: {models: [null], questions: {}}}]",
            "step a: 'models[0]' must be a text (got null).",
        ),
        (
            "steps: [{name: a, verb: compare, config: {models: [base], questions: {new: [1]}}}]",
            "step a: 'questions.new' must be a text (got [1]).",
        ),
        ("steps: [{name: a, verb: make-scenes, config: nope}]", "nope: no such file (resolved to"),
        ("steps: [{verb: make-scenes}]", "name"),
    ],
)
def test_a_wrong_recipe(mistake, desk, text, words):
    Path("x.yaml").write_text(text)
    assert words in mistake("run", "x.yaml")


def test_inspect(mistake, ready, tiny):
    assert "nope.json: no such file" in mistake("inspect", "nope.json", "--llm", tiny.llm)
    assert "template: unknown name 'x'" in mistake("inspect", "data.json", "--llm", tiny.llm, "--template", "x")
    assert "unknown key 'train.sed'. Did you mean 'train.seed'?" in mistake("inspect", ready, "train.sed=1")
    message = mistake("inspect", "data.json", "train.seed=1", "--llm", tiny.llm)
    assert message.startswith("command line: train.seed=1: a data file has no keys to set. Name a config,")


def test_traceback_shows_where_an_error_arose(desk):
    from mmtune.errors import CheckpointError

    with pytest.raises(CheckpointError):
        main(["chat", "nope", "--traceback"])


# InternLM2's folders


@pytest.fixture
def internlm2(desk):
    return write_internlm2(desk / "internlm2")


def test_a_missing_shard(mistake, ready, internlm2):
    (internlm2 / "model-00002-of-00002.safetensors").unlink()
    message = mistake("pretrain", ready, f"model.llm.name_or_path={internlm2}")
    assert "model-00002-of-00002.safetensors: no such file, though model.safetensors.index.json names it." in message
    assert message.endswith("Download this shard again.")


def test_a_shard_that_is_cut_off(mistake, ready, internlm2):
    path = internlm2 / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    message = mistake("pretrain", ready, f"model.llm.name_or_path={internlm2}")
    assert message.startswith(f"{path}: broken or cut off (")
    assert message.endswith("Download this file again.")


def test_an_adapter_for_another_model(mistake, ready, data_file, record, internlm2):
    data_file(record("Who?", "A model."), name="text.json")
    text = ["model.vision=null", "model.projector=null", "data.train.0.path=text.json", "model.adapter.r=2"]
    text.append("model.llm.tune=adapter")
    assert main(["sft", ready, *text]) == 0
    other = [f"model.llm.name_or_path={internlm2}", "train.output_dir=other", "model.init_from=run"]
    message = mistake("sft", ready, *text, *other)
    assert message.startswith("run/adapter/adapter_model.safetensors: 'base_model.model.model.layers.0")
    assert message.endswith("It was trained with another rank or for another model.")
