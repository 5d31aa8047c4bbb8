// One model's picture: where its points are, what they look like, and what a pointer does to them.

const SMOOTH = (t) => (t < 0.5 ? 4 * t ** 3 : 1 - (2 - 2 * t) ** 3 / 2);
const MANY = 400; // more single trails than this are drawn without their beginnings marked

const shorten = (text) => (text.length > 24 ? text.slice(0, 23) + "…" : text);

class Panel {
  constructor(view, m) {
    const { S } = view;
    Object.assign(this, { view, model: m, width: 300, height: 260, raster: new Raster(), x: new Float32Array(S), y: new Float32Array(S), sx: new Float32Array(S), sy: new Float32Array(S) });
    this.canvas = make("canvas", { role: "img" });
    this.head = make("b"); this.note = make("span"); this.tip = make("div", { class: "tip", hidden: "" });
    this.box = make("section", { class: "panel" }, make("header", {}, this.head, this.note), this.canvas, this.tip);
    this.place(m, view.layerIndex());
    this.listen();
  }

  // -- places, and the way between two of them
  place(m, l) {
    const { view } = this, at = view.offset(m, l);
    for (let i = 0; i < view.S; i++) { this.x[i] = view.x[at + i]; this.y[i] = view.y[at + i]; }
    this.magnified = this.magnification(m, l); this.middles = view.coloring.middles(m, l);
  }
  magnification(m, l) { // 1 in the frame that all layers share; else what makes this layer fill it
    const { view } = this, at = view.offset(m, l);
    if (!view.state.fitted) return 1;
    const reach = (axis) => Math.max(1, Float32Array.from(axis.subarray(at, at + view.S), Math.abs).sort()[Math.floor(0.99 * (view.S - 1))]);
    return Math.max(1, 0.46 * Math.min(view.data.view[0] / reach(view.x), view.data.view[1] / reach(view.y)));
  }
  travel(m, l) { // a function of time from 0 to 1 that moves the points from where they are
    const { view, x, y } = this, fromX = x.slice(), fromY = y.slice(), fromMagnified = this.magnified, fromMiddles = this.middles;
    const at = view.offset(m, l), magnified = this.magnification(m, l), middles = view.coloring.middles(m, l);
    return (t) => {
      const e = SMOOTH(t);
      for (let i = 0; i < view.S; i++) { x[i] = fromX[i] + (view.x[at + i] - fromX[i]) * e; y[i] = fromY[i] + (view.y[at + i] - fromY[i]) * e; }
      this.magnified = fromMagnified * (magnified / fromMagnified) ** e;
      this.middles = middles.map(([mx, my], c) => { const [fx, fy] = fromMiddles[c] ?? [mx, my]; return [fx + (mx - fx) * e, fy + (my - fy) * e]; });
    };
  }
  resize(stacked) {
    this.width = Math.max(120, this.box.clientWidth - 2);
    this.height = Math.round(Math.min(460, Math.max(stacked ? 220 : 270, this.width * 0.72)));
    this.ratio = Math.min(3, window.devicePixelRatio || 1);
    this.canvas.style.height = this.height + "px";
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    this.recolor();
  }
  recolor() { if (this.ratio) this.raster.resize(this.canvas.width, this.canvas.height, this.view.paper, this.ratio); }

