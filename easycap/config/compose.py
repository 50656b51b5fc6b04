"""Compose the config of a command line: Hydra, once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from easycap.config.hydra_job import compose_all, set_hydra_config
from easycap.config.options import has_option, import_of_recipe, options
from easycap.config.overrides import parse
from easycap.config.replaced_options import leave_out_settings_of_replaced
from easycap.config.schema import GROUPS, ROOT
from easycap.errors import UserError
from easycap.registry import describe_choices, import_modules, load_plugins
from easycap.runs.find import find_run
from easycap.utils.paths import config_files
from easycap.utils.plugins import failures

# The overrides that name modules to import.
_IMPORTING = ("imports=", "experiment=")
_RUNS = ("resume", "init_from", "run")  # fields that name a run


class Composition(NamedTuple):
    """A composed config, resolved; the option chosen in each group; and `full`: the config with Hydra's own settings
    under `hydra`, unresolved.
    """

    config: DictConfig
    choices: dict[str, str]
    full: DictConfig


def compose(overrides: Sequence[str]) -> Composition:
    """Return the config for `overrides`.

    Raises `UserError` for an override that cannot be parsed or an option that does not
    exist. Keys are not checked here: unknown fields are added, and `check` reports them.
    """
    parsed = parse(overrides)
    import_own_modules(parsed)
    settable = [_settable(override) for override in parsed]
    with _said_as_user_error(overrides):
        full = _compose_with_plugins(settable)
        leave_out_settings_of_replaced(full, parsed)
        choices = dict(full.hydra.runtime.choices)
        if (started := _with_runs(full, parsed)) is not full:
            full = started
            choices |= {
                group: full[group]["name"]
                for group in GROUPS
                if full[group].get("name") != choices.get(group)
            }
        config = full.copy()
        del config["hydra"]
        OmegaConf.resolve(config)
    return Composition(config, choices, full)


class Composer:
    """Composes the configs of many runs with the overrides `common`: YAML files are read once per choice of options."""

    def __init__(self, common: Sequence[str] = ()) -> None:
        self.common = list(common)
        self._imported: set[tuple[str, ...]] = set()
        self._words: dict[str, tuple[Override, str]] = {}
        self._composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any] | None]] = {}

    def __call__(self, overrides: Sequence[str]) -> Mapping[str, Any]:
        """Return `compose([*common, *overrides]).config`, as plain data where nothing refers to anything else.

        Raises `UserError` as that does.
        """
        words = [*self.common, *overrides]
        self._import(tuple(word for word in words if word.lstrip("+").startswith(_IMPORTING)))
        found = [self._settable(word) for word in words]
        if any(override.is_delete() for override, _ in found):  # their order matters
            return compose(words).config
        with _said_as_user_error(words):
            composed, plain = self._of_options(tuple(one for one in found if not _is_field(one[1])))
            if plain is not None and (simple := _with_fields(plain, found[len(self.common) :])) is not None:
                return simple
            config = composed.copy()
            _set_fields(config, found[len(self.common) :])
            config = _with_runs(config, [override for override, _ in found])
            OmegaConf.resolve(config)
        return config

    def _import(self, words: tuple[str, ...]) -> None:
        if words not in self._imported:
            import_own_modules(parse(words))
            self._imported.add(words)

    def _settable(self, word: str) -> tuple[Override, str]:
        if word not in self._words:
            (override,) = parse([word])
            self._words[word] = override, _settable(override)
        return self._words[word]

    def _of_options(
        self, options_chosen: tuple[tuple[Override, str], ...]
    ) -> tuple[DictConfig, dict[str, Any] | None]:
        """The config of the overrides that choose options, with the fields that all runs share; also as plain data,
        None if a setting of it refers to another or to a run.
        """
        chosen = tuple(text for _, text in options_chosen)
        if chosen not in self._composed:
            config = _compose_with_plugins(chosen)
            del config["hydra"]
            leave_out_settings_of_replaced(config, [override for override, _ in options_chosen])
            _set_fields(config, [self._settable(word) for word in self.common])
            plain: Any = OmegaConf.to_container(config)
            refers = "${" in repr(plain) or any(
                OmegaConf.select(config, key) for key in _names_of_runs(config)
            )
            self._composed[chosen] = config, None if refers else plain
        return self._composed[chosen]


def _is_field(text: str) -> bool:
    return text.startswith("++")


def _set_fields(config: DictConfig, overrides: Sequence[tuple[Override, str]]) -> None:
    for override, text in overrides:
        if _is_field(text):
            OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)


def _with_fields(plain: dict[str, Any], overrides: Sequence[tuple[Override, str]]) -> dict[str, Any] | None:
    """A copy of a config with fields set, as `_set_fields` sets them but ten times as fast; None for those that are
    more than a value in its place: mappings are merged, references are resolved, runs are looked up.
    """
    result = copy.deepcopy(plain)
    for override, text in overrides:
        if not _is_field(text):
            continue
        key, value, place = override.key_or_group, override.value(), result
        *parents, last = key.split(".")
        for name in parents:
            place = place.setdefault(name, {}) if isinstance(place, dict) else {}
        in_place = isinstance(place, dict) and not isinstance(place.get(last), dict)
        refers = "${" in text or "???" in text or last in _RUNS
        if not in_place or isinstance(value, dict) or refers or "[" in key:
            return None
        place[last] = value
    return result


@contextmanager
def _said_as_user_error(overrides: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        reference = next((word for word in overrides if "${" in word), None)
        why = f" ({reference}: '${{' refers to another setting)" if reference else ""
        raise UserError(" ".join(str(error).split()) + why + failures()) from error


def _with_runs(config: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    """The config with the paths of the runs that it names, and with the defaults of the one to start from."""
    _find_runs(config)
    if config.get("init_from") is None or config.get("resume") is not None:
        return config
    from easycap.config.init_from import with_defaults_of  # imports torch, so only if needed

    return with_defaults_of(config, overrides)


def import_own_modules(overrides: Sequence[Override]) -> None:
    """Import the modules that overrides or their recipe name with `imports`; `UserError` names one that cannot be."""
    values = {o.key_or_group: o.value() for o in overrides if not o.is_sweep_override() and not o.is_delete()}
    if (recipe := values.get("experiment")) in config_files("experiment"):
        import_of_recipe(str(recipe))
    modules = values.get("imports") or []
    if not isinstance(modules, list):
        raise UserError(f"imports={modules} must be a list of module names: imports=[{modules}]")
    import_modules(map(str, modules))


def _compose_with_plugins(overrides: Sequence[str]) -> DictConfig:
    """Users' packages are loaded only where something is not found without them: a recipe may choose their options."""
    try:
        return compose_all(overrides)
    except MissingConfigException:
        load_plugins()
        return compose_all(overrides)


