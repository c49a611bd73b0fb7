// A model's card: what it is right about, what its calibration measured, where it comes from.

import { Surface, ink } from "./views/canvas.js";

export function showCard(element, model) {
  const { training = {}, domain, calibration } = model;
  const facts = [
    ["Right about", domain?.sentence ?? "nothing was measured"],
    ["Its limits", Object.entries(domain?.limits ?? {}).map(([name, most]) => `${most} ${name}`).join(", ")],
    ["Answers", (model.classes ?? []).map((one) => one.label).join(", ") || "an output tensor"],
    ["Steps", `${model.steps.default} by default, ${model.steps.limit} at most`],
    ["Its rule", rule(model.halting)],
    ["Runs on", `${model.backend}, ${model.device}`],
    ["Parameters", training.parameters?.toLocaleString("en")],
    ["Trained by", training.command],
    ["in", training.seconds && `${Math.round(training.seconds / 60)} min on ${training.device}, torch ${training.torch}`],
    ["Commit", training.commit?.slice(0, 12)],
  ];
  element.innerHTML = `<h2 id="card-title"></h2><div class="two"><dl class="facts"></dl>
    <figure hidden><figcaption></figcaption><canvas></canvas><p class="legend"></p></figure></div>`;
  element.querySelector("h2").textContent = `About ${model.name}@${model.version}`;
  for (const [name, value] of facts.filter(([, one]) => one)) {
    const [term, said] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, said.textContent] = [name, value];
    element.querySelector("dl").append(term, said);
  }
  if (calibration?.points?.length) curve(element.querySelector("figure"), calibration);
}

const rule = ({ criterion, threshold, patience, min_steps: floor }) =>
  criterion === "none"
    ? "all steps"
    : `${criterion} at ${threshold}${patience > 1 ? ` for ${patience} steps` : ""}${floor > 1 ? `, not before step ${floor}` : ""}`;

// Accuracy on the hardest problems against mean steps: a line a criterion.
function curve(figure, { points, description, problems }) {
  figure.hidden = false;
  figure.querySelector("figcaption").textContent = "Calibration: right on the hardest problems, by mean steps";
  figure.querySelector("figcaption").title = description;
  const kinds = Map.groupBy
    ? Map.groupBy(points, (point) => point.criterion)
    : points.reduce((map, point) => map.set(point.criterion, [...(map.get(point.criterion) ?? []), point]), new Map());
  const names = [...kinds.keys()].filter((name) => name !== "none");
  const most = Math.max(2, ...points.filter((point) => point.criterion !== "none").map((point) => point.mean_steps));
  const canvas = figure.querySelector("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute(
    "aria-label",
    names.map((name) => `${name}: up to ${Math.max(...kinds.get(name).map((one) => one.hardest_accuracy))}`).join("; "),
  );
  const hue = (place) => `hsl(${Math.round((360 * place) / names.length + 190)} 60% 50%)`;
  const surface = new Surface(canvas, (pen, width, height) => {
    const [left, right, top, bottom] = [34, 12, 10, 24];
    const x = (steps) => left + (Math.log(Math.max(1, steps)) / Math.log(most)) * (width - left - right);
    const y = (share) => height - bottom - share * (height - top - bottom);
    pen.font = `11px ${ink("mono")}`;
    pen.fillStyle = ink("soft");
    pen.strokeStyle = ink("line");
    for (const share of [0, 0.5, 1]) {
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      pen.fillText(`${100 * share}`, left - 6, y(share));
      pen.strokeRect(left, y(share), width - left - right, 0);
    }
    pen.textAlign = "center";
    pen.textBaseline = "alphabetic";
    for (let steps = 1; steps <= most; steps *= 2) pen.fillText(steps, x(steps), height - 6);
    names.forEach((name, place) => {
      const line = [...kinds.get(name)].sort((a, b) => a.mean_steps - b.mean_steps);
      pen.strokeStyle = pen.fillStyle = hue(place);
      pen.lineWidth = 1.8;
      pen.beginPath();
      line.forEach((point, i) => pen[i ? "lineTo" : "moveTo"](x(point.mean_steps), y(point.hardest_accuracy)));
      pen.stroke();
      for (const point of line) {
        pen.beginPath();
        pen.arc(x(point.mean_steps), y(point.hardest_accuracy), 2.4, 0, 7);
        pen.fill();
      }
    });
  });
  surface.changed();
  figure.querySelector(".legend").replaceChildren(
    ...names.map((name, place) => {
      const [item, mark] = [document.createElement("span"), document.createElement("i")];
      mark.className = "dot";
      mark.style.background = hue(place);
      item.append(mark, name);
      return item;
    }),
    `${problems?.toLocaleString("en") ?? "?"} problems`,
  );
}
