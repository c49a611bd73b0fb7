// Acting on a thought: which tokens are chosen, and what is done to their state before which step.

const find = (id) => document.getElementById(id);

export class Intervention {
  // chose(): other tokens are chosen; acts(act, words): somebody wants it done.
  constructor({ chose, acts }) {
    Object.assign(this, { chosen: new Set(), names: [], run: null, chose });
    const op = find("act-op");
    op.addEventListener("change", () => (find("act-value").disabled = ["zero", "mean"].includes(op.value)));
    find("act-tokens").addEventListener("change", () => this.choose(new Set(this.typed.filter(Number.isInteger)), false));
    find("act").addEventListener("submit", (event) => {
      event.preventDefault();
      acts(this.act, `${op.value} ${this.whom} before step ${find("act-step").value}`);
    });
  }

  pick(token, more, step) {
    const chosen = new Set(more ? this.chosen : []);
    if (this.chosen.has(token)) chosen.delete(token);
    else chosen.add(token);
    this.choose(chosen);
    if (step) find("act-step").value = Math.max(2, step);
  }

  // Tokens are written down where they are what interventions count: places along the first axis.
  choose(chosen, write = !this.run || this.run.axis === this.run.tokens) {
    this.chosen = chosen;
    if (write) find("act-tokens").value = chosen.size ? [...chosen].join(", ") : "all";
    find("effect").textContent = "";
    this.chose();
  }

  // What stands in the field: numbers, and words as they are, which the server refuses in its own words.
  get typed() {
    const words = find("act-tokens").value.split(/[\s,]+/).filter(Boolean);
    return words.map((word) => (/^-?\d+$/.test(word) ? Number(word) : word));
  }

  get act() {
    const { typed } = this;
    const act = { step: Number(find("act-step").value), op: find("act-op").value, tokens: typed.includes("all") ? "all" : typed };
    const value = find("act-value");
    return value.disabled || value.value === "" ? act : { ...act, value: Number(value.value) };
  }

  get whom() {
    const { typed } = this;
    return typed.includes("all") ? "all" : typed.map((token) => this.names[token] ?? token).join(", ");
  }

  show(run, names) {
    Object.assign(this, { run, names });
    find("act").hidden = !run?.tokens;
  }

  tell({ kl, answer_changed: changed }) {
    const far = kl === null ? "" : `; its probabilities are ${Number(kl.toPrecision(3))} nats away`;
    find("effect").textContent = `${changed ? "Another answer than" : "The same answer as"} without it${far}.`;
  }
}
