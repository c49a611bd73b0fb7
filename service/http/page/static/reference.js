// The API, from openapi.json: every operation with its fields, examples to send, and what comes back.

import { json, key, send } from "./api.js";
import { lines } from "./code.js";
import { startTheme } from "./theme.js";

const MOST = 20000; // characters of an answer that are shown
const find = (id) => document.getElementById(id);

function made(kind, { className = "", text = "", ...rest } = {}, ...children) {
  const element = Object.assign(document.createElement(kind), { className, ...rest });
  if (text) element.append(...marked(text));
  element.append(...children);
  return element;
}

// `code` in a sentence.
function marked(text) {
  return text.split("`").map((part, place) => {
    if (place % 2 === 0) return part;
    return Object.assign(document.createElement("code"), { textContent: part });
  });
}

class Operation {
  constructor(api, path, method, described) {
    Object.assign(this, { api, path, method, described, inputs: new Map() });
    const content = described.requestBody?.content?.["application/json"];
    this.content = content;
    this.examples = Object.entries(content?.examples ?? {});
    const head = made("summary", {}, made("span", { className: `method ${method}`, text: method.toUpperCase() }));
    head.append(made("span", { className: "path", text: path }), made("span", { className: "soft", text: described.summary ?? "" }));
    this.element = made("details", { className: "operation", id: `${method}${path}` }, head);
    this.element.addEventListener("toggle", () => this.element.childElementCount === 1 && this.element.append(this.body()), { once: true });
  }

  body() {
    const { described } = this;
    const parts = made("div");
    for (const paragraph of (described.description ?? "").split("\n\n").filter(Boolean)) parts.append(made("p", { text: paragraph }));
    const parameters = (described.parameters ?? []).map((parameter) => this.parameter(parameter));
    if (parameters.length) parts.append(made("div", { className: "row" }, ...parameters));
    if (this.content) parts.append(...this.request());
    const go = made("button", { className: "main", type: "button", text: "Send" });
    this.answer = made("pre", { hidden: true, tabIndex: 0 });
    this.answer.setAttribute("aria-live", "polite");
    go.addEventListener("click", () => this.go());
    parts.append(made("div", { className: "actions" }, go), this.answer);
    if (this.content) parts.append(made("details", {}, made("summary", { text: "Fields of the request" }), this.fields(this.content.schema)));
    parts.append(made("details", {}, made("summary", { text: "What comes back" }), this.responses()));
    return parts;
  }

  parameter({ name, in: where, description = "", examples = {} }) {
    const input = made("input", { placeholder: where === "path" ? "" : "optional", title: description });
    input.value = Object.values(examples)[0]?.value ?? "";
    this.inputs.set(name, { input, where, examples });
    return made("label", { text: `${name} (${where})` }, input);
  }

  request() {
    this.field = made("textarea", { rows: 9, spellcheck: false });
    this.field.setAttribute("aria-label", "Body, JSON");
    const choice = made("select", {}, ...this.examples.map(([name, { summary }]) => new Option(summary ?? name, name)));
    choice.addEventListener("change", () => this.load(choice.value));
    if (this.examples.length) this.load(this.examples[0][0]);
    return [made("label", { className: "inline", text: "Example" }, choice), this.field];
  }

  load(name) {
    this.field.value = lines(Object.fromEntries(this.examples)[name].value);
    for (const { input, examples } of this.inputs.values()) if (examples[name]) input.value = examples[name].value;
  }

  async go() {
    let path = this.path.slice(1);
    const query = new URLSearchParams();
    const headers = this.field ? { "Content-Type": "application/json" } : {};
    for (const [name, { input, where }] of this.inputs) {
      if (where === "path") path = path.replace(`{${name}}`, encodeURIComponent(input.value));
      else if (input.value && where === "query") query.set(name, input.value);
      else if (input.value) headers[name] = input.value;
    }
    this.answer.hidden = false;
    this.answer.textContent = "…";
    try {
      const response = await send(query.size ? `${path}?${query}` : path, { method: this.method.toUpperCase(), headers, body: this.field?.value });
      const text = await response.text();
      this.answer.textContent = `${response.status} ${response.statusText}\n\n${laid(text)}`;
    } catch (error) {
      this.answer.textContent = `the server cannot be reached (${error.message})`;
    }
  }

