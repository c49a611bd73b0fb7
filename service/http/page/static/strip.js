// What the server does now, from /metrics: problems running and waiting, steps a second, how full the slots are.

import { json, text } from "./api.js";

const EVERY = 2000; // ms

export class Strip {
  constructor(element) {
    this.element = element;
    this.before = null;
    this.values = new Map();
    for (const [name, words] of [["state", "server"], ["running", "running"], ["waiting", "waiting"], ["rate", "steps/s"]]) {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = words;
      value.textContent = "–";
      this.values.set(name, value);
      const pair = document.createElement("div");
      pair.append(term, value);
      element.append(pair);
    }
    this.look();
  }

  async look() {
    if (!document.hidden)
      try {
        const [page, ready] = await Promise.all([text("metrics"), json("health/ready").then(() => true, () => false)]);
        const [now, steps] = [performance.now(), sum(page, "fathom_steps_total")];
        const rate = this.before ? (1000 * (steps - this.before.steps)) / (now - this.before.now) : 0;
        this.before = { now, steps };
        this.set({
          state: ready ? "ready" : "not ready",
          running: sum(page, "fathom_running"),
          waiting: sum(page, "fathom_waiting"),
          rate: Math.round(rate).toLocaleString("en"),
        });
      } catch {
        this.before = null;
        this.set({ state: "away", running: "–", waiting: "–", rate: "–" });
      }
    setTimeout(() => this.look(), EVERY);
  }

  set(values) {
    for (const [name, value] of Object.entries(values)) this.values.get(name).textContent = value;
    this.element.dataset.state = values.state;
  }
}

// Over all models.
function sum(page, name) {
  return page
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
    .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}
