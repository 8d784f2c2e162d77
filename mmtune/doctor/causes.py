"""Errors of libraries that are known: what they mean here and what mends them."""

import re

CAUSES = (
    (r"torchvision::|torchvision\.extension", "torchvision was built for another torch", "{torchvision}"),
    (
        r"lib(cudart|cublas|cudnn|nvrtc|nccl|cusparse)\S* .*cannot open",
        "a library of CUDA that torch was built with is missing",
        "pip install --force-reinstall torch",
    ),
    (
        r"no kernel image is available",
        "this build of torch has no code for this GPU",
        "Install a build of torch for a newer CUDA (or, for an old GPU, for an older one).",
    ),
    (
        r"driver .*(too old|insufficient)",
        "the driver is older than the CUDA that torch was built for",
        "Update the driver of the GPU, or install a build of torch for an older CUDA.",
    ),
    (
        r"(WinError 126|DLL load failed)",
        "a library of Windows is missing",
        "Install Microsoft's Visual C++ Redistributable (x64), then try again.",
    ),
    (
        r"compiled using NumPy 1|numpy\.core\.multiarray failed",
        "a package was built for another NumPy",
        "pip install --upgrade --force-reinstall {module}",
    ),
    (r"by SIGILL", "this processor lacks instructions that the library was built with", "Install another build of it."),
    (r"out of memory", "no memory is left on the device", "End other programs that use it: nvidia-smi lists them."),
)
"""Pattern in the error -> what it means, the mend."""


def explained(error: str, module: str, torch_version: str | None) -> tuple[str, str]:
    """Return what an error means, with its own words behind, and what mends it.

    Args:
        error: one line.
        module: that was imported.
        torch_version: where torch can be imported.
    """
    for pattern, meaning, mend in CAUSES:
        if re.search(pattern, error):
            return f"{meaning} ({error})", mend.format(torchvision=torchvision_mend(torch_version), module=module)
    if missing := re.search(r"No module named '([\w.]+)'", error):
        return error, f"pip install --force-reinstall {missing[1].partition('.')[0]}"
    return error, f"pip install --upgrade --force-reinstall {module}"


def torchvision_mend(torch_version: str | None) -> str:
    """Return the command that makes torchvision fit, or that removes it, since only open_clip needs it.

    Its minor version is that of torch and 15.
    """
    parts = re.match(r"2\.(\d+)", torch_version or "")
    remove = "pip uninstall -y torchvision"
    if parts is None:
        return remove
    return f'pip install --no-deps "torchvision==0.{int(parts[1]) + 15}.*", or, as only open_clip needs it: {remove}'
