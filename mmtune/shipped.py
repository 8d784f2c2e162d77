"""The configs and DeepSpeed's settings that come with the package: their names, their texts."""

from pathlib import Path

from mmtune.errors import ConfigError
from mmtune.lookup import nearest

PACKAGE = Path(__file__).parent


def shipped_folder() -> Path:
    """Return the folder of the shipped configs: in the wheel, or beside the package in a checkout."""
    in_wheel = PACKAGE / "_configs"
    return in_wheel if in_wheel.is_dir() else PACKAGE.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """Return the shipped configs by name: the path inside the folder without `.yaml`, such as `demo/pretrain`."""
    return _shipped(".yaml")


def shipped_settings() -> dict[str, Path]:
    """Return the shipped settings of DeepSpeed by name, such as `deepspeed/zero3`."""
    return _shipped(".json")


def _shipped(suffix: str) -> dict[str, Path]:
    folder = shipped_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob(f"*{suffix}"))}


def find_config(name_or_path: Path | str) -> Path:
    """Return the path of a config, or of DeepSpeed's settings, named by its path or by its shipped name.

    Raises:
        ConfigError: it is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = shipped_configs() | shipped_settings()
    name = str(name_or_path).removesuffix(".yaml").removesuffix(".json").removeprefix("configs/")
    if name in shipped:
        return shipped[name]
    message = f"no such file (resolved to {path.resolve()}) and no shipped config.{nearest(name, shipped)}"
    raise ConfigError(name_or_path, f"{message} `mmtune configs list` names them.")
