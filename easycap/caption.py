"""`easycap caption RUN files or folders...`: captions of any photos."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from easycap.attention import pictures, why_no_attention
from easycap.config import option_from_text
from easycap.data.images import ImageFile, image_files
from easycap.experiment import NO_DRAFT, NO_TAGS, Experiment
from easycap.generation.captions import caption_batch
from easycap.predictions import TagPredictions
from easycap.runs import checkpoint_of, shown
from easycap.training.checkpoint import task_of
from easycap.training.hardware import Precision, autocast, pick_device
from easycap.training.tag_validation import likely_text
from easycap.types import Example


class PhotoCaptioner:
    """A run's best weights, ready to caption image files; the model's own preprocessing is part of it."""

    def __init__(
        self,
        run: Path,
        *,
        device: str = "auto",
        decoding: str | None = None,
        draft: str | None = None,
        rounds: int | None = None,
        tags: str | None = None,
    ) -> None:
        self.experiment = Experiment.from_checkpoint(checkpoint_of(run), device=device)
        config = self.experiment.config
        settings = option_from_text("decoding", decoding, seed=config["seed"]) if decoding else None
        self.generator = self.experiment.generator(settings)
        self.transform = self.experiment.transform
        self.precision = Precision(config["trainer"]["precision"])
        self.refinement = self.experiment.refinement(rounds)
        if draft is not None and "draft" not in self.experiment.beside.segments:
            raise ValueError(NO_DRAFT)
        if draft is None and "draft" in self.experiment.beside.segments:
            self._check_drafts_of_photos()
        self.by_hand = {} if draft is None else {"draft": draft}
        if tags is not None:
            self.by_hand["tags"] = self._checked_tags(tags)

    def notice_of_draft(self, draft: str) -> str | None:
        """Return what the captioner does not get of a draft given by hand, in one sentence, None if it gets words of
        all of it."""
        vocabulary, most = self.experiment.vocabulary, self.experiment.config["draft"]["max_words"]
        ids = vocabulary.encode(draft)
        if all(one == vocabulary.unk_id for one in ids[:most]):
            return f"--draft {draft!r} has no word that this captioner knows, so that it says nothing to it"
        if len(ids) > most:
            return (
                f"--draft is cut to its first {most} of {len(ids)} words or pieces (draft.max_words={most})"
            )
        return None

    def _check_drafts_of_photos(self) -> None:
        """Raise `ValueError` where the run's drafts are of its data's images alone."""
        if not self.experiment.beside.sources["draft"].of_photos:
            name = self.experiment.config["draft"]["name"]
            raise ValueError(f"draft={name} has no draft for a photo: give one by --draft")

    def _checked_tags(self, tags: str) -> str:
        """The tags of "dog,bark" as the captioner reads them; `ValueError` for what it cannot read."""
        if "tags" not in self.experiment.beside.segments:
            raise ValueError(NO_TAGS)
        vocabulary, said = self.experiment.vocabulary, self.experiment.beside.tag_data.vocabulary.said
        words = [said(tag.strip()) for tag in tags.split(",") if tag.strip()]
        for tag in words:
            if not (ids := vocabulary.encode(tag)) or vocabulary.unk_id in ids:
                raise ValueError(f"--tags {tag!r} is no word that this captioner knows: say it otherwise")
        return " ".join(words)

    def __call__(self, files: Sequence[Path]) -> list[str | ValueError]:
        """Return the caption of each file, or the error that kept its image from being read."""
        return [r if isinstance(r, ValueError) else r[-1] for r in self.rounds(files)]

    def rounds(self, files: Sequence[Path]) -> list[list[str] | ValueError]:
        """Return the captions of each file, one per round of refinement, or the error."""
        results: list[list[str] | ValueError] = []
        pixels: list[torch.Tensor] = []
        for file in files:
            try:
                pixels.append(self.transform(ImageFile(file)))
                results.append([])
            except ValueError as error:
                results.append(error)
        read = [Example(str(f), ImageFile(f), ()) for f, r in zip(files, results, strict=True) if r == []]
        captions = iter(self._rounds(read, pixels))
        return [result if isinstance(result, ValueError) else next(captions) for result in results]

    def given(self, count: int) -> dict[str, list[str]]:
        """Return the words beside `count` images that the user gave."""
        return {segment: [text] * count for segment, text in self.by_hand.items()}

    def _rounds(self, photos: Sequence[Example], pixels: Sequence[torch.Tensor]) -> list[list[str]]:
        if not photos:
            return []
        experiment = self.experiment
        context = partial(autocast, experiment.device, self.precision)
        inputs = experiment.inputs(photos, pixels, self.given(len(photos)))
        by_round = caption_batch(
            experiment.captioner, inputs, self.generator, experiment.vocabulary, context, self.refinement
        )
        return [list(captions) for captions in zip(*by_round, strict=True)]


def _picture_paths(files: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Where each file's picture of attention goes: OUT itself, or OUT/<name>.png if that is no name of a picture."""
    if out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        if len(files) > 1:
            raise ValueError(
                f"--attention {out} is one picture for {len(files)} images: give the name of a folder"
            )
        return {files[0]: out}
    if out.suffix and not out.is_dir():
        raise ValueError(
            f"--attention {out} is no name of a picture (.png, .jpg, .jpeg, .webp), and no folder"
        )
    paths = {file: out / f"{file.stem}.png" for file in files}
    if len(set(paths.values())) < len(files):
        raise ValueError(f"--attention {out}: two of the images have the same name; caption them one by one")
    return paths


