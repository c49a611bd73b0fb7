// The terms of a request: the dial and everything beside it, as the fields of /v1/infer.

const FIRST = 16; // where the dial stands at first

export class Form {
  // turned(): the dial has come to rest somewhere else; changed(): any field is another.
  constructor(element, { turned, changed }) {
    this.element = element;
    element.innerHTML = `
      <div class="dial">
        <label for="dial">Step budget <span class="soft">max_steps</span></label>
        <input id="max" type="number" min="1" inputmode="numeric" aria-label="Step budget, as a number" data-field="max_steps">
        <input id="dial" type="range" min="0" max="1000">
        <div class="ticks" aria-hidden="true"></div>
      </div>
      <p class="soft">A step applies the same block once more. Turn the dial down, and the answer comes before the evidence has arrived; turn it up, and the model stops by itself once it is done.</p>
      <div class="row">
        <label class="grow">Stop earlier when <select id="criterion" data-field="halting.criterion"></select></label>
        <label>threshold <input id="threshold" type="number" step="any" data-field="halting.threshold"></label>
        <label>patience <input id="patience" type="number" min="1" placeholder="1" data-field="halting.patience"></label>
        <label hidden>accuracy <input id="target" type="number" step="any" value="0.99" data-field="halting.target_accuracy"></label>
      </div>
      <p class="soft" id="meaning"></p>
      <details><summary>Floor, deadline, samples</summary>
        <div class="row">
          <label>min_steps <input id="min_steps" type="number" min="1" data-field="min_steps"></label>
          <label>deadline, ms <input id="deadline_ms" type="number" min="0" step="any" data-field="deadline_ms"></label>
          <label>aggregate <select id="aggregate" data-field="aggregate"><option value="">last</option><option>mode</option><option>mean</option></select></label>
        </div>
        <div class="row">
          <label>samples <input id="count" type="number" min="1" max="64" data-field="samples.count"></label>
          <label>noise <input id="noise" type="number" min="0" step="any" placeholder="0.1" data-field="samples.noise"></label>
          <label>seed <input id="seed" type="number" min="0" placeholder="0" data-field="samples.seed"></label>
          <label>choose <select id="choose" data-field="samples.choose"><option>majority</option><option>surest</option></select></label>
        </div>
        <div class="row">
          <label class="inline"><input id="keep" type="checkbox" checked data-field="keep"> hold the thought for two minutes, to think on</label>
          <label class="inline"><input id="auto" type="checkbox" checked> think again whenever the dial is turned</label>
        </div>
      </details>`;
    const turn = () => {
      clearTimeout(this.timer);
      changed();
      if (this.field("auto").checked) this.timer = setTimeout(turned, 180);
    };
    this.field("dial").addEventListener("input", (event) => {
      this.field("max").value = this.stepsAt(Number(event.target.value) / 1000);
      this.word();
      turn();
    });
    this.field("dial").addEventListener("keydown", (event) => {
      const change = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      const factor = { PageUp: 2, PageDown: 0.5 }[event.key];
      if (!change && !factor) return;
      event.preventDefault();
      this.budget = factor ? this.budget * factor : this.budget + change;
      turn();
    });
    this.field("max").addEventListener("change", () => {
      this.budget = this.budget;
      turn();
    });
    this.field("criterion").addEventListener("change", () => this.chosen());
    element.addEventListener("input", (event) => event.target.id !== "dial" && changed());
    element.addEventListener("submit", (event) => event.preventDefault());
  }

  field(id) {
    return this.element.querySelector(`#${id}`);
  }

