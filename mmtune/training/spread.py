"""How much of a run each of several devices holds: all of it (DDP), or a share (DeepSpeed's ZeRO).

What a device holds of a model is added up in `plan.py`; here is what becomes of that with more devices. Sources:
DistributedDataParallel's reducer (Li et al. 2020, arXiv:2006.15704) and ZeRO (Rajbhandari et al. 2020,
arXiv:1910.02054), table 1.
"""

from dataclasses import dataclass
from typing import Any

FP32 = 4
"""Bytes of a number of ZeRO's own copies."""


@dataclass(frozen=True)
class Held:
    """What one device holds all the time, in bytes.

    Attributes:
        weights: parameters; under ZeRO-3 its share, without what is gathered for a block.
        constants: of a quantization.
        gradients: of what trains.
        optimizer: states, and ZeRO's float32 copies of what trains.
        buckets: where gradients wait to be summed up, and under ZeRO-3 the weights that are gathered at a time.
        main_memory: what is offloaded to the machine's memory, for this device.
    """

    weights: int
    constants: int
    gradients: int
    optimizer: int
    buckets: int = 0
    main_memory: int = 0


@dataclass(frozen=True)
class Spread:
    """How a run is spread over devices.

    Attributes:
        num_devices: that train together, each with batches of its own.
        stage: of ZeRO: 1 splits the optimizer's states, 2 gradients too, 3 weights too; None: DDP, or one device.
        offloads_states: states lie in main memory.
        offloads_weights: so do weights.
        bucket_numbers: gradients that ZeRO sums up at a time.
        overlaps: a second bucket is filled while the first is sent.
        live_numbers: weights that ZeRO-3 holds whole at most.
    """

    num_devices: int = 1
    stage: int | None = None
    offloads_states: bool = False
    offloads_weights: bool = False
    bucket_numbers: int = 0
    overlaps: bool = False
    live_numbers: int = 0

    @property
    def name(self) -> str:
        """What it is called."""
        offload = " with offload" if self.offloads_states or self.offloads_weights else ""
        return "DDP" if self.stage is None else f"ZeRO-{self.stage}{offload}"

    def held(self, whole: Held, num_trained: int, compute_bytes: int) -> Held:
        """Return what a device holds of a model.

        Args:
            whole: what one device without others holds.
            num_trained: numbers that train; `whole` has them in float32, or as they are kept.
            compute_bytes: of a number in the dtype that is computed in.
        """
        if self.stage is None:
            # DDP copies gradients into buckets, all of which are there from the start.
            buckets = whole.gradients if self.num_devices > 1 else 0
            return Held(whole.weights, whole.constants, whole.gradients, whole.optimizer, buckets)
        weights = whole.weights - whole.gradients + num_trained * compute_bytes  # gradients are as large as what trains
        gradients = num_trained * compute_bytes
        states = self._share(whole.optimizer + FP32 * num_trained)
        if self.stage >= 2:
            gradients = self._share(gradients)
        buckets = self.bucket_numbers * compute_bytes * (2 if self.overlaps else 1)
        if self.stage == 3:
            buckets += min(weights, self.live_numbers * compute_bytes)
            weights = self._share(weights)
        moved = (states if self.offloads_states else 0) + (weights if self.offloads_weights else 0)
        if self.offloads_states and self.stage >= 2:  # gradients wait beside them, in float32
            moved, gradients = moved + self._share(FP32 * num_trained), 0
        return Held(
            0 if self.offloads_weights else weights,
            whole.constants,
            gradients,
            0 if self.offloads_states else states,
            buckets,
            moved,
        )

    def workspace(self, alone: int, num_trained: int) -> int:
        """Return what an optimizer's step makes and gives back; ZeRO's also makes its gradients float32.

        Args:
            alone: what it makes on one device.
            num_trained: numbers that train.
        """
        if self.stage is None:
            return alone
        return 0 if self.offloads_states else self._share(alone + FP32 * num_trained)

    def _share(self, size: int) -> int:
        return -(-size // self.num_devices)


ALONE = Spread()
"""One device."""


def spread_of(num_devices: int, settings: dict[str, Any] | None, hidden_size: int) -> Spread:
    """Return how DeepSpeed's settings spread a run.

    Args:
        num_devices: that train together.
        settings: DeepSpeed's, with "auto" in them; None: DDP.
        hidden_size: of the language model: Trainer fills "auto" buckets in with its square.
    """
    if settings is None:
        return Spread(num_devices)
    zero = settings["zero_optimization"]
    bucket = zero.get("reduce_bucket_size", 500_000_000)
    return Spread(
        num_devices,
        stage=zero["stage"] or None,
        offloads_states=_is_offloaded(zero, "offload_optimizer"),
        offloads_weights=_is_offloaded(zero, "offload_param"),
        bucket_numbers=hidden_size**2 if bucket == "auto" else int(bucket),
        overlaps=bool(zero.get("overlap_comm", zero["stage"] == 3)),
        live_numbers=int(zero.get("stage3_max_live_parameters", 1e9)),
    )


def _is_offloaded(zero: dict[str, Any], section: str) -> bool:
    return zero.get(section, {}).get("device", "none") != "none"
