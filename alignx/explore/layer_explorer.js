// The layer explorer's view: one dependency-free ES module for two hosts, a Jupyter kernel (anywidget) and a static
// page (a small stand-in for the widget model). It reads `data` once; `layer`, `models_shown`, `hidden_languages` and
// `selected` are two-way. Sentences come from outside, so they only ever enter the page through `textContent`.

const CSS = `
:host { all: initial; display: block; --paper: #ffffff; --panel: #fbfbfa; --ink: #1c1d1f; --soft: #62666d; --line: #dcdedf;
  --accent: #0b63b5; --wash: #eef3f9; color-scheme: light; }
:host([data-theme="dark"]) { --paper: #15171a; --panel: #1b1e22; --ink: #eceef0; --soft: #9fa6ae; --line: #343a41;
  --accent: #6db3f2; --wash: #212c38; color-scheme: dark; }
* { box-sizing: border-box; }
.root { font: 13px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; color: var(--ink);
  background: var(--paper); padding: 12px; border-radius: 8px; }
.bar { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; margin-bottom: 8px; }
.title { font-weight: 650; font-size: 15px; margin-right: auto; }
button { font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: 6px;
  padding: 2px 9px; min-height: 28px; cursor: pointer; }
button:hover { background: var(--wash); }
button[aria-pressed="true"] { background: var(--wash); border-color: var(--accent); color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; } .root:focus-visible { outline-offset: -2px; } .root:focus:not(:focus-visible) { outline: none; }
.group { display: inline-flex; } .group button { border-radius: 0; margin-left: -1px; min-width: 30px; }
.group button:first-child { border-radius: 6px 0 0 6px; } .group button:last-child { border-radius: 0 6px 6px 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 8px; }
.legend button { display: inline-flex; align-items: center; gap: 5px; padding: 1px 8px 1px 6px; border-radius: 14px; }
.legend button[aria-pressed="true"] { background: transparent; border-color: var(--line); color: inherit; }
.legend button[aria-pressed="false"] { opacity: .42; text-decoration: line-through; }
.body { display: grid; gap: 10px; grid-template-columns: minmax(0, 1fr); }
.wide .body { grid-template-columns: minmax(0, 1fr) 310px; }
.panels { display: grid; gap: 10px; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); }
.stacked .panels { grid-auto-flow: row; }
.panel { position: relative; border: 1px solid var(--line); border-radius: 8px; background: var(--panel); overflow: hidden; }
.panel header { display: flex; flex-wrap: wrap; gap: 0 8px; padding: 6px 10px 0; align-items: baseline; }
.panel header b { font-weight: 650; } .panel header span { color: var(--soft); font-size: 12px; margin-left: auto; }
canvas { display: block; width: 100%; touch-action: pan-y; cursor: crosshair; }
canvas.zoomed { touch-action: none; }
.tip { position: absolute; pointer-events: none; z-index: 3; max-width: min(340px, 92%); background: var(--paper); color: var(--ink);
  border: 1px solid var(--line); border-radius: 8px; padding: 7px 9px; box-shadow: 0 4px 16px rgb(0 0 0 / .18); font-size: 12px; }
.row { display: grid; grid-template-columns: 2.9em minmax(0, 1fr) auto; gap: 6px; align-items: baseline; }
.tip .row { grid-template-columns: 2.9em minmax(0, 1fr); }
.tip .text { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.tip .row:first-child { margin-bottom: 3px; } .tip .row:first-child .text { white-space: normal; font-weight: 600; }
.code { display: inline-flex; align-items: center; gap: 4px; color: var(--soft); font-size: 11.5px; }
.text { overflow-wrap: anywhere; text-align: start; }
.number { color: var(--soft); font-variant-numeric: tabular-nums; font-size: 12px; white-space: nowrap; }
.steps { display: grid; grid-template-columns: 40px minmax(0, 1fr) 104px; gap: 0 8px; align-items: center; margin-top: 10px; }
.steps input { width: 100%; margin: 0; height: 28px; accent-color: var(--accent); cursor: pointer; }
.steps .play { padding: 0; width: 36px; font-size: 12px; } .steps .now { font-weight: 650; white-space: nowrap; }
.strip { grid-column: 1 / -1; display: block; width: 100%; overflow: visible; cursor: pointer; }
.strip text { font-size: 11px; fill: var(--soft); }
.caption { grid-column: 1 / -1; color: var(--soft); font-size: 12px; }
.details { border: 1px solid var(--line); border-radius: 8px; padding: 8px 10px; overflow: auto; height: 250px; background: var(--panel); }
.wide .details { height: auto; max-height: none; position: relative; } .wide .details > div { position: absolute; inset: 8px 10px; }
.details h4 { margin: 10px 0 3px; font-size: 12px; font-weight: 650; color: var(--soft); }
.details .row { padding: 2px 0; border-top: 1px solid color-mix(in srgb, var(--line) 55%, transparent); }
.details .hit .number { color: var(--accent); font-weight: 650; }
.details .head { font-size: 14px; border: 0; grid-template-columns: 2.9em minmax(0, 1fr) auto; }
.details .columns { display: grid; gap: 0 18px; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); }
.details .text { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
.details .head .text { -webkit-line-clamp: 5; font-weight: 600; } .details .row { cursor: default; }
.details .pick { display: block; width: 100%; min-height: 26px; padding: 2px 6px; border: 0; border-radius: 4px; text-align: start;
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.details p { margin: 0 0 4px; color: var(--soft); } .details .head button { min-height: 24px; padding: 0 7px; }
`;
const SHAPES = 4, INSET = 8;