  // -- drawing
  draw() {
    if (!this.ratio) return;
    const { view, x, y, sx, sy, width, height, ratio } = this, { state } = view, context = this.canvas.getContext("2d");
    const scale = this.scale = state.zoom * this.magnified * Math.min(width / view.data.view[0], height / view.data.view[1]);
    for (let i = 0; i < view.S; i++) { sx[i] = width / 2 + state.panX + x[i] * scale; sy[i] = height / 2 + state.panY - y[i] * scale; }
    const focus = state.hover >= 0 ? state.hover : view.chosen(), near = focus >= 0 && focus === view.chosen() ? view.neighboursOf(focus, this.model).filter((n) => view.visible[n.i]) : [];
    const bright = new Set(focus < 0 ? [] : [focus, ...view.translations(focus), ...near.map((n) => n.i)].filter((i) => view.visible[i]));
    this.classes = view.coloring.classes(this.model, view.layerIndex());
    this.radius = (view.S > 8000 ? 1.7 : view.S > 1200 ? 2.4 : view.S > 500 ? 3 : 3.8) * Math.min(1.8, state.zoom ** 0.25);
    this.raster.clear();
    if (state.lines) this.joinAll(focus < 0 ? 0.35 : 0.12);
    if (view.get("trails") === "all") this.trailAll(focus < 0 ? 0.45 : 0.12);
    this.dots(focus, bright);
    this.raster.show(context);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const taken = [];
    if (focus < 0) { if (view.coloring.by !== "found") this.nameClasses(context, taken); } else this.connect(context, focus, near);
    if (view.get("trails") !== "off") this.trails(context, [...new Set([...bright].filter((i) => i === focus || view.translations(focus).includes(i)).concat(...view.picked))]);
    if (focus >= 0) this.spotlight(context, taken, focus, bright, near);
    if (this.outline) this.drawOutline(context);
  }
  dots(focus, bright) { // from faint to strong, so that the strong ones are on top
    const { view, sx, sy, raster, ratio, radius, classes } = this, { entries } = view.coloring, { marked } = view.search;
    const emphasis = view.state.emphasis >= 0 ? view.state.emphasis : view.state.kept, searching = view.search.on, picking = view.picked.size > 0;
    const stamp = (c, kind) => {
      const { shape, rgb } = entries[c], r = Math.round(4 * ratio * radius) / 4, key = `${c} ${kind} ${r}`;
      if (kind === "picked") return raster.stamp(key, shape, 1.2 * r, rgb, 1.6 * ratio, view.inkRgb, 1);
      if (kind === "marked") return raster.stamp(key, shape, 1.2 * r, rgb, 2.2 * ratio, view.accentRgb, 1);
      return raster.stamp(key, shape, r, rgb, 0.6 * ratio, view.paper, { faint: 0.18, plain: 0.82, strong: 1 }[kind]);
    };
    const kinds = ["faint", "plain", "strong", "picked", "marked"], levels = new Uint8Array(view.S), some = [false, false, false, false, false];
    for (let i = 0; i < view.S; i++) {
      if (!view.visible[i] || bright.has(i)) { levels[i] = 255; continue; }
      const c = classes[i];
      let level = 1;
      if (marked[i]) level = 4;
      else if (picking && view.picked.has(i)) level = 3;
      else if (emphasis >= 0 && emphasis === c) level = 2;
      else if (focus >= 0 || emphasis >= 0 || searching || picking) level = 0;
      levels[i] = level; some[level] = true;
    }
    kinds.forEach((kind, level) => {
      if (!some[level]) return;
      const stamps = entries.map(() => null);
      for (let i = 0; i < view.S; i++) if (levels[i] === level) { const c = classes[i]; raster.dot(stamps[c] ??= stamp(c, kind), sx[i] * ratio, sy[i] * ratio); }
    });
  }
  joinAll(alpha) {
    const { view, sx, sy, ratio } = this;
    for (const all of view.members.values()) {
      const some = all.filter((i) => view.visible[i]), mean = (axis) => some.reduce((sum, i) => sum + axis[i], 0) / some.length, x = mean(sx), y = mean(sy);
      for (const i of some) this.raster.line(x * ratio, y * ratio, sx[i] * ratio, sy[i] * ratio, view.softRgb, alpha);
    }
  }
  // Where sentence i is in the first model shown, seen in this picture.
  origin(i) {
    const { view, width, height } = this, at = view.offset(view.shown()[0], view.layerIndex()) + i;
    return [width / 2 + view.state.panX + view.x[at] * this.scale, height / 2 + view.state.panY - view.y[at] * this.scale];
  }
  get isFirst() { return this.model === this.view.shown()[0]; }
  trailAll(alpha) {
    const { view, sx, sy, ratio, classes } = this;
    if (this.isFirst) return;
    for (let i = 0; i < view.S; i++) if (view.visible[i]) {
      const [x, y] = this.origin(i);
      this.raster.line(x * ratio, y * ratio, sx[i] * ratio, sy[i] * ratio, view.coloring.entries[classes[i]].rgb, alpha);
    }
  }
  trails(context, list) {
    const { view, sx, sy, classes } = this;
    if (this.isFirst) return;
    context.lineWidth = 1.4;
    for (const i of list) if (view.visible[i]) {
      const [x, y] = this.origin(i), end = context.createLinearGradient(x, y, sx[i], sy[i]), [r, g, b] = view.coloring.entries[classes[i]].rgb;
      end.addColorStop(0, `rgb(${r} ${g} ${b} / .15)`); end.addColorStop(1, `rgb(${r} ${g} ${b} / .95)`);
      context.strokeStyle = list.length > MANY ? `rgb(${r} ${g} ${b} / .5)` : end;
      context.beginPath(); context.moveTo(x, y); context.lineTo(sx[i], sy[i]); context.stroke();
      if (list.length > MANY) continue;
      const path = new Path2D();
      marker(path, view.coloring.entries[classes[i]].shape, x, y, 2.4);
      context.strokeStyle = css([r, g, b]); context.fillStyle = view.ink.panel; context.fill(path); context.stroke(path);
    }
  }
  connect(context, focus, near) {
    const { view, sx, sy } = this;
    const stroke = (to, color, dash, wide) => {
      context.beginPath(); context.setLineDash(dash); context.strokeStyle = color; context.lineWidth = wide;
      for (const i of to) { context.moveTo(sx[focus], sy[focus]); context.lineTo(sx[i], sy[i]); }
      context.stroke(); context.setLineDash([]);
    };
    if (!view.visible[focus]) return;
    stroke(view.translations(focus).filter((i) => view.visible[i]), view.ink.soft, [], 1.1);
    stroke(near.map((n) => n.i), view.ink.accent, [4, 3], 1.4);
  }
  spotlight(context, taken, focus, bright, near) { // the sentence in question, its translations and its neighbours
    const { view, sx, sy, classes, radius } = this, { ink } = view, same = view.translations(focus);
    for (const i of [...bright].reverse()) {
      const path = new Path2D(), r = Math.max(2.6, radius) * (i === focus ? 1.9 : 1.45), { shape, css } = view.coloring.entries[classes[i]];
      marker(path, shape, sx[i], sy[i], r);
      context.fillStyle = css; context.fill(path);
      context.lineWidth = i === focus ? 2 : 1.2; context.strokeStyle = i === focus || view.picked.has(i) ? ink.ink : ink.panel; context.stroke(path);
      taken.push([sx[i] - r, sy[i] - r, sx[i] + r, sy[i] + r]);
    }
    for (const i of [focus, ...same]) if (view.visible[i]) this.label(context, taken, view.data.languages[view.language[i]].code, sx[i], sy[i], i === focus, 9);
    for (const n of near) if (!same.includes(n.i)) this.label(context, taken, String(n.rank), sx[n.i], sy[n.i], false, 8);
  }
  label(context, taken, text, x, y, strong, gap) { // beside a point, where there is room
    const { ink } = this.view;
    context.font = `${strong ? 700 : 600} 11.5px system-ui, sans-serif`;
    const w = context.measureText(text).width, spots = [[gap, 4], [-gap - w, 4], [-w / 2, -gap], [-w / 2, gap + 9]];
    for (const [dx, dy] of spots) {
      const box = [x + dx - 1, y + dy - 10, x + dx + w + 1, y + dy + 2];
      if (box[0] < 0 || box[2] > this.width || box[1] < 0 || box[3] > this.height) continue;
      if (taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) continue;
      taken.push(box);
      context.lineWidth = 3.5; context.lineJoin = "round"; context.strokeStyle = ink.panel; context.strokeText(text, x + dx, y + dy);
      context.fillStyle = ink.ink; context.fillText(text, x + dx, y + dy);
      return;
    }
  }
  nameClasses(context, taken) {
    const { view, width, height, scale } = this, { entries, by } = view.coloring;
    this.middles.forEach(([mx, my], c) => {
      if (Number.isNaN(mx) || view.hides(by, entries[c].label) || (view.state.emphasis >= 0 && view.state.emphasis !== c)) return;
      this.label(context, taken, shorten(entries[c].text ?? entries[c].label), width / 2 + view.state.panX + mx * scale, height / 2 + view.state.panY - my * scale, true, 2);
    });
  }
  drawOutline(context) {
    const { ink } = this.view, path = new Path2D();
    this.outline.forEach(([x, y], k) => (k ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
    context.globalAlpha = 0.1; context.fillStyle = ink.accent; context.fill(path, "evenodd"); context.globalAlpha = 1;
    context.setLineDash([5, 3]); context.lineWidth = 1.3; context.strokeStyle = ink.accent; context.stroke(path); context.setLineDash([]);
  }

  // -- pointers: point, choose, move and zoom; or draw around what is to be selected
  listen() {
    const { canvas, view } = this, held = new Map();
    let moved = 0, gap = 0, drawing = null;
    const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    const endDrawing = () => { drawing = null; this.outline = null; };
    canvas.addEventListener("pointerdown", (event) => {
      held.set(event.pointerId, place(event)); moved = 0; gap = 0; canvas.setPointerCapture(event.pointerId);
      const kind = view.state.mode !== "move" ? view.state.mode : event.shiftKey ? "box" : null;
      drawing = kind && held.size === 1 ? { kind, start: place(event), points: [place(event)], add: event.ctrlKey || event.metaKey } : null;
      if (!drawing) this.outline = null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (!held.has(event.pointerId)) { if (event.pointerType !== "touch") this.hover(x, y, 12); return; }
      const [ox, oy] = held.get(event.pointerId);
      held.set(event.pointerId, [x, y]);
      if (held.size === 2) {
        const [a, b] = [...held.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (gap) view.zoomAt(this, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2, now / gap);
        gap = now; moved = 99; return;
      }
      moved += Math.abs(x - ox) + Math.abs(y - oy);
      if (moved <= 5) return;
      if (!drawing) { view.state.panX += x - ox; view.state.panY += y - oy; return view.afterZoom(); }
      const [ax, ay] = drawing.start;
      if (drawing.kind === "lasso") drawing.points.push([x, y]); else drawing.points = [[ax, ay], [x, ay], [x, y], [ax, y]];
      this.outline = drawing.points;
      view.setHover(-1); this.draw();
    });
    canvas.addEventListener("pointerup", (event) => {
      const [x, y] = place(event), one = held.size === 1;
      held.delete(event.pointerId); gap = 0;
      if (!one) return;
      const drawn = drawing;
      endDrawing();
      if (moved > 5) { if (drawn) view.pick(this.within(drawn.points), drawn.add); return; }
      const i = this.nearest(x, y, event.pointerType === "touch" ? 24 : 12);
      if (drawn) { if (i >= 0) view.pickOne(i); } else view.choose(i);
    });
    canvas.addEventListener("pointercancel", (event) => { held.delete(event.pointerId); gap = 0; endDrawing(); this.draw(); });
    canvas.addEventListener("pointerleave", () => { if (!held.size) view.setHover(-1); });
    canvas.addEventListener("dblclick", (event) => { event.preventDefault(); if (view.state.mode === "move") view.zoomAt(this, ...place(event), 2); });
    canvas.addEventListener("wheel", (event) => { // a plain wheel scrolls the page until the explorer has been zoomed or has the focus
      if (!event.ctrlKey && !event.metaKey && view.state.zoom === 1 && !view.root.matches(":focus-within")) return;
      event.preventDefault();
      view.zoomAt(this, ...place(event), Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) * 0.005));
    }, { passive: false });
  }
  hover(x, y, reach) { this.view.setHover(this.nearest(x, y, reach), this); }
  nearest(x, y, reach) { // a plain pass over typed arrays: 20,000 points in about 0.05 ms
    const { sx, sy, view } = this;
    let best = -1, least = reach * reach;
    for (let i = 0; i < view.S; i++) {
      const dx = sx[i] - x, dy = sy[i] - y, d = dx * dx + dy * dy;
      if (d < least && view.visible[i]) { least = d; best = i; }
    }
    return best;
  }
  within(points) { // visible sentences inside a closed line (even-odd rule)
    const found = [], { sx, sy, view } = this;
    for (let i = 0; i < view.S; i++) if (view.visible[i]) {
      let inside = false;
      for (let k = 0, j = points.length - 1; k < points.length; j = k++) {
        const [ax, ay] = points[k], [bx, by] = points[j];
        if (ay > sy[i] !== by > sy[i] && sx[i] < ((bx - ax) * (sy[i] - ay)) / (by - ay) + ax) inside = !inside;
      }
      if (inside) found.push(i);
    }
    return found;
  }
  showTip(i) {
    const { view, tip, sx, sy } = this, rows = view.translations(i).filter((j) => view.visible[j]).slice(0, 14);
    tip.replaceChildren(view.details.sentence(i), ...rows.map((j) => view.details.sentence(j)));
    tip.hidden = false;
    const top = this.canvas.offsetTop, { offsetWidth: w, offsetHeight: h } = tip;
    const x = sx[i] + 14 + w < this.width ? sx[i] + 14 : Math.max(4, sx[i] - 14 - w);
    tip.style.left = Math.min(x, Math.max(4, this.width - w - 4)) + "px";
    tip.style.top = Math.max(4, Math.min(top + sy[i] - h / 2, top + this.height - h - 4)) + "px";
  }
}
