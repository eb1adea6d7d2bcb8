"""One training job, by the user's script or a plugin."""

from __future__ import annotations

import logging
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pluggy

from ..errors import ManyModelsError, SettingsError, TrainingFailed
from ..plugins import Plugins, wraps
from ..settings import Settings
from ..store import Limits
from .environment import arguments, variables
from .failure import Failure, record
from .job import PLUGIN, Job, plain, read_job
from .script import SIGNALS, check_script, code_folder, run_script

logger = logging.getLogger(__name__)


class _Stopped(BaseException):
    """A signal to stop came; no plugin's ``except Exception`` may take it for an error."""


def run(settings: Settings) -> Failure | None:
    """Train in the folder ``base_dir``; return how it failed, which is in ``output/failure`` as well, or None.

    Has to be called in the main thread, since it handles signals.

    :raises SettingsError: if there is no such folder.
    """
    base = settings.base_dir.resolve()
    if not base.is_dir():
        raise SettingsError(f"base_dir is {str(base)!r}, which is no folder; name the one that holds input/")
    path = base / "output" / "failure"
    with suppress(OSError):  # what cannot be deleted cannot be written, either, which is logged then
        path.unlink()  # that of an earlier job, tried in the same folder, would be taken for this one's
    failure = _run(base, settings)
    if failure is not None:
        record(failure, path)
    return failure


def _run(base: Path, settings: Settings) -> Failure | None:
    try:
        with _stopped_by_signals():
            job = read_job(base)
            job.make_folders()
            program = job.reserved_text("sagemaker_program")
            if not program and "program" in settings.model_fields_set:  # its default is for serving
                program = settings.program
            failure = None
            if program:
                failure = _train_by_script(program, job, settings)
            else:
                _train_by_plugin(job, settings)
            if failure is None and not os.listdir(job.model_dir):
                logger.warning("nothing was written to %s", job.model_dir)
            return failure
    except _Stopped as stopped:
        number = signal.Signals(stopped.args[0])
        return Failure(128 + number, f"training was stopped by {number.name} before its end")
    except ManyModelsError as error:
        cause = error.__cause__
        return Failure(1, str(error), "" if cause is None else "".join(traceback.format_exception(cause)))
    except Exception as error:
        logger.exception("training failed")
        return Failure(1, f"training failed ({type(error).__name__}: {error})", traceback.format_exc())


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    def stop(number: int, _frame: FrameType | None) -> None:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train_by_script(program: str, job: Job, settings: Settings) -> Failure | None:
    # What this job asks for goes before what the image's environment may say for all.
    address = job.reserved_text("sagemaker_submit_directory") or settings.submit_directory
    limits = Limits(members=settings.max_members, bytes=int(settings.max_unpacked))
    with code_folder(address, job.base, limits) as code:
        check_script(program, code)
        logger.info("training with %s of %s", program, code)
        level: int = getattr(logging, settings.log_level.upper())
        return run_script(program, arguments(job), code, variables(job, program, code, level))


def _train_by_plugin(job: Job, settings: Settings) -> None:
    for name, config in job.input_data.items():
        if config.get("TrainingInputMode") == "Pipe":
            raise TrainingFailed(f"the channel {name!r} is in Pipe mode, which plugins cannot read; use FastFile")
    if len(job.resources.hosts) > 1:
        raise TrainingFailed(
            f"plugins train on one host, and this job has {len(job.resources.hosts)}; set its instance count to 1"
        )
    name, hook = _trainer(job.reserved_text(PLUGIN), settings)
    logger.info("training with the plugin %s", name)
    hyperparameters = {key: plain(text) for key, text in job.hyperparameters.items()}
    try:
        hook(channels=job.channels, hyperparameters=hyperparameters, model_dir=job.model_dir)
    except ManyModelsError:
        raise
    except (Exception, SystemExit) as error:
        logger.exception("the plugin %s failed", name)
        raise TrainingFailed(f"the plugin {name!r} failed ({type(error).__name__}: {error})") from error


def _trainer(named: str | None, settings: Settings) -> tuple[str, pluggy.HookCaller]:
    """Return the plugin that trains, and the hook, of which it is the only implementation."""
    plugins = Plugins.installed(settings.block_plugins)
    implementations = plugins.hook.train.get_hookimpls()
    names = sorted(impl.plugin_name for impl in implementations if not wraps(impl))
    if not names:
        raise TrainingFailed(
            f"no script is named (sagemaker_program, SAGEMAKER_PROGRAM), and no installed plugin can train "
            f"(installed: {', '.join(plugins.names) or 'none'}); pip install manymodels-sklearn, or name a script"
        )
    if named is None and len(names) > 1:
        raise TrainingFailed(
            f"the plugins {' and '.join(names)} can train; choose one with the hyperparameter {PLUGIN!r}"
        )
    chosen = names[0] if named is None else named
    if chosen not in names:
        raise TrainingFailed(f"the hyperparameter {PLUGIN} is {chosen!r}, which cannot train; use {' or '.join(names)}")
    others = {name for name in names if name != chosen}
    if others:
        plugins = Plugins.installed({*settings.block_plugins, *others})
    return chosen, plugins.hook.train
