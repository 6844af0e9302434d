"""Every command's paths: what the system refuses is an error with a code of its own, and names need not be UTF-8."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from repsr_cli.cli import app
from tests.conftest import textured

LINES = [
    "upscale {} -n fast -s 2",
    "upscale @{} -n fast -s 2",
    "upscale a.png -n fast -s 2 -o {}",
    "upscale a.png -n fast -s 2 -o {}/b.png",
    "upscale a.png -n fast -s 2 -o {} -y",
    "upscale a.png -s 2 -n {}",
    "compare {} a.png",
    "compare a.png {}",
    "compare a.png a.png -o {}",
    "compare a.png a.png --html -o {}",
    "fuse {} -o b.safetensors",
    "export {} -o b.onnx",
    "export fast -s 2 -o {}",
    "train {} -o run",
    "train recipe.toml -o {} --set data.train=images",
    "train recipe.toml -o run --set data.train={}",
    "train recipe.toml -o run --set data.train=images --show-batch {}",
    "train recipe.toml -o run --check --set data.train={}",
    "eval {} -n fast -s 2",
    "eval images -n {} -s 2",
    "eval images -n fast -s 2 --lr {}",
    "eval images -n fast -s 2 --csv {}",
    "prepare {} -o b.pack -s 2 --teacher fast",
    "prepare images -o {} -s 2 --teacher fast",
    "prepare images -o b.pack -s 2 --mix {}",
    "finetune {} -n fast -s 2 -o b.safetensors",
    "finetune images -n {} -s 2 -o b.safetensors",
    "finetune images -n fast -s 2 -o {}",
    "bench {} -n fast -s 2",
    "bench train {}",
]
REFUSED = [
    "z" * 300,
    "z" * 300 + ".png",
    "loop",
    "loop/a.png",
    "a.png/b.png",
    "d" * 250 + "/" + "e" * 250 + "/" + "f" * 4000,
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(textured(24, 24, 0)).save("a.png")
    Path("images").mkdir()
    for number in range(2):
        Image.fromarray(textured(24, 24, number)).save(f"images/{number}.png")
    Path("loop").symlink_to("loop")
    Path("recipe.toml").write_text("[network]\nscale = 2\nblocks = 1\nchannels = 4\n")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.skipif(os.name == "nt", reason="needs links")
@pytest.mark.parametrize("line", LINES)
def test_paths_that_the_system_refuses(here: Path, line: str) -> None:
    for path in REFUSED:
        if path == "loop" and ("-o {}" in line or "--csv {}" in line or "--show-batch {}" in line) and "-y" in line:
            continue  # the link is replaced
        result = run(*(word.replace("{}", path) for word in line.split()))
        assert isinstance(result.exception, SystemExit), (line, path[:20], repr(result.exception)[:200])
        assert 2 <= result.exit_code <= 6, (line, path[:20], result.output[-300:])
        assert result.stderr.startswith(("error: ", "Usage: "))
    assert Path("loop").is_symlink()
    assert not [path for path in here.iterdir() if path.name.startswith((".", "b."))]


@pytest.mark.parametrize("line", [line for line in LINES if {"@{}", "{}/b.png"}.isdisjoint(line.split())])
def test_empty_paths_are_not_the_current_folder(here: Path, line: str) -> None:
    before = sorted(here.rglob("*"))
    words = [word.replace("{}", "") for word in line.split() if "=" not in word or line.startswith("prepare")]
    given = run(*words) if "" in words else run(*words, "--output=")
    assert given.exit_code == 2
    assert given.stderr.startswith("error: ")
    assert "is empty. In a script, see whether its variable is set." in given.stderr
    assert sorted(here.rglob("*")) == before


def test_what_looks_like_an_empty_option_may_be_a_file(here: Path) -> None:
    Path("a.png").rename("--foo=")
    assert run("upscale", "-n", "fast", "-s", "2", "-o", "b.png", "--", "--foo=").exit_code == 0
    assert run("upscale", "-n", "fast", "--", "--suffix", "").stderr.startswith("error: the argument after --suffix")
    assert "the argument after '': is empty" in run("upscale", "a.png", "--suffix", "", "").stderr


def test_an_empty_suffix_is_one(here: Path) -> None:
    for words in (("--suffix", "", "-f", "ppm"), ("--suffix=", "-f", "pgm")):
        assert run("upscale", "a.png", "-n", "fast", "-s", "2", *words).exit_code == 0
    assert {"a.ppm", "a.pgm"} <= {path.name for path in here.iterdir()}


@pytest.mark.parametrize("line", [line for line in LINES if "-o {}" in line.replace("{}/", "") and "run" not in line])
@pytest.mark.parametrize("folder", [".", "./", "..", "/", "images/..", "images/."])
def test_a_folder_in_place_of_a_file_is_refused(here: Path, line: str, folder: str) -> None:
    if line.startswith(("upscale", "train")):
        pytest.skip("these write into folders")
    result = run(*(word.replace("{}", folder) for word in line.split()))
    assert isinstance(result.exception, SystemExit), (line, repr(result.exception)[:200])
    assert result.exit_code == 2
    assert sorted(path.name for path in here.iterdir()) == ["a.png", "images", "loop", "recipe.toml"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may search everything")
@pytest.mark.parametrize("line", LINES)
def test_folders_that_may_not_be_searched(here: Path, line: str) -> None:
    Path("closed").mkdir()
    Image.fromarray(textured(24, 24, 0)).save("closed/a.png")
    Path("closed").chmod(0)
    try:
        result = run(*(word.replace("{}", "closed/a.png") for word in line.split()))
        assert isinstance(result.exception, SystemExit), (line, result.exception)
        assert 2 <= result.exit_code <= 6, (line, result.output)
    finally:
        Path("closed").chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
@pytest.mark.parametrize(
    "line",
    [
        "upscale {}.png -n fast -s 2 --json",
        "upscale {} -r -n fast -s 2 -o {}-out",
        "upscale @{}.txt -n fast -s 2",
        "upscale {}.png -n fast -s 2 -o {}.jpg",
        "compare {}.png a.png -o {}-c.png",
        "compare {}.png a.png --html -o {}.html",
        "compare a.png {}.png --html",
        "eval {} -n fast -s 2 --csv {}.csv",
        "prepare {} -o {}.pack -s 2 --teacher fast",
        "train recipe.toml -o run --check --set data.train={}",
        "train recipe.toml -o {}-run --set data.train={} --set schedule.steps=2 --set batch.patch=8 --set batch.size=2",
        "export fast -s 2 -o {}.onnx",
    ],
)
def test_names_that_are_not_utf_8(here: Path, line: str) -> None:
    name = os.fsdecode(b"caf\xe9")
    Image.fromarray(textured(64, 64, 0)).save("first.png")
    Path(name).mkdir()
    for number in range(4):
        Image.fromarray(textured(64, 64, number)).save("first.png")
        Path("first.png").rename(Path(name) / f"{name}{number}.png")
    (Path(name) / f"{name}0.png").rename(f"{name}.png")
    Path(f"{name}.txt").write_bytes(os.fsencode(f"{name}.png\n"))
    result = run(*(word.replace("{}", name) for word in line.split()))
    assert result.exit_code in ((0, 6) if line.startswith(("train", "prepare")) else (0,)), (
        line,
        result.output,
        result.exception,
    )
    assert result.exception is None or isinstance(result.exception, SystemExit)
