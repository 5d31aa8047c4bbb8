// Dots and lines written straight into pixels: tens of thousands in a few milliseconds, without a graphics card and
// without reading a canvas back. A dot is a stamp, made once for each place that it can take within a pixel.

const PLACES = 4, MARGIN = 24, FINE = 4;

class Raster {
  resize(width, height, paper, ratio) { // in device pixels, `ratio` of them to a pixel of the page; a margin around them spares all tests at the edges
    this.width = width; this.height = height; this.thick = Math.max(1, Math.round(ratio)); this.stride = width + 2 * MARGIN; this.stamps = new Map();
    this.image = new ImageData(this.stride, height + 2 * MARGIN);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.paper = (0xff000000 | (paper[2] << 16) | (paper[1] << 8) | paper[0]) >>> 0;
  }
  clear() { this.pixels.fill(this.paper); }
  show(context) { context.putImageData(this.image, -MARGIN, -MARGIN); }

  // Places × places stamps of a mark: filled with `fill`, ringed with `ring` up to `edge` pixels further out.
  stamp(key, shape, radius, fill, edge, ring, alpha) {
    const known = this.stamps.get(key);
    if (known) return known;
    const reach = Math.min(MARGIN - 2, Math.ceil(1.25 * (radius + edge)) + 1), made = { reach, places: [] };
    for (let v = 0; v < PLACES; v++) for (let u = 0; u < PLACES; u++) {
      const at = [], keep = [], redBlue = [], green = [];
      for (let y = -reach; y <= reach; y++) for (let x = -reach; x <= reach; x++) {
        let inner = 0, outer = 0;
        for (let b = 0; b < FINE; b++) for (let a = 0; a < FINE; a++) {
          const dx = x + (a + 0.5) / FINE - (u + 0.5) / PLACES, dy = y + (b + 0.5) / FINE - (v + 0.5) / PLACES;
          if (inMarker(shape, dx, dy, radius)) inner++;
          if (edge && inMarker(shape, dx, dy, radius + edge)) outer++;
        }
        const f = inner / FINE ** 2, r = Math.max(f, outer / FINE ** 2), opacity = Math.round(256 * alpha * r);
        if (!opacity) continue;
        const [red, green_, blue] = fill.map((c, k) => Math.floor((alpha * (f * c + (r - f) * ring[k]) * 255) / 256));
        at.push(y * this.stride + x); keep.push(256 - opacity); redBlue.push((blue << 16) | red); green.push(green_ << 8);
      }
      made.places.push([at, keep, redBlue, green].map((list) => Int32Array.from(list)));
    }
    this.stamps.set(key, made);
    return made;
  }
  dot(stamp, x, y) {
    const column = Math.floor(x), row = Math.floor(y), room = MARGIN - stamp.reach;
    if (!(column >= -room && row >= -room && column < this.width + room && row < this.height + room)) return;
    const [at, keep, redBlue, green] = stamp.places[Math.floor((y - row) * PLACES) * PLACES + Math.floor((x - column) * PLACES)];
    const { pixels } = this, base = (row + MARGIN) * this.stride + column + MARGIN;
    for (let k = 0; k < at.length; k++) {
      const p = base + at[k], d = pixels[p], part = keep[k];
      pixels[p] = 0xff000000 | ((Math.imul(d & 0xff00ff, part) >>> 8 & 0xff00ff) + redBlue[k]) | ((Math.imul(d >>> 8 & 0xff, part) & 0xff00) + green[k]);
    }
  }
  blend(p, [red, green, blue], alpha) {
    const d = this.pixels[p], r = d & 255, g = d >>> 8 & 255, b = d >>> 16 & 255;
    this.pixels[p] = 0xff000000 | ((b + (blue - b) * alpha) << 16) | ((g + (green - g) * alpha) << 8) | (r + (red - r) * alpha);
  }
  // A thin line, shared between the two pixels that it passes between (Wu 1991), cut off at the margin.
  line(x0, y0, x1, y1, color, alpha) {
    const cut = this.cut(x0, y0, x1, y1);
    if (!cut) return;
    [x0, y0, x1, y1] = cut;
    const steep = Math.abs(y1 - y0) > Math.abs(x1 - x0), { stride } = this;
    let [a0, b0, a1, b1] = steep ? [y0, x0, y1, x1] : [x0, y0, x1, y1];
    if (a0 > a1) [a0, b0, a1, b1] = [a1, b1, a0, b0];
    const slope = a1 > a0 ? (b1 - b0) / (a1 - a0) : 0, along = steep ? stride : 1, across = steep ? 1 : stride;
    for (let a = Math.round(a0), b = b0 + slope * (a - a0); a <= a1; a++, b += slope) {
      for (let k = 0; k < this.thick; k++) {
        const low = Math.floor(b), p = (a + MARGIN) * along + (low + MARGIN + k) * across;
        this.blend(p, color, alpha * (1 - b + low)); this.blend(p + across, color, alpha * (b - low));
      }
    }
  }
  cut(x0, y0, x1, y1) { // Liang and Barsky 1984
    const dx = x1 - x0, dy = y1 - y0, edge = MARGIN - 6;
    let from = 0, to = 1;
    for (const [p, q] of [[-dx, x0 + edge], [dx, this.width + edge - x0], [-dy, y0 + edge], [dy, this.height + edge - y0]]) {
      if (p === 0) { if (q < 0) return null; continue; }
      const t = q / p;
      if (p < 0) from = Math.max(from, t); else to = Math.min(to, t);
    }
    return from > to ? null : [x0 + from * dx, y0 + from * dy, x0 + to * dx, y0 + to * dy];
  }
}
