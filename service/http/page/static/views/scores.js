// A small chart a score: with the threshold where the request's rule, or the usual one, would stop.

import { ink } from "./canvas.js";
import { Lines, short } from "./lines.js";

export class Scores {
  // picked(place): somebody has clicked on a step.
  constructor(element, picked) {
    Object.assign(this, { element, picked, charts: new Map() });
  }

  // halts(name): {above, threshold, patience, own} by which a score would halt, or null.
  show(steps, halts, floor) {
    const names = Object.keys(steps[0].scores ?? {});
    if (names.join() !== [...this.charts.keys()].join()) this.build(names);
    for (const [name, { figure, lines }] of this.charts) {
      const values = steps.map((step) => step.scores?.[name] ?? null);
      const known = values.filter((value) => value !== null);
      const rule = halts(name);
      const stop = rule ? stopOf(values, rule, floor) : null;
      const words = rule ? (stop === null ? "goes on" : `stops at ${steps[stop].step}`) : "";
      figure.classList.toggle("rules", Boolean(rule?.own));
      figure.querySelector("span").textContent = words;
      lines.show({
        lines: [{ values, colour: ink("accent") }],
        count: values.length,
        ...range(known, rule),
        threshold: rule?.threshold ?? null,
        stop,
        summary: `${name} over ${values.length} steps, ${short(known[0])} to ${short(known.at(-1))}; ${words}`,
      });
    }
  }

  build(names) {
    this.charts.clear();
    for (const name of names) {
      const figure = document.createElement("figure");
      figure.innerHTML = "<figcaption><b></b><span></span></figcaption><canvas></canvas>";
      figure.querySelector("b").textContent = name;
      this.charts.set(name, { figure, lines: new Lines(figure.querySelector("canvas"), this.picked) });
    }
    this.element.replaceChildren(...[...this.charts.values()].map(({ figure }) => figure));
  }

  at(place) {
    for (const { lines } of this.charts.values()) lines.at(place);
  }
}

// Decades where a score that must become small spans several of them.
function range(known, rule) {
  const span = [...known, ...(rule ? [rule.threshold] : [])];
  const [low, high] = span.length ? [Math.min(...span), Math.max(...span)] : [0, 1];
  const logarithmic = high > 0 && !rule?.above && high / Math.max(low, 1e-9) > 40;
  const bottom = logarithmic ? Math.max(low, high * 1e-6, 1e-9) : Math.min(low, 0);
  return { low: bottom, high: high > bottom ? high : bottom + 1, logarithmic };
}

// The place of the first step at which a rule would halt, or null.
function stopOf(values, { above, threshold, patience }, floor) {
  let held = 0;
  for (const [place, value] of values.entries()) {
    const holds = value !== null && (above ? value >= threshold : value <= threshold);
    held = holds ? held + 1 : 0;
    if (held >= patience && place + 1 >= floor) return place;
  }
  return null;
}
