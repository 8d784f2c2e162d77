"""Python, mmtune and the packages of the main path: are they here, new enough, and do they go together."""

import platform
import sys
from collections.abc import Iterator

from packaging.utils import canonicalize_name

from mmtune import __version__
from mmtune.doctor.declared import (
    CHECKOUT,
    PACKAGE,
    Declared,
    fits,
    installed_version,
    of_checkout,
    of_installed,
    unmet,
)
from mmtune.doctor.findings import Finding

WHAT_FOR = {"sentencepiece": "reads tokenizer.model", "protobuf": "reads tokenizer.model"}


def about_python(needs: Declared) -> Iterator[Finding]:
    """Yield the versions of Python and of mmtune."""
    version = platform.python_version()
    if version in needs.python:
        text = f"{version} on {platform.system()} {platform.machine()}, {sys.executable}"
        yield Finding("python", "python", "ok", text)
    else:
        text = f"{version} ({sys.executable}), and mmtune needs {needs.python}"
        yield Finding("python", "python", "broken", text, "Make an environment of a newer Python, and install there.")
    yield _about_mmtune()


def _about_mmtune() -> Finding:
    installed, checkout = installed_version(PACKAGE), of_checkout(CHECKOUT)
    where = f"{__version__}, {CHECKOUT / PACKAGE}"
    if installed is None:
        text, mend = f"{where}, not installed: there is no `mmtune` command", f'pip install -e "{CHECKOUT}"'
        return Finding("python", PACKAGE, "note", text, mend)
    if checkout is not None and _written(checkout) != _written(of_installed()):
        text = f"{where}, installed from an older pyproject.toml: what it needs by now is compared below"
        return Finding("python", PACKAGE, "note", text, f'pip install -e "{CHECKOUT}"')
    return Finding("python", PACKAGE, "ok", where)


def _written(needs: Declared | None) -> set[tuple[str, str, str]]:
    """Return what is required as extra, name and versions; `all` is the sum of others, which metadata spell out."""
    groups = {} if needs is None else {"": needs.core} | needs.extras
    return {
        (extra, canonicalize_name(one.name), str(one.specifier))
        for extra, requirements in groups.items()
        for one in requirements
        if extra != "all"
    }


def about_packages(needs: Declared) -> Iterator[Finding]:
    """Yield each package of the main path, and what these packages miss among themselves."""
    for requirement in needs.core:
        version = installed_version(requirement.name)
        wanted = f"needs {requirement.specifier}" if requirement.specifier else "any version"
        mend = f'pip install "{requirement.name}{requirement.specifier}"'
        if fits(requirement, version):
            yield Finding("packages", requirement.name, "ok", f"{version} ({wanted})")
        elif version is None:
            use = WHAT_FOR.get(requirement.name)
            text = f"not installed ({wanted}{f'; {use}' if use else ''})"
            yield Finding("packages", requirement.name, "broken", text, mend)
        else:
            yield Finding("packages", requirement.name, "broken", f"{version} is too old ({wanted})", mend)
    for parent, requirement, version in unmet(needs.core):
        text = f"{parent} needs {requirement.name}{requirement.specifier} ({version or 'not installed'})"
        mend = f'pip install "{requirement.name}{requirement.specifier}"'
        yield Finding("packages", f"{parent.split()[0]} and {requirement.name}", "note", text, mend)
