// The whole: state, controls, keyboard, and the two hosts' entry, `render`. `data` is read once; the other values of
// the model are two-way: layer, models_shown, hidden_languages, hidden_domains, selected, selection, search, color_by, trails, theme.

class Player { // goes through the layers, one a second
  constructor(view) {
    this.view = view; this.timer = 0;
    this.button = button("▶", () => this.toggle(), { class: "play", "aria-label": "Play through the layers" });
  }
  toggle() { this.timer ? this.stop() : this.start(); }
  stop() { clearInterval(this.timer); this.timer = 0; this.show("▶", "Play through the layers"); }
  start() {
    const { view } = this, last = view.L - 1;
    if (view.layerIndex() === last) view.goTo(0);
    this.timer = setInterval(() => (view.layerIndex() === last ? this.stop() : view.goTo(view.layerIndex() + 1)), 1000);
    this.show("❚❚", "Pause");
    if (view.layerIndex() < last) view.goTo(view.layerIndex() + 1);
  }
  show(text, label) { this.button.textContent = text; this.button.setAttribute("aria-label", label); }
}

class Explorer {
  constructor(model, el, data, decoded) {
    Object.assign(this, decoded, { widget: model, el, data, M: data.models.length, L: data.layers.length, S: decoded.texts.length, K: data.neighbours.count, pivot: data.pivot });
    this.members = new Map();
    this.group.forEach((g, i) => { if (g >= 0) this.members.has(g) ? this.members.get(g).push(i) : this.members.set(g, [i]); });
    this.order = [...Array(this.S).keys()].filter((i) => this.language[i] === this.pivot);
    const known = new Intl.DisplayNames(["en"], { type: "language" });
    this.names = data.languages.map(({ code }) => { try { return known.of(code); } catch { return code; } });
    this.state = { hover: -1, emphasis: -1, kept: -1, lines: false, fitted: false, mode: "move", zoom: 1, panX: 0, panY: 0, width: 0 };
    this.still = window.matchMedia("(prefers-reduced-motion: reduce)");
    this.visible = new Uint8Array(this.S); this.picked = new Set(this.get("selection")); this.panels = []; this.frame = 0; this.ink = {};
    this.coloring = new Coloring(this); this.legend = new Legend(this); this.search = new Search(this);
    this.player = new Player(this); this.strip = new Strip(this); this.details = new Details(this);
    this.build();
  }

  // -- what is asked of the state
  get(name) { return this.widget.get(name); }
  put(name, value) { this.widget.set(name, value); this.widget.save_changes(); }
  offset(m, l) { return (m * this.L + l) * this.S; }
  layerIndex() { return Math.max(0, this.data.layers.indexOf(this.get("layer"))); }
  shown() { return this.get("models_shown").map((name) => this.data.models.indexOf(name)).filter((m) => m >= 0); }
  chosen() { return this.get("selected"); }
  translations(i) { return this.group[i] < 0 ? [] : this.members.get(this.group[i]).filter((j) => j !== i); }
  hides(by, label) { return this.hidden[by]?.has(label) ?? false; }
  neighboursOf(i, m) {
    const at = this.offset(m, this.layerIndex()) + i, [low, high] = this.data.neighbours.range[m][this.layerIndex()];
    return Array.from({ length: this.K }, (_, r) => ({ i: this.neighbours[at * this.K + r], rank: r + 1,
      cosine: low + (this.cosines[r * this.M * this.L * this.S + at] / 127) * (high - low) }));
  }
  say(text) { this.live.textContent = text; }

