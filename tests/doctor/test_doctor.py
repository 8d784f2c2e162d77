"""`mmtune doctor` here as it is, and in environments with a fault: broken modules and metadata on Python's path."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mmtune.cli import main
from mmtune.doctor.causes import explained
from mmtune.doctor.declared import Declared, declared, fits, of_checkout, of_installed, unmet
from mmtune.doctor.devices import about_torch, about_training
from mmtune.doctor.features import FEATURES, about_features, command_of
from mmtune.doctor.libraries import about_packages, about_python
from mmtune.doctor.machine import about_disks, about_memory, about_settings
from mmtune.doctor.probing import Probe, probe
from mmtune.doctor.report import TITLES, works
from mmtune.doctor.traps import about_builds

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NO_FEATURES = ("dev", "docs", "all")


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return a function that puts modules, and what is written of packages, before all others on Python's path."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def put(module, code, version=None, requires=()):
        (folder / module).mkdir()
        (folder / module / "__init__.py").write_text(code, encoding="utf-8")
        if version is not None:
            lines = [f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}"]
            lines += [f"Requires-Dist: {text}" for text in requires]
            info = folder / f"{module}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")

    return put


def named(findings):
    found = [*findings]
    names = {finding.name: finding for finding in found}
    assert len(names) == len(found)
    return names


def needs(*core, **extras):
    wanted = {name: [Requirement(text) for text in texts] for name, texts in extras.items()}
    return Declared(SpecifierSet(">=3.11"), [*map(Requirement, core)], wanted)


# ---------------------------------------------------------------- here


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_TOKEN", "hf_secret")
        patch.setenv("HTTPS_PROXY", "http://me:secret@proxy:3128")
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("extensions")))
        with contextlib.redirect_stdout(io.StringIO()) as output:
            code = main(["doctor", "--json"])
    assert "secret" not in output.getvalue()
    return code, json.loads(output.getvalue())


def test_the_main_path_works_here(report):
    code, values = report
    assert (code, values["works"]) == (0, True)
    assert {finding["group"] for finding in values["findings"]} | {"traps"} == set(TITLES)
    states = {(finding["group"], finding["name"]): finding["state"] for finding in values["findings"]}
    assert states["torch", "torch"] == states["torch", "training"] == states["python", "python"] == "ok"
    assert states["settings", "HF_HUB_OFFLINE"] == states["settings", "HF_TOKEN"] == "note"
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            assert states["packages", requirement.name] == "ok"


def test_each_extra_is_a_feature_with_its_command(report):
    _, values = report
    found = {finding["name"]: finding for finding in values["findings"] if finding["group"] == "features"}
    assert {feature.name for feature in FEATURES if not feature.packages} == PROJECT[
        "optional-dependencies"
    ].keys() - set(NO_FEATURES)
    for feature in FEATURES:
        assert found[feature.name]["state"] in ("ok", "missing", "note")
        if found[feature.name]["state"] == "missing":
            assert found[feature.name]["mend"] == command_of(feature)
    assert command_of(FEATURES[0]) == 'pip install "mmtune[qlora]"'


# ---------------------------------------------------------------- faults


def test_a_torch_that_cannot_be_imported_is_the_first_thing_to_mend(path, monkeypatch, capsys):
    path("torch", "raise OSError('libcudart.so.12: cannot open shared object file: No such file or directory')")
    monkeypatch.setattr("mmtune.doctor.report.steps_of_features", lambda needs: [])
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert (
        "BROKEN  torch: cannot be imported: a library of CUDA that torch was built with is missing (OSError" in output
    )
    assert "-> pip install --force-reinstall torch" in output
    assert "BROKEN  training: needs torch, see above" in output
    assert output.splitlines()[-1].startswith("Broken: torch, training. Mend the lines marked BROKEN")


@pytest.mark.parametrize("package", ["rich", "packaging"])
def test_what_the_report_itself_needs_is_asked_for_in_one_line(package):
    code = f"import sys; sys.modules['{package}'] = None; from mmtune.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"mmtune: {package}")
    assert "is not installed" in line
    assert "pip install" in line
    assert package != "rich" or "Activate the environment of mmtune" in line


REGISTERS = """
import torch
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets
class io:
    pass
