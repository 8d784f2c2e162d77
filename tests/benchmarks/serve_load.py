"""Many requests at once to `mmtune serve`: what becomes of each, how long it takes, and what the server holds.

python tests/benchmarks/serve_load.py runs/demo/finetune --images runs/demo/data/images [--requests 200]

Starts a server as a process of its own and asks with the official client: each request alone, with a seed of its own,
half of them with an image, half as streams; then all at once, where a request that gets 429 is given up; then all at
once, where it asks again when it is told to. Exit code 1 where one is lost, or answered otherwise than alone.
"""

import argparse
import base64
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil

MAX_TOKENS = 24
QUESTIONS = ("What is this?", "How many are there?", "Tell me about owls.", "What colour is it?")


class Server:
    """`mmtune serve` as a process of its own. Use it in a `with`.

    Args:
        run: that it serves.
        queue: its size.

    Attributes:
        peak: the most memory that it held, in MiB.
    """

    def __init__(self, run: str, queue: int):
        command = [sys.executable, "-m", "mmtune", "serve", run, "--port", "0", "--queue", str(queue)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.peak, self.url = 0.0, ""

    def __enter__(self) -> "Server":
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"serving .* at (\S+)/v1,", line):
                self.url = f"{found[1]}/v1"
                break
        else:
            raise SystemExit("the server did not start")
        for work in (self._pass_over_log, self._watch):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.code = self.process.wait(60)

    def memory(self) -> float:
        """Return what it holds now, in MiB."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def _pass_over_log(self) -> None:
        assert self.process.stderr is not None
        for _ in self.process.stderr:
            pass

    def _watch(self) -> None:
        while self.process.poll() is None:
            try:
                self.peak = max(self.peak, self.memory())
            except psutil.Error:
                return
            time.sleep(0.05)


def ask(client: openai.OpenAI, model: str, number: int, images: list[str]) -> str:
    """Return the answer to a request of its own."""
    content: list[dict[str, Any]] = [{"type": "text", "text": f"{QUESTIONS[number % len(QUESTIONS)]} ({number})"}]
    if number % 2 and images:
        content.append({"type": "image_url", "image_url": {"url": images[number % len(images)]}})
    messages: Any = [{"role": "user", "content": content}]
    settings: Any = {"model": model, "messages": messages, "seed": number, "temperature": 0.8, "max_tokens": MAX_TOKENS}
    if number % 4 < 2:
        return client.chat.completions.create(**settings).choices[0].message.content
    chunks = client.chat.completions.create(**settings, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def all_at_once(num_requests: int, one: Callable[[int], str]) -> tuple[list[str], list[float], float]:
    """Return the outcome and the seconds of each of many requests that begin together, and of all."""
    gate, seconds = threading.Barrier(num_requests), [0.0] * num_requests

    def timed(number: int) -> str:
        gate.wait()
        start = time.monotonic()
        try:
            return one(number)
        except openai.RateLimitError:
            return "429"
        except openai.OpenAIError as error:
            return f"lost: {error!r}"
        finally:
            seconds[number] = time.monotonic() - start

    start = time.monotonic()
    with ThreadPoolExecutor(num_requests) as pool:
        found = list(pool.map(timed, range(num_requests)))
    return found, seconds, time.monotonic() - start


def report(title: str, found: list[str], seconds: list[float], whole: float, alone: list[str]) -> bool:
    """Print what became of requests, and return whether each was answered as alone or got 429."""
    kinds = Counter()
    for one, expected in zip(found, alone, strict=True):
        kind = (
            "429" if one == "429" else "lost" if one.startswith("lost") else "same" if one == expected else "mixed up"
        )
        kinds[kind] += 1
    answered = sorted(each for each, one in zip(seconds, found, strict=True) if one != "429")
    refused = sorted(each for each, one in zip(seconds, found, strict=True) if one == "429")
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{title}: {shown} in {whole:.1f} s")
    for name, times in (("answered", answered), ("429", refused)):
        if times:
            print(f"  {name} after {times[len(times) // 2]:.2f} s (median), {times[-1]:.2f} s (last)")
    return not kinds["lost"] and not kinds["mixed up"]


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--images", type=Path, help="a folder with images to ask about")
    parser.add_argument("--requests", type=int, default=200, help="at once (200)")
    parser.add_argument("--queue", type=int, default=32, help="of the server (32)")
    args = parser.parse_args()
    paths = sorted(args.images.glob("*.png"))[:20] if args.images else []
    images = [f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in paths]
    with Server(args.run, args.queue) as server:
        options: Any = {"base_url": server.url, "api_key": "none", "timeout": 3600}
        hasty, patient = openai.OpenAI(**options, max_retries=0), openai.OpenAI(**options, max_retries=1000)
        model = hasty.models.list().data[0].id
        ask(hasty, model, 0, images)
        before, start = server.memory(), time.monotonic()
        alone = [ask(hasty, model, number, images) for number in range(args.requests)]
        print(f"one by one: {args.requests} answered in {time.monotonic() - start:.1f} s, {len(set(alone))} different")
        is_right = True
        for title, client in (("at once, 429 is given up", hasty), ("at once, 429 asks again", patient)):
            outcome = all_at_once(args.requests, lambda number, client=client: ask(client, model, number, images))
            is_right &= report(title, *outcome, alone)
        print(f"memory: {before:.0f} MiB before, {server.peak:.0f} at most, {server.memory():.0f} after")
    print(f"the server ended with {server.code}")
    return 0 if is_right and server.code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
