// A request as lines to copy: curl, and Python with the client that comes with Fathom.

import { key } from "./api.js";

const WIDE = 64;

export function code(language, body) {
  return language === "python" ? python(body) : curl(body);
}

// A value as JSON that people read.
export const lines = (value) => laid(value, "", JSONS);

const base = () => new URL(".", document.baseURI).href.replace(/\/$/, "");

function curl(body) {
  const secret = key.get() ? ' -H "Authorization: Bearer $FATHOM_API_KEY"' : "";
  const json = lines(body).replaceAll("'", "'\\''");
  return `curl -s ${base()}/v1/infer${secret} -d '${json}'`;
}

function python({ model, input, ...terms }) {
  const named = Object.entries(terms).map(([name, value]) => `        ${name}=${laid(value, "        ", PYTHONS)},\n`);
  const secret = key.get() ? ', api_key=os.environ["FATHOM_API_KEY"]' : "";
  return `${secret ? "import os\n\n" : ""}import fathom

problem = ${laid(input, "", PYTHONS)}
with fathom.Client("${base()}"${secret}) as client:
    answer = client.infer(
        "${model}",
        problem,
${named.join("")}    )
print(answer.results[0].answer)`;
}

const JSONS = { true: "true", false: "false", null: "null" };
const PYTHONS = { true: "True", false: "False", null: "None" };

function plain(value, words) {
  if (value === null || typeof value === "boolean") return words[value];
  if (Array.isArray(value)) return `[${value.map((one) => plain(one, words)).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${plain(one, words)}`).join(", ")}}`;
}

// On one line where it fits; else a line for each part of an object, and long lists filled up.
function laid(value, indent, words) {
  const flat = plain(value, words);
  if (flat.length + indent.length <= WIDE || value === null || typeof value !== "object") return flat;
  const deeper = `${indent}  `;
  if (Array.isArray(value)) {
    const parts = value.map((one) => plain(one, words));
    const wide = parts.some((part) => part.length + deeper.length > WIDE);
    const lines = wide ? value.map((one) => `${laid(one, deeper, words)},`) : filled(parts, WIDE - deeper.length);
    return `[\n${deeper}${lines.join(`\n${deeper}`).replace(/,$/, "")}\n${indent}]`;
  }
  const parts = Object.entries(value)
    .map(([name, one]) => `${deeper}${JSON.stringify(name)}: ${laid(one, deeper, words)}`);
  return `{\n${parts.join(",\n")}\n${indent}}`;
}

function filled(parts, width) {
  const lines = [""];
  for (const part of parts) {
    if (lines.at(-1).length + part.length > width) lines.push("");
    lines[lines.length - 1] += `${lines.at(-1) ? " " : ""}${part},`;
  }
  return lines;
}

export function startCopy(button, code) {
  button.addEventListener("click", async () => {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    const copied = await navigator.clipboard?.writeText(code.textContent).then(() => true, () => false);
    button.textContent = copied ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
