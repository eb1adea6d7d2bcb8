"""Training: SageMaker's contract, as the installed command keeps it."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from serving import PATIENCE, until

from manymodels.errors import TrainingFailed
from manymodels.training.environment import arguments, variables
from manymodels.training.job import decode, plain, read_job

MANYMODELS = Path(sys.executable).with_name("manymodels")
#: Tells of what a script was told.
ECHO = """
import json, os, sys
told = {"argv": sys.argv, "cwd": os.getcwd(), "path": sys.path, "env": dict(os.environ)}
with open(os.path.join(os.environ["SM_MODEL_DIR"], "told.json"), "w") as file:
    json.dump(told, file)
"""


class Folder:
    """A job's folder, in which ``manymodels train`` is run."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def write(self, name: str, content: Any) -> Path:
        """Write a file; what is not text is written as JSON."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def configure(self, **hyperparameters: str) -> None:
        """Write the hyperparameters."""
        self.write("input/config/hyperparameters.json", hyperparameters)

    def command(self) -> list[str]:
        """Return what trains here."""
        return [str(MANYMODELS), "train", "--base-dir", str(self.base)]

    def train(self, code: int = 0, **environment: str) -> str:
        """Train, and return what was printed."""
        env = {**os.environ, **environment}
        done = subprocess.run(self.command(), capture_output=True, text=True, env=env, timeout=PATIENCE)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def failure(self) -> str:
        """Return the failure file."""
        return (self.base / "output" / "failure").read_text()

    def refused(self, **environment: str) -> str:
        """Train in vain, and return the reason, which is the last line printed and the first of the failure file."""
        printed = self.train(code=1, **environment)
        reason = self.failure().splitlines()[0]
        assert printed.splitlines()[-1] == f"Error: {reason}"
        return reason


@pytest.fixture
def job(tmp_path: Path) -> Folder:
    base = tmp_path / "job"
    base.mkdir()
    return Folder(base)


def trainer(folder: Path, name: str, body: str) -> str:
    """Install a plugin that trains; return what PYTHONPATH has to be."""
    (folder / f"{name}.py").write_text(
        f"from manymodels import hookimpl\n@hookimpl\ndef train(channels, hyperparameters, model_dir):\n    {body}\n"
    )
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[manymodels]\n{name} = {name}\n")
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


# -- The script --


def test_script_is_told_what_the_toolkit_tells(job: Folder) -> None:
    job.write("code/echo.py", ECHO)
    job.write("code/requirements.txt", "numpy")
    job.write("input/data/validation/rows.csv", "1")
    job.write("input/data/.hidden/rows.csv", "1")
    job.write("input/config/inputdataconfig.json", {"train": {"TrainingInputMode": "Pipe", "ContentType": "text/csv"}})
    group = {"instance_group_name": "cpu", "instance_type": "ml.m5.large", "hosts": ["algo-1", "algo-2"]}
    resources = {
        "current_host": "algo-2",
        "hosts": ["algo-1", "algo-2"],
        "current_group_name": "cpu",
        "current_instance_type": "ml.m5.large",
        "instance_groups": [group],
        "network_interface_name": "eth1",
    }
    job.write("input/config/resourceconfig.json", resources)
    job.configure(
        n_estimators="200",
        rate="1e-1",
        loss='"huber"',
        name="not json",
        verbose="true",
        nan="NaN",
        d='{"b": 2, "a": "x"}',
        layers="[1, 2]",
        _tuning_objective_metric="accuracy",
        manymodels_plugin="sklearn",
        sagemaker_program='"echo.py"',
        sagemaker_job_name='"job-7"',
    )

    printed = job.train(SAGEMAKER_PROGRAM="another.py")

    assert "requirements.txt is not installed" in printed
    told = json.loads((job.base / "model/told.json").read_text())
    base, code = job.base, str(job.base / "code")
    sent = ["--layers", "[1, 2]", "--loss", "huber", "--n_estimators", "200", "--name", "not json", "--nan", "NaN"]
    sent = ["-d", "a=x,b=2", *sent, "--rate", "0.1", "--verbose", "True"]
    assert told["argv"] == ["echo.py", *sent]
    assert told["cwd"] == code
    assert code in told["path"]
    assert {name: value for name, value in told["env"].items() if name.startswith("SM_HP_")} == {
        "SM_HP_N_ESTIMATORS": "200",
        "SM_HP_RATE": "0.1",
        "SM_HP_LOSS": "huber",
        "SM_HP_NAME": "not json",
        "SM_HP_VERBOSE": "true",
        "SM_HP_NAN": "NaN",
        "SM_HP_D": '{"a":"x","b":2}',
        "SM_HP_LAYERS": "[1,2]",
    }
    expected = {
        "SM_MODEL_DIR": str(base / "model"),
        "SM_OUTPUT_DIR": str(base / "output"),
        "SM_OUTPUT_DATA_DIR": str(base / "output/data"),
        "SM_OUTPUT_INTERMEDIATE_DIR": str(base / "output/intermediate"),
        "SM_INPUT_DIR": str(base / "input"),
        "SM_INPUT_CONFIG_DIR": str(base / "input/config"),
        "SM_MODULE_DIR": code,
        "SM_MODULE_NAME": "echo",
        "SM_USER_ENTRY_POINT": "echo.py",
        "SM_FRAMEWORK_MODULE": "",
        "SM_CHANNEL_TRAIN": str(base / "input/data/train"),
        "SM_CHANNEL_VALIDATION": str(base / "input/data/validation"),
        "SM_CURRENT_HOST": "algo-2",
        "SM_CURRENT_INSTANCE_TYPE": "ml.m5.large",
        "SM_CURRENT_INSTANCE_GROUP": "cpu",
        "SM_NETWORK_INTERFACE_NAME": "eth1",
        "SM_IS_HETERO": "false",
        "SM_LOG_LEVEL": "20",
    }
    as_json = {
        "SM_CHANNELS": ["train", "validation"],
        "SM_HOSTS": ["algo-1", "algo-2"],
        "SM_CURRENT_INSTANCE_GROUP_HOSTS": ["algo-1", "algo-2"],
        "SM_INSTANCE_GROUPS": ["cpu"],
        "SM_INSTANCE_GROUPS_DICT": {"cpu": group},
        "SM_DISTRIBUTION_INSTANCE_GROUPS": [],
        "SM_RESOURCE_CONFIG": resources,
        "SM_INPUT_DATA_CONFIG": {"train": {"TrainingInputMode": "Pipe", "ContentType": "text/csv"}},
        "SM_USER_ARGS": sent,
        "SM_NUM_CPUS": os.cpu_count(),
    }
    env = told["env"]
    assert {name: env[name] for name in expected} == expected
    assert {name: json.loads(env[name]) for name in as_json} == as_json
    assert {"SM_NUM_GPUS", "SM_NUM_NEURONS"} <= env.keys()
    assert "SM_TOPOLOGY" not in env
    whole = json.loads(env["SM_TRAINING_ENV"])
    assert whole["hyperparameters"] == json.loads(env["SM_HPS"])
    assert whole["additional_framework_parameters"] == json.loads(env["SM_FRAMEWORK_PARAMS"])
    assert json.loads(env["SM_FRAMEWORK_PARAMS"])["_tuning_objective_metric"] == "accuracy"
    assert (whole["job_name"], whole["is_master"], whole["master_hostname"]) == ("job-7", False, "algo-1")
    assert not (base / "output/failure").exists()


def test_absent_configuration_is_one_host_without_channels(tmp_path: Path) -> None:
    job = read_job(tmp_path)
    told = variables(job, "train.py", tmp_path, 20)
    assert arguments(job) == []
    assert (told["SM_HOSTS"], told["SM_CURRENT_HOST"], told["SM_CHANNELS"]) == ('["algo-1"]', "algo-1", "[]")
    assert not {name for name in told if name.startswith(("SM_HP_", "SM_CHANNEL_"))}


def test_topology_is_told_where_there_is_one(tmp_path: Path) -> None:
    Folder(tmp_path).write("input/config/resourceconfig.json", {"topology": {"a": 1}})
    assert variables(read_job(tmp_path), "train.py", tmp_path, 20)["SM_TOPOLOGY"] == '{"a":1}'


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        ("200", 200, "200"),
        ('"200"', "200", "200"),
        ("huber", "huber", "huber"),
        ('"huber"', "huber", "huber"),
        ("Infinity", "Infinity", "Infinity"),
        ("123456789012345678901234567890", 123456789012345678901234567890, "123456789012345678901234567890"),
        ("[" * 2500, "[" * 2500, "[" * 2500),
        ("", "", ""),
    ],
)
def test_hyperparameters_may_be_json(text: str, value: Any, shown: str) -> None:
    assert decode(text) == value
    assert plain(text) == shown


@pytest.mark.parametrize("by", ["environment", "hyperparameter"])
def test_code_of_an_archive(job: Folder, tmp_path: Path, by: str) -> None:
    archive = tmp_path / "sourcedir.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, code in (("main.py", b"import helper"), ("helper.py", ECHO.encode())):
            member = tarfile.TarInfo(name)
            member.size = len(code)
            tar.addfile(member, io.BytesIO(code))
    if by == "environment":
        job.train(SAGEMAKER_PROGRAM="main.py", SAGEMAKER_SUBMIT_DIRECTORY=str(archive))
    else:
        job.configure(sagemaker_program="main.py", sagemaker_submit_directory=json.dumps(str(archive)))
        job.train(SAGEMAKER_SUBMIT_DIRECTORY="/nowhere")
    told = json.loads((job.base / "model/told.json").read_text())
    assert told["argv"] == ["main.py"]
    assert not Path(told["cwd"]).exists(), "the unpacked code is removed"


def test_output_streams_and_the_exit_code_and_last_words_are_handed_on(job: Folder) -> None:
    job.write(
        "code/fail.py",
        "import sys\nprint('epoch 1')\nprint('x' * 20000, file=sys.stderr)\nprint('  no more data', file=sys.stderr)\n"
        "sys.exit(7)\n",
    )
    printed = job.train(code=7, SAGEMAKER_PROGRAM="fail.py")
    assert "epoch 1\n" in printed
    assert "x" * 20000 in printed
    reason = "fail.py ended with exit code 7: no more data"
    assert f"Error: {reason}\n" in printed
    assert job.failure().splitlines()[0] == reason
    assert 8000 < len(job.failure()) < 9000


def test_failure_file_of_an_earlier_try_goes(job: Folder) -> None:
    job.write("code/fail.py", "raise SystemExit('first')\n")
    assert job.refused(SAGEMAKER_PROGRAM="fail.py") == "fail.py ended with exit code 1: first"
    job.write("code/fail.py", "raise SystemExit('second')\n")
    assert job.refused(SAGEMAKER_PROGRAM="fail.py") == "fail.py ended with exit code 1: second"
    job.write("code/fail.py", "")
    job.train(SAGEMAKER_PROGRAM="fail.py")
    assert not (job.base / "output/failure").exists()


def test_failure_file_of_the_script_stays(job: Folder) -> None:
    job.write("code/fail.py", "open('../output/failure', 'w').write('mine')\nraise SystemExit(1)\n")
    assert "is left as it is" in job.train(code=1, SAGEMAKER_PROGRAM="fail.py")
    assert job.failure() == "mine"


def test_killed_script(job: Folder) -> None:
    job.write("code/big.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    job.train(code=137, SAGEMAKER_PROGRAM="big.py")
    assert job.failure().startswith("big.py was ended by SIGKILL, most likely for want of memory;")


def test_what_the_script_leaves_running_is_killed(job: Folder) -> None:
    job.write(
        "code/fork.py",
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('../model/child', 'w').write(str(child.pid))\n",
    )
    job.train(SAGEMAKER_PROGRAM="fork.py")
    child = int((job.base / "model/child").read_text())
    until(
        lambda: not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes(), "gone"
    )


def test_what_the_script_leaves_running_may_write_for_ever(job: Folder) -> None:
    job.write("code/flood.py", "import subprocess\nsubprocess.Popen(['sh', '-c', 'yes >&2'])\nraise SystemExit(3)\n")
    job.train(code=3, SAGEMAKER_PROGRAM="flood.py")
    assert job.failure().startswith("flood.py ended with exit code 3: y")


@pytest.mark.parametrize(
    ("program", "submit", "reason"),
    [
        ("absent.py", None, "the script 'absent.py' is not in {base}/code, which holds run.sh"),
        ("run.sh", None, "the script 'run.sh' is not Python; name a file that ends with .py"),
        ("a.py", "s3://bucket/sourcedir.tar.gz", "the submit directory is 's3://bucket/sourcedir.tar.gz', and code is"),
        ("a.py", "{base}/absent", "the submit directory '{base}/absent' is neither a folder nor a .tar.gz"),
        ("a.py", "{base}/bad.tar.gz", "'bad.tar.gz' is damaged"),
    ],
)
def test_script_that_cannot_be_run(job: Folder, program: str, submit: str | None, reason: str) -> None:
    job.write("code/run.sh", "true")
    (job.base / "bad.tar.gz").write_bytes(gzip.compress(b"x" * 600)[:20])
    told = {} if submit is None else {"SAGEMAKER_SUBMIT_DIRECTORY": submit.format(base=job.base)}
    assert job.refused(SAGEMAKER_PROGRAM=program, **told).startswith(reason.format(base=job.base))


def test_hyperparameter_that_no_argument_can_be(job: Folder) -> None:
    job.write("code/train.py", "")
    job.configure(name=json.dumps("a\0b"))
    assert job.refused(SAGEMAKER_PROGRAM="train.py").startswith("train.py cannot be started")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("hyperparameters.json", "[1]", "is not valid: Expected `object`, got `array`"),
        ("hyperparameters.json", "{", "is not valid: Input data was truncated"),
        ("inputdataconfig.json", '{"train": 1}', "is not valid: Expected `object`, got `int` - at `$[...]`"),
        ("resourceconfig.json", '{"hosts": []}', "is not valid: Expected `array` of length >= 1 - at `$.hosts`"),
        ("resourceconfig.json", " " * (1 << 20) + "{}", "has more than 1048576 bytes"),
    ],
)
def test_configuration_that_is_not_valid(tmp_path: Path, name: str, content: str, reason: str) -> None:
    path = Folder(tmp_path).write(f"input/config/{name}", content)
    with pytest.raises(TrainingFailed) as caught:
        read_job(tmp_path)
    assert str(caught.value) == f"{path} {reason}"


def test_base_dir_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [MANYMODELS, "train"],
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(tmp_path / "absent")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: base_dir is '{tmp_path}/absent', which is no folder")


# -- Signals --

WAIT = """
import os, signal, sys, time
def stop(number, frame):
    {stop}
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, signal.SIG_DFL)
open(os.path.join(os.environ["SM_MODEL_DIR"], "started"), "w").close()
while True:
    time.sleep(0.05)
