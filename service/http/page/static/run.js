// A run: what a stream has shown of one problem, and what is worked out from it.

const MOST_BYTES = 128 * 2 ** 20; // of states that a run keeps; past that only movement is kept
const ROWS = 1200; // states that the components are fitted to
const EVERY = 300; // ms between fits while a stream runs

export class Run {
  constructor(body, title) {
    Object.assign(this, { body, title, steps: [], states: [], movement: [], others: new Map() });
    Object.assign(this, { done: null, result: null, fault: null, tokens: 0, width: 0, held: 0, most: 0 });
    this.id = `page-${crypto.getRandomValues(new Uint32Array(3)).join("-")}`;
    this.fitted = { steps: 0, at: 0 };
  }

  // Thinking on: a run that begins with all that an earlier one has shown.
  goesOnFrom(run) {
    for (const name of ["steps", "states", "movement"]) this[name] = [...run[name]];
    for (const name of ["tokens", "width", "held", "most", "last", "axis"]) this[name] = run[name];
    return this;
  }

  get length() {
    return this.steps.length;
  }

  add(event) {
    if (event.sample > 0) {
      if (!this.others.has(event.sample)) this.others.set(event.sample, []);
      this.others.get(event.sample).push(event);
      return;
    }
    const { step, answer, label, probabilities, scores, output } = event;
    this.steps.push({ step, answer, label, probabilities, scores, output });
    const state = stateOf(event.latents, [label].flat().length);
    if (state) [this.tokens, this.width, this.axis] = [state.tokens, state.values.length / state.tokens, state.axis];
    this.movement.push(state && this.last ? this.moved(this.last, state.values) : null);
    this.last = state?.values;
    this.states.push(this.held <= MOST_BYTES ? state : null);
    this.held += state?.values.byteLength ?? 0;
  }

  // Of every token, relative to its length: (N,). As the score latent_diff has it.
  moved(before, now) {
    const moved = new Float32Array(this.tokens);
    for (let token = 0; token < this.tokens; token++) {
      let change = 0;
      let size = 0;
      for (let c = token * this.width; c < (token + 1) * this.width; c++) {
        change += (now[c] - before[c]) ** 2;
        size += now[c] ** 2;
      }
      moved[token] = Math.sqrt(change / (size + 1e-12));
      this.most = Math.max(this.most, moved[token]);
    }
    return moved;
  }

  finish(done) {
    this.done = done;
    this.result = done.results[0];
    this.fitted.at = 0;
  }

  // Two components of every kept state, by step: [Float32Array (N, 2) | null], over -1 to 1.
  paths() {
    const now = performance.now();
    const { at, steps, paths: known } = this.fitted;
    if (at && (steps === this.length || now - at < EVERY)) return known;
    const basis = principal(this.rows(), this.width);
    const paths = this.states.map((state) => state && projected(state.values, basis, this.tokens, this.width));
    this.fitted = { steps: this.length, at: now, paths: scaled(paths, this.tokens) };
    return this.fitted.paths;
  }

  rows() {
    const kept = this.states.filter(Boolean);
    const stride = Math.max(1, Math.ceil((kept.length * this.tokens) / ROWS));
    const rows = [];
    for (let place = 0; place < kept.length * this.tokens; place += stride) {
      const [step, token] = [Math.floor(place / this.tokens), place % this.tokens];
      rows.push(kept[step].values.subarray(token * this.width, (token + 1) * this.width));
    }
    return rows;
  }

  // What a board shows of a step: of every token the first component and the movement, over 0 to 1.
  frame(place) {
    const paths = this.paths();
    const path = paths[place] ?? paths.at(-1);
    const moved = this.movement[place];
    return {
      tokens: this.tokens,
      step: this.steps[place]?.step,
      shown: this.steps[place],
      tint: Array.from({ length: this.tokens }, (_, token) => (path ? (path[2 * token] + 1) / 2 : 0.5)),
      glow: Array.from({ length: this.tokens }, (_, token) => (moved ? loudness(moved[token], this.most) : 0)),
    };
  }
}

