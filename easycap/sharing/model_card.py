"""The model card of a captioner: what it is, its scores and how they were measured, its data, recipe and cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from easycap import __version__
from easycap.data.known_sets import KnownSet, known_sets
from easycap.report.recipe import pretrained_captioner, recipe, release_name
from easycap.report.scores import Cell, mapping, oracles_of, score_tables
from easycap.runs.provenance import imported, is_trained_here, known_config
from easycap.runs.reading import data_name
from easycap.utils.hub import is_hub_name
from easycap.utils.text import COSTS, SCALE_NOTE, is_count, is_number

LIBRARY = "easycap"
# The hub's names of metrics, by how ours begin; the others have ours in small letters.
_METRIC_IDS = {"BLEU": "bleu", "ROUGE": "rouge", "CIDEr": "cider"}
_UNSCORED = "These weights have not been scored."


def model_card(
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    *,
    name: str,
    licence: str | None,
    model_class: str | None = None,
    needs: Sequence[str] = (),
    carries: Sequence[str] = (),
) -> str:
    """Return README.md: metadata as the hub reads it, then Markdown.

    `config` and `result` are portable. `name` is what `easycap.load` takes; `needs` are arguments that captioning
    a photo must be given (draft="a dog"); `carries` says what else is in the folder. `model_class` is the class that a
    model of transformers has there.
    """
    front = _metadata(config, result, name, licence).to_yaml(line_break="\n")
    parts = [
        f"# {name.rstrip('/').rpartition('/')[2]}",
        _what_it_is(config, result, model_class),
        "## Use",
        _use(config, name, needs),
        "## Scores",
        "\n\n".join(_scores(result)),
        "## Data and licences",
        "\n".join(_data(config, result, licence, carries)),
        "## Recipe",
        _recipe(config, result),
        "## Cost",
        _cost(result),
    ]
    return f"---\n{front}\n---\n\n" + "\n\n".join(parts) + "\n"


def _metadata(
    config: Mapping[str, Any], result: Mapping[str, Any], name: str, licence: str | None
) -> ModelCardData:
    data, known = config["data"], _known(config)
    on_hub = (
        data.get("path") if data["name"] == "huggingface" and is_hub_name(str(data.get("path"))) else None
    )
    datasets = [known.name] if known else [on_hub] if on_hub else None
    if not is_trained_here(result):
        datasets = None  # what it was trained on is not known
    language = list(known.languages) if known else [data["language"]] if data.get("language") else None
    metrics = dict.fromkeys(_metric_id(one) for of in mapping(result, "scores").values() for one in of)
    return ModelCardData(
        language=language,
        license=licence,
        library_name=LIBRARY,
        pipeline_tag="image-to-text" if config["task"] == "caption" else "image-classification",
        tags=["image-captioning"] if config["task"] == "caption" else None,
        base_model=(is_trained_here(result) and _base_models(config)) or None,
        datasets=datasets,
        metrics=list(metrics) or None,
        model_name=name.rstrip("/").rpartition("/")[2],
        eval_results=list(_eval_results(config, result)) or None,
        ignore_metadata_errors=False,
    )


def _eval_results(config: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[EvalResult]:
    """The scores as the hub lists them, ×100 as in the table; those that an oracle helped are not a model's."""
    for label, scores in mapping(result, "scores").items():
        for metric, score in scores.items():
            if not is_number(score.get("value")) or oracles_of(score):
                continue
            scale = 1 if is_count(metric) else 100
            args = {"signature": score.get("signature")}
            if is_number(score.get("low")) and is_number(score.get("high")):
                args["interval"] = [round(scale * score[end], 4) for end in ("low", "high")]
            yield EvalResult(
                task_type="image-to-text" if config["task"] == "caption" else "image-classification",
                dataset_type=data_name(config),
                dataset_name=data_name(config),
                dataset_split=label,
                metric_type=_metric_id(metric),
                metric_name=metric,
                metric_value=round(scale * score["value"], 4),
                metric_args=args,
            )


def _metric_id(metric: str) -> str:
    return next((ours for begin, ours in _METRIC_IDS.items() if metric.startswith(begin)), metric.lower())


def _known(config: Mapping[str, Any]) -> KnownSet | None:
    return known_sets().get(data_name(config))


def _base_models(config: Mapping[str, Any]) -> list[str]:
    """The names on the hub of captioner, language model, word embeddings and encoder that training began with."""
    captioner = config.get("captioner", {})
    pretrained = (
        captioner.get("model"),
        config.get("decoder", {}).get("pretrained"),
        captioner.get("word_vectors"),
    )
    found = [one for one in pretrained if isinstance(one, str) and "/" in one and is_hub_name(one)]
    encoder = config["encoder"]
    if encoder.get("pretrained") is True and not encoder.get("weights") and encoder.get("model"):
        found.append(f"timm/{encoder['model']}")
    return found


