"""All checks, by the names that known failures and reports know them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .answering import accelerate_agrees, answers_as_expected, batch_equals_single, loads
from .claiming import claims_by_looking, claims_its_own, claims_no_others
from .cost import leaks_nothing, starts_cold_in_time, unload_frees_memory
from .hostile import refuses_other_widths, refuses_pickles, survives_bad_input, survives_damaged_artifacts
from .packaging import is_packaged
from .processes import is_fork_safe, is_thread_safe, leaves_the_process_alone, uses_one_thread, warms_up
from .serving import answers_on_every_backend, answers_over_http
from .streaming import streams_in_parts
from .subject import Subject

Function = Callable[[Subject], str | None]

CHECKS: Mapping[str, Function] = {
    function.__name__.replace("_", "-"): function
    for function in (
        is_packaged,
        warms_up,
        claims_its_own,
        claims_no_others,
        claims_by_looking,
        loads,
        starts_cold_in_time,
        answers_as_expected,
        batch_equals_single,
        accelerate_agrees,
        streams_in_parts,
        survives_bad_input,
        refuses_other_widths,
        survives_damaged_artifacts,
        refuses_pickles,
        uses_one_thread,
        leaves_the_process_alone,
        is_thread_safe,
        is_fork_safe,
        leaks_nothing,
        unload_frees_memory,
        answers_on_every_backend,
        answers_over_http,
    )
}
