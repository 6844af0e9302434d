"""Write an HTML page with a slider between two images or videos."""

from __future__ import annotations

import base64
import html
import string
from pathlib import Path

from repsr_cli.compare.images import encoded, shown
from repsr_cli.errors import UsageError
from repsr_cli.upscale.request import Kind

PAGE_LIMIT = 200 << 20  # bytes; browsers open larger pages slowly or not at all
BROWSER_IMAGES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
BROWSER_VIDEOS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}


def page(before: Path, after: Path, kind: Kind) -> str:
    """The text of a page that contains both files, so that it can be sent and kept.

    Raises:
        UsageError: they are too large together, or videos that browsers do not play.
        MediaError: a file cannot be read.
    """
    weight = before.stat().st_size + after.stat().st_size
    if weight > PAGE_LIMIT:
        happened = f"a page that contains {weight >> 20} MiB is too large for browsers"
        raise UsageError(after, happened, "Compare a shorter video, or use --split.")
    sizes = [_size(kind, path) for path in (before, after)]
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    element = _image_element if kind == "image" else _video_element
    return filled(
        "page.html",
        title=html.escape(f"{before.name} and {after.name}"),
        before=html.escape(before.name),
        after=html.escape(after.name),
        width=width,
        height=height,
        before_media=element(before, "before"),
        after_media=element(after, "after"),
        play='<button id="play" type="button">Play</button>' if kind == "video" else "",
    )


def _size(kind: Kind, path: Path) -> tuple[int, int]:
    """(height, width) of an image or video as it is shown, from its header."""
    if kind == "image":
        from repsr_cli.image.files import open_image

        image = open_image(path)
        return image.height, image.width
    from repsr_cli.video.probe import probe

    return probe(path).display_size


def filled(template: str, **values: object) -> str:
    """The text of a page: a template beside this file, with the slider's style and script and these values."""
    folder = Path(__file__).parent
    style, script = ((folder / f"slider.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    text = (folder / template).read_text(encoding="utf-8")
    return string.Template(text).substitute(values, style=style, script=script)


def data_url(kind: str, data: bytes) -> str:
    """Data as an address, for pages that need no other file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _image_element(path: Path, role: str) -> str:
    from repsr_cli.image.files import read_image

    kind = BROWSER_IMAGES.get(read_image(path).format)
    data = path.read_bytes()
    if kind is None:  # browsers do not show TIFF or BMP
        kind, data = "image/png", encoded((shown(path),), "PNG")
    return f'<img class="{role}" alt="{html.escape(path.name)}" draggable="false" src="{data_url(kind, data)}">'


def _video_element(path: Path, role: str) -> str:
    kind = BROWSER_VIDEOS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(path, "browsers show mp4 and webm only", "Use --split, which writes an mp4.")
    source = data_url(kind, path.read_bytes())
    return f'<video class="{role}" muted loop playsinline preload="auto" src="{source}"></video>'
