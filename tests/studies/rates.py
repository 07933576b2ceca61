"""A study of two rates whose cells take no time."""

import numpy as np
import pytest

from flashjax.studies import grid

SHIPPED = ("composition", "following", "guidance", "mixture", "open_questions", "specialists")
STUDY = grid.Study(
    title="Rates", question="Which?", base="configs/postcards.py",
    cells={"slow": {"student_optim.lr": 1e-5}, "fast": {"student_optim.lr": 1e-3}}, seeds=(0, 1),
    contrasts=(("fast", "slow"),),
)  # fmt: skip


code_version = grid.code_version  # reads all of the code, which every list of cells would do anew


@pytest.fixture(autouse=True)
def at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr(grid, "code_version", lambda: "of today")


def execute(cell, settings):
    """A cell's prompts have difficulties of their own; fast is better by 0.2 in each of them."""
    difficulty = np.random.default_rng(0).uniform(0, 0.7, 40)
    better = 0.2 if cell.name == "fast" else 0.0
    return dict(values=dict(score=(difficulty + better + 0.001 * cell.seed).tolist(), word=[None] * 39 + [1.0]))


def run(every, study=STUDY, execute=execute):
    return list(grid.run(every, study, execute))
