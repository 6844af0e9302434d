"""Compare two images or two videos, as an image, a video or a page."""

from __future__ import annotations

import time
from pathlib import Path

from repsr_cli.compare.options import CompareOptions, Form
from repsr_cli.errors import MediaError, UsageError
from repsr_cli.files import check_target, staging, write_bytes, write_text
from repsr_cli.reporting import SILENT, Outcome, Reporter
from repsr_cli.upscale.inputs import kind_of, neither
from repsr_cli.upscale.request import Kind


def compare(before: Path, after: Path, options: CompareOptions, reporter: Reporter = SILENT) -> Outcome:
    """Compare two images or two videos. The smaller is enlarged by bicubic interpolation.

    Raises:
        UsageError: an image and a video, options that do not apply, a target that exists or is one of the inputs.
        MediaError: an input cannot be read, or the target cannot be written.
    """
    started = time.monotonic()
    form = options.form
    kind = _common_kind(before, after)
    still = kind == "image" or options.at is not None
    _check_options(options, form, kind, still)
    target = options.output
    if target is None:
        extension = ".html" if form == "page" else ".png" if still else ".mp4"
        target = after.with_name(f"{before.stem}_vs_{after.stem}{extension}")
    if any(target.exists() and target.samefile(source) for source in (before, after)):
        raise UsageError(target, "is one of the files to compare", "Choose another name with -o.")
    check_target(target, overwrite=options.overwrite)
    if form == "page":
        from repsr_cli.compare.page import page

        write_text(target, page(before, after, kind), overwrite=options.overwrite)
    elif still:
        from repsr_cli.compare.images import compare_images, encoded, image_format, shown

        format = image_format(target, animated=form == "blink")
        if options.at is None:
            left, right = shown(before), shown(after)
        else:
            from repsr_cli.compare.videos import frame_at

            left, right = frame_at(before, options.at), frame_at(after, options.at)
        write_bytes(
            target, encoded(compare_images(left, right, form, options.crop), format), overwrite=options.overwrite
        )
    else:
        from repsr_cli.compare.videos import compare_videos

        with staging(target, overwrite=options.overwrite) as partial:
            compare_videos(before, after, partial, split=form == "split", reporter=reporter)
    return Outcome(after, target, time.monotonic() - started, {"before": str(before), "form": form, "kind": kind})


def _common_kind(before: Path, after: Path) -> Kind:
    """Whether both files are images or both are videos."""
    kinds = set()
    for path in (before, after):
        if not path.exists():
            raise MediaError(path, "no such file", "Check the path.")
        kind = kind_of(path)
        if kind is None:
            raise neither(path)
        kinds.add(kind)
    if len(kinds) > 1:
        raise UsageError(f"{before} and {after}", "one is an image, one a video", "Give two of a kind.")
    return kinds.pop()


def _check_options(options: CompareOptions, form: Form, kind: Kind, still: bool) -> None:
    """Refuse options that do not apply."""
    if kind == "image" and options.at is not None:
        raise UsageError("--at", "is for two videos", "Leave it out.")
    if form == "page" and (options.crop is not None or options.at is not None):
        raise UsageError("--crop" if options.crop else "--at", "is for an image", "Leave it out, or leave out --html.")
    if form == "blink" and not still:
        raise UsageError("--blink", "is for images", "Leave it out, or add --at for an image of one frame.")
    if options.crop is not None and not still:
        raise UsageError("--crop", "is for an image", "Leave it out, or add --at for an image of one frame.")
