// The demo page: sends photos one after another, shows captions, where a decoder looked, and what else it expected.
"use strict";

const $ = (id) => document.getElementById(id);
let info = null;
const photos = []; // {file, card, answers: {run: answer}, active: [run, token] or null}
const waiting = [];
let working = false;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const percent = (p) => (p >= 0.9995 ? "100%" : p < 0.001 ? "<0.1%" : `${(100 * p).toFixed(1)}%`);
const shown = (token) => (token === "<eos>" ? "end of caption" : token === "" ? "␣" : token);
const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

// ------------------------------------------------------------------------------------------ the form

async function begin() {
  info = await (await fetch("api/runs")).json();
  $("runs").textContent = info.runs.map((run) => run.name).join(" · ");
  const captioners = info.runs.filter((run) => run.captions);
  if (!captioners.length) $("decoding").hidden = true;
  const readers = (text) => captioners.filter((run) => run.reads.includes(text)).map((run) => run.name);
  const few = info.runs.length > 1 ? (names) => ` (read by ${names.join(", ")})` : () => "";
  const hints = { tags: "tags, e.g. dog,ball", draft: "draft of the caption" };
  for (const text of ["tags", "draft"]) {
    const names = readers(text);
    if (names.length) $("texts").append(field(text, "text", hints[text] + few(names), "the run's own"));
  }
  if (readers("draft").length) $("texts").append(field("rounds", "number", "rounds of refinement", "the run's own"));
  const own = [...new Set(captioners.map((run) => run.decoding))].join(", ");
  $("method").append(new Option(`the run's own (${own})`, ""));
  for (const name of Object.keys(info.decodings)) $("method").append(new Option(name, name));
  $("method").addEventListener("change", showSettings);
  showSettings();
}

function field(name, type, label, placeholder) {
  const made = element("label", `${label} `, type === "text" ? "wide" : "");
  const input = element("input");
  Object.assign(input, { name, type, placeholder, autocomplete: "off" });
  if (type === "number") Object.assign(input, { step: "any", inputMode: "decimal" });
  made.append(input);
  return made;
}

function showSettings() {
  const settings = info.decodings[$("method").value] || {};
  $("settings").replaceChildren(
    ...Object.entries(settings).map(([name, value]) => {
      if (typeof value !== "boolean") return field(name, "number", name, value === null ? "the model's" : String(value));
      const made = element("label", `${name} `);
      const select = element("select");
      select.name = name;
      select.append(new Option(`${value}`, ""), new Option(`${!value}`, `${!value}`));
      made.append(select);
      return made;
    }),
  );
}

// ---------------------------------------------------------------------------------- photos, one by one

function add(files) {
  const added = files.map((file) => {
    const card = $("photo").content.firstElementChild.cloneNode(true);
    const photo = { file, card, answers: {}, active: null };
    card.querySelector(".name span").textContent = file.name;
    card.querySelector(".remove").addEventListener("click", () => remove(photo));
    card.querySelector(".remove").setAttribute("aria-label", `remove ${file.name}`);
    return photo;
  });
  photos.unshift(...added);
  $("photos").prepend(...added.map((photo) => photo.card));
  added.forEach(ask);
  $("again").hidden = !photos.length;
}

function remove(photo) {
  for (const list of [photos, waiting]) if (list.includes(photo)) list.splice(list.indexOf(photo), 1);
  photo.stop?.abort();
  photo.card.remove();
  $("again").hidden = !photos.length;
  $("files").focus();
}

function ask(photo) {
  photo.card.setAttribute("aria-busy", "true");
  if (!waiting.includes(photo)) waiting.push(photo);
  if (!working) work();
}

async function work() {
  working = true;
  while (waiting.length) {
    const photo = waiting.shift();
    const more = waiting.length ? `, ${waiting.length} more` : "";
    $("status").textContent = `captioning ${photo.file.name}${more} …`;
    try {
      await caption(photo);
    } catch (error) {
      if (error.name !== "AbortError") fail(photo, "no answer; is the server still running, and the file still there?");
    }
    photo.card.setAttribute("aria-busy", "false");
  }
  $("status").textContent = "";
  working = false;
}

