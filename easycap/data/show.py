"""A page of training examples as a model gets them: the pixels, the word ids, and the words these stand for."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from jinja2 import Environment
from PIL import Image

from easycap.data.transforms import Transform
from easycap.types import Example, Vocabulary

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
section { display: flex; gap: 1.5rem; border-top: 1px solid #ccc; padding: 1rem 0 }
img { width: 224px; height: 224px; image-rendering: auto }
code { font-size: 12px; color: #555; overflow-wrap: anywhere }
p { margin: 0 0 .6rem }
</style>
<h1>{{ title }}</h1>
{% for row in rows %}<section><img src="data:image/png;base64,{{ row.image }}" alt="image {{ row.id }}"><div>
<p><b>{{ row.id }}</b>{% if row.tags %} · tags: {{ row.tags|join(", ") }}{% endif %}</p>
{% for caption in row.captions %}<p>{{ caption.text }}<br><code>{{ caption.ids|join(" ") }}</code>
{%- if caption.back != caption.text %}<br>read back: {{ caption.back }}{% endif %}</p>
{% endfor %}</div></section>
{% endfor %}</html>
"""


def page(title: str, examples: Sequence[Example], transform: Transform, vocabulary: Vocabulary) -> str:
    """Return HTML, complete in one file: of each example the transformed image, captions, ids and ids read back."""
    rows = [
        {
            "id": example.id,
            "image": _png(transform(example.image).permute(1, 2, 0).numpy()),
            "tags": example.tags,
            "captions": [_caption(text, vocabulary) for text in example.references],
        }
        for example in examples
    ]
    return Environment(autoescape=True).from_string(_PAGE).render(title=title, rows=rows)


def _caption(text: str, vocabulary: Vocabulary) -> dict:
    ids = vocabulary.encode(text)
    return {"text": text, "ids": ids, "back": vocabulary.decode(ids)}


def _png(pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