def _what_it_is(config: Mapping[str, Any], result: Mapping[str, Any], model_class: str | None) -> str:
    parts = "; ".join(f"{part} {choice}" for part, choice in _recipe_of(config, result))
    kind = "An image captioning model" if config["task"] == "caption" else "A model of an image's tags"
    if about := imported(result):
        names = ", ".join(f"`{file['name']}`" for file in about.get("files", []))
        return (
            f"{kind} imported with easycap {__version__} from the release of {release_name(result)} ({names}), and not "
            f"trained with easycap: {parts}."
        )
    if (base := pretrained_captioner(config)) is not None:
        of_class = f" ({model_class})" if model_class else ""
        return f"{base}{of_class}, fine-tuned with easycap {__version__} to caption images: {parts}."
    return f"{kind} trained with easycap {__version__}: {parts}."


def _recipe_of(config: Mapping[str, Any], result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parts of the model; those that were not trained here without what training would need."""
    found = recipe(known_config(config, result))
    return found if is_trained_here(result) else [(part, choice) for part, choice in found if part != "data"]


def _use(config: Mapping[str, Any], name: str, needs: Sequence[str]) -> str:
    method = "caption" if config["task"] == "caption" else "tags"
    arguments = ", ".join(['"photo.jpg"', *needs])
    lines = [
        "import easycap",
        f'captioner = easycap.load("{name}")',
        f"print(captioner.{method}({arguments}))",
    ]
    return "\n".join(["```python", *lines, "```"])


def _scores(result: Mapping[str, Any]) -> Iterator[str]:
    if not mapping(result, "scores"):
        yield _UNSCORED
        return
    table, baselines = score_tables(result)
    yield _table("metric", table.columns, table.rows)
    for split, found in baselines.items():
        yield f"Baselines on {split}:"
        yield _table("captions", found.columns, found.rows)
    yield f"Each score has its 95% bootstrap interval. {SCALE_NOTE}"
    notes = [f"[{number}] `{signature}`" for number, signature in enumerate(table.signatures, 1)]
    if notes:
        yield "Scores are comparable only if their signatures match:"
        yield "\n".join(f"- {note}" for note in notes)
    if table.absent:
        yield "\n".join(f"- {reason}" for reason in table.absent)


def _table(head: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    lines = [[head, *columns], ["---"] * (1 + len(columns))]
    lines += [[row, *map(_cell, cells)] for row, cells in rows]
    return "\n".join("| " + " | ".join(one.replace("|", "\\|") for one in line) + " |" for line in lines)


def _cell(cell: Cell) -> str:
    interval = f" ({cell.interval})" if cell.interval else ""
    return cell.text + interval + (f" [{cell.note}]" if cell.note else "")


def _data(
    config: Mapping[str, Any], result: Mapping[str, Any], licence: str | None, carries: Sequence[str]
) -> Iterator[str]:
    images = mapping(result, "data", "images")
    counts = (
        f" ({', '.join(f'{split} {count:,}' for split, count in images.items())} images)" if images else ""
    )
    if is_trained_here(result):
        yield f"- Trained on `data={data_name(config)}`{counts}."
    else:
        yield f"- What the weights were trained on is for the release to say; scored on `data={data_name(config)}`."
    if (known := _known(config)) is not None:
        yield f"- Licence of the data: {known.licence}. Source: {known.cite}."
    elif config["data"]["name"] == "scenes":
        yield "- The data is generated by easycap; no third-party terms apply."
    else:
        yield "- Licence of the data: not known to easycap."
    yield f"- Licence of the weights: {licence or 'not stated'}."
    bases = _base_models(config) if is_trained_here(result) else []
    if (base := pretrained_captioner(config)) is not None and base not in bases:
        bases.append(base)
    yield from (f"- Training began with the weights of {one}, whose licence applies." for one in bases)
    if imported(result):
        yield "- The weights are those of the release, whose licence applies."
    yield from (f"- {one}" for one in carries)


def _recipe(config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    lines = [f"- {part}: {choice}" for part, choice in _recipe_of(config, result)]
    about = imported(result)
    lines += [f"- imported file: `{one['name']}`, sha256 `{one['sha256']}`" for one in about.get("files", [])]
    if is_trained_here(result):
        lines.append(f"- seed: {config['seed']}; every setting is in `config.json`")
    else:
        lines.append("- not known: data, objective, optimiser and seed of the training")
    lines += [f"- not known: {sentence}" for sentence in about.get("not_known", [])]
    if (state := result.get("state")) not in (None, "completed"):
        lines.append(f"- training did not finish ({state}): these are the best weights so far")
    steps = "training and scoring" if is_trained_here(result) else "scoring"
    commands = list(dict.fromkeys(mapping(result, "commands").values()))
    if commands:
        lines += [
            "",
            f"Commands used for {steps} (file names without folders):",
            "",
            "```bash",
            *commands,
            "```",
        ]
    return "\n".join(lines)


def _cost(result: Mapping[str, Any]) -> str:
    cost, environment = mapping(result, "cost"), mapping(result, "environment")
    lines = [
        f"- {title}: {text(cost[key])}" for key, (title, text) in COSTS.items() if is_number(cost.get(key))
    ]
    if environment:
        gpu, cpu = environment.get("gpu"), environment.get("cpu")
        versions = ", ".join(
            f"{key} {environment[key]}" for key in ("easycap", "torch") if key in environment
        )
        lines.append(f"- measured on: {gpu or cpu}, {versions}")
    return "\n".join(lines) or "Not recorded."
