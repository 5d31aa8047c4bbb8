// What colours and shapes stand for: the language, the domain, or whether the translation was found at this layer.

const FOUND = [
  { label: "found both ways", hex: "#0072B2", shape: 0, title: "The translation ranks first from the pivot and towards it" },
  { label: "found one way", hex: "#E69F00", shape: 3, title: "The translation ranks first from the pivot or towards it, but not both" },
  { label: "not found", hex: "#D55E00", shape: 2, title: "Another sentence is nearer than the translation, in both directions" },
  { label: "not asked", hex: "#888888", shape: 1, title: "A sentence of the pivot itself, or one without a translation in the pivot" },
];

class Coloring {
  constructor(view) {
    this.view = view;
    const { data } = view;
    this.kinds = {
      language: data.languages.map(({ code, color }, l) => ({ label: code, title: view.names[l], hex: color, shape: l % SHAPES.length })),
      domain: (data.domains ?? []).map(({ name, color }, d) => ({ label: name, text: name || "no domain", title: name || "no domain", hex: color, shape: d % SHAPES.length })),
      found: FOUND.map((one) => ({ ...one })),
    };
    this.choices = [["language", "colour: language"]];
    if (view.domain) this.choices.push(["domain", "colour: domain"]);
    if (view.ranks.some((rank) => rank > 0)) this.choices.push(["found", "colour: found or not"]);
    this.found = new Map();
  }
  get by() { return this.view.get("color_by"); }
  get entries() { return this.kinds[this.by]; }
  recolor(dark) { for (const list of Object.values(this.kinds)) for (const one of list) { one.rgb = readable(one.hex, dark, dark ? 4 : 1.7); one.css = css(one.rgb); } }

  // The entry of each sentence, in the picture of model m at layer l.
  classes(m, l) {
    const { view } = this;
    if (this.by === "language") return view.language;
    if (this.by === "domain") return view.domain;
    const key = m * view.L + l;
    if (!this.found.has(key)) {
      const at = view.offset(m, l), plane = view.M * view.L * view.S;
      this.found.set(key, Uint16Array.from(view.language, (_, i) => {
        const from = view.ranks[at + i], to = view.ranks[plane + at + i];
        return from === 0 ? 3 : 2 - (from === 1) - (to === 1);
      }));
    }
    return this.found.get(key);
  }
  // The middle of each language or domain, where its name is written; moves with its points.
  middles(m, l) {
    const { view } = this, at = view.offset(m, l), classes = this.classes(m, l);
    const lists = this.entries.map(() => [[], []]);
    for (let i = 0; i < view.S; i++) { lists[classes[i]][0].push(view.x[at + i]); lists[classes[i]][1].push(view.y[at + i]); }
    return lists.map((axes) => axes.map((values) => Int16Array.from(values).sort()[values.length >> 1] ?? NaN));
  }
}

class Legend {
  constructor(view) {
    this.view = view;
    this.marks = make("span", { class: "marks", role: "group" });
    this.others = make("span", { class: "marks" });
    this.box = make("div", { class: "legend" }, this.marks, this.others);
  }
  draw() {
    const { view } = this, { coloring } = view, by = coloring.by;
    this.marks.setAttribute("aria-label", { language: "Languages", domain: "Domains", found: "Was the translation found?" }[by]);
    this.marks.replaceChildren(...coloring.entries.map((one, c) => {
      const node = button(undefined, () => this.toggle(c), { title: by === "found" ? `${one.title}; press to keep it in view` : `${one.title}: show or hide`,
        onpointerenter: () => view.emphasize(c), onpointerleave: () => view.emphasize(-1), onfocus: () => view.emphasize(c), onblur: () => view.emphasize(-1) });
      node.dataset[by] = one.label;
      node.append(chip(one.shape, one.css), make("span", { class: "name", text: one.text ?? one.label, dir: "auto" }));
      if (by === "found") node.append(make("span", { class: "number" }));
      return node;
    }));
    this.update();
  }
  update() { // pressed or not, and how many
    const { view } = this, { coloring } = view, by = coloring.by, counts = new Map();
    if (by === "found") for (const m of view.shown()) {
      const each = new Array(FOUND.length).fill(0), classes = coloring.classes(m, view.layerIndex());
      for (let i = 0; i < view.S; i++) if (view.visible[i]) each[classes[i]]++;
      each.forEach((n, c) => counts.set(c, [...(counts.get(c) ?? []), n]));
    }
    [...this.marks.children].forEach((node, c) => {
      press(node, by === "found" ? view.state.kept === c : !view.hides(by, coloring.entries[c].label));
      if (by === "found") node.lastChild.textContent = counts.get(c).join(" / ");
    });
    this.box.classList.toggle("keeping", by === "found");
    const hiding = [["language", "hidden_languages"], ["domain", "hidden_domains"]].filter(([kind]) => kind !== by && view.hidden[kind].size);
    this.others.replaceChildren(...hiding.map(([kind, name]) => { // what is out of sight must not be out of mind
      const n = view.hidden[kind].size;
      return button(`${n} ${kind}${n > 1 ? "s" : ""} hidden · show`, () => view.put(name, []));
    }));
  }
  toggle(c) {
    const { view } = this, by = view.coloring.by;
    if (by === "found") { view.state.kept = view.state.kept === c ? -1 : c; this.update(); return view.drawAll(); }
    const name = { language: "hidden_languages", domain: "hidden_domains" }[by], label = view.coloring.entries[c].label, now = new Set(view.get(name));
    now.has(label) ? now.delete(label) : now.add(label);
    view.put(name, [...now]);
  }
}
