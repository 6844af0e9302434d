"""Declare the options of ``repsr bench``. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from repsr_cli.upscale.options import option, parse_box
from repsr_cli.upscale.request import Request

MODEL, VIDEO, MEASUREMENT = "Model and device", "Videos", "Measurement"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure; models, devices and encoders as for ``repsr upscale``.

    Attributes:
        model: name or path; None: the default.
        scale: enlargement factor; None: 4.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        tile: ``auto``, ``auto:N``, ``off`` or a size in LR px.
        threads: CPU threads; None: as many as there are cores.
        engine: computes the frames.
        codec: video encoder; None: by container.
        preset: of the encoder.
        rounds: measurements of each kind; the best counts, since other programs only slow things down.
        size: (height, width) in LR px of the frame that the network alone is measured with.
        calibrate: also time every engine and tile size that a calibration chooses from.
    """

    model: str | None = option(
        "-n", "--model", aliases=("--network",), metavar="NAME|PATH", help="Name or file.", panel=MODEL
    )
    scale: float | None = option("-s", "--scale", help="Enlargement factor; default: 4.", panel=MODEL)
    device: str = option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.", panel=MODEL)
    precision: str = option("--precision", default="auto", help="auto, fp32, fp16 or bf16.", panel=MODEL)
    tile: str = option("-t", "--tile", default="auto", help="auto, auto:PIXELS, off or a size.", panel=MODEL)
    threads: int | None = option("--threads", minimum=1, help="CPU threads.", panel=MODEL)
    engine: str = option("--engine", default="auto", help="Engine, as in repsr upscale.", panel=MODEL)
    codec: str | None = option("-c", "--codec", help="Encoder, e.g. libx265.", panel=VIDEO)
    preset: str | None = option("--preset", help="Preset of the encoder, e.g. veryfast.", panel=VIDEO)
    rounds: int = option("--rounds", default=5, minimum=1, help="Rounds; the best counts.", panel=MEASUREMENT)
    size: tuple[int, int] = option(
        "--size",
        default=(270, 480),
        metavar="WxH",
        parse=parse_box,
        help="Frame for the network alone; default: 480x270.",
        panel=MEASUREMENT,
    )
    calibrate: bool = option(
        "--calibrate",
        default=False,
        help="Also every engine and tile size that auto may use for long videos.",
        panel=MEASUREMENT,
    )

    @property
    def request(self) -> Request:
        """The request that ``repsr upscale`` would get."""
        return Request.of(
            model=self.model,
            scale=self.scale,
            device=self.device,
            precision=self.precision,
            tile=self.tile,
            threads=self.threads,
            engine=self.engine,
            codec=self.codec,
            preset=self.preset,
        )
