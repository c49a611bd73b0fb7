// What a run has shown: the verdict, the player, the charts, the table of steps.

import { ink } from "./views/canvas.js";
import { Heat } from "./views/heat.js";
import { Lines, short } from "./views/lines.js";
import { Path } from "./views/path.js";
import { Scores } from "./views/scores.js";

const PALETTE = ["accent", "wave", "good", "bad", "soft", "rim"]; // colours of answers
const PLAY = [350, 4500]; // ms a step, ms for all at most
const ROWS = 1024; // of the table
const FEW = 24; // answers that are shown one by one

const find = (id) => document.getElementById(id);

export class Thought {
  // stepped(place): another step is shown; picked(token, place, more): a token was chosen.
  constructor({ stepped, picked }) {
    Object.assign(this, { stepped, run: null, place: 0, names: [], chosen: new Set(), timer: 0 });
    this.probability = new Lines(find("probability"), (place) => this.go(place));
    this.heat = new Heat(
      find("heat"),
      (place, token) => {
        this.go(place);
        picked(token, place);
      },
      (place, token) => this.hovered(place, token),
    );
    this.path = new Path(find("path"));
    this.scores = new Scores(find("scores"), (place) => this.go(place));
    find("scrub").addEventListener("input", (event) => this.go(Number(event.target.value) - 1));
    find("back").addEventListener("click", () => this.go(this.place - 1));
    find("forth").addEventListener("click", () => this.go(this.place + 1));
    find("play").addEventListener("click", () => (this.timer ? this.pause() : this.play()));
    find("steps-table").addEventListener("toggle", () => this.table());
  }

  // run null: nothing to show. follow: stay at the newest step.
  show(run, { names, halts, floor, others = [], follow = false }) {
    Object.assign(this, { run, names });
    const some = Boolean(run?.length);
    for (const id of ["player", "views", "steps-table"]) find(id).hidden = !some;
    find("empty").hidden = some;
    if (!some) return;
    find("scrub").max = run.length;
    this.answers(others);
    if (run.tokens) {
      this.heat.show(run, names);
      this.path.show(run, names);
    }
    for (const id of ["heat", "path"]) find(id).parentElement.hidden = !run.tokens;
    this.scores.show(run.steps, halts, floor);
    this.at(follow ? run.length - 1 : Math.min(this.place, run.length - 1));
    this.table();
  }

  go(place) {
    this.pause();
    if (this.run) this.at(Math.max(0, Math.min(this.run.length - 1, place)));
  }

  at(place) {
    this.place = place;
    find("scrub").value = place + 1;
    find("scrub").setAttribute("aria-valuetext", `step ${this.run.steps[place].step}: ${said(this.run.steps[place])}`);
    find("at").value = `step ${this.run.steps[place].step} of ${this.run.steps.at(-1).step}`;
    this.verdict();
    this.probability.at(place);
    this.scores.at(place);
    this.mark();
    this.stepped(place);
  }

  choose(chosen) {
    this.chosen = chosen;
    if (this.run?.length) this.mark();
  }

  mark() {
    this.heat.at(this.place, this.chosen);
    this.path.at(this.place, this.chosen);
  }

  play(from = this.place + 1 < this.run.length ? this.place : 0) {
    this.pause();
    this.at(from);
    find("play").textContent = "❚❚";
    const began = performance.now();
    const pace = Math.min(PLAY[0], PLAY[1] / this.run.length);
    const tick = () => {
      const place = from + Math.floor((performance.now() - began) / pace);
      if (place >= this.run.length - 1) {
        this.at(this.run.length - 1);
        this.pause();
        return;
      }
      if (place !== this.place) this.at(place);
      this.timer = requestAnimationFrame(tick);
    };
    this.timer = requestAnimationFrame(tick);
  }

  pause() {
    cancelAnimationFrame(this.timer);
    this.timer = 0;
    find("play").textContent = "▶";
  }

  verdict() {
    const { run, place } = this;
    const step = run.steps[place];
    const [answer, why] = [document.createElement("strong"), document.createElement("span")];
    answer.textContent = said(step);
    why.className = "why";
    const ended = place === run.length - 1 && run.result;
    const sure = typeof step.label === "string" ? percent(step.probabilities?.[step.label]) : "";
    why.textContent = [sure, ended ? ending(run) : `after step ${step.step}`].filter(Boolean).join(" · ");
    const warnings = (ended && run.result.warnings) || [];
    const lines = warnings.map((warning) => {
      const line = document.createElement("span");
      line.className = "warning";
      line.textContent = warning;
      return line;
    });
    find("verdict").replaceChildren(answer, why, ...lines);
  }

