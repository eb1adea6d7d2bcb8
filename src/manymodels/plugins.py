"""The plugin manager: find plugins, check them, bind an artifact to one."""

from __future__ import annotations

import inspect
import logging
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib import metadata
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pluggy

from . import defaults, hookspecs
from .acceleration import Accelerated
from .artifact import MANIFEST, Artifact
from .batching import Batch
from .context import Context, ModelSettings
from .errors import LoadFailed, ManyModelsError, NoPlugin, PluginError
from .schema import Schema

logger = logging.getLogger(__name__)

Predict = Callable[[Any, Any, Context], Any]

#: The entry-point group in which distributions name their plugin.
GROUP = "manymodels"


class Binding(msgspec.Struct, frozen=True, array_like=True):
    """Which plugins serve an artifact."""

    plugin: str
    #: The framework plugin below one that claimed the artifact's code.
    framework: str | None = None

    @property
    def plugins(self) -> list[str]:
        """All of them."""
        return [self.plugin] if self.framework is None else [self.plugin, self.framework]


class PluginInfo(msgspec.Struct, frozen=True):
    """One registered plugin, as ``manymodels plugins`` shows it."""

    name: str
    version: str
    distribution: str
    hooks: tuple[str, ...]


class Bound:
    """The hooks of one plugin, typed: what it leaves out is answered by the platform's defaults."""

    def __init__(self, manager: pluggy.PluginManager, plugin: object, *, wrappers: bool = True) -> None:
        def only(hook: str) -> Callable[..., Any]:
            keep = plugin if _implements(manager, hook, plugin) else defaults
            impls = getattr(manager.hook, hook).get_hookimpls()
            return _hook(hook, [impl for impl in impls if impl.plugin is keep or (wrappers and wraps(impl))])

        self._load = only("load")
        self._input_fn = only("input_fn")
        self._predict_fn = only("predict_fn")
        self._output_fn = only("output_fn")
        self._batch = only("batch")
        self._accelerate = only("accelerate")
        self._schema = only("schema")
        self._unload = only("unload")
        impls = manager.hook.predict_fn.get_hookimpls()
        self._around_predict = [impl for impl in impls if wrappers and wraps(impl)]

    def load(self, artifact: Artifact, context: Context) -> Any:
        """Call the ``load`` hook."""
        return self._load(artifact, context)

    def input_fn(self, body: bytes, content_type: str | None, model: Any, context: Context) -> Any:
        """Call the ``input_fn`` hook."""
        return self._input_fn(body, content_type, model, context)

    def predict_fn(self, data: Any, model: Any, context: Context) -> Any:
        """Call the ``predict_fn`` hook."""
        return self._predict_fn(data, model, context)

    def in_place_of_predict_fn(self, predict: Predict) -> Predict:
        """Return what calls `predict` where the ``predict_fn`` hook would be called, wrappers included."""
        return _hook("predict_fn", self._around_predict, predict) if self._around_predict else predict

    def output_fn(self, prediction: Any, model: Any, accept: str, context: Context) -> Any:
        """Call the ``output_fn`` hook."""
        return self._output_fn(prediction, model, accept, context)

    def batch(self, model: Any, context: Context) -> Batch | None:
        """Call the ``batch`` hook."""
        return cast("Batch | None", self._batch(model, context))

    def accelerate(self, model: Any, context: Context) -> Accelerated | None:
        """Call the ``accelerate`` hook."""
        return cast("Accelerated | None", self._accelerate(model, context))

    def schema(self, model: Any, context: Context) -> Schema | None:
        """Call the ``schema`` hook."""
        return cast("Schema | None", self._schema(model, context))

    def unload(self, model: Any, context: Context) -> None:
        """Call the ``unload`` hook."""
        self._unload(model, context)


