// Problems to load, beside each model's own example.

export function samplesOf(model) {
  const needed = model.schema?.properties ?? {};
  const more = "edges" in needed ? GRAPHS : "expression" in needed ? LOGIC : "facts" in needed ? STORIES : {};
  return { ...more, "the model's example": () => model.example };
}

const letter = (place) => (place < 26 ? String.fromCharCode(97 + place) : `n${place}`);

const chain = (length, target = length) => () => ({
  edges: Array.from({ length }, (_, place) => [letter(place), letter(place + 1)]),
  source: "a",
  target: letter(target),
});

// Two rivers that meet, with a lake that nothing flows into.
const rivers = () => ({
  edges: [
    ["a", "b"], ["a", "c"], ["b", "d"], ["d", "f"], ["c", "e"], ["e", "g"], ["f", "h"], ["g", "h"], ["h", "i"],
    ["i", "j"], ["j", "k"], ["g", "m"], ["m", "n"], ["p", "q"], ["q", "r"], ["r", "k"],
  ],
  source: "a",
  target: "k",
});

// The same numbers every time, over 0 to 1.
function drawer(seed) {
  let state = seed;
  return () => {
    state = (1664525 * state + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

// A maze: a tree over a square of cells; the way is long, and the dead ends are many.
const maze = (side) => () => {
  const draw = drawer(11);
  const [edges, seen, stack] = [[], new Set(["0,0"]), [[0, 0]]];
  const points = new Map();
  while (stack.length) {
    const [x, y] = stack.at(-1);
    const free = [[1, 0], [-1, 0], [0, 1], [0, -1]]
      .map(([dx, dy]) => [x + dx, y + dy])
      .filter(([a, b]) => a >= 0 && b >= 0 && a < side && b < side && !seen.has(`${a},${b}`));
    if (!free.length) {
      stack.pop();
      continue;
    }
    const next = free[Math.floor(draw() * free.length)];
    seen.add(next.join());
    edges.push([`${x},${y}`, next.join()]);
    stack.push(next);
  }
  for (const key of seen) {
    const [x, y] = key.split(",").map(Number);
    points.set(JSON.stringify(key), { x: x / (side - 1), y: y / (side - 1) });
  }
  return { edges, source: "0,0", target: `${side - 1},${side - 1}`, points };
};

const GRAPHS = {
  "two rivers": rivers,
  "a chain of 12": chain(12),
  "no way back": () => ({ ...rivers(), source: "k", target: "a" }),
  "a maze of 64": maze(8),
  "a maze of 256": maze(16),
};

const nested = (levels) => {
  let text = "T";
  for (let level = 0; level < levels; level++) text = level % 2 ? `!(${text} & T)` : `(F | ${text})`;
  return text;
};

const LOGIC = {
  "three levels": () => ({ expression: "(T & !(F | (T & F))) | (F & T)" }),
  "not not": () => ({ expression: "!(!(!(F)))" }),
  "two halves": () => ({ expression: "((T | F) & !(F & T)) & (!(T & F) | (F & (T | F)))" }),
  "seven levels": () => ({ expression: nested(7) }),
};

const STORIES = {
  "a family of six": () => ({
    facts: [
      "Ann is the parent of Bob", "Bob is the parent of Cid", "Dan is the child of Cid", "Eve is the child of Bob",
      "Fay is the child of Dan",
    ],
    query: "Ann is the great-great-grandparent of Fay",
  }),
  "cousins": () => ({
    facts: [
      "Ann is the parent of Bob", "Ann is the parent of Mia", "Cid is the child of Bob", "Noa is the child of Mia",
    ],
    query: "Cid is the sibling of Noa",
  }),
};
