from __future__ import annotations

import typing
from dataclasses import fields
from pathlib import Path

import pytest

from repsr_cli.errors import RecipeError
from repsr_cli.training.mix import load_mix
from repsr_cli.training.recipe import Recipe, load_recipe
from tests.conftest import ROOT

MINIMAL = '[network]\nscale = 4\n[data]\ntrain = "images"\n[schedule]\nsteps = 100\n'


def _load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return load_recipe(path, list(overrides))


def test_defaults_fill_what_is_not_said(tmp_path: Path) -> None:
    recipe = _load(tmp_path, MINIMAL)
    assert (recipe.network.scale, recipe.network.blocks, recipe.schedule.steps) == (4, 4, 100)
    assert recipe.optimizer.name == "soap"


def test_overrides_take_toml_values_and_bare_words(tmp_path: Path) -> None:
    recipe = _load(
        tmp_path,
        MINIMAL,
        "schedule.steps=7",
        "optimizer.name=adam",
        "optimizer.betas=[0.9, 0.95]",
        "data.train=/a b/c",
        "schedule.learning_rate=1",
    )
    assert recipe.schedule.steps == 7
    assert recipe.optimizer.name == "adam"
    assert recipe.optimizer.betas == (0.9, 0.95)
    assert recipe.data.train == "/a b/c"
    assert recipe.schedule.learning_rate == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "stepz = 5\n", r"unknown key 'stepz' in \[schedule\]\. Did you mean 'steps'\?"),
        (MINIMAL + "total_iter = 5\n", r"unknown key 'total_iter'.*spells it schedule\.steps"),
        (MINIMAL + "[optimiser]\n", r"unknown key 'optimiser' in the recipe\. Did you mean 'optimizer'\?"),
        (MINIMAL + "[loss]\nname = 'l7'\n", r"loss\.name = 'l7' is unknown\. Known: l1, l2, charbonnier\."),
        (MINIMAL + "[batch]\nsize = 1.5\n", r"batch\.size must be int, not 1\.5"),
        (MINIMAL + "[batch]\nsize = true\n", r"batch\.size must be int, not True"),
        (MINIMAL + "[batch]\nsize = 0\n", r"batch\.size must be above 0"),
        (MINIMAL.replace("[schedule]", "saturation = 0.5\n[schedule]"), r"data\.saturation must be 1 or more"),
        (MINIMAL + "bn_freeze = 1.5\n", r"schedule\.bn_freeze must be between 0 and 1"),
        ('[network]\nscale = 4\n[data]\ntrain = "x"\n', r"'schedule' is missing in the recipe"),
        ("network = 4\n", r"'network' must be a section"),
        ("not toml", r"cannot be read"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _load(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "message"),
    [("steps=5", "is not section.key=value"), ("schedule.stepz=5", "Did you mean 'steps'")],
)
def test_mistaken_overrides_are_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _load(tmp_path, MINIMAL, override)


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "path", sorted({*(ROOT / "train").rglob("*.toml")} - {*(ROOT / "train/mixes").iterdir()}), ids=lambda p: p.stem
)
def test_every_shipped_recipe_loads(path: Path) -> None:
    load_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 3000, "nested too deeply"),
        ("a = " + "{a=" * 3000, "nested too deeply"),
        ("[network]\nscale = " + "9" * 5000, "cannot be read"),
        ("[network]\nscale = 0x" + "f" * 5000, "must be a finite number below 2"),
        ("[network]\nscale = -0x" + "f" * 5000, "cannot be read"),
        ("[network]\nscale = [0x" + "f" * 5000 + "]", "must be int"),
        ("[network]\nscale = 99999999999999999999", "must be a finite number below 2"),
        (MINIMAL.replace("4", "17"), "at most 16"),
        (MINIMAL.replace("4", "4\nblocks = 100000"), "at most 1000"),
    ],
)
def test_hostile_recipes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _load(tmp_path, text)
    with pytest.raises(RecipeError):
        load_mix(tmp_path / "recipe.toml")


SECTIONS = typing.get_type_hints(Recipe)
HUGE = "9" * 5000


@pytest.mark.parametrize("section", [field.name for field in fields(Recipe)])
def test_no_value_is_taken_that_training_cannot_use(tmp_path: Path, section: str) -> None:
    text = "[network]\nscale = 2\n[data]\ntrain = 'x'\n[schedule]\nsteps = 5"
    for name in (field.name for field in fields(SECTIONS[section])):
        for value in ("nan", "inf", "-inf", "-1e-300", HUGE, "[" * 3000, "1e308", "-1", "0x" + "f" * 5000):
            try:
                recipe = _load(tmp_path, text, f"{section}.{name}={value}")
            except RecipeError:
                continue
            taken = getattr(getattr(recipe, section), name)
            assert isinstance(taken, str) or 0 <= taken < 2**63, (name, value[:20])


@pytest.mark.parametrize("betas", ["[2.0, 3.0]", "[1.0, 0.9]", "[0.9, 1.0]", "[-0.1, 0.9]", "[nan, 0.9]", "[0.9]"])
@pytest.mark.parametrize("name", ["soap", "adam", "adamw"])
def test_betas_are_decays(tmp_path: Path, betas: str, name: str) -> None:
    text = "[network]\nscale = 2\n[data]\ntrain = 'x'\n[schedule]\nsteps = 5"
    with pytest.raises(RecipeError, match="betas"):
        _load(tmp_path, text, f"optimizer.betas={betas}", f"optimizer.name={name}")


@pytest.mark.parametrize(("term", "patch", "needed"), [("ssim", 5, 11), ("ms_ssim", 5, 11), ("gradient", 1, 4)])
def test_crops_too_small_for_a_term_are_refused(tmp_path: Path, term: str, patch: int, needed: int) -> None:
    text = MINIMAL.replace("scale = 4", "scale = 2")
    small, large = ([f"batch.patch={side}", f"batch.late_patch={side}"] for side in (patch, patch + 1))
    with pytest.raises(
        RecipeError, match=f"crops of {2 * patch} px are too small for loss.{term}, which needs {needed}"
    ):
        _load(tmp_path, text, *small, f"loss.{term}=0.1")
    assert _load(tmp_path, text, *small)
    assert _load(tmp_path, text, *large, f"loss.{term}=0.1")
