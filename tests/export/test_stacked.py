"""Exports of a run whose adapter is stacked on another: merged holds both, formats with one adapter refuse."""

import pytest


@pytest.fixture
def stacked(make_run):
    below = make_run("bytes")
    return make_run("bytes", name="upper", stack_on=[str(below)])


@pytest.mark.parametrize("format_name", ["merged", "hf-llava"])
def test_all_adapters_are_merged(stacked, export, format_name):
    output, _ = export(stacked, format_name)  # which fails where it does not answer as the run does
    assert not (output / "adapter_config.json").exists()


def test_a_4_bit_run_merges_its_stack(make_run, export):
    below = make_run("bytes")
    run = make_run("bytes", name="upper-4-bit", settings={"quantization": "nf4"}, stack_on=[str(below)])
    export(run, "merged")


@pytest.mark.parametrize("format_name", ["adapter", "xtuner"])
def test_formats_that_hold_one_adapter_say_so(stacked, refused, format_name):
    message = refused(stacked, format_name)
    assert message.startswith(f"{stacked}: its adapter is stacked on 1 others, and this format holds one.")
    assert f"mmtune merge {stacked} -o FOLDER" in message