  // -- what is done to it
  goTo(index) { this.put("layer", this.data.layers[Math.min(this.L - 1, Math.max(0, index))]); }
  focus() { this.root.focus({ preventScroll: true }); } // what was pressed may be gone; keys must still be heard
  choose(i) { this.put("selected", i === this.chosen() ? -1 : i); this.focus(); }
  pick(list, add) { this.put("selection", [...new Set(add ? [...this.picked, ...list] : list)].sort((a, b) => a - b)); this.focus(); }
  pickOne(i) { this.pick(this.picked.has(i) ? [...this.picked].filter((j) => j !== i) : [...this.picked, i]); }
  emphasize(c) { this.state.emphasis = c; this.drawAll(); this.strip.draw(); }
  setHover(i, panel) {
    if (this.state.hover === i) return;
    this.state.hover = i;
    this.hideTips();
    if (i >= 0) panel.showTip(i);
    if (panel) panel.canvas.classList.toggle("over", i >= 0);
    this.drawAll();
  }
  hideTips() { for (const p of this.panels) p.tip.hidden = true; }
  clear() { // one thing at a time
    if (this.chosen() >= 0) this.put("selected", -1);
    else if (this.picked.size) this.put("selection", []);
    else if (this.get("search")) this.put("search", "");
  }
  setMode(mode) {
    this.state.mode = mode;
    for (const [name, node] of this.modes) press(node, name === mode);
    this.root.classList.toggle("drawing", mode !== "move");
  }

  // -- controls
  build() {
    const { data } = this;
    this.host = make("div", { "data-lm-suppress-shortcuts": "true", class: "alignx-layer-explorer" });
    const shadow = this.host.attachShadow({ mode: "open" });
    this.root = make("div", { class: "root", tabindex: "0", role: "group", "aria-label": data.title + ". Arrow keys left and right change the layer, up and down choose a sentence, space plays, slash searches, S selects the chosen sentence, escape clears." });
    this.live = make("div", { class: "aside", "aria-live": "polite" });
    shadow.append(make("style", { text: CSS }), this.root);
    this.el.append(this.host);

    const bar = make("div", { class: "bar" }, make("span", { class: "title", text: data.title, dir: "auto" }));
    this.modelButtons = [];
    if (this.M > 1) {
      for (const name of data.models) this.modelButtons.push([[name], button(name, () => this.put("models_shown", [name]))]);
      this.modelButtons.push([data.models, button("side by side", () => this.put("models_shown", [...data.models]))]);
      bar.append(group("Model", ...this.modelButtons.map(([, node]) => node)));
    }
    this.slider = make("input", { type: "range", min: 0, max: this.L - 1, step: 1, "aria-label": "Layer", oninput: () => { this.player.stop(); this.goTo(+this.slider.value); } });
    this.now = make("span", { class: "now" });
    const steps = make("div", { class: "steps" }, this.player.button, this.slider, this.now);
    if (data.retrieval) steps.append(this.strip.box, make("div", { class: "caption", text: data.retrieval.caption }));
    this.panelBox = make("div", { class: "panels" });
    this.root.append(bar, this.tools(), this.legend.box, make("div", { class: "body" }, make("div", {}, this.panelBox, steps), this.details.box), this.live);
  }
  tools() {
    const icon = (d, dash) => make("svg", { width: 14, height: 14, viewBox: "0 0 14 14", "aria-hidden": "true" }, make("path", { d, fill: "none", stroke: "currentColor", "stroke-width": 1.4, "stroke-dasharray": dash, "stroke-linecap": "round", "stroke-linejoin": "round" }));
    const mode = (name, picture, title) => { const node = button(undefined, () => this.setMode(name), { "aria-label": title, title, "data-mode": name, "aria-pressed": String(name === this.state.mode) }); node.append(picture); return [name, node]; };
    this.modes = [
      mode("move", icon("M7 1V13M1 7H13M5 3L7 1L9 3M5 11L7 13L9 11M3 5L1 7L3 9M11 5L13 7L11 9"), "Point, choose and move"),
      mode("box", icon("M1.5 2.5H12.5V11.5H1.5Z", "2.4 2.2"), "Select a box (or hold Shift); Ctrl adds"),
      mode("lasso", icon("M4.5 9C2.5 8.4 1.2 7.2 1.2 5.6C1.2 3.2 3.8 1.4 7 1.4S12.8 3.2 12.8 5.6S10.2 9.8 7 9.8C6 9.8 5.2 9.7 4.5 9.4C3.4 8.9 3 9.8 3.6 10.6C4.2 11.4 3.8 12.4 2.8 12.8"), "Select with a lasso; Ctrl adds"),
    ];
    this.colorChoice = choice("Colour", this.coloring.choices, (value) => this.put("color_by", value));
    this.trailChoice = choice("Trails from the first model", [["off", "trails: none"], ["chosen", "trails: chosen"], ["all", "trails: all"]], (value) => this.put("trails", value));
    const long = (text) => make("span", { class: "long", text });
    const lines = button("join", () => { this.state.lines = !this.state.lines; press(lines, this.state.lines); this.drawAll(); }, { "aria-pressed": "false" });
    const fitted = button("fill", () => { this.state.fitted = !this.state.fitted; press(fitted, this.state.fitted); this.label(); this.animate(); },
      { "aria-pressed": "false", title: "Magnify each layer until it fills the frame. Off: all layers in one frame." });
    lines.append(long(" translations")); fitted.append(long(" the frame"));
    return make("div", { class: "tools" }, this.search.box, ...(this.coloring.choices.length > 1 ? [this.colorChoice] : []),
      group("Pointer", ...this.modes.map(([, node]) => node)),
      group("Zoom", button("−", () => this.zoomMiddle(1 / 1.5), { "aria-label": "Zoom out" }), button("+", () => this.zoomMiddle(1.5), { "aria-label": "Zoom in" }), button("⟲", () => this.resetZoom(), { "aria-label": "Reset the view", title: "Reset the view" })),
      ...(this.members.size ? [lines] : []), fitted, ...(this.M > 1 ? [this.trailChoice] : []));
  }

