// Tensors: a grid where a model has one answer for each cell of a square, the JSON itself for the rest.

import { Refusal } from "../api.js";
import { ink } from "../views/canvas.js";
import { paint } from "./logic.js";

export class TensorsBoard {
  constructor(element, { changed, picked, model }) {
    Object.assign(this, { element, changed, picked, model, cells: [], fields: new Map(), grid: null });
  }

  load({ tensors }) {
    this.element.replaceChildren();
    this.fields.clear();
    [this.cells, this.grid] = [[], null];
    for (const [name, value] of Object.entries(tensors)) {
      if (!this.grid && this.model.readout.kind === "tokens" && isGrid(value)) this.makeGrid(name, value);
      else this.makeField(name, value);
    }
  }

  makeGrid(name, value) {
    const flat = value.flat();
    const across = Array.isArray(value[0]) ? value[0].length : Math.sqrt(flat.length);
    const grid = document.createElement("div");
    grid.className = "cells";
    grid.style.gridTemplateColumns = `repeat(${across}, 1fr)`;
    grid.setAttribute("role", "group");
    grid.setAttribute("aria-label", `${name}, ${flat.length / across} by ${across}`);
    grid.dataset.field = `input.tensors.${name}`;
    this.grid = { name, across: Array.isArray(value[0]) ? across : 0 };
    this.cells = flat.map((number, place) => {
      const cell = document.createElement("span");
      cell.className = "token cell";
      const input = document.createElement("input");
      input.inputMode = "decimal";
      input.value = number;
      input.setAttribute("aria-label", `row ${Math.floor(place / across) + 1}, column ${(place % across) + 1}`);
      input.addEventListener("input", this.changed);
      input.addEventListener("dblclick", (event) => this.picked(place, event.shiftKey));
      cell.append(input, document.createElement("b"));
      grid.append(cell);
      return cell;
    });
    this.element.append(grid);
  }

  makeField(name, value) {
    const spec = this.model.inputs.find((one) => one.name === name);
    const label = document.createElement("label");
    label.className = "stack";
    const field = document.createElement("textarea");
    field.className = "mono";
    field.rows = Math.min(8, 1 + (Array.isArray(value) && Array.isArray(value[0]) ? value.length : 1));
    field.spellcheck = false;
    field.value = Array.isArray(value?.[0]) ? `[${value.map((row) => JSON.stringify(row)).join(",\n ")}]` : JSON.stringify(value);
    field.dataset.field = `input.tensors.${name}`;
    field.addEventListener("input", this.changed);
    label.append(`${name} · ${spec?.dtype ?? ""} (${spec?.shape.slice(1).join(", ") ?? ""})`, field);
    this.fields.set(name, field);
    this.element.append(label);
  }

  get problem() {
    const tensors = {};
    if (this.grid) tensors[this.grid.name] = this.rows(this.cells.map((cell) => Number(cell.firstChild.value)));
    for (const [name, field] of this.fields)
      try {
        tensors[name] = JSON.parse(field.value);
      } catch (error) {
        throw new Refusal(0, { field: `input.tensors.${name}`, message: `this is not JSON: ${error.message}` });
      }
    return { tensors };
  }

  rows(flat) {
    const { across } = this.grid;
    return across ? Array.from({ length: flat.length / across }, (_, row) => flat.slice(row * across, (row + 1) * across)) : flat;
  }

  get names() {
    return Array.from({ length: this.cells.length || 4096 }, (_, place) => String(place));
  }

  show(frame, chosen = new Set()) {
    const live = frame && frame.tokens === this.cells.length ? frame : null;
    const colours = { shallow: ink("shallow"), deep: ink("deep"), wave: ink("wave") };
    const label = live?.shown?.label;
    const two = this.model.classes.length === 2; // then one of them is a mark, no word
    this.cells.forEach((cell, place) => {
      paint(cell, live, place, chosen, colours);
      const said = Array.isArray(label) ? label[place] : null;
      cell.classList.toggle("marked", two && said === this.model.classes[1].label);
      const given = cell.firstChild.value;
      cell.classList.toggle("open", !two && said !== null && given === "0"); // nothing stands there yet
      cell.lastChild.textContent = two || said === null || said === given ? "" : said;
    });
  }

  mark() {}
}

const MOST = 1024; // cells; more are edited as JSON

const numbers = (value) => Array.isArray(value) && value.every((one) => typeof one === "number");

const isGrid = (value) =>
  Array.isArray(value) &&
  value.flat().length <= MOST &&
  (numbers(value)
    ? value.length >= 4 && Number.isInteger(Math.sqrt(value.length))
    : value.length > 1 && value.every((row) => numbers(row) && row.length === value[0].length && row.length > 1));
