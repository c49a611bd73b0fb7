// The page: one model and its board, the terms, runs of the problem on the board, and what they have shown.

import { Refusal, cancel, json, stream } from "./api.js";
import { openBoard } from "./boards/open.js";
import { samplesOf } from "./boards/samples.js";
import { showCard } from "./card.js";
import { code, startCopy } from "./code.js";
import { clearFaults, showFault } from "./faults.js";
import { Form } from "./form.js";
import { Intervention } from "./intervention.js";
import { askForKey, startKey } from "./key.js";
import { Run, watched } from "./run.js";
import { Runs } from "./runs.js";
import { Strip } from "./strip.js";
import { startTheme } from "./theme.js";
import { Thought, said } from "./thought.js";

const SOON = 1500; // ms: who has seen a run arrive in less sees it again, slowly
const find = (id) => document.getElementById(id);

class Page {
  constructor() {
    Object.assign(this, { models: [], model: null, board: null, sending: null, running: false, stop: null, comparing: false });
    this.form = new Form(find("form"), { turned: () => this.think(), changed: () => this.changed() });
    this.runs = new Runs(() => this.redraw(true));
    this.thought = new Thought({
      stepped: () => this.paint(),
      picked: (token) => this.intervention.pick(token, false, this.step),
    });
    this.intervention = new Intervention({ chose: () => this.paint(), acts: (act, words) => this.intervene(act, words) });
    find("run").addEventListener("click", () => this.think());
    find("cancel").addEventListener("click", () => cancel(this.sending.id).catch((error) => this.refused(error)));
    find("on").addEventListener("click", () => this.thinkOn());
    find("budgets").addEventListener("click", () => this.compare());
    find("samples").addEventListener("change", (event) => this.load(event.target.value));
    find("request").addEventListener("change", () => this.changed());
    new MutationObserver(() => this.recolour()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  async start() {
    clearFaults();
    try {
      this.models = (await json("v1/models")).models.filter((model) => model.default);
    } catch (error) {
      this.refused(error);
      return;
    }
    find("models").replaceChildren(...this.models.map(({ name }) => choice(name, () => this.open(name))));
    const wished = decodeURIComponent(location.hash.slice(1));
    const first = this.models.find(({ name }) => name === wished) ?? this.models[0];
    if (first) await this.open(first.name);
  }

  async open(name) {
    this.stop?.abort();
    try {
      this.model = await json(`v1/models/${encodeURIComponent(name)}`);
    } catch (error) {
      this.refused(error);
      return;
    }
    document.querySelector(`#models input[value="${CSS.escape(name)}"]`).checked = true;
    history.replaceState(null, "", `#${encodeURIComponent(name)}`);
    const hooks = { changed: () => this.edited(), picked: (token, more) => this.intervention.pick(token, more, this.step) };
    this.board = openBoard(find("board"), this.model, hooks);
    this.samples = samplesOf(this.model);
    find("samples").replaceChildren(...Object.keys(this.samples).map((sample) => new Option(sample)));
    this.form.open(this.model);
    showCard(find("card"), this.model);
    this.load(Object.keys(this.samples)[0]);
  }

  load(sample) {
    find("samples").value = sample;
    const { points = null, ...problem } = this.samples[sample]();
    this.board.load(problem, points);
    this.edited();
  }

  // Another problem: what was thought about the last one is not about it.
  edited() {
    this.stop?.abort();
    this.thought.pause();
    this.runs.forget();
    this.intervention.choose(new Set());
    clearFaults();
    this.board.mark(null);
    this.redraw();
    this.changed();
  }

  get run() {
    return this.runs.now;
  }

  // The step that is shown.
  get step() {
    return this.run?.steps[this.thought.place]?.step;
  }

  changed() {
    const language = document.querySelector('[name="language"]:checked').value;
    try {
      find("code").textContent = code(language, this.body());
    } catch (error) {
      find("code").textContent = error.message;
    }
    if (this.run) this.redraw();
  }

  body() {
    const body = { model: this.model.name, input: this.board.problem, ...this.form.terms };
    return JSON.parse(JSON.stringify(body));
  }

  async think(more = {}, title = null, before = null) {
    let body;
    clearFaults();
    this.board.mark(null);
    try {
      body = more.continue_from ? more : { ...this.body(), ...more };
    } catch (error) {
      this.refused(error);
      return null;
    }
    this.stop?.abort();
    const stop = (this.stop = new AbortController());
    const { criterion } = body.halting ?? {};
    const words = title ?? `${count(body.max_steps)}${criterion === "none" ? "" : ` or ${criterion ?? "its rule"}`}`;
    const run = (this.sending = new Run(watched(this.model, body, this.form.keep), words));
    if (before) run.goesOnFrom(before);
    this.thought.pause();
    this.busy(true);
    const began = performance.now();
    try {
      for await (const event of stream(run.body, run.id, stop.signal)) {
        if (stop.signal.aborted) return null;
        if (event.event === "done") run.finish(event);
        else run.add(event);
        if (this.run !== run) this.runs.keep(run);
        this.soon();
      }
    } catch (error) {
      if (stop.signal.aborted) return null;
      this.refused(error instanceof Refusal ? error : new Refusal(0, { message: `the connection to the server broke (${error.message}); try again` }));
    } finally {
      if (this.stop === stop) this.busy(false);
    }
    this.ended(run, performance.now() - began < SOON);
    return run;
  }

  ended(run, replay) {
    if (this.run !== run) return;
    this.redraw(true);
    if (!run.done) return;
    find("said").textContent = `${said(run.result)} after ${run.result.steps} steps: ${run.result.halt_reason}`;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (replay && !still && run.length > 1 && !this.comparing) this.thought.play(0);
  }

  busy(running) {
    this.running = running;
    this.allow();
    document.body.setAttribute("aria-busy", running);
  }

  allow() {
    find("cancel").disabled = !this.running;
    find("on").disabled = this.running || !this.run?.done || !this.run.body.keep;
  }

  soon() {
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this.redraw(true);
    });
  }