  open(model) {
    this.model = model;
    this.limit = model.steps.limit;
    const { criterion, threshold } = model.halting;
    const own = criterion === "none" ? "never: all steps" : `its own rule: ${criterion}, ${threshold}`;
    const options = [["", own], ...model.criteria.map((name) => [name, name === "none" ? "never: all steps" : name])];
    if (model.calibration) options.push(["target", "sure enough: a target accuracy"]);
    this.field("criterion").replaceChildren(...options.map(([value, word]) => new Option(word, value)));
    this.field("max").max = this.limit;
    const ticks = [1, 4, 16, 64, 256, 1024, 4096].filter((steps) => steps <= this.limit);
    const marks = ticks.map((steps) => {
      const mark = document.createElement("span");
      mark.textContent = steps;
      mark.style.left = `${100 * this.shareOf(steps)}%`;
      return mark;
    });
    this.element.querySelector(".ticks").replaceChildren(...marks);
    this.budget = Math.min(FIRST, this.limit);
    this.chosen();
  }

  get budget() {
    return Math.round(Number(this.field("max").value)) || 1;
  }

  set budget(steps) {
    const within = Math.max(1, Math.min(this.limit, Math.round(steps)));
    this.field("max").value = within;
    this.field("dial").value = 1000 * this.shareOf(within);
    this.word();
  }

  word() {
    const dial = this.field("dial");
    dial.setAttribute("aria-valuetext", `${this.budget} steps`);
    dial.style.setProperty("--share", `${Number(dial.value) / 10}%`);
  }

  // Doubling the budget is the same way on the dial everywhere.
  shareOf(steps) {
    return this.limit > 1 ? Math.log(steps) / Math.log(this.limit) : 0;
  }

  stepsAt(share) {
    return Math.max(1, Math.round(this.limit ** share));
  }

  get rule() {
    const name = this.field("criterion").value || this.model.halting.criterion;
    return { name, ...this.model.rules?.[name] };
  }

  // What a row would halt by: {name, above, threshold, patience}, or null.
  get halts() {
    const { name, halts, default: usual } = this.rule;
    const own = this.field("criterion").value === "";
    if (name === "none" || name === "target") return null;
    const given = this.field("threshold").value;
    const threshold = given !== "" ? Number(given) : own ? this.model.halting.threshold : (usual ?? null);
    const patience = Number(this.field("patience").value) || (own ? this.model.halting.patience : 1);
    return threshold === null ? null : { name, above: halts === "above", threshold, patience };
  }

  // By what a score would halt: the request's rule, else the usual threshold; or null.
  ruleOf(name) {
    const own = this.halts;
    if (own?.name === name) return { ...own, own: true };
    const usual = this.model.rules?.[name];
    return usual ? { above: usual.halts === "above", threshold: usual.default, patience: 1 } : null;
  }

  chosen() {
    const value = this.field("criterion").value;
    const { name, default: usual, meaning } = this.rule;
    this.field("threshold").value = "";
    this.field("threshold").placeholder = value === "" ? this.model.halting.threshold : (usual ?? "");
    for (const id of ["threshold", "patience"])
      this.field(id).parentElement.hidden = value === "" || value === "none" || value === "target";
    this.field("target").parentElement.hidden = value !== "target";
    const halts = { above: "at or above the threshold", below: "at or below the threshold" }[this.rule.halts];
    this.field("meaning").textContent =
      value === "target"
        ? "The cheapest threshold whose guarantee, measured when the model was calibrated, keeps this accuracy."
        : name === "none"
          ? "Exactly as many steps as the budget says."
          : `${name}${meaning ? `: ${meaning}` : ""}; stops ${halts ?? "by the threshold"}.`;
  }

  get terms() {
    const number = (id) => (this.field(id).value === "" ? undefined : Number(this.field(id).value));
    const criterion = this.field("criterion").value;
    const rule =
      criterion === "target"
        ? { target_accuracy: number("target") }
        : criterion && criterion !== "none"
          ? { criterion, threshold: number("threshold"), patience: number("patience") }
          : { criterion };
    const count = number("count");
    return {
      max_steps: number("max"),
      min_steps: number("min_steps"),
      halting: criterion ? rule : undefined,
      deadline_ms: number("deadline_ms"),
      aggregate: this.field("aggregate").value || undefined,
      samples: count
        ? { count, noise: number("noise"), seed: number("seed"), choose: this.field("choose").value }
        : undefined,
    };
  }

  get keep() {
    return this.field("keep").checked && !this.field("count").value ? 120 : undefined;
  }
}
