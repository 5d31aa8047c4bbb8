// The chosen sentence and the selected ones, in words and numbers.

const LISTED = 200;

class Details {
  constructor(view) {
    this.view = view;
    this.inner = make("div", {});
    this.box = make("div", { class: "details", "aria-label": "Chosen and selected sentences", role: "region", tabindex: "0" }, this.inner);
  }
  sentence(i, ...more) {
    const { view } = this, { label, title, shape, css } = view.coloring.kinds.language[view.language[i]];
    const code = make("span", { class: "code", title }, chip(shape, css), make("span", { text: label }));
    return make("div", { class: "row" }, code, make("span", { class: "text", dir: "auto", title: view.texts[i], text: view.texts[i] }), ...more);
  }
  pick(i) { // a row that chooses its sentence
    return button(this.view.texts[i], () => this.view.choose(i), { class: "pick", dir: "auto", title: this.view.texts[i] });
  }
  // Rank of a translation among its language's sentences; known from and to the pivot.
  rank(from, to, m) {
    const { view } = this, at = view.offset(m, view.layerIndex());
    if (view.language[from] === view.pivot) return view.ranks[at + to];
    return view.language[to] === view.pivot ? view.ranks[view.M * view.L * view.S + at + from] : 0;
  }
  draw() {
    const { view } = this, parts = [];
    if (view.chosen() >= 0) parts.push(...this.chosen(view.chosen()));
    if (view.picked.size) parts.push(...this.selection());
    this.inner.replaceChildren(...(parts.length ? parts : this.help()));
  }
  help() {
    const { view } = this, { K, order } = view, near = K === 1 ? "its nearest neighbour" : `its ${K} nearest neighbours`;
    return [
      make("p", { text: `Point at a sentence for its translations; click it for ${near}, measured in all ${view.data.width} dimensions of the layer.` }),
      make("p", { class: "keys", text: ["← → layer", "space plays", "↑ ↓ sentence", "/ search", "Shift and drag selects", "S adds the chosen one", "+ − zoom", "Esc clears"].map((key) => key.replace(/ /g, "\u00a0")).join(" · ") }),
      make("h4", { text: order.length === view.S ? "Sentences" : `Sentences in ${view.names[view.pivot]}` }),
      ...order.slice(0, LISTED).map((i) => this.pick(i)), ...this.rest(order),
    ];
  }
  chosen(i) {
    const { view } = this, { data } = view, shown = view.shown(), l = view.layerIndex(), same = view.translations(i), columns = make("div", { class: "columns" });
    const kept = view.picked.has(i);
    const head = this.sentence(i, make("span", { class: "buttons" },
      button(kept ? "−" : "+", () => view.pickOne(i), { "aria-label": kept ? "Take out of the selection" : "Add to the selection", title: kept ? "Take out of the selection" : "Add to the selection" }),
      button("✕", () => view.choose(i), { "aria-label": "Clear the choice" })));
    head.classList.add("head");
    for (const m of shown) {
      const [low, high] = data.neighbours.range[m][l], digits = high - low < 0.25 ? 3 : 2;
      const part = make("div", {}, make("h4", { text: `Nearest at layer ${data.layers[l]}${view.M > 1 ? ", " + data.models[m] : ""} · cosine` }));
      for (const n of view.neighboursOf(i, m)) {
        const hit = same.includes(n.i), row = this.sentence(n.i, make("span", { class: "number", text: `${hit ? "✓ " : ""}${n.cosine.toFixed(digits)}`, title: hit ? "a translation of the chosen sentence" : "" }));
        row.classList.toggle("hit", hit); part.append(row);
      }
      columns.append(part);
    }
    if (same.length) {
      const ranked = same.some((j) => this.rank(i, j, 0)), models = shown.length > 1 ? ", " + shown.map((m) => data.models[m]).join(" / ") : "";
      const part = make("div", {}, make("h4", { text: "Translations" + (ranked ? ` · rank ${view.language[i] === view.pivot ? "within the language" : "among " + data.languages[view.pivot].code}${models}` : "") }));
      for (const j of same) part.append(this.sentence(j, make("span", { class: "number", text: shown.map((m) => showRank(this.rank(i, j, m))).filter(Boolean).join(" / ") })));
      columns.append(part);
    }
    const origin = [view.ids && view.group[i] >= 0 ? view.ids[view.group[i]] : "", view.domain ? data.domains[view.domain[i]].name : ""].filter((part) => part !== "");
    return [head, ...(origin.length ? [make("p", { class: "origin", dir: "auto", text: origin.join(" · ") })] : []), columns];
  }
  selection() {
    const { view } = this, all = [...view.picked], counts = new Map();
    for (const i of all) counts.set(view.language[i], (counts.get(view.language[i]) ?? 0) + 1);
    const copy = button("copy as TSV", () => this.copy(copy), { title: "Copy the selected sentences with their ranks (beyond 32: within 5 %) and places at this layer, to paste into a spreadsheet" });
    const head = make("div", { class: "selection" }, make("h4", { text: `${all.length} selected` }), copy, button("clear", () => view.pick([])));
    const languages = make("p", { text: [...counts].sort((a, b) => a[0] - b[0]).map(([l, n]) => `${view.data.languages[l].code} ${n}`).join(" · ") });
    const rows = all.slice(0, LISTED).map((i) => { const row = this.sentence(i); row.querySelector(".text").replaceWith(this.pick(i)); return row; });
    return [head, languages, ...rows, ...this.rest(all)];
  }
  rest(list) { return list.length > LISTED ? [make("p", { text: `… and ${list.length - LISTED} more` })] : []; }
  tsv() { // the table that explorer.selected_df() gives in Python
    const { view } = this, { data } = view, l = view.layerIndex(), plane = view.M * view.L * view.S, plain = (value) => String(value ?? "").replace(/[\t\r\n]+/g, " ");
    const names = view.shown().flatMap((m) => ["rank_from_pivot", "rank_to_pivot", "x", "y"].map((name) => `${data.models[m]}_${name}`));
    const rows = [...view.picked].map((i) => [i, view.ids && view.group[i] >= 0 ? view.ids[view.group[i]] : "", data.languages[view.language[i]].code, view.domain ? data.domains[view.domain[i]].name : "", view.texts[i], data.layers[l],
      ...view.shown().flatMap((m) => { const at = view.offset(m, l) + i; return [rankValue(view.ranks[at]) || "", rankValue(view.ranks[plane + at]) || "", (view.x[at] * data.unit).toFixed(4), (view.y[at] * data.unit).toFixed(4)]; })]);
    return [["sentence", "id", "language", "domain", "text", "layer", ...names], ...rows].map((row) => row.map(plain).join("\t")).join("\n");
  }
  async copy(node) {
    const text = this.tsv();
    try { await navigator.clipboard.writeText(text); this.view.say(`${this.view.picked.size} rows copied`); node.textContent = "copied"; } catch { // not allowed here: to be copied by hand
      const field = make("textarea", { class: "tsv", readonly: "", rows: 6, "aria-label": "The selected sentences as tab-separated values" });
      field.value = text;
      node.closest(".selection").after(field); field.focus(); field.select(); node.remove();
    }
  }
}
