// Lines over steps: probabilities of answers, and small charts of scores with their thresholds.

import { Surface, column, ink } from "./canvas.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [40, 10, 10, 20];

export class Lines {
  // picked(place): somebody has clicked on a step.
  constructor(canvas, picked) {
    this.lines = [];
    this.count = 1;
    this.place = 0;
    this.surface = new Surface(
      canvas,
      (pen, width, height) => this.still(pen, width, height),
      (pen, width, height) => this.cursor(pen, width, height),
    );
    const pick = (event) => {
      const share = (event.offsetX - LEFT) / (canvas.clientWidth - LEFT - RIGHT);
      picked(Math.max(0, Math.min(this.count - 1, Math.floor(share * this.count))));
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pick(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && pick(event));
  }

  // lines: [{values, colour, label?, dashed?, faint?}]; threshold: a line across, or null.
  show({ lines, count, low, high, logarithmic = false, threshold = null, stop = null, summary }) {
    Object.assign(this, { lines, count, low, high, logarithmic, threshold, stop });
    this.surface.canvas.setAttribute("role", "img");
    this.surface.canvas.setAttribute("aria-label", summary);
    this.surface.changed();
  }

  at(place) {
    this.place = place;
    this.surface.moved();
  }

  y(value, height) {
    const [low, high] = this.logarithmic
      ? [Math.log10(this.low), Math.log10(this.high)]
      : [this.low, this.high];
    const on = this.logarithmic ? Math.log10(Math.max(value, this.low)) : value;
    const share = high > low ? (on - low) / (high - low) : 0.5;
    return height - BOTTOM - Math.max(0, Math.min(1, share)) * (height - BOTTOM - TOP);
  }

  still(pen, width, height) {
    if (!this.lines.length) return;
    pen.font = `11px ${ink("mono")}`;
    pen.fillStyle = pen.strokeStyle = ink("soft");
    pen.lineWidth = 1;
    for (const value of [this.low, this.high]) {
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      pen.fillText(short(value, 2), LEFT - 6, this.y(value, height));
    }
    pen.strokeStyle = ink("line");
    for (const value of [this.low, this.high]) this.across(pen, width, this.y(value, height));
    pen.textBaseline = "alphabetic";
    for (const place of new Set([0, this.count - 1])) {
      const x = column(place, this.count, LEFT, width - RIGHT);
      pen.textAlign = place && this.count > 20 ? "right" : "center";
      pen.fillText(String(place + 1), place && this.count > 20 ? width - RIGHT : x, height - 5);
    }
    if (this.threshold !== null) {
      pen.strokeStyle = ink("wave");
      pen.setLineDash([4, 3]);
      this.across(pen, width, this.y(this.threshold, height));
      pen.setLineDash([]);
    }
    this.labels = [];
    for (const line of this.lines) this.line(pen, line, width, height);
    if (this.stop !== null) {
      const x = column(this.stop, this.count, LEFT, width - RIGHT);
      pen.fillStyle = ink("wave");
      pen.beginPath();
      pen.arc(x, this.y(this.lines[0].values[this.stop] ?? this.low, height), 4, 0, 7);
      pen.fill();
    }
  }

  across(pen, width, y) {
    pen.beginPath();
    pen.moveTo(LEFT, y);
    pen.lineTo(width - RIGHT, y);
    pen.stroke();
  }

  line(pen, { values, colour, label, dashed, faint }, width, height) {
    pen.strokeStyle = pen.fillStyle = colour;
    pen.globalAlpha = faint ? 0.4 : 1;
    pen.lineWidth = faint ? 1 : 2;
    pen.lineJoin = "round";
    pen.setLineDash(dashed ? [5, 4] : []);
    pen.beginPath();
    let last = null;
    values.forEach((value, place) => {
      if (value === null || value === undefined) return;
      const at = [column(place, this.count, LEFT, width - RIGHT), this.y(value, height)];
      pen[last ? "lineTo" : "moveTo"](...at);
      last = at;
    });
    pen.stroke();
    pen.setLineDash([]);
    if (values.length <= 40 && !faint)
      values.forEach((value, place) => {
        if (value === null || value === undefined) return;
        pen.beginPath();
        pen.arc(column(place, this.count, LEFT, width - RIGHT), this.y(value, height), 2.6, 0, 7);
        pen.fill();
      });
    if (label && last) {
      pen.textAlign = "right";
      pen.font = `600 12px ${ink("sans")}`;
      let y = last[1] + (last[1] < height / 2 ? 16 : -9);
      while (this.labels.some((other) => Math.abs(other - y) < 14)) y += last[1] < height / 2 ? 15 : -15;
      this.labels.push(y);
      pen.lineWidth = 4;
      pen.strokeStyle = ink("card");
      pen.strokeText(label, width - RIGHT - 4, y);
      pen.fillText(label, width - RIGHT - 4, y);
    }
    pen.globalAlpha = 1;
  }

  cursor(pen, width, height) {
    if (!this.lines.length) return;
    const x = column(this.place, this.count, LEFT, width - RIGHT);
    pen.strokeStyle = ink("ink");
    pen.globalAlpha = 0.55;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x, TOP - 4);
    pen.lineTo(x, height - BOTTOM + 4);
    pen.stroke();
    pen.globalAlpha = 1;
  }
}

export function short(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0 || (Math.abs(value) >= 0.01 && Math.abs(value) < 1e4)) return String(Number(value.toPrecision(digits)));
  return value.toExponential(0);
}
