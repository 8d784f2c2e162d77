#!/usr/bin/env python3
"""Lets a model behind an OpenAI-compatible endpoint write LLaVA records about one's own images."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtune.data.makers.endpoint import Endpoint
from mmtune.data.makers.make_qa import QaCounts, QaSettings, failures_path, find_images, first_request, make_qa
from mmtune.data.makers.qa_file import Job
from mmtune.data.makers.qa_prompts import LANGUAGES, STYLES
from mmtune.data.makers.script import EXIT_MISTAKE, at_least, new_parser, run_script
from mmtune.errors import ConfigError

DESCRIPTION = """Send images to an OpenAI-compatible endpoint (vLLM, LMDeploy, Ollama, llama.cpp, a paid service) and
write its questions and answers as LLaVA records, one JSON line each. Run the same command again after an interruption
or failures: only what is missing is asked. Images leave this machine where the endpoint is elsewhere."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns 0, or 2 for a mistake or where some images failed."""
    example = (
        "python data_tools/make_qa.py --image-folder photos -o photos.jsonl "
        "--base-url http://localhost:8000/v1 --model NAME"
    )
    parser = new_parser("make_qa", DESCRIPTION, example)
    parser.add_argument("--image-folder", required=True, type=Path, metavar="DIR", help="searched with its subfolders")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the .jsonl to add to")
    _add_endpoint(parser)
    _add_settings(parser)
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N images, by name")
    parser.add_argument("--dry-run", action="store_true", help="print the first request, without the image; send none")
    return run_script(parser, run, argv)


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base-url", required=True, metavar="URL", help="such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, metavar="NAME", help="the name that the endpoint knows")
    parser.add_argument(
        "--api-key-env", metavar="VARIABLE", help="the environment variable that holds the key; default: no key is sent"
    )
    parser.add_argument("--timeout", type=at_least(0.1, float), default=120, metavar="S", help="seconds (default 120)")
    parser.add_argument("--temperature", type=at_least(0, float), help="default: the endpoint's own")
    parser.add_argument("--max-tokens", type=at_least(1), metavar="N", help="of an answer; default: the endpoint's own")
    parser.add_argument("--json-mode", action="store_true", help="ask the endpoint to force JSON (response_format)")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    defaults = QaSettings()
    parser.add_argument(
        "--style", nargs="+", choices=STYLES, default=["conversation"], help="one request each (default conversation)"
    )
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="of questions and answers (default en)")
    parser.add_argument(
        "--per-image",
        type=at_least(1),
        metavar="N",
        help="question-answer pairs for each image and style (default: conversation 3, as one record; others 1)",
    )
    parser.add_argument(
        "--max-side",
        type=at_least(28),
        default=defaults.max_side,
        metavar="PIXELS",
        help=f"larger images are made smaller (default {defaults.max_side})",
    )
    parser.add_argument(
        "--retries",
        type=at_least(0),
        default=defaults.retries,
        metavar="N",
        help=f"after HTTP errors, timeouts and unusable answers (default {defaults.retries})",
    )
    parser.add_argument(
        "--backoff",
        type=at_least(0, float),
        default=defaults.backoff_s,
        metavar="S",
        help=f"seconds before the first retry, then twice as long each (default {defaults.backoff_s:g})",
    )
    parser.add_argument(
        "--concurrency",
        type=at_least(1),
        default=defaults.concurrency,
        metavar="N",
        help=f"requests at one time (default {defaults.concurrency})",
    )


def _endpoint(args: argparse.Namespace) -> Endpoint:
    key = None
    if args.api_key_env is not None:
        key = os.environ.get(args.api_key_env)
        if key is None:
            reason = f"the environment has no variable '{args.api_key_env}'. Set it, or leave the option out."
            raise ConfigError("--api-key-env", reason)
    options: dict[str, Any] = {"temperature": args.temperature, "max_tokens": args.max_tokens}
    options["response_format"] = {"type": "json_object"} if args.json_mode else None
    given = {name: value for name, value in options.items() if value is not None}
    return Endpoint(args.base_url, args.model, key.strip() if key else key, args.timeout, given)


def run(args: argparse.Namespace) -> int:
    """Ask, and sum up."""
    if args.output.suffix != ".jsonl":
        raise ConfigError("--output", f"must end in .jsonl, since lines are added to it (got '{args.output}').")
    endpoint = _endpoint(args)
    settings = QaSettings(
        styles=tuple(dict.fromkeys(args.style)),
        language=args.language,
        num_pairs=args.per_image,
        max_side=args.max_side,
        retries=args.retries,
        backoff_s=args.backoff,
        concurrency=args.concurrency,
    )
    images = find_images(args.image_folder, args.limit)
    if args.dry_run:
        body = first_request(args.image_folder, images, endpoint, settings)
        print(json.dumps(body, ensure_ascii=False, indent=2))
        num_requests = len(images) * len(settings.styles)
        print(f"make_qa: {len(images)} images x {len(settings.styles)} styles = {num_requests} requests; none was sent")
        return 0
    counts = make_qa(args.image_folder, images, args.output, endpoint, settings, report)
    print_summary(counts, args.output, args.image_folder)
    return EXIT_MISTAKE if counts.num_failed else 0


def report(job: Job, reason: str) -> None:
    """Say how a job ended."""
    print(f"{job.image} ({job.style}): {reason or 'done'}", file=sys.stderr)


def print_summary(counts: QaCounts, output: Path, image_folder: Path) -> None:
    """Print what became of the jobs."""
    listed = f", listed in {failures_path(output)}: run the command again" if counts.num_failed else ""
    print(
        f"make_qa: {counts.num_jobs} requests for {counts.num_images} images = {counts.num_done_before} done before + "
        f"{counts.num_made} made + {counts.num_failed} failed{listed}"
    )
    if counts.num_dropped:
        print(f"{counts.num_dropped} lines that an interruption left unfinished were removed and asked again")
    print(f"{counts.num_records} records added to {output}; in the config, image_folder: {image_folder}")


if __name__ == "__main__":
    sys.exit(main())
