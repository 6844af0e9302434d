"""Test that README, docs, models and exit codes agree with the code."""

from __future__ import annotations

import hashlib
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import repsr_cli
from repsr_cli.cli import app
from repsr_cli.errors import RepsrError
from repsr_cli.model.checkpoint import load_plain
from repsr_cli.model.zoo import available

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("train/*.md")])


def leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


@cache
def root_command() -> Any:
    """The command line as Click sees it."""
    return typer.main.get_command(app)


def commands() -> Iterator[tuple[str, str]]:
    """Every ``repsr ...`` line in a code block, and every ``Example:`` in the help."""
    for path in DOCS:
        text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
        fenced = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL)
        for block in [*fenced, *re.findall(r"^ {4}(repsr .*)$", text, re.MULTILINE)]:
            for line in block.splitlines():
                for part in re.split(r"&&|\||;(?=\s)|, then ", line):
                    words = part.split()
                    if words and Path(words[0].removeprefix("$")).name == "repsr":
                        yield path.name, part.strip()
    for name, command in leaves(root_command()):
        for line in re.search(r"Example: (.*)", command.help)[1].split(", then "):  # type: ignore[index]
            yield f"{name} --help", line.rstrip(".")


@pytest.mark.parametrize(("where", "line"), list(commands()))
def test_command_lines_in_the_docs_parse(where: str, line: str) -> None:
    root = root_command()
    name, *arguments = shlex.split(line, comments=True)[1:]
    if name.startswith("-"):
        return
    assert name in root.commands, f"{where}: {line}"
    command, context = root.commands[name], typer.Context(root)
    context = command.make_context(name, arguments, parent=context, resilient_parsing=False)
    if hasattr(command, "commands"):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        name, command, arguments = command.resolve_command(context, rest)
        command.make_context(name, arguments, parent=context, resilient_parsing=False)


def test_options_reference_is_current() -> None:
    written = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert written == runpy.run_path(str(ROOT / "docs" / "reference.py"))["reference"](), (
        "run: python docs/reference.py"
    )


def test_tables_of_image_formats_are_current() -> None:
    written = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert written == runpy.run_path(str(ROOT / "docs" / "reference.py"))["formats"](), "run: python docs/reference.py"


def test_links_between_documents_lead_somewhere() -> None:
    for path in [*DOCS, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\(([^)#][^)]*)\)", path.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (path.parent / link.partition("#")[0]).exists(), f"{path.name}: {link}"


def test_pages_of_the_site_are_all_there() -> None:
    listed = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    exit_codes = [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert exit_codes == sorted({0, 1} | {error.exit_code for error in RepsrError.__subclasses__()})


def test_networks_have_file_digest_and_card() -> None:
    entries = tomllib.loads((ROOT / "weights" / "index.toml").read_text(encoding="utf-8"))["model"]
    assert entries
    for entry in entries:
        file = ROOT / "weights" / entry["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"], entry["name"]
        assert file.with_suffix(".md").is_file(), entry["name"]
        assert load_plain(file).spec.scale == entry["scale"]
    known = {entry["file"] for entry in entries}
    assert {path.name for path in (ROOT / "weights").glob("*.safetensors")} == known


def test_model_cards_compare_with_the_models_that_ship() -> None:
    entries = tomllib.loads((ROOT / "weights" / "index.toml").read_text(encoding="utf-8"))["model"]
    shipped = {entry["name"]: list(entry["psnr_y"].values()) for entry in entries}
    compared = 0
    for page in (ROOT / "weights").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name, cells in re.findall(r"^\| ([\w-]+) \| ((?:[\d.]+ / [\d.]+ / [\d.]+ \| ?)+)$", text, re.MULTILINE):
            if name in shipped:
                assert [float(cell.split("/")[0]) for cell in cells.split("|")[:-1]] == shipped[name], page.name
                compared += 1
    assert compared > len(entries)


def test_page_of_networks_is_current() -> None:
    zoo = runpy.run_path(str(ROOT / "docs" / "zoo.py"))
    written = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert written == zoo["page"](available()), "run: python docs/zoo.py"
    assert {path.stem for path in (ROOT / "docs" / "zoo").iterdir()} == {weight.name for weight in available()}


def test_one_version_everywhere() -> None:
    assert f"version: {repsr_cli.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changelog or f"## [{repsr_cli.__version__}]" in changelog


def test_pinned_versions_suit_the_requirements() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pins[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_next_major_version_of_pyav_is_not_accepted() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pyav,) = (each for each in map(Requirement, project["dependencies"]) if each.name == "av")
    assert pyav.specifier.contains("18.1.0")
    assert not pyav.specifier.contains("19.0.0")


# The kinds of faults that were found: so many of each letter.
FAULTS = {"A": 20, "B": 7, "C": 17, "D": 11, "E": 10}


def test_every_kind_of_fault_is_held_by_tests_that_exist() -> None:
    files = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py")}
    seen, wrong = set(), []
    for line in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines():
        if (row := re.match(r"\| ([A-E]\d+)\b.*\|([^|]+)\|$", line)) is None:
            continue
        name, cell = row.groups()
        seen.add(name)
        named = re.findall(r"[\w/]*test_\w+\.py", cell)
        there = [text for each in named for path, text in files.items() if path == each or path.endswith(f"/{each}")]
        if not named or len(there) < len(named):
            wrong.append(f"{name}: {', '.join(named) or 'no test'}")
        for test in re.findall(r"\b(test_\w+)\b(?!\.py)", cell):
            if not any(re.search(rf"^def {test}", text, re.MULTILINE) for text in there):
                wrong.append(f"{name}: {test}")
    assert not wrong
    assert seen == {f"{letter}{number + 1}" for letter, count in FAULTS.items() for number in range(count)}
