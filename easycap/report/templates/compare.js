// The comparison of runs: one filter, one colour and one score for the table, the scatter and the curves.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const body = document.querySelector(".runs tbody"), rows = new Map([...body.rows].map(row => [Number(row.dataset.run), row]));
const runs = new Map(data.runs.map(run => [run.number, run]));
const kept = new Set();
const NOTHING = "–", TONES = 8, LABELS = 12;
const SMALL_RANGE = .2; // of the largest value: values that differ by less get an axis from zero
let visible = data.runs, near = null;

const element = (name, attributes = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const html = (name, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
};
const fill = (select, options) => select?.append(...options.map(([value, text]) => html("option", {value, textContent: text})));
const short = value => Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3) ? value.toExponential(1).replace("e+", "e") : String(Number(value.toPrecision(4)));
const scoreText = (value, factor) => (value * factor).toFixed(factor === 1 ? 2 : 1);

// Colours: one tone per value; many numbers go from one tone to another, many names share the last tone.
fill(byId("colour"), [...data.keys.map((key, i) => [i, key]), [-1, "run"]]);
const colour = byId("colour");
colour.value = data.runs.length > TONES ? data.colour : -1;
const number = text => text !== NOTHING && text.trim() !== "" && Number.isFinite(Number(text));
function palette() {
  const key = Number(colour.value);
  const levels = key < 0 ? data.runs.map(run => run.number) : data.levels[key];
  const value = run => key < 0 ? run.number : run.settings[key];
  const tones = new Map(), names = new Map();
  if (levels.length <= TONES) levels.forEach((level, i) => tones.set(level, `var(--t${i})`));
  else if (key >= 0 && levels.every(level => level === NOTHING || number(level))) {
    const sized = levels.filter(level => level !== NOTHING);
    sized.forEach((level, i) => tones.set(level, `color-mix(in oklab, var(--t1) ${Math.round(100 * i / (sized.length - 1))}%, var(--t0))`));
    tones.set(NOTHING, "var(--t5)");
  } else {
    const few = key < 0 ? levels : [...levels].sort((a, b) => count(b) - count(a));
    few.forEach((level, i) => tones.set(level, i < TONES - 1 ? `var(--t${i === 5 ? 7 : i})` : "var(--t5)"));
    function count(level) { return data.runs.filter(run => run.settings[key] === level).length; }
  }
  for (const level of levels) names.set(level, key < 0 ? `#${level} ${runs.get(level).label}` : level);
  return {of: run => tones.get(value(run)) || "var(--t5)", levels, tones, names, key};
}
let colours = palette();

// Legend: at most a dozen entries; the others are named under the pointer and in the table.
function drawLegend() {
  const legend = byId("legend");
  if (!legend) return;
  const {levels, tones, names, key} = colours;
  let shown = levels;
  if (levels.length > LABELS) {
    const numeric = key >= 0 && levels.filter(level => level !== NOTHING).every(number);
    shown = numeric ? [0, .25, .5, .75, 1].map(part => levels[Math.round(part * (levels.length - 1))]) : levels.slice(0, TONES - 1);
  }
  legend.replaceChildren(...shown.map(level => {
    const entry = html("li", {}, html("i", {className: "key"}), ` ${names.get(level)}`);
    entry.firstChild.style.setProperty("--tone", tones.get(level));
    return entry;
  }));
  if (shown.length < levels.length) legend.append(html("li", {textContent: `${key < 0 ? "runs" : "values"} shown here: ${shown.length} of ${levels.length}; the pointer names every line`}));
  if (key >= 0) legend.prepend(html("li", {textContent: `${data.keys[key]}:`}));
}

