"""How a config file and overrides become a checked config (`schema.py`). No torch import: `--help` stays instant."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmtune.config_words import dataclass_in, in_words, key_path, require_plain_entries, shown, value_error
from mmtune.errors import ConfigError
from mmtune.lookup import lookup, nearest
from mmtune.other_words import OTHER_WORDS, WORDS_WITHOUT_KEY
from mmtune.schema import VERB_DEFAULTS, Config
from mmtune.schema_check import wrong_values
from mmtune.schema_evaluation import wrong_evaluation
from mmtune.schema_sharding import wrong_sharding
from mmtune.schema_stream import wrong_streams
from mmtune.schema_train import set_accumulation, wrong_training
from mmtune.schema_tune import cannot_pack
from mmtune.shipped import find_config

T = TypeVar("T")


def load_config(name_or_path: Path | str, overrides: Sequence[str] = (), verb: str | None = None) -> Config:
    """Read a config, apply overrides and check every key and value.

    Args:
        name_or_path: a YAML file, or a shipped config such as `demo/pretrain`.
        overrides: `section.name=value` texts, as typed on the command line.
        verb: whose defaults apply: a key of `VERB_DEFAULTS`; None takes the one that fits.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value has the wrong type or is missing.
    """
    path = Path(name_or_path)
    if path.suffix != ".py":  # which has an answer of its own
        path = find_config(path)
    given = read_yaml(path)
    apply_overrides(given, overrides)
    return config_from_values(given, str(path), verb)


def fitting_verb(given: dict[str, Any]) -> str:
    """Return the verb that a config is for, by what it holds: no vision, a run to start from, or neither.

    Args:
        given: plain values of a config, checked or not.
    """
    model = given.get("model")
    if not isinstance(model, dict) or model.get("vision") is None:
        return "sft"
    if model.get("init_from") is not None:
        return "finetune"
    llm = model.get("llm")
    tune = llm.get("tune", "frozen") if isinstance(llm, dict) else "frozen"
    return "pretrain" if tune == "frozen" and model.get("adapter") is None else "sft"


def config_from_values(given: dict[str, Any], place: str = "config", verb: str | None = None) -> Config:
    """Return the checked config of plain values.

    Args:
        given: sections with keys, as a config file has them.
        place: where they came from, for messages.
        verb: whose defaults apply; None takes the one that fits.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type or is missing.
    """
    verb = fitting_verb(given) if verb is None else verb
    check_keys(given, Config, place)
    config = _typed(given, Config, place, _defaults_for(verb, given))
    _check_values(config, verb, place)
    set_accumulation(config)
    return config


def typed_values(given: dict[str, Any], schema: type[T], place: str) -> T:
    """Return plain values as a dataclass.

    Args:
        given: keys and their values.
        schema: the dataclass.
        place: where they came from, for messages.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type or is missing.
    """
    check_keys(given, schema, place)
    return _typed(given, schema, place, {})


def _typed(given: dict[str, Any], schema: type[T], place: str, defaults: dict[str, Any]) -> T:
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), defaults, given)
        missing = sorted(OmegaConf.missing_keys(merged))
        typed: Any = None if missing else OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise value_error(error, given, schema, place) from None
    if missing:
        raise ConfigError(place, f"'{missing[0]}' is not set. Set it in the file or as {missing[0]}=VALUE.")
    assert isinstance(typed, schema)
    return typed


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
    path = Path(path)
    if path.suffix == ".py":
        message = "is a Python config. Make a YAML file of it: mmtune convert xtuner-config"
        raise ConfigError(path, f"{message} {path} -o {path.stem}.yaml")
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
        raise ConfigError(f"{path}{line}", f"broken YAML: {str(error.problem).rstrip('.')}. Mend the line.") from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(path, f"broken YAML: {str(error).splitlines()[0].rstrip('.')}. Mend it.") from None
    if not isinstance(values, dict):
        raise ConfigError(path, "a config is a mapping of sections such as model:, data: and train:.")
    return values  # type: ignore[return-value]


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set `a.b.0.c=value` texts in plain values; the value is read as YAML.

    Raises:
        ConfigError: a text is no `key=value`, or leads through something that is no section.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"command line: {text}",
                "an override is section.name=value, such as train.learning_rate=1e-4.",
            )
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]  # type: ignore[index,call-overload]
        except (OmegaConfBaseException, yaml.YAMLError):
            message = f"the value {value!r} is broken YAML. Close its brackets and quotes."
            raise ConfigError(f"command line: {key}", message) from None
        try:
            _set(values, key, parsed)
        except (LookupError, ValueError):
            message = "the list has no such entry; [0] is the first. Set the whole list, or mend the number."
            raise ConfigError(f"command line: {key}", message) from None
        except TypeError:
            message = "this key leads through a value that has no keys of its own. Mend the key."
            raise ConfigError(f"command line: {key}", message) from None


def _set(values: Any, key: str, value: Any) -> None:
    *parents, last = key_path(key)
    for name in parents:
        if isinstance(values, list):
            values = values[int(name)]
        elif isinstance(values, dict):
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
        require_plain_entries(hints[key], value, place, f"{prefix}{key}")
        inner = dataclass_in(hints[key])
        if inner is None or value is None:
            continue
        if isinstance(value, list) != (get_origin(hints[key]) is list):
            raise ConfigError(place, f"'{prefix}{key}' must be {in_words(hints[key])} (got {shown(value)}).")
        items = value if isinstance(value, list) else [value]
        for number, item in enumerate(items):
            name = f"{prefix}{key}[{number}]." if isinstance(value, list) else f"{prefix}{key}."
            if not isinstance(item, dict):
                wanted = in_words(inner if isinstance(value, list) else hints[key])
                raise ConfigError(place, f"'{name[:-1]}' must be {wanted} (got {shown(item)}).")
            check_keys(item, inner, place, name)


def _unknown_key(key: str, prefix: str, hints: dict[str, Any]) -> str:
    if key in OTHER_WORDS:
        return f"unknown key '{prefix}{key}'. Here it is called {OTHER_WORDS[key]}."
    if key in WORDS_WITHOUT_KEY:
        return f"unknown key '{prefix}{key}'. {WORDS_WITHOUT_KEY[key]}"
    close = nearest(key, hints).replace("Did you mean '", f"Did you mean '{prefix}")
    return f"unknown key '{prefix}{key}'.{close}" + ("" if close else f" Known: {', '.join(hints)}.")


def _defaults_for(verb: str, given: dict[str, Any]) -> dict[str, Any]:
    """The verb's defaults, less what does not fit what the file sets."""
    import copy

    defaults = copy.deepcopy(lookup(VERB_DEFAULTS, verb, "verb"))
    model = given.get("model") or {}
    if cannot_pack(given):
        defaults.pop("data", None)
    if (given.get("train") or {}).get("global_batch_size") is not None:
        defaults.get("train", {}).pop("gradient_accumulation_steps", None)  # it follows from the global batch
    adapter = model.get("adapter", {})
    if (
        not isinstance(adapter, dict)
        or "kind" in adapter
        or (model.get("llm") or {}).get("tune", "adapter") != "adapter"
    ):
        defaults["model"].pop("adapter", None)
    is_blind = model.get("vision") is None and model.get("projector") is None
    if is_blind or (verb == "sft" and model.get("init_from") is None):  # a new projector trains
        defaults["model"].pop("projector", None)
    return defaults


def _check_values(config: Config, verb: str, place: str) -> None:
    """Hold what no type can say."""
    checks = (wrong_streams, wrong_training, wrong_evaluation, wrong_sharding)
    for message in (*wrong_values(config, verb), *(text for check in checks for text in check(config))):
        raise ConfigError(place, message)
