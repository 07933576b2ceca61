"""What is said of sources, before any is opened."""

import pytest
from ml_collections import ConfigDict

from flashjax.errors import UserError
from flashjax.settings import check_sources

MINE = dict(path="mine.arrayrecord")


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({}, "config.sources is empty; name at least one prepared set"), (None, "config.sources is None; name"),
        (dict(a="mine.arrayrecord"), "config.sources.a is 'mine.arrayrecord'; a source has path, task, weight."),
        (dict(a=dict(task="t2i")), "The source 'a' has no path; name the file of a prepared set as config.sources.a.p"),
        (dict(a=dict(path="")), "The source 'a' has no path"),
        (dict(a=MINE | dict(wieght=1)), "There is no setting config.sources.a.wieght; a source has path, task"),
        (dict(a=MINE | dict(task="video")), "config.sources.a.task is 'video'; tasks are t2i, edit."),
        (dict(a=MINE | dict(weight="x")), "config.sources.a.weight is 'x'; a weight is a number from 0 on, or one by"),
        (dict(a=MINE | dict(weight=-1)), "config.sources.a.weight is -1; a weight"),
        (dict(a=MINE | dict(weight=float("nan"))), "config.sources.a.weight is nan; a weight"),
        (dict(a=MINE | dict(weight={"text": "x"})), "config.sources.a.weight of 'text' is 'x'; a weight"),
        (dict(a=MINE | dict(weight=((0, 1.0), (0.5, None)))), "config.sources.a.weight is None; a weight"),
        (dict(a=MINE | dict(weight=((0.5, 1.0),))), "config.sources.a.weight: The phases of a run begin at 0"),
    ],
)  # fmt: skip
def test_sources_that_cannot_be(sources, said):
    with pytest.raises(UserError) as raised:
        check_sources(ConfigDict(sources) if isinstance(sources, dict) else sources)
    assert said in str(raised.value)


def test_sources_that_can_be():
    for weight in (0, 1.0, {"text": 2}, ((0, 1.0), (0.5, {"text": 2.0, "portrait": 0}))):
        check_sources(ConfigDict(dict(a=MINE | dict(weight=weight), b=MINE | dict(task="edit"))))