// Filter: words that must all be there; KEY=VALUE and the like look into one column: a setting, a score, a cost.
const texts = new Map([...rows].map(([n, row]) => [n, [row.textContent, row.querySelector(".name").title].join(" ").toLowerCase()]));
const SIZES = {k: 1e3, m: 1e6, g: 1e9, t: 1e12, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30}, SECONDS = {s: 1, m: 60, min: 60, h: 3600, d: 86400};
const SIGNS = {
  "=": (a, b) => a === b, ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
};
// The column that a condition names: what a run has there, and the sizes that may follow a number.
function columnOf(name) {
  const key = [one => one === name, one => one.split(".").pop() === name].map(is => data.keys.findIndex(one => is(one.toLowerCase()))).find(at => at >= 0);
  if (key !== undefined) return {of: run => run.settings[key] === NOTHING ? null : run.settings[key].toLowerCase(), sizes: {}};
  const metric = data.metrics.find(one => one.key.toLowerCase() === name);
  if (metric) return {of: run => run.scores[metric.key] ? Number(scoreText(run.scores[metric.key][0], metric.factor)) : null, sizes: {}};
  const cost = data.costs.find(one => [one.key, one.title.replaceAll(" ", "_")].some(text => text.toLowerCase() === name));
  return cost && {of: run => run.cost[cost.key], sizes: cost.key.endsWith("_seconds") ? SECONDS : SIZES};
}
function conditionOf(word) {
  const [, name, sign, wanted] = word.match(/^([^!<>=]+)(!=|>=|<=|=|>|<)(.*)$/) || [];
  const column = name && columnOf(name);
  if (!column) return {unknown: name, holds: run => texts.get(run.number).includes(word)};
  if (wanted === "") return {holds: () => true}; // not typed to its end
  const values = sign.length === 1 && sign !== "=" || sign === ">=" || sign === "<=" ? [wanted] : wanted.split(",");
  const any = run => values.some(one => compare(column, run, sign === "!=" ? "=" : sign, one));
  return {holds: sign === "!=" ? run => !any(run) : any};
}
function compare(column, run, sign, wanted) {
  const value = column.of(run);
  if (value === null) return false;
  const [, digits, size] = wanted.match(/^(-?[\d.]+(?:e[+-]?\d+)?)([a-z]*)$/) || [];
  const right = size ? Number(digits) * column.sizes[size] : Number(wanted);
  if (wanted === "" || Number.isNaN(right) || Number.isNaN(Number(value))) return sign === "=" && String(value) === wanted;
  // Equal is what is equal as far as it was typed.
  const decimals = size || /e/.test(wanted) ? 12 : (wanted.split(".")[1] || "").length;
  const left = sign === "=" && typeof value === "number" ? Number(value.toFixed(decimals)) : Number(value);
  return SIGNS[sign](left, right);
}
function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const conditions = words.map(conditionOf);
  visible = data.runs.filter(run => conditions.every(one => one.holds(run)));
  const there = new Set(visible.map(run => run.number));
  for (const [n, row] of rows) row.hidden = !there.has(n);
  for (const link of document.querySelectorAll(".by a")) link.hidden = !there.has(Number(link.dataset.run));
  for (const line of document.querySelectorAll(".captions li")) line.hidden = !line.querySelector("a:not([hidden])");
  const unknown = visible.length ? undefined : conditions.find(one => one.unknown)?.unknown;
  byId("count").textContent = unknown ? `no column “${unknown}”: try ${[...data.keys, ...data.metrics.map(one => one.key)].slice(0, 4).join(", ")}`
    : words.length ? `${visible.length} of ${data.runs.length} runs` : "";
  if (!visible.some(run => run.number === stop)) stopAt(visible[0]?.number);
  draw();
}

// Sorting: a stable sort of the rows; what is missing stays at the end in both directions.
document.querySelectorAll(".runs thead th").forEach((head, column) => {
  head.querySelector("button").onclick = () => {
    const first = head.classList.contains("score") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    document.querySelectorAll(".runs th[aria-sort]").forEach(one => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    const value = row => {
      const cell = row.cells[column], text = cell.textContent.trim();
      if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
      return text === NOTHING ? null : number(text) ? Number(text) : text;
    };
    const turn = direction === "ascending" ? 1 : -1;
    body.append(...[...body.rows].map(row => [value(row), row]).sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      if (typeof a === "number" && typeof b === "number") return turn * (a - b);
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return turn * a.localeCompare(b, undefined, {numeric: true});
    }).map(([, row]) => row));
  };
});

