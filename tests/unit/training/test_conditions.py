from __future__ import annotations

import numpy as np
import pytest

from repsr_cli.errors import UsageError
from repsr_cli.image.resize import downscale
from repsr_cli.training.conditions import parse_condition, parse_conditions
from tests.conftest import textured


@pytest.mark.parametrize("text", ["clean", "jpeg:75", "x264:26", "x265:28", "vp9:35"])
def test_every_condition_keeps_size_and_place(text: str) -> None:
    hr = textured(132, 196)  # LR of odd sides
    lr = parse_condition(text).lr(hr, 4)
    ideal = downscale(hr, 4)
    assert lr.shape == ideal.shape
    difference = np.abs(lr.astype(int) - ideal).mean()
    assert difference == 0 if text == "clean" else 0 < difference < 25
    assert np.array_equal(lr, parse_condition(text).lr(hr, 4))


def test_lower_quality_is_further_away() -> None:
    hr = textured(128, 128)
    for better, worse in (("jpeg:90", "jpeg:20"), ("x264:10", "x264:45")):
        near, far = (
            np.abs(parse_condition(text).lr(hr, 2).astype(int) - downscale(hr, 2)).mean() for text in (better, worse)
        )
        assert near < far


@pytest.mark.parametrize("text", ["jpeg", "jpeg:0", "jpeg:96", "x264:52", "x264:-1", "png:3", "clean:1", ""])
def test_what_is_not_a_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--degrade"):
        parse_condition(text)


def test_clean_is_the_default() -> None:
    assert [condition.name for condition in parse_conditions(())] == ["clean"]
    assert [condition.name for condition in parse_conditions(["jpeg:75", "clean"])] == ["jpeg:75", "clean"]
