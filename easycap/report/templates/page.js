"use strict";
// Tabs: without a script every panel is shown under its heading.
for (const group of document.querySelectorAll("[data-tabs]")) {
  const panels = [...group.querySelectorAll(":scope > [data-panel]")];
  const bar = document.createElement("div");
  bar.className = "tabs";
  bar.setAttribute("role", "tablist");
  const select = chosen => panels.forEach((panel, i) => {
    panel.hidden = i !== chosen;
    bar.children[i].setAttribute("aria-selected", i === chosen);
    bar.children[i].tabIndex = i === chosen ? 0 : -1;
  });
  panels.forEach((panel, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = panel.dataset.panel;
    button.setAttribute("role", "tab");
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-label", panel.dataset.panel);
    button.onclick = () => select(i);
    bar.append(button);
  });
  bar.onkeydown = event => {
    const move = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!move) return;
    const next = (panels.findIndex(panel => !panel.hidden) + move + panels.length) % panels.length;
    select(next);
    bar.children[next].focus();
  };
  group.prepend(bar);
  select(0);
}

// A footnote's link opens the list it points into.
const openTarget = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", openTarget);
openTarget();

// Charts: the values at the step under the pointer. Points come in the view box's pixels.
const tip = document.getElementById("tip");
const nearest = (values, x) => values.reduce((best, value, i) => Math.abs(value - x) < Math.abs(values[best] - x) ? i : best, 0);
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg"), cursor = svg.querySelector(".cursor");
  let lines;
  svg.onpointermove = event => {
    lines ??= JSON.parse(chart.dataset.points).filter(line => line.px.length);
    if (!lines.length) return;
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const x = (event.clientX - box.left) / box.width * view.width;
    const at = lines.map(line => nearest(line.px, x));
    const lead = lines.reduce((best, line, i) =>
      Math.abs(line.px[at[i]] - x) < Math.abs(lines[best].px[at[best]] - x) ? i : best, 0);
    const px = lines[lead].px[at[lead]], step = lines[lead].step[at[lead]];
    cursor.replaceChildren();
    const rule = document.createElementNS(svg.namespaceURI, "path");
    rule.setAttribute("d", `M${px} 10V${view.height - 28}`);
    cursor.append(rule);
    tip.replaceChildren();
    const head = document.createElement("p"), perStep = Number(chart.dataset.epochsPerStep);
    head.textContent = `step ${step.toLocaleString("en")}` + (perStep ? ` · epoch ${(step * perStep).toFixed(1)}` : "");
    tip.append(head);
    lines.forEach((line, i) => {
      if (Math.abs(line.px[at[i]] - px) > 12) return; // this line has no value near that step
      const dot = document.createElementNS(svg.namespaceURI, "circle");
      for (const [name, value] of Object.entries({cx: line.px[at[i]], cy: line.py[at[i]], r: 3.5, class: `tone-${line.tone}`}))
        dot.setAttribute(name, value);
      cursor.append(dot);
      const row = document.createElement("div"), key = document.createElement("i");
      key.className = `key tone-${line.tone}`;
      row.append(key, ` ${line.name} ${line.text[at[i]]}`);
      tip.append(row);
    });
    cursor.setAttribute("visibility", "visible");
    tip.hidden = false;
    const right = event.clientX + 16 + tip.offsetWidth > innerWidth;
    tip.style.left = `${Math.max(4, event.clientX + (right ? -tip.offsetWidth - 12 : 16))}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 8)}px`;
  };
  svg.onpointerleave = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
}

// Pictures: a click enlarges, arrows move to the next one that is shown, a click or Escape closes.
const lightbox = document.getElementById("lightbox");
let shown = null;
const show = button => {
  shown = button;
  const card = button.closest(".card");
  lightbox.querySelector("img").src = button.querySelector("img").src;
  lightbox.querySelector("p").textContent = (card?.querySelector(".caption, .stages .last > :last-child")?.textContent || "").trim();
  if (!lightbox.open) lightbox.showModal();
};
document.addEventListener("click", event => {
  const button = event.target.closest(".zoom");
  if (button) show(button);
  else if (lightbox.open) lightbox.close();
});
lightbox.onkeydown = event => {
  const move = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (!move) return;
  const visible = [...document.querySelectorAll(".zoom")].filter(button => button.offsetParent);
  show(visible[(visible.indexOf(shown) + move + visible.length) % visible.length]);
};