// A request with what the page wants to see beside what its reader asked for. keep: seconds, or undefined.
export function watched(model, body, keep) {
  const include = ["probabilities", ...(model.scores.length ? ["scores"] : [])];
  const kept = body.samples || body.paired ? undefined : keep;
  return { ...body, stream: true, latents: { select: "full" }, include, keep: kept };
}

// Movement over 0 to 1, small ones lifted a little.
export const loudness = (value, most) => (most > 0 ? (value / most) ** 0.7 : 0);

// One row of values a token: (N, …), or where a model has an answer for each of `cells` those of a grid, whose
// axes may stand first (H, W, …) or last (…, H, W). axis: how long the first axis is, which interventions count.
function stateOf(latents, cells) {
  if (!latents) return null;
  const named = latents.values ? [latents] : Object.values(latents);
  const { values, shape } = named.find((one) => one.shape.length > 1) ?? named[0];
  if (!values?.length) return null;
  const [axis] = shape;
  if (shape.length < 2) return { values, tokens: 1, axis };
  const sizes = shape.map((_, place) => shape.slice(0, place + 1).reduce((a, b) => a * b));
  if (cells < 2 || axis === cells) return { values, tokens: axis, axis };
  if (sizes.includes(cells)) return { values, tokens: cells, axis };
  const width = values.length / cells;
  if (!sizes.includes(width)) return { values, tokens: axis, axis };
  return { values: values.map((_, place) => values[(place % width) * cells + Math.floor(place / width)]), tokens: cells, axis };
}

// Mean and two principal directions, by power iteration.
function principal(rows, width) {
  const mean = new Float64Array(width);
  for (const row of rows) for (let c = 0; c < width; c++) mean[c] += row[c] / rows.length;
  const directions = [];
  for (let which = 0; which < 2; which++) {
    let direction = Float64Array.from({ length: width }, (_, c) => Math.sin(1 + c * (which + 1.7)));
    for (let round = 0; round < 24; round++) {
      const next = new Float64Array(width);
      for (const row of rows) {
        let along = 0;
        for (let c = 0; c < width; c++) along += (row[c] - mean[c]) * direction[c];
        for (let c = 0; c < width; c++) next[c] += along * (row[c] - mean[c]);
      }
      for (const other of directions) {
        const along = next.reduce((sum, value, c) => sum + value * other[c], 0);
        for (let c = 0; c < width; c++) next[c] -= along * other[c];
      }
      const size = Math.hypot(...next) || 1;
      direction = next.map((value) => value / size);
    }
    directions.push(direction);
  }
  return { mean, directions };
}

function projected(values, { mean, directions }, tokens, width) {
  const path = new Float32Array(2 * tokens);
  for (let token = 0; token < tokens; token++)
    for (let c = 0; c < width; c++) {
      const value = values[token * width + c] - mean[c];
      path[2 * token] += value * directions[0][c];
      path[2 * token + 1] += value * directions[1][c];
    }
  return path;
}

// Into -1 to 1; the first component so that thinking goes up it.
function scaled(paths, tokens) {
  const kept = paths.filter(Boolean);
  if (!kept.length) return paths;
  let rise = 0;
  const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
  for (let place = 0; place < 2 * tokens; place += 2) rise += kept.at(-1)[place] - kept[0][place];
  for (const path of kept)
    for (let place = 0; place < path.length; place++) {
      if (place % 2 === 0 && rise < 0) path[place] = -path[place];
      low[place % 2] = Math.min(low[place % 2], path[place]);
      high[place % 2] = Math.max(high[place % 2], path[place]);
    }
  for (const path of kept)
    for (let place = 0; place < path.length; place++) {
      const [from, to] = [low[place % 2], high[place % 2]];
      path[place] = to > from ? (2 * (path[place] - from)) / (to - from) - 1 : 0;
    }
  return paths;
}
