"""How a survey of LLaVA's image folders is told: a table, what to get where, and the same as JSON."""

from pathlib import Path
from typing import Any

from mmtune.data.makers.llava_layout import Group, Survey
from mmtune.data.makers.llava_sets import IMAGE_SETS

COLUMNS = ("named", "images", "there", "other suffix", "empty", "missing")
CONFIG_NOTE = "Linked folders lie outside image_folder: the config then needs `follow_links: true` beside it."


def table(survey: Survey) -> str:
    """Return the counts by group, one line each, and the total."""
    rows = [(name, _counts(survey.groups[name])) for name in sorted(survey.groups)]
    rows.append(("total", _counts(survey.total)))
    width = max(len(name) for name, _ in rows)
    lines = [" " * width + "".join(f"{column:>14}" for column in COLUMNS)]
    return "\n".join([*lines, *(f"{name:{width}}" + "".join(f"{count:14}" for count in row) for name, row in rows)])


def _counts(group: Group) -> tuple[int, ...]:
    return (
        group.num_mentions,
        group.num_images,
        group.num_there,
        group.num_other_suffix,
        group.num_empty,
        group.num_missing,
    )


def advice(survey: Survey, image_folder: Path) -> list[str]:
    """Return, for each group that lacks images, which, where to get them and where they belong."""
    lines = []
    for name in sorted(survey.groups):
        group = survey.groups[name]
        if not group.examples:
            continue
        first = group.examples[0]
        lines.append(f"{name}: {_lacking(group)}; first {first['image']} ({first['problem']}), {first['place']}")
        if name in IMAGE_SETS and group.num_lacking:
            source = IMAGE_SETS[name]
            lines.append(f"  get {source.name}: {source.address}")
            lines.append(f"  unpack into {image_folder / source.unpack_into}")
        if group.found_at:
            lines.append(f"  the first missing one lies one folder off: {group.found_at}. Move the folder, or link it.")
        if name in IMAGE_SETS and IMAGE_SETS[name].note:
            lines.append(f"  {IMAGE_SETS[name].note}")
        elif group.num_other_suffix:
            lines.append("  names with the suffixes that the files have: give --write-fixed OUT.json.")
    return lines


def _lacking(group: Group) -> str:
    counts = {"missing": group.num_missing, "empty": group.num_empty, "with another suffix": group.num_other_suffix}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def summary(survey: Survey) -> str:
    """Return the counts as sums that must come out."""
    total = survey.total
    with_images = survey.num_records - survey.num_text_only
    return (
        f"llava_layout: {survey.num_records} records = {with_images} with images + {survey.num_text_only} text-only; "
        f"{total.num_images} images = {total.num_there} there + {total.num_other_suffix} with another suffix + "
        f"{total.num_empty} empty + {total.num_missing} missing"
    )


def to_json(survey: Survey, image_folder: Path) -> dict[str, Any]:
    """Return the whole survey for `--json-report`."""
    groups = {}
    for name, group in sorted(survey.groups.items()):
        source = {"source": IMAGE_SETS[name]._asdict()} if name in IMAGE_SETS else {}
        groups[name] = vars(group) | source
    total = dict(zip(("num_" + name.replace(" ", "_") for name in COLUMNS), _counts(survey.total), strict=True))
    return {
        "image_folder": str(image_folder),
        "num_records": survey.num_records,
        "num_text_only": survey.num_text_only,
        "total": total,
        "groups": groups,
    }
