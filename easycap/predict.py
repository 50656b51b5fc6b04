"""For Python users: load a trained run, caption images with it."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from easycap.config.pretrained_names import pretrained_config
from easycap.data.image_inputs import ImageLike, as_examples, is_single_image
from easycap.errors import UserError
from easycap.runs.ensembles import members_to_load
from easycap.runs.find import checkpoint_of, is_pretrained
from easycap.sharing.hub_models import check_model_id, find_model, upload_model
from easycap.tasks.base import Task
from easycap.tasks.create import load_pretrained, load_task
from easycap.tasks.load_ensemble import load_ensemble
from easycap.tasks.photo_captioning import CaptionPredictor
from easycap.tasks.predictor import BATCH_SIZE, Prediction, Predictor
from easycap.types import Example

T = TypeVar("T")
_NO_GRID = SimpleNamespace(grid=None)  # of captioners without image tokens


class Caption(NamedTuple):
    """A caption with the `tokens` of its text and the end token, as far as the decoder's maximum length allows, and for
    each its log-probability given the image and the tokens before, `log_probabilities` (T,).

    `attention` says where the decoder looked before each token, as weights of the image tokens (T,K), or (T,h,w) where
    they stand for places in the image; None if the decoder has no attention. `likeliest` has the five tokens that the
    model finds most likely at each place, each with its log-probability, whatever the decoding rules out.
    """

    text: str
    tokens: list[str]
    log_probabilities: np.ndarray
    attention: np.ndarray | None
    likeliest: list[list[tuple[str, float]]]

    @property
    def log_probability(self) -> float:
        """Return the log-probability of the whole caption."""
        return float(self.log_probabilities.sum())


class Captioner:
    """A trained model, ready to caption images; made by `easycap.load`.

    Images are paths, the bytes of a file, PIL images or arrays (H,W), (H,W,3), (H,W,4) of
    integers in 0..255 or floats in 0..1. Methods take one image, or several in a list or
    any iterable, and return one result, or a list in the same order.
    """

    def __init__(
        self,
        run: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        ensemble: bool = False,
        device: str = "auto",
        locations: Mapping[str, str] | None = None,
        revision: str | None = None,
        token: str | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        runs = [run] if isinstance(run, str | os.PathLike) else list(run)
        self.task: Task
        self._last: tuple[dict[str, Any], Predictor] | None = None
        if any(map(is_pretrained, runs)):
            self.folder = Path(runs[0])
            self.task = _pretrained(runs, overrides, device=device)
            return
        folders = [find_model(one, revision=revision, token=token) for one in runs]
        members = members_to_load(folders, ensemble=ensemble)
        self.folder = folders[0]
        if members is not None:
            self.task = load_ensemble(members, device=device, locations=locations)
        else:
            self.task = load_task(checkpoint_of(self.folder), device=device, locations=locations)
        _ = self.task.pipeline.transform  # raises if the model reads no images

    def caption(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        details: bool = False,
        batch_size: int = BATCH_SIZE,
        **options: Any,
    ) -> Any:
        """Return a caption (str), or a list of them; with `details` a `Caption` for each.

        `options`: `decoding` (an option of conf/decoding), with its settings by name
        (`num_beams=3`); `rounds`, how often the caption is fed back as the draft; `draft`
        and `tags` ("dog,cat"), the texts of these conditions. Raises `UserError` for an
        image that cannot be read and for options that the model lacks.
        """
        predictor = self.predictor(**options)
        if not isinstance(predictor, CaptionPredictor):
            raise UserError(f"{self.folder} is a tag model: use .tags(images)")
        for notice in predictor.notices:
            warnings.warn(notice, stacklevel=2)
        found: list[Any] = []
        for examples in chunks(as_examples(images), batch_size):
            predictions = _without_errors(predictor(examples))
            if details:
                found += self._captions(predictor, examples, predictions)
            else:
                found += [prediction.text for prediction in predictions]
        return found[0] if is_single_image(images) else found

    def tags(
        self, images: ImageLike | Iterable[ImageLike], *, batch_size: int = BATCH_SIZE
    ) -> dict[str, float] | list[dict[str, float]]:
        """Return the probability of each tag, the most probable first, or a list of such; only of a tag model."""
        predictor = self.predictor()
        if isinstance(predictor, CaptionPredictor):
            raise UserError(f"{self.folder} is a captioner: use .caption(images)")
        found = []
        for examples in chunks(as_examples(images), batch_size):
            for prediction in _without_errors(predictor(examples)):
                probabilities: dict[str, float] = prediction.row["tags"]
                found.append(dict(sorted(probabilities.items(), key=lambda item: -item[1])))
        return found[0] if is_single_image(images) else found

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *, license: str | None = None, overwrite: bool = False
    ) -> None:
        """Save the model in a folder that `load` reads anywhere: weights, config, vocabulary and a model card.

        `license` is a hub licence identifier (apache-2.0) for the card. The folder must be new or empty; with
        `overwrite` files of the same names are replaced. Raises `UserError` if it cannot be written.
        """
        from easycap.sharing.model_folder import save_model_folder  # here and below: captions need none of it

        folder = Path(save_directory)
        save_model_folder(
            self.task, self.checkpoint, folder, name=folder.name, licence=license, overwrite=overwrite
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str | None = None,
        commit_message: str = "Upload a captioner of easycap",
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` saves as USER/MODEL on the Hugging Face hub; return the model's address.

        The repository is created if needed, `private` or, by default, as the account has it. Without `token` that
        of `hf auth login` or HF_TOKEN is used. Raises `UserError` if the hub refuses or cannot be reached.
        """
        from easycap.sharing.model_folder import save_model_folder

        check_model_id(repo_id)
        with tempfile.TemporaryDirectory() as saved:
            save_model_folder(
                self.task, self.checkpoint, Path(saved), name=repo_id, licence=license, overwrite=False
            )
            return upload_model(Path(saved), repo_id, private=private, message=commit_message, token=token)

    @property
    def checkpoint(self) -> Path:
        """Return the folder of the weights; raises `UserError` for an ensemble, which has none of its own."""
        if self.task.is_ensemble:
            raise UserError("an ensemble cannot be saved as one model: save its runs one by one")
        return checkpoint_of(self.folder)

    def predictor(self, **options: Any) -> Predictor:
        """Return what predicts with these options, those of `caption`; the last are kept."""
        known: dict[str, Any] = {
            name: options.pop(name) for name in ("draft", "rounds", "tags") if name in options
        }
        decoding = options.pop("decoding", None)
        if options:
            decoding = self._decoding_text(decoding, options)
        if decoding is not None:
            known["decoding"] = decoding
        given = {name: value for name, value in known.items() if value is not None}
        if self._last is None or self._last[0] != given:
            self._last = given, self.task.predictor(**given)
        return self._last[1]

    def _decoding_text(self, decoding: str | None, settings: Mapping[str, Any]) -> str:
        """Return "option,key=value,..."; without an option the run's own, with its own settings changed."""
        if decoding is None:
            own = dict(self.task.config["decoding"])
            decoding = own.pop("name")
            settings = own | dict(settings)
        return ",".join([decoding, *(f"{key}={json.dumps(value)}" for key, value in settings.items())])

    def _captions(
        self, predictor: CaptionPredictor, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> list[Caption]:
        found = []
        grid = None if self.task.is_ensemble else getattr(self.task.model, "image_tokens", _NO_GRID).grid
        for prediction, of in zip(predictions, predictor.details(examples, predictions), strict=True):
            attention = of.attention
            if attention is not None and grid is not None:
                attention = attention.reshape(len(of.ids), *grid)
            likeliest = [
                [(self._token(index), float(value)) for index, value in zip(*one, strict=True)]
                for one in zip(*of.likeliest, strict=True)
            ]
            tokens = [self._token(index) for index in of.ids]
            found.append(Caption(prediction.text, tokens, of.log_probabilities, attention, likeliest))
        return found

    def _token(self, index: int) -> str:
        vocabulary = self.task.vocabulary
        special = {vocabulary.eos_id: "<eos>", vocabulary.bos_id: "<bos>", vocabulary.pad_id: "<pad>"}
        return special.get(int(index)) or vocabulary.decode([int(index)])


def load(
    run: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    ensemble: bool = False,
    device: str = "auto",
    locations: Mapping[str, str] | None = None,
    revision: str | None = None,
    token: str | None = None,
    overrides: Sequence[str] = (),
) -> Captioner:
    """Return the captioner (or tag model) of a run: its folder or name, the folder of one of its checkpoints or of
    `save_pretrained`, or else the name USER/MODEL of a model on the Hugging Face hub, downloaded to that library's
    cache. With `ensemble`, several of these, or the runs of a sweep, caption together by the mean of their
    probabilities of each word; they must have the same vocabulary. hf:NAME_OR_FOLDER is a captioner of transformers,
    as it is, with settings as in `overrides` ["captioner.prompt=a photo of"].

    `device`: auto, cpu, cuda, cuda:1, mps. `locations` {data.root or the like: path} says where the run's data lies
    now, if it is needed and has moved. `revision` is a branch, tag or commit of a model on the hub, `token` gives
    access to it (None: that of `hf auth login` or HF_TOKEN). Raises `UserError` if there is no such model.
    """
    return Captioner(
        run,
        ensemble=ensemble,
        device=device,
        locations=locations,
        revision=revision,
        token=token,
        overrides=overrides,
    )


def _pretrained(names: Sequence[str | os.PathLike[str]], overrides: Sequence[str], *, device: str) -> Task:
    if len(names) > 1:
        raise UserError(
            f"{len(names)} models given where one is expected: hf:NAME cannot be part of an ensemble"
        )
    return load_pretrained(pretrained_config(names[0], overrides, device=device))


def _without_errors(found: Sequence[Prediction | UserError]) -> list[Prediction]:
    for one in found:
        if isinstance(one, UserError):
            raise one
    return [one for one in found if isinstance(one, Prediction)]


def chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`; the last may be shorter."""
    if size < 1:
        raise UserError(f"batch_size={size} must be at least 1")
    while chunk := list(islice(items, size)):
        yield chunk
