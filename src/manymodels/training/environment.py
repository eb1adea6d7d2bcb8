"""What a user's script is told: arguments and ``SM_*`` variables, as SageMaker's training toolkit gives them.

Source: the toolkit's documentation ("ENVIRONMENT_VARIABLES.md") and what it does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from .job import Job, decode


def arguments(job: Job) -> list[str]:
    """Return the hyperparameters as command-line arguments, sorted by name."""
    return list(_arguments(job))


def _arguments(job: Job) -> Iterator[str]:
    for name, text in sorted(job.hyperparameters.items()):
        value = decode(text)
        yield f"--{name}" if len(name) > 1 else f"-{name}"
        yield ",".join(f"{key}={value[key]}" for key in sorted(value)) if isinstance(value, dict) else str(value)


def variables(job: Job, program: str, code: Path, log_level: int) -> dict[str, str]:
    """Return the ``SM_*`` variables.

    :param program: the script, relative to `code`.
    :param log_level: as Python's logging counts, unless a hyperparameter has another.
    """
    resources, folder = job.resources, job.base / "input"
    hyperparameters = {name: decode(text) for name, text in job.hyperparameters.items()}
    channels = {name: str(path) for name, path in job.channels.items()}
    groups = {group.instance_group_name: msgspec.to_builtins(group) for group in resources.instance_groups}
    common = {
        "hosts": resources.hosts,
        "current_host": resources.current_host,
        "network_interface_name": resources.network_interface_name,
        "current_instance_type": resources.current_instance_type,
        "current_instance_group": resources.current_group_name,
        "current_instance_group_hosts": groups.get(resources.current_group_name, {}).get("hosts", []),
        "instance_groups": list(groups),
        "instance_groups_dict": groups,
        "distribution_instance_groups": job.reserved.get("sagemaker_distribution_instance_groups", []),
        "is_hetero": len(groups) > 1,
        "resource_config": {k: v for k, v in msgspec.to_builtins(resources).items() if v is not None},
        "input_data_config": job.input_data,
        "user_entry_point": program,
        "module_name": program.removesuffix(".py"),
        "module_dir": str(code),
        "framework_module": None,
        "log_level": job.reserved.get("sagemaker_container_log_level", log_level),
        "input_dir": str(folder),
        "input_config_dir": str(folder / "config"),
        "model_dir": str(job.model_dir),
        "output_dir": str(job.output_dir),
        "output_data_dir": str(job.output_dir / "data"),
        "output_intermediate_dir": str(job.output_dir / "intermediate"),
        "num_cpus": os.cpu_count() or 1,
        "num_gpus": _devices("nvidia[0-9]*"),
        "num_neurons": _devices("neuron[0-9]*"),
    }
    whole = {
        **common,
        "additional_framework_parameters": job.reserved,
        "channel_input_dirs": channels,
        "hyperparameters": hyperparameters,
        "is_master": resources.current_host == resources.hosts[0],
        "master_hostname": resources.hosts[0],
        "job_name": job.reserved.get("sagemaker_job_name"),
    }
    values = {
        **common,
        **({} if resources.topology is None else {"topology": resources.topology}),
        "framework_params": job.reserved,
        "channels": list(channels),
        "hps": hyperparameters,
        "training_env": whole,
        "user_args": arguments(job),
        **{f"channel_{name}": path for name, path in channels.items()},
        **{f"hp_{name}": value for name, value in hyperparameters.items()},
    }
    return {f"SM_{name.upper()}": _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))


def _devices(pattern: str) -> int:
    return sum(1 for _ in Path("/dev").glob(pattern))
