"""Receive the upscaled pages of an image, and write them to a file or discard them."""

from __future__ import annotations

from collections.abc import Iterator

from repsr_cli.files import Noting, check_target, is_to_be_made, write_bytes
from repsr_cli.image.files import ImageSource, write_image
from repsr_cli.image.page import Page
from repsr_cli.upscale.plan_image import ImagePlan


class ImageSink:
    """Takes in the pages of one image.

    Attributes:
        keyed: whether the image may come whole, encoded on another machine.
    """

    keyed = False

    def check(self) -> None:
        """Refuse a target that exists."""

    def write(self, source: ImageSource, pages: Iterator[Page]) -> None:
        """Take in pages, which are computed when they are read.

        Args:
            source: the image that they come from.
            pages: read once, in order.
        """
        raise NotImplementedError

    def put(self, data: bytes) -> None:
        """Take in the whole image, encoded elsewhere; for ``keyed`` sinks."""
        raise NotImplementedError


def sink_for(plan: ImagePlan, noting: Noting | None = None) -> ImageSink:
    """The sink that a plan asks for."""
    return NullSink() if plan.benchmark else FileSink(plan, noting)


class NullSink(ImageSink):
    """Computes pages and drops them."""

    def write(self, source: ImageSource, pages: Iterator[Page]) -> None:
        """Compute every strip."""
        for page in pages:
            for _ in page.strips():
                pass


class FileSink(ImageSink):
    """Writes an image file: complete under its name, or not at all.

    Args:
        noting: called with the complete file before it gets its name.
    """

    keyed = True

    def __init__(self, plan: ImagePlan, noting: Noting | None = None) -> None:
        self.plan = plan
        self._noting = noting

    def check(self) -> None:
        """As ``ImageSink`` says."""
        if not is_to_be_made(self.plan.target.parent):
            check_target(self.plan.target, overwrite=self.plan.overwrite)

    def write(self, source: ImageSource, pages: Iterator[Page]) -> None:
        """Write the file.

        Raises:
            UsageError: a file of this name has appeared and may not be replaced.
            MediaError: it cannot be written; whatever the pages raise passes through.
        """
        write_image(
            self.plan.target,
            pages,
            count=source.count,
            loop=source.loop,
            lossless=source.lossless,
            strip_metadata=self.plan.strip_metadata,
            overwrite=self.plan.overwrite,
            noting=self._noting,
        )

    def put(self, data: bytes) -> None:
        """Write the file as it came.

        Raises:
            UsageError: a file of this name has appeared and may not be replaced.
        """
        write_bytes(self.plan.target, data, overwrite=self.plan.overwrite, noting=self._noting)
