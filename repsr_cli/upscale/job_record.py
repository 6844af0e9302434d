"""Describe the job of a video: everything that its packets depend on, so that no two jobs are mixed in one file."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import av

from repsr_cli.upscale.plan_video import VideoPlan
from repsr_cli.version import __version__
from repsr_cli.video.segments import fingerprint


def job_record(plan: VideoPlan, network: str, device: str, precision: str, engine: str, tile: str) -> dict[str, Any]:
    """Everything that packets depend on.

    Args:
        network: digest of the weights.
        device: kind of device that computes.
        precision: number format that was chosen.
        engine: what computes, with its version.
    """
    computed_by = {"network": network, "device": device, "precision": precision, "engine": engine, "tile": tile}
    return {**planned_record(plan), **computed_by}


def planned_record(plan: VideoPlan) -> dict[str, Any]:
    """What a plan knows of its job's record, before a network is loaded."""
    return {
        **{f"version of {name}": version for name, version in _versions().items()},
        "source": "-" if plan.timeline is None else f"{fingerprint(plan.source.path)}-{plan.timeline.digest}",
        "deinterlace": plan.deinterlace,
        "flagged_only": plan.flagged_only,
        "decoder": "software" if plan.nvdec is None else "nvdec",
        "encoding": repr(plan.encoding),
        "planes": f"{plan.source.planar} {plan.source.tags}",
        "crop": str(plan.source.crop),
        "segments": [[segment.first, segment.end] for segment in plan.segments],
    }


def _versions() -> dict[str, str]:
    """Versions of what packets depend on. The encoders are part of PyAV's libavcodec."""
    encoders = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return {"repsr": __version__, "torch": version("torch"), "av": av.__version__, "libavcodec": encoders}
