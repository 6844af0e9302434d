"""Upscale RGB images of any size with one network on one device."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from repsr_cli.cores import usable_cores
from repsr_cli.engine.backends.eager import TorchBackend
from repsr_cli.engine.backends.registry import engine_name, pick_engine
from repsr_cli.engine.body import body_of, place
from repsr_cli.engine.settings import Notify, RunSettings, pick_device, pick_precision, precision_name
from repsr_cli.engine.tensor_tiles import TensorRunner
from repsr_cli.engine.tiling import Progress, Tile, pick_tile
from repsr_cli.errors import UsageError
from repsr_cli.model.arrays import digest_of
from repsr_cli.model.foreign import ForeignSpec, ForeignSR
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec


class Upscaler:
    """Upscales RGB images tile by tile; the result equals the network on the whole image.

    Args:
        net: a plain network, RGB or luma; left untouched.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        tile: ``auto``, ``auto:N`` (tiles of at most N LR pixels, context included), ``off`` or the side of a tile in LR
            pixels.
        threads: CPU threads to compute with; None: as many as torch has set when it computes.
        notify: called with one line for the user about each decision or change of plan.
        engine: what runs the frames of videos: ``auto`` (OpenVINO on the CPU where it is installed, else torch),
            ``torch``, ``openvino``, ``onnxruntime``, ``ncnn``, ``compile`` or ``tensorrt``.

    Attributes:
        settings: the arguments, resolved.

    Raises:
        UsageError: an argument that makes no sense.
        DeviceError: no such device on this machine.
    """

    def __init__(
        self,
        net: PlainSR | ForeignSR,
        device: str = "auto",
        precision: str = "auto",
        tile: str | int = "auto",
        threads: int | None = None,
        notify: Notify = lambda _line: None,
        engine: str = "auto",
    ) -> None:
        self.net = net
        where = pick_device(device)
        number = pick_precision(precision, where)
        chosen = pick_engine(engine, where.type, precision_name(number))
        size = pick_tile(tile)
        if threads is not None and threads < 1:
            raise UsageError(f"threads {threads}", "not a positive number", f"There are {usable_cores()} cores.")
        self.settings = RunSettings(where, number, size, chosen, threads, notify)
        if net.spec.colors == 1:
            notify("this network computes luma only: colour is enlarged by bicubic interpolation")
        make_backend = partial(TorchBackend, body_of(net), self.settings.device)
        channels = max(net.spec.channels, 3 * self.scale**2)
        self._runner = TensorRunner(make_backend, self.settings, net.spec.reach, channels)

    def variant(self, engine: str, tile: str | int, precision: str | None = None) -> Upscaler:
        """The same network on the same device, with another engine and other tiles.

        Args:
            precision: number format; None: the current one.

        Raises:
            UsageError: as the constructor.
        """
        return type(self)(
            self.net,
            str(self.device),
            precision or self.precision,
            tile,
            self.settings.threads,
            notify=self.settings.notify,
            engine=engine,
        )

    @property
    def spec(self) -> Spec | ForeignSpec:
        """The network's architecture and factor."""
        return self.net.spec

    @property
    def name(self) -> str:
        """The network's size and factor, e.g. ``M4C16 x4``."""
        return f"{self.spec.name} x{self.scale}"

    @property
    def scale(self) -> int:
        """Upscaling factor."""
        return self.spec.scale

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.settings.device

    @property
    def precision(self) -> str:
        """Current number format: ``fp32``, ``fp16`` or ``bf16``. An overflow changes it to fp32 for good."""
        return precision_name(self._runner.precision)

    @property
    def threads(self) -> int:
        """CPU threads that it computes with."""
        return self.settings.thread_count

    @property
    def engine(self) -> str:
        """What runs the frames of videos, as ``--engine`` takes it."""
        return self.settings.engine

    @property
    def engine_name(self) -> str:
        """The same as ``torch``, or another engine's name and version."""
        return engine_name(self.engine)

    @property
    def tile(self) -> str:
        """The tile size asked for, as ``--tile`` takes it."""
        return str(self.settings.tile)

    def describe(self) -> str:
        """Network, device, precision and engine in one line."""
        threads = f" ({self.threads} threads)" if self.device.type == "cpu" else ""
        tile = self.tile if isinstance(self.settings.tile, str) else f"{self.tile} px"
        videos = f", videos by {self.engine_name}" if self.engine != "torch" else ""
        exact = "" if self.spec.exact else f" (not exact: they overlap by {self.spec.reach} px)"
        return f"{self.name} on {self.device}{threads}, {self.precision}, tile {tile}{exact}{videos}"

    def digest(self) -> str:
        """As ``weights_digest``."""
        return weights_digest(self.net)

    def __call__(self, lr: Tensor, progress: Progress | None = None) -> Tensor:
        """Upscale.

        Args:
            lr: (N, 3, H, W) float32 RGB, nominally in [0, 1].
            progress: called with (tiles done, tiles in total) after each tile. May raise to cancel: what it raises
                comes out of this call once no tile is being computed any more.

        Returns:
            (N, 3, H * scale, W * scale) float32 on the CPU, not clamped.

        Raises:
            DeviceError: out of memory at the smallest tile, or results that are not finite.
            MediaError: the input is not finite.
        """
        if lr.ndim != 4 or lr.shape[1] != 3 or 0 in lr.shape:
            raise ValueError(f"expected (N, 3, H, W), got {tuple(lr.shape)}")
        n, _, height, width = lr.shape
        scale = self.scale
        sr = torch.empty(n, 3, height * scale, width * scale)

        def write(features: Tensor, tile: Tile) -> None:
            samples = features.to("cpu", torch.float32)
            for image in range(n):
                for color in range(3):
                    window = sr[(image, color, *tile.core.slices(scale))]
                    place(samples[image, ..., color * scale**2 : (color + 1) * scale**2], window, scale, scale)

        self._runner(lr, write, progress)
        return sr


def weights_digest(net: nn.Module) -> str:
    """SHA-256 of the weights, 32 hexadecimal digits: the same for equal networks, whatever their files."""
    return digest_of((name, weights.cpu().numpy()) for name, weights in net.state_dict().items())
