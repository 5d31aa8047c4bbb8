// Retrieval per layer beneath the picture, with the current layer marked; a press on it goes to that layer.

const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const EDGE = { left: 48, right: 112, height: 92, top: 8, low: 74, inset: 8 };

class Strip {
  constructor(view) {
    this.view = view;
    this.box = make("svg", { class: "strip", height: EDGE.height, role: "img" });
    const pick = (event) => {
      const box = this.box.getBoundingClientRect(), left = EDGE.left + EDGE.inset, span = box.width - EDGE.left - EDGE.right - 2 * EDGE.inset;
      view.player.stop(); view.goTo(Math.round(((event.clientX - box.left - left) / span) * (view.L - 1)));
    };
    this.box.addEventListener("pointerdown", (event) => { this.box.setPointerCapture(event.pointerId); pick(event); });
    this.box.addEventListener("pointermove", (event) => { if (event.buttons) pick(event); });
  }
  draw() {
    const { view } = this, { data, L } = view;
    if (!data.retrieval) return;
    const { left, right, height, top, low, inset } = EDGE, full = this.width = this.box.clientWidth || this.width || 400; // 0 while the page hides it
    const highest = Math.max(...data.retrieval.models.flatMap((m) => [...m.mean, ...Object.values(m.languages).flat()])), limit = [0.1, 0.2, 0.5].find((v) => v >= highest) ?? 1;
    const X = (l) => left + inset + (L > 1 ? l / (L - 1) : 0.5) * (full - left - right - 2 * inset), Y = (v) => low - (v / limit) * (low - top);
    const current = view.layerIndex(), shown = view.shown(), parts = [];
    for (const v of [0, limit / 2, limit]) parts.push(make("line", { x1: left, x2: full - right, y1: Y(v), y2: Y(v), stroke: "var(--line)" }),
      make("text", { x: left - 7, y: Y(v) + 4, "text-anchor": "end", text: String(v).replace(/^0\./, ".") }));
    const every = Math.ceil(L / Math.max(2, (full - left - right) / 26));
    data.layers.forEach((name, l) => { if (l % every === 0) parts.push(make("text", { x: X(l), y: height - 3, "text-anchor": "middle", text: name })); });
    parts.push(make("line", { x1: X(current), x2: X(current), y1: top - 4, y2: low, stroke: "var(--accent)", "stroke-width": 1.5 }));
    const d = (values) => values.map((v, l) => (v === null ? "" : `${l && values[l - 1] !== null ? "L" : "M"}${X(l).toFixed(1)} ${Y(v).toFixed(1)}`)).join("");
    const focus = view.coloring.by === "language" && view.state.emphasis >= 0 ? view.state.emphasis : view.chosen() >= 0 ? view.language[view.chosen()] : -1;
    for (const m of shown) {
      const curves = data.retrieval.models[m].languages;
      data.languages.forEach(({ code }, l) => {
        if (!curves[code] || view.hides("language", code) || (shown.length > 1 && focus !== l)) return;
        parts.push(make("path", { d: d(curves[code]), fill: "none", stroke: view.coloring.kinds.language[l].css, "stroke-width": focus === l ? 2.2 : 1, "stroke-opacity": focus < 0 ? 0.7 : focus === l ? 1 : 0.25, "stroke-dasharray": shown.length > 1 ? DASHES[m % 4] : "" }));
      });
    }
    const ends = [];
    for (const m of shown) {
      const mean = data.retrieval.models[m].mean, v = mean[current];
      parts.push(make("path", { d: d(mean), fill: "none", stroke: view.modelColors[m], "stroke-width": 2.4, "stroke-dasharray": DASHES[m % 4] }));
      if (v === null) continue;
      parts.push(make("circle", { cx: X(current), cy: Y(v), r: 3.5, fill: view.modelColors[m] }));
      ends.push([v, view.M > 1 ? data.models[m] : "mean", Y(mean[L - 1] ?? v) + 4, view.M > 1 ? view.modelColors[m] : "var(--soft)"]);
    }
    ends.sort((a, b) => a[2] - b[2]).forEach((e, i) => { if (i) e[2] = Math.max(e[2], ends[i - 1][2] + 13); });
    const over = Math.max(0, (ends.at(-1)?.[2] ?? 0) - (height - 14));
    for (const [v, name, y, color] of ends) {
      parts.push(make("text", { x: full - right + 8, y: y - over, style: `fill: ${color}` }, `${name.length > 11 ? name.slice(0, 10) + "…" : name} `,
        make("tspan", { style: "fill: var(--ink); font-weight: 650", text: v.toFixed(2) })));
    }
    this.box.replaceChildren(...parts);
    this.box.setAttribute("aria-label", `${data.retrieval.caption} ${this.inWords()}`);
  }
  inWords() {
    const { view } = this, { data } = view, l = view.layerIndex();
    return `At layer ${data.layers[l]}: ` + view.shown().map((m) => `${data.models[m]} ${data.retrieval?.models[m].mean[l]?.toFixed(2) ?? "unknown"}`).join(", ");
  }
}
