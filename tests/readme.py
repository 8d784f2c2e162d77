"""The fenced blocks of the documents, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
STARTERS = ("mmtune", "torchrun", "sbatch", "sudo")
STARTS = ("mmtune", "demos/slurm.sh", "tests/two_hosts.py")
"""First words of lines that start an mmtune command, and the words that stand before its verb."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"`([\w./-]+\.(?:json|jsonl|yaml))`\s*[:：]\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the file that the line before it names."""

    language: str
    text: str
    file_name: str | None


def blocks_of(document):
    text = document.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        name = FILE_NAME.search(text[: match.start()])
        found.append(Block(match[1], match[2], name[1] if name else None))
    return found


def commands_of(document):
    """The words of each mmtune command in the shell blocks, in order; those that something else starts too."""
    commands = []
    for block in blocks_of(document):
        if block.language in ("sh", "bash"):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                starts = [number for number, word in enumerate(words) if word in STARTS]
                if starts and words[0] in STARTERS:
                    ends = [number for number, word in enumerate(words) if word in (">", "|", "&&", "&")]
                    commands.append(words[starts[0] + 1 : min(ends, default=None)])
    return commands
