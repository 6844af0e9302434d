from __future__ import annotations

from pathlib import Path

import pytest

from repsr_cli.errors import RecipeError
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


@pytest.mark.parametrize("path", sorted((ROOT / "train").rglob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    load_recipe(path)
