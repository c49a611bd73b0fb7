// A problem of a codec that this page has no board for: its JSON.

import { Refusal } from "../api.js";

export class PlainBoard {
  constructor(element, { changed }) {
    element.innerHTML =
      '<label class="stack">problem, as JSON <textarea rows="10" class="mono" spellcheck="false" data-field="input"></textarea></label>';
    this.field = element.querySelector("textarea");
    this.field.addEventListener("input", changed);
    this.names = Array.from({ length: 4096 }, (_, place) => String(place));
  }

  load(problem) {
    this.field.value = JSON.stringify(problem, null, 2);
  }

  get problem() {
    try {
      return JSON.parse(this.field.value);
    } catch (error) {
      throw new Refusal(0, { field: "input", message: `this is not JSON: ${error.message}` });
    }
  }

  show() {}

  mark() {}
}
