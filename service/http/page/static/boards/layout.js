// Where the nodes of a graph stand: by hops from the source, left to right, folded where it gets long.

// edges: [[from, to]] of keys -> Map(key -> {x, y}), over 0 to 1.
export function layered(keys, edges, source) {
  const after = new Map(keys.map((key) => [key, []]));
  const beside = new Map(keys.map((key) => [key, []]));
  for (const [from, to] of edges) {
    after.get(from)?.push(to);
    beside.get(from)?.push(to);
    beside.get(to)?.push(from);
  }
  const layer = hops(source, after);
  // Who cannot be reached stands a layer from whoever is next to it, else in a layer of its own.
  for (const start of [...layer.keys(), ...keys]) {
    if (layer.has(start) && !beside.get(start)?.some((key) => !layer.has(key))) continue;
    if (!layer.has(start)) layer.set(start, 0);
    const queue = [start];
    for (const key of queue)
      for (const next of beside.get(key)) {
        if (layer.has(next)) continue;
        layer.set(next, Math.max(0, layer.get(key) + (after.get(key).includes(next) ? 1 : -1)));
        queue.push(next);
      }
  }
  const layers = [];
  for (const key of keys) (layers[layer.get(key)] ??= []).push(key);
  const filled = Array.from(layers, (one) => one ?? []);
  return placed(ordered(filled, beside, layer), keys.length);
}

function hops(source, after) {
  const layer = new Map(after.has(source) ? [[source, 0]] : []);
  for (const key of layer.keys())
    for (const next of after.get(key)) if (!layer.has(next)) layer.set(next, layer.get(key) + 1);
  return layer;
}

// Within a layer by the mean place of the neighbours, a few sweeps: fewer lines cross.
function ordered(layers, beside, layer) {
  const place = new Map();
  const number = () => layers.forEach((one) => one.forEach((key, row) => place.set(key, (row + 1) / (one.length + 1))));
  number();
  for (let sweep = 0; sweep < 8; sweep++) {
    const forth = sweep % 2 === 0;
    for (const one of layers) {
      const wish = new Map(
        one.map((key) => {
          const near = beside.get(key).filter((other) => (layer.get(other) < layer.get(key)) === forth);
          return [key, near.length ? near.reduce((sum, other) => sum + place.get(other), 0) / near.length : place.get(key)];
        }),
      );
      one.sort((a, b) => wish.get(a) - wish.get(b));
    }
    number();
  }
  return layers;
}

// Long graphs run like a river: left to right, then back, in as many bands as keep nodes apart.
function placed(layers, count) {
  const widest = Math.max(1, ...layers.map((one) => one.length));
  const bands = Math.max(1, Math.min(8, Math.round(Math.sqrt(layers.length / (2.2 * widest)))));
  const across = Math.ceil(layers.length / bands);
  const points = new Map();
  layers.forEach((one, depth) => {
    const band = Math.floor(depth / across);
    const step = depth % across;
    const x = across === 1 ? 0.5 : (band % 2 ? across - 1 - step : step) / (across - 1);
    one.forEach((key, row) => {
      const spread = (row + 1) / (one.length + 1);
      const bend = one.length === 1 && count > 2 && bands === 1 ? 0.07 * Math.sin(depth * 1.9) : 0;
      points.set(key, { x, y: (band + Math.max(0, Math.min(1, spread + bend))) / bands });
    });
  });
  return points;
}