  redraw(follow = false) {
    const { run } = this;
    const names = this.board?.names ?? [];
    const floor = Number(find("min_steps").value) || this.model?.halting.min_steps || 1;
    this.thought.show(run, { names, halts: (name) => this.form.ruleOf(name), floor, others: this.runs.others, follow });
    this.intervention.show(run, names);
    this.allow();
    this.runs.show();
    this.paint();
  }

  // The step that is shown, on the board.
  paint() {
    const { chosen } = this.intervention;
    this.thought.choose(chosen);
    this.board?.show(this.run?.length ? this.run.frame(this.thought.place) : null, chosen);
  }

  recolour() {
    if (this.model) showCard(find("card"), this.model);
    this.redraw();
  }

  thinkOn() {
    const { run } = this;
    const steps = Math.min(this.model.steps.limit, Math.max(this.form.budget, run.result.steps + Math.max(4, run.result.steps)));
    const more = { continue_from: run.id, max_steps: steps, halting: { criterion: "none" } };
    return this.think(more, `thinking on to ${steps}`, run);
  }

  // 1, 2, 4 … up to the dial, each to its end.
  async compare() {
    const most = this.form.budget;
    const budgets = Array.from({ length: 13 }, (_, power) => 2 ** power).filter((steps) => steps < most);
    this.comparing = true;
    for (const steps of [...budgets, most].slice(-8))
      if (!(await this.think({ max_steps: steps, min_steps: undefined, halting: { criterion: "none" } }, count(steps)))?.done) break;
    this.comparing = false;
  }

  async intervene(act, words) {
    const compared = this.model.readout.kind === "tensor" ? {} : { paired: true };
    const run = await this.think({ interventions: [act], ...compared }, words);
    if (run?.result?.effect) this.intervention.tell(run.result.effect);
  }

  refused(error) {
    if (error.status === 401) askForKey(true);
    this.board?.mark(error.field ?? null, error.message);
    showFault(error.field ?? null, error.message);
  }
}

function choice(name, chosen) {
  const [label, input] = [document.createElement("label"), document.createElement("input")];
  Object.assign(input, { type: "radio", name: "model", value: name });
  input.addEventListener("change", chosen);
  label.append(input, name);
  return label;
}

const count = (steps) => (steps === 1 ? "1 step" : `${steps} steps`);

startTheme(find("theme"));
startCopy(find("copy"), find("code"));
const page = new Page();
startKey(() => page.start());
new Strip(find("strip"));
page.start();
