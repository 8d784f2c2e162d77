"""What other systems lack: modules, signals, forks, UTF-8 consoles, a CUDA GPU. Run on any system, for all of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from training_workspace import models, workspace

import mmtune
from mmtune.cli import VERB_NAMES, main
from mmtune.durable import is_disk_full, sync_file
from mmtune.errors import ConfigError, ModelError
from mmtune.models import device as devices
from mmtune.models.language import load_llm
from mmtune.models.precision import choose_dtype, require_trainable
from mmtune.training.callbacks import read_log

__all__ = ["models", "workspace"]
PACKAGE = Path(mmtune.__file__).parent
MPS = torch.device("mps")

ABSENT_ON_WINDOWS = ("fcntl", "grp", "posix", "pwd", "resource", "termios", "tty")
IMPORT_ALL = """
import os, signal, sys, importlib.util, pathlib
package = pathlib.Path(sys.argv[1])
names = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in sorted(package.rglob("*.py"))]
names = [name for name in names if not name.endswith("__main__") and "remote_code" not in name]
if importlib.util.find_spec("lmms_eval") is None:  # which alone imports its plug-in
    names.remove("mmtune.evaluate.lmms_eval_model")
for name in names:  # with all the libraries, which know better than to be imported on half a Windows
    importlib.import_module(name.removesuffix(".__init__"))
for name in [name for name in sys.modules if name.partition(".")[0] == "mmtune"]:
    del sys.modules[name]
for name in sys.argv[2].split():
    sys.modules[name] = None
for name in ("fork", "killpg", "register_at_fork", "O_NONBLOCK", "sched_getaffinity", "pread", "getuid"):
    vars(os).pop(name, None)
for name in ("SIGHUP", "SIGPIPE", "SIGKILL", "SIGUSR1", "SIGALRM"):
    vars(signal).pop(name, None)
sys.platform = "win32"
for name in names:
    importlib.import_module(name.removesuffix(".__init__"))
assert all(name.removesuffix(".__init__") in sys.modules for name in names)
print("all", len(names))
"""


def python(*args, **variables):
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)} | variables
    return subprocess.run([sys.executable, *args], capture_output=True, env=environment, check=False, timeout=600)


def test_every_module_is_imported_without_what_windows_lacks():
    done = python("-c", IMPORT_ALL, str(PACKAGE), " ".join(ABSENT_ON_WINDOWS))
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert done.stdout.startswith(b"all")


# ---------------------------------------------------------------- data workers


def test_workers_that_are_spawned_change_nothing(workspace):
    """macOS and Windows start each worker as a new interpreter, to which datasets and collators are pickled."""
    config = yaml.safe_load(Path("pretrain.yaml").read_text(encoding="utf-8"))
    config["train"] |= {"max_steps": 4, "save_steps": 0, "dataloader_num_workers": 1}
    Path("pretrain.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    code = """
import multiprocessing, sys
from mmtune.cli import main
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    for argv in %r:
        assert main([*argv[:-1], argv[-1].replace("usual", "spawn")]) == 0
"""
    stream = "train.max_steps=3 data.train.0.stream=true data.shuffle_buffer=4 model.projector.standardize=false"
    stream += " model.projector.initial_scale=null"
    runs = [
        ["pretrain", "pretrain.yaml", "train.output_dir=runs/usual"],
        ["pretrain", "pretrain.yaml", *stream.split(), "train.output_dir=runs/usual_stream"],
    ]
    for argv in runs:
        assert main(argv) == 0
    Path("start.py").write_text(code % runs, encoding="utf-8")
    done = python("start.py")
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    for kind in ("", "_stream"):
        losses = [
            [entry.get("loss") for entry in read_log(Path(f"runs/{method}{kind}/log.jsonl"))]
            for method in ("usual", "spawn")
        ]
        assert losses[0] == losses[1]
        assert len(losses[0]) >= 3
        weights = [Path(f"runs/{method}{kind}/projector.safetensors").read_bytes() for method in ("usual", "spawn")]
        assert weights[0] == weights[1]


# ---------------------------------------------------------------- consoles


def test_a_console_of_few_characters_shows_all_verbs_and_chinese(data_file, config_file, record):
    """Of ASCII alone: other encodings that lack Chinese, such as that of a Windows console, have more."""
    encoding = "ascii"
    data_file(record("<image>\n这是什么？", "一只猫。", image="1.png"), record("你好 ✓", "─ 你好"))
    config = config_file()
    code = f"""
import sys
from mmtune.cli import build_parser, entry_point
for argv in (["--help"], *([verb, "--help"] for verb in {VERB_NAMES!r}), ["inspect", {config!r}, "-n", "2"],
             ["pretrain", {config!r}, "train.output_dir=run"], ["chat", "run", "--prompt", "中文？"],
             ["data", "stats", {config!r}]):
    sys.argv = ["mmtune", *argv]
    try:
        entry_point()
    except SystemExit as ended:
        assert ended.code == 0, (argv, ended.code)
"""
    done = python("-c", code, PYTHONIOENCODING=encoding, PYTHONUTF8="0", COLUMNS="100")
    assert done.returncode == 0, done.stderr.decode(encoding)[-2000:]
    shown = done.stdout.decode(encoding)
    assert "\\u4e00\\u53ea\\u732b" in shown, "inspect shows the answer, as escapes"
    assert "UnicodeEncodeError" not in done.stderr.decode(encoding)


# ---------------------------------------------------------------- disks


def test_a_full_disk_is_known_by_what_each_system_says():
    assert is_disk_full(RuntimeError("I/O error: There is not enough space on the disk. (os error 112)"))
    assert is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert is_disk_full(RuntimeError("Disk quota exceeded (os error 122)"))
    assert not is_disk_full(RuntimeError("Unknown error"))


def test_a_file_is_brought_to_the_disk_the_way_windows_asks(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"kept")
    monkeypatch.setattr("mmtune.durable.os.fsync", lambda number: os.write(number, b"") or os.lseek(number, 0, 0))
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file(path)  # as the disk is asked on Linux: the file is open for reading alone
    monkeypatch.setattr("mmtune.durable.IS_WINDOWS", True)
    sync_file(path)
    assert path.read_bytes() == b"kept"


# ---------------------------------------------------------------- the GPU of a Mac


@pytest.fixture
def mac(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def test_the_gpu_of_a_mac_is_taken_when_asked_for(mac):
    assert devices.choose_device("mps") == MPS
    assert devices.choose_device("auto").type in ("cpu", "cuda")
    assert devices.device_to_answer("mps") == MPS
    assert devices.device_to_answer("auto") == devices.choose_device()


def test_a_mac_s_gpu_that_is_not_there_is_said_and_a_run_from_one_answers_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"train\.device: mps is the GPU of a Mac, and there is none here"):
        devices.choose_device("mps")
    assert devices.device_to_answer("mps") == devices.choose_device()


def test_what_the_gpu_of_a_mac_lacks_is_left_out_or_refused(tiny):
    assert choose_dtype("auto", MPS) == torch.float32
    with pytest.raises(ConfigError, match=r"needs a GPU of NVIDIA \(this run is on mps\)"):
        require_trainable(torch.float16, MPS, pure_bf16=False)
    with pytest.raises(ModelError, match=r"model\.llm\.quantization: nf4 on the GPU of a Mac has not been tried"):
        load_llm(str(tiny.llm), dtype=torch.float32, device=MPS, quantization="nf4")


def test_free_memory_of_a_mac_is_what_the_system_recommends(monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 3 << 20)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 1 << 20)
    assert devices.free_memory(MPS) == 2 << 20