// ---- what Python packed: base64 of zlib -----------------------------------------------------------------------------
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Coordinates: per axis, int16 differences from the layer below, low bytes first, then high bytes.
function decodeCoordinates(bytes, models, layers, count) {
  const total = models * layers * count * 2, plane = models * layers * count, out = new Int16Array(total);
  for (let i = 0; i < total; i++) out[i] = bytes[i] | (bytes[total + i] << 8);
  for (let axis = 0; axis < 2; axis++) for (let m = 0; m < models; m++) for (let l = 1; l < layers; l++) {
    const here = axis * plane + (m * layers + l) * count;
    for (let i = 0; i < count; i++) out[here + i] += out[here + i - count];
  }
  return { x: out.subarray(0, plane), y: out.subarray(plane) };
}

// Neighbours: code p means "the one ranked p at the layer below", 255 means "the next in `fresh`".
function decodeNeighbours(codes, fresh, models, layers, count, k) {
  const out = new Uint16Array(codes.length);
  for (let i = 0, next = 0; i < codes.length; i++) {
    if (codes[i] !== 255) out[i] = out[(Math.floor(i / k) - count) * k + codes[i]];
    else { out[i] = fresh[2 * next] | (fresh[2 * next + 1] << 8); next++; }
  }
  return out;
}

async function decode(data) {
  const M = data.models.length, L = data.layers.length, near = data.neighbours;
  const [sentences, xy, codes, fresh, cosines, ranks] = await Promise.all(
    [data.sentences, data.coordinates, near.codes, near.fresh, near.cosines, data.ranks].map(inflate));
  const { texts, language, group } = JSON.parse(new TextDecoder().decode(sentences)), S = texts.length;
  for (let i = M * L * S; i < cosines.length; i++) cosines[i] += cosines[i - M * L * S]; // differences to the nearer neighbour, modulo 256
  return { ...decodeCoordinates(xy, M, L, S), cosines, ranks, texts, language, group,
    neighbours: decodeNeighbours(codes, fresh, M, L, S, near.count) };
}

