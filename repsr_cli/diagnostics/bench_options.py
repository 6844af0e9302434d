"""Declare the options of ``repsr bench``. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import Field, dataclass
from typing import Any, Literal

from repsr_cli.options import Option, declared_options, option, parse_box, shared
from repsr_cli.upscale.request import MODEL, ModelOptions, Request, SizeOptions, VideoOptions

MEASUREMENT = "Measurement"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure; models, devices and encoders as for ``repsr upscale``."""

    model: str | None = shared(ModelOptions, "model")
    scale: float | None = shared(SizeOptions, "scale", panel=MODEL)
    device: str = shared(ModelOptions, "device", help="auto, cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = shared(ModelOptions, "precision")
    tile: str = shared(ModelOptions, "tile")
    threads: int | None = shared(ModelOptions, "threads")
    engine: str = shared(ModelOptions, "engine")
    codec: str | None = shared(VideoOptions, "codec")
    preset: str | None = shared(VideoOptions, "preset")
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
        return Request.of(**{each.name: getattr(self, each.name) for each, _ in self._of_upscale()})

    @property
    def arguments(self) -> list[str]:
        """The same as arguments of the command line."""
        given = [(declared.name, getattr(self, each.name)) for each, declared in self._of_upscale()]
        return [word for flag, value in given if value is not None for word in (flag, str(value))]

    def _of_upscale(self) -> list[tuple[Field[Any], Option]]:
        return [(each, declared) for each, declared in declared_options(type(self)) if declared.panel != MEASUREMENT]
