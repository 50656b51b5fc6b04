"""A run's report.html: one file that needs no network and no other file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from easycap.report.baseline_dots import dot_groups, without_metric
from easycap.report.caption_history import History, histories, repeated
from easycap.report.curve_panels import curves
from easycap.report.evaluated_sets import set_lines
from easycap.report.group_scores import group_score_tables
from easycap.report.recipe import origin, recipe
from easycap.report.scores import diagnostics_table, headline, mapping, score_tables, tag_tables
from easycap.report.thumbnails import Pictures, Thumbnails, write_page
from easycap.report.tiles import tiles
from easycap.runs.provenance import known_config
from easycap.runs.reading import RunFiles, read_run
from easycap.runs.samples import Sample
from easycap.utils import text as numbers

MAX_GALLERY = 24  # images of a kind and split
_STATE_SENTENCES = {
    "running": "This run is still in progress: the page shows what it has written so far.",
    "killed": "This run was killed: its process is gone. `easycap train resume=RUN` continues it.",
    "interrupted": "This run was interrupted. `easycap train resume=RUN` continues it.",
    "failed": "This run failed.",
}


def write_report(run: Path) -> Path:
    """Write RUN/report.html, whole or not at all; return its path; raises `UserError` if `run` is not a run."""
    files, path = read_run(run), run / "report.html"
    write_page(path, lambda pictures: render(files, pictures))
    return path


def render(files: RunFiles, pictures: Pictures) -> str:
    """Return the page of a run as HTML, its images where `pictures` puts them."""
    galleries = {
        split: {kind: rows[:MAX_GALLERY] for kind, rows in kinds.items()}
        for split, kinds in files.galleries.items()
    }
    evolution, result = histories(files.epochs), files.result or {}
    context = {
        "run": files,
        "pictures": pictures,
        "recipe": [*recipe(known_config(files.config, result)), *origin(result)],
        "alerts": _alerts(files),
        "seconds": files.status.seconds,
        "tiles": tiles(files),
        "galleries": galleries,
        "captions_title": "Tags" if files.config.get("task") == "tags" else "Captions",
        "evolution": evolution,
        "repeated": {split: repeated(captions) for split, captions in files.captions.items()},
        "looked": _looked(galleries, pictures),
        "thumbnails": _thumbnails(galleries, evolution, pictures),
        "config_groups": _config_groups(files.config),
        "made": datetime.now().astimezone().isoformat(),
        **_curves(files),
        **_result(result),
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
    metric = headline(result)
    dots = {split: dot_groups(result, split, metric) for split in baseline_tables}
    others = {split: without_metric(found, metric) for split, found in baseline_tables.items()}
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
        "dots": {split: groups for split, groups in dots.items() if groups},
        "baseline_tables": {split: found for split, found in others.items() if found.columns},
        "headline": metric,
        "diagnostics": diagnostics_table(result),
        "tag_tables": tag_tables(result),
        "commands": _by_command(mapping(result, "commands")),
        "cost": cost_rows,
        "environment": environment_rows,
    }


def _by_command(commands: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (labels, command), each command once."""
    labels: dict[str, list[str]] = {}
    for label, command in commands.items():
        labels.setdefault(command, []).append(label)
    return [(", ".join(of), command) for command, of in labels.items()]


def _plain(value: Any) -> str:
    return numbers.NOTHING if value is None else str(value)


def _looked(
    galleries: Mapping[str, Mapping[str, tuple[Sample, ...]]], pictures: Pictures
) -> dict[str, list[tuple[Sample, str]]]:
    """{split: (sample, address of the picture of where the decoder looked)} of the samples that have one."""
    found: dict[str, list[tuple[Sample, str]]] = {}
    for split, kinds in galleries.items():
        samples = {sample.id: sample for rows in kinds.values() for sample in rows if sample.attention}
        uris = ((sample, pictures.sheet(sample.attention)) for sample in samples.values() if sample.attention)
        found[split] = [(sample, uri) for sample, uri in uris if uri]
    return found


def _thumbnails(
    galleries: Mapping[str, Mapping[str, tuple[Sample, ...]]], evolution: list[History], pictures: Pictures
) -> Thumbnails:
    samples = [sample for kinds in galleries.values() for rows in kinds.values() for sample in rows]
    samples += [history.sample for history in evolution]
    return Thumbnails((sample.image for sample in samples), pictures)