  responses() {
    const rows = Object.entries(this.described.responses).map(([status, { description, content }]) => {
      const schema = content?.["application/json"]?.schema;
      const cell = made("td", { text: description });
      if (schema?.$ref && status < 300) cell.append(this.nested(schema));
      return made("tr", {}, made("td", { text: status }), cell);
    });
    return made("table", { className: "fields" }, ...rows);
  }

  // A table of an object's fields; objects within it open on demand.
  fields(schema) {
    const { properties = {}, required = [] } = this.resolved(schema);
    const rows = Object.entries(properties).map(([name, field]) => {
      const words = [field.description, field.default !== undefined && field.default !== null && `Default ${JSON.stringify(field.default)}.`];
      const cell = made("td", { text: words.filter(Boolean).join(" ") });
      for (const inner of inside(field)) if (this.resolved(inner).properties) cell.append(this.nested(inner));
      return made("tr", {}, made("td", { text: required.includes(name) ? `${name} *` : name }), made("td", { text: kind(field) }), cell);
    });
    return made("table", { className: "fields" }, ...rows);
  }

  nested(schema) {
    const inner = made("details", {}, made("summary", { text: this.resolved(schema).title ?? "fields" }));
    inner.addEventListener("toggle", () => inner.childElementCount === 1 && inner.append(this.fields(schema)), { once: true });
    return inner;
  }

  resolved(schema) {
    return schema?.$ref ? this.api.components.schemas[schema.$ref.split("/").at(-1)] : (schema ?? {});
  }
}

const inside = ({ anyOf = [], items, ...own }) => [...(own.$ref || own.properties ? [own] : []), ...anyOf, ...(items ? [items] : [])].flatMap((one) => (one.items ? [one.items] : [one]));

function kind({ type, anyOf, $ref, enum: words, const: word, items }) {
  if ($ref) return $ref.split("/").at(-1);
  if (word !== undefined) return JSON.stringify(word);
  if (words) return words.join(" | ");
  if (anyOf) return [...new Set(anyOf.map(kind))].filter(Boolean).join(" or ");
  if (type === "array") return `list of ${items ? kind(items) : "anything"}`;
  return [type ?? "anything"].flat().filter((one) => one !== "null").join(" or ");
}

function laid(text) {
  try {
    text = lines(JSON.parse(text));
  } catch {
    // Not JSON: as it came.
  }
  return text.length > MOST ? `${text.slice(0, MOST)}\n… ${text.length - MOST} more characters` : text;
}

startTheme(find("theme"));
find("key").value = key.get();
find("key").form.addEventListener("submit", (event) => event.preventDefault());
find("key").addEventListener("change", () => key.set(find("key").value.trim()));
const api = await json("openapi.json");
find("version").textContent = api.info.version;
find("about").replaceChildren(...marked(api.info.description));
const sections = new Map();
for (const [path, methods] of Object.entries(api.paths))
  for (const [method, described] of Object.entries(methods)) {
    const tag = described.tags?.[0] ?? "other";
    if (!sections.has(tag)) sections.set(tag, []);
    sections.get(tag).push(new Operation(api, path, method, described));
  }
find("operations").replaceChildren(
  ...[...sections].flatMap(([tag, operations]) => [made("h2", { id: tag, text: tag }), ...operations.map((one) => one.element)]),
);
find("tags").replaceChildren(...[...sections.keys()].map((tag) => made("a", { href: `docs#${encodeURIComponent(tag)}`, text: tag })));
document.getElementById("post/v1/infer")?.setAttribute("open", "");