// Axes: round numbers, linear or by powers of ten.
function scale(values, start, end, {log = false, zero = 0, margin = .05} = {}) {
  let low = Math.min(...values), high = Math.max(...values);
  if (!values.length) [low, high] = [0, 1];
  if (log) {
    [low, high] = [Math.log10(low), Math.log10(high)];
    if (high - low < 1e-9) [low, high] = [low - .5, high + .5];
    const room = margin * (high - low);
    [low, high] = [low - room, high + room];
    const ticks = [];
    const factors = high - low > 4 ? [1] : high - low > 1 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
    for (let power = Math.floor(low); power <= high; power++)
      for (const factor of factors) {
        const at = power + Math.log10(factor);
        if (at >= low && at <= high) ticks.push(factor * 10 ** power);
      }
    return {of: value => start + (Math.log10(value) - low) / (high - low) * (end - start), ticks};
  }
  if (low > 0 && (low < zero * high || zero && high - low < SMALL_RANGE * high)) low = 0;
  if (low === 0 && high === 0) high = 1;
  if (high - low < 1e-12) [low, high] = [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
  const room = margin * (high - low);
  [low, high] = [low === 0 && zero ? 0 : low - room, high + room];
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).reduce((a, b) => Math.abs(b - rough) < Math.abs(a - rough) ? b : a);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-12; i++) ticks.push(Number((i * step).toPrecision(12)));
  return {of: value => start + (value - low) / (high - low) * (end - start), ticks};
}
function axes(svg, x, y, box, tickText = short) {
  let last = -Infinity;
  for (const tick of y.ticks) {
    svg.append(element("path", {class: "grid", d: `M${box.left} ${y.of(tick)}H${box.right}`}));
    svg.append(element("text", {class: "y", x: box.left - 6, y: y.of(tick), dy: ".35em"}, short(tick)));
  }
  for (const tick of x.ticks) {
    const text = tickText(tick), half = text.length * 3.4;
    if (x.of(tick) - half < last + 6) continue; // a label never runs into the one before
    last = x.of(tick) + half;
    svg.append(element("text", {class: "x", x: x.of(tick), y: box.bottom + 18}, text));
  }
  svg.append(element("path", {class: "axis", d: `M${box.left} ${box.bottom}H${box.right}`}));
}

// Marks: what stands for a run, in all charts; the pointer and the table light it up together.
const marks = new Map();
const mark = (n, made) => {
  made.style.setProperty("--tone", colours.of(runs.get(n)));
  if (!marks.has(n)) marks.set(n, []);
  marks.get(n).push(made);
  return made;
};
function light(n) {
  if (n === near) return;
  for (const [old, name] of [[near, "remove"], [n, "add"]]) {
    for (const one of marks.get(old) || []) { one.classList[name]("near"); if (name === "add") one.parentNode.append(one); }
    rows.get(old)?.classList[name]("near");
  }
  near = n;
}
function keep(n) {
  kept.has(n) ? kept.delete(n) : kept.add(n);
  showKept();
}
function showKept() {
  for (const [n, row] of rows) {
    row.classList.toggle("kept", kept.has(n));
    row.querySelector("button").setAttribute("aria-pressed", kept.has(n));
  }
  for (const [n, ones] of marks) for (const one of ones) { one.classList.toggle("kept", kept.has(n)); if (kept.has(n)) one.parentNode.append(one); }
  for (const link of document.querySelectorAll(".by a")) link.classList.toggle("kept", kept.has(Number(link.dataset.run)));
}
body.onclick = event => {
  const row = event.target.closest("a") ? null : event.target.closest("tr");
  if (row && !getSelection().toString()) keep(Number(row.dataset.run));
};
body.onpointerover = event => light(Number(event.target.closest("tr")?.dataset.run) || null);
body.onpointerleave = () => light(null);

// The keyboard: the numbers are one stop of the tab key, arrows move among the rows shown, Escape removes all marks.
const button = n => rows.get(n).querySelector("button");
let stop = data.runs[0].number;
function stopAt(n) {
  for (const row of rows.values()) row.querySelector("button").tabIndex = -1;
  if (n === undefined) return;
  stop = n;
  button(n).tabIndex = 0;
}
stopAt(stop);
body.addEventListener("focusin", event => {
  const n = Number(event.target.closest("tr").dataset.run);
  if (event.target === button(n)) stopAt(n);
  light(n);
});
body.addEventListener("focusout", () => light(null));
body.onkeydown = event => {
  const shown = [...body.rows].filter(row => !row.hidden), at = shown.indexOf(event.target.closest("tr"));
  const next = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1}[event.key];
  if (next !== undefined && shown[next]) {
    event.preventDefault();
    shown[next].querySelector("button").focus();
  }
};
addEventListener("keydown", event => { if (event.key === "Escape" && kept.size && !lightbox.open) { kept.clear(); showKept(); } });

