// The row inspector: one encoded row at a time, token by token. `data` is read once; `row`, `shown`, `token` and
// `theme` are two-way. Text comes from outside: it only ever enters the page as text, never as markup.

const JOINED = /[\p{Script=Arabic}\p{Script=Syriac}\p{Script=Devanagari}\p{Script=Bengali}\p{Script=Gurmukhi}\p{Script=Gujarati}\p{Script=Oriya}\p{Script=Tamil}\p{Script=Telugu}\p{Script=Kannada}\p{Script=Malayalam}\p{Script=Sinhala}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}\p{Script=Mongolian}\p{M}]/u;
const STRONG = /\p{L}/u, RTL = /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;
const INVISIBLE = /^[\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]+$/u;
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufffe\uffff]/u;
const BLANK = { " ": "·", "\n": "⏎", "\t": "⇥", "\u00a0": "⍽", "\u3000": "⬚" };
const SPANS = ["plain", "source", "target"];

function direction(text, otherwise) { // by the first letter, as Unicode has it for paragraphs
  const first = STRONG.exec(text);
  return first ? (RTL.test(first[0]) ? "rtl" : "ltr") : otherwise;
}
function glyphs(text) { // what a token shows: white space and what would be invisible get a sign
  const nodes = [], codes = INVISIBLE.test(text);
  let run = "";
  for (const char of text) {
    const code = codes || CONTROL.test(char);
    if (!code && !(char in BLANK)) { run += char; continue; }
    if (run) nodes.push(run);
    run = "";
    nodes.push(code ? make("i", { class: "code", text: "U+" + char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") }) : make("i", { text: BLANK[char] }));
  }
  return run ? [...nodes, run] : nodes;
}

class Rows {
  constructor(widget, el, data, rows) {
    Object.assign(this, { widget, el, data, rows, at: -1 });
    this.build();
  }
  get(name) { return this.widget.get(name); }
  put(name, value) { this.widget.set(name, value); this.widget.save_changes(); }
  list() { return this.data.filters.find((one) => one.name === this.get("shown")).rows; }
  place() { return Math.max(0, this.list().indexOf(this.get("row"))); }
  goTo(place) { const list = this.list(); this.put("row", list[Math.min(list.length - 1, Math.max(0, place))]); }
  jump(number) { // to the row of this number, or the nearest that is shown
    const distance = (i) => Math.abs(this.rows[i].number - number);
    if (Number.isFinite(number)) this.put("row", this.list().reduce((best, i) => (distance(i) < distance(best) ? i : best)));
  }
  choose(token) { this.put("token", token === this.get("token") ? -1 : token); }
  stepToken(by) {
    const count = this.row().ids.length, now = this.get("token");
    if (count) this.put("token", now < 0 ? (by > 0 ? 0 : count - 1) : Math.min(count - 1, Math.max(0, now + by)));
  }
  row() { return this.rows[this.get("row")]; }

  build() {
    const { data } = this;
    this.host = make("div", { "data-lm-suppress-shortcuts": "true", class: "alignx-rows" });
    this.filter = choice("Which rows", data.filters.map(({ name, rows }) => [name, `${name} (${rows.length})`]), (name) => this.put("shown", name));
    this.back = button("◀", () => this.goTo(this.place() - 1), { "aria-label": "Previous row" });
    this.next = button("▶", () => this.goTo(this.place() + 1), { "aria-label": "Next row" });
    this.slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Row", oninput: () => this.goTo(+this.slider.value) });
    this.number = make("input", { type: "number", min: 0, "aria-label": "Row number", onchange: () => this.jump(this.number.valueAsNumber) });
    this.of = make("span");
    this.head = make("div", { class: "head" });
    this.counts = make("div", { class: "counts" });
    this.strip = make("svg", { class: "strip", preserveAspectRatio: "none", "aria-hidden": "true", onclick: (event) => {
      const box = this.strip.getBoundingClientRect(), count = this.row().ids.length;
      this.choose(Math.min(count - 1, Math.floor(((event.clientX - box.left) / box.width) * count)));
    } });
    this.tokens = make("div", { class: "tokens", role: "region", "aria-label": "Tokens", tabindex: "0" });
    this.note = make("div", { class: "note" });
    this.sentences = make("dl", { class: "sentences" });
    this.live = make("div", { class: "aside", "aria-live": "polite" });
    this.root = make("div", { class: "root", tabindex: "0", role: "group", "aria-label": data.title + ". Left and right change the row, up and down step through its tokens, escape lets go." },
      make("div", { class: "bar" }, make("span", { class: "title", text: data.title }), this.filter),
      make("div", { class: "steps" }, this.back, this.next, this.slider, make("label", {}, "row", this.number, this.of)),
      this.head, this.counts, this.strip, this.tokens, this.note, this.legend(), this.sentences, this.live);
    this.host.attachShadow({ mode: "open" }).append(make("style", { text: CSS }), this.root);
    this.el.append(this.host);
    this.tokens.addEventListener("click", (event) => { const node = event.target.closest(".token"); if (node) this.choose(+node.dataset.token); });
    this.tokens.addEventListener("pointerover", (event) => { const node = event.target.closest(".token"); if (node) this.describe(+node.dataset.token); });
    this.tokens.addEventListener("pointerleave", () => this.describe(this.get("token")));
  }
  legend() {
    const sample = (outer, inner, text, words) => make("span", {}, make("span", { class: outer }, make("span", { class: "token " + inner, text })), " " + words);
    return make("div", { class: "legend" }, sample("source", "loss", "source", "solid line"), sample("target", "loss", "target", "dashed line"),
      sample("plain", "loss", "filled", "carries the loss"), sample("plain", "", "empty", "carries none"), sample("plain", "special", "</s>", "special token"), sample("plain", "byte", "E4", "byte of a character whose box follows"));
  }

  // -- one row
  draw() {
    const row = this.row(), list = this.list(), place = this.place(), count = row.ids.length;
    const tally = (test) => row.ids.reduce((sum, _, i) => sum + test(i), 0), real = tally((i) => !row.padding[i]), loss = tally((i) => row.loss[i]);
    this.back.disabled = place === 0; this.next.disabled = place === list.length - 1;
    this.slider.max = list.length - 1; this.slider.value = place; this.slider.setAttribute("aria-valuetext", `row ${row.number}, ${place + 1} of ${list.length}`);
    this.number.value = row.number; this.of.textContent = `${place + 1} of ${list.length}`;
    this.filter.value = this.get("shown");
    const name = (code) => (code === null ? "unknown" : this.data.names[code] ?? code);
    const pair = row.languages ? row.languages.map(name).join(" → ") : "no translation";
    this.head.replaceChildren(make("span", { class: "languages", text: pair }), ...row.remarks.map((text) => make("span", { class: "badge", text })));
    const source = tally((i) => row.spans[i] === 1), target = tally((i) => row.spans[i] === 2);
    const words = [`${real} tokens`, `${source} source`, `${target} target`, `${real - source - target} around them`, `loss on ${loss} (${Math.round((100 * loss) / Math.max(1, real))} %)`];
    if (real < count) words.push(`${count - real} padding`);
    this.counts.textContent = words.join(" · ");
    this.drawStrip(row); this.drawTokens(row);
    const said = (span) => row.texts.filter((_, i) => row.spans[i] === span).join("").trim();
    const sentence = (span, k) => (said(span) ? [make("dt", { text: `${SPANS[span]}${row.languages ? ", " + name(row.languages[k]) : ""}` }),
      make("dd", { dir: direction(said(span), "ltr"), lang: row.languages?.[k] ?? undefined, text: said(span) })] : []);
    this.sentences.replaceChildren(...sentence(1, 0), ...sentence(2, 1));
    this.sentences.hidden = !this.sentences.children.length;
    this.mark();
    this.live.textContent = `Row ${row.number}, ${pair}, ${words.join(", ")}. ${row.remarks.join(", ")}`;
  }
  drawStrip(row) {
    const count = Math.max(1, row.ids.length), parts = [];
    const kind = (i) => (row.padding[i] ? "padding" : SPANS[row.spans[i]]);
    for (let i = 0; i < row.ids.length;) {
      let end = i + 1;
      while (end < row.ids.length && kind(end) === kind(i) && row.loss[end] === row.loss[i]) end++;
      parts.push(make("rect", { class: kind(i), x: i, y: row.loss[i] ? 0 : 13, width: end - i, height: row.loss[i] ? 20 : 7 }));
      i = end;
    }
    this.here = make("rect", { class: "here", y: 1, width: 1, height: 18, x: -9 });
    this.strip.setAttribute("viewBox", `0 0 ${count} 20`);
    this.strip.replaceChildren(...parts, this.here);
  }
  drawTokens(row) {
    const paragraphs = [];
    for (let i = 0, fresh = true; i < row.ids.length; i++) {
      if (fresh) paragraphs.push([]);
      paragraphs.at(-1).push(i);
      fresh = row.texts[i].includes("\n") && !row.padding[i];
    }
    this.nodes = [];
    this.tokens.replaceChildren(...paragraphs.map((some) => this.paragraph(row, some)));
    if (row.cut) (this.tokens.lastChild ?? this.tokens).append(make("span", { class: "cut", dir: "ltr", text: "✂ cut here" }));
    this.tokens.scrollTop = 0;
  }
  paragraph(row, some) {
    const text = (list) => list.filter((i) => !row.special[i]).map((i) => row.texts[i]).join("");
    const node = make("p", { dir: direction(text(some), "ltr") }), runs = [];
    for (const i of some) {
      const last = runs.at(-1);
      if (last && row.spans[last[0]] === row.spans[i] && row.padding[last[0]] === row.padding[i]) last.push(i); else runs.push([i]);
    }
    for (const run of runs) {
      const span = row.spans[run[0]];
      if (span && row.spans[run[0] - 1] !== span) node.append(make("span", { class: "tag", dir: "ltr", text: SPANS[span] }));
      const children = row.padding[run[0]] ? [this.padding(run)] : run.map((i) => this.token(row, i));
      node.append(make("bdi", { class: SPANS[span], dir: direction(text(run), node.dir), lang: row.languages && span ? row.languages[span - 1] ?? undefined : undefined }, ...children));
    }
    return node;
  }
  padding(run) {
    const node = make("span", { class: "token padding", "data-token": run[0] }, make("span", { text: `${run.length} × padding` }));
    for (const i of run) this.nodes[i] = node;
    return node;
  }
  token(row, i) {
    const text = row.special[i] ? row.pieces[i] : row.texts[i], bytes = text === "" ? row.bytes[i] : null;
    const kinds = ["token", row.loss[i] && "loss", row.special[i] && "special", bytes !== null && "byte", JOINED.test(text) && "joined"].filter(Boolean);
    return (this.nodes[i] = make("span", { class: kinds.join(" "), "data-token": i, dir: row.special[i] || bytes !== null ? "ltr" : undefined }, ...(bytes !== null ? [bytes || row.pieces[i] || "∅"] : row.special[i] ? [text] : glyphs(text))));
  }

  // -- one token
  words(i) {
    const row = this.row();
    const what = row.padding[i] ? "padding" : row.special[i] ? "special token" : row.spans[i] ? SPANS[row.spans[i]] : "around the sentences";
    return { place: `token ${i}`, id: `id ${row.ids[i]}`, piece: row.pieces[i], rest: `${what} · ${row.loss[i] ? "carries the loss" : "carries no loss"}${row.texts[i] === "" && !row.special[i] && row.bytes[i] ? ` · byte ${row.bytes[i]} of a character that ends in a later token` : ""}` };
  }
  describe(i) {
    if (i < 0 || i >= this.row().ids.length) return this.note.replaceChildren(make("span", { text: "Point at a token, click it, or press up and down, and its number stands here." }));
    const { place, id, piece, rest } = this.words(i);
    this.note.replaceChildren(make("b", { text: place }), ` · ${id} · in the vocabulary `, make("code", { text: piece }), ` · ${rest}`);
  }
  mark() {
    const i = this.get("token");
    this.marked?.classList.remove("here");
    this.marked = this.nodes[i];
    this.marked?.classList.add("here");
    this.here.setAttribute("x", i < 0 ? -9 : i);
    if (this.marked) { // within the box of tokens only: the page around must not jump
      const box = this.tokens.getBoundingClientRect(), own = this.marked.getBoundingClientRect();
      if (own.top < box.top) this.tokens.scrollTop -= box.top - own.top + 8; else if (own.bottom > box.bottom) this.tokens.scrollTop += own.bottom - box.bottom + 8;
    }
    this.describe(i);
    if (i >= 0) { const { place, id, piece, rest } = this.words(i); this.live.textContent = `${place}: ${this.row().texts[i] || piece}, ${id}, ${rest}`; }
  }

  // -- changes
  key(event) { // what is handled here must not also move the notebook's cursor
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { tagName, type } = event.composedPath()[0];
    if (tagName === "SELECT" || type === "number") return event.stopPropagation();
    const actions = { ArrowLeft: () => this.goTo(this.place() - 1), ArrowRight: () => this.goTo(this.place() + 1), Home: () => this.goTo(0), End: () => this.goTo(this.list().length - 1),
      ArrowUp: () => this.stepToken(-1), ArrowDown: () => this.stepToken(1), Escape: () => this.put("token", -1) };
    if (!Object.hasOwn(actions, event.key)) return;
    event.stopPropagation(); event.preventDefault();
    actions[event.key]();
  }
  recolor() {
    const theme = this.get("theme"), dark = theme === "auto" ? pageIsDark() : theme === "dark";
    this.host.dataset.theme = dark ? "dark" : "light";
    if (this.el.id === "explorer") document.documentElement.style.background = getComputedStyle(this.host).getPropertyValue("--paper"); // our own page
  }
  fit() { // an iframe on the same page grows to its content
    this.root.classList.toggle("narrow", this.root.clientWidth < 560);
    try { if (window.frameElement?.dataset.alignx) window.frameElement.style.height = Math.ceil(document.documentElement.getBoundingClientRect().height) + "px"; } catch { /* another origin */ }
  }
  open() { // draws, and listens until the function that it returns is called
    this.recolor(); this.draw(); this.fit();
    const recolor = () => this.recolor();
    const changes = { "change:theme": recolor, "change:token": () => this.mark(), "change:row": () => { if (this.get("token") >= 0) this.put("token", -1); this.draw(); },
      "change:shown": () => { if (this.list().includes(this.get("row"))) this.draw(); else this.goTo(0); } };
    for (const [event, callback] of Object.entries(changes)) this.widget.on(event, callback);
    this.root.addEventListener("keydown", (event) => this.key(event));
    const watch = new ResizeObserver(() => this.fit()), scheme = window.matchMedia("(prefers-color-scheme: dark)"), pages = new MutationObserver(recolor);
    watch.observe(this.root); scheme.addEventListener("change", recolor);
    const attributes = { attributes: true, attributeFilter: ["class", "data-theme", "data-bs-theme", "data-jp-theme-light"] };
    for (const { body, documentElement } of pagesAround()) for (const node of [documentElement, body]) pages.observe(node, attributes);
    this.host.dataset.ready = "true";
    return () => {
      watch.disconnect(); pages.disconnect(); scheme.removeEventListener("change", recolor);
      for (const [event, callback] of Object.entries(changes)) this.widget.off(event, callback);
    };
  }
}

async function render({ model, el }) {
  const data = model.get("data"), rows = JSON.parse(new TextDecoder().decode(await inflate(data.rows)));
  return new Rows(model, el, data, rows).open();
}

export default { render };