async function caption(photo) {
  photo.answers = {};
  photo.active = null;
  const most = info.limits.bytes;
  if (photo.file.size > most) {
    const size = (photo.file.size / 1e6).toFixed(1);
    return fail(photo, `the file has ${size} MB; at most ${most / 1e6} MB are read`);
  }
  photo.stop = new AbortController();
  const fields = new URLSearchParams([...new FormData($("form"))].filter(([, value]) => typeof value === "string" && value));
  const response = await fetch(`api/caption?${fields}`, {
    method: "POST",
    headers: { "X-Easycap-Demo": "1", "Content-Type": "application/octet-stream" },
    body: photo.file,
    signal: photo.stop.signal,
  });
  if (!response.ok) return fail(photo, (await response.json()).error);
  photo.card.querySelector(".answers").replaceChildren();
  draw(photo);
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) receive(photo, JSON.parse(line));
  }
}

function receive(photo, line) {
  if (line.photo) {
    const image = photo.card.querySelector("img");
    Object.assign(image, { src: line.photo, alt: photo.file.name, width: line.size[0], height: line.size[1] });
  } else if (line.run === undefined) {
    fail(photo, line.error);
  } else {
    photo.answers[line.run] = line;
    show(photo, line);
  }
}

function fail(photo, error) {
  photo.card.querySelector(".answers").replaceChildren(element("p", sentence(`${photo.file.name}: ${error}`), "wrong"));
}

// ------------------------------------------------------------------------------------------ an answer

function show(photo, answer) {
  const run = info.runs[answer.run];
  const made = $("answer").content.firstElementChild.cloneNode(true);
  made.dataset.run = answer.run;
  made.querySelector("h2").textContent = run.name;
  photo.card.querySelector(".answers").append(made);
  const note = made.querySelector(".note-line");
  if (answer.error) {
    note.textContent = sentence(answer.error);
    note.classList.add("wrong");
    return;
  }
  const notes = [`${answer.seconds} s`];
  if (answer.tags) {
    made.querySelector(".words").remove();
    made.querySelector(".place").append(bars(answer.tags));
  } else {
    words(photo, answer, made.querySelector(".words"));
    made.querySelector(".place").append(hint());
    notes.unshift(`log-probability ${answer.log_probability.toFixed(2).replace("-", "−")}`);
    if (run.no_attention) notes.push(`no attention maps: ${run.no_attention}`);
    notes.push(...answer.notices);
    $("keys").hidden = false;
  }
  note.textContent = notes.join(" · ");
}

function words(photo, answer, line) {
  line.setAttribute("aria-label", `caption by ${info.runs[answer.run].name}: ${answer.caption}`);
  answer.tokens.forEach((token, index) => {
    if (token.space && index) line.append(" ");
    const word = element("button", token.text === "<eos>" ? "end" : shown(token.text), "word");
    word.type = "button";
    if (token.text === "<eos>") word.classList.add("end");
    word.style.setProperty("--p", token.p);
    word.tabIndex = index ? -1 : 0;
    word.setAttribute("aria-pressed", "false");
    word.setAttribute("aria-label", `${shown(token.text)}, ${percent(token.p)}`);
    const choose = () => activate(photo, answer.run, index);
    word.addEventListener("mouseenter", choose);
    word.addEventListener("focus", choose);
    word.addEventListener("click", choose);
    word.addEventListener("keydown", (event) => move(event, photo, answer.run, index));
    line.append(word);
  });
}

const hint = () => element("p", "What did the model expect? Point at a word.", "quiet");

const wordsOf = (photo, run) => [...photo.card.querySelectorAll(`[data-run="${run}"] .word`)];

function move(event, photo, run, index) {
  const own = wordsOf(photo, run);
  const step = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: own.length - 1 }[event.key];
  let target = step === undefined ? null : own[step];
  if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    const all = photos.flatMap((one) => Object.keys(one.answers).map((key) => wordsOf(one, key))).filter((of) => of.length);
    const others = all[all.findIndex((of) => of[0] === own[0]) + (event.key === "ArrowUp" ? -1 : 1)];
    target = others && others[Math.min(index, others.length - 1)];
  } else if (event.key === "Escape") {
    activate(photo, null);
  } else if (step === undefined) {
    return;
  }
  event.preventDefault();
  target?.focus();
}

function activate(photo, run, index) {
  photo.active = run === null ? null : [run, index];
  for (const section of photo.card.querySelectorAll(".answer")) {
    const answer = photo.answers[section.dataset.run];
    if (!answer?.tokens) continue;
    const here = run !== null && answer.run === run;
    wordsOf(photo, answer.run).forEach((word, number) => {
      word.setAttribute("aria-pressed", String(here && number === index));
      if (here) word.tabIndex = number === index ? 0 : -1;
    });
    // The words of other runs stay, beside which one reads these.
    const place = section.querySelector(".place");
    if (here) place.replaceChildren(...likeliest(answer.tokens[index], index, answer));
    else if (run === null) place.replaceChildren(hint());
  }
  draw(photo);
}

