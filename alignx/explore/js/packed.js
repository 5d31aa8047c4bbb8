// What Python packed (see nbs/explore/04_explorer_data.ipynb): base64 of zlib of arrays, little-endian.
// The files of this folder are put together, in the order that explorer_page.py names, into one ES module.

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Coordinates: per axis, int16 differences from the layer below, low bytes first, then high bytes.
function decodeCoordinates(bytes, models, layers, count) {
  const total = models * layers * count * 2, plane = models * layers * count, out = new Int16Array(total);
  for (let i = 0; i < total; i++) out[i] = bytes[i] | (bytes[total + i] << 8);
  for (let axis = 0; axis < 2; axis++) for (let m = 0; m < models; m++) for (let l = 1; l < layers; l++) {
    const here = axis * plane + (m * layers + l) * count;
    for (let i = 0; i < count; i++) out[here + i] += out[here + i - count];
  }
  return { x: out.subarray(0, plane), y: out.subarray(plane) };
}

// Neighbours: code p means "the one ranked p at the layer below", 255 means "the next in `fresh`".
function decodeNeighbours(codes, fresh, count, k) {
  const out = new Uint16Array(codes.length), below = count * k;
  for (let first = 0, next = 0; first < codes.length; first += k) for (let i = first; i < first + k; i++) {
    if (codes[i] !== 255) out[i] = out[first - below + codes[i]];
    else { out[i] = fresh[2 * next] | (fresh[2 * next + 1] << 8); next++; }
  }
  return out;
}

async function decode(data) {
  const M = data.models.length, L = data.layers.length, near = data.neighbours;
  const [sentences, xy, codes, fresh, cosines, ranks] = await Promise.all(
    [data.sentences, data.coordinates, near.codes, near.fresh, near.cosines, data.ranks].map(inflate));
  const { texts, language, group, domain, ids } = JSON.parse(new TextDecoder().decode(sentences)), S = texts.length;
  for (let i = M * L * S; i < cosines.length; i++) cosines[i] += cosines[i - M * L * S]; // differences to the nearer neighbour, modulo 256
  return { ...decodeCoordinates(xy, M, L, S), cosines, ranks, texts, ids, group: Int32Array.from(group), language: Uint16Array.from(language),
    domain: domain && Uint16Array.from(domain), neighbours: decodeNeighbours(codes, fresh, S, near.count) };
}

// Ranks are exact up to 32, and then in steps of an eighth of an octave; 0 means that there is none.
const rankValue = (code) => (code <= 32 ? code : Math.round(32 * 2 ** ((code - 32) / 8)));
const showRank = (code) => (code === 0 ? "" : code <= 32 ? String(code) : `~${rankValue(code)}`);