// The nearest point under the pointer, with what it stands for.
function follow(svg, points, tell) {
  svg.onpointermove = event => {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const x = (event.clientX - box.left) / box.width * view.width, y = (event.clientY - box.top) / box.height * view.height;
    let best = null, least = 30 ** 2;
    for (const point of points) {
      const far = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (far < least) [best, least] = [point, far];
    }
    light(best && best.run);
    tip.hidden = !best;
    if (!best) return;
    tip.replaceChildren(html("b", {textContent: `#${best.run} ${runs.get(best.run).label}`}), ...tell(best).map(text => html("p", {textContent: text})));
    const right = event.clientX + 16 + tip.offsetWidth > innerWidth;
    tip.style.left = `${Math.max(4, event.clientX + (right ? -tip.offsetWidth - 12 : 16))}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 8)}px`;
  };
  svg.onpointerleave = () => { tip.hidden = true; light(null); };
  svg.onclick = () => { if (near) keep(near); };
}

// Quality against cost, with the front over all runs under the common protocol.
fill(byId("metric"), data.metrics.map(metric => [metric.key, metric.key]));
fill(byId("cost-axis"), data.costs.map(cost => [cost.key, cost.title]));
if (byId("cost-axis") && data.costs.some(cost => cost.key === "flops_per_caption")) byId("cost-axis").value = "flops_per_caption";
const metricNow = () => data.metrics.find(metric => metric.key === byId("metric").value);
const costText = (cost, run) => cost.text[data.runs.indexOf(run)];
function drawScatter() {
  const figure = byId("scatter");
  if (!figure) return;
  const metric = metricNow(), cost = data.costs.find(one => one.key === byId("cost-axis").value), factor = metric.factor;
  const known = run => run.scores[metric.key] && run.cost[cost.key] !== null;
  const shown = visible.filter(known);
  const narrow = figure.clientWidth < 560, width = narrow ? 400 : 800, height = narrow ? 300 : 340;
  const box = {left: 44, right: width - 14, top: 12, bottom: height - 40};
  const [unit, unitName] = unitOf(cost.key, Math.max(...shown.map(run => run.cost[cost.key])));
  const costOf = run => run.cost[cost.key] / unit;
  const costs = shown.map(costOf);
  const log = costs.length > 1 && Math.min(...costs) > 0 && Math.max(...costs) / Math.min(...costs) > 20;
  const few = shown.length <= 40;
  figure.classList.toggle("many", !few);
  const x = scale(costs, box.left + 8, box.right - 8, {log, zero: .25});
  const ends = shown.flatMap(run => run.scores[metric.key].slice(0, few ? 3 : 1)).filter(value => value !== null);
  const y = scale(ends.map(value => value * factor), box.bottom, box.top, {zero: .25});
  const svg = element("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${metric.key} against ${cost.title}`});
  axes(svg, x, y, box);
  svg.append(element("text", {class: "x", x: (box.left + box.right) / 2, y: height - 4}, [cost.title, unitName, log ? "logarithmic" : ""].filter(Boolean).join(", ")));
  const place = run => ({run: run.number, x: x.of(costOf(run)), y: y.of(run.scores[metric.key][0] * factor)});
  const front = data.fronts[metric.key][cost.key].map(n => runs.get(n)).filter(run => shown.includes(run));
  const steps = front.map(place);
  if (steps.length > 1) svg.append(element("path", {class: "front", d: steps.map((p, i) => i ? `H${p.x}V${p.y}` : `M${p.x} ${p.y}`).join("")}));
  const group = svg.appendChild(element("g"));
  for (const run of shown) {
    const point = place(run), [, low, high, same] = run.scores[metric.key];
    if (few && low !== null) group.append(mark(run.number, element("path", {class: "whisker", d: `M${point.x} ${y.of(low * factor)}V${y.of(high * factor)}`})));
    const kind = same ? front.includes(run) ? "point on-front" : "point" : "apart";
    group.append(mark(run.number, element("circle", {cx: point.x, cy: point.y, r: few ? 5 : 3.5, class: kind})));
  }
  const taken = [];
  for (const run of front) {
    const {x: cx, y: cy} = place(run), label = `#${run.number}`, wide = label.length * 7;
    const spots = [[cx - 7 - wide, cy - 7], [cx + 8, cy - 7], [cx + 8, cy + 15], [cx - 7 - wide, cy + 15]];
    const spot = spots.find(([left, base]) => left > box.left && left + wide < width && taken.every(([l, b, w]) => left > l + w + 2 || left + wide < l - 2 || Math.abs(base - b) > 12));
    if (!spot) continue;
    taken.push([...spot, wide]);
    svg.append(element("text", {class: "number", x: spot[0], y: spot[1]}, label));
  }
  follow(svg, shown.map(place), point => {
    const run = runs.get(point.run), [value, low, high, same] = run.scores[metric.key];
    const interval = low === null ? "" : ` (${scoreText(low, factor)} – ${scoreText(high, factor)})`;
    return [`${metric.key} ${scoreText(value, factor)}${interval}${same ? "" : ", under another protocol than most"}`, `${cost.title} ${costText(cost, run)}`];
  });
  figure.replaceChildren(svg);
  const missing = visible.length - shown.length, apart = shown.filter(run => !run.scores[metric.key][3]).length;
  byId("front").replaceChildren("On the front, where no run has a higher score at a lower cost: ",
    ...front.flatMap((run, i) => [i ? ", " : "", html("a", {href: `#run-${run.number}`, textContent: `#${run.number} ${runs.get(run.number).label}`})]),
    front.length ? "." : "none of the runs shown.", apart ? ` Rings are under another protocol and take no part.` : "",
    missing ? ` Without such a score or cost: ${missing} of the runs in the table.` : "");
}
// The unit that an axis up to `high` is written in: its size, and what follows the axis' name.
function unitOf(key, high) {
  const units = key.endsWith("_seconds") ? [[3600, "hours"], [60, "minutes"], [1, "seconds"]]
    : key.endsWith("_bytes") ? [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [1, "bytes"]]
    : [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]].map(([size, name]) => [size, key.startsWith("flops") ? `${name}FLOPs` : {T: "×10¹²", G: "billions", M: "millions", k: "thousands"}[name] || ""]);
  return units.find(([size]) => high >= 1.5 * size) || units.at(-1);
}