const SHOWN_BEFORE = 4; // tokens

function likeliest(token, index, answer) {
  const first = Math.max(0, index - SHOWN_BEFORE);
  const before = answer.tokens.slice(first, index).map((one, number) => (one.space && number ? " " : "") + one.text).join("");
  const title = index ? `next after “${first ? "… " : ""}${before}”` : "first word";
  const rows = token.likeliest.map(([text, p]) => [text, p, text === token.text]);
  if (!rows.some((row) => row[2])) rows.push([token.text, token.p, true]);
  return [element("p", title, "quiet"), bars(rows)];
}

function bars(rows) {
  const list = element("ol", undefined, "bars");
  for (const [text, p, chosen] of rows) {
    const row = element("li", undefined, chosen ? "chosen" : "");
    const bar = element("i");
    bar.style.setProperty("--p", p);
    row.append(element("span", shown(text)), element("span"), element("b", percent(p)));
    row.children[1].append(bar);
    list.append(row);
  }
  return list;
}

// ------------------------------------------------------------------------------------------ attention

const HEAT = [[150, 20, 110], [240, 60, 60], [255, 160, 30], [255, 245, 130]];

// As in the pictures of `easycap caption --attention`: heat goes from an even share to the largest of all words.
function draw(photo) {
  const canvas = photo.card.querySelector("canvas");
  const legend = photo.card.querySelector(".legend-line");
  const answer = photo.active && photo.answers[photo.active[0]];
  canvas.hidden = !answer?.attention;
  legend.replaceChildren();
  if (canvas.hidden) return;
  const { maps, window: seen } = answer.attention;
  const map = maps[photo.active[1]];
  const even = 1 / (map.length * map[0].length);
  const top = Math.max(2 * even, ...maps.flat(2));
  const image = photo.card.querySelector("img");
  [canvas.width, canvas.height] = [image.width, image.height].map((_, axis) => image[axis ? "naturalHeight" : "naturalWidth"]);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "rgb(0 0 0 / .5)";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  const [left, above, right, below] = seen.map((share, axis) => share * (axis % 2 ? canvas.height : canvas.width));
  pen.imageSmoothingQuality = "high";
  pen.drawImage(heat(map, even, top), left, above, right - left, below - above);
  pen.strokeStyle = "rgb(255 255 255 / .8)";
  pen.lineWidth = Math.max(1, canvas.width / 300);
  pen.setLineDash([4 * pen.lineWidth, 3 * pen.lineWidth]);
  pen.strokeRect(left, above, right - left, below - above);
  const word = shown(answer.tokens[photo.active[1]].text);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `attention before “${word}”`);
  legend.append(`attention per cell: ${percent(even)}`, element("span", undefined, "ramp"), percent(top));
}

function heat(map, even, top) {
  const side = 96;
  const small = document.createElement("canvas");
  small.width = small.height = side;
  const pen = small.getContext("2d");
  const pixels = pen.createImageData(side, side);
  const at = (row, column) =>
    map[Math.min(Math.max(row, 0), map.length - 1)][Math.min(Math.max(column, 0), map[0].length - 1)];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const [row, column] = [((y + 0.5) / side) * map.length - 0.5, ((x + 0.5) / side) * map[0].length - 0.5];
      const [r, c] = [Math.floor(row), Math.floor(column)];
      const upper = at(r, c) * (1 - column + c) + at(r, c + 1) * (column - c);
      const lower = at(r + 1, c) * (1 - column + c) + at(r + 1, c + 1) * (column - c);
      const level = Math.min(Math.max((upper * (1 - row + r) + lower * (row - r) - even) / (top - even), 0), 1);
      const place = Math.min(level * (HEAT.length - 1), HEAT.length - 1.000001);
      const stop = Math.floor(place);
      const colour = HEAT[stop].map((from, channel) => from + (HEAT[stop + 1][channel] - from) * (place - stop));
      pixels.data.set([...colour, 255 * 0.85 * Math.sqrt(level)], 4 * (y * side + x));
    }
  }
  pen.putImageData(pixels, 0, 0);
  return small;
}

// ------------------------------------------------------------------------------------------ what one does

$("files").addEventListener("change", () => {
  add([...$("files").files]);
  $("files").value = "";
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  photos.forEach(ask);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  add([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) add([...event.clipboardData.files]);
});
begin().catch(() => ($("status").textContent = "The server does not answer; is it still running?"));
