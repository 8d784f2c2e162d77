"""Two hosts train what one process trains; one that loses its power ends the run of both, which then continues.

They are namespaces of this machine, joined by torchrun's rendezvous: `two_hosts.py`.
"""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_hosts import NAMES, TwoHosts

from mmtune.cli import main
from mmtune.run_folder import is_complete
from mmtune.training.callbacks import read_log

pytestmark = pytest.mark.slow
SEVERAL = Path(__file__).parent.parent / "several.py"
PATIENCE = 240
MOST_SECONDS_TO_END = 60
SAVED = ("train.save_steps=1", "train.num_train_epochs=2", "train.gradient_accumulation_steps=1")
NO_DROPOUT = ("model.adapter={kind: lora, r: 4, lora_alpha: 8}", "train.logging_steps=1")
DROPOUT = ("model.adapter={kind: lora, r: 4, lora_dropout: 0.2}", "train.neftune_noise_alpha=5")


def arguments(folder, *changes):
    return ["sft", "mixed.yaml", f"train.output_dir={folder}", *SAVED, *changes]


RUNS = [
    [arguments("two", *NO_DROPOUT), None],
    [arguments("straight", *DROPOUT), None],
    [arguments("apart/run", *DROPOUT, "train.max_steps=1"), None],
    [arguments("apart/run", *DROPOUT, "train.max_steps=2", "--resume"), None],
    [arguments("lost", *DROPOUT), "SIGSTOP"],
]


@pytest.fixture(scope="module")
def told(mixed):
    """Runs on two hosts, the last ended by cutting the power of one and continued when it was on again.

    Returns:
        What each host wrote before and after, the seconds from the cut to the end of the other's torchrun, and the exit
        codes of its runs before.
    """
    if not shutil.which("ip") or not shutil.which("nsenter"):
        pytest.skip("two hosts need `ip` of iproute2 and `nsenter` of util-linux")
    try:
        hosts = TwoHosts().__enter__()
    except OSError as error:
        pytest.skip(str(error))
    try:
        Path("apart").mkdir()
        hosts[1].run("mount", "-t", "tmpfs", "tmpfs", str(mixed / "apart"))  # a disk of its own
        Path("runs.json").write_text(json.dumps(RUNS))
        first, _ = hosts.torchrun(mixed, str(SEVERAL), "runs.json", rendezvous=1)
        wait_for(lambda: is_complete(Path("lost/checkpoint-1")) or first.poll() is not None)
        hosts[1].cut_power()
        cut_at = time.monotonic()
        first.wait(PATIENCE)
        seconds = time.monotonic() - cut_at
        codes_before = json.loads(Path("codes-0.json").read_text())
        before = [Path(f"{name}.txt").read_text() for name in NAMES]
        hosts.restart(1)
        Path("again.json").write_text(json.dumps([[arguments("lost", *DROPOUT, "--resume"), None]]))
        codes = [each.wait(PATIENCE) for each in hosts.torchrun(mixed, str(SEVERAL), "again.json")]
        after = [Path(f"{name}.txt").read_text() for name in NAMES]
        assert codes == [0, 0], after
        return before, after, seconds, codes_before
    finally:
        hosts.__exit__()


def wait_for(is_so):
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "\n".join(Path(f"{name}.txt").read_text() for name in NAMES)
        time.sleep(0.05)


def weights(folder):
    files = [Path(folder, name) for name in ("projector.safetensors", "adapter/adapter_model.safetensors")]
    return {f"{path.name}:{key}": value for path in files for key, value in load_file(path).items()}


def test_two_hosts_train_what_one_process_does(told):
    assert main([*arguments("one", *NO_DROPOUT), "train.gradient_accumulation_steps=2"]) == 0
    losses = [[entry["loss"] for entry in read_log(Path(name, "log.jsonl"))] for name in ("two", "one")]
    assert len(losses[0]) > 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    found = weights("two")
    for key, value in weights("one").items():
        assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-5), key


def test_a_host_without_power_ends_the_run_of_the_other_with_a_line(told):
    (text, _), _, seconds, codes = told
    assert seconds < MOST_SECONDS_TO_END
    ended = "another process of this run has ended, so it ends: its own message says why. --resume continues from "
    assert f"{ended}checkpoint-1.\n" in text
    assert codes[:4] == [
        0,
        0,
        0,
        2,
    ]  # the last may be killed by its torchrun, which lost the rendezvous, when it has spoken
    assert "[rank0]: Traceback" not in text  # torchrun shows one of its own where it has lost its rendezvous


def test_a_run_that_lost_a_host_continues_bit_for_bit(told):
    _, (text, _), _, _ = told
    assert "continuing from lost/checkpoint-1 at step 1\n" in text
    found, expected = weights("lost"), weights("straight")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_folder_that_hosts_do_not_share_is_said_before_and_at_a_resume(told):
    (first, second), _, _, _ = told
    warning = "warning: apart/run is on host-a alone, host-b cannot see it: the run will be complete there, but "
    assert first.count(warning) == 2
    assert first.count("cannot see it") == 2
    error = (
        "mmtune: [rank 1 on host-b] apart/run/checkpoint-1: is not on host-b; host-a continues from it. Put "
        "train.output_dir on a disk that all machines share, or copy the checkpoint to each.\n"
    )
    assert error in second
    assert is_complete(Path("apart/run"))
