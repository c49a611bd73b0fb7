// A graph that one draws: nodes are dragged, linked, made source or target; and shows the wave in it.

import { Surface } from "../views/canvas.js";
import { layered } from "./layout.js";
import { EDGE, drawGraph, spotOf } from "./picture.js";

const TOOLS = [
  ["move", "Move", "Drag a node; click one to pick it"],
  ["link", "Draw", "Click for a node, drag from one to another for an edge"],
  ["source", "Source", "Click the node to start from"],
  ["target", "Target", "Click the node to look for"],
  ["erase", "Erase", "Click a node or an edge"],
];

export class GraphBoard {
  // changed(): the problem is another; picked(token, more): somebody chose a node.
  constructor(element, { changed, picked }) {
    Object.assign(this, { changed, picked, tool: "move", frame: null, chosen: new Set(), bad: null, drawn: null });
    Object.assign(this, { edges: [], points: new Map(), source: null, target: null, dragged: null });
    element.innerHTML = `
      <div class="toolbar" role="radiogroup" aria-label="What a click does">${TOOLS.map(([name, word, hint]) =>
        `<label title="${hint}"><input type="radio" name="tool" value="${name}"${name === "move" ? " checked" : ""}> ${word}</label>`).join("")}
        <button type="button" class="tidy">Tidy up</button></div>
      <canvas class="drawing" tabindex="0" role="application"
        aria-label="The graph. Arrow keys go from node to node, Enter picks one, with Shift arrows move it, S and T make it source and target, N adds a node after it, Delete removes it."></canvas>
      <details class="plain"><summary>As text</summary><div class="row">
        <label class="grow">edges, one a line <textarea rows="5" spellcheck="false" data-field="input.edges"></textarea></label>
        <div class="stack"><label>source <input class="source" data-field="input.source"></label>
        <label>target <input class="target" data-field="input.target"></label></div></div></details>`;
    this.canvas = element.querySelector("canvas");
    this.text = element.querySelector("textarea");
    this.ends = { source: element.querySelector(".source"), target: element.querySelector(".target") };
    this.surface = new Surface(this.canvas, () => {}, (pen, width, height) => drawGraph(this, pen, width, height));
    element.querySelector(".toolbar").addEventListener("change", (event) => (this.tool = event.target.value));
    element.querySelector(".tidy").addEventListener("click", () => this.tidy());
    for (const field of [this.text, ...Object.values(this.ends)]) field.addEventListener("input", () => this.read());
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.drag(event));
    this.canvas.addEventListener("pointerup", (event) => this.up(event));
    this.canvas.addEventListener("keydown", (event) => this.press(event));
  }

  // Nodes in the order of their tokens: that of their first appearance, then those without an edge.
  get keys() {
    const seen = new Set(this.edges.flatMap((edge) => edge.map((name) => JSON.stringify(name))));
    return [...seen, ...[...this.points.keys()].filter((key) => !seen.has(key))];
  }

  get names() {
    return this.keys.map((key) => String(JSON.parse(key)));
  }

  get problem() {
    const { edges, source, target } = this;
    const alone = this.keys.length > new Set(edges.flat().map((name) => JSON.stringify(name))).size;
    return { edges, source, target, ...(alone ? { nodes: this.keys.map((key) => JSON.parse(key)) } : {}) };
  }

  load({ edges, source, target, nodes }, points = null) {
    this.edges = edges.map((edge) => [...edge]);
    [this.source, this.target] = [source, target];
    this.points = new Map((nodes ?? []).map((name) => [JSON.stringify(name), null]));
    if (points) this.points = points;
    else this.tidy();
    this.write();
  }

  tidy() {
    const keyed = this.edges.filter((edge) => edge.length === 2).map((edge) => edge.map((name) => JSON.stringify(name)));
    this.points = layered(this.keys, keyed, JSON.stringify(this.source));
    this.surface.moved();
  }

  write() {
    this.text.value = this.edges.map((edge) => edge.join(" -> ")).join("\n");
    this.ends.source.value = this.source ?? "";
    this.ends.target.value = this.target ?? "";
  }

  // What was typed, as it stands: what is wrong with it the server says.
  read() {
    const known = new Map(this.keys.map((key) => [String(JSON.parse(key)), JSON.parse(key)]));
    const named = (word) => known.get(word) ?? word;
    const lines = this.text.value.split("\n").filter((line) => line.trim());
    this.edges = lines.map((line) => line.split(/\s*(?:->|→|,|\s)\s*/).filter(Boolean).map(named));
    [this.source, this.target] = [named(this.ends.source.value), named(this.ends.target.value)];
    const kept = this.points;
    this.points = new Map();
    this.tidy();
    for (const [key, point] of kept) if (this.points.has(key) && point) this.points.set(key, point);
    this.edited();
  }

  edited(written = false) {
    this.frame = this.bad = null;
    if (written) this.write();
    this.surface.moved();
    this.changed();
  }

  show(frame, chosen = new Set()) {
    Object.assign(this, { frame, chosen });
    this.surface.moved();
  }

  mark(field) {
    this.bad = field === null ? null : Number(/^input\.edges\.(\d+)/.exec(field)?.[1] ?? -1);
    if (field) this.text.closest("details").open = true;
    this.surface.moved();
  }

  get tags() {
    const [source, target] = [this.source, this.target].map((name) => JSON.stringify(name));
    return source === target ? [["source, target", source]] : [["source", source], ["target", target]];
  }

  get radius() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return Math.max(5, Math.min(17, 0.14 * Math.sqrt((width * height) / this.points.size)));
  }

  spot(key) {
    return spotOf(this, key, this.canvas.clientWidth, this.canvas.clientHeight);
  }

  under(event) {
    const near = (key) => {
      const [x, y] = this.spot(key);
      return Math.hypot(event.offsetX - x, event.offsetY - y);
    };
    const best = [...this.points.keys()].sort((a, b) => near(a) - near(b))[0];
    return best !== undefined && near(best) <= Math.max(this.radius + 4, 12) ? best : null;
  }

  place(event) {
    const share = (value, size) => Math.max(0, Math.min(1, (value - EDGE) / (size - 2 * EDGE)));
    return { x: share(event.offsetX, this.canvas.clientWidth), y: share(event.offsetY, this.canvas.clientHeight) };
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    const key = this.under(event);
    if (this.tool === "link" && key === null) {
      this.add(this.place(event));
    } else if (this.tool === "erase") {
      if (key !== null) this.erase(key);
      else this.eraseEdge(event);
    } else if (key !== null && (this.tool === "source" || this.tool === "target")) {
      this[this.tool] = JSON.parse(key);
      this.edited(true);
    } else if (key !== null) {
      this.dragged = { key, from: [event.offsetX, event.offsetY], moved: false };
    }
  }

  drag(event) {
    this.canvas.style.cursor = this.under(event) === null ? "default" : "pointer";
    if (!this.dragged) return;
    const { from } = this.dragged;
    this.dragged.moved ||= Math.hypot(event.offsetX - from[0], event.offsetY - from[1]) > 4;
    if (this.tool === "move" && this.dragged.moved) this.points.set(this.dragged.key, this.place(event));
    this.drawn = this.tool === "link" ? [event.offsetX, event.offsetY] : null;
    this.surface.moved();
  }

  up(event) {
    const { dragged } = this;
    this.dragged = this.drawn = null;
    if (!dragged) return;
    const key = this.under(event);
    if (this.tool === "move" && !dragged.moved) this.picked(this.keys.indexOf(dragged.key), event.shiftKey);
    if (this.tool === "link" && dragged.moved) {
      const to = key ?? this.add(this.place(event));
      if (to !== dragged.key) this.edges.push([JSON.parse(dragged.key), JSON.parse(to)]);
      this.edited(true);
    }
    this.surface.moved();
  }

  press(event) {
    const keys = this.keys;
    const at = Math.max(0, keys.indexOf(this.focus));
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    const key = (this.focus = keys[at]);
    if (way && event.shiftKey) {
      const { x, y } = this.points.get(key);
      this.points.set(key, { x: Math.max(0, Math.min(1, x + way[0] / 40)), y: Math.max(0, Math.min(1, y + way[1] / 40)) });
    } else if (way) this.focus = keys[(at + way[0] + way[1] + keys.length) % keys.length];
    else if (event.key === "Enter") this.picked(at, false);
    else if (event.key === "s" || event.key === "t") {
      this[event.key === "s" ? "source" : "target"] = JSON.parse(key);
      this.edited(true);
    } else if (event.key === "n") {
      const { x, y } = this.points.get(key) ?? { x: 0, y: 0.5 };
      const to = this.add({ x: Math.min(1, x + 0.1), y: Math.min(1, y + 0.08) });
      if (key) this.edges.push([JSON.parse(key), JSON.parse(to)]);
      this.focus = to;
      this.edited(true);
    } else if (event.key === "Delete" || event.key === "Backspace") this.erase(key);
    else return;
    event.preventDefault();
    this.surface.moved();
  }

  add(point) {
    const taken = new Set(this.names);
    const letters = Array.from({ length: 26 }, (_, place) => String.fromCharCode(97 + place));
    const name = letters.find((letter) => !taken.has(letter)) ?? `n${[...Array(9999).keys()].find((n) => !taken.has(`n${n}`))}`;
    const key = JSON.stringify(name);
    this.points.set(key, point);
    this.edited(true);
    return key;
  }

  erase(key) {
    this.points.delete(key);
    this.edges = this.edges.filter((edge) => !edge.some((name) => JSON.stringify(name) === key));
    this.edited(true);
  }

  eraseEdge(event) {
    const far = (edge) => {
      const [[ax, ay], [bx, by]] = edge.map((name) => this.spot(JSON.stringify(name)));
      const along = ((event.offsetX - ax) * (bx - ax) + (event.offsetY - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2 || 1);
      const t = Math.max(0, Math.min(1, along));
      return Math.hypot(event.offsetX - ax - t * (bx - ax), event.offsetY - ay - t * (by - ay));
    };
    const best = this.edges.reduce((a, edge) => (a === null || far(edge) < far(a) ? edge : a), null);
    if (best === null || far(best) > 10) return;
    this.edges = this.edges.filter((edge) => edge !== best);
    this.edited(true);
  }
}
