"""A network made ready to enlarge images of any size on one device."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from repsr_cli.engine.backends.onnxruntime import LAYERS, ForeignBody
from repsr_cli.engine.backends.openvino import CompiledBody, compiles
from repsr_cli.engine.backends.registry import engine_name, pick_engine
from repsr_cli.engine.body import LumaBody, body_of, place
from repsr_cli.engine.colour_folding import Folded
from repsr_cli.engine.runner import (
    Progress,
    Say,
    TileRunner,
    name_of,
    pick_device,
    pick_precision,
    pick_tile,
    thread_count,
)
from repsr_cli.engine.tiling import Tile
from repsr_cli.model.plain import PlainSR, Spec
from repsr_cli.yuv.formats import PlaneFormat

__all__ = ["Upscaler", "pick_device"]


class Upscaler:
    """Enlarges RGB images; equal, tile by tile, to the network on the whole image.

    Args:
        net: a plain network, RGB or luma; left untouched.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        tile: ``auto``, ``auto:N`` (tiles of at most N LR pixels, their surroundings included), ``off`` or the side of a
            tile in LR pixels.
        threads: CPU threads to compute with; None: as many as torch has set when it computes.
        engine: what runs the frames of videos: ``auto`` (OpenVINO on the CPU where it is installed, else torch),
            ``torch``, ``openvino``, ``onnxruntime``, ``ncnn``, ``compile`` or ``tensorrt``.
        say: one line for the user about what was decided or had to change.

    Raises:
        UsageError: an argument that makes no sense.
        DeviceError: no such device on this machine.
    """

    def __init__(
        self,
        net: PlainSR,
        device: str = "auto",
        precision: str = "auto",
        tile: str | int = "auto",
        threads: int | None = None,
        say: Say = lambda _line: None,
        engine: str = "auto",
    ) -> None:
        self.net = net
        self._say = say
        self._tile = pick_tile(tile)
        where = pick_device(device)
        self._threads = thread_count(threads)
        self._device = where
        self._precision = pick_precision(precision, where)
        self._engine = pick_engine(engine, where, self._precision)
        if net.spec.colors == 1:
            say("this network knows luma only: colour is enlarged by bicubic interpolation")
        self._runner = self.runner(LumaBody(net) if net.spec.colors == 1 else body_of(net), 3 * self.scale**2)

    def variant(self, engine: str, tile: str | int) -> Upscaler:
        """The same network where this one is, with another engine and other tiles.

        Raises:
            UsageError: as the constructor.
        """
        return type(self)(self.net, str(self.device), self.precision, tile, self._threads, say=self._say, engine=engine)

    def folded_runner(self, folded: Folded, fmt: PlaneFormat, margin: int) -> tuple[TileRunner, str]:
        """A runner for a folded network, by the engine that was picked.

        Args:
            folded: the network.
            fmt: the planes it shall write.
            margin: pixels around the core that are wanted of every tile.

        Returns:
            The runner, and what computes: ``torch``, or another's name and version. By OpenVINO, which does not take
            every format, it gives finished samples (see ``CompiledTrunk``) in place of features.
        """
        threads, name = self.threads, engine_name(self._engine)
        body: nn.Module = folded.body
        compiled = None
        if self._engine == "openvino" and compiles(folded):
            compiled = CompiledBody(folded, fmt, threads)
        elif self._engine == "openvino":
            self._say(f"chroma of this siting at x{self.scale} is not for {name}: torch computes the frames")
            name = "torch"
        elif self._engine in LAYERS:
            # The runner has two tiles under way.
            body = ForeignBody(self._engine, folded.body, max(threads // 2, 1))
        return self.runner(body, folded.parts[-1].stop, margin, compiled, self._engine), name

    def runner(
        self,
        body: nn.Module,
        outputs: int,
        margin: int = 0,
        compiled: CompiledBody | None = None,
        engine: str = "torch",
    ) -> TileRunner:
        """A runner for a variant of this network, on the same device, in the precision and tiles asked for.

        Args:
            body: what to run; same reach as the network.
            outputs: features it gives for each LR pixel.
            margin: pixels around the core that are wanted of every tile.
            compiled: what computes in place of the body.
            engine: as ``TileRunner``.
        """
        return TileRunner(
            body,
            reach=self.spec.reach,
            channels=max(self.spec.channels, outputs),
            device=self._device,
            precision=self._precision,
            tile=self._tile,
            say=self._say,
            margin=margin,
            compiled=compiled,
            engine=engine,
            threads=self._threads,
        )

    @property
    def spec(self) -> Spec:
        """What the network is."""
        return self.net.spec

    @property
    def scale(self) -> int:
        """Enlargement factor."""
        return self.spec.scale

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._device

    @property
    def precision(self) -> str:
        """Number format in force: ``fp32``, ``fp16`` or ``bf16``. An overflow changes it to fp32 for good."""
        return name_of(self._runner.precision)

    @property
    def threads(self) -> int:
        """CPU threads that it computes with."""
        return self._threads or torch.get_num_threads()

    @property
    def engine(self) -> str:
        """What runs the frames of videos, by the words of ``--engine``."""
        return self._engine

    @property
    def engine_name(self) -> str:
        """The same as ``torch``, or another's name and version."""
        return engine_name(self._engine)

    @property
    def tile(self) -> str:
        """The tiles asked for, by the words of ``--tile``."""
        return str(self._tile)

    def describe(self) -> str:
        """Network, device, precision and engine in one line."""
        threads = f" ({self.threads} threads)" if self.device.type == "cpu" else ""
        tile = self._tile if isinstance(self._tile, str) else f"{self._tile} px"
        videos = f", videos by {self.engine_name}" if self._engine != "torch" else ""
        return f"{self.spec.name} x{self.scale} on {self.device}{threads}, {self.precision}, tile {tile}{videos}"

    def digest(self) -> str:
        """SHA-256 of the weights, 32 hexadecimal digits: equal networks have the same, from whatever file."""
        digest = hashlib.sha256()
        for name, weights in self.net.state_dict().items():
            digest.update(name.encode() + weights.cpu().numpy().tobytes())
        return digest.hexdigest()[:32]

    def __call__(self, lr: Tensor, progress: Progress | None = None) -> Tensor:
        """Enlarge.

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