class Plugins:
    """The plugins of one server."""

    def __init__(self, plugins: Iterable[tuple[str, object]] = (), blocked: Collection[str] = ()) -> None:
        """Register `plugins` (name, module or object), leaving out those whose name is blocked.

        :raises PluginError: if one has a hook of an unknown name or signature.
        """
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._manager.register(defaults, "defaults")
        self._bound: dict[tuple[str, bool], Bound] = {}
        for name in blocked:
            self._manager.set_blocked(name)
        for name, plugin in plugins:
            self.register(plugin, name)

    @classmethod
    def installed(cls, blocked: Collection[str] = ()) -> Plugins:
        """Return the plugins that installed distributions name, without the blocked ones.

        :raises PluginError: if one cannot be imported or breaks the hook contract.
        """
        plugins = cls(blocked=blocked)
        for entry in installed():
            if (name := entry.name) in blocked:
                continue
            try:
                plugin = entry.load()
            except Exception as error:
                raise PluginError(
                    f"plugin {name!r} of distribution {_distribution(entry)[0]!r} cannot be imported "
                    f"({type(error).__name__}: {error}); mend or uninstall it, or leave it out with "
                    f"--block-plugins {name}"
                ) from error
            plugins.register(plugin, name)
        return plugins

    def register(self, plugin: object, name: str) -> None:
        """Add one plugin.

        :raises PluginError: if it has a hook of an unknown name or signature.
        """
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            self._bound.clear()  # a wrapper may have come
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"plugin {name!r} breaks the hook contract: {error}") from error

    @property
    def hook(self) -> pluggy.HookRelay:
        """All hooks of all plugins, for those that are not bound to a model."""
        return self._manager.hook

    @property
    def names(self) -> list[str]:
        """Names of the registered plugins, sorted; the platform's own defaults are left out."""
        return sorted(name for name, plugin in self._manager.list_name_plugin() if plugin not in (None, defaults))

    def describe(self) -> list[PluginInfo]:
        """Return name, version, distribution and hooks of every plugin."""
        origin = {entry.name: _distribution(entry) for entry in installed()}
        found = []
        for name in self.names:
            distribution, version = origin.get(name, ("", ""))
            callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or []
            hooks = tuple(sorted(caller.name for caller in callers))
            found.append(PluginInfo(name=name, version=version, distribution=distribution, hooks=hooks))
        return found

    @property
    def watching(self) -> list[str]:
        """Names of the plugins that wrap hooks of others and serve no models themselves, sorted."""
        hooks = [caller for caller in vars(self._manager.hook).values() if isinstance(caller, pluggy.HookCaller)]
        impls = [impl for caller in hooks for impl in caller.get_hookimpls()]
        wrapping = {impl.plugin_name for impl in impls if wraps(impl)}
        serving = {impl.plugin_name for impl in self._manager.hook.load.get_hookimpls() if not wraps(impl)}
        return sorted(wrapping - serving)

    def warm_up_imports(self, names: Collection[str] | None = None) -> list[str]:
        """Return the modules the named plugins (None: all) want imported before workers are forked."""
        modules: dict[str, None] = {}
        for name in self.names if names is None else sorted(set(names) & set(self.names)):
            plugin = self._manager.get_plugin(name)
            if _implements(self._manager, "warm_up_imports", plugin):
                for module in plugin.warm_up_imports():  # type: ignore[union-attr]
                    modules[module] = None
        return list(modules)

    def bind(self, artifact: Artifact, settings: ModelSettings) -> Binding:
        """Decide which plugins serve the artifact, executing nothing of it.

        :raises NoPlugin: if none or several claim it, or the one its manifest names is not installed.
        :raises LoadFailed: if its manifest is not valid, it cannot be read, or a plugin fails over it.
        :raises NotTrusted: if the operator does not allow one of them.
        """
        binding = self._bind(artifact, settings)
        if settings.policy is not None:
            settings.policy.check_plugins(artifact.name, binding.plugins)
        return binding

    def _bind(self, artifact: Artifact, settings: ModelSettings) -> Binding:
        code = self._claim("claim_code", artifact, settings=settings)
        framework = self._framework(artifact)
        if code is not None and code != framework:
            return Binding(plugin=code, framework=framework)
        if framework is None:
            raise NoPlugin(self._unclaimed(artifact))
        return Binding(plugin=framework)

    def claims(self, artifact: Artifact, settings: ModelSettings) -> bool:
        """Say whether the artifact is for any plugin; one that cannot be read is, so that loading it says why.

        A script shared by all models claims nothing by itself: it would claim every file of a store.
        """
        own = msgspec.structs.replace(settings, submit_directory=None)
        try:
            return (
                artifact.manifest.framework is not None
                or self._claim("claim", artifact) is not None
                or self._claim("claim_code", artifact, settings=own) is not None
            )
        except LoadFailed:
            return True

    def bound(self, name: str, *, wrappers: bool = True) -> Bound:
        """Return the hooks of one plugin.

        :param wrappers: whether wrappers of other plugins run around them.
        :raises NoPlugin: if no plugin of that name is registered, or it cannot serve a model.
        """
        if (bound := self._bound.get((name, wrappers))) is not None:
            return bound
        plugin = self._manager.get_plugin(name)
        if plugin is None:
            raise NoPlugin(self._missing(name))
        for hook in ("load", "predict_fn"):
            if not _implements(self._manager, hook, plugin):
                raise NoPlugin(f"the plugin {name!r} serves no models: it has no {hook}")
        bound = self._bound[name, wrappers] = Bound(self._manager, plugin, wrappers=wrappers)
        return bound

    def _framework(self, artifact: Artifact) -> str | None:
        named = artifact.manifest.framework
        if named is not None:
            if named not in self.names:
                raise NoPlugin(f"{MANIFEST} of {artifact.name!r} names {named!r}. {self._missing(named)}")
            return named
        return self._claim("claim", artifact)

    def _claim(self, hook: str, artifact: Artifact, **arguments: Any) -> str | None:
        """Ask all plugins; return the one that claims the artifact, or None."""
        try:
            claims = sorted(set(getattr(self.hook, hook)(artifact=artifact, **arguments)))
        except ManyModelsError:
            raise
        except Exception as error:
            logger.exception("a plugin's %s failed over %r", hook, artifact.name)
            raise LoadFailed(
                f"a plugin failed when it was asked whether it serves {artifact.name!r} "
                f"({type(error).__name__}: {error}); the server's log shows which"
            ) from error
        if len(claims) > 1:
            remedy = f'settle it with a {MANIFEST} in the artifact: {{"framework": "{claims[0]}"}}'
            if hook == "claim_code":
                remedy = f"leave one out with --block-plugins {claims[0]}"
            raise NoPlugin(f"{artifact.name!r} is claimed by the plugins {' and '.join(claims)}; {remedy}")
        return claims[0] if claims else None

    def _missing(self, name: str) -> str:
        return (
            f"The plugin {name!r} is not installed (installed: {', '.join(self.names) or 'none'}); "
            f"pip install manymodels-{name}"
        )

    def _unclaimed(self, artifact: Artifact) -> str:
        files = artifact.files
        found = ", ".join(_show(artifact, name) for name in files[:5]) or "no files"
        more = f" and {len(files) - 5} more" if len(files) > 5 else ""
        script = ", or add code that loads it: code/inference.py" if self.hook.claim_code.get_hookimpls() else ""
        return (
            f"no plugin claims {artifact.name!r}: it holds {found}{more}, and the installed plugins "
            f"({', '.join(self.names) or 'none'}) know none of that as it lies there; install the plugin of its "
            f"framework, have one model file at the artifact's top under a name that the plugin knows{script}"
        )


