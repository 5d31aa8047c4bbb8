// Elements and marks. Sentences come from outside, so text only ever enters the page as `text`.

const SVG = new Set(["svg", "path", "line", "text", "circle", "tspan", "rect"]);
function make(tag, attributes = {}, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value; else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
const button = (text, onclick, attributes = {}) => make("button", { type: "button", text, onclick, ...attributes });
const group = (label, ...children) => make("span", { class: "group", role: "group", "aria-label": label }, ...children);
const press = (node, on) => node.setAttribute("aria-pressed", String(on));
function choice(label, options, onchange) { // a labelled <select>; options: [value, text]
  const select = make("select", { "aria-label": label, onchange: () => onchange(select.value) }, ...options.map(([value, text]) => make("option", { value, text })));
  return select;
}

// Four marks: disc, square, triangle, diamond; as SVG (10 × 10), as a canvas path, and as a test for a point.
const SHAPES = ["M10 5A5 5 0 1 1 0 5A5 5 0 1 1 10 5Z", "M.6 .6H9.4V9.4H.6Z", "M5 0L10 9.4H0Z", "M5 0L10 5L5 10L0 5Z"];
const chip = (shape, color) => make("svg", { width: 10, height: 10, viewBox: "0 0 10 10", "aria-hidden": "true" }, make("path", { d: SHAPES[shape], fill: color }));
function marker(path, shape, x, y, r) {
  if (shape === 0) { path.moveTo(x + r, y); path.arc(x, y, r, 0, 6.2832); return; }
  const s = r * 0.92, t = r * 1.22;
  if (shape === 1) path.rect(x - s, y - s, 2 * s, 2 * s);
  else if (shape === 2) { path.moveTo(x, y - t); path.lineTo(x + t, y + s); path.lineTo(x - t, y + s); path.closePath(); }
  else { path.moveTo(x, y - t); path.lineTo(x + t, y); path.lineTo(x, y + t); path.lineTo(x - t, y); path.closePath(); }
}
function inMarker(shape, x, y, r) {
  if (shape === 0) return x * x + y * y <= r * r;
  const s = r * 0.92, t = r * 1.22;
  if (shape === 1) return Math.abs(x) <= s && Math.abs(y) <= s;
  if (shape === 2) return y <= s && Math.abs(x) * (s + t) <= t * (y + t);
  return Math.abs(x) + Math.abs(y) <= t;
}