"""


def stop(job: Folder, command: list[str], number: int, **environment: str) -> int:
    """Train until something is written, send a signal, and return the exit code."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, **environment})
    try:
        until(lambda: process.poll() is not None or (job.base / "model/started").exists(), "it trains")
        process.send_signal(number)
        return process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("code", "failed"), [(0, False), (3, True)])
def test_script_may_save_its_work_when_stopped(job: Folder, code: int, failed: bool) -> None:
    job.write("code/wait.py", WAIT.format(stop=f"open('../model/saved', 'w').close(); sys.exit({code})"))
    assert stop(job, job.command(), signal.SIGTERM, SAGEMAKER_PROGRAM="wait.py") == code
    assert (job.base / "model/saved").exists()
    assert (job.base / "output/failure").exists() is failed


def test_script_that_a_signal_ends(job: Folder) -> None:
    job.write("code/wait.py", WAIT.format(stop="pass"))
    assert stop(job, job.command(), signal.SIGINT, SAGEMAKER_PROGRAM="wait.py") == 130
    assert job.failure() == "wait.py was ended by SIGINT after SIGINT was sent to stop it\n"


def test_script_that_does_not_stop_is_killed(job: Folder) -> None:
    job.write("code/wait.py", WAIT.format(stop="pass"))
    hasty = "from manymodels.training import script; script.GRACE = 0.1; from manymodels.cli import main; main()"
    command = [sys.executable, "-c", hasty, *job.command()[1:]]
    assert stop(job, command, signal.SIGTERM, SAGEMAKER_PROGRAM="wait.py") == 137
    assert job.failure() == "wait.py was ended by SIGKILL after SIGTERM was sent to stop it\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_plugin_is_interrupted(job: Folder, tmp_path: Path, number: signal.Signals, code: int) -> None:
    body = (
        "import tempfile, time\n"
        "    with tempfile.TemporaryDirectory(dir=model_dir):\n"
        "        (model_dir / 'started').touch()\n"
        "        while True:\n"
        "            try:\n"
        "                time.sleep(600)\n"
        "            except Exception:\n"
        "                pass\n"
    )
    path = trainer(tmp_path, "slow", body)
    assert stop(job, job.command(), number, PYTHONPATH=path, MANYMODELS_BLOCK_PLUGINS="sklearn") == code
    assert job.failure() == f"training was stopped by {number.name} before its end\n"
    assert os.listdir(job.base / "model") == ["started"]


