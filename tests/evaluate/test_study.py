"""Pictures that are kept between evaluations: found again only where everything that decides them is the same."""

from types import SimpleNamespace

import numpy as np
import pytest

from flashjax.evaluate import study


def counting_pipeline(weight: float = 0.0, **defaults):
    """A pipeline whose pictures show how often it has drawn."""
    calls = []

    def draw(prompts, seeds, encoder, **settings):
        calls.append((prompts, seeds, settings))
        return np.full((len(prompts), 2, 2, 3), len(calls), np.uint8)

    defaults = dict(steps=4, guidance_scale=1.0) | defaults
    return SimpleNamespace(defaults=defaults, image_size=2, params={"w": np.float32([weight])}, draw=draw, calls=calls)


def test_the_same_request_is_drawn_once(tmp_path):
    pipe = counting_pipeline()
    first = study.draw_kept(pipe, ["a", "b"], [1, 2], None, tmp_path / "new" / "folder")
    again = study.draw_kept(pipe, ["a", "b"], range(1, 3), None, tmp_path / "new" / "folder")
    assert len(pipe.calls) == 1
    np.testing.assert_array_equal(first, again)
    assert [p.suffix for p in (tmp_path / "new" / "folder").iterdir()] == [".npy"]


@pytest.mark.parametrize(
    "change",
    [
        dict(prompts=["a", "c"]), dict(seeds=[1, 3]), dict(settings=dict(steps=8)), dict(settings=dict(shift=3.0)),
        dict(pipe=dict(weight=1.0)), dict(pipe=dict(guidance_scale=2.0)),
    ],
    ids=str,
)  # fmt: skip
def test_whatever_decides_a_picture_is_in_its_name(tmp_path, change):
    study.draw_kept(counting_pipeline(), ["a", "b"], [1, 2], None, tmp_path)
    other = counting_pipeline(**change.get("pipe", {}))
    study.draw_kept(
        other, change.get("prompts", ["a", "b"]), change.get("seeds", [1, 2]), None, tmp_path,
        **change.get("settings", {}),
    )  # fmt: skip
    assert len(other.calls) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_the_default_spelt_out_is_the_same_request(tmp_path):
    pipe = counting_pipeline()
    study.draw_kept(pipe, ["a"], [1], None, tmp_path)
    study.draw_kept(pipe, ["a"], [1], None, tmp_path, steps=4)
    assert len(pipe.calls) == 1
