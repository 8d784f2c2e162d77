"""Make one virtual environment for each peer of the race, with versions that work together. None is needed by mmtune.

    python tests/benchmarks/race/install_peers.py --folder runs/race/env --peers trl llamafactory swift

The pins are those that the race was last run with. Where the machine has no GPU and the package index offers PyTorch's
CPU build under the same version, pip takes it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

PEERS: dict[str, list[list[str]]] = {
    "trl": [
        ["torch==2.13.0"],
        ["trl==1.16.0", "transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "datasets==5.2.0", "pillow"],
    ],
    # Without its web page (gradio) and audio (torchaudio, whose wheel loads beside CUDA alone), hence --no-deps.
    "llamafactory": [
        ["torch==2.13.0"],
        ["--no-deps", "llamafactory==0.9.5"],
        ["transformers==5.6.0", "peft==0.18.1", "accelerate==1.11.0", "datasets==4.0.0", "trl==0.24.0", "tyro<0.9"],
        ["av==16.0.0", "einops", "fire", "omegaconf", "pandas", "protobuf", "pydantic", "pyyaml", "safetensors"],
        ["scipy", "sentencepiece", "tiktoken", "matplotlib", "packaging", "numpy", "pillow", "modelscope"],
        ["hf-transfer", "sse-starlette", "fastapi", "uvicorn"],
    ],
    "swift": [
        ["torch==2.13.0"],
        ["ms-swift==4.6.0", "transformers==5.19.0", "peft==0.20.0", "accelerate==1.15.0", "torch==2.13.0"],
    ],
}
"""What pip is called with, one call after the other."""


def main() -> None:
    """Install."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/race/env"), help="of the environments")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="which (all)")
    args = parser.parse_args()
    if sys.version_info[:2] != (3, 11):
        print(f"the pins were tried with Python 3.11, this is {sys.version.split()[0]}")
    for peer in args.peers:
        python = install(peer, args.folder / peer)
        print(f"{peer}: {python}", flush=True)


def install(peer: str, folder: Path) -> Path:
    """Make the environment of a peer and return its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    for arguments in PEERS[peer]:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *arguments], check=True)
    return python


if __name__ == "__main__":
    main()
