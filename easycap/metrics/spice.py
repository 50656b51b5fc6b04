"""SPICE (Anderson et al., ECCV 2016) through pycocoevalcap's jar, if Stanford CoreNLP is next to it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.metrics.corpus import Corpus, prepare
from easycap.metrics.java import Absent, bundled_jar, java_version, run_java
from easycap.metrics.signature import signature
from easycap.registry import register
from easycap.types import Score
from easycap.utils.segmenters import SPACES

_PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


@register("scorer", "spice")
class Spice:
    """SPICE, 0..1: the F score of a caption's scene graph; a caption without any tuple scores 0.

    Absent without Java or without CoreNLP, which pycocoevalcap downloads and this does not.
    """

    names = ("SPICE",)

    def __init__(
        self, *, java: str = "java", seconds: float = 3600.0, jar: str | None = None, memory: str = "8G"
    ) -> None:
        self.java, self.seconds, self.jar, self.memory = java, seconds, jar, memory

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]:
        """Return SPICE; see `Scorer`."""
        return self.score_corpus(prepare(captions, references))

    def score_corpus(self, corpus: Corpus) -> dict[str, Score]:
        """Return the score of a prepared corpus; raises `Absent` with the reason if it cannot run."""
        if corpus.segmenter is not SPACES:
            raise Absent(
                f"its parser and synonyms are English, and captions are cut by {corpus.segmenter.name}"
            )
        per_image = self._run(self._jar(), corpus)
        text = signature("SPICE", corpus, spice="1.0")
        return {"SPICE": Score(sum(per_image.values()) / len(per_image), per_image, text)}

    def _jar(self) -> Path:
        if self.jar:
            return Path(self.jar).resolve()
        jar = bundled_jar("spice/spice-1.0.jar")
        missing = [name for name in _PARSER if not (jar.parent / "lib" / name).is_file()]
        if missing:
            raise Absent(f"{' and '.join(missing)} must be in the lib folder next to {jar.name}")
        return jar

    def _run(self, jar: Path, corpus: Corpus) -> dict[str, float]:
        # Since Java 16 the jar's database may not look into the JDK without this.
        opened = ["--add-opens", "java.base/java.lang=ALL-UNNAMED"] if java_version(self.java) >= 9 else []
        with tempfile.TemporaryDirectory(prefix="easycap-spice-") as folder:
            source, target, cache = (
                Path(folder) / name for name in ("captions.json", "scores.json", "cache")
            )
            source.write_text(json.dumps(_rows(corpus)), encoding="utf-8")
            cache.mkdir()
            arguments = [*opened, f"-Xmx{self.memory}", "-jar", str(jar), str(source)]
            arguments += ["-cache", str(cache), "-out", str(target), "-subset", "-silent"]
            run_java(arguments, java=self.java, seconds=self.seconds, folder=jar.parent)
            return _read(target, corpus)


def _rows(corpus: Corpus) -> list[dict[str, Any]]:
    rows = zip(corpus.ids, corpus.captions, corpus.references, strict=True)
    return [{"image_id": i, "test": " ".join(c), "refs": [" ".join(r) for r in refs]} for i, c, refs in rows]


def _read(path: Path, corpus: Corpus) -> dict[str, float]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = {str(row["image_id"]): row["scores"]["All"]["f"] for row in rows}
        values = {image_id: float(found[image_id] or 0.0) for image_id in corpus.ids}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Absent(f"the SPICE jar wrote no readable scores ({error!r})") from None
    return {image_id: 0.0 if math.isnan(value) else value for image_id, value in values.items()}
