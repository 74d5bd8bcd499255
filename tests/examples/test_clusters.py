"""The scripts for clusters, with small programs in the places of torchrun, srun and scontrol."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_data_set import make_data_set
from trainer.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

SRUN = """#!/bin/sh
shift  # its own option
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost CUDA_VISIBLE_DEVICES=
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" --batch-size 16 --model tiny --max-steps $STEPS &
    processes="$processes $!"
done
for process in $processes; do wait $process || exit 1; done
"""

BERT_TRAIN = f"""#!/bin/sh
exec {sys.executable} -m trainer "$@"
"""

SHOW = """#!/bin/sh
echo "$(basename "$0")" "$@"
"""


def write_programs(folder: Path, **programs: str) -> dict[str, str]:
    """Returns an environment in which these programs come before others."""
    folder.mkdir()
    for name, text in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(text)
        path.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def check_options(words: list[str]) -> None:
    known = {option for parameter in main.params for option in parameter.opts}
    assert words
    assert all(word in known for word in words if word.startswith("--"))


def test_torchrun_script_starts_the_trainer(tmp_path: Path) -> None:
    environment = write_programs(tmp_path / "bin", torchrun=SHOW) | {"SHARDS": "shards", "OUT": "out"}
    script = EXAMPLES / "torchrun" / "train.sh"
    done = subprocess.run([script, "1"], env=environment, capture_output=True, text=True, check=True)
    launcher, trained = done.stdout.split(" -m trainer ")
    assert "--node-rank 1" in launcher
    check_options(trained.split())
    readme = (EXAMPLES / "torchrun" / "README.md").read_text()
    check_options(readme.split("-m trainer \\\n")[1].split("\n```")[0].split())


@pytest.mark.slow
def test_slurm_script_trains_and_queues_what_is_unfinished(tmp_path: Path) -> None:
    data_set = make_data_set(tmp_path / "shards")
    environment = write_programs(tmp_path / "bin", srun=SRUN, bert_train=BERT_TRAIN, scontrol=SHOW)
    environment |= {"SHARDS": str(data_set.folder), "OUT": str(tmp_path / "run"), "SLURM_JOB_ID": "77", "STEPS": "2"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES.parent)}
    script = EXAMPLES / "slurm" / "train.sbatch"
    done = subprocess.run([script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stderr
    assert "scontrol" not in done.stdout
    assert (tmp_path / "run" / "hf").is_dir()
    again = subprocess.run(
        [script], env=environment | {"OUT": str(tmp_path / "other"), "STEPS": "0"}, capture_output=True, text=True
    )
    assert again.returncode != 0  # a wrong option is no reason to try again
    assert "scontrol" not in again.stdout


def test_slurm_script_queues_a_run_that_was_stopped(tmp_path: Path) -> None:
    environment = write_programs(tmp_path / "bin", srun=SHOW, scontrol=SHOW) | {"SLURM_JOB_ID": "77", "OUT": "out"}
    done = subprocess.run(
        [EXAMPLES / "slurm" / "train.sbatch"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    trained, queued = done.stdout.splitlines()
    check_options(trained.split(" bert-train ")[1].split())
    assert queued == "scontrol requeue 77"
