"""Every configuration in the repository is one that can run: a renamed setting breaks those that nobody starts in a
test. (Studies: tests/studies.)"""

from pathlib import Path

import pytest

from flashjax import config as configs
from flashjax.recipe import in_vain, make_recipe, make_table
from flashjax.settings import check_settings

FOLDER = Path("configs")
ARGUMENTS = {
    "postcards": ("quick", "study", "res=64"), "postcards_trajectory": ("quick", "study", "res=64"),
    "postcards_teacher": ("res=64",), "postcards_joint": ("trajectory",),
    "specialist": ("rank=0", "tiny", "tiny,rank=0", "model=qwen_image", "model=klein", "model=z_image"),
    **dict.fromkeys(("klein", "qwen_image", "qwen_image_21", "z_image"), ("lora", "tiny", "lora,tiny")),
}  # fmt: skip
FILES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("file", [*FILES, *(f"{name}:{arg}" for name, args in ARGUMENTS.items() for arg in args)])
def test_a_configuration_makes_a_run(file):
    name, _, arg = file.partition(":")
    config = configs.load([f"--config={FOLDER / name}.py" + (f":{arg}" if arg else "")])
    assert config.image_size == (64 if arg == "res=64" else config.image_size)
    check_settings(config)
    table = make_table(config, make_recipe(config.distill) if config.objective != "flow_matching" else None)
    assert len(table) > 0
    assert in_vain(config, table) == []
    assert set(table.task.tolist()) == ({0} if config.edit_share == 0 else {0, 1})