  // -- layout and frame
  buildPanels() {
    const shown = this.shown();
    while (this.panels.length > shown.length) this.panels.pop().box.remove();
    shown.forEach((m, slot) => {
      if (!this.panels[slot]) { this.panels[slot] = new Panel(this, m); this.panelBox.append(this.panels[slot].box); }
      this.panels[slot].model = m;
    });
  }
  layout() {
    const width = this.root.clientWidth - 24, count = this.panels.length, stacked = width < 560 && count > 1;
    if (width <= 0) return;
    this.state.width = width;
    this.root.classList.toggle("wide", width >= (count > 1 ? 1040 : 760));
    this.root.classList.toggle("narrow", width < 560);
    this.root.classList.toggle("stacked", stacked);
    for (const panel of this.panels) panel.resize(stacked);
    this.drawAll(); this.strip.draw(); this.fit();
  }
  fit() { // an iframe on the same page grows to its content
    try { if (window.frameElement?.dataset.alignx) window.frameElement.style.height = Math.ceil(document.documentElement.getBoundingClientRect().height) + "px"; } catch { /* another origin */ }
  }
  zoomAt(panel, px, py, factor) { // shared by all panels, so that they stay comparable
    const { state } = this, next = Math.min(25, Math.max(1, state.zoom * factor)), change = next / state.zoom;
    state.panX = (px - panel.width / 2) - change * (px - panel.width / 2 - state.panX);
    state.panY = (py - panel.height / 2) - change * (py - panel.height / 2 - state.panY);
    state.zoom = next;
    if (next === 1) state.panX = state.panY = 0;
    this.afterZoom();
  }
  zoomMiddle(factor) { const [first] = this.panels; this.zoomAt(first, first.width / 2, first.height / 2, factor); }
  resetZoom() { this.state.zoom = 1; this.state.panX = this.state.panY = 0; this.afterZoom(); }
  afterZoom() { for (const p of this.panels) p.canvas.classList.toggle("zoomed", this.state.zoom > 1); this.hideTips(); this.drawAll(); }

