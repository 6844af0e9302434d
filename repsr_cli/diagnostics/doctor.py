"""Examine this machine: libraries, codecs, models and devices."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from repsr_cli.cores import usable_cores
from repsr_cli.engine.backends.quiet_import import quiet_import
from repsr_cli.errors import CheckpointError, RepsrError, raise_shortage
from repsr_cli.version import __version__

State = Literal["ok", "absent", "broken"]

ENCODERS = {
    "libx264": "H.264, the default",
    "libx265": "H.265",
    "libsvtav1": "AV1",
    "libvpx-vp9": "VP9, for WebM",
    "prores_ks": "ProRes, for editing",
    "ffv1": "lossless",
}
NVENC = {"h264_nvenc": "H.264 by NVENC", "hevc_nvenc": "H.265 by NVENC", "av1_nvenc": "AV1 by NVENC"}
EXTRAS = {
    "cv2": ("AVIF and JPEG 2000 beyond 8 bit, Radiance HDR", "pip install opencv-python-headless"),
    "imageio": ("compare --blink", "pip install imageio"),
    "openvino": ("videos on the CPU, faster", "pip install 'repsr[openvino]'"),
    "onnxruntime": ("videos on the CPU, and checking exported files", "pip install 'repsr[onnx]'"),
    "ncnn": ("videos on the CPU, and checking exported files", "pip install 'repsr[ncnn]'"),
    "pillow_heif": ("HEIC images", "pip install 'repsr[heif]'"),
    "pillow_jxl": ("JPEG XL images", "pip install 'repsr[jxl]'"),
}
# Half precision differs from fp32 by a few thousandths in the self-test, a broken driver by tenths.
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        state: ``ok``, ``absent`` (repsr works without it) or ``broken`` (something will fail).
        remedy: what to do about it; empty for ``ok``.
        exit_code: of the command, for a broken finding.
    """

    subject: str
    state: State
    text: str
    remedy: str = ""
    exit_code: int = 0


def examine() -> Iterator[Finding]:
    """Check everything, quick checks first."""
    cores = usable_cores()
    yield Finding(
        "repsr", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}, {cores} cores"
    )
    missing = False
    for finding in _libraries():
        missing = missing or finding.state == "broken"
        yield finding
    for check in (_encoders, _nvidia, _extras, _choices, _models, _devices):
        try:
            yield from check()
        except ImportError as error:
            raise_shortage(error)
            if not missing:  # else it is of a library that was reported
                remedy = "Install repsr again: pip install --force-reinstall repsr"
                yield Finding("libraries", "broken", f"one cannot be imported ({error})", remedy, exit_code=3)


def _libraries() -> Iterator[Finding]:
    for module, package, need, remedy in (
        ("torch", "torch", "running models", "pip install torch"),
        ("safetensors", "safetensors", "model files", "pip install safetensors"),
        ("PIL", "pillow", "images", "pip install pillow"),
        ("av", "av", "videos", "pip install av"),
    ):
        try:
            version = getattr(quiet_import(module), "__version__", "")
        except ImportError as error:
            yield Finding(package, "broken", f"needed for {need}, cannot be imported ({error})", remedy, exit_code=3)
        else:
            yield Finding(package, "ok", str(version))


def _encoders() -> Iterator[Finding]:
    from av.codec import codecs_available

    for name, what in ENCODERS.items():
        if name in codecs_available:
            yield Finding(name, "ok", what)
        else:
            yield Finding(name, "absent", f"{what}: this build of PyAV lacks the encoder", "pip install -U av")


def _nvidia() -> Iterator[Finding]:
    """Check what the first GPU decodes and encodes, by trying."""
    from repsr_cli.video.cuda_planes import missing_device
    from repsr_cli.video.encode import nvenc_refusal
    from repsr_cli.video.nvdec import nvdec_refusal

    why = missing_device(0)
    if why is not None:
        yield Finding("nvdec, nvenc", "absent", f"no GPU ({why})", "With an NVIDIA GPU: install its driver.")
        return
    why = nvdec_refusal(0)
    if why is None:
        yield Finding("nvdec", "ok", "--hwaccel cuda")
    else:
        yield Finding("nvdec", "absent", f"cuda:0 decodes nothing ({why})", "Leave --hwaccel out.")
    for codec, what in NVENC.items():
        why = nvenc_refusal(codec)
        if why is None:
            yield Finding(codec, "ok", what)
        else:
            remedy = "Choose another encoder, or update the driver."
            yield Finding(codec, "absent", f"{what}: cuda:0 or its driver lacks it ({why})", remedy)


def _extras() -> Iterator[Finding]:
    for module, (what, remedy) in EXTRAS.items():
        try:
            quiet_import(module)
        except ImportError:
            yield Finding(module, "absent", what, remedy)
        else:
            yield Finding(module, "ok", what)


def _choices() -> Iterator[Finding]:
    from repsr_cli.upscale.choices import choices_file, recall_choices

    file, problems = choices_file(), list[str]()
    choices = recall_choices(problems.append)
    if problems:
        yield Finding("calibration", "absent", problems[0], f"Remove {file}, or let the next long video replace it.")
        return
    yield Finding("calibration", "ok", f"{file}: {len(choices)} measured")
    for kind, choice in choices.items():
        yield Finding("calibration", "ok", f"{choice.engine}, tile {choice.tile}, for {kind}")


def _models() -> Iterator[Finding]:
    from repsr_cli.model.zoo import available, load_compact

    try:
        models = available()
    except CheckpointError as error:
        yield Finding("models", "broken", error.happened, error.remedy, exit_code=error.exit_code)
        return
    for model in models:
        try:
            load_compact(model)
        except CheckpointError as error:
            yield Finding(model.name, "broken", error.happened, error.remedy, exit_code=error.exit_code)
        else:
            yield Finding(model.name, "ok", f"{model.network}, sha256 {model.sha256[:12]}")


def _devices() -> Iterator[Finding]:
    import torch

    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    for name in names:
        for precision in ("fp32",) if name == "cpu" else ("fp32", "fp16"):
            yield self_test(name, precision)
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        built = (
            "this torch is built for CUDA, but finds no device"
            if torch.version.cuda
            else "this torch is built for the CPU"
        )
        yield Finding("gpu", "absent", built, "With an NVIDIA GPU: install its driver and a CUDA build of torch.")


def self_test(device: str, precision: str) -> Finding:
    """Upscale a 32x32 image on a device and compare it with plain torch in fp32 on the CPU."""
    import torch

    from repsr_cli.engine.upscaler import Upscaler
    from repsr_cli.model.plain import PlainSR
    from repsr_cli.model.spec import Spec

    generator = torch.Generator().manual_seed(5)
    net = PlainSR(Spec(scale=2, channels=16, blocks=4)).eval()
    with torch.inference_mode():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        lr = torch.rand(1, 3, 32, 32, generator=generator)
        expected = net(lr)
    subject = f"{device} {precision}"
    try:
        error = float((Upscaler(net, device=device, precision=precision, tile=16)(lr) - expected).abs().max())
    except RepsrError as failure:
        return Finding(subject, "broken", failure.happened, failure.remedy, exit_code=failure.exit_code)
    name = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
    )
    if not error <= TOLERANCE[precision]:
        remedy = "Use --precision fp32, or another device." if precision == "fp16" else "Use --device cpu."
        return Finding(
            subject, "broken", f"{name}: wrong numbers, off by {error:.2g} in a 32x32 test", remedy, exit_code=5
        )
    return Finding(subject, "ok", f"{name}: off by at most {error:.1e} in a 32x32 test")
