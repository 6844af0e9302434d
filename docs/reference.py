"""Write docs/options.md and the tables of docs/formats.md: ``python docs/reference.py``. A test compares them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from repsr_cli.cli import app
from repsr_cli.errors import RepsrError
from repsr_cli.image import formats as images

FORMATS = Path(__file__).parent / "formats.md"
HEAD = """# Options and exit codes

Made from the command line by `python docs/reference.py`; `repsr COMMAND -h` prints the same.
"""
RECORDS = """## Records of upscale --json

One JSON object per input, on one line. Fields may be added; those listed here keep their names and meaning.

| field | in | meaning |
|---|---|---|
| `status` | all | `done`, `failed`, `skipped`, `planned` (`--dry-run`), `measured` (`--benchmark`). |
| `source` | all but `skipped` | Path of the input. |
| `target` | all but `failed` | Path of the result; null where nothing is written. |
| `seconds` | `done`, `measured` | Wall time. |
| `notes` | `done`, `measured` | Sentences: what was converted or left out, what was noticed. |
| `facts` | `done`, `measured` | Of all: `width`, `height`, `source_width`, `source_height` (pixels, as stored), \
`model`, `model_kind` (`clean`, `real`, `detail`; null for a file), `detail` (0 to 1; null where there is no dial), \
`why` (what decided the kind; null where the user did). Of images: `format`, `source_format`, `pages`, `bits`, \
`alpha`. Of videos: `frames`, `resumed_frames`, `fps`, `codec`, `pix_fmt`, `decoder`, `segments`, `streams`, \
`network`, `engine`, `tile`, `devices`, `reused`, `occupancy`, `cores_busy`, `repeated_frames` (seconds). |
| `error`, `exit_code` | `failed` | The message, and the code that it alone would give. |
| `reason` | `skipped` | Why: the target exists, or the same command made it before. |
| `kind` | `planned` | `image` or `video`. |
| `plan` | `planned`, and `failed` with `--dry-run` where that is known | What would be done, in lines. |
"""
EXIT_CODES = """## Exit codes

| code | meaning |
|---|---|
| 0 | Done. |
| 1 | A bug in repsr. Please report the traceback. |"""


def reference() -> str:
    """The whole reference as Markdown."""
    root: Any = typer.main.get_command(app)
    shown = {name: command for name, command in root.commands.items() if not command.hidden}
    sections = [section for name, command in shown.items() for section in page(name, command)]
    return "\n".join([HEAD, *sections, RECORDS, EXIT_CODES, *exit_codes(), ""])


def exit_codes() -> list[str]:
    """A line of the table for every error class, from the first line of its docstring."""
    errors = sorted(RepsrError.__subclasses__(), key=lambda error: error.exit_code)
    first = {error.exit_code: (error.__doc__ or "").partition("\n")[0] for error in errors}
    return [f"| {code} | {re.sub(r'[:;] exit code .*', '', text).rstrip('.')}. |" for code, text in first.items()]


def page(name: str, command: Any) -> list[str]:
    """The sections of one command, or of each command of a group."""
    if hasattr(command, "commands"):
        return [section for sub, inner in command.commands.items() for section in page(f"{name} {sub}", inner)]
    lines = [f"## repsr {name}\n", *(f"{part}\n" for part in paragraphs(command.help or ""))]
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        if parameter.name != "help" and not getattr(parameter, "hidden", False):
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(parameter)
    for panel, parameters in panels.items():
        lines += [f"**{panel}**\n"] * bool(panel)
        lines += ["| | | default |", "|---|---|---|", *(row(parameter) for parameter in parameters), ""]
    return lines


def paragraphs(text: str) -> list[str]:
    """A docstring's paragraphs; the one that starts with "Example" becomes code."""
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    return [
        f"Example: `{part.removeprefix('Example:').strip()}`" if part.startswith("Example:") else part for part in parts
    ]


def row(parameter: Any) -> str:
    """One option's line of the table."""
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    elif not parameter.is_flag:
        names += f" {parameter.metavar or parameter.name.upper()}"
    default = parameter.default
    shown = "" if default is None or default is False or default == () else f"`{'on' if default is True else default}`"
    return f"| {names.replace('|', '&#124;')} | {(parameter.help or '').replace('|', '&#124;')} | {shown} |"


def formats() -> str:
    """docs/formats.md with its tables as the code has them."""
    text = FORMATS.read_text(encoding="utf-8")
    for name, rows in (("FORMATS", format_rows()), ("METADATA", metadata_rows())):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + "\n".join([*rows, ""]) + end + rest.partition(end)[2]
    return text


def format_rows() -> list[str]:
    """What formats hold of an image."""
    rows = [
        "| format | extensions | bits per channel | transparency | several | most px a side |",
        "|---|---|---|---|---|---|",
    ]
    for fmt in images.FORMATS:
        bits = ", ".join("float" if depth == 32 else str(depth) for depth in fmt.depths)
        cells = (fmt.name, " ".join(fmt.suffixes), bits, "yes" if fmt.alpha else "no", fmt.many or "no", str(fmt.side))
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def metadata_rows() -> list[str]:
    """What formats hold of the metadata."""
    rows = [f"| format | {' | '.join(images.KEPT)} | loops |", "|---" * (len(images.KEPT) + 2) + "|"]
    for fmt in images.FORMATS:
        loops = ("yes" if fmt.loops else "no") if fmt.many == "frames" else "-"
        cells = [fmt.name, *("yes" if kind in fmt.kept else "no" for kind in images.KEPT), loops]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


if __name__ == "__main__":
    FORMATS.write_text(formats(), encoding="utf-8")
    (Path(__file__).parent / "options.md").write_text(reference(), encoding="utf-8")
