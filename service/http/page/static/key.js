// The field for an API key: kept in this tab only.

import { key } from "./api.js";

const find = (id) => document.getElementById(id);

export function askForKey(open) {
  find("key-panel").hidden = !open;
  find("key-open").setAttribute("aria-expanded", open);
  if (open) find("key").focus();
}

// given(): there is another key.
export function startKey(given) {
  find("key-open").addEventListener("click", () => askForKey(find("key-panel").hidden));
  find("key-panel").addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(find("key").value.trim());
    askForKey(false);
    given();
  });
}
