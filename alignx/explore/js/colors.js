// Colours that can be read on light and on dark paper, and which of the two the page around is.

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const css = (rgb) => `rgb(${rgb.join(" ")})`;
function luminance(rgb) {
  const [r, g, b] = rgb.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
// A colour moved towards white (dark page) or black (light page) until it stands out.
function readable(hex, dark, wanted) {
  const paper = dark ? 0.01 : 0.96;
  let rgb = channels(hex);
  for (let step = 0; step < 14; step++) {
    const l = luminance(rgb), contrast = dark ? (l + 0.05) / (paper + 0.05) : (paper + 0.05) / (l + 0.05);
    if (contrast >= wanted) break;
    rgb = rgb.map((v) => Math.round(dark ? v + (255 - v) * 0.14 : v * 0.92));
  }
  return rgb;
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