def _chunks(files: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    for start in range(0, len(files), size):
        yield files[start : start + size]


def _draw(photo_captioner: PhotoCaptioner, file: Path, captions: Sequence[str], target: Path) -> None:
    """Draw where the decoder looked for the last of an image's captions."""
    target.parent.mkdir(parents=True, exist_ok=True)
    given = photo_captioner.given(1) | ({"draft": [captions[-2]]} if len(captions) > 1 else {})
    photo = Example(str(file), ImageFile(file), ())
    (picture,) = pictures(photo_captioner.experiment, [photo], captions[-1:], given=given)
    picture.save(target)
    print(f"attention: {shown(target)}", file=sys.stderr)


def _row(result: Sequence[str] | ValueError) -> dict[str, Any]:
    if isinstance(result, ValueError):
        return {"error": str(result)}
    return {"caption": result[-1]} | ({"rounds": list(result)} if len(result) > 1 else {})


def _print(file: Path, result: Sequence[str] | ValueError) -> None:
    if isinstance(result, ValueError):
        print(f"easycap: {result}", file=sys.stderr)
    elif len(result) == 1:
        print(f"{file}: {result[0]}")
    else:
        print(f"{file}:", *(f"  round {number}: {text}" for number, text in enumerate(result)), sep="\n")


def _say_tags(args: argparse.Namespace, files: Sequence[Path]) -> int:
    """What main does with a tag model's run: tags with their probabilities."""
    for name in ("decoding", "attention", "draft", "rounds", "tags"):
        if vars(args)[name] is not None:
            raise ValueError(f"{args.run} says tags, not captions: leave out --{name}")
    tag_model = TagPredictions(checkpoint_of(args.run), device=pick_device(args.device), workers=0)
    names, rows = tag_model.vocabulary.tags, []
    for file in files:
        try:
            found = tag_model.probabilities(Example(str(file), ImageFile(file), ()))
        except ValueError as error:
            rows.append({"file": str(file), "error": str(error)})
            if not args.json:
                _print(file, error)
            continue
        rows.append({"file": str(file), "tags": dict(zip(names, map(float, found), strict=True))})
        if not args.json:
            _print(file, [likely_text(found, names)])
    if args.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    return int(any("error" in row for row in rows))


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap caption`; the exit code is 1 if any file could not be captioned."""
    parser = argparse.ArgumentParser(
        prog="easycap caption", description="Caption image files or folders of them."
    )
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("images", type=Path, nargs="+", help="image files or folders")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON list of {file, caption} or {file, error}"
    )
    parser.add_argument("--decoding", help="another way of decoding, e.g. beam or beam,num_beams=3")
    parser.add_argument(
        "--attention",
        type=Path,
        metavar="OUT",
        help="draw where the decoder looked for each word: OUT.png for one image, a folder for several",
    )
    parser.add_argument(
        "--draft", metavar="TEXT", help="a draft of the caption, to be mended (a run with a draft)"
    )
    parser.add_argument("--tags", metavar="A,B", help="tags of the images, e.g. dog,bark (a run with tags)")
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="R",
        help="feed the caption back as the draft R times, and print every round (default: the run's refine.rounds)",
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        raise ValueError(f"--batch-size {args.batch_size} must be at least 1")
    files = image_files(args.images)
    if task_of(checkpoint_of(args.run)) == "tags":
        return _say_tags(args, files)
    drawings = _picture_paths(files, args.attention) if args.attention else {}
    photo_captioner = PhotoCaptioner(
        args.run,
        device=args.device,
        decoding=args.decoding,
        draft=args.draft,
        rounds=args.rounds,
        tags=args.tags,
    )
    if args.draft and (notice := photo_captioner.notice_of_draft(args.draft)):
        print(f"easycap: {notice}", file=sys.stderr)
    if drawings and (why := why_no_attention(photo_captioner.experiment)):
        raise ValueError(why)
    rows = []
    for chunk in _chunks(files, args.batch_size):
        for file, result in zip(chunk, photo_captioner.rounds(chunk), strict=True):
            rows.append({"file": str(file), **_row(result)})
            if not args.json:
                _print(file, result)
            if not isinstance(result, ValueError) and file in drawings:
                _draw(photo_captioner, file, result, drawings[file])
    if args.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    return int(any("error" in row for row in rows))