  answers(others) {
    const { run } = this;
    const first = run.steps[0].probabilities;
    const lines = [];
    if (first && !Array.isArray(first)) {
      const last = run.steps.at(-1).label;
      for (const steps of run.others.values())
        lines.push({ values: steps.map((step) => step.probabilities?.[last]), colour: ink("soft"), faint: true });
      for (const other of others)
        lines.push({ values: other.steps.map((step) => step.probabilities?.[last]), colour: ink("soft"), dashed: true });
      Object.keys(first).forEach((label, place) =>
        lines.push({ values: run.steps.map((step) => step.probabilities?.[label]), colour: ink(PALETTE[place % 6]), label }),
      );
    } else if (Array.isArray(first)) {
      const last = run.steps.at(-1).label;
      const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
      const sure = (step) => mean(step.probabilities.map((one) => Math.max(...Object.values(one))));
      const settled = (step) => mean(step.label.map((label, token) => Number(label === last[token])));
      lines.push({ values: run.steps.map(sure), colour: ink("accent"), label: "mean confidence" });
      lines.push({ values: run.steps.map(settled), colour: ink("wave"), label: "tokens that answer as at the end" });
    }
    find("probability").parentElement.hidden = !lines.length;
    const count = Math.max(run.length, ...lines.map((line) => line.values.length));
    const summary = `Probabilities over ${run.length} steps; at the end ${said(run.steps.at(-1))}.`;
    this.probability.show({ lines, count, low: 0, high: 1, summary });
  }

  hovered(place, token) {
    const moved = place === null ? null : this.run.movement[place];
    const words = moved ? `${this.names[token] ?? token}, step ${this.run.steps[place].step}: ${short(moved[token])}` : "";
    find("heat-note").textContent = words || "relative to its length; the first step has none before it";
  }

  // Made when somebody looks at it.
  table() {
    const place = find("steps-table");
    if (!place.open || !this.run?.length) return;
    const { steps, movement } = this.run;
    const scores = Object.keys(steps[0].scores ?? {});
    const head = ["step", "answer", "most moved", ...scores];
    const rows = steps.slice(0, ROWS).map((step, row) => [
      step.step,
      said(step),
      movement[row] ? short(Math.max(...movement[row])) : "–",
      ...scores.map((name) => short(step.scores[name])),
    ]);
    const cells = (kind, values) => {
      const line = document.createElement("tr");
      line.append(...values.map((value) => Object.assign(document.createElement(kind), { textContent: value })));
      return line;
    };
    const table = document.createElement("table");
    table.append(cells("th", head), ...rows.map((row) => cells("td", row)));
    place.querySelector(".scroll").replaceChildren(table);
  }
}

// Of many answers how many there are of each.
function counted(labels) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([label, count]) => `${count} × ${label}`).join(", ");
}

export const percent = (share) => (share === undefined || share === null ? "" : `${(100 * share).toFixed(1)} %`);

export function said({ label, output }) {
  if (Array.isArray(label)) return label.length > FEW ? counted(label) : label.join(" ");
  if (label === null || label === undefined) return output ? `an output of ${output.shape.join(" × ") || 1}` : "no answer";
  return label;
}

// Why a run ended, in a sentence.
function ending({ result, done }) {
  const steps = `${result.steps} of ${result.max_steps} steps`;
  const reason = {
    halted: `halted by its rule after ${steps}`,
    budget: `all ${result.steps} steps of the budget`,
    deadline: `the deadline came after ${steps}`,
    cancelled: `cancelled after ${steps}`,
    error: `failed: ${result.error ?? ""}`,
  }[result.halt_reason];
  const votes = result.samples && Object.entries(result.samples.votes).map(([label, count]) => `${count} × ${label}`);
  const { queue, compute } = done.timings_ms;
  const times = `${compute.toFixed(1)} ms compute, ${queue.toFixed(1)} ms queue`;
  return [reason, votes && `samples: ${votes.join(", ")}`, times].filter(Boolean).join(" · ");
}
