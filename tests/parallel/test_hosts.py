"""Two processes of two devices: what a pod does, on one machine, through the launch script."""

import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import stand_ins

from flashjax import checkpoint, metrics, pictures, train
from flashjax import config as configs
from flashjax.models import text
from flashjax.parallel import stopping

STEPS = 8
# Process $WHO gets SIGTERM in its own loop, at row 2.
AT_ROW_2 = """
from flashjax import metrics
add = metrics.MetricsWriter.add
def told(self, step, values):
    add(self, step, values)
    if step == 2 and os.environ.get("FLASHJAX_PROCESS", "0") == os.environ["WHO"]:
        os.kill(os.getpid(), signal.SIGTERM)
metrics.MetricsWriter.add = told
"""


def everything(folder: Path, step: int) -> dict[str, np.ndarray]:
    """All that a checkpoint holds, by path."""
    manager = ocp.CheckpointManager(folder / "checkpoints", item_handlers=checkpoint._handlers())
    args = dict(state=ocp.args.StandardRestore(), data=ocp.args.JsonRestore())
    found = manager.restore(step, args=ocp.args.Composite(**args))
    manager.close()
    leaves = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(found.state)}
    return leaves | {"data": np.array(json.dumps(found.data, sort_keys=True))}


def saved(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


@pytest.fixture(scope="module")
def uninterrupted(setting, tmp_path_factory):
    """The whole run in one process with four devices."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "load_text_encoder", None)
        patch.setattr(pictures, "make_drawer", None)
        stand_ins.replace()
        train.train(configs.load([setting.config, "--config.mesh.data=4"]), str(folder))
    return folder


@pytest.mark.parametrize("who", [pytest.param("0", marks=pytest.mark.long), "1"])
def test_sigterm_to_either_then_one_process_goes_on(launch, uninterrupted, tmp_path, who):
    told = launch(
        "local_multi.sh", "--config.mesh.data=4", "--config.checkpoint_every=100", f"--workdir={tmp_path}",
        FIRST=AT_ROW_2, WHO=who, FLASHJAX_RESTARTS="0",
    )  # fmt: skip
    output = told.communicate(timeout=200)[0]
    assert told.returncode == stopping.TRY_AGAIN, output
    (step,) = saved(tmp_path)  # of both alike: each process has written its part of it
    assert 2 < step <= 2 + stopping.AHEAD + 1
    assert output.count(f"told to stop: step {step} is saved in {tmp_path}") == 1
    resumed = launch("local.sh", "--config.mesh.data=4", f"--workdir={tmp_path}", FLASHJAX_DEVICES="4")
    output = resumed.communicate(timeout=200)[0]
    assert resumed.returncode == 0, output
    assert f"resumed from step {step}" in output
    expected, found = everything(uninterrupted, STEPS), everything(tmp_path, STEPS)
    assert found.keys() == expected.keys()
    assert found["data"] == expected["data"]
    # Gloo and XLA's own reduction may add four devices' gradients in another order.
    for name in found:
        if found[name].dtype == np.float32:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6, rtol=1e-5, err_msg=name)
    # The losses of every row are of the same samples.
    ours, theirs = metrics.read(tmp_path), metrics.read(uninterrupted)
    for name in ("critic_loss", "student_loss"):
        assert dict(zip(*ours[name], strict=True)).keys() >= {STEPS - 1}
        last = dict(zip(*ours[name], strict=True))[STEPS - 1], dict(zip(*theirs[name], strict=True))[STEPS - 1]
        np.testing.assert_allclose(*last, rtol=1e-4)