  // -- drawing
  drawAll() { for (const panel of this.panels) panel.draw(); }
  animate() { // to the layer (and the models) that are shown now
    cancelAnimationFrame(this.frame);
    const l = this.layerIndex(), moves = this.panels.map((p) => p.travel(p.model, l));
    const begin = performance.now(), length = this.still.matches ? 0 : 450;
    const tick = (time) => {
      const t = length ? Math.min(1, Math.max(0, (time - begin) / length)) : 1;
      for (const move of moves) move(t);
      this.drawAll();
      if (t < 1) this.frame = requestAnimationFrame(tick); else this.host.dataset.settled = String(this.get("layer"));
    };
    delete this.host.dataset.settled;
    this.frame = requestAnimationFrame(tick);
  }
  label() {
    const { data } = this, l = this.layerIndex(), shown = this.shown(), layer = `layer ${data.layers[l]}`;
    this.slider.value = l; this.slider.setAttribute("aria-valuetext", layer);
    this.now.textContent = `${layer} of ${data.layers[this.L - 1]}`;
    for (const panel of this.panels) {
      panel.head.style.color = this.M > 1 ? this.modelColors[panel.model] : "";
      panel.head.textContent = this.M > 1 ? data.models[panel.model] : layer;
      const times = panel.magnification(panel.model, l), share = data.shares?.[panel.model]?.[l];
      panel.note.textContent = [share == null ? data.projection : `${Math.round(100 * share)} % of the variance`, times > 1.05 ? `magnified ×${times.toFixed(1)}` : ""].filter(Boolean).join(" · ");
      panel.note.title = share == null ? "How the picture was made" : "How much of this layer's variance these two axes keep";
      panel.canvas.setAttribute("aria-label", `${this.S} sentences in ${data.languages.length} languages, ${data.models[panel.model]}, ${layer}, ${this.coloring.choices.find(([by]) => by === this.coloring.by)[1]}; ${this.picked.size} selected${this.search.on ? `, ${this.search.hits.length} found by the search` : ""}. The list of sentences follows.`);
    }
    for (const [names, node] of this.modelButtons) press(node, names.length === shown.length && names.every((n, k) => data.models.indexOf(n) === shown[k]));
    this.colorChoice.value = this.coloring.by; this.trailChoice.value = this.get("trails");
  }
  recolor() {
    const { host } = this, theme = this.get("theme"), dark = theme === "auto" ? pageIsDark() : theme === "dark";
    host.dataset.theme = dark ? "dark" : "light";
    const style = getComputedStyle(host);
    for (const name of ["ink", "soft", "panel", "accent"]) this.ink[name] = style.getPropertyValue("--" + name).trim();
    Object.assign(this, { paper: channels(this.ink.panel), inkRgb: channels(this.ink.ink), softRgb: channels(this.ink.soft), accentRgb: channels(this.ink.accent) });
    if (this.el.id === "explorer") document.documentElement.style.background = style.getPropertyValue("--paper"); // our own page
    this.coloring.recolor(dark);
    this.modelColors = this.data.model_colors.map((color) => (this.M > 1 ? css(readable(color, dark, 4.5)) : "var(--ink)"));
    for (const panel of this.panels) panel.recolor();
    this.legend.draw(); this.label(); this.details.draw(); this.drawAll(); this.strip.draw();
  }
  hide() { // who can be seen
    this.hidden = { language: new Set(this.get("hidden_languages")), domain: new Set(this.get("hidden_domains")) };
    for (let i = 0; i < this.S; i++) this.visible[i] = !this.hides("language", this.data.languages[this.language[i]].code) && !(this.domain && this.hides("domain", this.data.domains[this.domain[i]].name));
    this.search.update();
  }

