// Finding sentences by their text. Case, width, ligatures and accents make no difference ("naive" finds "Naïve", "ｅ" is
// "e"), vowel signs of Indic and Thai script do. "sw: haki" looks in Swahili only, "sw:" finds all of it.

const ACCENTS = /[\u0300-\u036f\u0591-\u05c7\u0640\u064b-\u065f\u0670]/g;
const fold = (text) => text.normalize("NFKD").toLowerCase().replace(ACCENTS, "").normalize("NFC").replace(/ß/g, "ss").replace(/ı/g, "i");

class Search {
  constructor(view) {
    this.view = view;
    this.hits = [];
    this.marked = new Uint8Array(view.S);
    this.field = make("input", { type: "search", placeholder: "search the text", "aria-label": "Search the text; Enter goes through what was found", enterkeyhint: "search", dir: "auto",
      autocomplete: "off", spellcheck: "false", oninput: () => view.put("search", this.field.value), onkeydown: (event) => this.key(event) });
    this.count = make("span", { class: "found", role: "status" });
    this.pick = button("select", () => view.pick(this.hits), { hidden: "", title: "Select all that was found" });
    this.box = make("span", { class: "search", role: "search" }, this.field, this.count, this.pick);
  }
  key(event) {
    event.stopPropagation(); // letters, digits and spaces belong to the field
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
    else if (this.field.value) this.view.put("search", "");
    else this.view.root.focus({ preventScroll: true });
  }
  step(direction) {
    if (!this.hits.length) return;
    const at = this.hits.indexOf(this.view.chosen());
    this.view.put("selected", this.hits[at < 0 ? (direction > 0 ? 0 : this.hits.length - 1) : (at + direction + this.hits.length) % this.hits.length]);
  }
  update() {
    const { view } = this, wanted = view.get("search");
    if (this.field.value !== wanted) this.field.value = wanted;
    const parts = /^\s*([\w-]+):(.*)$/s.exec(wanted), code = parts ? view.data.languages.findIndex((one) => one.code.toLowerCase() === parts[1].toLowerCase()) : -1;
    const query = fold((code < 0 ? wanted : parts[2]).trim());
    this.on = code >= 0 || query !== "";
    if (this.on) this.folded ??= view.texts.map(fold);
    this.hits = [];
    for (let i = 0; i < view.S; i++) {
      this.marked[i] = this.on && view.visible[i] && (code < 0 || view.language[i] === code) && this.folded[i].includes(query) ? 1 : 0;
      if (this.marked[i]) this.hits.push(i);
    }
    this.tell();
  }
  tell() {
    const at = this.hits.indexOf(this.view.chosen()), n = this.hits.length;
    this.count.textContent = !this.on ? "" : at >= 0 ? `${at + 1} of ${n}` : n === 0 ? "none found" : `${n} found`;
    this.pick.hidden = !n;
  }
}
