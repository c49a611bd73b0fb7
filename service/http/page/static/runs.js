// The runs of the problem on the board, side by side.

import { percent, said } from "./thought.js";

const MOST = 8;
const find = (id) => document.getElementById(id);

export class Runs {
  // looked(): another run, or none, is the one to look at.
  constructor(looked) {
    Object.assign(this, { all: [], now: null, looked });
    find("clear").addEventListener("click", () => {
      this.forget();
      looked();
    });
  }

  get others() {
    return this.all.filter((run) => run !== this.now);
  }

  // The one to look at; it takes the place of one that asked the same.
  keep(run) {
    this.now = run;
    this.all = [...this.all.filter((one) => one.title !== run.title), run].slice(-MOST);
  }

  forget() {
    [this.all, this.now] = [[], null];
  }

  look(run) {
    this.now = run;
    this.looked();
  }

  drop(run) {
    this.all = this.all.filter((one) => one !== run);
    if (this.now === run) this.now = this.all.at(-1) ?? null;
    this.looked();
  }

  show() {
    find("runs").hidden = this.all.length < 2;
    find("run-rows").replaceChildren(...this.all.map((run) => this.row(run)));
  }

  row(run) {
    const row = document.createElement("tr");
    row.classList.toggle("current", run === this.now);
    const { result, done } = run;
    const sure = typeof result?.label === "string" ? percent(result.probabilities?.[result.label]) : "";
    const times = done ? [done.timings_ms.queue, done.timings_ms.compute].map((ms) => ms.toFixed(1)) : ["–", "–"];
    const cells = [result ? said(result) : "…", sure, result?.steps ?? run.length, result?.halt_reason ?? "–", ...times];
    const look = button(run.title, () => this.look(run));
    look.setAttribute("aria-pressed", run === this.now);
    row.append(cell(look), ...cells.map(cell), cell(button("×", () => this.drop(run), `Remove ${run.title}`)));
    return row;
  }
}

function cell(content) {
  const made = document.createElement("td");
  made.append(content);
  return made;
}

function button(words, pressed, label = words) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: words });
  made.setAttribute("aria-label", label);
  made.addEventListener("click", pressed);
  return made;
}