def installed() -> list[metadata.EntryPoint]:
    """Return where installed distributions have plugins, sorted by name; nothing is imported."""
    return sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name)


def _implements(manager: pluggy.PluginManager, hook: str, plugin: object) -> bool:
    impls = getattr(manager.hook, hook).get_hookimpls()
    return any(impl.plugin is plugin and not wraps(impl) for impl in impls)


def wraps(impl: pluggy.HookImpl) -> bool:
    """Say whether an implementation runs around those of other plugins."""
    return impl.wrapper or impl.hookwrapper


def _hook(name: str, impls: Sequence[pluggy.HookImpl], inner: Predict | None = None) -> Callable[..., Any]:
    """Return what calls implementations of a hook with the arguments in the order of its specification.

    Where there is nothing but one plugin's function it is called as it is, and else by a plugin manager that knows no
    others: to leave out what is not meant at each call takes longer than the arithmetic of a small model.

    :param inner: what wrappers are to be around, instead of an implementation.
    """
    spec = getattr(hookspecs, name)
    names = tuple(inspect.signature(spec).parameters)
    if inner is None and len(impls) == 1 and not (wraps(impls[0]) or impls[0].kwargnames):
        return _plain(impls[0].function, [names.index(argument) for argument in impls[0].argnames], len(names))
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(type(name, (), {name: spec}))
    functions = [impl.function for impl in impls]
    if inner is not None:
        functions.append(hookspecs.hookimpl(lambda data, model, context: inner(data, model, context)))
    for function in functions:
        manager.register(SimpleNamespace(**{name: function}))
    caller = getattr(manager.hook, name)
    return lambda *args: caller(**dict(zip(names, args, strict=True)))


def _plain(function: Callable[..., Any], places: list[int], count: int) -> Callable[..., Any]:
    """Return what calls a function with some of `count` arguments."""
    if places == list(range(count)):
        return function
    if len(places) > 1:
        pick = operator.itemgetter(*places)
        return lambda *args: function(*pick(args))
    return lambda *args: function(*[args[place] for place in places])


def _show(artifact: Artifact, name: str) -> str:
    root = artifact.pickle_root(name)
    return f"{name} (a pickled {root})" if root else name


def _distribution(entry: metadata.EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