// ---- colours --------------------------------------------------------------------------------------------------------
const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
function luminance(rgb) {
  const [r, g, b] = rgb.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
// The language's own colour, moved towards white (dark page) or black (light page) until it stands out.
function readable(hex, dark, wanted) {
  const paper = dark ? 0.01 : 0.96;
  let rgb = channels(hex);
  for (let step = 0; step < 12; step++) {
    const l = luminance(rgb), contrast = dark ? (l + 0.05) / (paper + 0.05) : (paper + 0.05) / (l + 0.05);
    if (contrast >= wanted) break;
    rgb = rgb.map((v) => Math.round(dark ? v + (255 - v) * 0.14 : v * 0.92));
  }
  return `rgb(${rgb.join(" ")})`;
}
function pagesAround() { // this page and, if it sits in a frame that we may look out of, the page around it
  try { if (window.frameElement) return [document, window.frameElement.ownerDocument]; } catch { /* another origin: not ours to read */ }
  return [document];
}
function pageIsDark() {
  for (const { body, documentElement } of pagesAround()) {
    if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
    if (body.classList.contains("quarto-dark")) return true;
    if (body.classList.contains("quarto-light")) return false;
    const theme = documentElement.dataset.theme || documentElement.dataset.bsTheme;
    if (theme === "dark" || theme === "light") return theme === "dark";
  }
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

// ---- small DOM helpers ----------------------------------------------------------------------------------------------
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle", "tspan"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value; else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
function marker(path, shape, x, y, r) {
  if (shape === 0) { path.moveTo(x + r, y); path.arc(x, y, r, 0, 6.2832); return; }
  const s = r * 0.92, t = r * 1.22;
  if (shape === 1) path.rect(x - s, y - s, 2 * s, 2 * s);
  else if (shape === 2) { path.moveTo(x, y - t); path.lineTo(x + t, y + s); path.lineTo(x - t, y + s); path.closePath(); }
  else { path.moveTo(x, y - t); path.lineTo(x + t, y); path.lineTo(x, y + t); path.lineTo(x - t, y); path.closePath(); }
}
const SHAPE_PATHS = ["M10 5A5 5 0 1 1 0 5A5 5 0 1 1 10 5Z", "M.6 .6H9.4V9.4H.6Z", "M5 0L10 9.4H0Z", "M5 0L10 5L5 10L0 5Z"];

// ---- the view -------------------------------------------------------------------------------------------------------
async function render({ model, el }) {
  const data = model.get("data");
  const decoded = await decode(data), { texts, language: languageOf, group: groupOf } = decoded;
  const M = data.models.length, L = data.layers.length, S = texts.length, K = data.neighbours.count, { pivot } = data;
  const members = new Map();
  groupOf.forEach((g, i) => { if (g >= 0) members.has(g) ? members.get(g).push(i) : members.set(g, [i]); });
  const translations = (i) => (groupOf[i] < 0 ? [] : members.get(groupOf[i]).filter((j) => j !== i));
  const order = [...Array(S).keys()].filter((i) => languageOf[i] === pivot);
  const names = data.languages.map(({ code }) => {
    try { return new Intl.DisplayNames(["en"], { type: "language" }).of(code); } catch { return code; }
  });

  const host = make("div", { "data-lm-suppress-shortcuts": "true", class: "alignx-layer-explorer" });
  const shadow = host.attachShadow({ mode: "open" });
  const root = make("div", { class: "root", tabindex: "0", role: "group", "aria-label": data.title + ". Arrow keys change the layer, space plays, up and down choose a sentence, escape clears." });
  shadow.append(make("style", { text: CSS }), root);
  el.append(host);
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");

  const state = { hover: -1, language: -1, lines: false, fitted: false, zoom: 1, panX: 0, panY: 0, width: 0, wide: false, colors: [], modelColors: [], ink: {} };
  const layerIndex = () => Math.max(0, data.layers.indexOf(model.get("layer")));
  const shownModels = () => model.get("models_shown").map((name) => data.models.indexOf(name)).filter((m) => m >= 0);
  const hidden = () => new Set(model.get("hidden_languages"));
  const visible = (i) => !state.hidden.has(data.languages[languageOf[i]].code);
  const selected = () => model.get("selected");
  function put(name, value) { model.set(name, value); model.save_changes(); }

  // -- controls
  const legend = make("div", { class: "legend", role: "group", "aria-label": "Languages" });
  const chip = (l) => make("svg", { width: 10, height: 10, viewBox: "0 0 10 10", "aria-hidden": "true" },
    make("path", { d: SHAPE_PATHS[l % SHAPES], fill: state.colors[l] }));
  const code = (l) => make("span", { class: "code", title: names[l] }, chip(l), make("span", { text: data.languages[l].code }));
  function toggleLanguage(l) {
    const now = hidden(), name = data.languages[l].code;
    now.has(name) ? now.delete(name) : now.add(name);
    put("hidden_languages", [...now]);
  }
  function fillLegend() {
    legend.replaceChildren(...data.languages.map(({ code: name }, l) => make("button", {
      type: "button", title: `${names[l]}: show or hide`, "data-language": name, "aria-pressed": String(!state.hidden.has(name)),
      onclick: () => toggleLanguage(l), onpointerenter: () => emphasize(l), onpointerleave: () => emphasize(-1),
      onfocus: () => emphasize(l), onblur: () => emphasize(-1) }, chip(l), make("span", { text: name }))));
  }
  function emphasize(l) { state.language = l; drawAll(); drawStrip(); }

  const bar = make("div", { class: "bar" }, make("span", { class: "title", text: data.title }));
  const modelButtons = [];
  if (M > 1) {
    const all = make("button", { type: "button", text: "side by side", onclick: () => put("models_shown", [...data.models]) });
    data.models.forEach((name) => modelButtons.push([[name], make("button", { type: "button", text: name, onclick: () => put("models_shown", [name]) })]));
    modelButtons.push([data.models, all]);
    bar.append(make("span", { class: "group", role: "group", "aria-label": "Model" }, ...modelButtons.map(([, b]) => b)));
  }
  const linesButton = make("button", { type: "button", text: "join translations", "aria-pressed": "false", onclick: () => {
    state.lines = !state.lines; linesButton.setAttribute("aria-pressed", String(state.lines)); drawAll(); } });
  const fitButton = make("button", { type: "button", text: "fill the frame", "aria-pressed": "false", title: "Magnify each layer until it fills the frame. Off: all layers in one frame.", onclick: () => {
    state.fitted = !state.fitted; fitButton.setAttribute("aria-pressed", String(state.fitted)); drawLabels(); animate(); } });
  if (members.size) bar.append(linesButton);
  bar.append(fitButton, make("span", { class: "group", role: "group", "aria-label": "Zoom" },
    make("button", { type: "button", text: "−", "aria-label": "Zoom out", onclick: () => zoomMiddle(1 / 1.5) }),
    make("button", { type: "button", text: "+", "aria-label": "Zoom in", onclick: () => zoomMiddle(1.5) }),
    make("button", { type: "button", text: "⟲", "aria-label": "Reset the view", onclick: () => resetZoom() })));

  const slider = make("input", { type: "range", min: 0, max: L - 1, step: 1, "aria-label": "Layer", oninput: () => { stop(); goTo(+slider.value); } });
  const play = make("button", { type: "button", class: "play", text: "▶", "aria-label": "Play through the layers", onclick: () => (timer ? stop() : start()) });
  const now = make("span", { class: "now", "aria-live": "polite" });
  const strip = make("svg", { class: "strip", height: 92, role: "img" });
  const caption = make("div", { class: "caption", text: data.retrieval ? data.retrieval.caption : "" });
  const steps = make("div", { class: "steps" }, play, slider, now);
  if (data.retrieval) steps.append(strip, caption);
  const panelBox = make("div", { class: "panels" }), details = make("div", {});
  const main = make("div", {}, panelBox, steps);
  const side = make("div", { class: "details", "aria-live": "polite", "aria-label": "Chosen sentence", role: "region", tabindex: "0" }, details);
  root.append(bar, legend, make("div", { class: "body" }, main, side));

  function goTo(index) { put("layer", data.layers[Math.min(L - 1, Math.max(0, index))]); }
  let timer = 0;
  function stop() { clearInterval(timer); timer = 0; play.textContent = "▶"; play.setAttribute("aria-label", "Play through the layers"); }
  function start() {
    if (layerIndex() === L - 1) goTo(0);
    timer = setInterval(() => (layerIndex() === L - 1 ? stop() : goTo(layerIndex() + 1)), 1000);
    play.textContent = "❚❚"; play.setAttribute("aria-label", "Pause");
    if (layerIndex() < L - 1) goTo(layerIndex() + 1);
  }

  // -- panels
  let panels = [];
  function buildPanels() {
    const shown = shownModels();
    while (panels.length > shown.length) panels.pop().box.remove();
    shown.forEach((m, slot) => {
      if (!panels[slot]) { panels[slot] = newPanel(m); panelBox.append(panels[slot].box); }
      panels[slot].model = m;
    });
  }
  function newPanel(m) {
    const canvas = make("canvas", { role: "img" }), head = make("b"), note = make("span"), tip = make("div", { class: "tip", hidden: "" });
    const box = make("section", { class: "panel" }, make("header", {}, head, note), canvas, tip);
    const panel = { model: m, box, canvas, head, note, tip, x: new Float32Array(S), y: new Float32Array(S), sx: new Float32Array(S), sy: new Float32Array(S), magnified: magnification(m, layerIndex()), width: 300, height: 260 };
    const at = offset(m, layerIndex());
    for (let i = 0; i < S; i++) { panel.x[i] = decoded.x[at + i]; panel.y[i] = decoded.y[at + i]; }
    listen(panel);
    return panel;
  }
  const offset = (m, l) => (m * L + l) * S;
  function magnification(m, l) { // 1 in the frame that all layers share; else what makes this layer fill it
    if (!state.fitted) return 1;
    const reach = (axis) => Math.max(1, Array.from(axis.subarray(offset(m, l), offset(m, l) + S), Math.abs).sort((a, b) => a - b)[Math.floor(0.99 * (S - 1))]);
    return Math.max(1, 0.46 * Math.min(data.view[0] / reach(decoded.x), data.view[1] / reach(decoded.y)));
  }

  function layout() {
    const width = root.clientWidth - 24;
    if (width <= 0) return;
    state.width = width;
    const count = panels.length, stacked = width < 560 && count > 1;
    state.wide = width >= (count > 1 ? 1040 : 760);
    root.classList.toggle("wide", state.wide);
    root.classList.toggle("stacked", stacked);
    for (const panel of panels) {
      panel.width = Math.max(120, panel.box.clientWidth - 2);
      panel.height = Math.round(Math.min(460, Math.max(stacked ? 220 : 270, panel.width * 0.72)));
      const scale = window.devicePixelRatio || 1;
      panel.canvas.style.height = panel.height + "px";
      panel.canvas.width = Math.round(panel.width * scale);
      panel.canvas.height = Math.round(panel.height * scale);
    }
    drawAll(); drawStrip(); fit();
  }
  function fit() { // an iframe on the same page grows to its content
    try { if (window.frameElement?.dataset.alignx) window.frameElement.style.height = Math.ceil(document.documentElement.getBoundingClientRect().height) + "px"; } catch { /* another origin */ }
  }

  // -- zoom and pan, shared by all panels so that they stay comparable
  function zoomAt(panel, px, py, factor) {
    const next = Math.min(25, Math.max(1, state.zoom * factor)), change = next / state.zoom;
    state.panX = (px - panel.width / 2) - change * (px - panel.width / 2 - state.panX);
    state.panY = (py - panel.height / 2) - change * (py - panel.height / 2 - state.panY);
    state.zoom = next;
    if (next === 1) state.panX = state.panY = 0;
    afterZoom();
  }
  function zoomMiddle(factor) { zoomAt(panels[0], panels[0].width / 2, panels[0].height / 2, factor); }
  function resetZoom() { state.zoom = 1; state.panX = state.panY = 0; afterZoom(); }
  function afterZoom() { for (const p of panels) p.canvas.classList.toggle("zoomed", state.zoom > 1); hideTips(); drawAll(); }

  // -- pointers
  function listen(panel) {
    const { canvas } = panel, held = new Map();
    let moved = 0, gap = 0;
    const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("pointerdown", (event) => { held.set(event.pointerId, place(event)); moved = 0; gap = 0; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (!held.has(event.pointerId)) { if (event.pointerType !== "touch") hover(panel, x, y, 12); return; }
      const [ox, oy] = held.get(event.pointerId);
      held.set(event.pointerId, [x, y]);
      if (held.size === 2) {
        const [a, b] = [...held.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (gap) zoomAt(panel, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2, now / gap);
        gap = now; moved = 99;
      } else {
        moved += Math.abs(x - ox) + Math.abs(y - oy);
        if (moved > 5) { state.panX += x - ox; state.panY += y - oy; hideTips(); afterZoom(); }
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      const [x, y] = place(event);
      if (moved <= 5 && held.size === 1) choose(nearest(panel, x, y, event.pointerType === "touch" ? 24 : 12));
      held.delete(event.pointerId); gap = 0;
    });
    canvas.addEventListener("pointercancel", (event) => { held.delete(event.pointerId); gap = 0; });
    canvas.addEventListener("pointerleave", () => { if (!held.size) setHover(-1); });
    canvas.addEventListener("dblclick", (event) => { event.preventDefault(); zoomAt(panel, ...place(event), 2); });
    canvas.addEventListener("wheel", (event) => { // a plain wheel scrolls the page until the explorer has been zoomed or has the focus
      if (!event.ctrlKey && !event.metaKey && state.zoom === 1 && !root.matches(":focus-within")) return;
      event.preventDefault();
      zoomAt(panel, ...place(event), Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) * 0.005));
    }, { passive: false });
  }
  function nearest(panel, x, y, reach) {
    let best = -1, least = reach * reach;
    for (let i = 0; i < S; i++) {
      const d = (panel.sx[i] - x) ** 2 + (panel.sy[i] - y) ** 2;
      if (d < least && visible(i)) { least = d; best = i; }
    }
    return best;
  }
  function hover(panel, x, y, reach) { setHover(nearest(panel, x, y, reach), panel); }
  function setHover(i, panel) {
    if (state.hover === i) return;
    state.hover = i;
    hideTips();
    if (i >= 0) showTip(panel, i);
    if (panel) panel.canvas.style.cursor = i >= 0 ? "pointer" : "";
    drawAll();
  }
  function hideTips() { for (const p of panels) p.tip.hidden = true; }
  function sentence(i, ...more) {
    return make("div", { class: "row" }, code(languageOf[i]), make("span", { class: "text", dir: "auto", title: texts[i], text: texts[i] }), ...more);
  }
  function showTip(panel, i) {
    const rows = translations(i).filter(visible).slice(0, 14);
    panel.tip.replaceChildren(sentence(i), ...rows.map((j) => sentence(j)));
    panel.tip.hidden = false;
    const top = panel.canvas.offsetTop, { offsetWidth: w, offsetHeight: h } = panel.tip;
    const x = panel.sx[i] + 14 + w < panel.width ? panel.sx[i] + 14 : Math.max(4, panel.sx[i] - 14 - w);
    panel.tip.style.left = Math.min(x, Math.max(4, panel.width - w - 4)) + "px";
    panel.tip.style.top = Math.max(4, Math.min(top + panel.sy[i] - h / 2, top + panel.height - h - 4)) + "px";
  }
  function choose(i) { put("selected", i === selected() ? -1 : i); root.focus({ preventScroll: true }); }

  // -- drawing
  function drawAll() { for (const panel of panels) draw(panel); }
  function neighboursOf(i, m) {
    const at = offset(m, layerIndex()) + i, [low, high] = data.neighbours.range[m][layerIndex()];
    return Array.from({ length: K }, (_, r) => ({ i: decoded.neighbours[at * K + r], rank: r + 1,
      cosine: low + (decoded.cosines[r * M * L * S + at] / 127) * (high - low) }));
  }
  function draw(panel) {
    const context = panel.canvas.getContext("2d"), { x, y, sx, sy, width, height } = panel, { ink } = state;
    const scale = state.zoom * panel.magnified * Math.min(width / data.view[0], height / data.view[1]), dpr = panel.canvas.width / width;
    for (let i = 0; i < S; i++) { sx[i] = width / 2 + state.panX + x[i] * scale; sy[i] = height / 2 + state.panY - y[i] * scale; }
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.clearRect(0, 0, width, height);
    const focus = state.hover >= 0 ? state.hover : selected() >= 0 ? selected() : -1;
    const near = selected() >= 0 && focus === selected() ? neighboursOf(focus, panel.model).filter((n) => visible(n.i)) : [];
    const bright = new Set(focus < 0 ? [] : [focus, ...translations(focus), ...near.map((n) => n.i)]);
    const radius = (S > 1200 ? 2.4 : S > 500 ? 3 : 3.8) * Math.min(1.8, state.zoom ** 0.25);
    if (state.lines) joinAll(context, panel, focus < 0 ? 0.3 : 0.1);
    for (let l = 0; l < data.languages.length; l++) {
      const path = new Path2D();
      for (let i = 0; i < S; i++) if (languageOf[i] === l && !bright.has(i) && visible(i)) marker(path, l % SHAPES, sx[i], sy[i], radius);
      context.globalAlpha = focus >= 0 ? 0.17 : state.language >= 0 ? (state.language === l ? 1 : 0.1) : 0.82;
      context.fillStyle = state.colors[l]; context.fill(path);
      context.lineWidth = 0.6; context.strokeStyle = ink.panel; context.stroke(path);
    }
    context.globalAlpha = 1;
    const taken = [];
    if (focus < 0) return labelLanguages(context, panel, taken);
    connect(context, panel, focus, near);
    for (const i of bright) if (visible(i)) {
      const path = new Path2D(), r = radius * (i === focus ? 1.9 : 1.45);
      marker(path, languageOf[i] % SHAPES, sx[i], sy[i], r);
      context.fillStyle = state.colors[languageOf[i]]; context.fill(path);
      context.lineWidth = i === focus ? 2 : 1.2; context.strokeStyle = i === focus ? ink.ink : ink.panel; context.stroke(path);
      taken.push([sx[i] - r, sy[i] - r, sx[i] + r, sy[i] + r]);
    }
    for (const i of [focus, ...translations(focus)]) if (visible(i)) label(context, panel, taken, data.languages[languageOf[i]].code, sx[i], sy[i], i === focus, 9);
    for (const n of near) if (!translations(focus).includes(n.i)) label(context, panel, taken, String(n.rank), sx[n.i], sy[n.i], false, 8);
  }
  function joinAll(context, { sx, sy }, alpha) {
    context.globalAlpha = alpha; context.strokeStyle = state.ink.soft; context.lineWidth = 0.8;
    context.beginPath();
    for (const all of members.values()) {
      const group = all.filter(visible);
      const mx = group.reduce((sum, i) => sum + sx[i], 0) / group.length, my = group.reduce((sum, i) => sum + sy[i], 0) / group.length;
      for (const i of group) { context.moveTo(mx, my); context.lineTo(sx[i], sy[i]); }
    }
    context.stroke(); context.globalAlpha = 1;
  }
  function connect(context, { sx, sy }, focus, near) {
    const stroke = (to, color, dash, wide) => {
      context.beginPath(); context.setLineDash(dash); context.strokeStyle = color; context.lineWidth = wide;
      for (const i of to) { context.moveTo(sx[focus], sy[focus]); context.lineTo(sx[i], sy[i]); }
      context.stroke(); context.setLineDash([]);
    };
    stroke(translations(focus).filter(visible), state.ink.soft, [], 1.1);
    stroke(near.map((n) => n.i), state.ink.accent, [4, 3], 1.4);
  }
  function label(context, panel, taken, text, x, y, strong, gap) {
    context.font = `${strong ? 700 : 600} 11.5px system-ui, sans-serif`;
    const w = context.measureText(text).width, spots = [[gap, 4], [-gap - w, 4], [-w / 2, -gap], [-w / 2, gap + 9]];
    for (const [dx, dy] of spots) {
      const box = [x + dx - 1, y + dy - 10, x + dx + w + 1, y + dy + 2];
      if (box[0] < 0 || box[2] > panel.width || box[1] < 0 || box[3] > panel.height) continue;
      if (taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) continue;
      taken.push(box);
      context.lineWidth = 3.5; context.lineJoin = "round"; context.strokeStyle = state.ink.panel; context.strokeText(text, x + dx, y + dy);
      context.fillStyle = state.ink.ink; context.fillText(text, x + dx, y + dy);
      return;
    }
  }
  function labelLanguages(context, panel, taken) { // a code at each language's middle, where there is room for it
    data.languages.forEach(({ code: name }, l) => {
      if (state.hidden.has(name) || (state.language >= 0 && state.language !== l)) return;
      const xs = [], ys = [];
      for (let i = 0; i < S; i++) if (languageOf[i] === l) { xs.push(panel.sx[i]); ys.push(panel.sy[i]); }
      const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
      label(context, panel, taken, name, middle(xs), middle(ys), true, 2);
    });
  }

  // -- moving between layers (and models)
  let frame = 0;
  function animate() {
    cancelAnimationFrame(frame);
    const targets = panels.map((p) => offset(p.model, layerIndex())), from = panels.map((p) => [p.x.slice(), p.y.slice(), p.magnified]);
    const magnified = panels.map((p) => magnification(p.model, layerIndex()));
    const begin = performance.now(), length = still.matches ? 0 : 450;
    const tick = (time) => {
      const t = length ? Math.min(1, Math.max(0, (time - begin) / length)) : 1, e = t < 0.5 ? 4 * t ** 3 : 1 - (2 - 2 * t) ** 3 / 2;
      panels.forEach((p, slot) => {
        const [fx, fy, fm] = from[slot], at = targets[slot];
        p.magnified = fm * (magnified[slot] / fm) ** e;
        for (let i = 0; i < S; i++) { p.x[i] = fx[i] + (decoded.x[at + i] - fx[i]) * e; p.y[i] = fy[i] + (decoded.y[at + i] - fy[i]) * e; }
      });
      drawAll();
      if (t < 1) frame = requestAnimationFrame(tick); else host.dataset.settled = String(model.get("layer"));
    };
    delete host.dataset.settled;
    frame = requestAnimationFrame(tick);
  }

  // -- the strip of retrieval per layer
  const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
  function drawStrip() {
    if (!data.retrieval) return;
    const full = strip.clientWidth || 400, left = 48, right = 112, H = 92, top = 8, low = 74;
    const highest = Math.max(...data.retrieval.models.flatMap((m) => [...m.mean, ...Object.values(m.languages).flat()])), limit = [0.1, 0.2, 0.5].find((v) => v >= highest) ?? 1;
    const X = (l) => left + INSET + (L > 1 ? l / (L - 1) : 0.5) * (full - left - right - 2 * INSET), Y = (v) => low - (v / limit) * (low - top);
    const current = layerIndex(), shown = shownModels(), parts = [];
    for (const v of [0, limit / 2, limit]) parts.push(make("line", { x1: left, x2: full - right, y1: Y(v), y2: Y(v), stroke: "var(--line)" }),
      make("text", { x: left - 7, y: Y(v) + 4, "text-anchor": "end", text: String(v).replace(/^0\./, ".") }));
    const every = Math.ceil(L / Math.max(2, (full - left - right) / 26));
    data.layers.forEach((name, l) => { if (l % every === 0) parts.push(make("text", { x: X(l), y: H - 3, "text-anchor": "middle", text: name })); });
    parts.push(make("line", { x1: X(current), x2: X(current), y1: top - 4, y2: low, stroke: "var(--accent)", "stroke-width": 1.5 }));
    const d = (values) => values.map((v, l) => (v === null ? "" : `${l && values[l - 1] !== null ? "L" : "M"}${X(l).toFixed(1)} ${Y(v).toFixed(1)}`)).join("");
    const focus = state.language >= 0 ? state.language : selected() >= 0 ? languageOf[selected()] : -1;
    for (const m of shown) {
      const curves = data.retrieval.models[m].languages;
      data.languages.forEach(({ code: name }, l) => {
        if (!curves[name] || state.hidden.has(name) || (shown.length > 1 && focus !== l)) return;
        parts.push(make("path", { d: d(curves[name]), fill: "none", stroke: state.colors[l], "stroke-width": focus === l ? 2.2 : 1, "stroke-opacity": focus < 0 ? 0.7 : focus === l ? 1 : 0.25, "stroke-dasharray": shown.length > 1 ? DASHES[m % 4] : "" }));
      });
    }
    const ends = [];
    for (const m of shown) {
      const mean = data.retrieval.models[m].mean, v = mean[current];
      parts.push(make("path", { d: d(mean), fill: "none", stroke: state.modelColors[m], "stroke-width": 2.4, "stroke-dasharray": DASHES[m % 4] }));
      if (v === null) continue;
      parts.push(make("circle", { cx: X(current), cy: Y(v), r: 3.5, fill: state.modelColors[m] }));
      ends.push([v, M > 1 ? data.models[m] : "mean", Y(mean[L - 1] ?? v) + 4, M > 1 ? state.modelColors[m] : "var(--soft)"]);
    }
    ends.sort((a, b) => a[2] - b[2]).forEach((e, i) => { if (i) e[2] = Math.max(e[2], ends[i - 1][2] + 13); });
    const over = Math.max(0, (ends.at(-1)?.[2] ?? 0) - (H - 14));
    for (const [v, name, y, color] of ends) {
      parts.push(make("text", { x: full - right + 8, y: y - over, style: `fill: ${color}` }, `${name.length > 11 ? name.slice(0, 10) + "…" : name} `,
        make("tspan", { style: "fill: var(--ink); font-weight: 650", text: v.toFixed(2) })));
    }
    strip.replaceChildren(...parts);
    strip.setAttribute("aria-label", `${data.retrieval.caption} At layer ${data.layers[current]}: ` + shown.map((m) => `${data.models[m]} ${data.retrieval.models[m].mean[current]?.toFixed(2) ?? "unknown"}`).join(", "));
  }
  const pick = (event) => {
    const box = strip.getBoundingClientRect(), left = 48 + INSET, span = box.width - 48 - 112 - 2 * INSET;
    stop(); goTo(Math.round(((event.clientX - box.left - left) / span) * (L - 1)));
  };
  strip.addEventListener("pointerdown", (event) => { strip.setPointerCapture(event.pointerId); pick(event); });
  strip.addEventListener("pointermove", (event) => { if (event.buttons) pick(event); });

  // -- the chosen sentence in words and numbers
  function rankOf(from, to, m) { // rank of a translation among its language's sentences; known from and to the pivot
    const at = offset(m, layerIndex()), plane = M * L * S;
    if (languageOf[from] === pivot) return decoded.ranks[at + to];
    return languageOf[to] === pivot ? decoded.ranks[plane + at + from] : 0;
  }
  const showRank = (r) => (r === 0 ? "" : r <= 32 ? String(r) : `~${Math.round(32 * 2 ** ((r - 32) / 8))}`); // see rank_code
  function drawDetails() {
    const i = selected(), shown = shownModels();
    if (i < 0 || i >= S) {
      const near = K === 1 ? "its nearest neighbour" : `its ${K} nearest neighbours`;
      details.replaceChildren(make("p", { text: `Point at a sentence for its translations; click it for ${near}, measured in all ${data.width} dimensions of the layer.` }),
        make("p", { text: "← → layer · space plays · ↑ ↓ sentence · + − zoom" }),
        make("h4", { text: order.length === S ? "Sentences" : `Sentences in ${names[pivot]}` }),
        ...order.slice(0, 200).map((j) => make("button", { type: "button", class: "pick", dir: "auto", text: texts[j], onclick: () => choose(j) })));
      return;
    }
    const head = sentence(i, make("button", { type: "button", text: "✕", "aria-label": "Clear the choice", onclick: () => put("selected", -1) }));
    head.classList.add("head");
    const columns = make("div", { class: "columns" }), same = translations(i);
    for (const m of shown) {
      const [low, high] = data.neighbours.range[m][layerIndex()], digits = high - low < 0.25 ? 3 : 2;
      const part = make("div", {}, make("h4", { text: `Nearest at layer ${data.layers[layerIndex()]}${M > 1 ? ", " + data.models[m] : ""} · cosine` }));
      for (const n of neighboursOf(i, m)) {
        const hit = same.includes(n.i), row = sentence(n.i, make("span", { class: "number", text: `${hit ? "✓ " : ""}${n.cosine.toFixed(digits)}`, title: hit ? "a translation of the chosen sentence" : "" }));
        row.classList.toggle("hit", hit); part.append(row);
      }
      columns.append(part);
    }
    if (same.length) {
      const ranked = same.some((j) => rankOf(i, j, 0)), part = make("div", {}, make("h4", { text: "Translations" + (ranked ? ` · rank ${languageOf[i] === pivot ? "within the language" : "among " + data.languages[pivot].code}${shown.length > 1 ? ", " + shown.map((m) => data.models[m]).join(" / ") : ""}` : "") }));
      for (const j of same) part.append(sentence(j, make("span", { class: "number", text: shown.map((m) => showRank(rankOf(i, j, m))).filter(Boolean).join(" / ") })));
      columns.append(part);
    }
    details.replaceChildren(head, columns);
  }

  // -- everything that follows from the state
  function drawLabels() {
    const l = layerIndex(), shown = shownModels();
    slider.value = l; slider.setAttribute("aria-valuetext", `layer ${data.layers[l]}`);
    now.textContent = `layer ${data.layers[l]} of ${data.layers[L - 1]}`;
    for (const panel of panels) {
      panel.head.style.color = M > 1 ? state.modelColors[panel.model] : "";
      panel.head.textContent = M > 1 ? data.models[panel.model] : `layer ${data.layers[l]}`;
      const times = magnification(panel.model, l);
      panel.note.textContent = `${Math.round(100 * data.shares[panel.model][l])} % of the variance${times > 1.05 ? ` · magnified ×${times.toFixed(1)}` : ""}`;
      panel.note.title = "How much of this layer's variance these two axes keep";
      panel.canvas.setAttribute("aria-label", `${S} sentences in ${data.languages.length} languages, ${data.models[panel.model]}, layer ${data.layers[l]}`);
    }
    for (const [names_, button] of modelButtons) button.setAttribute("aria-pressed", String(names_.length === shown.length && names_.every((n, k) => data.models.indexOf(n) === shown[k])));
  }
  function recolor() {
    const theme = model.get("theme"), dark = theme === "auto" ? pageIsDark() : theme === "dark";
    host.dataset.theme = dark ? "dark" : "light";
    const css = getComputedStyle(host);
    if (el.id === "explorer") document.documentElement.style.background = css.getPropertyValue("--paper"); // our own page
    state.colors = data.languages.map((language) => readable(language.color, dark, dark ? 4 : 1.7));
    state.modelColors = data.model_colors.map((color) => (M > 1 ? readable(color, dark, 4.5) : "var(--ink)"));
    for (const name of ["ink", "soft", "panel", "accent"]) state.ink[name] = css.getPropertyValue("--" + name).trim();
    state.hidden = hidden();
    fillLegend(); drawLabels(); drawDetails(); drawAll(); drawStrip();
  }
  const onLayer = () => { hideTips(); drawLabels(); drawStrip(); drawDetails(); animate(); };
  const onModels = () => { hideTips(); buildPanels(); drawLabels(); layout(); drawDetails(); animate(); };
  const onHidden = () => {
    state.hidden = hidden();
    for (const button of legend.children) button.setAttribute("aria-pressed", String(!state.hidden.has(button.dataset.language)));
    drawAll(); drawStrip();
  };
  const onSelected = () => { drawDetails(); drawAll(); drawStrip(); };
  const listeners = { "change:layer": onLayer, "change:models_shown": onModels, "change:hidden_languages": onHidden, "change:selected": onSelected, "change:theme": recolor };
  for (const [name, callback] of Object.entries(listeners)) model.on(name, callback);

  // -- keyboard; what is handled here must not also move the notebook's cursor
  function step(direction) {
    const list = order.filter(visible), at = list.indexOf(selected());
    if (list.length) put("selected", list[(at + direction + list.length + (at < 0 && direction < 0 ? 1 : 0)) % list.length]);
  }
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.composedPath()[0].tagName === "BUTTON";
    const actions = { ArrowLeft: () => goTo(layerIndex() - 1), ArrowRight: () => goTo(layerIndex() + 1), Home: () => goTo(0), End: () => goTo(L - 1),
      ArrowUp: () => step(-1), ArrowDown: () => step(1), Escape: () => put("selected", -1), 0: resetZoom,
      "+": () => zoomMiddle(1.5), "-": () => zoomMiddle(1 / 1.5) };
    if (!onButton) actions[" "] = () => (timer ? stop() : start());
    if (!Object.hasOwn(actions, event.key)) return;
    event.stopPropagation(); event.preventDefault();
    if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") { if (!/Up|Down/.test(event.key)) stop(); }
    actions[event.key]();
  });

  state.hidden = hidden();
  buildPanels(); recolor(); layout();
  const watch = new ResizeObserver(() => (root.clientWidth - 24 === state.width ? fit() : layout()));
  watch.observe(root);
  const scheme = window.matchMedia("(prefers-color-scheme: dark)"), pages = new MutationObserver(recolor);
  scheme.addEventListener("change", recolor);
  const attributes = { attributes: true, attributeFilter: ["class", "data-theme", "data-bs-theme", "data-jp-theme-light"] };
  for (const { body, documentElement } of pagesAround()) for (const node of [documentElement, body]) pages.observe(node, attributes);
  host.screenPositions = () => panels.map((p) => ({ model: data.models[p.model], x: [...p.sx], y: [...p.sy] })); // for scripts and tests
  performance.mark("alignx-explorer-ready");
  host.dataset.ready = "true"; host.dataset.settled = String(model.get("layer"));
  return () => {
    stop(); cancelAnimationFrame(frame); watch.disconnect(); pages.disconnect(); scheme.removeEventListener("change", recolor);
    for (const [name, callback] of Object.entries(listeners)) model.off(name, callback);
  };
}

export default { render };
