"""A comparison page's charts, drawn by easycap, by Vega-Lite and by Plotly: bytes, and time until they are drawn.

    easycap compare SWEEP --html compare.html
    python experiments/speed/chart_libraries.py compare.html --vega vega.js --plotly plotly.min.js

The data is that of the page: one scatter of score against cost with intervals, and its curves. vega.js is
`vl_convert.javascript_bundle()` (vega, vega-lite, vega-embed), plotly.min.js lies in the package plotly. Each page is
one file that needs no network. The pages of the libraries have these charts and nothing else; easycap's has its table,
filter, captions and photos too. Times are what the browser counts from the start of loading to the drawn charts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

_DRAWN = "document.body.offsetHeight; document.title = 'drawn ' + performance.now()"
_FRAME = '<!doctype html><meta charset="utf-8"><body>{boxes}<script>{library}</script><script>{code}</script></body>'


def main() -> None:
    options = parser().parse_args()
    page = options.page.read_text(encoding="utf-8")
    found = re.search(r'id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None, f"{options.page} is no page of `easycap compare` with charts"
    data = json.loads(found.group(1))
    pages = {
        "easycap": page.replace(
            "</body>", f'<script>addEventListener("load", () => {{{_DRAWN}}})</script></body>'
        )
    }
    if options.vega:
        pages["Vega-Lite"] = vega_page(data, options.vega.read_text(encoding="utf-8"))
    if options.plotly:
        pages["Plotly"] = plotly_page(data, options.plotly.read_text(encoding="utf-8"))
    print(
        f"{len(data['runs'])} runs, {1 + len(data['curves'])} charts\n\n| page | KB | KB gzipped | drawn after, ms |"
    )
    print("|---|---|---|---|")
    times: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(options.rounds):  # in turn, so that other work on the machine slows them alike
        for name, text in pages.items():
            times[name].append(drawn_after(options.browser, text, options.wait))
    for name, text in pages.items():
        took = times[name]
        size, packed = len(text.encode()), len(gzip.compress(text.encode()))
        shown = f"{statistics.median(took):.0f} ({min(took):.0f} to {max(took):.0f})"
        print(f"| {name} | {size / 1e3:,.0f} | {packed / 1e3:,.0f} | {shown} |")


def points(data: dict[str, Any]) -> list[dict[str, Any]]:
    metric, cost = data["metrics"][0]["key"], data["costs"][0]["key"]
    rows = []
    for run in data["runs"]:
        if metric in run["scores"] and cost in run["cost"]:
            score, low, high, *_ = run["scores"][metric]
            rows.append({"run": run["label"], "x": run["cost"][cost], "y": score, "low": low, "high": high})
    return rows


def vega_page(data: dict[str, Any], library: str) -> str:
    x = {"field": "x", "type": "quantitative", "scale": {"zero": False}}
    y = {"field": "y", "type": "quantitative", "scale": {"zero": False}}
    interval = {"mark": "rule", "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}}}
    dots = {
        "mark": {"type": "point", "tooltip": True},
        "encoding": {"x": x, "y": y, "color": {"field": "run"}},
    }
    specs: list[dict[str, Any]] = [{"data": {"values": points(data)}, "layer": [interval, dots]}]
    for curve in data["curves"]:
        lines = [
            {"run": run, "x": step, "y": value}
            for run, (steps, values) in curve["lines"].items()
            for step, value in zip(steps, values, strict=True)
        ]
        encoding = {"x": x, "y": y, "color": {"field": "run"}}
        specs.append(
            {"data": {"values": lines}, "mark": {"type": "line", "tooltip": True}, "encoding": encoding}
        )
    calls = ", ".join(f"vegaEmbed('#c{i}', {json.dumps(spec)})" for i, spec in enumerate(specs))
    return framed(library, len(specs), f"Promise.all([{calls}]).then(() => {{{_DRAWN}}})")


def plotly_page(data: dict[str, Any], library: str) -> str:
    rows = points(data)
    bars = [row["high"] - row["y"] for row in rows]
    scatter = {"x": [row["x"] for row in rows], "y": [row["y"] for row in rows], "mode": "markers"}
    figures = [[scatter | {"error_y": {"type": "data", "array": bars}, "text": [row["run"] for row in rows]}]]
    for curve in data["curves"]:
        lines = curve["lines"].items()
        figures.append([{"x": x, "y": y, "name": run, "mode": "lines"} for run, (x, y) in lines])
    calls = ", ".join(f"Plotly.newPlot('c{i}', {json.dumps(figure)})" for i, figure in enumerate(figures))
    return framed(library, len(figures), f"Promise.all([{calls}]).then(() => {{{_DRAWN}}})")


def framed(library: str, count: int, code: str) -> str:
    boxes = "".join(f'<div id="c{i}" style="width: 600px; height: 300px"></div>' for i in range(count))
    return _FRAME.format(boxes=boxes, library=library.replace("</script>", "<\\/script>"), code=code)


def drawn_after(browser: str, text: str, wait: int) -> float:
    """Return the milliseconds until a page's charts were drawn, in a browser of its own that ends after `wait` s."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(text, encoding="utf-8")
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder}/profile",
            f"--timeout={1000 * wait}",
        ]
        command = [browser, *flags, "--dump-dom", file.as_uri()]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    drawn = re.search(r"<title>drawn ([\d.]+)", found)
    assert drawn is not None, f"the browser did not draw the page within {wait} s"
    return float(drawn.group(1))


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("page", type=Path)
    arguments.add_argument("--vega", type=Path)
    arguments.add_argument("--plotly", type=Path)
    arguments.add_argument("--browser", default="chromium")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--wait", type=int, default=30, help="seconds that a page may take")
    return arguments


if __name__ == "__main__":
    main()
