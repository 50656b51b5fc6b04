"""A run's report.html: one file that needs no network and no other file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from easycap.report.caption_history import History, histories, repeated
from easycap.report.curve_panels import curves
from easycap.report.evaluated_sets import set_lines
from easycap.report.group_scores import group_score_tables
from easycap.report.recipe import recipe
from easycap.report.scores import (
    BASELINES,
    HEADLINE,
    diagnostics_table,
    dot_groups,
    main_split,
    mapping,
    oracle_mark,
    score_of,
    score_tables,
    tag_tables,
)
from easycap.report.thumbnails import Thumbnails, sheet_uri
from easycap.runs.reading import RunFiles, read_run, series
from easycap.runs.samples import Sample
from easycap.utils import text as numbers
from easycap.utils.files import write_atomically

MAX_GALLERY = 24  # images of a kind and split
_STATE_SENTENCES = {
    "running": "This run is still in progress: the page shows what it has written so far.",
    "killed": "This run was killed: its process is gone. `easycap train resume=RUN` continues it.",
    "interrupted": "This run was interrupted. `easycap train resume=RUN` continues it.",
    "failed": "This run failed.",
}


def write_report(run: Path) -> Path:
    """Write RUN/report.html, whole or not at all; return its path; raises `UserError` if `run` is not a run."""
    page = render(read_run(run))
    path = run / "report.html"
    write_atomically(path, page)
    return path


def render(files: RunFiles) -> str:
    """Return the page of a run as HTML."""
    galleries = {
        split: {kind: rows[:MAX_GALLERY] for kind, rows in kinds.items()}
        for split, kinds in files.galleries.items()
    }
    evolution = histories(files.epochs)
    context = {
        "run": files,
        "recipe": recipe(files.config),
        "alerts": _alerts(files),
        "seconds": files.status.seconds,
        "tiles": _tiles(files),
        "galleries": galleries,
        "captions_title": "Tags" if files.config.get("task") == "tags" else "Captions",
        "evolution": evolution,
        "repeated": {split: repeated(captions) for split, captions in files.captions.items()},
        "looked": _looked(galleries),
        "thumbnails": _thumbnails(galleries, evolution),
        "config_groups": _config_groups(files.config),
        "made": datetime.now().astimezone().isoformat(),
        **_curves(files),
        **_result(files.result or {}),
    }
    return environment().get_template("report.html.j2").render(context)


def environment() -> Environment:
    """Return the environment of the report templates: everything is escaped, nothing may be undefined."""
    environment = Environment(
        loader=PackageLoader("easycap.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = ("score_text", "number_text", "duration_text", "time_text")
    environment.filters.update({name.removesuffix("_text"): getattr(numbers, name) for name in texts})
    environment.globals["scale_note"] = numbers.SCALE_NOTE
    return environment


def _alerts(files: RunFiles) -> dict[str, Any]:
    warnings = (files.result or {}).get("warnings") or []
    notes = list(files.notes)
    if not mapping(files.result, "scores"):
        notes.append("No split has been scored yet.")
    return {
        "sentence": _STATE_SENTENCES.get(files.status.state, ""),
        "error": files.status.error,
        "warnings": [str(warning) for warning in warnings],
        "notes": notes,
    }


def _tiles(files: RunFiles) -> list[dict[str, str]]:
    result, split = files.result or {}, main_split(files.result or {})
    if split is None:
        return _validation_tiles(files)
    baselines = mapping(result, "baselines", split)
    same, reference = (
        mapping(baselines, key, HEADLINE) for key in ("model_same_references", "reference_caption")
    )
    tiles = []
    if numbers.is_number(same.get("value")) and numbers.is_number(reference.get("value")):
        tiles.append(
            _tile(
                f"{HEADLINE}, {split}, compared with a reference caption",
                same,
                HEADLINE,
                _compared(same, reference),
            )
        )
    for metric, label in ((HEADLINE, f"{HEADLINE}, {split}"), ("truth", f"truth, {split}")):
        if score := score_of(result, split, metric):
            about = "all references, as published" if metric == HEADLINE and tiles else ""
            about = "% of captions with two claims or more, all true" if metric == "truth" else about
            tiles.append(_tile(label, score, metric, about))
    return tiles + _cost_tiles(result)


def _tile(label: str, score: Mapping[str, Any], metric: str, about: str = "") -> dict[str, str]:
    value = numbers.score_text(score["value"], metric) + oracle_mark(score)
    interval = numbers.interval_text(score, metric)
    return {"label": label, "value": value, "interval": interval, "about": about}


def _compared(model: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    text = f"the {BASELINES['reference_caption']} itself {numbers.score_text(reference['value'])}"
    return f"{text}; ratio {model['value'] / reference['value']:.2f}" if reference["value"] > 0 else text


def _validation_tiles(files: RunFiles) -> list[dict[str, str]]:
    tiles = []
    for key, pick in ((f"val/{HEADLINE}", max), ("val/truth", max), ("val/loss", min), ("train/loss", min)):
        steps, values = series(files.metrics, key)
        finite = [value for value in values if numbers.is_number(value)]
        if finite:
            text = numbers.number_text if key.endswith("loss") else numbers.score_text
            about = f"last, at step {steps[-1]:,}; best {text(pick(finite))}"
            tiles.append({"label": key, "value": text(values[-1]), "interval": "", "about": about})
    return tiles


def _cost_tiles(result: Mapping[str, Any]) -> list[dict[str, str]]:
    cost = mapping(result, "cost")
    if not numbers.is_number(cost.get("wall_seconds")):
        return []
    parameters = cost.get("total_parameters")
    about = f"{numbers.amount_text(parameters)} parameters" if parameters else ""
    return [
        {
            "label": "wall time",
            "value": numbers.duration_text(cost["wall_seconds"]),
            "interval": "",
            "about": about,
        }
    ]


def _config_groups(config: Mapping[str, Any]) -> list[str]:
    """The config as YAML texts: the plain values together, then each group, which the page does not break."""
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    groups = [{key: value} for key, value in config.items() if isinstance(value, Mapping)]
    parts = [plain, *groups] if plain else groups
    return [yaml.safe_dump(part, sort_keys=False, allow_unicode=True, width=100).strip() for part in parts]


def _curves(files: RunFiles) -> dict[str, Any]:
    charts, other_charts = curves(files.metrics, files.result)
    last = next((line for line in reversed(files.metrics) if line.get("epoch") and line["step"]), None)
    per_step = last["epoch"] / last["step"] if last else 0
    return {"charts": charts, "other_charts": other_charts, "epochs_per_step": per_step}


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    table, baseline_tables = score_tables(result)
    split = main_split(result)
    cost, known = mapping(result, "cost"), numbers.COSTS
    cost_rows = [(label, text(cost[key])) for key, (label, text) in known.items() if key in cost]
    cost_rows += [(key.replace("_", " "), numbers.number_text(cost[key])) for key in cost if key not in known]
    environment_rows = [
        (key.replace("_", " "), _plain(value)) for key, value in mapping(result, "environment").items()
    ]
    for key in ("seed", "config_hash"):
        if key in result:
            environment_rows.append((key.replace("_", " "), str(result[key])))
    return {
        "table": table,
        "groups": {
            f"{label} by {field}": found
            for label in mapping(result, "groups")
            for field, found in group_score_tables(result, label).items()
        },
        "other_sets": set_lines(result, list(mapping(result, "scores"))),
        "baseline_tables": baseline_tables,
        "dots": dot_groups(result, split) if split else [],
        "headline": HEADLINE,
        "diagnostics": diagnostics_table(result),
        "tag_tables": tag_tables(result),
        "commands": dict(mapping(result, "commands")),
        "cost": cost_rows,
        "environment": environment_rows,
    }


def _plain(value: Any) -> str:
    return numbers.NOTHING if value is None else str(value)


def _looked(galleries: Mapping[str, Mapping[str, tuple[Sample, ...]]]) -> dict[str, list[tuple[Sample, str]]]:
    """{split: (sample, picture of where the decoder looked, as a data URI)} of the samples that have one."""
    found: dict[str, list[tuple[Sample, str]]] = {}
    for split, kinds in galleries.items():
        samples = {sample.id: sample for rows in kinds.values() for sample in rows if sample.attention}
        uris = ((sample, sheet_uri(sample.attention)) for sample in samples.values() if sample.attention)
        found[split] = [(sample, uri) for sample, uri in uris if uri]
    return found


def _thumbnails(
    galleries: Mapping[str, Mapping[str, tuple[Sample, ...]]], evolution: list[History]
) -> Thumbnails:
    samples = [sample for kinds in galleries.values() for rows in kinds.values() for sample in rows]
    samples += [history.sample for history in evolution]
    return Thumbnails(sample.image for sample in samples)