class transforms:
    class InterpolationMode:
        NEAREST = NEAREST_EXACT = BOX = BILINEAR = HAMMING = BICUBIC = LANCZOS = 0
"""


def test_a_torchvision_of_another_build_is_coped_with_and_what_breaks_training_is_named(path):
    path("torchvision", REGISTERS, version="0.1")
    path("peft", "raise ImportError('cannot import name X')", version="0.21")
    probes = probe(["torch", "training"])
    found = named(about_torch(probes["torch"]))
    if probes["torch"].values["cuda"] is None:
        assert found["torchvision"].state == "note"
        assert "pip uninstall -y torchvision" in found["torchvision"].mend
    finding = about_training(probes["training"], "2.13.0")
    assert (finding.state, works([finding])) == ("broken", False)
    assert finding.text == "a tiny model cannot learn: ImportError: cannot import name X"
    assert finding.mend == "pip install --upgrade --force-reinstall peft"
    broken = "RuntimeError: operator torchvision::nms does not exist"
    finding = about_training(Probe(None, broken), "2.13.0+cpu")
    assert finding.state == "broken"
    assert finding.text == f"a tiny model cannot learn: torchvision was built for another torch ({broken})"
    assert finding.mend.startswith('pip install --no-deps "torchvision==0.28.*"')


def test_a_library_that_takes_its_process_down_hides_none_behind_it(path):
    path("crashes", "import os, signal; os.kill(os.getpid(), signal.SIGILL)", version="1")
    path("leaves", "import sys; sys.exit(3)", version="1")
    path("stops", "import os; os._exit(7)", version="1")
    path("fine", "print('{\"noise\": 1}')", version="1")
    modules = ("crashes", "leaves", "stops", "fine")
    found = probe([f"module:{name}" for name in modules])
    assert found["module:crashes"].error == "ended the program by SIGILL"
    assert found["module:leaves"].error == "SystemExit: 3"
    assert found["module:stops"].error == "ended the program with code 7"
    assert found["module:fine"].values is not None
    wanted = needs(galore=["fine"], apollo=["crashes"], wandb=["absent>=2"], web=[])
    features = named(about_features(wanted, found, None))
    assert (features["galore"].state, features["galore"].text) == ("ok", "the optimizer GaLore (fine 1)")
    assert features["apollo"].state == features["wandb"].state == "missing"
    assert "crashes is installed and cannot be imported: this processor lacks instructions" in features["apollo"].text
    assert features["wandb"].text == "figures in Weights & Biases: absent is not installed"
    assert features["wandb"].mend == 'pip install "mmtune[wandb]"'
    assert features["web"].text.endswith("not on this system")


def test_versions_are_held_to_what_is_declared(path):
    path("transformers", "", version="5.6.0")
    path("parent", "", version="2.0", requires=["absent-child>=3", "transformers>=5", "other; python_version < '3'"])
    found = named(about_packages(needs("transformers>=5.23", "sentencepiece>=0.2", "absent>=1", "parent")))
    assert found["transformers"].state == "broken"
    assert found["transformers"].text == "5.6.0 is too old (needs >=5.23)"
    assert found["transformers"].mend == 'pip install "transformers>=5.23"'
    assert found["sentencepiece"].state == found["parent"].state == "ok"
    assert (found["absent"].state, found["absent"].text) == ("broken", "not installed (needs >=1)")
    pair = found["parent and absent-child"]
    assert (pair.state, pair.text) == ("note", "parent 2.0 needs absent-child>=3 (not installed)")
    assert fits(Requirement("torch>=2.13"), "2.13.0+cpu")


def test_what_is_required_is_read_from_a_checkout_and_from_what_is_installed(tmp_path):
    assert declared() == of_checkout(ROOT)
    assert {one.name for one in declared().core} >= {"torch", "transformers", "packaging"}
    assert of_checkout(tmp_path) is None
    installed = of_installed()
    assert {"torch", "transformers"} <= {one.name for one in installed.core}
    assert {one.name for one in installed.extras["qlora"]} == {"bitsandbytes"}
    assert not [*unmet(declared().core)]


def test_an_old_python_is_broken():
    found = named(about_python(Declared(SpecifierSet(">=99"), [], {})))
    assert found["python"].state == "broken"
    assert "mmtune needs >=99" in found["python"].text


# ---------------------------------------------------------------- devices that are not here

TORCH = {
    **{"version": "2.13.0", "cuda": None, "hip": None, "num_threads": 2, "gpu_error": None, "gpus": [], "mps": False},
    **{"torchvision": None, "extensions_folder": "x"},
}
CARD = {"name": "H100", "capability": "9.0", "dtype": "bfloat16", "free": 70 * 2**30, "total": 80 * 2**30}


@pytest.mark.parametrize(
    ("values", "name", "state", "words"),
    [
        ({}, "GPU", "ok", "none: runs take the CPU, in float32"),
        ({"mps": True}, "GPU", "note", "the GPU of this Mac"),
        ({"cuda": "13.0", "gpus": [CARD]}, "GPU 0", "ok", "70.0 of 80.0 GiB free, runs compute in bfloat16"),
        ({"cuda": "13.0", "gpus": [CARD | {"free": 2**30}]}, "GPU 0", "note", "another program holds the rest"),
        (
            {"cuda": "13.0", "gpus": [CARD | {"error": "RuntimeError: CUDA error: no kernel image is available"}]},
            *("GPU 0", "broken", "this build of torch has no code for this GPU"),
        ),
        (
            {"cuda": "13.0", "gpu_error": "RuntimeError: The NVIDIA driver on your system is too old"},
            *("GPU", "note", "the driver is older than the CUDA that torch was built for"),
        ),
    ],
)
def test_devices(values, name, state, words):
    finding = named(about_torch(Probe(TORCH | values)))[name]
    assert finding.state == state
    assert words in finding.text
    assert (finding.mend is None) == (state == "ok")


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for nvidia-smi")
def test_a_driver_beside_a_torch_for_cpus_is_said(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = named(about_torch(Probe(TORCH)))["GPU"]
    assert (finding.state, finding.mend) == ("note", "Install a CUDA build of torch in the same version.")


# ---------------------------------------------------------------- machine and traps


def test_disks_memory_and_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("MMTUNE_CACHE", str(tmp_path / "not" / "there"))
    monkeypatch.setenv("HF_ENDPOINT", "https://me:password@mirror.example")
    assert named(about_disks())["cache of mmtune"].text.startswith(str(tmp_path / "not" / "there"))
    monkeypatch.setattr("mmtune.doctor.machine.LITTLE_DISK", shutil.disk_usage(tmp_path).total + 1)
    finding = named(about_disks())["cache of mmtune"]
    assert (finding.state, finding.mend) == ("note", "export MMTUNE_CACHE=FOLDER")
    limit = tmp_path / "memory.max"
    limit.write_text(f"{2**30}\n")
    monkeypatch.setattr("mmtune.doctor.machine.CONTAINER_LIMITS", [tmp_path / "none", limit])
    assert "this container may take 1.0 GiB" in named(about_memory())["memory"].text
    limit.write_text("max\n")
    assert named(about_memory())["memory"].state == "ok"
    settings = named(about_settings())
    assert settings["HF_ENDPOINT"].text.startswith("https://***@mirror.example (")
    assert "MMTUNE_CACHE" in settings


def test_a_lock_that_was_left_and_a_compiler_that_is_missing(path, tmp_path, monkeypatch):
    for name, age in (("old", 10_000), ("new", 0)):
        lock = tmp_path / "extensions" / name / "lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        os.utime(lock, (lock.stat().st_atime - age, lock.stat().st_mtime - age))
    path("deepspeed", "", version="0.19.8")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = named(about_builds(str(tmp_path / "extensions")))
    old, new = (found[str(tmp_path / "extensions" / name / "lock")] for name in ("old", "new"))
    assert old.mend == f"If no program compiles there, a build was killed: delete {tmp_path / 'extensions' / 'old'}"
    assert new.mend.startswith("Wait")
    assert found["compiler"].state == "note"


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        ("ModuleNotFoundError: No module named 'yaml.x'", "pip install --force-reinstall yaml"),
        ("RuntimeError: odd", "pip install --upgrade --force-reinstall gguf"),
        ("ImportError: DLL load failed while importing _C", "Install Microsoft's Visual C++ Redistributable (x64)"),
    ],
)
def test_what_mends_an_error(error, mend):
    text, said = explained(error, "gguf", None)
    assert error in text
    assert said.startswith(mend)
