"""What mmtune says that it requires, and which versions of that are installed. Nothing is imported here."""

import importlib.metadata
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PACKAGE = "mmtune"
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Declared:
    """What a version of mmtune requires on this system.

    Args:
        python: versions of Python.
        core: packages of the main path.
        extras: further packages, by the name of the extra.
    """

    python: SpecifierSet
    core: list[Requirement]
    extras: dict[str, list[Requirement]]


def declared() -> Declared:
    """Return what the code that runs requires: of the checkout that it lies in, else of the installed package.

    A checkout comes first, since what `pip install -e` wrote down is as old as that command.
    """
    return of_checkout(CHECKOUT) or of_installed() or Declared(SpecifierSet(), [], {})


def of_checkout(folder: Path) -> Declared | None:
    """Return what the pyproject.toml of a source folder requires; None where it is no source folder of mmtune."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return None
    if project.get("name") != PACKAGE:
        return None
    extras = project.get("optional-dependencies", {})
    return Declared(
        SpecifierSet(project["requires-python"]),
        list(_for_this_system(map(Requirement, project["dependencies"]))),
        {name: list(_for_this_system(map(Requirement, texts))) for name, texts in extras.items()},
    )


def of_installed() -> Declared | None:
    """Return what the metadata of the installed package requires; None where it is not installed."""
    try:
        metadata = importlib.metadata.metadata(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Requirement(text) for text in importlib.metadata.requires(PACKAGE) or ()]
    core = list(_for_this_system(found))
    extras = {
        extra: [requirement for requirement in _for_this_system(found, extra) if requirement not in core]
        for extra in metadata.get_all("Provides-Extra") or ()
    }
    return Declared(SpecifierSet(metadata["Requires-Python"] or ""), core, extras)


def _for_this_system(requirements: Iterable[Requirement], extra: str = "") -> Iterator[Requirement]:
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def installed_version(package: str) -> str | None:
    """Return the version of an installed package; None where it is not, or where its metadata is damaged."""
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return None


def fits(requirement: Requirement, version: str | None) -> bool:
    """Whether a version is there and one of those that are wanted; a local part such as `+cpu` does not count."""
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def unmet(requirements: Iterable[Requirement]) -> Iterator[tuple[str, Requirement, str | None]]:
    """Yield what installed packages miss among themselves: who needs it, what is needed, which version is there.

    Args:
        requirements: where to begin; they are not held themselves.
    """
    waiting, seen = list(requirements), set()
    while waiting:
        parent = waiting.pop(0)
        name = canonicalize_name(parent.name)
        if (name, frozenset(parent.extras)) in seen or installed_version(parent.name) is None:
            continue
        seen.add((name, frozenset(parent.extras)))
        for requirement in _children(parent):
            version = installed_version(requirement.name)
            if fits(requirement, version):
                waiting.append(requirement)
            else:
                yield f"{parent.name} {installed_version(parent.name)}", requirement, version


def _children(parent: Requirement) -> list[Requirement]:
    found = []
    for text in importlib.metadata.requires(parent.name) or ():
        try:
            found.append(Requirement(text))
        except InvalidRequirement:
            continue  # of an old package, which pip reads no better
    extras = {"", *parent.extras}
    return [one for one in found if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras)]
