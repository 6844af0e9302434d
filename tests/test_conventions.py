"""Test that the code keeps the project's conventions: imports, vocabulary, comments that silence a linter."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "repsr_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted_name(path: Path) -> str:
    """The name a module is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    """A module as parsed."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports() -> dict[str, frozenset[str]]:
    """Which module of the package imports which, inside functions and for type checkers included."""
    names = {dotted_name(path) for path in MODULES}
    graph = {}
    for path in MODULES:
        found = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                members = {f"{node.module}.{alias.name}" for alias in node.names}
                # `from package import module` imports the module; `from module import name` the module before it.
                found |= (members & names) or {node.module}
        graph[dotted_name(path)] = frozenset(found & names)
    return graph


def circles(graph: dict[str, frozenset[str]]) -> list[set[str]]:
    """The largest sets of modules that can all reach each other."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    reach = {name: reachable(name) for name in graph}
    found = [{other for other in reach[name] if name in reach[other]} for name in graph]
    return [circle for position, circle in enumerate(found) if circle and circle not in found[:position]]


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(imports()) == []


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [{"a", "b"}]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, [{"a", "b", "c"}]),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], expected: list[set[str]]) -> None:
    assert circles({name: frozenset(edges) for name, edges in graph.items()}) == expected


def test_nothing_after_planning_reads_the_request() -> None:
    """What carries out plans and takes in results gets by with what a run reports."""
    folder = PACKAGE / "upscale"
    modules = ["video", "image", "sinks", "image_sinks", "frame_path", "calibrate", "estimate", "image_pool"]
    for path in [*(folder / f"{name}.py" for name in modules), *(folder / "executors").glob("*.py")]:
        assert "repsr_cli.upscale.request" not in imports()[dotted_name(path)], path


def test_nothing_prints_but_the_command_line() -> None:
    for path in MODULES:
        if path.parent != PACKAGE / "cli":
            calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
            assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"], path


def test_modules_begin_with_a_sentence() -> None:
    first = {path: (ast.get_docstring(tree(path)) or "").partition("\n")[0] for path in MODULES}
    assert {path: line for path, line in first.items() if not re.fullmatch(r"[A-Z].*[.:]", line)} == {}


def test_architecture_names_every_package_and_only_paths_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    named = set(re.findall(r"`([\w./-]+/[\w./-]*|\w+\.\w+)`", text))
    assert {path.parent.relative_to(PACKAGE).as_posix() + "/" for path in PACKAGE.glob("*/**/__init__.py")} <= named
    missing = [name for name in sorted(named) if not any((base / name).exists() for base in (ROOT, PACKAGE))]
    assert [name for name in missing if name.endswith(("/", ".py", ".md", ".toml"))] == []


# One word per thing: what not to write, and what to write in its place.
BANNED = {
    r"(?<!\")pictures?(?!\")": "image",  # quoted: the key of a packed file
    r"films?": "video",
    r"(?<![.\"])floors?(?![(\"])": "layer, package",
    r"rooms?": "memory, space",
    r"doors?": "entry point",
    r"houses?": "codebase",
    r"trunks?": "body",
    r"(?<!exit )(?<!exit-)codes": "samples, code values",
    r"parcels?": "packet chunks",
    r"(?<!model )cards?": "GPU, or model card",
    r"told|said": "a verb that says what happens",
    r"who knows|could be had|what is made small|what is left(?! out)|by the words of": "plain words",
    r"lean(s|ing)? on": "depend on",
    r"(?<!there )(is|are) no (?!longer|more|less|faster|slower|larger|smaller|better|worse)": "is not",
}
WORDS = re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in BANNED), re.IGNORECASE)
BANNED_MODULES = {
    "averaging", "card", "codes", "factor", "film", "flat", "grow", "learn", "neighbours", "pairs", "parcels",
    "processes", "sheets", "starts", "trunk",
}  # fmt: skip
TEXTS = [
    "*.md", "*.toml", "*.yml", ".github/workflows/*.yml", ".ci/run", "Dockerfile", "docs/*.md", "docs/*.py",
    "weights/*.md", "repsr_cli/**/*.py", "repsr_cli/**/*.html", "tests/**/*.py", "bench/*.py", "train/**/*.md",
    "train/**/*.py", "train/**/*.toml", "examples/*.md",
]  # fmt: skip
NAMES_OF_FILES = {ROOT / "docs" / "images.md"}  # hard test images keep the names they came with


def texts() -> list[Path]:
    """Every text that people write here: code, tests, documentation, model cards, settings."""
    found = {path for pattern in TEXTS for path in ROOT.glob(pattern)}
    return sorted(found - NAMES_OF_FILES - {Path(__file__)})


def test_one_word_per_thing() -> None:
    hits = []
    for path in texts():
        text = path.read_text(encoding="utf-8")
        for match in WORDS.finditer(text):
            hits.append(f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}")
    assert not hits, "see BANNED for what to write instead:\n" + "\n".join(hits)


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("the exit codes and the model cards", False),
        ("np.floor(x) is no longer needed", False),
        ("a picture", True),
        ("a GPU card", True),
        ("a list of codes", True),
        ("this is no image", True),
        ("what is left out", False),
        ("what is left", True),
    ],
)
def test_banned_words_are_found(text: str, banned: bool) -> None:
    assert bool(WORDS.search(text)) == banned


def test_paths_that_texts_name_exist() -> None:
    folders = sorted({path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"tests", "bench", "docs", "train"})
    named = re.compile(rf"(?<![\w/.])(?:repsr_cli/)?(?:{'|'.join(folders)})/[\w/]+\.(?:py|md|toml)\b")
    missing = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts()
        for match in named.finditer(path.read_text(encoding="utf-8"))
        if not (ROOT / match[0]).exists() and not (PACKAGE / match[0]).exists()
    ]
    assert not missing


def test_modules_have_the_names_of_the_field() -> None:
    stems = {path.stem for folder in ("repsr_cli", "tests") for path in (ROOT / folder).rglob("*.py")}
    assert not {stem.removeprefix("test_") for stem in stems} & BANNED_MODULES


def test_the_old_option_is_an_alias_only() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert "--network" not in path.read_text(encoding="utf-8"), path


def test_noqas_are_few_and_explained() -> None:
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("repsr_cli", "tests", "bench", "docs", "train")
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(__file__)
        for line in path.read_text(encoding="utf-8").splitlines()
        if "# noqa" in line
    ]
    assert len(lines) <= 15, lines
    assert not [line for line in lines if not re.search(r"# noqa: [A-Z]+\d+(, ?[A-Z]+\d+)* - \S", line)], lines