# -- Plugins --


def test_plugin_chosen_by_a_hyperparameter(job: Folder, tmp_path: Path) -> None:
    path = trainer(tmp_path, "toy", "(model_dir / 'told').write_text(f'{sorted(channels)} {hyperparameters}')")
    job.write("input/data/train/a.txt", "")
    job.configure(depth="3", loss='"huber"', sagemaker_region='"eu"', _tuning_objective_metric="a")
    chosen = "the plugins sklearn and toy can train; choose one with the hyperparameter 'manymodels_plugin'"
    assert job.refused(PYTHONPATH=path) == chosen

    job.configure(manymodels_plugin="troy")
    unknown = "the hyperparameter manymodels_plugin is 'troy', which cannot train; use sklearn or toy"
    assert job.refused(PYTHONPATH=path) == unknown

    job.configure(manymodels_plugin="toy", depth="3", loss='"huber"', sagemaker_region='"eu"', _tuning="a")
    assert "training with the plugin toy" in job.train(PYTHONPATH=path)
    assert (job.base / "model/told").read_text() == "['train'] {'depth': '3', 'loss': 'huber'}"


@pytest.mark.parametrize("body", ["raise KeyError('price')", "exit('price')"])
def test_plugin_that_fails(job: Folder, tmp_path: Path, body: str) -> None:
    path = trainer(tmp_path, "toy", body)
    reason = job.refused(PYTHONPATH=path, MANYMODELS_BLOCK_PLUGINS="sklearn")
    assert re.match(r"the plugin 'toy' failed \((KeyError|SystemExit): '?price'?\)$", reason)
    assert "toy.py" in job.failure(), "the traceback is below the reason"


