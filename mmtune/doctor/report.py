"""All that is looked at, in its order, and how the report is written."""

from collections.abc import Iterable, Iterator
from typing import Any

from mmtune import __version__
from mmtune.doctor.declared import declared
from mmtune.doctor.devices import about_torch, about_training
from mmtune.doctor.features import about_features, steps_of_features
from mmtune.doctor.findings import Finding
from mmtune.doctor.libraries import about_packages, about_python
from mmtune.doctor.machine import about_disks, about_memory, about_settings
from mmtune.doctor.probing import probe
from mmtune.doctor.traps import about_builds

TITLES = {
    "python": "Python and mmtune",
    "packages": "Packages of the main path",
    "machine": "Machine",
    "settings": "Settings in the environment",
    "torch": "torch and devices",
    "features": "Features of choice",
    "traps": "Traps",
}
SIGNS = {"ok": "ok", "note": "note", "missing": "missing", "broken": "BROKEN"}


def examine() -> Iterator[Finding]:
    """Yield all findings, group by group; what needs no import comes first, since the rest takes seconds."""
    needs = declared()
    yield from about_python(needs)
    yield from about_packages(needs)
    yield from about_memory()
    yield from about_disks()
    yield from about_settings()
    probes = probe(["torch", "training", *steps_of_features(needs)])
    torch = probes["torch"].values or {}
    yield from about_torch(probes["torch"])
    yield about_training(probes["training"], torch.get("version"))
    yield from about_features(needs, probes, torch.get("version"))
    yield from about_builds(torch.get("extensions_folder"))


def works(findings: Iterable[Finding]) -> bool:
    """Whether nothing is broken that the main path needs."""
    return all(finding.state != "broken" for finding in findings)


def lines_of(findings: Iterable[Finding]) -> Iterator[tuple[str, str]]:
    """Yield the report line by line, each with the state of its finding; titles and mends have none."""
    group = None
    for finding in findings:
        if finding.group != group:
            group = finding.group
            yield "", f"\n{TITLES[group]}"
        yield finding.state, f"  {SIGNS[finding.state]:8}{finding.name}: {finding.text}"
        if finding.mend is not None:
            yield "", f"          -> {finding.mend}"


def last_line(findings: list[Finding]) -> str:
    """Return the sum of a report."""
    counts = {state: sum(finding.state == state for finding in findings) for state in SIGNS}
    if counts["broken"]:
        names = ", ".join(finding.name for finding in findings if finding.state == "broken")
        return f"Broken: {names}. Mend the lines marked BROKEN from the top, then run `mmtune doctor` again."
    missing = counts["missing"]
    return "The main path works." + (f" Not here: {missing} feature{'s' * (missing > 1)} of choice." if missing else "")


def values_of(findings: list[Finding]) -> dict[str, Any]:
    """Return a report as JSON values."""
    return {"mmtune": __version__, "works": works(findings), "findings": [vars(finding) for finding in findings]}
