// Facts and a question: as a family where people are the tokens, word by word where words are.

import { Surface, ink } from "../views/canvas.js";
import { paint } from "./logic.js";
import { drawGraph, spotOf } from "./picture.js";

const SENTENCE = /^\s*(.+?)\s+is\s+the\s+(\S+)\s+of\s+(.+?)\s*[.?]?\s*$/i;

export class StoryBoard {
  // words: whether the model reads words; otherwise every person is a token.
  constructor(element, { changed, picked, words }) {
    Object.assign(this, { picked, words, frame: null, chosen: new Set(), people: [], points: new Map(), edges: [] });
    element.innerHTML = `
      <div class="row"><label class="grow">facts, one a line
        <textarea rows="6" data-field="input.facts"></textarea></label></div>
      <label class="stack">question <input data-field="input.query"></label>
      ${words ? '<div class="sentences" aria-label="The story, word by word"></div>' : '<canvas class="drawing family" role="img" aria-label="The family that the facts tell of"></canvas>'}`;
    this.facts = element.querySelector("textarea");
    this.query = element.querySelector("input");
    this.sentences = element.querySelector(".sentences");
    this.canvas = element.querySelector("canvas");
    for (const field of [this.facts, this.query])
      field.addEventListener("input", () => {
        this.build();
        changed();
      });
    if (this.canvas) {
      this.surface = new Surface(this.canvas, () => {}, (pen, width, height) => drawGraph(this, pen, width, height));
      this.canvas.addEventListener("click", (event) => this.click(event));
    } else
      this.sentences.addEventListener("click", (event) => {
        const token = event.target.closest("[data-token]");
        if (token) this.picked(Number(token.dataset.token), event.shiftKey);
      });
  }

  get lines() {
    return this.facts.value.split("\n").filter((line) => line.trim());
  }

  get problem() {
    return { facts: this.lines, query: this.query.value };
  }

  get names() {
    if (this.words) return [...this.sentences.querySelectorAll("[data-token]")].map((span) => span.textContent);
    const between = Math.max(0, (this.frame?.tokens ?? this.people.length) - this.people.length);
    return [...this.people, ...Array(between).fill("(between)")];
  }

  load({ facts, query }) {
    this.facts.value = Array.isArray(facts) ? facts.join("\n") : facts;
    this.query.value = query;
    this.build();
  }

  build() {
    this.frame = null;
    const read = this.lines.map((line) => SENTENCE.exec(line)).filter(Boolean).map(([, one, relation, other]) => [one, relation, other]);
    this.people = [...new Set(read.flatMap(([one, , other]) => [one, other]))];
    if (this.words) return this.write();
    this.asked = SENTENCE.exec(this.query.value);
    this.edges = read.map(([one, relation, other]) => (above(relation) < 0 ? [other, one] : [one, other]));
    this.points = standing(this.people, read);
    this.surface.moved();
  }

  // One token to answer at, then seven for each sentence: "Ann is the parent of Bob ."
  write() {
    this.sentences.replaceChildren();
    let token = 0;
    const row = (words) => {
      const line = document.createElement("p");
      for (const word of words) {
        const span = document.createElement("span");
        span.className = "token word";
        span.dataset.token = token++;
        span.textContent = word;
        line.append(span);
      }
      this.sentences.append(line);
    };
    row(["[answer]"]);
    for (const [line, end] of [...this.lines.map((line) => [line, "."]), [this.query.value, "?"]]) {
      const [, one = "…", relation = "…", other = "…"] = SENTENCE.exec(line) ?? [];
      row([one, "is", "the", relation, "of", other, end]);
    }
  }

  get keys() {
    return this.people.map((name) => JSON.stringify(name));
  }

  get tags() {
    const [, one, relation, other] = this.asked ?? [];
    return one ? [[`${relation}?`, JSON.stringify(one)], ["of", JSON.stringify(other)]] : [];
  }

  named = true;

  get radius() {
    return this.people.length <= 14 ? 15 : 10;
  }

  click(event) {
    const far = (key) => {
      const [x, y] = spotOf(this, key, this.canvas.clientWidth, this.canvas.clientHeight);
      return Math.hypot(x - event.offsetX, y - event.offsetY);
    };
    const place = this.keys.findIndex((key) => far(key) <= this.radius + 5);
    if (place >= 0) this.picked(place, event.shiftKey);
  }

  show(frame, chosen = new Set()) {
    Object.assign(this, { chosen });
    if (!this.words) {
      // People between come after the named ones.
      this.frame = frame && frame.tokens >= this.people.length ? { ...frame, tokens: this.people.length } : null;
      return this.surface.moved();
    }
    const spans = [...this.sentences.querySelectorAll("[data-token]")];
    const live = frame && frame.tokens === spans.length ? frame : null;
    const colours = { shallow: ink("shallow"), deep: ink("deep"), wave: ink("wave") };
    return spans.forEach((span, place) => paint(span, live, place, chosen, colours));
  }

  mark(field) {
    const place = Number(/^input\.facts\.(\d+)/.exec(field ?? "")?.[1] ?? -1);
    if (place < 0) return;
    const lines = this.facts.value.split("\n");
    const start = lines.slice(0, place).reduce((sum, line) => sum + line.length + 1, 0);
    this.facts.focus();
    this.facts.setSelectionRange(start, start + (lines[place]?.length ?? 0));
  }
}

// Generations that a relation puts its bearer above the other.
function above(relation) {
  const word = relation.toLowerCase();
  const steps = 1 + word.split("great-").length - 1 + (word.includes("grand") ? 1 : 0);
  return word.endsWith("parent") ? steps : word.endsWith("child") ? -steps : 0;
}

// A row a generation, the eldest on top.
function standing(people, facts) {
  const level = new Map();
  for (const start of people) {
    if (level.has(start)) continue;
    level.set(start, 0);
    const queue = [start];
    for (const name of queue)
      for (const [one, relation, other] of facts) {
        const [next, offset] = one === name ? [other, above(relation)] : other === name ? [one, -above(relation)] : [];
        if (next === undefined || level.has(next)) continue;
        level.set(next, level.get(name) + offset);
        queue.push(next);
      }
  }
  const levels = [...new Set(level.values())].sort((a, b) => a - b);
  const points = new Map();
  levels.forEach((value, row) => {
    const here = people.filter((name) => level.get(name) === value);
    here.forEach((name, place) => {
      const shift = levels.length > 2 && here.length === 1 ? 0.06 * Math.sin(row * 2.3) : 0;
      const y = levels.length === 1 ? 0.5 : 0.06 + (0.88 * row) / (levels.length - 1);
      points.set(JSON.stringify(name), { x: (place + 1) / (here.length + 1) + shift, y });
    });
  });
  return points;
}