def test_nothing_written_is_told(job: Folder, tmp_path: Path) -> None:
    printed = job.train(PYTHONPATH=trainer(tmp_path, "toy", "pass"), MANYMODELS_BLOCK_PLUGINS="sklearn")
    assert f"nothing was written to {job.base}/model" in printed


def test_no_plugin_that_trains(job: Folder) -> None:
    assert job.refused(MANYMODELS_BLOCK_PLUGINS="sklearn").startswith("no script is named (sagemaker_program, ")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("inputdataconfig.json", {"train": {"TrainingInputMode": "Pipe"}}, "the channel 'train' is in Pipe mode"),
        ("resourceconfig.json", {"hosts": ["a", "b"]}, "plugins train on one host, and this job has 2"),
    ],
)
def test_job_that_plugins_cannot_do(job: Folder, name: str, content: Any, reason: str) -> None:
    job.write(f"input/config/{name}", content)
    assert job.refused().startswith(reason)


def test_reason_fits_what_sagemaker_shows(job: Folder) -> None:
    job.configure(n_trees="10")
    assert job.refused() == (
        "the hyperparameter 'n_trees' is not known; there are n_estimators, max_depth, learning_rate"
    )


def test_unexpected_error_is_told(job: Folder) -> None:
    job.write("model", "a file where a folder has to be")
    assert job.refused().startswith("training failed (FileExistsError: ")
