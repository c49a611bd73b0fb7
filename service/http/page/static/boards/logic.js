// An expression with its brackets as nested boxes; every character is a token, and so is the pair around all.

import { ink, mixed } from "../views/canvas.js";

export class LogicBoard {
  constructor(element, { changed, picked }) {
    Object.assign(this, { picked, spans: [], text: "" });
    element.innerHTML = `
      <label class="stack">expression
        <textarea rows="2" spellcheck="false" autocapitalize="off" data-field="input.expression" class="mono"></textarea></label>
      <p class="soft">T and F are true and false; <kbd>!</kbd> not, <kbd>&amp;</kbd> and, <kbd>|</kbd> or. Every box is a pair of brackets; the outermost one is read for the answer.</p>
      <div class="boxes" tabindex="-1"></div>`;
    this.input = element.querySelector("textarea");
    this.boxes = element.querySelector(".boxes");
    this.input.addEventListener("input", () => {
      this.text = this.input.value;
      this.build();
      changed();
    });
    for (const event of ["keyup", "click", "blur"]) this.input.addEventListener(event, () => this.follow());
    this.boxes.addEventListener("click", (event) => {
      const token = event.target.closest("[data-token]");
      if (token) this.picked(Number(token.dataset.token), event.shiftKey);
    });
  }

  get problem() {
    return { expression: this.text };
  }

  get names() {
    return ["(", ...this.text.replace(/\s+/g, ""), ")"].map((character, place) => `${character} ${place}`);
  }

  load({ expression }) {
    this.input.value = this.text = expression;
    this.build();
  }

  // A box for every pair; a bracket without a partner is a character like any other.
  build() {
    this.boxes.replaceChildren();
    const characters = [...this.text].map((character, place) => [character, place]).filter(([one]) => one.trim());
    const partner = partners(characters.map(([one]) => one));
    const outer = box(0, this.boxes);
    this.spans = [token("(", 0, null, outer)];
    const open = [outer];
    characters.forEach(([character, place], index) => {
      if (character === "(" && partner.has(index)) open.push(box(open.length, open.at(-1)));
      this.spans.push(token(character, index + 1, place, open.at(-1)));
      if (character === ")" && partner.has(index)) open.pop();
    });
    this.spans.push(token(")", characters.length + 1, null, outer));
  }

  // The box that the caret stands in.
  follow() {
    for (const one of this.boxes.querySelectorAll(".here")) one.classList.remove("here");
    if (document.activeElement !== this.input) return;
    const span = this.spans.find((one) => Number(one.dataset.place ?? -1) >= this.input.selectionStart - 1 && one.dataset.place);
    span?.parentElement.classList.add("here");
  }

  show(frame, chosen = new Set()) {
    const live = frame && frame.tokens === this.spans.length ? frame : null;
    const colours = { shallow: ink("shallow"), deep: ink("deep"), wave: ink("wave") };
    this.spans.forEach((span, place) => paint(span, live, place, chosen, colours));
  }

  mark(field, message = "") {
    for (const span of this.spans) span.classList.remove("wrong");
    const place = /character (\d+)/.exec(message)?.[1];
    if (field && place) this.spans.find((span) => Number(span.dataset.place) === place - 1)?.classList.add("wrong");
  }
}

// A token as a step shows it: tinted by its state, with a glow where it moves.
export function paint(span, live, place, chosen, colours) {
  const [tint, glow] = live ? [live.tint[place], live.glow[place]] : [0, 0];
  span.style.background = live ? mixed(colours.shallow, colours.deep, tint) : "";
  span.style.color = live ? `var(--on-${tint > 0.5 ? "deep" : "shallow"})` : "";
  span.style.boxShadow = glow > 0.02 ? `0 0 ${Math.round(3 + 11 * glow)}px ${Math.round(4 * glow)}px ${colours.wave}` : "";
  span.classList.toggle("chosen", chosen.has(place));
}

function box(level, parent) {
  const made = document.createElement("span");
  made.className = `box level-${level % 5}`;
  parent.append(made);
  return made;
}

function token(character, place, source, parent) {
  const made = document.createElement("span");
  made.className = "token";
  made.textContent = character;
  made.dataset.token = place;
  if (source !== null) made.dataset.place = source;
  parent.append(made);
  return made;
}

function partners(characters) {
  const [found, open] = [new Set(), []];
  characters.forEach((character, place) => {
    if (character === "(") open.push(place);
    if (character === ")" && open.length) found.add(open.pop()).add(place);
  });
  return found;
}