  // -- everything that follows from a change
  changes() {
    const chosenInWords = () => { const i = this.chosen(); this.say(i < 0 ? "No sentence chosen" : `${this.names[this.language[i]]}: ${this.texts[i]}`); };
    return {
      layer: () => { this.hideTips(); this.label(); this.legend.update(); this.strip.draw(); this.details.draw(); this.animate(); if (!this.player.timer) this.say(this.strip.inWords()); },
      models_shown: () => { this.hideTips(); this.buildPanels(); this.label(); this.layout(); this.legend.update(); this.details.draw(); this.animate(); },
      hidden_languages: () => { this.hide(); this.legend.update(); this.drawAll(); this.strip.draw(); },
      hidden_domains: () => { this.hide(); this.legend.update(); this.drawAll(); },
      selected: () => { this.search.tell(); this.details.draw(); this.drawAll(); this.strip.draw(); chosenInWords(); },
      selection: () => { this.picked = new Set(this.get("selection")); this.details.draw(); this.label(); this.drawAll(); this.say(`${this.picked.size} selected`); },
      search: () => { this.search.update(); this.label(); this.drawAll(); },
      color_by: () => { this.state.kept = this.state.emphasis = -1; for (const p of this.panels) { p.middles = this.coloring.middles(p.model, this.layerIndex()); p.recolor(); } this.legend.draw(); this.label(); this.drawAll(); this.strip.draw(); },
      trails: () => { this.label(); this.drawAll(); },
      theme: () => this.recolor(),
    };
  }
  step(direction) {
    const list = this.order.filter((i) => this.visible[i]), at = list.indexOf(this.chosen());
    if (list.length) this.put("selected", list[(at + direction + list.length + (at < 0 && direction < 0 ? 1 : 0)) % list.length]);
  }
  key(event) { // what is handled here must not also move the notebook's cursor
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { tagName } = event.composedPath()[0], l = this.layerIndex();
    if (tagName === "SELECT" || tagName === "TEXTAREA") return event.stopPropagation();
    const go = (to) => () => { this.player.stop(); this.goTo(to); };
    const actions = { ArrowLeft: go(l - 1), ArrowRight: go(l + 1), Home: go(0), End: go(this.L - 1), ArrowUp: () => this.step(-1), ArrowDown: () => this.step(1),
      Escape: () => this.clear(), 0: () => this.resetZoom(), "+": () => this.zoomMiddle(1.5), "-": () => this.zoomMiddle(1 / 1.5), "/": () => this.search.field.focus(),
      s: () => { if (this.chosen() >= 0) this.pickOne(this.chosen()); } };
    if (tagName !== "BUTTON") actions[" "] = () => this.player.toggle();
    const name = event.key === "S" ? "s" : event.key;
    if (!Object.hasOwn(actions, name)) return;
    event.stopPropagation(); event.preventDefault();
    actions[name]();
  }
  open() { // draws, and listens until the function that it returns is called
    this.hide(); this.buildPanels(); this.recolor(); this.layout();
    const changes = Object.entries(this.changes()).map(([name, callback]) => ["change:" + name, callback]), recolor = () => this.recolor();
    for (const [event, callback] of changes) this.widget.on(event, callback);
    this.root.addEventListener("keydown", (event) => this.key(event));
    const watch = new ResizeObserver(() => (this.root.clientWidth - 24 === this.state.width ? this.fit() : this.layout()));
    watch.observe(this.root);
    const scheme = window.matchMedia("(prefers-color-scheme: dark)"), pages = new MutationObserver(recolor);
    scheme.addEventListener("change", recolor);
    const attributes = { attributes: true, attributeFilter: ["class", "data-theme", "data-bs-theme", "data-jp-theme-light"] };
    for (const { body, documentElement } of pagesAround()) for (const node of [documentElement, body]) pages.observe(node, attributes);
    this.host.screenPositions = () => this.panels.map((p) => ({ model: this.data.models[p.model], x: [...p.sx], y: [...p.sy] })); // for scripts and tests
    performance.mark("alignx-explorer-ready");
    this.host.dataset.ready = "true"; this.host.dataset.settled = String(this.get("layer"));
    return () => {
      this.player.stop(); cancelAnimationFrame(this.frame); watch.disconnect(); pages.disconnect(); scheme.removeEventListener("change", recolor);
      for (const [event, callback] of changes) this.widget.off(event, callback);
    };
  }
}

async function render({ model, el }) {
  const data = model.get("data");
  return new Explorer(model, el, data, await decode(data)).open();
}

export default { render };