def _find_runs(config: DictConfig) -> None:
    """Replace the names of runs by their paths."""
    for key in _names_of_runs(config):
        if (run := OmegaConf.select(config, key)) is not None:
            OmegaConf.update(config, key, str(find_run(str(run))))


def config_text(composition: Composition, kind: str, *, package: str | None, resolve: bool) -> str:
    """Return what `--cfg job|hydra|all` prints: the config as YAML, or the part of it that `package` names.

    Interpolations stay as they are written unless `resolve`. Raises `UserError` for a part that is not there and for
    references that cannot be resolved.
    """
    set_hydra_config(composition.full.copy())
    shown = composition.full.copy()
    if kind == "job":
        del shown["hydra"]
    elif kind == "hydra":
        for key in [key for key in shown if key != "hydra"]:
            del shown[key]
        with flag_override(shown.hydra, ["struct", "readonly"], False):
            del shown.hydra["hydra_help"], shown.hydra["help"]
    package = None if package == "_global_" else package
    try:
        part = OmegaConf.select(shown, package) if package else shown
        if not OmegaConf.is_config(part):
            if part is None:
                raise UserError(f"--package {package}: the config has no such part, or it is null")
            return f"{part}\n"
        if resolve:
            OmegaConf.resolve(part)
    except OmegaConfBaseException as error:
        raise UserError(" ".join(str(error).split())) from None
    return f"# @package {package}\n" * bool(package) + OmegaConf.to_yaml(part)


def _names_of_runs(config: DictConfig) -> list[str]:
    """The settings that name another run, by its path or as `easycap runs` names it."""
    groups = [
        str(key)
        for key, value in config.items()
        if key != "hydra" and isinstance(value, DictConfig) and "run" in value
    ]
    return ["resume", "init_from", *(f"{group}.run" for group in groups)]


def _settable(override: Override) -> str:
    """The override as one that sets its key whether it exists or not, after checking the option of a group."""
    key, text = override.key_or_group, override.input_line
    assert text is not None
    if override.is_sweep_override():
        raise UserError(f"{text} has several values: add -m to train one run for each")
    if key in ("sweep", "launcher"):
        raise UserError(f"{text} is for sweeps: add -m")
    if key in GROUPS:
        _check_option(key, override.value())
        return text.lstrip("+")
    if key == "experiment" and override.value() is not None:
        _check_option(key, override.value())
        return text.lstrip("+")
    if key not in (*ROOT, "experiment") and "." not in key and not key.startswith("hydra") and options(key):
        # A text condition of no default config: added to its groups.
        _check_option(key, override.value())
        return "+" + text.lstrip("+")
    if override.is_delete() or key.startswith("hydra"):
        return text
    return "++" + text.lstrip("+")


def _check_option(group: str, option: Any) -> None:
    if isinstance(option, (list, dict)):
        several = "; further trackers: tracking.also=[tensorboard,csv]" if group == "tracking" else ""
        raise UserError(f"{group} takes one option, e.g. {group}={options(group)[0]}{several}")
    if not has_option(group, option):
        name = "null" if option is None else str(option)
        raise UserError(
            f"{group}={name} does not exist; {describe_choices(name, options(group))}{failures()}"
        )
