"""Upscale images, frames and files from Python: what ``import repsr_cli`` offers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import RepsrError, UsageError
from repsr_cli.image.page import Strip, page_of
from repsr_cli.image.pillow import image_of, samples_of
from repsr_cli.model import zoo
from repsr_cli.options import declared_options
from repsr_cli.reporting import Outcome, Progress, Reporter
from repsr_cli.upscale.batch import executor_for, make_folders, plan_job, remove_empty, run_plan, settle_scale
from repsr_cli.upscale.image import enlarged
from repsr_cli.upscale.jobs import plan_jobs
from repsr_cli.upscale.models import ModelCache, check_compute
from repsr_cli.upscale.precision import resolved
from repsr_cli.upscale.request import GROUPS, Naming, Request
from repsr_cli.video.stages import Stopwatch, begun_ahead
from repsr_cli.yuv.formats import PlaneFormat

ModelKind = Literal["clean", "real", "detail", "video"]
# What goes in comes out.
ImageT = TypeVar("ImageT", Image.Image, NDArray[Any], Tensor)

_ARRAYS = ("uint8", "uint16", "float16", "float32", "float64")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")


class Model:
    """A model on a device, ready to upscale.

    Args:
        upscaler: what computes.
        name: as ``repsr models`` lists it, or the file's path.

    Attributes:
        name: likewise.
        upscaler: what computes, for (N, 3, H, W) tensors.
    """

    def __init__(self, upscaler: Upscaler, name: str) -> None:
        self.name = name
        self.upscaler = upscaler

    def __repr__(self) -> str:
        return f"Model({self.name!r}, scale={self.scale}, device={self.device!r}, precision={self.precision!r})"

    @property
    def scale(self) -> int:
        """Enlargement factor."""
        return self.upscaler.scale

    @property
    def device(self) -> str:
        """Where it computes, e.g. ``cpu`` or ``cuda:0``."""
        return str(self.upscaler.device)

    @property
    def precision(self) -> str:
        """Number format it computes in: ``fp32``, ``fp16`` or ``bf16``."""
        return self.upscaler.precision

    def upscale(
        self, image: ImageT, *, tta: bool = False, progress: Callable[[Progress], None] | None = None
    ) -> ImageT:
        """Enlarge one image by ``scale``. Grey stays grey, and transparency is enlarged apart from colour.

        Args:
            image: one of

                * a PIL image; palettes and bilevel images become the mode that holds their colours;
                * an array of shape (H, W), (H, W, 1), (H, W, 3), or (H, W, 2 or 4) with alpha last; uint8, uint16, or
                  floats in [0, 1];
                * a tensor of shape (C, H, W) or (N, C, H, W) with as many channels, on any device; uint8, uint16, or
                  floats in [0, 1]. No gradients pass through.
            tta: average over the 8 flips and rotations, which takes 8 times as long.
            progress: called after each tile; what it raises stops the work.

        Returns:
            The same type, layout, dtype and device.

        Raises:
            TypeError: neither of these types or dtypes.
            ValueError: another shape or mode.
            DeviceError: out of memory at the smallest tile, or results that are not finite.
        """
        if isinstance(image, Image.Image):
            return self._pil(image, tta, progress)
        if isinstance(image, np.ndarray):
            return self._array(image, tta, progress)
        if isinstance(image, Tensor):
            return self._tensor(image, tta, progress)
        raise TypeError(f"expected a PIL image, a numpy array or a torch tensor, got {type(image).__name__}")

    def _pil(self, image: Image.Image, tta: bool, progress: Callable[[Progress], None] | None) -> Image.Image:
        if image.mode not in _MODES:
            raise ValueError(f"expected a PIL image of grey or RGB, got mode {image.mode}; try image.convert('RGB')")
        made = image_of(self._enlarged(samples_of(image), tta, progress))
        made = made.convert("I") if image.mode == "I" else made
        made.info = {key: value for key, value in image.info.items() if key not in ("transparency", "background")}
        return made

    def _array(self, image: NDArray[Any], tta: bool, progress: Callable[[Progress], None] | None) -> NDArray[Any]:
        if image.dtype.name not in _ARRAYS:
            raise TypeError(f"expected an array of uint8, uint16 or floats, got {image.dtype}")
        whole = image[..., None] if image.ndim == 2 else image
        if whole.ndim != 3 or whole.shape[2] not in (1, 2, 3, 4) or 0 in whole.shape:
            raise ValueError(f"expected an array of (H, W) or (H, W, 1 to 4), got {image.shape}")
        if image.dtype.kind == "f":
            whole = whole.astype(np.float32)
        pixels = self._enlarged(Strip.of(whole, alpha=whole.shape[2] in (2, 4)), tta, progress).samples
        return (pixels[..., 0] if image.ndim == 2 else pixels).astype(image.dtype, copy=False)

    def _tensor(self, image: Tensor, tta: bool, progress: Callable[[Progress], None] | None) -> Tensor:
        if not (image.is_floating_point() or image.dtype in (torch.uint8, torch.uint16)):
            raise TypeError(f"expected a tensor of uint8, uint16 or floats, got {image.dtype}")
        batch = image[None] if image.ndim == 3 else image
        if batch.ndim != 4 or batch.shape[1] not in (1, 2, 3, 4) or 0 in batch.shape:
            raise ValueError(f"expected a tensor of (C, H, W) or (N, C, H, W), got {tuple(image.shape)}")
        batch = batch.detach().cpu()
        arrays = (batch.float() if batch.is_floating_point() else batch).permute(0, 2, 3, 1).numpy()
        made = np.stack([self._array(each, tta, progress).transpose(2, 0, 1) for each in arrays])
        tensor = torch.from_numpy(made).to(image.device, image.dtype)
        return tensor[0] if image.ndim == 3 else tensor

    def _enlarged(self, strip: Strip, tta: bool, progress: Callable[[Progress], None] | None) -> Strip:
        page = page_of(*strip)
        size = page.height * self.scale, page.width * self.scale
        return enlarged(page, size, self.upscaler, tta=tta, progress=progress).read()


def load_model(
    name_or_path: str | Path | None = None,
    scale: float | None = None,
    *,
    kind: ModelKind | None = None,
    detail: float | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto",
    tile: str | int = "auto",
    threads: int | None = None,
) -> Model:
    """Load a model.

    Args:
        name_or_path: ``fast``, ``balanced``, a name that ``repsr models`` lists, or a file; None: the default.
        scale: wanted factor; of the shipped models, the one with the smallest scale that reaches it is taken. None: the
            name's own, else 4.
        kind: ``clean`` for images that compression has cost nothing, ``real`` for compressed ones and most video, or
            ``detail``; None: as the name says, else ``clean``.
        detail: 0 to 1, from the weights of a ``real`` model to those of the ``detail`` model beside it; implies
            ``real``. None: as the name says, else the default of the pair.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: number format; ``auto`` is fp16 on a GPU, and on a CPU bf16 where that is fast and loses less than
            0.02 dB against fp32, which is measured once and remembered, else fp32.
        tile: ``auto``, ``off`` or a size in px of the input; the result is the same.
        threads: CPU threads; None: torch's own choice.

    Raises:
        CheckpointError: no such model.
        DeviceError: no such device.
        UsageError: an argument makes no sense, or contradicts the name.
        TypeError: ``name_or_path`` is neither a name nor a path, or no such kind.
    """
    if not isinstance(name_or_path, (str, Path, type(None))):
        raise TypeError(f"expected a name or a path, got {type(name_or_path).__name__}")
    if kind is not None and kind not in zoo.KIND_SPELLINGS:
        raise TypeError(f"kind {kind!r}: expected one of {', '.join(zoo.KINDS)}")
    name = None if name_or_path is None else str(name_or_path)
    with _in_arguments():
        wanted = zoo.KIND_SPELLINGS[kind or "clean"]
        model = zoo.resolve(name, scale, wanted, fixed=kind is not None, detail=detail)
        net = zoo.load(model)
        chosen = resolved(precision, net, device, threads=threads)
        return Model(Upscaler(net, device, chosen.name, tile, threads), model.name)


def upscale_frames(frames: Iterable[NDArray[Any]], model: Model) -> Iterator[NDArray[Any]]:
    """Enlarge the frames of a video by the fast path: colour folded into the network, unchanged tiles reused.

    A frame or a few are read ahead of the one that is returned. Results equal those of ``Model.upscale`` within
    rounding, except at the borders of areas of one colour, which it corrects.

    Args:
        frames: arrays of shape (H, W), (H, W, 1) or (H, W, 3), uint8 or uint16, grey or RGB.
        model: from ``load_model``, best with ``kind="real"`` for compressed video.

    Yields:
        An enlarged frame for every frame, in order, of the same layout and dtype.

    Raises:
        TypeError: a frame is not such an array.
        ValueError: a frame has another shape.
        DeviceError: out of memory at the smallest tile, or results that are not finite.
    """
    if not isinstance(model, Model):
        raise TypeError(f"expected a model from load_model, got {type(model).__name__}")
    path = _FramePath(model)
    yield from begun_ahead(frames, path.begin, Stopwatch(), lambda: path.ahead)


class _FramePath:
    """The network between planes, for as long as frames are alike."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._like: tuple[object, ...] = ()
        self._planes: PlaneUpscaler | None = None

    @property
    def ahead(self) -> int:
        return 1 if self._planes is None else self._planes.ahead

    def begin(self, frame: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        if not isinstance(frame, np.ndarray) or frame.dtype.name not in ("uint8", "uint16"):
            found = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
            raise TypeError(f"expected frames as arrays of uint8 or uint16, got {found}")
        whole = frame[..., None] if frame.ndim == 2 else frame
        if whole.ndim != 3 or whole.shape[2] not in (1, 3) or 0 in whole.shape:
            raise ValueError(f"expected a frame of (H, W), (H, W, 1) or (H, W, 3), got {frame.shape}")
        if self._planes is None or (whole.shape, frame.dtype) != self._like:
            self._like = whole.shape, frame.dtype
            fmt = PlaneFormat("grey" if whole.shape[2] == 1 else "rgb", True, 8 * frame.dtype.itemsize)
            self._planes = PlaneUpscaler(self._model.upscaler, fmt, fmt)
        wait = self._planes.begin([np.ascontiguousarray(plane) for plane in whole.transpose(2, 0, 1)])

        def finish() -> NDArray[Any]:
            planes: Any = wait()  # a GPU's stay there only for an encoder
            made = np.stack(planes, axis=2)
            return made[..., 0] if frame.ndim == 2 else made

        return finish


def upscale_file(
    source: str | Path,
    target: str | Path,
    *,
    progress: Callable[[Progress], None] = lambda _progress: None,
    say: Callable[[str], None] = lambda _line: None,
    **options: Any,
) -> Outcome:
    """Upscale an image or a video file, with its metadata, sound and all, as ``repsr upscale`` does.

    Args:
        source: the file.
        target: the file to write; its suffix decides the format. Its folder is made if need be.
        progress: called often, from any thread; what it raises stops the work.
        say: called with sentences for the user: plans, warnings.
        options: those of ``repsr upscale`` by their long names, with underscores: ``scale=2``, ``model="fast"``,
            ``overwrite=True``, ``crf=18``; sizes as (height, width), times in seconds, ``fps`` as a Fraction.

    Returns:
        What was done.

    Raises:
        TypeError: no such option, or the files are not given as names or paths.
        RepsrError: the file cannot be read, upscaled or written; see ``repsr_cli.errors``.
    """
    for path in (source, target):
        if not isinstance(path, (str, Path)):
            raise TypeError(f"expected a name or a path of a file, got {type(path).__name__}")
    request = Request.of(**options)
    with _in_arguments():
        if Path(source).is_dir():
            raise UsageError(source, "is a folder", "Give one file.")
        request = settle_scale(request)
        plan = plan_jobs([str(source)], request, Naming(output=str(target)))
        for failure in plan.failures:
            raise failure.error
        check_compute(request)
        planned = plan_job(plan.jobs[0], request)
        made: set[Path] = set()
        try:
            if not planned.benchmark:
                make_folders(planned.target.parent, made)
            return run_plan(planned, executor_for(planned, ModelCache()), Reporter(progress, say))
        finally:
            remove_empty(made)


@contextmanager
def _in_arguments() -> Iterator[None]:
    """Let errors name arguments where they would name flags of the command line."""
    try:
        yield
    except RepsrError as error:
        raise type(error)(*(in_arguments(text) for text in (error.subject, error.happened, error.remedy))) from error


def in_arguments(text: str) -> str:
    """A message with arguments in place of flags: ``Add -y`` becomes ``Add overwrite=True``."""
    text = text.replace(", or --skip-existing to leave it", "")  # the command line's alone
    words: dict[str, str] = {}
    for group in GROUPS.values():
        for each, declared in declared_options(group):
            switch = each.type in ("bool", "bool | None")
            for flags in declared.flags:
                on, _, off = flags.partition("/")
                words[on] = f"{each.name}=True" if switch else each.name
                if off:
                    words[off] = f"{each.name}=False"
    return re.sub(r"(?<![\w-])--?[a-z][\w-]*", lambda match: words.get(match[0], match[0]), text)