// Curves of all runs shown, over each other.
function drawCurves() {
  byId("plots")?.replaceChildren(...data.curves.map(({title, lines}) => {
    const shown = visible.filter(run => lines[run.number]);
    const width = 400, height = 220, box = {left: 42, right: width - 10, top: 10, bottom: height - 28};
    const finite = shown.flatMap(run => lines[run.number][1]).filter(value => value !== null);
    const x = scale(shown.flatMap(run => lines[run.number][0]), box.left, box.right, {zero: .5, margin: 0});
    const log = title.endsWith("loss") && finite.length > 0 && Math.min(...finite) > 0 && Math.max(...finite) / Math.min(...finite) > 50;
    const y = scale(finite, box.bottom, box.top, {log, zero: .25});
    const svg = element("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} of ${shown.length} runs`});
    axes(svg, x, y, box, step => step >= 1e4 ? `${short(step / 1000)}k` : short(step));
    const group = svg.appendChild(element("g")), points = [];
    for (const run of shown) {
      const [steps, values] = lines[run.number];
      let d = "", pen = "M";
      steps.forEach((step, i) => {
        if (values[i] === null) { pen = "M"; return; }
        const px = x.of(step).toFixed(1), py = y.of(values[i]).toFixed(1);
        d += pen + px + " " + py;
        pen = "L";
        points.push({run: run.number, x: Number(px), y: Number(py), step, value: values[i]});
      });
      if (steps.length === 1) d += "h.1";
      group.append(mark(run.number, element("path", {class: steps.length === 1 ? "line point" : "line", d})));
    }
    follow(svg, points, point => [`step ${point.step.toLocaleString("en")}: ${short(point.value)}`]);
    const caption = html("figcaption", {textContent: title});
    if (log) caption.append(html("span", {className: "quiet", textContent: " logarithmic"}));
    return html("figure", {className: shown.length > 16 ? "plot many" : "plot"}, caption, svg);
  }));
}

function draw() {
  near = null;
  marks.clear();
  colours = palette();
  for (const [n, row] of rows) row.querySelector(".key").style.setProperty("--tone", colours.of(runs.get(n)));
  drawLegend();
  drawScatter();
  drawCurves();
  showKept();
}
// Columns beyond the right edge: the last visible one fades out.
const scroller = document.querySelector(".runs-scroll");
const fade = () => scroller.classList.toggle("more", scroller.scrollLeft + scroller.clientWidth < scroller.scrollWidth - 2);
scroller.onscroll = fade;
addEventListener("resize", fade);
fade();
let pending;
byId("filter").oninput = () => { clearTimeout(pending); pending = setTimeout(filter, 120); };
colour.onchange = draw;
byId("metric").onchange = () => {
  document.querySelectorAll("[data-metric]").forEach(part => { part.hidden = part.dataset.metric !== byId("metric").value; });
  draw();
};
if (byId("cost-axis")) byId("cost-axis").onchange = draw;
let wide = innerWidth;
addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; draw(); } });
filter();
